//! Caches that machines share in BuildKit's format.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proto::control::{CacheOptions, CacheOptionsEntry, SolveRequest};
use proto::pb;
use serde_json::Value;
use tests::llb::Llb;
use tests::operations::{Places, Served, graphs};
use tests::{Api, Auth, GitDaemon, Registry, Scene, Web, ready};

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

/// The first 16 hex digits of the keys that BuildKit v0.27 exported for [`EVERY_KIND`] (`FROM busybox`, mode=max) on
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

/// Sources of every kind, and flags that count. `GIT` and `WEB` are servers.
const SOURCES_AND_FLAGS: &str = r#"FROM base AS tools
RUN echo t > /etc/t
FROM base AS first
RUN --mount=type=cache,id=c1,sharing=locked,target=/c,uid=1,mode=0700 true
RUN --mount=type=cache,target=/c,from=tools,source=/etc true
RUN --mount=type=bind,rw,target=/src true
RUN --mount=type=secret,id=x,env=X true
RUN --mount=type=tmpfs,size=1m,target=/t true
USER 1:2
WORKDIR /w
ENV A=b
RUN id
FROM base AS files
ADD t.tar /unpacked/
COPY t.tar /kept/
COPY --chown=user:user a.txt /named
COPY --parents sub/./b /p/
COPY --chmod=u+x a.txt /symbolic
ADD git://GIT/repo#v1 /git
ADD --keep-git-dir=true git://GIT/repo#v1 /gitdir
ADD --keep-git-dir=true git://GIT/repo /gitmain
ADD --keep-git-dir=true git://GIT/repo#light /gitlight
ADD git://GIT/repo#main:sub /gitsub
ADD http://user:x@WEB/f.txt /http
ADD --chown=1:2 --chmod=600 http://user:x@WEB/f.txt /http3
FROM base
COPY --from=first /etc /e1
COPY --from=files /gitsub /g/
"#;

/// What BuildKit exported for [`SOURCES_AND_FLAGS`].
const RECORDED_LINES: &str = include_str!("../vectors/sources_and_flags.txt");

/// A file over the image of an OCI layout, and a copy of that image.
const OVER_LAYOUT: &str = "FROM img\nCOPY <<EOF /f\ntext\nEOF\nCOPY --from=img / /copied/\n";

/// What BuildKit exported for [`graphs`], each under its name, and for [`OVER_LAYOUT`].
const RECORDED_OPERATIONS: &str = include_str!("../vectors/operations.txt");

/// A time that is nobody's, in seconds since 1970.
const LONG_AGO: u64 = 1_000_000_000;

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

/// The repository that the vectors were recorded with.
fn repository(dir: &Path) {
    fs_err::create_dir_all(dir.join("sub")).unwrap();
    fs_err::write(dir.join("f"), "f\n").unwrap();
    fs_err::write(dir.join("sub/g"), "g\n").unwrap();
    let git = |args: &[&str]| {
        let mut git = std::process::Command::new("git");
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "t").env(format!("GIT_{who}_EMAIL"), "t@t");
            git.env(format!("GIT_{who}_DATE"), format!("{LONG_AGO} +0000"));
        }
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null");
        let done = git.current_dir(dir).args(args).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    git(&["init", "-q", "-b", "main", "."]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "one"]);
    git(&["tag", "-a", "v1", "-m", "v1"]);
    git(&["tag", "light"]);
}

/// The keys of a cache and what they are linked from, as [`RECORDED_LINES`] has them.
fn lines(records: &[Value], known: &BTreeSet<&str>) -> BTreeSet<String> {
    let key = |at: usize| &records[at]["digest"].as_str().unwrap()[7..23];
    let is_root = |at: usize| records[at]["inputs"].as_array().is_none_or(Vec::is_empty);
    let link = |link: &Value| {
        let at = link["link"].as_u64().unwrap_or_default() as usize;
        let name = if is_root(at) && !known.contains(key(at)) { "*" } else { key(at) };
        match link["selector"].as_str() {
            Some(selector) => format!("{name}:{}", &selector[7..15]),
            None => name.to_owned(),
        }
    };
    let input = |links: &Value| {
        let mut links: Vec<String> = links.as_array().unwrap().iter().map(link).collect();
        links.sort();
        links.join(",")
    };
    let line = |at: usize| match is_root(at) {
        true => key(at).to_owned(),
        false => {
            let inputs: Vec<String> = records[at]["inputs"].as_array().unwrap().iter().map(input).collect();
            format!("{} {}", key(at), inputs.join(" | "))
        }
    };
    let all = 0..records.len();
    all.filter(|&at| !is_root(at) || known.contains(key(at))).map(line).collect()
}

