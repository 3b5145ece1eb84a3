//! A point in a build: files, and what commands run with.

use solver::op::{NetMode, Platform};

use crate::config::ImageConfig;
use crate::lower::arena::Output;
use crate::lower::env::{EnvList, split};
use crate::lower::path;
use crate::lower::variables::Variables;
use crate::platform;

/// Files, environment and defaults at a point of a stage.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// The files; `None` is none.
    pub(crate) output: Option<Output>,
    /// Variables, ARGs included.
    pub(crate) env: EnvList,
    /// What the file says of them.
    pub(crate) variables: Variables,
    /// The working directory, absolute.
    pub(crate) dir: String,
    /// The user, as USER names it.
    pub(crate) user: String,
    /// The host name; empty is the usual one.
    pub(crate) hostname: String,
    /// The network where a command does not choose.
    pub(crate) network: NetMode,
    /// What commands run on, normalised; `None` is the target's.
    pub(crate) platform: Option<Platform>,
}

impl State {
    /// No files.
    pub(crate) fn scratch() -> Self {
        Self::of(None)
    }

    /// An output's files and nothing else.
    pub(crate) fn of(output: Option<Output>) -> Self {
        Self {
            output,
            env: EnvList::default(),
            variables: Variables::default(),
            dir: "/".to_owned(),
            user: String::new(),
            hostname: String::new(),
            network: NetMode::Unset,
            platform: None,
        }
    }

    /// For another platform.
    pub(crate) fn on(mut self, platform: &Platform) -> Self {
        self.platform = Some(platform::normalize(platform));
        self
    }

    /// With an image's variables, working directory and platform.
    pub(crate) fn with_config(mut self, image: &ImageConfig) -> Self {
        for entry in &image.config.env {
            let (key, value) = split(entry);
            if !key.is_empty() {
                self.env.set(key, value);
            }
        }
        self.set_dir(&image.config.working_dir);
        if image.architecture.is_empty() || image.os.is_empty() { self } else { self.on(&image.platform()) }
    }

    /// Changes the working directory; a relative one starts from the old.
    pub(crate) fn set_dir(&mut self, dir: &str) {
        self.dir = if dir.starts_with('/') { dir.to_owned() } else { path::join(&self.dir, dir) };
    }
}

impl Default for State {
    fn default() -> Self {
        Self::scratch()
    }
}
