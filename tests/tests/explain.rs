//! `rbuild explain`: each kind of cause is named, and nothing else.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::explained::{causes, check, follows, told};
use tests::{Auth, GitDaemon, Scene, Web, git, ready};

/// Steps that stand on each other, and one that stands on none of them.
const CHAIN: &str = "FROM base\nCOPY src /src\nRUN cat /src/* > /out\n";

#[test]
fn the_first_build() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let named = |reference: &str| scene.run(&["explain", reference]).ok().stdout;
    assert_eq!(named("^0"), scene.run(&["explain"]).ok().stdout);
    assert!(scene.run(&["explain", "no-such-build"]).fails().stderr.contains("no-such-build"));
    scene.write("src/a", "1").dockerfile(CHAIN, &["-t", "x"]).ok();
    let first = json!({"kind": "first_build"});
    check(&scene, &[("COPY src /src", first.clone()), ("RUN cat /src/* > /out", first)]);
    // Nothing runs, and nothing is said.
    scene.build(&["-t", "x"]).ok();
    check(&scene, &[]);
    assert!(scene.run(&["explain"]).ok().stdout.contains("Nothing ran."));
    // What the last step did not need was made before as well.
    let told = told(&scene);
    let outcomes: Vec<&str> =
        told["steps"].as_array().unwrap().iter().map(|step| step["outcome"].as_str().unwrap()).collect();
    assert!(outcomes.iter().all(|outcome| ["source", "cached"].contains(outcome)), "{told:#}");
}

#[test]
fn files_of_the_context() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("src/a", "1").write("src/b", "1").write("other", "1").dockerfile(CHAIN, &["-t", "x"]).ok();
    let (copy, run) = ("COPY src /src", "RUN cat /src/* > /out");
    let file = |change: &str, path: &str, old: bool, new: bool| {
        let mut cause = json!({"kind": "file", "path": path, "change": change});
        for (name, there) in [("old", old), ("new", new)] {
            if there {
                cause[name] = "…".into();
            }
        }
        cause
    };
    scene.write("src/a", "2").write("other", "2").build(&["-t", "x"]).ok();
    check(&scene, &[(copy, file("content", "src/a", true, true)), (run, follows(copy))]);
    let whole = told(&scene);
    let digest = |name: &str| causes(&whole)[0].1[0][name].as_str().unwrap().to_owned();
    assert!(digest("old").starts_with("blake3:") && digest("new").starts_with("blake3:"), "{whole:#}");
    assert_ne!(digest("old"), digest("new"));

    let path = scene.context().join("src/b");
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    scene.build(&["-t", "x"]).ok();
    let mode = json!({"kind": "file", "path": "src/b", "change": "mode", "old": "0644", "new": "0755"});
    check(&scene, &[(copy, mode), (run, follows(copy))]);

    scene.write("src/c", "3").build(&["-t", "x"]).ok();
    check(&scene, &[(copy, file("added", "src/c", false, true)), (run, follows(copy))]);

    fs_err::remove_file(scene.context().join("src/c")).unwrap();
    fs_err::remove_file(path).unwrap();
    scene.build(&["-t", "x"]).ok();
    check(
        &scene,
        &[
            (copy, json!([file("removed", "src/b", true, false), file("removed", "src/c", true, false)])),
            (run, follows(copy)),
        ],
    );

    // What was built before comes from the cache, and what is new is compared with the build before.
    scene.write("src/b", "1").write("src/a", "1").build(&["-t", "x"]).ok();
    check(&scene, &[]);
    scene.write("src/a", "4").build(&["-t", "x"]).ok();
    check(&scene, &[(copy, file("content", "src/a", true, true)), (run, follows(copy))]);
}

