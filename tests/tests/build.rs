//! From a Dockerfile to an image, its archives, registries and containers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde_json::Value;
use tests::archive::Image;
use tests::{Auth, Scene, output, ready};

/// A Dockerfile with most of what an image config holds.
const MULTI_STAGE: &str = r#"
FROM base AS make
WORKDIR /src
COPY hello.txt .
RUN tr a-z A-Z < hello.txt > /out.txt && echo made
FROM base
ENV GREETING=hi PLACE="the world"
WORKDIR /app
COPY --from=make /out.txt ./
RUN echo "$GREETING, $PLACE" > greeting && mkdir d && id -u > d/uid
USER user
CMD ["cat", "out.txt", "greeting"]
"#;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap()
}

fn inspect(scene: &Scene, name: &str) -> Value {
    let text = scene.run(&["inspect", name]).ok().stdout;
    serde_json::from_str::<Value>(&text).unwrap()[0].clone()
}

/// An image that nothing was looked up in yet, and nothing on top of it.
#[test]
fn an_image_as_it_came_becomes_files() {
    if !ready() {
        return;
    }
    for output in ["type=tar,dest=../out.tar", "type=local,dest=../out"] {
        let scene = Scene::new();
        scene.dockerfile("FROM base\n", &["-o", output]).ok();
    }
}

#[test]
fn multi_stage_to_every_output() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("hello.txt", "hello\n").write("Dockerfile", MULTI_STAGE);
    let built = scene.build(&["-t", "app", "--iidfile", "iid", "--metadata-file", "meta.json"]).ok();
    assert_eq!(built.stdout, "");
    assert!(built.stderr.contains("made\n"), "{}", built.stderr);
    let id = fs_err::read_to_string(scene.context().join("iid")).unwrap();
    let meta = json(&scene.context().join("meta.json"));
    assert_eq!(meta["containerimage.config.digest"], id.as_str());
    assert_eq!(scene.run(&["run", "--rm", "app"]).ok().stdout, "HELLO\nhi, the world\n");

    let again = scene.build(&["-t", "app", "--iidfile", "iid2"]).ok();
    assert_eq!(again.ran(), Vec::<String>::new(), "{}", again.stderr);
    assert_eq!(fs_err::read_to_string(scene.context().join("iid2")).unwrap(), id);
    assert_eq!(scene.build(&["-t", "app", "-q"]).ok().stdout.trim(), id);

    archives(&scene);
    let rootfs = scene.path("rootfs");
    scene.build(&["-o", &format!("type=local,dest={}", rootfs.display())]).ok();
    assert_eq!(fs_err::read_to_string(rootfs.join("app/out.txt")).unwrap(), "HELLO\n");
    assert_eq!(fs_err::read_to_string(rootfs.join("app/d/uid")).unwrap(), "0\n");
    assert_eq!(fs_err::metadata(rootfs.join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
}

fn archives(scene: &Scene) {
    let config = Image::open(&archive(scene, "oci")).config;
    assert_eq!(config["config"]["WorkingDir"], "/app");
    assert_eq!(config["config"]["User"], "user");
    assert_eq!(config["config"]["Cmd"], serde_json::json!(["cat", "out.txt", "greeting"]));
    let env = config["config"]["Env"].to_string();
    assert!(env.contains("PLACE=the world") && env.contains("PATH=/usr/local/sbin"), "{env}");
    let image = Image::open(&archive(scene, "docker"));
    assert_eq!(image.config, config);
    assert_eq!(image.file("app/out.txt"), Some(&b"HELLO\n"[..]));
    assert_eq!(image.file("src/hello.txt"), None, "the first stage stays behind");
    let layers = config["rootfs"]["diff_ids"].as_array().unwrap().len();
    assert_eq!(layers, image.layers.len());
    let history = config["history"].as_array().unwrap();
    assert_eq!(history.iter().filter(|h| h["empty_layer"] != true).count(), layers, "{history:?}");

    let tar = archive(scene, "tar");
    let names: Vec<String> = tar::Archive::new(fs_err::File::open(tar).unwrap())
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().to_string_lossy().into_owned())
        .collect();
    assert!(names.contains(&"app/greeting".to_owned()), "{names:?}");
}

fn archive(scene: &Scene, kind: &str) -> std::path::PathBuf {
    let name = format!("{kind}.tar");
    let built = scene.build(&["-t", "x:1", "-o", &format!("type={kind},dest={name}")]).ok();
    assert_eq!(built.stdout, "");
    scene.context().join(name)
}

