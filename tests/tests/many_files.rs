//! A context of very many files: 50,000, or a million with `RBUILD_SOAK=1`.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tests::archive::Image;
use tests::{Daemon, Output, Scene, ready, rounds};

/// Files of one directory.
const PER_DIRECTORY: usize = 1000;
/// What the daemon may need for each file while it copies all of them, in bytes.
const BYTES_PER_FILE: u64 = 2048;

fn count() -> usize {
    rounds(50_000, 1_000_000)
}

/// Fills a directory with small files, each of its own content.
fn fill(dir: &Path, count: usize) {
    for number in 0..count {
        let sub = dir.join(format!("d{}", number / PER_DIRECTORY));
        if number % PER_DIRECTORY == 0 {
            fs_err::create_dir_all(&sub).unwrap();
        }
        // A quarter of a million calls to fs-err would only make messages that nobody reads.
        let mut file = File::create(sub.join(format!("f{number}"))).unwrap();
        file.write_all(number.to_string().as_bytes()).unwrap();
    }
}

/// The largest memory that the daemon had so far, in bytes.
fn peak(daemon: &Daemon) -> u64 {
    let status = fs_err::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A directory for the context, in memory where that is possible: it is the daemon's disk that is to work.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

/// An address of the daemon beside which there is no socket for descriptors: files travel over the session.
fn far(scene: &Scene) -> PathBuf {
    let link = scene.path("far");
    fs_err::os::unix::fs::symlink(scene.daemon.dir().join("sock"), &link).unwrap();
    link
}

fn build_from(address: &Path, context: &Path, args: &[&str]) -> Output {
    let mut command = std::process::Command::new(tests::program());
    command.arg("--addr").arg(format!("unix://{}", address.display()));
    command.args(["build", "--progress=plain"]).args(args).arg(".").current_dir(context);
    tests::output(command.stdin(std::process::Stdio::null()))
}

#[test]
fn a_context_of_very_many_files() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let (pid, before) = (scene.daemon.pid(), peak(&scene.daemon));
    let (count, context) = (count(), directory());
    let context = context.path();
    fill(&context.join("all"), count);
    let write = |name: &str, text: &str| fs_err::write(context.join(name), text).unwrap();
    write("one", "alone\n");

    // One file of it: the others are not even looked at.
    write("Dockerfile", "FROM scratch\nCOPY one /f\n");
    let archive = format!("type=oci,dest={}", scene.path("o.tar").display());
    scene.daemon.build(context, &["-o", &archive]).ok();
    assert_eq!(Image::open(&scene.path("o.tar")).file("f"), Some(&b"alone\n"[..]));
    let little = peak(&scene.daemon);
    assert!(little < before + (32 << 20), "the daemon grew from {before} to {little} bytes for one file");

    let all = "FROM base\nCOPY all /c\nRUN find /c -type f | wc -l; cat /c/d7/f7123\n";
    write("Dockerfile", all);
    let out = scene.daemon.build(context, &["-t", "all"]).ok();
    let counted = format!(" {count}\n");
    assert!(out.stderr.contains(&counted) && out.stderr.contains(" 7123"), "{}", out.stderr);
    let after = peak(&scene.daemon);
    let bound = little + (64 << 20) + count as u64 * BYTES_PER_FILE;
    assert!(after < bound, "the daemon grew from {little} to {after} bytes, not below {bound}");
    eprintln!("{count} files: the daemon's peak is {} MiB", after >> 20);
    let again = scene.daemon.build(context, &["-t", "all"]).ok();
    assert_eq!(again.ran(), Vec::<String>::new(), "all of it is cached");

    // Where no descriptors can be passed.
    let far = far(&scene);
    write("Dockerfile", "FROM scratch\nCOPY one /f\nCOPY one /g\n");
    build_from(&far, context, &["-t", "x"]).ok();
    write("Dockerfile", &format!("{all}RUN true\n"));
    let out = build_from(&far, context, &["-t", "x"]).ok();
    assert_eq!(out.ran(), ["[4/4] RUN true"], "the same files are the same step:\n{}", out.stderr);
    let (far, bound) = (peak(&scene.daemon), bound + (64 << 20) + count as u64 * BYTES_PER_FILE);
    assert!(far < bound, "the daemon grew to {far} bytes, not below {bound}");
    eprintln!("{count} files over the session: the daemon's peak is {} MiB", far >> 20);
    assert!(scene.daemon.alive() && scene.daemon.pid() == pid);
}
