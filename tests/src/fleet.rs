//! Several machines that pull one base image.

use crate::{Auth, Registry, Scene, ready};

/// Machines with roots of their own, and a registry that has their base image.
#[derive(Debug)]
pub struct Fleet {
    /// The machines.
    pub machines: Vec<Scene>,
    /// Where they have their base image from.
    pub registry: Registry,
}

impl Fleet {
    /// So many machines; `None` where this one cannot run them.
    pub fn new(count: usize) -> Option<Self> {
        if !ready() {
            return None;
        }
        let machines: Vec<Scene> = (0..count).map(|_| Scene::new()).collect();
        let registry = machines[0].registry(Auth::Open);
        let fleet = Self { machines, registry };
        let (first, base) = (&fleet.machines[0], fleet.base());
        first.run(&["tag", "base", &base]).ok();
        first.run(&["push", "-q", &base]).ok();
        // The image as it was made is another one than the image as it is pulled: its times are cut to seconds.
        first.run(&["rmi", &base, "base"]).ok();
        first.run(&["prune", "--all", "--force"]).ok();
        Some(fleet)
    }

    /// The base image.
    pub fn base(&self) -> String {
        format!("{}/base:1", self.registry.host())
    }
}
