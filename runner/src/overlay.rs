//! Overlay mounts that are attached nowhere: the host's mount table is never touched, and closing the
//! descriptor unmounts.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_set_fd, fsconfig_set_string,
};
use serde::{Deserialize, Serialize};

use crate::error::{Doing, RunnerError};
use crate::sys;

/// Directories stacked into one tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Layers in the order in which they were made: **the bottom one first**, as image manifests list them.
    /// May be empty (`FROM scratch`). At most 500, the kernel's limit.
    pub lower: Vec<PathBuf>,
    /// Where writes go; none makes the tree read-only.
    pub upper: Option<Upper>,
}

/// The writable part of an overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upper {
    /// Receives what is written. An existing directory whose owner and mode become those of the tree's root.
    pub dir: PathBuf,
    /// The kernel's scratch space: an existing empty directory on the same file system as `dir`.
    pub work: PathBuf,
}

/// Options that are always given, so that no kernel or module default can change what a layer means.
fn fixed_options() -> [(&'static str, &'static str); 5] {
    // `off` may still mean "follow", which the kernel refuses together with `userxattr`.
    let redirect = if in_user_namespace() { "nofollow" } else { "off" };
    [
        ("redirect_dir", redirect),
        ("metacopy", "off"),
        ("index", "off"),
        ("xino", "off"),
        ("nfs_export", "off"),
    ]
}

/// How overlays are mounted. All ways give the same tree; [`probe`] tells which of them a host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Way {
    /// Layers as descriptors, one option each (Linux 6.13): the kernel looks no path up.
    #[default]
    Descriptors,
    /// Layers by name, one option each (Linux 6.7).
    Names,
    /// All in one string, attached for a moment in a namespace of its own.
    Classic,
}

impl Way {
    /// The best one first.
    pub const ALL: [Self; 3] = [Self::Descriptors, Self::Names, Self::Classic];
}

/// Finds the first of `ways` that works with upper directories in `dir`, an empty directory that the caller removes.
///
/// # Errors
/// Why the first of them does not work, when none does: this file system refuses overlays.
pub fn probe(dir: &Path, ways: &[Way]) -> Result<Way, RunnerError> {
    let mut refusal = None;
    for (n, &way) in ways.iter().enumerate() {
        let place = dir.join(n.to_string());
        make_directory(&place, 0o700)?;
        match try_out(&place, way) {
            Ok(()) => return Ok(way),
            Err(error) => drop(refusal.get_or_insert(error)),
        }
    }
    Err(refusal.unwrap_or_else(|| RunnerError::invalid("no way to mount overlays was given")))
}

/// Makes and removes something through an overlay: a layer needs whiteouts, too.
fn try_out(dir: &Path, way: Way) -> Result<(), RunnerError> {
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| dir.join(name));
    for path in [&lower, &upper, &work, &lower.join("gone")] {
        make_directory(path, 0o700)?;
    }
    let overlay = Overlay { lower: vec![lower], upper: Some(Upper { dir: upper.clone(), work }) };
    let mount = mount_detached(&overlay, way)?;
    let attempt = || "write to an overlay";
    rustix::fs::mkdirat(&mount, "made", Mode::RWXU).doing(attempt)?;
    rustix::fs::unlinkat(&mount, "gone", AtFlags::REMOVEDIR).doing(attempt)?;
    rustix::fs::lstat(upper.join("made")).map(drop).doing(|| "find what was written to an overlay")
}

/// Mounts `overlay` and gives a descriptor of the mount's root. Reads and writes go through it with the `*at` calls; a
/// sandbox attaches it with move_mount. The last descriptor closed unmounts it.
pub fn mount_detached(overlay: &Overlay, way: Way) -> Result<OwnedFd, RunnerError> {
    match way {
        Way::Descriptors => mount_by_options(overlay, |fs, key, dir| fsconfig_set_fd(fs, key, dir)),
        Way::Names => mount_by_options(overlay, |fs, key, dir| {
            // Paths through `/proc/self/fd` stay below the limit of 255 bytes per option.
            fsconfig_set_string(fs, key, sys::fds::path(dir))
        }),
        Way::Classic => mount_classic(overlay),
    }
}

