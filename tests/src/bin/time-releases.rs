//! Times the CI job of each of twenty releases on a machine that knows nothing, kind after kind, and prints a table.
//!
//! ```text
//! RBUILD=… BUILDKITD=… BUILDCTL=… cargo run -p tests --bin time-releases [--first=N] [--logs=DIR] [KIND…]
//! ```
//!
//! Kinds: `none`, rbuild without a cache; `buildkit`, a buildkitd with `type=registry,mode=max`; `keyed`, rbuild with a keyed cache
//! in a bucket; `mounts`, the same with its cache mounts; `registry`, the same at the registry. All of them push
//! the image to a registry on loopback, each kind to one of its own. Needs what the suite `releases` needs.

#![expect(clippy::expect_used, reason = "a test's program fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tests::releases::{Releases, base, recipe, releases_ready, versions};
use tests::{Bucket, Daemon, Output, Registry, bucket_ready, output, ready};

fn main() {
    if !ready() || !bucket_ready() || !releases_ready() {
        return;
    }
    let (options, mut names): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|arg| arg.starts_with("--"));
    let option = |name: &str| options.iter().find_map(|option| option.strip_prefix(name));
    let logs = option("--logs=").map(Path::new);
    let count = option("--first=").map_or(usize::MAX, |count| count.parse().expect("a number"));
    if names.is_empty() {
        names = ["none", "buildkit", "registry", "mounts"].map(str::to_owned).to_vec();
    }
    let all = versions();
    let versions = &all[..count.min(all.len())];

    let dir = TempDir::new().expect("a directory");
    let kinds: Vec<Kind> = names.iter().map(|name| Kind::new(name, &dir.path().join(name))).collect();
    let hosts: Vec<&str> = kinds.iter().map(|kind| kind.registry.host()).collect();
    eprintln!("preparing the base and the sources of {} releases", versions.len());
    let mut helper = Daemon::start(&dir.path().join("helper"), "");
    let releases = Releases::prepare(&helper, &dir.path().join("p"), &hosts, versions);
    helper.stop();

    let empty: Vec<u64> = kinds.iter().map(Kind::stored).collect();
    let mut rows = Vec::new();
    for version in versions {
        let times: Vec<Duration> = kinds.iter().map(|kind| kind.time(&releases, version, logs)).collect();
        let told: Vec<String> = names.iter().zip(&times).map(|(n, t)| format!("{n} {t:.1?}")).collect();
        eprintln!("{version}: {}", told.join(", "));
        rows.push(times);
    }
    let anew = depends_anew(&releases, versions);
    table(&names, versions, &anew, &rows);
    summary(&names, &anew, &rows);
    let stored: Vec<String> = kinds
        .iter()
        .zip(empty)
        .map(|(kind, empty)| format!("{:.0}", (kind.stored() - empty) as f64 / f64::from(1 << 20)))
        .collect();
    println!("| stored for images and cache, MiB | {} |", stored.join(" | "));
}

/// Which releases have dependencies that none before had.
fn depends_anew(releases: &Releases, versions: &[&str]) -> Vec<bool> {
    let mut known = std::collections::BTreeSet::new();
    versions.iter().map(|version| known.insert(releases.requirements(version))).collect()
}

fn table(names: &[String], versions: &[&str], anew: &[bool], rows: &[Vec<Duration>]) {
    println!("| release | dependencies | {} |\n|---|---|{}", names.join(" | "), "---|".repeat(names.len()));
    for ((version, anew), times) in versions.iter().zip(anew).zip(rows) {
        let times: Vec<String> = times.iter().map(|time| format!("{:.1}", time.as_secs_f64())).collect();
        println!("| {version} | {} | {} |", if *anew { "changed" } else { "" }, times.join(" | "));
    }
}