/// A file's type changes, for a COPY and for a mount of the same files; each is told by itself.
#[test]
fn types_of_files() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let (copy, run) = ("COPY src /src", "RUN --mount=type=bind,source=src,target=/m ls -lR /m > /out");
    let text = format!("FROM base\n{copy}\n{run}\n");
    scene.write("src/a", "1").write("src/b", "1").dockerfile(&text, &["-t", "x"]).ok();
    let path = scene.context().join("src/b");
    let builds = |expected: serde_json::Value| {
        scene.build(&["-t", "x"]).ok();
        check(&scene, &[(copy, expected.clone()), (run, expected)]);
    };
    let is = |change: &str, old: &str, new: &str| json!({"kind": "file", "path": "src/b", "change": change, "old": old, "new": new});
    let link = |target: &str| {
        fs_err::remove_file(&path).unwrap();
        fs_err::os::unix::fs::symlink(target, &path).unwrap();
    };
    link("a");
    builds(is("type", "…", "link to a"));
    link("./a");
    builds(is("content", "link to a", "link to ./a"));
    fs_err::remove_file(&path).unwrap();
    scene.write("src/b/c", "1");
    let came = json!({"kind": "file", "path": "src/b/c", "change": "added", "new": "…"});
    builds(json!([is("type", "link to ./a", "directory"), came]));
    // What was in a directory went with it.
    fs_err::remove_dir_all(&path).unwrap();
    scene.write("src/b", "2");
    builds(is("type", "directory", "…"));
}

/// Files of the context are root's, as with BuildKit, and have no extended attributes; times count nowhere. What no step sees sets
/// none off.
#[test]
fn owners_attributes_and_times_of_the_context() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let run = "RUN --mount=type=bind,source=src,target=/m cat /m/* > /out";
    let text = format!("FROM base\nCOPY src /src\n{run}\n");
    scene.write("src/a", "1").write("src/b", "1").dockerfile(&text, &["-t", "x"]).ok();
    let path = scene.context().join("src/a");
    let builds = |what: &str| {
        let built = scene.build(&["-t", "x"]).ok();
        assert_eq!(built.ran(), Vec::<String>::new(), "{what}");
        check(&scene, &[]);
    };
    std::os::unix::fs::chown(&path, Some(7), Some(8)).unwrap();
    builds("owner");
    match rustix::fs::setxattr(&path, "user.x", b"1", rustix::fs::XattrFlags::empty()) {
        Err(rustix::io::Errno::OPNOTSUPP) => {
            eprintln!("not tried: this file system has no attributes of users")
        }
        set => {
            set.unwrap();
            builds("attributes");
        }
    }
    let file = fs_err::File::options().write(true).open(&path).unwrap();
    file.file().set_modified(std::time::UNIX_EPOCH).unwrap();
    builds("times");
    // What is seen is still told, and nothing else.
    scene.write("src/a", "2").build(&["-t", "x"]).ok();
    let file = json!({"kind": "file", "path": "src/a", "change": "content", "old": "…", "new": "…"});
    check(&scene, &[("COPY src /src", file.clone()), (run, file)]);
}

/// An archive with one file.
fn archive(owner: u64, attribute: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_pax_extensions([("SCHILY.xattr.user.x", attribute.as_bytes())]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o644);
    header.set_uid(owner);
    header.set_gid(0);
    tar.append_data(&mut header, "f", &b"1"[..]).unwrap();
    tar.into_inner().unwrap()
}

/// Of an archive that is unpacked the archive is what changed, also where its files have only other owners or attributes.
#[test]
fn owners_and_attributes_in_an_archive() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let put = |owner: u64, attribute: &str| {
        fs_err::write(scene.context().join("f.tar"), archive(owner, attribute)).unwrap();
        scene.build(&["-t", "x"]).ok();
    };
    let (add, run) = ("ADD f.tar /t", "RUN stat -c %u /t/f > /out");
    scene.write("Dockerfile", &format!("FROM base\n{add}\n{run}\n"));
    put(1, "1");
    let changed = json!({"kind": "file", "path": "f.tar", "change": "content", "old": "…", "new": "…"});
    for (owner, attribute) in [(2, "1"), (2, "2")] {
        put(owner, attribute);
        check(&scene, &[(add, changed.clone()), (run, follows(add))]);
    }
}

