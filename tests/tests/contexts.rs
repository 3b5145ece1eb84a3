//! Where the files of a build may come from: stdin, archives, URLs, git, OCI layouts.

#[path = "../../cache/tests/registry/fake.rs"]
#[expect(dead_code, reason = "made for the tests of the registry client, which need more of it")]
mod fake;

use std::io::Write;
use std::process::{Command, Stdio};

use fake::{Fake, Reply};
use tests::archive::Image;
use tests::{Daemon, GitDaemon, Output, Scene, Web, git, output, ready};

/// Runs a command of the client with these bytes on its standard input.
fn with_stdin(scene: &Scene, args: &[&str], stdin: &[u8]) -> Output {
    let file = scene.path("stdin-bytes");
    fs_err::write(&file, stdin).unwrap();
    output(scene.command(args).stdin(fs_err::File::open(file).unwrap().into_parts().0))
}

/// A tar of pairs of path and content.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// What a program makes of bytes; `None` where it is not installed.
fn through(program: &str, data: &[u8]) -> Option<Vec<u8>> {
    let mut child =
        Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let (mut stdin, data) = (child.stdin.take()?, data.to_vec());
    let writer = std::thread::spawn(move || stdin.write_all(&data));
    let out = child.wait_with_output().ok()?;
    writer.join().ok()?.ok()?;
    out.status.success().then_some(out.stdout)
}

/// The file `f` of the image in `o.tar`.
fn result(scene: &Scene) -> String {
    let image = Image::open(&scene.path("o.tar"));
    String::from_utf8_lossy(image.file("f").expect("the image has `f`")).into_owned()
}

const TO_TAR: [&str; 4] = ["build", "--progress=plain", "-o", "type=oci,dest=../o.tar"];

/// Builds to `o.tar`.
fn build<'a>(args: &[&'a str]) -> Vec<&'a str> {
    TO_TAR.iter().chain(args).copied().collect()
}

#[test]
fn stdin() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let plain = tar(&[("Dockerfile", "FROM scratch\nCOPY sub/f /f\n"), ("sub/f", "from a tar\n")]);
    for program in ["cat", "gzip", "bzip2", "xz", "zstd"] {
        let Some(packed) = (if program == "cat" { Some(plain.clone()) } else { through(program, &plain) })
        else {
            eprintln!("SKIPPED: {program} is not installed");
            continue;
        };
        with_stdin(&scene, &build(&["-"]), &packed).ok();
        assert_eq!(result(&scene), "from a tar\n", "{program}");
    }
    // The same archive again: nothing runs.
    let again = with_stdin(&scene, &build(&["-"]), &plain).ok();
    assert_eq!(again.ran(), Vec::<String>::new(), "{}", again.stderr);

    let elsewhere = tar(&[("d/My.Dockerfile", "FROM scratch\nCOPY g /f\n"), ("g", "by another\n")]);
    with_stdin(&scene, &build(&["-f", "d/My.Dockerfile", "-"]), &elsewhere).ok();
    assert_eq!(result(&scene), "by another\n");

    // Nothing but a Dockerfile: the context is empty.
    let out =
        with_stdin(&scene, &build(&["-"]), b"FROM base\nCOPY . /there\nRUN ls /there | wc -l > /f\n").ok();
    assert_eq!(result(&scene), "0\n", "{}", out.stderr);
    scene.write("f", "in the directory\n");
    with_stdin(&scene, &build(&["-f", "-", "."]), b"FROM scratch\nCOPY f /f\n").ok();
    assert_eq!(result(&scene), "in the directory\n");

    // More than what is looked at and what the pipes hold.
    let long = "0123456789abcdef".repeat(1 << 17);
    let large = tar(&[("Dockerfile", "FROM scratch\nCOPY f /f\n"), ("f", &long)]);
    with_stdin(&scene, &build(&["-"]), &large).ok();
    assert_eq!(result(&scene), long);

    // Dockerfile or archive, arguments, and what the error holds.
    let without = tar(&[("other", "x")]);
    let cases: [(&[u8], &[&str], &str); 6] = [
        (b"", &["-"], "Dockerfile"),
        (b"FROM base\n", &["-f", "-", "-"], "can't use stdin for both"),
        (b"FROM base\n", &["-f", "x", "-"], "ambiguous Dockerfile source"),
        (b"FRUM base\n", &["-"], "FRUM"),
        (&without, &["-"], "Dockerfile: no such file or directory"),
        (&large[..large.len() / 2], &["-"], "unexpected EOF"),
    ];
    for (stdin, args, expected) in cases {
        let out = with_stdin(&scene, &build(args), stdin).fails();
        assert!(out.stderr.contains(expected), "{args:?} wants {expected}:\n{}", out.stderr);
    }
}