fn summary(names: &[String], anew: &[bool], rows: &[Vec<Duration>]) {
    println!("\n| s | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    let line = |name: &str, figure: &dyn Fn(usize) -> f64| {
        let figures: Vec<String> = (0..names.len()).map(|kind| format!("{:.1}", figure(kind))).collect();
        println!("| {name} | {} |", figures.join(" | "));
    };
    let of = |kind: usize, wanted: bool| {
        let later = rows.iter().zip(anew).skip(1).filter(move |(_, anew)| **anew == wanted);
        later.map(|(times, _)| times[kind].as_secs_f64()).collect::<Vec<f64>>()
    };
    line("the first release", &|kind| rows[0][kind].as_secs_f64());
    line("sources changed, median", &|kind| median(of(kind, false)));
    line("dependencies changed, median", &|kind| median(of(kind, true)));
    line("all", &|kind| rows.iter().map(|times| times[kind].as_secs_f64()).sum());
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    if values.is_empty() {
        f64::NAN
    } else {
        (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
    }
}

/// A way to build, with what outlives the machines that do.
struct Kind {
    name: String,
    dir: PathBuf,
    registry: Registry,
    bucket: Bucket,
}

impl Kind {
    fn new(name: &str, dir: &Path) -> Self {
        fs_err::create_dir_all(dir.join("registry")).expect("a directory");
        let registry = Registry::start(&dir.join("registry"));
        let bucket = Bucket::start(&dir.join("s3"));
        Self { name: name.to_owned(), dir: dir.to_owned(), registry, bucket }
    }

    /// How long the build of a release takes on a fresh root; the daemon's start is not counted.
    fn time(&self, releases: &Releases, version: &str, logs: Option<&Path>) -> Duration {
        let (root, host) = (self.dir.join("machine"), self.registry.host());
        let image = format!("{host}/app:{version}");
        nix::unistd::sync();
        let (took, built) = if self.name == "buildkit" {
            let machine = BuildKit::start(&root, host);
            machine.build(releases, host, version)
        } else {
            let machine = Daemon::start(&root, "");
            let cache = match self.name.as_str() {
                "none" => None,
                "keyed" => Some(self.bucket.keyed_directly("ci")),
                "mounts" => Some(format!("{},cache-mounts=all", self.bucket.keyed_directly("ci"))),
                "registry" => Some(format!("type=keyed,url=registry://{host}/cache,cache-mounts=all")),
                other => panic!("`{other}` is no kind"),
            };
            let cache: Vec<&str> =
                cache.iter().flat_map(|cache| ["--cache-from", cache, "--cache-to", cache]).collect();
            let args = [&["-t", image.as_str(), "--push"], &cache[..]].concat();
            let begun = Instant::now();
            let built = releases.build(&machine, host, "Dockerfile", version, &args).ok();
            (begun.elapsed(), built)
        };
        if let Some(logs) = logs {
            let to = logs.join(format!("{}-{version}", self.name));
            fs_err::write(to, built.stderr).expect("a log");
        }
        fs_err::remove_dir_all(root).expect("what is left of a machine");
        took
    }

    /// Bytes that the registry and the bucket hold.
    fn stored(&self) -> u64 {
        let files =
            ["registry", "s3"].into_iter().flat_map(|part| walkdir::WalkDir::new(self.dir.join(part)));
        files.map(|entry| entry.and_then(|e| e.metadata()).expect("a file")).map(|m| m.len()).sum()
    }
}

/// A buildkitd on a root of its own.
struct BuildKit {
    child: Child,
    address: String,
}

impl BuildKit {
    fn start(dir: &Path, host: &str) -> Self {
        fs_err::create_dir_all(dir).expect("a directory");
        let (config, address) = (dir.join("buildkitd.toml"), format!("unix://{}/sock", dir.display()));
        fs_err::write(&config, format!("[registry.\"{host}\"]\n  http = true\n")).expect("a configuration");
        let log = fs_err::File::create(dir.join("log")).expect("a log").into_parts().0;
        let child = Command::new(std::env::var_os("BUILDKITD").expect("BUILDKITD names a buildkitd"))
            .args(["--addr", &address, "--root"])
            .arg(dir.join("root"))
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("buildkitd starts");
        let machine = Self { child, address };
        let begun = Instant::now();
        while output(machine.client().args(["debug", "workers"])).code != 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "buildkitd does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        machine
    }

    fn client(&self) -> Command {
        let mut client = Command::new(std::env::var_os("BUILDCTL").expect("BUILDCTL names a buildctl"));
        client.args(["--addr", &self.address]).stdin(Stdio::null());
        client
    }

    /// How long it takes, and what it told.
    fn build(&self, releases: &Releases, host: &str, version: &str) -> (Duration, Output) {
        let options = [
            ("--local", format!("context={}", releases.context(version).display())),
            ("--local", format!("dockerfile={}", recipe(""))),
            ("--opt", format!("build-arg:BASE={}", base(host))),
            ("--output", format!("type=image,name={host}/app:{version},push=true")),
            ("--export-cache", format!("type=registry,ref={host}/cache,mode=max")),
            ("--import-cache", format!("type=registry,ref={host}/cache")),
        ];
        let mut client = self.client();
        client.args(["build", "--progress=plain", "--frontend=dockerfile.v0"]);
        client.args(options.iter().flat_map(|(name, value)| [*name, value]));
        let begun = Instant::now();
        let built = output(&mut client).ok();
        (begun.elapsed(), built)
    }
}

impl Drop for BuildKit {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