/// Between stages owners and attributes count for those that take the file, and for no others.
#[test]
fn owners_and_attributes_in_a_stage() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let put = |attribute| fs_err::write(scene.context().join("f.tar"), archive(7, attribute)).unwrap();
    put("1");
    let make = |owner: u32| format!("RUN echo f > /f && echo g > /g && chown {owner} /f");
    let (add, of_t) = ("ADD f.tar /t/", "COPY --from=unpacked /t/f /t");
    let (of_g, of_f) = ("COPY --from=made /g /g", "COPY --from=made /f /f");
    let mount = "RUN --mount=type=bind,from=made,source=/f,target=/m stat -c %u /m > /out";
    let [t, f, m] = ["COPY --from=t /t /t", "COPY --from=f /f /f", "COPY --from=m /out /out"];
    let build = |owner: u32| {
        let text = format!(
            "FROM base AS made\n{}\nFROM base AS unpacked\n{add}\nFROM base AS t\n{of_t}\nFROM base AS f\n{of_f}\n\
             FROM base AS m\n{mount}\nFROM base\n{of_g}\n{t}\n{f}\n{m}\n",
            make(owner)
        );
        scene.dockerfile(&text, &["-t", "x"]).ok();
    };
    build(7);
    build(8);
    let instruction = json!({"kind": "instruction", "old": make(7), "new": make(8)});
    check(
        &scene,
        &[
            (&make(8), instruction),
            (of_f, follows(&make(8))),
            (f, follows(of_f)),
            (mount, follows(&make(8))),
            (m, json!([follows(f), follows(mount)])),
        ],
    );
    put("2");
    build(8);
    let changed = json!({"kind": "file", "path": "f.tar", "change": "content", "old": "…", "new": "…"});
    check(
        &scene,
        &[(add, changed), (of_t, follows(add)), (t, follows(of_t)), (f, follows(t)), (m, follows(f))],
    );
}

/// Of an image that moved the image is what changed, also where its files have only other owners, and only for steps that take one that has.
#[test]
fn owners_in_an_image() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let registry = scene.registry(Auth::Open);
    let image = format!("{}/owned:1", registry.host());
    let push = |owner: u32| {
        let text = format!("FROM base\nRUN echo g > /g && echo f > /f && chown {owner} /f\n");
        scene.dockerfile(&text, &["-t", &image, "--push"]).ok();
        scene.run(&["rmi", &image]);
    };
    let (of_g, of_f) = (format!("COPY --from={image} /g /g"), format!("COPY --from={image} /f /f"));
    scene.write("two.Dockerfile", &format!("FROM scratch\n{of_g}\n{of_f}\n"));
    let build = || scene.build(&["-t", "x", "-f", "two.Dockerfile", "--pull"]).ok();
    push(7);
    build();
    push(8);
    build();
    let moved = json!({"kind": "base_image", "name": image, "old": "…", "new": "…"});
    check(&scene, &[(&of_f, moved)]);
}

#[test]
fn variables() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("1/f", "1").write("2/f", "1");
    let text =
        "FROM base\nARG DIR=1\nARG SHOWN=$DIR\nENV NAME=$SHOWN KEPT=1\nCOPY $DIR /d\nRUN echo $NAME > /n\n";
    let arg = |name: &str| json!({"kind": "arg", "name": name});
    scene.dockerfile(text, &["-t", "x"]).ok();
    scene.build(&["-t", "x", "--build-arg", "SHOWN=s"]).ok();
    check(&scene, &[("RUN echo s > /n", arg("SHOWN"))]);
    // What follows from another variable is not named.
    scene.build(&["-t", "x"]).ok();
    scene.build(&["-t", "x", "--build-arg", "DIR=2"]).ok();
    check(&scene, &[("COPY 2 /d", arg("DIR")), ("RUN echo 2 > /n", arg("DIR"))]);
    scene.build(&["-t", "x", "--build-arg", "DIR=2", "--build-arg", "SHOWN=secret"]).ok();
    check(&scene, &[("RUN echo secret > /n", arg("SHOWN"))]);
    let kept = scene.run(&["explain"]).ok().stdout;
    assert!(kept.contains("ARG SHOWN changed"), "{kept}");

    scene.dockerfile(&text.replace("KEPT=1", "KEPT=2"), &["-t", "x", "--build-arg", "DIR=2"]).ok();
    scene.build(&["-t", "x", "--build-arg", "DIR=2"]).ok();
    let env = json!({"kind": "env", "name": "KEPT"});
    scene.dockerfile(&text.replace("KEPT=1", "KEPT=3"), &["-t", "x", "--build-arg", "DIR=2"]).ok();
    check(&scene, &[("RUN echo 2 > /n", env)]);
}

