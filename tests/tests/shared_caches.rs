//! Caches that machines share in BuildKit's format.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::{Auth, Registry, Scene, ready};

/// Steps of every kind that BuildKit has a key for, over a base without anything that counts.
const EVERY_KIND: &str = r#"FROM base AS first
WORKDIR /app
COPY a.txt /app/
COPY sub /app/sub/
FROM base AS two
RUN --mount=type=bind,source=sub,target=/src --mount=type=cache,target=/c cat /src/b > /two
RUN --mount=type=bind,from=first,source=/app,target=/app2 --mount=type=tmpfs,target=/t --mount=type=secret,id=x --mount=type=ssh cp /app2/a.txt /three
FROM base
COPY --from=two /two /x/
COPY --chown=3:4 *.txt /y/
COPY --exclude=*.md sub /excluded/
COPY --link --chmod=640 a.txt /linked
COPY --from=two --link /three /
COPY s*/l /followed
COPY <<EOF /heredoc
text
EOF
ENV Z="a<b>&c"
RUN --network=none echo "$Z" > /z
RUN <<EOF
echo script > /script
EOF
"#;

/// The first half of the keys' digests that BuildKit v0.27 exported for [`EVERY_KIND`] (`FROM busybox`, mode=max) on
/// 2026-11-21: of operations, and of what they copy.
const RECORDED: [&str; 23] = [
    "0097581194f46a71",
    "29725a2fe414f920",
    "2aa2dde97e1bfd25",
    "40f437646931cfb1",
    "4246240add2be28e",
    "42bc19a23bc0ddd3",
    "5dbfbafede47210a",
    "807b3e8722c68572",
    "87bcb6925e974622",
    "a23a71ba54bae1e5",
    "c73e84020c946712",
    "c9599df63b497072",
    "ca1a7689fe0cbe96",
    "e0b0d6e2ccc1127f",
    "e25f55f5153f3b93",
    "0dfa50e2087eca8d",
    "1762cb78c1fc3032",
    "35dc300be8a1e90b",
    "3849eab217a80310",
    "4274407ee41dee23",
    "468fb6d51117ec1d",
    "a9d4840fbb006caf",
    "f2b80a3038eeef76",
];

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

fn blob(dir: &Path, descriptor: &Value) -> PathBuf {
    dir.join("blobs/sha256").join(descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:"))
}

/// A registry, and the name of the base image there.
fn with_base(scene: &Scene) -> (Registry, String) {
    let registry = scene.registry(Auth::Open);
    let base = format!("{}/base:1", registry.host());
    scene.run(&["tag", "base", &base]).ok();
    scene.run(&["push", "-q", &base]).ok();
    (registry, base)
}

/// A step with a result of its own each time, and one that stands on a file.
fn dockerfile(base: &str) -> String {
    format!("FROM {base}\nRUN cat /proc/sys/kernel/random/uuid > /unique\nCOPY f /f\nRUN cat /f > /g\n")
}

fn unique(scene: &Scene) -> String {
    scene.run(&["run", "--rm", "app", "cat", "/unique"]).ok().stdout
}

#[test]
fn keys_are_those_of_buildkit() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("a.txt", "hi\n").write("sub/b", "b\n").write("sub/n.md", "m\n");
    std::os::unix::fs::symlink("b", scene.context().join("sub/l")).unwrap();
    scene.dockerfile(EVERY_KIND, &["--cache-to", "type=local,dest=../cache,mode=max", "-t", "app"]).ok();
    let cache = scene.path("cache");
    let manifest = json(&blob(&cache, &json(&cache.join("index.json"))["manifests"][0]));
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.buildkit.cacheconfig.v0");
    let config = json(&blob(&cache, &manifest["config"]));
    let records = config["records"].as_array().unwrap();
    let short = |record: &Value| record["digest"].as_str().unwrap()[7..23].to_owned();
    let found: BTreeSet<String> = records.iter().map(short).collect();
    let lacking: Vec<&str> = RECORDED.into_iter().filter(|key| !found.contains(*key)).collect();
    assert_eq!(lacking, Vec::<&str>::new(), "{config:#}");
    // Two more for the base image: its manifest, and its layers.
    assert_eq!(found.len(), RECORDED.len() + 2, "{config:#}");
    let layers = manifest["layers"].as_array().unwrap();
    assert!(layers.iter().all(|layer| layer["annotations"]["containerd.io/uncompressed"].is_string()));
}

