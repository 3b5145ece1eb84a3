//! A file system in a file, whose power can be cut.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::output;

/// What a [`Disk`] is formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// Journals metadata every five seconds.
    Ext4,
    /// Journals metadata every thirty seconds.
    Xfs,
}

/// Enough for a few copies of a test's images, and for the least that mkfs.xfs accepts.
const SIZE: u64 = 1 << 30;

/// Stops the file system at `argv[1]` as a power cut would: what is not on disk stays off it, the journal too.
/// The number is `_IOR('X', 125, u32)`, `XFS_IOC_GOINGDOWN` and `EXT4_IOC_SHUTDOWN`; 2 is `NOLOGFLUSH`. Python,
/// as these crates have no unsafe code.
const SHUTDOWN: &str = "
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))
";

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    file: PathBuf,
    at: PathBuf,
    device: Option<String>,
}

impl Disk {
    /// Makes a file system in the file `file` and mounts it at `at`; says why where that cannot be done here.
    ///
    /// # Errors
    /// The probe that failed: the programs, loop devices, the mount, or the shutdown ioctl.
    pub fn try_new(kind: FileSystem, file: &Path, at: &Path) -> Result<Self, String> {
        let mut disk = Self::with_size(kind, SIZE, file, at)?;
        disk.try_cut()?;
        disk.unmount();
        disk.try_mount()?;
        Ok(disk)
    }

    /// As [`Self::try_new`], with `size` bytes, and without a look at whether its power can be cut.
    ///
    /// # Errors
    /// The probe that failed.
    pub fn with_size(kind: FileSystem, size: u64, file: &Path, at: &Path) -> Result<Self, String> {
        fs_err::create_dir_all(at).map_err(|e| e.to_string())?;
        fs_err::File::create(file).and_then(|f| f.set_len(size)).map_err(|e| e.to_string())?;
        let mkfs: &[&str] = match kind {
            FileSystem::Ext4 => &["mkfs.ext4", "-q", "-F"],
            FileSystem::Xfs => &["mkfs.xfs", "-q", "-f"],
        };
        run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(file))?;
        let mut disk = Self { file: file.to_owned(), at: at.to_owned(), device: None };
        disk.try_mount()?;
        // The daemon wants its root empty.
        let _ = fs_err::remove_dir(at.join("lost+found"));
        Ok(disk)
    }

    /// Cuts the power: nothing reaches the disk any more.
    ///
    /// # Panics
    /// When the file system cannot be stopped.
    pub fn cut(&self) {
        self.try_cut().expect("it worked before");
    }

    /// Unmounts and mounts again, when nobody uses it any more.
    ///
    /// # Panics
    /// When the file system cannot be mounted.
    pub fn again(&mut self) {
        self.unmount();
        self.try_mount().expect("it was mounted before");
    }

    fn try_cut(&self) -> Result<(), String> {
        let out = Command::new("python3")
            .args(["-c", SHUTDOWN])
            .arg(&self.at)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("python3: {e}"))?;
        let reason = || format!("shutdown ioctl: {}", String::from_utf8_lossy(&out.stderr));
        if out.status.success() { Ok(()) } else { Err(reason()) }
    }

    fn try_mount(&mut self) -> Result<(), String> {
        let device = run(Command::new("losetup").args(["--find", "--show"]).arg(&self.file))?;
        let device = device.trim().to_owned();
        self.device = Some(device.clone());
        run(Command::new("mount").arg(device).arg(&self.at)).map(drop)
    }

    /// Those who use the file system are about to end; until then it is busy.
    fn unmount(&mut self) {
        let begun = Instant::now();
        while let Err(reason) = run(Command::new("umount").arg(&self.at)) {
            if !mounted(&self.at) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{reason}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let Some(device) = self.device.take() else { return };
        // The device goes with its last user: a mount namespace that is about to end may hold it a little longer.
        let _ = run(Command::new("losetup").arg("--detach").arg(&device));
        while attached(&device, &self.file) {
            assert!(begun.elapsed() < Duration::from_secs(20), "`{device}` stays in use");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = output(Command::new("umount").arg("--lazy").arg(&self.at));
        if let Some(device) = self.device.take() {
            let _ = output(Command::new("losetup").arg("--detach").arg(device));
        }
    }
}

/// Whether `device` still has `file` behind it.
fn attached(device: &str, file: &Path) -> bool {
    let name = device.trim_start_matches("/dev/");
    let backing = fs_err::read_to_string(format!("/sys/block/{name}/loop/backing_file"));
    backing.is_ok_and(|behind| Path::new(behind.trim_end()) == file)
}

fn mounted(at: &Path) -> bool {
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|m| Path::new(m) == at))
}

fn run(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.output().map_err(|e| format!("{name}: {e}"))?;
    if !out.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&out.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}