#[test]
fn an_argument_in_an_instruction() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("one", "1").write("two", "2");
    let text = "FROM base\nARG FILE=one\nCOPY $FILE /x\n";
    scene.dockerfile(text, &["-t", "x"]).ok();
    scene.build(&["-t", "x", "--build-arg", "FILE=two"]).ok();
    check(&scene, &[("COPY two /x", json!({"kind": "arg", "name": "FILE"}))]);
}

#[test]
fn base_images() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let registry = scene.registry(Auth::Open);
    let base = format!("{}/moving:1", registry.host());
    let push = |text: &str| {
        scene.dockerfile(&format!("FROM base\nRUN echo {text} > /who\n"), &["-t", &base, "--push"]).ok();
        scene.run(&["rmi", &base]);
    };
    push("one");
    let text = format!("FROM {base}\nRUN cat /who > /copy\n");
    scene.write("two.Dockerfile", &text).build(&["-t", "x", "-f", "two.Dockerfile", "--pull"]).ok();
    push("two");
    scene.build(&["-t", "x", "-f", "two.Dockerfile", "--pull"]).ok();
    let moved = json!({"kind": "base_image", "name": base, "old": "…", "new": "…"});
    check(&scene, &[("RUN cat /who > /copy", moved)]);
    let told = told(&scene);
    let [(_, causes)] = &causes(&told)[..] else { panic!("{told:#}") };
    let digest = |name: &str| causes[0][name].as_str().unwrap().to_owned();
    assert!(digest("old").starts_with("sha256:") && digest("new").starts_with("sha256:"), "{told:#}");
    assert_ne!(digest("old"), digest("new"));
}

#[test]
fn flags_and_instructions() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text = "FROM base\nUSER root\nRUN true\nRUN echo 1 > /x\n";
    scene.dockerfile(text, &["-t", "x"]).ok();
    scene.build(&["-t", "x", "--add-host", "there:1.2.3.4"]).ok();
    let flag = json!({"kind": "flag", "name": "--add-host"});
    check(&scene, &[("RUN true", flag.clone()), ("RUN echo 1 > /x", flag)]);

    for (name, value) in [("--network", "none"), ("--shm-size", "32m"), ("--ulimit", "nofile=99:99")] {
        scene.build(&["-t", "x"]).ok();
        check(&scene, &[]);
        scene.build(&["-t", "x", name, value]).ok();
        let flag = json!({"kind": "flag", "name": name});
        check(&scene, &[("RUN true", flag.clone()), ("RUN echo 1 > /x", flag)]);
    }

    scene.build(&["-t", "x"]).ok();
    check(&scene, &[]);
    scene.dockerfile(&text.replace("echo 1", "echo 2"), &["-t", "x"]).ok();
    let instruction = json!({"kind": "instruction", "old": "RUN echo 1 > /x", "new": "RUN echo 2 > /x"});
    check(&scene, &[("RUN echo 2 > /x", instruction)]);

    let text = text.replace("echo 1", "echo 2");
    scene.dockerfile(&text.replace("RUN true", "RUN true\nRUN echo new > /new"), &["-t", "x"]).ok();
    check(
        &scene,
        &[
            ("RUN echo new > /new", json!({"kind": "new_step"})),
            ("RUN echo 2 > /x", follows("RUN echo new > /new")),
        ],
    );
    scene.dockerfile(&text.replace("USER root", "USER 1000"), &["-t", "x"]);
    let user = json!({"kind": "setting", "name": "USER"});
    check(&scene, &[("RUN true", user.clone()), ("RUN echo 2 > /x", user)]);
}