/// Opens the directories of an overlay, top layer first.
fn open_lowers(overlay: &Overlay) -> Result<Vec<OwnedFd>, RunnerError> {
    let mut lowers: Vec<OwnedFd> =
        overlay.lower.iter().rev().map(|dir| open_dir(dir)).collect::<Result<_, _>>()?;
    let needed = if overlay.upper.is_some() { 1 } else { 2 };
    // The kernel refuses fewer; an empty directory below changes nothing.
    if lowers.is_empty() || lowers.len() < needed {
        lowers.push(open_dir(&empty_directory()?)?);
    }
    if overlay.upper.is_none() && lowers.len() < needed {
        return Err(RunnerError::invalid("an overlay needs a layer or an upper directory"));
    }
    Ok(lowers)
}

fn open_dir(path: &Path) -> Result<OwnedFd, RunnerError> {
    // Not O_PATH, which the kernel takes as an option's value only since 6.15.
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| format!("open layer `{}`", path.display()))
}

/// One `lowerdir+` per layer; `set_dir` gives a directory to the kernel.
fn mount_by_options(
    overlay: &Overlay,
    set_dir: impl Fn(BorrowedFd<'_>, &str, BorrowedFd<'_>) -> Result<(), Errno>,
) -> Result<OwnedFd, RunnerError> {
    let lowers = open_lowers(overlay)?;
    let upper = overlay.upper.as_ref().map(|u| Ok((open_dir(&u.dir)?, open_dir(&u.work)?))).transpose()?;
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .doing(|| "open file system `overlay`")?;
    let set = |key: &str, value: &str| {
        fsconfig_set_string(fs.as_fd(), key, value).doing(|| format!("set overlay option `{key}={value}`"))
    };
    let directory = |key: &str, dir: &OwnedFd| {
        set_dir(fs.as_fd(), key, dir.as_fd()).doing(|| format!("set overlay option `{key}`"))
    };
    set("source", "overlay")?;
    for lower in &lowers {
        directory("lowerdir+", lower)?;
    }
    if let Some((dir, work)) = &upper {
        directory("upperdir", dir)?;
        directory("workdir", work)?;
        flag(fs.as_fd(), "volatile")?;
    }
    for (key, value) in fixed_options() {
        set(key, value)?;
    }
    if in_user_namespace() {
        flag(fs.as_fd(), "userxattr")?;
    }
    rustix::mount::fsconfig_create(fs.as_fd())
        .map_err(|errno| creation_failed(fs.as_fd(), overlay, errno))?;
    rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .doing(|| "mount the overlay")
}

fn flag(fs: BorrowedFd<'_>, key: &str) -> Result<(), RunnerError> {
    rustix::mount::fsconfig_set_flag(fs, key).doing(|| format!("set overlay option `{key}`"))
}

/// The kernel writes its reason into the context's log; it says more than the number.
fn creation_failed(fs: BorrowedFd<'_>, overlay: &Overlay, errno: Errno) -> RunnerError {
    let mut log = [0_u8; 512];
    let said = match rustix::io::read(fs, &mut log) {
        Ok(n) => String::from_utf8_lossy(&log[..n]).trim().to_owned(),
        Err(_) => String::new(),
    };
    let on = overlay.upper.as_ref().map_or(String::new(), |u| format!(" with upper `{}`", u.dir.display()));
    RunnerError::os(format!("create an overlay of {} layers{on} ({said})", overlay.lower.len()), errno)
}

