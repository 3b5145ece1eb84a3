//! The daemon is killed, and the power is cut, at random moments of builds and prunes.
//!
//! After each: it serves again, `rbuild debug verify` finds nothing wrong, the build finishes, and its result equals
//! that of a build on a fresh root. `RBUILD_SOAK=1` makes it a hundred kills and thirty power cuts; `RBUILD_SEED`
//! repeats the moments of an earlier run, as far as a race can be repeated.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tests::archive::Image;
use tests::{Daemon, Disk, FileSystem, Leaks, Random, Registry, base, ready, rounds};

/// So many builds there are that have the first steps in common.
const VARIANTS: usize = 3;
/// A daemon is back in under a second; the machine may be busy with other things.
const BACK: Duration = Duration::from_secs(5);

const DOCKERFILE: &str = r#"
ARG HOST
FROM $HOST/base AS base
RUN mkdir /work && seq 1 200 > /work/numbers

FROM base AS left
ARG VARIANT
COPY src /src
RUN --mount=type=cache,target=/cache \
    for i in $(seq 1 40); do cat /src/* > /work/left.$i; echo "$VARIANT $i" >> /work/left.$i; done; \
    echo "$VARIANT" >> /cache/log; test -s /cache/log
RUN rm /work/numbers && ln -s left.1 /work/link && chown 1000:50 /work/left.2 && chmod 4755 /work/left.3

FROM base AS right
COPY data /data
ARG VARIANT
RUN head -c 4000000 /dev/zero | tr '\0' x > /work/big; echo "$VARIANT" > /work/right
RUN sleep 0.1; mv /work/big /work/bigger; ln /work/right /work/hard

FROM base
COPY --from=left /work /left
COPY --from=right --chown=1:2 /work /right
RUN --mount=type=bind,from=left,source=/src,target=/mnt cat /mnt/* > /sum && rm /left/left.1
WORKDIR /sub/dir
ENV A=b
LABEL variant=some
CMD ["cat", "/sum"]
"#;

/// A registry with a base image, a context, and what its builds have to give.
struct Site {
    registry: Registry,
    /// Per variant.
    wanted: Vec<BTreeSet<String>>,
    /// How long a build takes from nothing.
    build: Duration,
    /// How long it takes to empty the cache after one.
    pruning: Duration,
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::start(dir.path());
        let mut site =
            Self { registry, wanted: Vec::new(), build: Duration::ZERO, pruning: Duration::ZERO, dir };
        base::busybox(&site.path("base/root"));
        base::context(&site.path("base"), &[("Dockerfile", "FROM scratch\nCOPY root /\n")]);
        let daemon = Daemon::start(&site.path("pusher"), "");
        let name = format!("{}/base", site.registry.host());
        daemon.build(&site.path("base"), &["-t", &name, "--push"]).ok();
        drop(daemon);
        let context = site.context();
        base::context(&context, &[("Dockerfile", DOCKERFILE), ("data/large", &"rbuild ".repeat(300_000))]);
        for n in 0..200 {
            base::context(&context, &[(&format!("src/{n}"), &format!("file {n}\n").repeat(n))]);
        }
        for variant in 0..VARIANTS {
            let daemon = Daemon::start(&site.path(&format!("fresh{variant}")), "");
            let begun = Instant::now();
            daemon.run(&context, &site.building(variant)).ok();
            site.build = site.build.max(begun.elapsed());
            let made = site.export(&daemon, variant);
            site.wanted.push(made);
            site.remove_images(&daemon);
            let begun = Instant::now();
            site.prune(&daemon);
            site.pruning = site.pruning.max(begun.elapsed());
        }
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn context(&self) -> PathBuf {
        self.path("context")
    }

    fn arguments(&self, variant: usize, output: &[String]) -> Vec<String> {
        let mut all: Vec<String> = ["build", "--progress=plain", "--build-arg"].map(str::to_owned).into();
        all.push(format!("HOST={}", self.registry.host()));
        all.push("--build-arg".to_owned());
        all.push(format!("VARIANT={variant}"));
        all.extend_from_slice(output);
        all.push(".".to_owned());
        all
    }

    /// The build that is interrupted, into the image store.
    fn building(&self, variant: usize) -> Vec<String> {
        self.arguments(variant, &["-t".to_owned(), format!("app:{variant}")])
    }

    fn export(&self, daemon: &Daemon, variant: usize) -> BTreeSet<String> {
        let file = self.path("image.tar");
        let output = format!("type=oci,dest={}", file.display());
        daemon.run(&self.context(), &self.arguments(variant, &["-o".to_owned(), output])).ok();
        describe(&file)
    }

    fn remove_images(&self, daemon: &Daemon) {
        for name in images(daemon, &self.context()) {
            daemon.run(&self.context(), &["rmi", &name]).ok();
        }
    }

    fn prune(&self, daemon: &Daemon) {
        daemon.run(&self.context(), &["prune", "--all", "--force"]).ok();
    }

    /// Starts a build or a prune and lets it run for a moment.
    fn disturb(&self, daemon: &Daemon, variant: usize, random: &mut Random) -> Child {
        let (arguments, took) = if random.below(4) == 0 {
            self.remove_images(daemon);
            (["prune", "--all", "--force"].map(str::to_owned).to_vec(), self.pruning)
        } else {
            if random.below(2) == 0 {
                self.remove_images(daemon);
                self.prune(daemon);
            }
            (self.building(variant), self.build)
        };
        let client = daemon
            .command(&self.context(), &arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moment = random.below(took.as_micros() as u64 * 11 / 10);
        eprintln!("{} for {moment} µs", arguments[0]);
        std::thread::sleep(Duration::from_micros(moment));
        client
    }

    /// Checks what has to hold after a daemon came back.
    fn check(&self, daemon: &Daemon, variant: usize) {
        daemon.run(&self.context(), &["debug", "verify"]).ok();
        daemon.run(&self.context(), &self.building(variant)).ok();
        let (made, wanted) = (self.export(daemon, variant), &self.wanted[variant]);
        let added: Vec<_> = made.difference(wanted).collect();
        let missing: Vec<_> = wanted.difference(&made).collect();
        assert!(added.is_empty() && missing.is_empty(), "added: {added:#?}\nmissing: {missing:#?}");
    }
}

/// Names in the image store.
fn images(daemon: &Daemon, cwd: &Path) -> BTreeSet<String> {
    let out = daemon.run(cwd, &["images", "--json"]).ok().stdout;
    let all: Vec<Value> = serde_json::from_str(&out).unwrap();
    all.iter().map(|image| image["name"].as_str().unwrap().to_owned()).collect()
}

/// An image as lines that are the same for two builds: everything but times, and digests that depend on times.
fn describe(archive: &Path) -> BTreeSet<String> {
    let mut image = Image::open(archive);
    image.config["created"] = Value::Null;
    image.config["rootfs"] = Value::Null;
    for step in image.config["history"].as_array_mut().into_iter().flatten() {
        step["created"] = Value::Null;
    }
    let mut lines = BTreeSet::from([format!("config {}", image.config)]);
    for (n, (listing, files)) in image.listing.iter().zip(&image.layers).enumerate() {
        lines.extend(listing.iter().map(|line| format!("layer {n} {line}")));
        for (path, content) in files {
            let digest = content.as_ref().map(|c| hex::encode(Sha256::digest(c)));
            lines.insert(format!("layer {n} {path} {digest:?}"));
        }
    }
    lines
}

/// Ends a client whose daemon is gone; how it takes that is not looked at here.
fn end(mut client: Child) {
    let _ = client.kill();
    client.wait().unwrap();
}

#[test]
fn killed_at_random_moments() {
    if !ready() {
        return;
    }
    let (site, mut random) = (Site::new(), Random::new());
    let mut daemon = Daemon::start(&site.path("killed"), "");
    let leaks = Leaks::watch(&daemon);
    let mut slowest = Duration::ZERO;
    let rounds = rounds(6, 100);
    for round in 0..rounds {
        let variant = round % VARIANTS;
        let client = site.disturb(&daemon, variant, &mut random);
        daemon.kill();
        end(client);
        let begun = Instant::now();
        daemon.again();
        let back = begun.elapsed();
        slowest = slowest.max(back);
        assert!(back < BACK, "round {round}: back after {back:?}");
        leaks.check_running();
        site.check(&daemon, variant);
        // What is done is done, whatever happens to the process.
        daemon.kill();
        daemon.again();
        let names = images(&daemon, &site.context());
        assert!(names.iter().any(|n| n.ends_with(&format!("app:{variant}"))), "round {round}: {names:?}");
    }
    eprintln!("{rounds} kills; slowest start {slowest:?}");
    daemon.stop();
    leaks.check();
}

#[test]
fn power_cut_ext4() {
    power_cuts(FileSystem::Ext4, rounds(2, 15));
}

#[test]
fn power_cut_xfs() {
    power_cuts(FileSystem::Xfs, rounds(1, 15));
}

fn power_cuts(kind: FileSystem, rounds: usize) {
    if !ready() {
        return;
    }
    let (site, mut random) = (Site::new(), Random::new());
    let mut daemon = Daemon::new(&site.path("cut"), "");
    let leaks = Leaks::watch(&daemon);
    let mut disk = match Disk::try_new(kind, &site.path("disk"), &daemon.root()) {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("SKIPPED: needs a {kind:?} on a loop device that can be stopped: {reason}");
            return;
        }
    };
    daemon.set_boot_id("boot");
    daemon.again();
    for round in 0..rounds {
        let variant = round % VARIANTS;
        let client = site.disturb(&daemon, variant, &mut random);
        disk.cut();
        daemon.kill();
        end(client);
        disk.again();
        daemon.set_boot_id(&format!("boot after round {round}"));
        daemon.again();
        site.check(&daemon, variant);
    }
    eprintln!("{rounds} power cuts of {kind:?}");
    daemon.stop();
    drop(disk);
    leaks.check();
}