#[test]
fn asked_to_run_again() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text = "FROM base AS one\nRUN cat /proc/sys/kernel/random/uuid > /u\nFROM base\nRUN true\nCOPY --from=one /u /u\n";
    scene.dockerfile(text, &["-t", "x"]).ok();
    scene.build(&["-t", "x", "--no-cache-filter", "one"]).ok();
    let uuid = "RUN cat /proc/sys/kernel/random/uuid > /u";
    let filter = json!({"kind": "no_cache", "flag": "--no-cache-filter=one"});
    check(&scene, &[(uuid, filter), ("COPY --from=one /u /u", follows(uuid))]);
    let text = scene.run(&["explain"]).ok().stdout;
    assert!(text.contains("> ") && text.contains("in 2 steps"), "{text}");
}

#[test]
fn removed_from_the_cache() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("src/a", "1").dockerfile(CHAIN, &["-o", "type=oci,dest=../out"]).ok();
    for args in [&["prune", "--force"][..], &["prune", "--all", "--force"]] {
        scene.run(args).ok();
        scene.build(&["-o", "type=oci,dest=../out"]).ok();
        let rule = if args.contains(&"--all") { "prune (all)" } else { "prune" };
        let evicted = json!({"kind": "evicted", "at_ms": "…", "rule": rule});
        check(&scene, &[("COPY src /src", evicted.clone()), ("RUN cat /src/* > /out", evicted)]);
    }
}

/// What is gone explains one build that made it again, or that could not.
#[test]
fn removed_before_the_last_build() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let grep = "RUN --mount=type=secret,id=s grep good /run/secrets/s";
    let secret = format!("id=s,src={}", scene.path("secret").display());
    let args = ["-o", "type=oci,dest=../out", "--secret", &secret];
    fs_err::write(scene.path("secret"), "good").unwrap();
    scene.dockerfile(&format!("FROM base\n{grep}\n"), &args).ok();
    scene.run(&["prune", "--all", "--force"]).ok();
    fs_err::write(scene.path("secret"), "bad").unwrap();
    scene.build(&args).fails();
    check(&scene, &[(grep, json!({"kind": "evicted", "at_ms": "…", "rule": "prune (all)"}))]);
    scene.build(&args).fails();
    check(&scene, &[(grep, json!({"kind": "unfinished"}))]);
}

/// Garbage is collected some seconds after a build, at most once a minute: a daemon that has just started does it after its first one.
#[test]
fn removed_by_a_rule_of_the_configuration() {
    if !ready() {
        return;
    }
    let rule = |filter: &str| format!("[[worker.oci.gcpolicy]]\nfilters = [\"{filter}\"]\n");
    let config = rule("type==source.local") + &rule("type==regular");
    let mut scene = Scene::with(&config);
    scene.write("src/a", "1").dockerfile(CHAIN, &["-o", "type=oci,dest=../out"]).ok();
    scene.daemon.stop();
    scene.daemon.again();
    scene.build(&[]).ok();
    let begun = Instant::now();
    while scene.run(&["du", "--verbose"]).ok().stdout.contains("RUN cat") {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing was collected");
        std::thread::sleep(Duration::from_millis(100));
    }
    scene.build(&["-o", "type=oci,dest=../out"]).ok();
    let rule = "rule 2 of garbage collection (filter type==regular)";
    let evicted = json!({"kind": "evicted", "at_ms": "…", "rule": rule});
    check(&scene, &[("COPY src /src", evicted.clone()), ("RUN cat /src/* > /out", evicted)]);
}