/// The old way: all options in one page of text. Layer names are descriptor numbers relative to
/// `/proc/self/fd`, so hundreds fit. It can only attach, so it does so in a mount namespace of a short-lived thread.
fn mount_classic(overlay: &Overlay) -> Result<OwnedFd, RunnerError> {
    let overlay = overlay.clone();
    std::thread::Builder::new()
        .name("overlay".to_owned())
        .spawn(move || mount_in_own_namespace(&overlay))
        .doing(|| "start a thread for the overlay mount")?
        .join()
        .map_err(|_| RunnerError::invalid("the overlay mount thread panicked"))?
}

fn mount_in_own_namespace(overlay: &Overlay) -> Result<OwnedFd, RunnerError> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).doing(|| "unshare the mount namespace")?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .doing(|| "make mounts private")?;
    let lowers = open_lowers(overlay)?;
    let upper = overlay.upper.as_ref().map(|u| Ok((open_dir(&u.dir)?, open_dir(&u.work)?))).transpose()?;
    rustix::process::chdir("/proc/thread-self/fd").doing(|| "enter `/proc/thread-self/fd`")?;
    let numbers: Vec<String> = lowers.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let mut options = format!("lowerdir={}", numbers.join(":"));
    if let Some((dir, work)) = &upper {
        options += &format!(",upperdir={},workdir={},volatile", dir.as_raw_fd(), work.as_raw_fd());
    }
    for (key, value) in fixed_options() {
        options += &format!(",{key}={value}");
    }
    if in_user_namespace() {
        options += ",userxattr";
    }
    let options =
        std::ffi::CString::new(options).map_err(|_| RunnerError::invalid("NUL in overlay options"))?;
    let target = empty_directory()?;
    rustix::mount::mount("overlay", &target, "overlay", MountFlags::empty(), options.as_c_str())
        .doing(|| format!("mount an overlay of {} layers", lowers.len()))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let detached = rustix::mount::open_tree(CWD, &target, flags).doing(|| "detach the overlay mount")?;
    rustix::mount::unmount(&target, UnmountFlags::DETACH).doing(|| "unmount the attached overlay")?;
    Ok(detached)
}

/// Whether ids are mapped, which decides about xattr names and device nodes.
pub fn in_user_namespace() -> bool {
    static MAPPED: OnceLock<bool> = OnceLock::new();
    *MAPPED.get_or_init(|| {
        let map = fs_err::read_to_string("/proc/self/uid_map").unwrap_or_default();
        map.split_whitespace().ne(["0", "0", "4294967295"])
    })
}

/// As [`mount_detached`], with the mount points that every sandbox needs in a layer below all others.
///
/// They show only where the image has none, and need not be made in the upper directory: that would copy up `/etc`
/// and cost half a dozen writes per step.
pub(crate) fn mount_root(overlay: &Overlay, way: Way) -> Result<OwnedFd, RunnerError> {
    let mut with_mount_points = overlay.clone();
    with_mount_points.lower.insert(0, mount_points_layer()?);
    mount_detached(&with_mount_points, way)
}

/// A directory with empty `etc/hosts` and `etc/resolv.conf`.
fn mount_points_layer() -> Result<PathBuf, RunnerError> {
    let layer = own_directory("mount-points", 0o755)?;
    let etc = layer.join("etc");
    make_directory(&etc, 0o755)?;
    for name in ["hosts", "resolv.conf"] {
        let path = etc.join(name);
        let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::from_raw_mode(0o644))
            .doing(|| format!("create `{}`", path.display()))?;
    }
    Ok(layer)
}

/// A directory that is and stays empty: the lowest layer of an overlay that has too few.
fn empty_directory() -> Result<PathBuf, RunnerError> {
    own_directory("empty", 0o555)
}

/// A directory for runtime data, made when missing (a cleaner of such places may have been there).
fn own_directory(purpose: &str, mode: u32) -> Result<PathBuf, RunnerError> {
    let base = if in_user_namespace() || !rustix::process::geteuid().is_root() {
        std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
    } else {
        PathBuf::from("/run")
    };
    let path = base.join(format!("rbuild-{purpose}-{}", uid_outside()));
    make_directory(&path, mode)?;
    // In a place that everybody may write to, somebody else may have been first.
    let stat = rustix::fs::lstat(&path).doing(|| format!("look at `{}`", path.display()))?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if !is_directory || stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_mode & 0o022 != 0 {
        return Err(RunnerError::invalid(format!(
            "`{}` is not a directory of this user alone",
            path.display()
        )));
    }
    Ok(path)
}

