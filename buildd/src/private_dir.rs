//! The directory that the user's own daemon is found in.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

/// Makes a directory that only its owner can change, and refuses one that somebody else has made or can change: whoever
/// puts a socket there poses as the user's daemon, which is given credentials and secrets.
///
/// # Errors
/// It cannot be made, or is refused.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let meta = std::fs::symlink_metadata(dir)?;
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused("it belongs to somebody else"));
    }
    match meta.mode() & 0o022 {
        0 => Ok(()),
        _ => Err(refused("others can write to it")),
    }
}

fn refused(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, reason)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_what_nobody_else_can_change_is_private() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("a/b");
        private_dir(&dir).unwrap();
        private_dir(&dir).unwrap();
        for (mode, private) in [(0o755, true), (0o700, true), (0o770, false), (0o702, false)] {
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(private_dir(&dir).is_ok(), private, "{mode:o}");
        }
        let link = tmp.path().join("link");
        std::os::unix::fs::symlink(&dir, &link).unwrap();
        assert!(private_dir(&link).is_err());
    }
}
