//! A daemon of an ordinary user with subordinate ids. Started by root, who can become that user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::support::{busybox_root, is_root, skip};

/// The first ordinary user that has subordinate ids: uid and gid.
fn user() -> Option<(u32, u32)> {
    let text = fs::read_to_string("/etc/subuid").unwrap_or_default();
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    text.lines().find_map(|line| {
        let name = line.split(':').next()?;
        let entry: Vec<&str> =
            passwd.lines().find(|entry| entry.starts_with(&format!("{name}:")))?.split(':').collect();
        let (uid, gid) = (entry.get(2)?.parse().ok()?, entry.get(3)?.parse().ok()?);
        (uid != 0).then_some((uid, gid))
    })
}

fn step(network: &str, script: &str) -> Option<(bool, String)> {
    let (true, Some((uid, gid))) = (is_root(), user()) else {
        skip("probe subuid: no ordinary user has subordinate ids in /etc/subuid");
        return None;
    };
    let launcher = Path::new(env!("CARGO_BIN_EXE_runner-launcher"));
    let example = launcher.parent().unwrap().join("examples/step_cost");
    if !example.exists() {
        skip("probe examples: examples/step_cost is not built");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The images of an ordinary user belong to it.
    busybox_root(&dir.path().join("base"));
    let owned =
        Command::new("chown").args(["-R", &format!("{uid}:{gid}")]).arg(dir.path().join("base")).status();
    assert!(owned.unwrap().success());
    let program = dir.path().join("step");
    fs::copy(example, &program).unwrap();
    let scratch = dir.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    std::os::unix::fs::chown(&scratch, Some(uid), Some(gid)).unwrap();
    let output = Command::new(&program)
        .args([dir.path().join("base").to_str().unwrap(), network, "1", script])
        .env("TMPDIR", &scratch)
        .env_remove("XDG_RUNTIME_DIR")
        .gid(gid)
        .uid(uid)
        .output()
        .unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // Files of subordinate ids are root's to remove.
    Some((output.status.success(), text))
}

#[test]
fn steps_run_for_an_ordinary_user() {
    let script = "id -u; chown 1000:1000 /tmp && stat -c %u /tmp; grep -e CapEff -e Seccomp: /proc/self/status; \
                  echo x > /dev/null && ls /dev/shm | wc -l; mkdir /made && echo made";
    let Some((success, text)) = step("none", script) else { return };
    assert!(success, "{text}");
    for part in ["0\n1000\n", "CapEff:\t00000000a80425fb", "Seccomp:\t2", "made\n"] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}

#[test]
fn host_network_works_and_isolated_is_refused_with_a_hint() {
    let Some((success, text)) = step("host", "echo fine; ls /sys | wc -l") else { return };
    assert!(success && text.starts_with("fine\n"), "{text}");
    let Some((success, text)) = step("isolated", "true") else { return };
    assert!(!success && text.contains("--network=host or --network=none"), "{text}");
}