#[test]
fn ignore_files() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("Dockerfile", "FROM base\nCOPY . /c\nRUN ls /c > /f\n");
    scene.write("a", "").write("b", "").write("c", "").write(".dockerignore", "*\n!a\n");
    scene.run(&build(&["."])).ok();
    assert_eq!(result(&scene), "a\n");
    scene.write("Dockerfile.dockerignore", "*\n!b\n");
    scene.run(&build(&["."])).ok();
    assert_eq!(result(&scene), "b\n");
    // It is the Dockerfile's own, wherever that lies.
    scene
        .write("sub/Other", "FROM base\nCOPY . /c\nRUN ls /c > /f\n")
        .write("sub/Other.dockerignore", "*\n!c\n");
    scene.run(&build(&["-f", "sub/Other", "."])).ok();
    assert_eq!(result(&scene), "c\n");
}

#[test]
fn urls() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let archive = tar(&[
        ("Dockerfile", "FROM scratch\nCOPY f /f\n"),
        ("f", "from the web\n"),
        ("sub/Other", "FROM scratch\nCOPY sub/g /f\n"),
        ("sub/g", "below\n"),
    ]);
    let packed = through("gzip", &archive).unwrap();
    let server = Fake::start(move |request| match request.target.as_str() {
        "/plain" => Reply::ok(archive.clone()),
        "/a.tar.gz" => Reply::ok(packed.clone()),
        "/Dockerfile" => Reply::ok("FROM base\nCOPY context /c\nRUN grep -c FROM /c > /f\n"),
        "/cut" => Reply::ok(archive.clone()).cut(700),
        "/page" => Reply::ok("<html>no Dockerfile</html>"),
        _ => Reply::new(404),
    });
    let url = |path: &str| format!("http://{}/{path}", server.host);
    for name in ["plain", "a.tar.gz"] {
        scene.run(&build(&[&url(name)])).ok();
        assert_eq!(result(&scene), "from the web\n", "{name}");
        scene.run(&build(&["-f", "sub/Other", &url(name)])).ok();
        assert_eq!(result(&scene), "below\n", "{name}");
    }
    scene.run(&build(&[&url("Dockerfile")])).ok();
    assert_eq!(result(&scene), "2\n");
    with_stdin(&scene, &build(&["-f", "-", &url("plain")]), b"FROM scratch\nCOPY sub/g /f\n").ok();
    assert_eq!(result(&scene), "below\n");
    scene.write("here", "FROM scratch\nCOPY sub/g /f\n");
    let here = scene.context().join("here");
    scene.run(&build(&["-f", here.to_str().unwrap(), &url("a.tar.gz")])).ok();
    assert_eq!(result(&scene), "below\n");
    // A named context is the file itself, as in BuildKit.
    scene.write("Dockerfile", "FROM base\nCOPY --from=web context /c\nRUN tar -tf /c | wc -l > /f\n");
    scene.run(&build(&["--build-context", &format!("web={}", url("plain")), "."])).ok();
    assert_eq!(result(&scene), "4\n");

    for (path, expected) in
        [("nothere", "404"), ("cut", "cannot fetch"), ("page", "<html>no Dockerfile</html>")]
    {
        let out = scene.run(&build(&[&url(path)])).fails();
        assert!(out.stderr.contains(expected), "{path} wants {expected}:\n{}", out.stderr);
    }
    let gone = scene.run(&build(&["http://127.0.0.1:1/x"])).fails();
    assert!(gone.stderr.contains("127.0.0.1:1"), "{}", gone.stderr);
}