#[test]
fn a_cache_at_a_registry() {
    if !ready() {
        return;
    }
    let (one, two) = (Scene::new(), Scene::new());
    let (registry, base) = with_base(&one);
    let (text, cache) = (dockerfile(&base), format!("type=registry,ref={}/cache:1", registry.host()));
    let to = format!("{cache},mode=max");
    one.write("f", "1").dockerfile(&text, &["-t", "app", "--cache-to", &to]).ok();

    let again = two.write("f", "1").dockerfile(&text, &["-t", "app", "--cache-from", &cache]).ok();
    assert_eq!(again.ran(), Vec::<String>::new(), "{}", again.stderr);
    assert!(again.stderr.contains("importing cache manifest from"), "{}", again.stderr);
    assert_eq!(unique(&two), unique(&one));

    // A changed file: what stands before it is taken.
    let changed = two.write("f", "2").dockerfile(&text, &["-t", "app", "--cache-from", &cache]).ok();
    assert_eq!(changed.ran().len(), 2, "{}", changed.stderr);
    assert_eq!(unique(&two), unique(&one));
    assert_eq!(two.run(&["run", "--rm", "app", "cat", "/g"]).ok().stdout, "2");

    // What was asked to run again runs.
    let forced = two.dockerfile(&text, &["-t", "app", "--no-cache", "--cache-from", &cache]).ok();
    assert_eq!(forced.ran().len(), 3, "{}", forced.stderr);
    assert_ne!(unique(&two), unique(&one));
}

#[test]
fn a_cache_that_is_not_there_or_damaged_is_none() {
    if !ready() {
        return;
    }
    let (one, two) = (Scene::new(), Scene::new());
    let (registry, base) = with_base(&one);
    let text = dockerfile(&base);
    for name in ["none:1", "base:1"] {
        let cache = format!("type=registry,ref={}/{name}", registry.host());
        let built = two.write("f", "1").dockerfile(&text, &["-t", "app", "--cache-from", &cache]).ok();
        assert!(built.stderr.contains("importing cache manifest from"), "{name}: {}", built.stderr);
        two.run(&["rmi", "app"]).ok();
        two.run(&["prune", "--all", "--force"]).ok();
    }
    let built = two.dockerfile(&text, &["--cache-from", "type=carrier-pigeon", "-t", "app"]).ok();
    assert!(built.stderr.contains("unknown cache importer: carrier-pigeon"), "{}", built.stderr);
    two.dockerfile(&text, &["--cache-to", "type=carrier-pigeon"]).fails();
    two.dockerfile(&text, &["--cache-to", "type=registry"]).fails();
    two.run(&["rmi", "app"]).ok();
    two.run(&["prune", "--all", "--force"]).ok();

    // The layer of one step is gone, another says something else.
    one.write("f", "1")
        .dockerfile(&text, &["-t", "app", "--cache-to", "type=local,dest=../cache,mode=max"])
        .ok();
    let cache = one.path("cache");
    let manifest = json(&blob(&cache, &json(&cache.join("index.json"))["manifests"][0]));
    let layers = manifest["layers"].as_array().unwrap();
    for (i, layer) in layers.iter().enumerate() {
        match i {
            0 => fs_err::remove_file(blob(&cache, layer)).unwrap(),
            _ => fs_err::write(blob(&cache, layer), "something else").unwrap(),
        }
    }
    let from = format!("type=local,src={}", cache.display());
    let built = two.dockerfile(&text, &["-t", "app", "--cache-from", &from]).ok();
    assert_eq!(built.ran().len(), 3, "{}", built.stderr);
    assert_ne!(unique(&two), unique(&one));
}

#[test]
fn caches_in_directories_and_images() {
    if !ready() {
        return;
    }
    let (one, two) = (Scene::new(), Scene::new());
    let (registry, base) = with_base(&one);
    let (text, name) = (dockerfile(&base), format!("{}/app:1", registry.host()));
    let to = ["--cache-to", "type=local,dest=../cache,mode=max,tag=main,compression=zstd", "--cache-to"];
    let args = ["-t", &name, "--push", to[0], to[1], to[2], "type=inline"];
    one.write("f", "1").dockerfile(&text, &args).ok();
    one.run(&["tag", &name, "app"]).ok();
    let dir = format!("type=local,src={}", one.path("cache").display());

    let none = two.write("f", "1").dockerfile(&text, &["--check", "--cache-from", &dir]).ok();
    assert!(none.stderr.contains("holds no cache with the tag `latest`"), "{}", none.stderr);
    for from in [format!("{dir},tag=main"), name.clone()] {
        let built = two.dockerfile(&text, &["-t", "app", "--cache-from", &from]).ok();
        assert_eq!(built.ran(), Vec::<String>::new(), "{from}: {}", built.stderr);
        assert_eq!(unique(&two), unique(&one), "{from}");
        two.run(&["rmi", "app"]).ok();
        two.run(&["prune", "--all", "--force"]).ok();
    }
    // The same layers and times from the cache alone.
    let made = |scene: &Scene| {
        let text = scene.run(&["inspect", "app"]).ok().stdout;
        let image = serde_json::from_str::<Value>(&text).unwrap()[0].clone();
        (image["RootFS"].clone(), image["Created"].clone())
    };
    two.dockerfile(&text, &["-t", "app", "--cache-from", &name, "--cache-to", "type=inline"]).ok();
    assert_eq!(made(&two), made(&one));
}
