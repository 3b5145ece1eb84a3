//! Which hierarchies and controllers there are.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

use super::unified;
use crate::error::{Doing, RunnerError};

/// One line of `/proc/self/cgroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Controllers, or `name=…`; empty for the unified hierarchy.
    controllers: Vec<String>,
    /// This process's cgroup in it.
    path: PathBuf,
}

impl Hierarchy {
    pub(crate) fn is_unified(&self) -> bool {
        self.controllers.is_empty()
    }

    /// The usual name of its directory below `/sys/fs/cgroup`.
    pub(crate) fn directory(&self) -> String {
        match self.controllers.as_slice() {
            [] => "unified".to_owned(),
            [only] => only.strip_prefix("name=").unwrap_or(only).to_owned(),
            several => several.join(","),
        }
    }

    /// Options that mount this version 1 hierarchy; none for the unified one.
    pub(crate) fn mount_options(&self) -> Option<Vec<(String, String)>> {
        if self.is_unified() {
            return None;
        }
        let mut options = Vec::new();
        for controller in &self.controllers {
            match controller.strip_prefix("name=") {
                Some(name) => {
                    options.push(("none".to_owned(), String::new()));
                    options.push(("name".to_owned(), name.to_owned()));
                }
                None => options.push((controller.clone(), String::new())),
            }
        }
        Some(options)
    }
}

/// The hierarchies that this process is in.
pub(crate) fn hierarchies() -> Result<Vec<Hierarchy>, RunnerError> {
    let text = fs_err::read_to_string("/proc/self/cgroup").doing(|| "read `/proc/self/cgroup`")?;
    Ok(parse_hierarchies(&text))
}

fn parse_hierarchies(text: &str) -> Vec<Hierarchy> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let controllers =
                fields.next()?.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            Some(Hierarchy { controllers, path: PathBuf::from(fields.next()?) })
        })
        .collect()
}

/// Where a controller's files are, and how they are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Controller {
    pub version: Version,
    /// The hierarchy's top, as far as it shows here.
    pub top: PathBuf,
    /// Directory that our parent cgroup is made in.
    pub base: PathBuf,
}

/// Which kind of cgroup a controller belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A hierarchy of its own.
    V1,
    /// The unified hierarchy.
    V2,
}

/// What this host can limit. Hybrid hosts have some controllers in either version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Support {
    /// Memory limits.
    pub memory: Option<Version>,
    /// CPU limits.
    pub cpu: Option<Version>,
    /// Limits of the number of processes.
    pub pids: Option<Version>,
}

impl Support {
    /// Looks at this host, as this process sees it. A limit on what is missing is refused, so ask before setting defaults.
    #[must_use]
    pub fn detect() -> Self {
        let usable = |controller: &Controller| permits(&controller.base, Access::WRITE_OK);
        let version = |name| find(name).ok().flatten().filter(usable).map(|controller| controller.version);
        Self { memory: version("memory"), cpu: version("cpu"), pids: version("pids") }
    }
}

/// Whether this process may use a file so.
pub(super) fn permits(path: &Path, access: Access) -> bool {
    rustix::fs::accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}

/// Finds a controller by name.
pub(crate) fn find(name: &str) -> Result<Option<Controller>, RunnerError> {
    let mounts = mounts()?;
    let own = hierarchies()?;
    if let Some(mount) = mounts.lines().filter_map(CgroupMount::parse).find(|mount| mount.has(name)) {
        let hierarchy = own.iter().find(|h| h.controllers.iter().any(|c| c == name));
        let base = hierarchy.map_or_else(|| mount.point.to_owned(), |h| mount.below(&h.path));
        return Ok(Some(Controller { version: Version::V1, top: mount.point.to_owned(), base }));
    }
    Ok(unified_mount(&mounts, &own).and_then(|(top, own)| {
        let base = unified::base(top, &own, name)?;
        Some(Controller { version: Version::V2, top: top.to_owned(), base })
    }))
}

/// This process's own group in the unified hierarchy.
pub(super) fn own_unified() -> Result<Option<PathBuf>, RunnerError> {
    Ok(unified_mount(&mounts()?, &hierarchies()?).map(|(_, own)| own))
}

fn mounts() -> Result<String, RunnerError> {
    fs_err::read_to_string("/proc/self/mountinfo").doing(|| "read `/proc/self/mountinfo`")
}

/// Where the unified hierarchy shows, and our own group there. The last mount is the one that shows.
fn unified_mount<'a>(mounts: &'a str, own: &[Hierarchy]) -> Option<(&'a Path, PathBuf)> {
    let mount = mounts.lines().rev().filter_map(CgroupMount::parse).find(|mount| mount.unified)?;
    let hierarchy = own.iter().find(|h| h.is_unified());
    Some((mount.point, hierarchy.map_or_else(|| mount.point.to_owned(), |h| mount.below(&h.path))))
}

/// A line of mountinfo that shows cgroups.
struct CgroupMount<'a> {
    root: &'a Path,
    point: &'a Path,
    unified: bool,
    options: Vec<&'a str>,
}

impl<'a> CgroupMount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let unified = match *right.first()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let options = right.get(2)?.split(',').collect();
        Some(Self { root: Path::new(*left.get(3)?), point: Path::new(*left.get(4)?), unified, options })
    }

    /// Whether it shows this controller's version 1 hierarchy.
    fn has(&self, controller: &str) -> bool {
        !self.unified && self.options.contains(&controller)
    }

    /// Where a cgroup of this hierarchy appears; the mount's top when it lies outside of what is mounted.
    fn below(&self, cgroup: &Path) -> PathBuf {
        let relative = cgroup.strip_prefix(self.root).unwrap_or(Path::new(""));
        let path = self.point.join(relative);
        if path.is_dir() { path } else { self.point.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_all_kinds() {
        let text = "9:name=systemd:/\n4:memory:/a/b\n2:cpu,cpuacct:/\n0::/user.slice\n";
        let found = parse_hierarchies(text);
        let names: Vec<_> = found.iter().map(Hierarchy::directory).collect();
        assert_eq!(names, ["systemd", "memory", "cpu,cpuacct", "unified"]);
        assert!(found[3].is_unified() && found[3].mount_options().is_none());
        assert_eq!(found[1].path, Path::new("/a/b"));
        let options = found[0].mount_options().unwrap();
        assert_eq!(options, [("none".to_owned(), String::new()), ("name".to_owned(), "systemd".to_owned())]);
    }

    #[test]
    fn mountinfo_lines() {
        let line = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory";
        let mount = CgroupMount::parse(line).unwrap();
        assert_eq!((mount.point, mount.unified), (Path::new("/sys/fs/cgroup/memory"), false));
        assert_eq!(mount.options, ["rw", "memory"]);
        assert!(CgroupMount::parse("22 27 0:21 / /proc rw - proc proc rw").is_none());
    }
}