/// What a server still has is not fetched again.
#[test]
fn downloads_are_not_repeated() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let server = Fake::start(|request| {
        let head = request.method == "HEAD";
        let is_known = |tag: &str| request.header("if-none-match") == Some(tag);
        match request.target.as_str() {
            "/tagged" if head => Reply::new(200).header("ETag", "\"1\""),
            "/tagged" => Reply::ok("tagged").header("ETag", "W/\"1\""),
            "/headless" if head => Reply::new(405),
            "/headless" if is_known("\"2\"") => Reply::new(304),
            "/headless" => Reply::ok("headless").header("ETag", "\"2\""),
            "/changing" if head => Reply::new(200).header("ETag", "\"4\""),
            "/changing" if is_known("\"3\"") => Reply::ok("changed").header("ETag", "\"4\""),
            "/changing" => Reply::ok("at first").header("ETag", "\"3\""),
            "/checked" | "/untagged" => Reply::ok("body"),
            _ => Reply::new(404),
        }
    });
    let asked = |name: &str| {
        let lines = server.lines().into_iter().filter(|line| line.contains(&format!("/{name}")));
        lines.map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let sum = "230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5";
    for (name, flags, twice, body) in [
        ("tagged", "", &["GET", "HEAD"][..], "tagged"),
        ("headless", "", &["GET", "HEAD", "GET"], "headless"),
        ("changing", "", &["GET", "HEAD", "GET"], "changed"),
        ("checked", &*format!("--checksum=sha256:{sum} "), &["GET"], "body"),
        ("untagged", "", &["GET", "GET"], "body"),
    ] {
        let text = format!("FROM scratch\nADD {flags}http://{}/{name} /f\n", server.host);
        for _ in 0..2 {
            with_stdin(&scene, &build(&["-f", "-", "."]), text.as_bytes()).ok();
        }
        assert_eq!(result(&scene), body, "{name}");
        assert_eq!(asked(name), twice, "{name}");
        // What was pruned is fetched whole.
        scene.run(&["prune", "--all", "--force"]).ok();
        with_stdin(&scene, &build(&["-f", "-", "."]), text.as_bytes()).ok();
        assert_eq!(asked(name)[twice.len()..], ["GET"], "{name}");
    }
}