#[test]
fn a_branch_that_moved() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let repository = scene.path("git/repo.git");
    fs_err::create_dir_all(&repository).unwrap();
    git(&repository, &["init", "-q"]);
    let commit = |text: &str| {
        tests::base::context(
            &repository,
            &[("Dockerfile", "FROM base\nCOPY f /x/f\nRUN cat /x/* > /out\n"), ("f", text)],
        );
        git(&repository, &["add", "."]);
        git(&repository, &["commit", "-q", "-m", text]);
        git(&repository, &["rev-parse", "HEAD"])
    };
    let server = GitDaemon::start(&scene.path("git"));
    let name = format!("{}/repo.git#main", server.host());
    let url = format!("git://{name}");
    let text = format!("FROM base\nADD {url} /x\nRUN cat /x/* > /out\n");
    let first = commit("1");
    scene.dockerfile(&text, &["-t", "x"]).ok();
    let second = commit("2");
    scene.build(&["-t", "x"]).ok();
    let moved = |step: &str, old: &str, new: &str| {
        let cause = json!({"kind": "source", "name": name, "old": old, "new": new});
        check(&scene, &[(step, cause), ("RUN cat /x/* > /out", follows(step))]);
    };
    moved(&format!("ADD {url} /x"), &first, &second);
    // A commit that leaves the files as they are sets nothing off.
    git(&repository, &["commit", "-q", "--allow-empty", "-m", "nothing"]);
    scene.build(&["-t", "x"]).ok();
    check(&scene, &[]);

    // As what is built.
    let remote = || scene.run(&["build", "--progress=plain", "-t", "x", &url]).ok();
    remote();
    let second = git(&repository, &["rev-parse", "HEAD"]);
    let third = commit("3");
    remote();
    moved("COPY f /x/f", &second, &third);
}

#[test]
fn a_file_at_a_url() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let dir = scene.path("www");
    fs_err::create_dir(&dir).unwrap();
    let web = Web::start(&dir, "geheim");
    let url = web.url("user:geheim", "file");
    let text = format!("FROM base\nADD {url} /x/\nRUN cat /x/* > /out\n");
    let digest = |text: &str| {
        fs_err::write(dir.join("file"), text).unwrap();
        format!("sha256:{}", hex::encode(<sha2::Sha256 as sha2::Digest>::digest(text)))
    };
    let first = digest("1");
    scene.dockerfile(&text, &["-t", "x"]).ok();
    let second = digest("2, and longer");
    scene.build(&["-t", "x"]).ok();
    let shown = format!("xxxxx:xxxxx@{}/file", web.host());
    let add = format!("ADD http://{shown} /x/");
    let changed = json!({"kind": "source", "name": shown, "old": "…", "new": "…"});
    check(&scene, &[(&add, changed), ("RUN cat /x/* > /out", follows(&add))]);
    let told = scene.run(&["explain"]).ok().stdout;
    assert!(told.contains(&format!("{shown} changed ({first} → {second})")), "{told}");
    assert!(!told.contains("geheim"), "{told}");
}

#[test]
fn while_a_step_runs() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text =
        "FROM base\nRUN --mount=type=bind,source=src,target=/src sleep 2; cat /src/* > /out\nRUN sleep 2\n";
    scene.write("src/a", "1").dockerfile(text, &["-t", "x"]).ok();
    let built = scene.write("src/a", "2").build(&["-t", "x", "--explain"]).ok();
    let (live, end) = built.stderr.split_once("\nBuild ").unwrap();
    let lines: Vec<&str> = live.lines().filter(|line| line.contains(" because ")).collect();
    assert_eq!(lines.len(), 2, "{live}");
    assert!(lines[0].contains(" because src/a: content changed ("), "{lines:?}");
    assert!(lines[1].contains("2/3] RUN --mount"), "{lines:?}");
    assert!(end.contains("src/a: content changed ("), "{end}");
    // Who does not ask is not told.
    let built = scene.write("src/a", "3").build(&["-t", "x"]).ok();
    assert!(!built.stderr.contains(" because "), "{}", built.stderr);
}