/// A large layer goes straight into a file the first time, and is copied from a blob of the store later. Nobody sees a
/// difference.
#[test]
fn archives_are_equal_however_large_layers_come_into_them() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let large = |name: &str| format!("RUN head -c 70000000 /dev/zero | tr '\\0' {name} > /{name}\n");
    scene.write("Dockerfile", &format!("FROM base\n{}RUN : > /small\n{}", large("a"), large("b")));
    let export = |name: &str| {
        scene.build(&["-o", &format!("type=oci,dest={name}")]).ok();
        fs_err::read(scene.context().join(name)).unwrap()
    };
    let first = export("1.tar");
    let image = Image::open(&scene.context().join("1.tar"));
    assert_eq!(image.file("b").map(|bytes| (bytes.len(), bytes[69_999_999])), Some((70_000_000, b'b')));
    let mut tar = tar::Archive::new(&first[..]);
    let names = tar.entries().unwrap().map(|e| e.unwrap().path().unwrap().to_string_lossy().into_owned());
    let blobs: Vec<String> = names
        .filter_map(|n| Some(n.strip_prefix("blobs/sha256/")?.to_owned()).filter(|n| n.len() == 64))
        .collect();
    let stored = |hex: &String| scene.daemon.root().join("blobs/sha256").join(&hex[..2]).join(hex).exists();
    let are_stored = || blobs.iter().map(stored).collect::<Vec<_>>();
    assert_eq!(are_stored(), [vec![false; 2], vec![true; blobs.len() - 2]].concat(), "{blobs:?}");
    assert!(export("2.tar") == first);
    assert_eq!(are_stored(), vec![true; blobs.len()]);
    assert!(export("3.tar") == first);
    let piped = scene.command(&["build", "-o", "type=oci,dest=-", "."]).output().unwrap();
    assert!(piped.stdout == first, "{}", String::from_utf8_lossy(&piped.stderr));
    scene.build(&["--no-cache", "-o", "type=oci,dest=4.tar", "-o", "type=docker,dest=5.tar"]).ok();
    assert_eq!(Image::open(&scene.context().join("5.tar")).file("b"), image.file("b"));
}

#[test]
fn archives_on_stdout_are_whole_and_failed_builds_leave_no_file() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n");
    let out = scene.command(&["build", "-o", "-", "."]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut tar = tar::Archive::new(&out.stdout[..]);
    let names: Vec<_> = tar.entries().unwrap().map(|e| e.unwrap().path().unwrap().into_owned()).collect();
    assert_eq!(names, [Path::new("d")]);

    scene.dockerfile("FROM base\nRUN exit 3\n", &["-o", "type=oci,dest=x.tar"]).fails();
    let left: Vec<_> = fs_err::read_dir(scene.context()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["Dockerfile"]);
}

/// A pipe that holds as much as it can: whoever writes to it waits for its reader.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let blocking = OFlag::from_bits_retain(fcntl(&writer, FcntlArg::F_GETFL).unwrap());
    fcntl(&writer, FcntlArg::F_SETFL(blocking | OFlag::O_NONBLOCK)).unwrap();
    while writer.write(&[b'-'; 512]).is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(blocking)).unwrap();
    (reader, writer)
}

#[test]
fn a_client_whose_progress_nobody_reads_answers_the_daemon() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let secret = scene.path("secret");
    mkfifo(&secret, Mode::S_IRWXU).unwrap();
    // Long enough that something has to be shown before the daemon asks.
    let text = "FROM base\nRUN sleep 1\nRUN --mount=type=secret,id=s test $(cat /run/secrets/s) = hush\n";
    scene.write("Dockerfile", text);
    let given = format!("id=s,src={}", secret.display());
    let (mut stderr, full) = full_pipe();
    let mut command = scene.command(&["build", "--progress=plain", "-t", "x", "--secret", &given, "."]);
    let mut client = command.stderr(full).spawn().unwrap();
    drop(command);
    // The client opens it when the daemon asks for the secret.
    let begun = Instant::now();
    let mut writer = loop {
        match open(&secret, OFlag::O_WRONLY | OFlag::O_NONBLOCK, Mode::empty()) {
            Ok(fd) => break std::fs::File::from(fd),
            Err(_) if begun.elapsed() < Duration::from_secs(20) => {
                std::thread::sleep(Duration::from_millis(10))
            }
            Err(e) => {
                client.kill().unwrap();
                client.wait().unwrap();
                panic!("the client does not answer: {e}");
            }
        }
    };
    writer.write_all(b"hush").unwrap();
    drop(writer);
    let mut shown = String::new();
    stderr.read_to_string(&mut shown).unwrap();
    assert!(client.wait().unwrap().success(), "{shown}");
    assert!(shown.contains("naming to"), "all of the progress comes: {shown}");
}