#[test]
fn git_repositories() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let base = scene.path("git");
    let repository = base.join("repo.git");
    fs_err::create_dir_all(repository.join("sub")).unwrap();
    git(&repository, &["init", "-q"]);
    let commit = |text: &str| {
        tests::base::context(
            &repository,
            &[
                ("Dockerfile", "FROM scratch\nCOPY f /f\n"),
                ("f", text),
                ("sub/Dockerfile", "FROM base\nCOPY . /c\nRUN ls -A /c > /f\n"),
                ("sub/.dockerignore", "f\n"),
            ],
        );
        git(&repository, &["add", "."]);
        git(&repository, &["commit", "-q", "-m", text]);
        git(&repository, &["rev-parse", "HEAD"])
    };
    let first = commit("first\n");
    git(&repository, &["tag", "-a", "v1", "-m", "one"]);
    git(&repository, &["branch", "old"]);
    let second = commit("second\n");
    let server = GitDaemon::start(&base);
    let url = |rest: &str| format!("git://{}/repo.git{rest}", server.host());
    for (rest, expected) in [
        ("", "second\n"),
        ("#main", "second\n"),
        ("#old", "first\n"),
        ("#v1", "first\n"),
        ("#refs/heads/old", "first\n"),
        (&format!("#{first}"), "first\n"),
        ("?branch=old", "first\n"),
        ("?tag=v1", "first\n"),
        ("?ref=old", "first\n"),
        (&format!("?ref=main&commit={second}"), "second\n"),
        (&format!("?checksum={}", &second[..12]), "second\n"),
        (&format!("?branch=old&checksum={first}&submodules=false"), "first\n"),
        // Files of the repository are not ignored, whatever it says.
        ("#main:sub", ".dockerignore\nDockerfile\n"),
        ("?subdir=sub", ".dockerignore\nDockerfile\n"),
        ("#:sub", ".dockerignore\nDockerfile\n"),
        // Nothing leads out of it.
        ("#main:../../sub", ".dockerignore\nDockerfile\n"),
    ] {
        scene.run(&build(&[&url(rest)])).ok();
        assert_eq!(result(&scene), expected, "{rest}");
    }
    let keep = "FROM base\nCOPY . /c\nRUN cd /c/.git && { cat HEAD; find refs -type f | sort; ls FETCH_HEAD; } > /f 2>/dev/null; true\n";
    for (rest, head, refs) in [
        ("?keep-git-dir=true", &second, "refs/heads/main\n"),
        ("?keep-git-dir=1&branch=old", &first, "refs/heads/old\n"),
        ("?keep-git-dir=1&ref=v1", &first, "refs/tags/v1\n"),
        (&format!("?keep-git-dir=1&ref={first}"), &first, ""),
        (&format!("?keep-git-dir=1&ref=x&commit={first}&fetch-by-commit=1"), &first, "refs/heads/x\n"),
    ] {
        with_stdin(&scene, &build(&["-f", "-", &url(rest)]), keep.as_bytes()).ok();
        assert_eq!(result(&scene), format!("{head}\n{refs}"), "{rest}");
    }
    let times = "FROM base\nCOPY f sub /c/\nRUN stat -c %Y /c/f /c/Dockerfile | uniq > /f\n";
    let committed = git(&repository, &["log", "-1", "--format=%ct", "old"]);
    with_stdin(&scene, &build(&["-f", "-", &url("?ref=old&mtime=commit")]), times.as_bytes()).ok();
    assert_eq!(result(&scene).trim(), committed);
    scene.write("Dockerfile", "FROM scratch\nCOPY --from=r f /f\n");
    scene.run(&build(&["--build-context", &format!("r={}", url("#old")), "."])).ok();
    assert_eq!(result(&scene), "first\n");

    for (rest, expected) in [
        ("#nothere", "nothere"),
        ("#main:nodir", "nodir"),
        (&format!("?branch=old&checksum={second}"), "expected checksum to match"),
        ("?fetch-by-commit=true", "fetch-by-commit requires a checksum or a commit SHA ref"),
        ("?checksum=main", "invalid checksum main for Git URL, expected hex commit hash"),
        ("?bogus=1", r#"unexpected query "bogus""#),
        ("?ref=a&ref=b", "multiple values"),
    ] {
        let out = scene.run(&build(&[&url(rest)])).fails();
        assert!(out.stderr.contains(expected), "{rest} wants {expected}:\n{}", out.stderr);
    }
}

