//! Base images: the root file system of a busybox.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Makes a root file system with busybox and its applets in `dir`.
///
/// # Panics
/// When the directory cannot be written.
pub fn busybox(dir: &Path) {
    for sub in ["bin", "etc", "tmp", "root", "home/user", "usr/bin", "var"] {
        fs_err::create_dir_all(dir.join(sub)).expect("a directory");
    }
    fs_err::set_permissions(dir.join("tmp"), std::fs::Permissions::from_mode(0o1777)).expect("a mode");
    fs_err::copy("/bin/busybox", dir.join("bin/busybox")).expect("busybox-static is installed");
    let list = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs").stdout;
    for applet in String::from_utf8_lossy(&list).lines().filter(|a| *a != "busybox") {
        fs_err::os::unix::fs::symlink("busybox", dir.join("bin").join(applet)).expect("a link");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n";
    fs_err::write(dir.join("etc/passwd"), passwd).expect("a file");
    fs_err::write(dir.join("etc/group"), "root:x:0:\nstaff:x:50:user\nuser:x:1000:\n").expect("a file");
}

/// Writes a build context: pairs of path and content.
///
/// # Panics
/// When it cannot be written.
pub fn context(dir: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = dir.join(path);
        fs_err::create_dir_all(path.parent().expect("below the context")).expect("a directory");
        fs_err::write(path, content).expect("a file");
    }
}