#[test]
fn a_client_whose_archive_nobody_reads_can_be_interrupted() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("Dockerfile", "FROM base\nCOPY Dockerfile /d\n");
    let (_stdout, full) = full_pipe();
    let mut command = scene.command(&["build", "--progress=plain", "-o", "-", "."]);
    let mut client = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    let mut stderr = BufReader::new(client.stderr.take().unwrap());
    let mut shown = String::new();
    while !shown.contains("sending tarball") {
        assert_ne!(stderr.read_line(&mut shown).unwrap(), 0, "nothing is sent: {shown}");
    }
    // Where it waits for the reader now.
    let stalled = || {
        let tasks = fs_err::read_dir(format!("/proc/{}/task", client.id())).unwrap();
        let waits = |task: PathBuf| fs_err::read_to_string(task.join("wchan")).unwrap_or_default();
        tasks.flatten().any(|task| waits(task.path()).contains("pipe_write"))
    };
    let begun = Instant::now();
    while !stalled() && begun.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
    kill(Pid::from_raw(client.id() as i32), Signal::SIGINT).unwrap();
    let begun = Instant::now();
    while client.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(20) {
            client.kill().unwrap();
            client.wait().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(client.wait().unwrap().code(), Some(1));
}

#[test]
fn the_image_store() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.dockerfile("FROM base\nLABEL a=b\nRUN echo one > /one\n", &["-t", "app", "-t", "other:2"]).ok();
    let list = scene.run(&["images"]).ok().stdout;
    assert!(list.contains("app ") && list.contains("other "), "{list}");
    let image = inspect(&scene, "app");
    assert!(image.to_string().contains(r#""a":"b""#), "{image:#}");
    assert!(scene.run(&["history", "app"]).ok().stdout.contains("echo one"));

    scene.run(&["tag", "app", "third:3"]).ok();
    assert_eq!(inspect(&scene, "third:3")["Id"], image["Id"]);
    scene.run(&["rmi", "other:2"]).ok();
    assert!(scene.run(&["inspect", "other:2"]).fails().stderr.contains("other:2"));

    scene.run(&["save", "-o", "saved.tar", "third:3"]).ok();
    scene.run(&["rmi", "app", "third:3"]).ok();
    scene.run(&["prune", "--all", "--force"]).ok();
    let load = scene.run(&["load", "-i", "saved.tar"]).ok();
    assert!(load.stdout.contains("third:3") || load.stderr.contains("third:3"), "{load:?}");
    assert_eq!(inspect(&scene, "third:3")["Id"], image["Id"]);
    assert_eq!(scene.run(&["run", "--rm", "third:3", "cat", "/one"]).ok().stdout, "one\n");
    scene.dockerfile("FROM third:3\nRUN test -f /one && cat /one\n", &["-t", "fourth"]).ok();
}

#[test]
fn push_and_pull() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let registry = scene.registry(Auth::Open);
    let name = format!("{}/team/app:1", registry.host());
    scene.dockerfile("FROM base\nRUN echo pushed > /f\n", &["-t", &name, "--push"]).ok();
    let id = inspect(&scene, &name)["Id"].clone();
    scene.run(&["push", "-q", &name]).ok();
    scene.run(&["rmi", &name, "base"]).ok();
    scene.run(&["prune", "--all", "--force"]).ok();

    let from = format!("FROM {name}\nRUN cat /f > /g\nRUN echo two\n");
    let built = scene.dockerfile(&from, &["-t", "app"]).ok();
    assert_eq!(built.ran().len(), 2, "{}", built.stderr);
    assert_eq!(scene.run(&["run", "--rm", "app", "cat", "/g"]).ok().stdout, "pushed\n");
    assert_eq!(scene.dockerfile(&from, &["-t", "app"]).ok().ran(), Vec::<String>::new());
    scene.run(&["pull", "-q", &name]).ok();
    assert_eq!(inspect(&scene, &name)["Id"], id);

    // Under its digest only: no tag, and no name here.
    let parts = format!("{}/team/parts", registry.host());
    let output = format!("-otype=image,name={parts},push=true,push-by-digest=true");
    let file = scene.path("metadata");
    scene
        .dockerfile(
            &format!("FROM {name}\nRUN echo part > /f\n"),
            &[&output, "--metadata-file", file.to_str().unwrap()],
        )
        .ok();
    let metadata: serde_json::Value = serde_json::from_slice(&fs_err::read(file).unwrap()).unwrap();
    let digest = metadata["containerimage.digest"].as_str().unwrap();
    scene.run(&["inspect", &parts]).fails();
    scene.run(&["pull", "-q", &parts]).fails();
    let pinned = format!("{parts}@{digest}");
    scene.run(&["pull", "-q", &pinned]).ok();
    assert_eq!(scene.run(&["run", "--rm", &pinned, "cat", "/f"]).ok().stdout, "part\n");
}