/// A repository behind a password, on a server that knows nothing of git.
#[test]
fn git_with_the_clients_secrets() {
    if !ready() {
        return;
    }
    const PASSWORD: &str = "git-password";
    let scene = Scene::new();
    let (base, repository) = (scene.path("www"), scene.path("www/repo.git"));
    fs_err::create_dir_all(&repository).unwrap();
    git(&repository, &["init", "-q"]);
    tests::base::context(&repository, &[("Dockerfile", "FROM scratch\nCOPY f /f\n"), ("f", "behind\n")]);
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "-q", "-m", "one"]);
    git(&repository, &["update-server-info"]);
    let web = Web::start(&base, PASSWORD);
    let host = web.host();
    let url = format!("http://{host}/repo.git/.git");
    let outer = scene.path("www/outer.git");
    fs_err::create_dir(&outer).unwrap();
    git(&outer, &["init", "-q"]);
    fs_err::write(
        outer.join(".gitmodules"),
        "[submodule \"inner\"]\n\tpath = inner\n\turl = ../../repo.git/.git\n",
    )
    .unwrap();
    let inner = git(&repository, &["rev-parse", "HEAD"]);
    git(&outer, &["update-index", "--add", "--cacheinfo", &format!("160000,{inner},inner")]);
    git(&outer, &["add", ".gitmodules"]);
    git(&outer, &["commit", "-q", "-m", "one"]);
    git(&outer, &["update-server-info"]);
    let with_submodule = web.url(&format!("user:{PASSWORD}"), "outer.git/.git");
    let text = b"FROM scratch\nCOPY inner/f /f\n";
    with_stdin(&scene, &build(&["-f", "-", &with_submodule]), text).ok();
    assert_eq!(result(&scene), "behind\n");
    let header = "basic dXNlcjpnaXQtcGFzc3dvcmQ=".to_owned();
    let wrong = "wrong".to_owned();
    for (secrets, let_in) in [
        (vec![("GIT_AUTH_TOKEN", PASSWORD.to_owned())], true),
        (vec![("GIT_AUTH_HEADER", header)], true),
        (
            vec![
                (&*format!("GIT_AUTH_TOKEN.{host}"), PASSWORD.to_owned()),
                ("GIT_AUTH_TOKEN", wrong.clone()),
            ],
            true,
        ),
        (vec![("GIT_AUTH_TOKEN.example.com", PASSWORD.to_owned())], false),
        (vec![("GIT_AUTH_TOKEN", wrong)], false),
        (vec![], false),
    ] {
        let mut args = build(&[]);
        let mut given = Vec::new();
        for (n, (id, value)) in secrets.iter().enumerate() {
            let file = scene.path(&format!("secret{n}"));
            fs_err::write(&file, value).unwrap();
            given.push(format!("--secret=id={id},src={}", file.display()));
        }
        args.extend(given.iter().map(String::as_str));
        args.extend(["--no-cache", &url]);
        let out = scene.run(&args);
        let names: Vec<_> = secrets.iter().map(|(id, _)| id).collect();
        assert_eq!(out.code == 0, let_in, "{names:?}:\n{}", out.stderr);
        assert!(!out.stderr.contains(PASSWORD), "{}", out.stderr);
    }
    // ssh is reached through the client's agent only.
    let out = scene.run(&build(&["ssh://git@127.0.0.1:1/repo.git"])).fails();
    assert!(out.stderr.contains("unset ssh forward key default (hint: --ssh default)"), "{}", out.stderr);
}

/// A repository whose tree holds a `.git` of its own, with objects that are a link to this machine's files.
#[test]
fn git_trees_that_pose_as_repositories() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let base = scene.path("git");
    let (host, repository) = (scene.path("host"), base.join("repo.git"));
    tests::base::context(&host, &[("canary", "of this machine\n")]);
    tests::base::context(&repository, &[("Dockerfile", "FROM base\nCOPY . /c\nRUN ls -R -A /c > /f\n")]);
    git(&repository, &["init", "-q"]);
    git(&repository, &["add", "."]);
    git(&repository, &["commit", "-q", "-m", "honest"]);
    // git writes such trees only when it is told to take them literally.
    let object = |kind: &str, bytes: &[u8]| {
        let mut command = Command::new("git");
        command.args(["hash-object", "-w", "--literally", "--stdin", "-t", kind]).current_dir(&repository);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), bytes).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success());
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    let entry = |mode: &str, name: &str, id: &str| {
        let id: Vec<u8> =
            (0..id.len() / 2).map(|i| u8::from_str_radix(&id[2 * i..2 * i + 2], 16).unwrap()).collect();
        [format!("{mode} {name}\0").as_bytes(), &id].concat()
    };
    let link = object("blob", host.to_str().unwrap().as_bytes());
    let inner = object("tree", &entry("120000", "objects", &link));
    let dockerfile = git(&repository, &["rev-parse", "HEAD:Dockerfile"]);
    let outer = [entry("40000", ".git", &inner), entry("100644", "Dockerfile", &dockerfile)].concat();
    let tree = object("tree", &outer);
    let commit = git(&repository, &["commit-tree", "-m", "hostile", &tree]);
    git(&repository, &["branch", "hostile", &commit]);
    let server = GitDaemon::start(&base);
    for keep in ["false", "true"] {
        let url =
            |branch: &str| format!("git://{}/repo.git?branch={branch}&keep-git-dir={keep}", server.host());
        scene.run(&build(&[&url("main")])).ok();
        let out = scene.run(&build(&[&url("hostile")])).fails();
        assert!(out.stderr.contains("invalid path"), "{}", out.stderr);
        assert!(!out.stderr.contains("canary"), "{}", out.stderr);
    }
    assert_eq!(fs_err::read_to_string(host.join("canary")).unwrap(), "of this machine\n");
    assert_eq!(fs_err::read_dir(&host).unwrap().count(), 1, "nothing was written there");
}

