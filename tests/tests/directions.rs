//! Who may know whom: the crates' directions, read from `cargo tree`.

use std::collections::BTreeSet;
use std::process::Command;

const OURS: [&str; 8] = ["proto", "solver", "frontend", "cache", "runner", "buildd", "tests", "fuzz"];

/// The packages below `package` in normal builds, with these features.
fn below(package: &str, features: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = Command::new(cargo)
        .args([
            "tree",
            "--locked",
            "--offline",
            "-e",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "-p",
            package,
        ])
        .args(features)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let names = String::from_utf8(out.stdout).expect("cargo prints UTF-8");
    let names: BTreeSet<String> =
        names.lines().filter_map(|l| l.split(' ').next()).map(str::to_owned).collect();
    names.into_iter().filter(|n| n != package).collect()
}

fn ours(package: &str) -> Vec<String> {
    below(package, &[]).into_iter().filter(|n| OURS.contains(&n.as_str())).collect()
}

#[test]
fn crates_point_downwards() {
    for leaf in ["proto", "solver", "runner"] {
        assert_eq!(ours(leaf), Vec::<String>::new(), "`{leaf}` is a leaf");
    }
    assert_eq!(ours("frontend"), ["solver"]);
    assert_eq!(ours("cache"), ["solver"]);
    assert_eq!(ours("buildd"), ["cache", "frontend", "proto", "runner", "solver"]);
}

#[test]
fn the_frontend_reaches_no_io() {
    let reached = below("frontend", &[]);
    for forbidden in ["tokio", "rocksdb", "reqwest", "tonic"] {
        assert!(!reached.contains(forbidden), "the frontend reaches `{forbidden}`");
    }
}

#[test]
fn the_runner_reaches_no_runtime() {
    assert!(!below("runner", &[]).contains("tokio"));
}

#[test]
fn only_buildd_knows_the_protocol() {
    for package in ["solver", "frontend", "cache", "runner"] {
        let reached = below(package, &[]);
        for forbidden in ["tonic", "prost", "proto"] {
            assert!(!reached.contains(forbidden), "`{package}` reaches `{forbidden}`");
        }
    }
}

/// The half of `buildd` that is the client never imports the daemon's half.
#[test]
fn the_command_line_does_not_import_the_daemon() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../buildd/src");
    let mut seen = 0;
    let mut todo = ["cli", "client", "progress"].map(|d| root.join(d)).to_vec();
    while let Some(dir) = todo.pop() {
        for entry in fs_err::read_dir(&dir).expect("the half exists") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                todo.push(path);
                continue;
            }
            seen += 1;
            let text = fs_err::read_to_string(&path).expect("UTF-8");
            // One verb starts the daemon; it is the bridge.
            if path.ends_with("cli/daemon.rs") {
                continue;
            }
            assert!(!text.contains("crate::daemon"), "`{}` imports the daemon's half", path.display());
        }
    }
    assert!(seen > 5);
}
