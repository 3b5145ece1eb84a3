//! A real build: `examples/c-project`, from mmdebstrap's Debian to the running program.

use std::path::Path;
use std::process::{Command, Stdio};

use tests::{Daemon, Leaks, output, program, ready};

/// What the example's script exits with where mmdebstrap or Debian's mirror is missing; it says which.
const SKIPPED: i32 = 77;

#[test]
fn a_c_project_over_debian() {
    if !ready() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/c-project");
    let mut daemon = Daemon::start(&dir.path().join("daemon"), "");
    let leaks = Leaks::watch(&daemon);
    let mut script = Command::new(example.join("run"));
    script.arg(program()).env("RBUILD_HOST", daemon.addr()).stdin(Stdio::null());
    let done = output(&mut script);
    if done.code == SKIPPED {
        eprintln!("{}", done.stderr);
        return;
    }
    let done = done.ok();
    assert_eq!(done.stdout, tally(&fs_err::read_to_string(example.join("src/tally.c")).unwrap()));
    for part in [
        "] RUN --mount=type=cache,target=/var/cache/apt",
        "] RUN --mount=type=cache,target=/obj",
        "] COPY --from",
    ] {
        assert!(
            done.stderr.lines().any(|l| l.starts_with('#') && l.contains(part)),
            "{part}: {}",
            done.stderr
        );
    }

    // The compiler stayed in its stage.
    let missing = daemon.run(dir.path(), &["run", "--rm", "--entrypoint", "gcc", "c-project"]);
    assert_eq!(missing.code, 127, "{}", missing.stderr);
    daemon.stop();
    leaks.check();
}

/// What the program prints: words by how often they occur, then by the alphabet.
fn tally(text: &str) -> String {
    let mut words = std::collections::BTreeMap::<&str, usize>::new();
    for word in text.split(|c: char| !c.is_ascii_alphabetic()).filter(|w| !w.is_empty()) {
        *words.entry(word).or_default() += 1;
    }
    let mut words: Vec<_> = words.into_iter().collect();
    words.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    words.into_iter().map(|(word, count)| format!("{count} {word}\n")).collect()
}
