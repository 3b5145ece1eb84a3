//! The scripts of `.ci`, on machines that lack what they need.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tests::{Output, output};

/// Runs `.ci/rust` with nothing in `PATH` but a shell and a `curl` that does `curl`.
fn rust(home: &Path, curl: &str) -> Output {
    let bin = home.join("bin");
    fs_err::create_dir_all(&bin).unwrap();
    for tool in ["bash", "sh", "sed", "dirname", "cat", "mkdir", "chmod"] {
        let found =
            ["/bin", "/usr/bin"].map(|dir| Path::new(dir).join(tool)).into_iter().find(|p| p.exists());
        symlink(found.expect("a tool of every Debian"), bin.join(tool)).unwrap();
    }
    let path = bin.join("curl");
    fs_err::write(&path, format!("#!/bin/sh\n{curl}\n")).unwrap();
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/rust");
    output(Command::new("/bin/bash").arg(script).env_clear().env("PATH", &bin).env("HOME", home))
}

#[test]
fn without_rust_and_without_a_network_it_is_said_what_to_do() {
    let home = TempDir::new().unwrap();
    let out = rust(home.path(), "echo 'curl: (6) Could not resolve host' >&2; exit 6").fails();
    for part in [
        "https://sh.rustup.rs",
        "https://static.rust-lang.org",
        "`cargo`",
        "apt-get install",
        "Could not resolve",
    ] {
        assert!(out.stderr.contains(part), "`{part}`: {}", out.stderr);
    }
}

/// The second place is asked when the first cannot be reached, and what it gives is run.
#[test]
fn without_rust_rustup_is_installed() {
    let home = TempDir::new().unwrap();
    let installer = "mkdir -p $HOME/.cargo/bin; echo '#!/bin/sh\necho cargo 1.2.3' > $HOME/.cargo/bin/cargo; \
                     chmod +x $HOME/.cargo/bin/cargo; echo installed with $*";
    let curl = format!("case \"$*\" in *sh.rustup.rs*) exit 6;; esac; cat <<'END'\n{installer}\nEND");
    let out = rust(home.path(), &curl).ok();
    assert!(out.stdout.contains("installed with -y --profile minimal"), "{}", out.stdout);
    assert!(out.stdout.ends_with("cargo 1.2.3\n"), "{}", out.stdout);
}