/// Layers with an index: the image is the same when it comes back, and other daemons take it.
#[test]
fn layers_with_an_index() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let registry = scene.registry(Auth::Open);
    let name = format!("{}/indexed:1", registry.host());
    let output =
        format!("-otype=image,name={name},push=true,store=true,compression=estargz,oci-mediatypes=false");
    scene
        .dockerfile(
            "FROM base\nRUN echo indexed > /f && ln /f /g && touch /empty\n",
            &[&output, "--no-cache"],
        )
        .ok();
    let here = inspect(&scene, &name);
    assert_eq!(scene.run(&["run", "--rm", &name, "cat", "/g"]).ok().stdout, "indexed\n");
    let again = format!("{}/indexed:2", registry.host());
    scene.run(&["tag", &name, &again]).ok();
    scene.run(&["push", "-q", &again]).ok();
    scene.run(&["rmi", &name, &again]).ok();
    scene.run(&["prune", "--all", "--force"]).ok();
    for name in [&name, &again] {
        scene.run(&["pull", "-q", name]).ok();
        assert_eq!(inspect(&scene, name)["Id"], here["Id"]);
        assert_eq!(inspect(&scene, name)["RootFS"], here["RootFS"]);
    }
    let step = format!("FROM {name}\nRUN cat /f /g && test -f /empty && ! test -e /stargz.index.json\n");
    scene.dockerfile(&step, &[]).ok();

    scene.write("stargz.index.json", "mine");
    let archive = format!("-otype=oci,dest={},compression=estargz", scene.path("o.tar").display());
    let failed = scene.dockerfile("FROM scratch\nCOPY stargz.index.json /\n", &[&archive]).fails();
    assert!(failed.stderr.contains("which eStargz needs for itself"), "{}", failed.stderr);
}

#[test]
fn passwords() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let registry = scene.registry(Auth::Basic);
    let name = format!("{}/app:1", registry.host());
    scene.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /d\n");
    let push = |auth: &str| {
        let text = format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, registry.host());
        fs_err::write(scene.path("config.json"), text).unwrap();
        let mut command = scene.command(&["build", "--progress=plain", "-t", &name, "--push", "."]);
        output(command.env("DOCKER_CONFIG", scene.path("")))
    };
    // user:geheim, user:falsch
    push("dXNlcjpnZWhlaW0=").ok();
    scene.run(&["prune", "--all", "--force"]).ok();
    let refused = push("dXNlcjpmYWxzY2g=").fails();
    let last = refused.stderr.lines().last().unwrap_or_default();
    assert!(last.contains("wrong user name or password"), "{}", refused.stderr);
    assert!(last.contains(registry.host()), "{last}");
    assert!(!refused.stderr.contains("falsch"), "{}", refused.stderr);
}

#[test]
fn dockerfiles_from_elsewhere() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("sub/other.Dockerfile", "FROM base\nCOPY a /a\nRUN cat /a\n").write("a", "from a\n");
    let built = scene.build(&["-f", "sub/other.Dockerfile"]).ok();
    assert!(built.stderr.contains("from a\n"), "{}", built.stderr);
    assert!(built.stderr.to_lowercase().contains("warn"), "no output is named: {}", built.stderr);
    let stdin = "FROM base\nCOPY a /a\nRUN echo by stdin; cat a\n";
    let built = scene.run_with_stdin(&["build", "--progress=plain", "-t", "x", "-f", "-", "."], stdin).ok();
    assert!(built.stderr.contains("by stdin"), "{}", built.stderr);
    let stages = "FROM base AS one\nRUN echo first\nFROM base AS two\nARG V=none\nRUN echo second $V\n";
    let built = scene.dockerfile(stages, &["--target", "one", "-t", "x"]).ok();
    assert!(built.stderr.contains("first") && !built.stderr.contains("second"), "{}", built.stderr);
    let built = scene.dockerfile(stages, &["--build-arg", "V=given", "-t", "x"]).ok();
    assert!(built.stderr.contains(" second given\n"), "{}", built.stderr);
}