#[test]
fn keys_of_sources_and_their_links_are_those_of_buildkit() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let (served, files) = (scene.path("served"), scene.path("files"));
    repository(&served.join("repo"));
    fs_err::create_dir(&files).unwrap();
    let mut file = fs_err::File::create(files.join("f.txt")).unwrap();
    std::io::Write::write_all(&mut file, b"file\n").unwrap();
    file.file().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(LONG_AGO)).unwrap();
    let (git, web) = (GitDaemon::start(&served), Web::start(&files, "x"));
    scene.write("a.txt", "hi\n").write("sub/b", "b\n").write("sub/n.md", "m\n");
    let mut archive = tar::Builder::new(fs_err::File::create(scene.context().join("t.tar")).unwrap());
    let mut header = tar::Header::new_ustar();
    header.set_size(2);
    header.set_mode(0o644);
    header.set_mtime(LONG_AGO);
    archive.append_data(&mut header, "in/x", &b"x\n"[..]).unwrap();
    archive.finish().unwrap();
    let text = SOURCES_AND_FLAGS.replace("GIT", &git.host()).replace("WEB", &web.host());
    let args = ["--cache-to", "type=local,dest=../cache,mode=max", "--secret", "id=x,src=a.txt", "-t", "app"];
    scene.dockerfile(&text, &args).ok();
    let cache = scene.path("cache");
    let manifest = json(&blob(&cache, &json(&cache.join("index.json"))["manifests"][0]));
    let config = json(&blob(&cache, &manifest["config"]));
    let recorded: BTreeSet<&str> = RECORDED_LINES.lines().filter(|line| !line.starts_with('#')).collect();
    let known = recorded.iter().copied().filter(|line| !line.contains(' ')).collect();
    let found = lines(config["records"].as_array().unwrap(), &known);
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, recorded);
}

#[test]
fn keys_of_every_operation_are_those_of_buildkit() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let (registry, base) = with_base(&scene);
    let (served, repositories) = (Served::start(), scene.path("served"));
    let repository_dir = repositories.join("repo");
    repository(&repository_dir);
    let (git, commit) =
        (GitDaemon::start(&repositories), tests::git(&repository_dir, &["rev-parse", "HEAD"]));
    let places = Places { base: &base, served: &served, git: &git.host(), commit: &commit };
    let api = Api::connect(&scene.daemon);
    let mut names = BTreeSet::new();
    for (name, definition) in graphs(&places) {
        let config = exported(&api, &registry, &name.replace(' ', "-"), definition);
        let recorded = section(RECORDED_OPERATIONS, name);
        let known = recorded.iter().copied().filter(|line| !line.contains(' ')).collect();
        let found = lines(config["records"].as_array().unwrap(), &known);
        let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, recorded, "{name}");
        names.insert(format!("[{name}]"));
    }
    names.insert("[layout]".to_owned());
    let recorded = RECORDED_OPERATIONS.lines().filter(|line| line.starts_with('[')).map(str::to_owned);
    assert_eq!(names, recorded.collect());
}

#[test]
fn keys_of_oci_layouts_are_those_of_buildkit() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let served = Served::start();
    served.write_layout(&scene.path("layout"));
    let image = format!("img=oci-layout://{}@{}", scene.path("layout").display(), served.index);
    let to = "type=local,dest=../cache,mode=max";
    scene.dockerfile(OVER_LAYOUT, &["--build-context", &image, "--cache-to", to, "-t", "app"]).ok();
    let cache = scene.path("cache");
    let manifest = json(&blob(&cache, &json(&cache.join("index.json"))["manifests"][0]));
    let config = json(&blob(&cache, &manifest["config"]));
    let recorded = section(RECORDED_OPERATIONS, "layout");
    let known = recorded.iter().copied().filter(|line| !line.contains(' ')).collect();
    let found = lines(config["records"].as_array().unwrap(), &known);
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), recorded);
}

