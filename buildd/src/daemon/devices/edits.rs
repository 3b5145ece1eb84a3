//! What a device does to the sandbox of a step.

use std::path::Path;
use std::sync::Arc;

use runner::{Device as HostDevice, Mount, MountSource, SandboxSpec};
use solver::op::CdiDevice;

use super::file::{Bind, Edits, Node};
use super::{Devices, Unregistered, find};

/// A device that no sandbox can be given.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum InjectError {
    #[error(transparent)]
    Unregistered(#[from] Unregistered),
    #[error("CDI device injection failed: `{device}` wants {what}, which steps here cannot have")]
    Unfit { device: String, what: &'static str },
}

impl Devices {
    /// Gives a step the devices that it asks for. Blocking.
    ///
    /// # Errors
    /// A device that is gone and not optional, or that wants more than a sandbox can give.
    pub(in crate::daemon) fn inject(
        &self,
        wanted: &[CdiDevice],
        spec: &mut SandboxSpec,
    ) -> Result<(), InjectError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let all = self.all();
        let mut files: Vec<Arc<Edits>> = Vec::new();
        for name in find(&all, wanted)? {
            let Some(device) = all.get(&name) else { continue };
            // What is common to a file's devices is done once.
            if !files.iter().any(|file| Arc::ptr_eq(file, &device.common)) {
                files.push(device.common.clone());
                apply(&name, &device.common, spec)?;
            }
            apply(&name, &device.own, spec)?;
        }
        Ok(())
    }
}

fn apply(device: &str, edits: &Edits, spec: &mut SandboxSpec) -> Result<(), InjectError> {
    let Edits { env, device_nodes, mounts, hooks, intel_rdt, net_devices, additional_gids } = edits;
    let unfit = [
        (!hooks.is_empty(), "programs of the host to be run (hooks)"),
        (intel_rdt.is_some(), "a class of Intel RDT"),
        (!net_devices.is_empty(), "network devices"),
    ];
    if let Some((_, what)) = unfit.into_iter().find(|(wanted, _)| *wanted) {
        return Err(InjectError::Unfit { device: device.to_owned(), what });
    }
    for variable in env {
        let name = variable.split('=').next().unwrap_or_default();
        spec.env.retain(|known| known.split('=').next() != Some(name));
        spec.env.push(variable.clone());
    }
    spec.devices.extend(device_nodes.iter().map(node));
    spec.mounts.extend(mounts.iter().map(bind));
    for gid in additional_gids.iter().filter(|gid| **gid != 0) {
        if !spec.user.groups.contains(gid) {
            spec.user.groups.push(*gid);
        }
    }
    Ok(())
}

fn node(node: &Node) -> HostDevice {
    let host = node.host_path.as_deref().filter(|path| *path != Path::new(""));
    HostDevice {
        host: host.unwrap_or(&node.path).to_owned(),
        target: node.path.clone(),
        writable: node.permissions.as_deref().is_none_or(|given| given.is_empty() || given.contains('w')),
    }
}

fn bind(bind: &Bind) -> Mount {
    Mount {
        target: bind.container_path.clone(),
        source: MountSource::Volume { path: bind.host_path.clone() },
        read_only: bind.options.iter().any(|option| option == "ro"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_gives() {
        let text = r#"{
            "env": ["A=new"],
            "deviceNodes": [{"path": "/dev/x", "hostPath": "/dev/null"}, {"path": "/dev/y", "permissions": "r"}],
            "mounts": [{"hostPath": "/lib/x", "containerPath": "/usr/lib/x", "options": ["ro", "bind"]}],
            "additionalGids": [44, 0]
        }"#;
        let edits: Edits = serde_json::from_str(text).unwrap();
        let mut spec = SandboxSpec::new(runner::RootFs::Directory("/".into()), vec!["x".to_owned()]);
        spec.env = vec!["A=old".to_owned(), "AB=kept".to_owned()];
        apply("v/c=d", &edits, &mut spec).unwrap();
        assert_eq!(spec.env, ["AB=kept", "A=new"]);
        let nodes: Vec<_> =
            spec.devices.iter().map(|d| (d.host.to_str(), d.target.to_str(), d.writable)).collect();
        assert_eq!(
            nodes,
            [(Some("/dev/null"), Some("/dev/x"), true), (Some("/dev/y"), Some("/dev/y"), false)]
        );
        assert!(spec.mounts[0].read_only && spec.mounts[0].target == Path::new("/usr/lib/x"));
        assert_eq!(spec.user.groups, [44]);
        let hooked = Edits { hooks: vec![serde_json::Value::Null], ..Edits::default() };
        let error = apply("v/c=d", &hooked, &mut spec).unwrap_err().to_string();
        assert!(error.starts_with("CDI device injection failed: `v/c=d` wants programs"), "{error}");
    }
}