#[test]
fn mounts() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("s.txt", "canary\n");
    let text = "FROM base\n\
        RUN --mount=type=secret,id=s,uid=1000 cat /run/secrets/s | wc -c > /size && stat -c %u:%a /run/secrets/s\n\
        RUN --mount=type=cache,target=/c echo x >> /c/log && wc -l < /c/log\n\
        RUN --mount=type=tmpfs,target=/t echo t > /t/f && ls /t\n\
        RUN --mount=type=bind,target=/b cat /b/s.txt | wc -l && ! touch /b/x 2>/dev/null\n";
    let built = scene.dockerfile(text, &["--secret", "id=s,src=s.txt", "-t", "x"]).ok();
    assert!(built.stderr.contains("1000:400\n"), "{}", built.stderr);
    let cached =
        "FROM base\nRUN --mount=type=cache,target=/c echo x >> /c/log && wc -l < /c/log && echo again\n";
    let again = scene.dockerfile(cached, &["-t", "y"]).ok();
    assert!(again.stderr.lines().any(|l| l.ends_with(" 2")), "the cache mount is kept: {}", again.stderr);
    let again = scene.dockerfile(cached, &["-t", "y", "--no-cache"]).ok();
    assert!(again.stderr.lines().any(|l| l.ends_with(" 1")), "`--no-cache` empties it: {}", again.stderr);
    let gone = "FROM base\nRUN ls -a /run /c /t /b 2>&1; true\n";
    let list = scene.run(&["run", "--rm", "x", "sh", "-c", "cat /size; ls /t/f /b/s.txt /run/secrets/s"]);
    assert!(list.stdout.starts_with('7') && list.code != 0, "{list:?}");
    scene.dockerfile(gone, &["-t", "x"]).ok();
    let missing = "FROM base\nRUN --mount=type=secret,id=nope,required=true cat /run/secrets/nope\n";
    assert!(scene.dockerfile(missing, &[]).fails().stderr.contains("nope"));
}

#[test]
fn ignored_files() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("a.log", "1").write("keep.log", "2").write("d/x.tmp", "3").write("d/y", "4");
    scene.write(".dockerignore", "# comment\n*.log\n!keep.log\n**/*.tmp\nDockerfile\n");
    let text = "FROM base\nCOPY . /all\nRUN cd /all && find . -type f | sort\n";
    let built = scene.dockerfile(text, &["-t", "x"]).ok();
    let found: Vec<&str> = built
        .stderr
        .lines()
        .filter_map(|l| l.rsplit_once(' '))
        .map(|l| l.1)
        .filter(|f| f.starts_with("./"))
        .collect();
    assert_eq!(found, ["./.dockerignore", "./d/y", "./keep.log"], "{}", built.stderr);
    scene.write("a.log", "changed, but ignored");
    assert_eq!(scene.build(&["-t", "x"]).ok().ran(), Vec::<String>::new());
}

#[test]
fn containers() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("v/f", "from the volume\n");
    scene
        .dockerfile(
            "FROM base\nENV A=image\nENTRYPOINT [\"/bin/sh\", \"-c\"]\nCMD [\"exit 7\"]\n",
            &["-t", "x"],
        )
        .ok();
    assert_eq!(scene.run(&["run", "--rm", "x"]).code, 7);
    let out =
        scene.run(&["run", "--rm", "-e", "A=given", "-w", "/tmp", "-u", "user", "x", "echo $A; pwd; id -un"]);
    assert_eq!(out.ok().stdout, "given\n/tmp\nuser\n");
    let out = scene.run(&["run", "--rm", "-v", "./v:/v:ro", "x", "cat /v/f; touch /v/no; echo err >&2"]).ok();
    assert_eq!(out.stdout, "from the volume\n");
    assert!(out.stderr.contains("Read-only") && out.stderr.contains("err\n"), "{}", out.stderr);
    let out =
        scene.run_with_stdin(&["run", "--rm", "-i", "--entrypoint", "cat", "x"], "through stdin\n").ok();
    assert_eq!(out.stdout, "through stdin\n");
    assert_eq!(scene.run(&["run", "--rm", "x", "sh -c 'kill -9 $$'; exit $?"]).code, 137);
    let absent = scene.run(&["run", "--rm", "--entrypoint", "/not/there", "x"]);
    assert!(absent.code != 0 && absent.stderr.contains("/not/there"), "{absent:?}");
}