#[test]
fn another_platform() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text = "FROM --platform=$BUILDPLATFORM base AS build\nRUN echo 1 > /f\nFROM scratch\nARG TARGETARCH\nCOPY --from=build /f /$TARGETARCH\n";
    scene.dockerfile(&text.replace("echo 1", "echo 0"), &["-o", "../out"]).ok();
    // The platform of the machine is the one that was meant.
    let host = format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
    scene.dockerfile(text, &["-o", "../out", "--platform", &host]).ok();
    let run = "RUN echo 1 > /f";
    check(
        &scene,
        &[
            (run, json!({"kind": "instruction", "old": "RUN echo 0 > /f", "new": run})),
            (&format!("COPY --from=build /f /{}", &host[6..]), follows(run)),
        ],
    );
    // What is made for the machine itself is there.
    scene.build(&["-o", "../out", "--platform", "linux/riscv64"]).ok();
    let first = json!({"kind": "platform", "old": host, "new": "linux/riscv64"});
    check(&scene, &[("COPY --from=build /f /riscv64", first)]);
    let shown = scene.run(&["explain"]).ok().stdout;
    assert!(
        shown.contains(&format!("first build for linux/riscv64; the build before was for {host}")),
        "{shown}"
    );
    // From then on builds for it are compared with each other.
    scene.dockerfile(&text.replace("echo 1", "echo 2"), &["-o", "../out"]).ok();
    scene.build(&["-o", "../out", "--platform", "linux/riscv64"]).ok();
    check(
        &scene,
        &[("COPY --from=build /f /riscv64", json!({"kind": "follows", "step": "RUN echo 2 > /f"}))],
    );
}

#[test]
fn absent_from_a_shared_cache() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let registry = scene.registry(Auth::Open);
    let cache = format!("{}/nothing:here", registry.host());
    let from = format!("type=registry,ref={cache}");
    let base = format!("{}/base:1", registry.host());
    scene.run(&["tag", "base", &base]).ok();
    scene.run(&["push", "-q", &base]).ok();
    let text = CHAIN.replace("base", &base);
    scene.write("src/a", "1").dockerfile(&text, &["-t", "x", "--cache-from", &from]).ok();
    let told = told(&scene);
    for (step, causes) in causes(&told) {
        assert_eq!(causes.len(), 1, "{step}: {told:#}");
        assert_eq!((&causes[0]["kind"], &causes[0]["cache"]), (&json!("absent"), &json!(cache)));
        assert!(causes[0]["error"].is_string(), "it could not be read: {told:#}");
    }
    assert_eq!(causes(&told).len(), 2);

    // One that there is, and that does not have it: built of another file, on another machine.
    let to = format!("type=registry,ref={cache},mode=max");
    scene.build(&["-t", "x", "--cache-to", &to]).ok();
    let other = Scene::new();
    other.write("src/a", "2").dockerfile(&text, &["-t", "x", "--cache-from", &from]).ok();
    let absent = json!({"kind": "absent", "cache": cache});
    check(&other, &[("COPY src /src", absent.clone()), ("RUN cat /src/* > /out", absent)]);
    // Then it has it.
    let third = Scene::new();
    third.write("src/a", "1").dockerfile(&text, &["-t", "x", "--cache-from", &from]).ok();
    check(&third, &[]);
}

