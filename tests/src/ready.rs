//! Whether this machine can run the suites.

use std::path::Path;

/// Whether everything that the suites need is there; says what is not.
pub fn ready() -> bool {
    let missing: Vec<&str> = [
        (nix::unistd::geteuid().is_root(), "root"),
        (Path::new("/bin/busybox").exists(), "busybox-static"),
        (program("docker-registry").is_some(), "docker-registry"),
        (Path::new("/proc/self/ns/net").exists(), "network namespaces"),
    ]
    .into_iter()
    .filter_map(|(there, name)| (!there).then_some(name))
    .collect();
    if !missing.is_empty() {
        eprintln!("SKIPPED: needs {}", missing.join(", "));
    }
    missing.is_empty()
}

/// A program in `PATH`.
pub(crate) fn program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file())
}