#[test]
fn what_a_client_keeps_out_of_caches() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let (registry, base) = with_base(&scene);
    let mut llb = Llb::new();
    let image = llb.image(&base);
    let first = llb.run(&image, "echo first > /first", |_| ());
    let second = llb.run(&first, "echo second > /second", |_| ());
    let api = Api::connect(&scene.daemon);
    for (out, has) in [(&first, [false, true]), (&second, [true, false])] {
        let mut definition = llb.definition(&second);
        let export_cache = Some(pb::ExportCache { value: false });
        let metadata = pb::OpMetadata { export_cache, ..pb::OpMetadata::default() };
        definition.metadata.insert(out.digest().to_owned(), metadata);
        let config = exported(&api, &registry, "kept-out", definition);
        let steps = config["records"].as_array().unwrap().iter().filter(|r| r["inputs"].is_array());
        let found: Vec<bool> = steps.map(|r| r["layers"].is_array() || r["chains"].is_array()).collect();
        assert_eq!(found, has, "{config:#}");
    }
    // A keyed cache has what is left of them, whether they run or were run before.
    let fresh = Scene::new();
    let fresh = Api::connect(&fresh.daemon);
    for (api, repository) in [(&api, "known"), (&fresh, "ran")] {
        let mut definition = llb.definition(&second);
        let export_cache = Some(pb::ExportCache { value: false });
        let metadata = pb::OpMetadata { export_cache, ..pb::OpMetadata::default() };
        definition.metadata.insert(first.digest().to_owned(), metadata);
        let url = format!("registry://{}/{repository}", registry.host());
        solved(api, repository, definition, "keyed", &[("url", &url)]);
        let records = registry.tags(repository).iter().filter(|tag| tag.starts_with("rbuild-1-")).count();
        // Under its content where it ran, and under its definition.
        assert_eq!(records, if repository == "ran" { 2 } else { 1 }, "{repository}");
    }
}

/// Solves a definition that is to go to a cache.
fn solved(api: &Api, build: &str, definition: pb::Definition, kind: &str, attrs: &[(&str, &str)]) {
    let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let exports = vec![CacheOptionsEntry { r#type: kind.to_owned(), attrs }];
    let cache = Some(CacheOptions { exports, ..CacheOptions::default() });
    let (r#ref, definition) = (build.to_owned(), Some(definition));
    let request = SolveRequest { r#ref, definition, cache, ..SolveRequest::default() };
    api.solve(request).unwrap_or_else(|error| panic!("{build}: {error}"));
}

/// Solves a definition, and gives the config of the cache that it was asked to write to a registry.
fn exported(api: &Api, registry: &Registry, tag: &str, definition: pb::Definition) -> Value {
    let reference = format!("{}/cache:{tag}", registry.host());
    solved(api, tag, definition, "registry", &[("ref", &reference), ("mode", "max")]);
    let manifest = registry.manifest("cache", tag).unwrap();
    registry.blob("cache", manifest["config"]["digest"].as_str().unwrap()).unwrap()
}

/// The lines under a name.
fn section<'a>(text: &'a str, name: &str) -> BTreeSet<&'a str> {
    let heading = format!("[{name}]");
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.is_empty()).collect()
}

#[test]
fn an_image_under_a_name_is_whole() {
    if !ready() {
        return;
    }
    let (one, two) = (Scene::new(), Scene::new());
    let (registry, base) = with_base(&one);
    let (text, cache) = (dockerfile(&base), format!("type=registry,ref={}/cache:1", registry.host()));
    one.write("f", "1").dockerfile(&text, &["--cache-to", &format!("{cache},mode=max")]).ok();
    two.write("f", "1").dockerfile(&text, &["-t", "app", "--cache-from", &cache]).ok();
    two.dockerfile(&format!("FROM {base}\nENV A=b\n"), &["-t", "renamed"]).ok();
    drop(registry);
    assert!(!unique(&two).is_empty());
    two.run(&["run", "--rm", "renamed", "true"]).ok();
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