#[test]
fn stages_and_failures() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text = "FROM base AS build\nCOPY in /in\nRUN grep -q good /in && wc -c < /in > /size\nFROM base\nCOPY --from=build /size /size\nRUN cat /size\n";
    scene.write("in", "good 1").dockerfile(text, &["-t", "x"]).ok();
    let failed = scene.write("in", "bad").build(&["-t", "x", "--explain"]).fails();
    assert!(
        failed.stderr.contains("in: content changed (") && failed.stderr.contains("FAILED"),
        "{}",
        failed.stderr
    );
    // The steps after it keep what they were keyed on: they give the same again, and nobody has to say why they ran.
    scene.write("in", "good 2").build(&["-t", "x"]).ok();
    let file = json!({"kind": "file", "path": "in", "change": "content", "old": "…", "new": "…"});
    let run = "RUN grep -q good /in && wc -c < /in > /size";
    check(&scene, &[("COPY in /in", file.clone()), (run, follows("COPY in /in"))]);
    scene.write("in", "good 30").build(&["-t", "x"]).ok();
    check(
        &scene,
        &[
            ("COPY in /in", file),
            (run, follows("COPY in /in")),
            ("COPY --from=build /size /size", follows(run)),
            ("RUN cat /size", follows("COPY --from=build /size /size")),
        ],
    );
    let told = told(&scene);
    let changes = told["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 1, "{told:#}");
    assert_eq!(changes[0]["steps"].as_array().unwrap().len(), 4);
    assert_eq!(told["steps"][changes[0]["step"].as_u64().unwrap() as usize]["first"], true);
    // A step that failed runs again because it failed.
    let text = "FROM base\nRUN test -e /none\n";
    scene.dockerfile(text, &["-t", "x"]).fails();
    scene.build(&["-t", "x"]).fails();
    check(&scene, &[("RUN test -e /none", json!({"kind": "unfinished"}))]);
}

/// A step that cannot run for what it needs, and builds that fail before any step.
#[test]
fn failures_before_anything_ran() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let step = |told: &serde_json::Value, end: &str| -> serde_json::Value {
        let steps = told["steps"].as_array().unwrap().iter();
        let mut found = steps.filter(|step| step["name"].as_str().unwrap().ends_with(end));
        found.next_back().unwrap_or_else(|| panic!("{told:#}")).clone()
    };
    scene.dockerfile("FROM base\nCOPY nosuch /f\nRUN true\n", &["-t", "x"]).fails();
    let missing = told(&scene);
    let copy = step(&missing, "COPY nosuch /f");
    assert_eq!((copy["outcome"].as_str(), &copy["causes"]), (Some("failed"), &serde_json::Value::Null));
    assert!(copy["error"].as_str().unwrap().contains("nosuch"), "{copy:#}");
    assert_eq!(step(&missing, "RUN true")["outcome"], "not_reached");
    let text = scene.run(&["explain"]).ok().stdout;
    assert!(
        text.contains("FAILED   [2/3] COPY nosuch /f\n") && text.contains("             error: "),
        "{text}"
    );
    assert!(text.ends_with("The build failed.\n") && !text.contains("Nothing ran"), "{text}");

    let dir = scene.path("www");
    fs_err::create_dir(&dir).unwrap();
    let web = Web::start(&dir, "geheim");
    let text = format!("FROM base\nADD {} /x/\n", web.url("user:geheim", "none"));
    scene.dockerfile(&text, &["-t", "x"]).fails();
    let gone = told(&scene);
    let failed = gone["steps"].as_array().unwrap().iter().find(|step| step["outcome"] == "failed");
    let failed = failed.unwrap_or_else(|| panic!("{gone:#}"));
    assert!(failed["name"].as_str().unwrap().contains("ADD http://"), "{failed:#}");
    assert!(failed["error"].is_string() && !gone.to_string().contains("geheim"), "{gone:#}");

    scene.dockerfile("FROM base\nNOSUCH x\n", &["-t", "x"]).fails();
    let wrong = told(&scene);
    assert!(wrong["error"].as_str().unwrap().contains("NOSUCH"), "{wrong:#}");
    let text = scene.run(&["explain"]).ok().stdout;
    assert!(text.contains("The build failed: ") && text.contains("NOSUCH"), "{text}");
}

#[test]
fn documents_in_the_dockerfile() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text = |copied: &str, run: &str| {
        format!("FROM base\nARG WHO=me\nCOPY <<EOF /x\n{copied}\nEOF\nRUN <<EOF\necho a\n{run}\nEOF\n")
    };
    scene.dockerfile(&text("a", "echo 1"), &["-t", "x"]).ok();
    scene.dockerfile(&text("b", "echo 1"), &["-t", "x"]).ok();
    let copy = "COPY <<EOF /x";
    let run = "RUN <<EOF (echo a...)";
    let document = json!({"kind": "document", "name": "EOF"});
    check(&scene, &[(copy, document), (run, follows(copy))]);
    let shown = scene.run(&["explain"]).ok().stdout;
    assert!(shown.contains("document EOF changed") && !shown.contains("internal"), "{shown}");
    scene.dockerfile(&text("b", "echo 2"), &["-t", "x"]).ok();
    let shown = scene.run(&["explain"]).ok().stdout;
    assert!(shown.contains("instruction changed: `echo 1` → `echo 2`\n"), "{shown}");
    // A variable alone is told as that.
    scene.dockerfile(&text("$WHO", "echo 2"), &["-t", "x"]).ok();
    scene.build(&["-t", "x", "--build-arg", "WHO=you"]).ok();
    let told = told(&scene);
    assert_eq!(causes(&told)[0], (copy.to_owned(), vec![json!({"kind": "arg", "name": "WHO"})]), "{told:#}");
}