#[test]
fn named_contexts() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene
        .write("../other/f", "from a directory\n")
        .write("../other/.dockerignore", "g\n")
        .write("../other/g", "");
    scene.write("Dockerfile", "FROM base AS x\nCOPY --from=n . /c\nRUN ls /c > /f; cat /c/f >> /f\n");
    scene.run(&build(&["--build-context", "n=../other", "."])).ok();
    assert_eq!(result(&scene), "f\nfrom a directory\n");
    // In place of an image, and of a stage.
    scene.write("Dockerfile", "FROM alpine:3 AS a\nFROM a\nRUN cat /etc/passwd | wc -l > /f\n");
    scene.run(&build(&["--build-context", "alpine:3=docker-image://base", "."])).ok();
    assert_eq!(result(&scene), "2\n");
    scene.run(&build(&["--build-context", "a=docker-image://base", "."])).ok();
    assert_eq!(result(&scene), "2\n");
    // Names that every build has.
    scene.write("Dockerfile", "FROM scratch\nCOPY --from=dockerfile f /f\n");
    scene.run(&build(&["--build-context", "dockerfile=../other", "."])).ok();
    assert_eq!(result(&scene), "from a directory\n");
    for (value, expected) in [
        ("n=nodir", "nodir"),
        ("n=Dockerfile", "Dockerfile"),
        ("n", "--build-context"),
        ("a b=.", "a b"),
        ("n=docker-image://127.0.0.1:1/x", "127.0.0.1:1"),
        ("n=target:x", "unsupported context source target"),
    ] {
        scene.write("Dockerfile", "FROM scratch\nCOPY --from=n f /f\n");
        let out = scene.run(&build(&["--build-context", value, "."])).fails();
        assert!(out.stderr.contains(expected), "{value} wants {expected}:\n{}", out.stderr);
    }
}

/// A directory with an OCI layout of two images, tagged `one` and `two`.
fn layout(scene: &Scene, daemon: &Daemon) -> std::path::PathBuf {
    for tag in ["one", "two", "two"] {
        let text = format!("FROM base\nRUN echo {tag} > /f; chown 1000:50 /f\nENV NAME={tag}\n");
        scene.write("Dockerfile", &text);
        let name = format!("x:{tag}");
        let output = "type=oci,dest=../layout,tar=false";
        daemon.run(&scene.context(), &["build", "-t", &name, "-o", output, "."]).ok();
    }
    let dir = scene.path("layout");
    let index: serde_json::Value =
        serde_json::from_slice(&fs_err::read(dir.join("index.json")).unwrap()).unwrap();
    let names = |m: &serde_json::Value| m["annotations"]["io.containerd.image.name"].clone();
    let named: Vec<_> = index["manifests"].as_array().unwrap().iter().map(names).collect();
    assert_eq!(named, ["docker.io/library/x:one", "docker.io/library/x:two"]);
    dir
}

