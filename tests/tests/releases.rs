//! A fleet of CI jobs: successive releases of a real package, each built on a machine that knows nothing, with one cache for all.

use std::collections::BTreeSet;

use tests::releases::{Releases, releases_ready, versions};
use tests::{Auth, Output, Scene, bucket_ready, ready, rounds};

/// Two releases: the second one changes what the package depends on. Twenty with `RBUILD_SOAK=1`.
#[test]
fn successive_releases() {
    if !ready() || !bucket_ready() || !releases_ready() {
        return;
    }
    let all = versions();
    let versions = rounds(&all[11..13], &all[..]);
    let first = Scene::new();
    let (registry, bucket) = (first.registry(Auth::Open), first.bucket());
    let releases = Releases::prepare(&first.daemon, &first.path("p"), &[registry.host()], versions);
    let cache = format!("{},cache-mounts=all", bucket.keyed("esphome"));
    let shared = ["-t", "app", "--cache-from", &cache, "--cache-to", &cache];

    let mut known = BTreeSet::new();
    for version in versions {
        let machine = Scene::new();
        let built = releases.build(&machine.daemon, registry.host(), "Dockerfile", version, &shared).ok();
        let is_first = known.is_empty();
        let depends_anew = known.insert(releases.requirements(version));
        for (part, runs) in [
            ("uv venv", is_first),
            ("COPY requirements.txt", depends_anew),
            ("uv pip install --compile-bytecode -r", depends_anew),
            ("WORKDIR", depends_anew),
            ("COPY . .", true),
            ("uv build", true),
            ("uv pip install --offline", true),
            ("esphome version", true),
        ] {
            assert_eq!(ran(&built, part), runs, "{part} of {version}:\n{}", built.stderr);
        }
        let told = machine.run(&["run", "--rm", "app", "version"]).ok().stdout;
        assert_eq!(told.trim(), format!("Version: {version}"));

        // A machine that never heard of the cache makes the same.
        if rounds(Some(version) == versions.last(), true) {
            let alone = Scene::new();
            let plain =
                releases.build(&alone.daemon, registry.host(), "Dockerfile", version, &["-t", "app"]).ok();
            assert_eq!(plain.cached(), Vec::<String>::new(), "{}", plain.stderr);
            let files = releases.files(&machine.daemon, "app");
            assert!(files.lines().count() > 1000, "{files}");
            same(&files, &releases.files(&alone.daemon, "app"), version);
        }
    }

    // The last release again, on one more machine: nothing is left to do.
    let last = versions[versions.len() - 1];
    let build = |machine: &Scene, file: &str, args: &[&str]| {
        releases.build(&machine.daemon, registry.host(), file, last, args)
    };
    let machine = Scene::new();
    let again = build(&machine, "Dockerfile", &shared).ok();
    assert_eq!(again.ran(), Vec::<String>::new(), "{}", again.stderr);
    assert!(again.stderr.contains("nothing new to write"), "{}", again.stderr);

    // What the first machines downloaded came with the cache: uv has no network here.
    build(&machine, "offline.Dockerfile", &[]).fails();
    let machine = Scene::new();
    let offline = build(&machine, "offline.Dockerfile", &shared[2..4]).ok();
    assert!(ran(&offline, "uv pip install --offline"), "{}", offline.stderr);
}

/// Whether the step with this text ran; there has to be exactly one.
fn ran(built: &Output, part: &str) -> bool {
    let count = |steps: Vec<String>| steps.iter().filter(|step| step.contains(part)).count();
    let (ran, cached) = (count(built.ran()), count(built.cached()));
    assert_eq!(ran + cached, 1, "`{part}`:\n{}", built.stderr);
    ran == 1
}

fn same(one: &str, other: &str, version: &str) {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (one, other) = (lines(one), lines(other));
    let differing: Vec<&String> = one.symmetric_difference(&other).collect();
    assert!(differing.is_empty(), "{version} differs from a build without cache: {differing:#?}");
}
