//! Secret seeds by registry, in the file that docker's tools keep them in.
//!
//! A key that is made of a seed says nothing of the password, and is the same for all clients of one docker
//! configuration, so that a daemon may use again what it has for one of them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use serde::{Deserialize, Serialize};

/// Bytes of a new seed.
const LENGTH: usize = 16;

/// One entry of the file; bytes are base64, as Go's JSON has them.
#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "Seed")]
    seed: String,
}

/// The seed for a host, made on first use.
pub(super) fn of(host: &str) -> io::Result<Vec<u8>> {
    in_dir(&docker_dir()?, host)
}

/// Where docker's configuration is.
fn docker_dir() -> io::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("DOCKER_CONFIG").filter(|dir| !dir.is_empty()) {
        return Ok(dir.into());
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let home = home.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "$HOME is not set"))?;
    Ok(Path::new(&home).join(".docker"))
}

fn in_dir(dir: &Path, host: &str) -> io::Result<Vec<u8>> {
    let lock = rustix::fs::open(
        dir.join(".token_seed.lock"),
        OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o600),
    );
    // In a directory that cannot be written each seed is new, and the daemon fetches each token anew.
    let lock = lock.ok().filter(|lock| flock(lock, FlockOperation::LockExclusive).is_ok());
    let file = dir.join(".token_seed");
    let text = fs_err::read(&file).unwrap_or_default();
    // A file that was cut short by a crash counts as none.
    let mut entries: BTreeMap<String, Entry> = serde_json::from_slice(&text).unwrap_or_default();
    if let Some(seed) = entries.get(host).and_then(|entry| BASE64_STANDARD.decode(&entry.seed).ok()) {
        return Ok(seed);
    }
    let mut seed = vec![0; LENGTH];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())?;
    entries.insert(host.to_owned(), Entry { seed: BASE64_STANDARD.encode(&seed) });
    if lock.is_some() {
        write(&file, &serde_json::to_vec_pretty(&entries)?)?;
    }
    Ok(seed)
}

/// Writes a file that only its owner reads.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    use fs_err::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs_err::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_seed_stays() {
        let dir = tempfile::tempdir().unwrap();
        let docker = br#"{"other": {"Seed": "AAECAwQFBgcICQoLDA0ODw=="}}"#;
        std::fs::write(dir.path().join(".token_seed"), docker).unwrap();
        let first = in_dir(dir.path(), "host").unwrap();
        assert_eq!(first.len(), LENGTH);
        assert_eq!(in_dir(dir.path(), "host").unwrap(), first);
        assert_eq!(in_dir(dir.path(), "other").unwrap(), (0..16).collect::<Vec<u8>>());
        assert_ne!(in_dir(dir.path(), "third").unwrap(), first);
        let new = tempfile::tempdir().unwrap();
        in_dir(new.path(), "host").unwrap();
        let mode = std::fs::metadata(new.path().join(".token_seed")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(in_dir(Path::new("/nonexistent"), "host").unwrap().len(), LENGTH);
    }
}