/// This user's id as the host sees it.
fn uid_outside() -> u32 {
    let map = fs_err::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let own = rustix::process::geteuid().as_raw();
    match map.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["0", outside, ..] if own == 0 => outside.parse().unwrap_or(own),
        _ => own,
    }
}

fn make_directory(path: &Path, mode: u32) -> Result<(), RunnerError> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(RunnerError::os(format!("create directory `{}`", path.display()), errno)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// All ways of mounting show the same, and nothing of any in the host's mount table.
    #[test]
    fn all_ways_stack_the_same() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: probe root: mounts an overlay");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = dir.path().join(name);
            fs_err::create_dir(&path).unwrap();
            path
        };
        let mut lower = Vec::new();
        for n in 0..120 {
            lower.push(make(&format!("layer-with-a-name-that-is-not-short-{n}")));
            fs_err::write(lower[n].join("top"), n.to_string()).unwrap();
        }
        let before = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
        for way in Way::ALL {
            let name = format!("{way:?}");
            match probe(&make(&format!("{name}-probe")), &[way]) {
                Err(e) if way != Way::Classic => {
                    eprintln!("SKIPPED: probe {name}: this kernel has only older ways: {e}");
                    continue;
                }
                found => assert_eq!(found.unwrap(), way),
            }
            let upper = Upper { dir: make(&format!("{name}-upper")), work: make(&format!("{name}-work")) };
            let overlay = Overlay { lower: lower.clone(), upper: Some(upper.clone()) };
            let fd = mount_detached(&overlay, way).unwrap();
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(fd.as_fd(), "top", flags, Mode::empty()).unwrap();
            let mut text = [0; 8];
            let n = rustix::io::read(&file, &mut text).unwrap();
            assert_eq!(&text[..n], b"119", "{name}");
            rustix::fs::mkdirat(&fd, "made", Mode::RWXU).unwrap();
            assert!(upper.dir.join("made").is_dir(), "{name}");
        }
        assert_eq!(fs_err::read_to_string("/proc/self/mountinfo").unwrap(), before);
    }

    #[test]
    fn few_layers() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: probe root: mounts an overlay");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("f"), "").unwrap();
        let one = Overlay { lower: vec![dir.path().to_owned()], upper: None };
        let way = probe(tempfile::tempdir().unwrap().path(), &Way::ALL).unwrap();
        let fd = mount_detached(&one, way).unwrap();
        assert!(rustix::fs::statat(&fd, "f", AtFlags::empty()).is_ok());
        let none = mount_detached(&Overlay { lower: Vec::new(), upper: None }, way).unwrap_err();
        assert_eq!(
            none.to_string(),
            "invalid sandbox request: an overlay needs a layer or an upper directory"
        );
    }

    /// An overlay's own files cannot be the upper directory of another, which stands for all file systems that refuse.
    #[test]
    fn a_file_system_that_refuses_is_told() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: probe root: mounts an overlay");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let [lower, upper, work] = ["lower", "upper", "work"].map(|name| dir.path().join(name));
        for path in [&lower, &upper, &work] {
            fs_err::create_dir(path).unwrap();
        }
        let outer = Overlay { lower: vec![lower], upper: Some(Upper { dir: upper, work }) };
        let mount = mount_detached(&outer, Way::Classic).unwrap();
        rustix::fs::mkdirat(&mount, "inside", Mode::RWXU).unwrap();
        let inside = PathBuf::from(sys::fds::path(mount.as_fd())).join("inside");
        let refusal = probe(&inside, &Way::ALL).unwrap_err().to_string();
        assert!(refusal.contains("overlay"), "{refusal}");
    }
}