#[test]
fn oci_layouts() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let dir = layout(&scene, &scene.daemon);
    let path = dir.display();
    let index: serde_json::Value =
        serde_json::from_slice(&fs_err::read(dir.join("index.json")).unwrap()).unwrap();
    let second = index["manifests"][1]["digest"].as_str().unwrap().to_owned();
    // The layers are not here any more, nor is anything that was built of them.
    scene.run(&["rmi", "base"]).ok();
    scene.run(&["prune", "--all", "--force"]).ok();

    scene.write("Dockerfile", "FROM img\nRUN ls -n /f | awk '{print $3,$4}' >> /f; echo $NAME >> /f\n");
    for (name, tag) in [
        (format!("oci-layout://{path}:one"), "one"),
        (format!("oci-layout://{path}:two"), "two"),
        (format!("oci-layout://{path}@{second}"), "two"),
        (format!("oci-layout://{path}:one@{second}"), "two"),
        ("oci-layout://../layout:one".to_owned(), "one"),
    ] {
        let out = scene.run(&build(&["--build-context", &format!("img={name}"), "."])).ok();
        assert_eq!(result(&scene), format!("{tag}\n1000 50\n{tag}\n"), "{name}:\n{}", out.stderr);
    }
    let again = scene.run(&build(&["--build-context", &format!("img=oci-layout://{path}:one"), "."])).ok();
    assert!(again.cached().iter().any(|step| step.contains("RUN ls")), "{}", again.stderr);
    // Nothing but the base: its layers are exported although no step needed them.
    scene.run(&["prune", "--all", "--force"]).ok();
    scene.write("Dockerfile", "FROM img\nLABEL a=b\n");
    scene.run(&build(&["--build-context", &format!("img=oci-layout://{path}:two"), "."])).ok();
    assert_eq!(result(&scene), "two\n");
    // And kept: the layout may go.
    scene.run(&["build", "-t", "kept", "--build-context", &format!("img=oci-layout://{path}:two"), "."]).ok();
    scene.write("Dockerfile", "FROM kept\nRUN cat /f\n");
    let away = scene.path("away");
    fs_err::rename(&dir, &away).unwrap();
    scene.run(&build(&["."])).ok();
    assert_eq!(result(&scene), "two\n");
    fs_err::rename(&away, &dir).unwrap();

    let hex = second.trim_start_matches("sha256:");
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs_err::read(dir.join("blobs/sha256").join(hex)).unwrap()).unwrap();
    let layer = manifest["layers"].as_array().unwrap().last().unwrap()["digest"].as_str().unwrap().to_owned();
    let blob = dir.join("blobs/sha256").join(layer.trim_start_matches("sha256:"));
    let good = fs_err::read(&blob).unwrap();
    let missing = format!("sha256:{}", "0".repeat(64));
    let fails = |value: &str, expected: &str| {
        scene.run(&["prune", "--all", "--force"]).ok();
        scene.write("Dockerfile", "FROM img\nRUN true\n");
        let out = scene.run(&build(&["--build-context", value, "."])).fails();
        assert!(out.stderr.contains(expected), "{value} wants {expected}:\n{}", out.stderr);
    };
    fs_err::write(&blob, [&good[..good.len() - 1], b"x"].concat()).unwrap();
    scene.run(&["rmi", "kept"]).ok();
    fails(&format!("img=oci-layout://{path}:two"), &layer);
    fs_err::remove_file(&blob).unwrap();
    fails(&format!("img=oci-layout://{path}:two"), &layer);
    fs_err::os::unix::fs::symlink("/etc/passwd", &blob).unwrap();
    fails(&format!("img=oci-layout://{path}:two"), &layer);
    fails(&format!("img=oci-layout://{path}@{missing}"), &missing);
    fails(&format!("img=oci-layout://{path}:three"), "three");
    fails("img=oci-layout:///not/there", "/not/there");
    fails(&format!("img=oci-layout://{}", scene.context().display()), "oci-layout");
}
