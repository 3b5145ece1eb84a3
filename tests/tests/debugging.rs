//! Looking into failed steps from the command line.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use tests::{Scene, ready};

const FAILING: &str = "FROM base\nENV V=value\nWORKDIR /work\n\
    RUN mkdir -p /left/sub; echo content > /left/f; ln -s f /left/l; echo deep > /left/sub/g; chmod 4750 /left/f; \
    mkfifo /left/pipe; \
    echo odd > \"$(printf '/left/odd\\377')\"; ln -s /etc \"$(printf '/left/odd\\376')\"; dd if=/dev/zero of=/left/large bs=1M count=9 2>/dev/null; exit 7\n";

#[test]
fn a_shell_in_what_a_failed_step_left() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("Dockerfile", FAILING);
    let run = |args: &[&str], input: &str| {
        let all = [&["build", "--progress=plain", "-t", "x"], args, &["."]].concat();
        let mut client = scene
            .command(&all)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        client.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = client.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    };
    let (code, stdout, stderr) = run(&["--debug"], "cat /left/f; echo $V; pwd; echo oops >&2; exit 3\n");
    assert_eq!((code, stdout.as_str()), (Some(1), "content\nvalue\n/work\n"), "{stderr}");
    assert_eq!(stderr.matches("ERROR: failed to solve").count(), 1, "{stderr}");
    assert!(stderr.contains("exit code: 7") && stderr.ends_with("oops\n"), "{stderr}");
    let (code, stdout, stderr) = run(&["--debug=ls /left/sub"], "");
    assert_eq!((code, stdout.as_str()), (Some(1), "g\n"), "{stderr}");
    let (code, stdout, stderr) = run(&["--debug=sh -c 'cat \"$0\"; echo two  blanks' /left/f"], "");
    assert_eq!((code, stdout.as_str()), (Some(1), "content\ntwo blanks\n"), "{stderr}");
    let (code, _, stderr) = run(&["--debug=sh -c 'cat"], "");
    assert!(code == Some(1) && stderr.contains("does not end") && !stderr.contains("RUN"), "{stderr}");
    let (code, _, stderr) = run(&["--debug=/bin/nosuch"], "");
    assert!(code == Some(1) && stderr.contains("/bin/nosuch"), "{stderr}");

    scene.write("Dockerfile", "FROM base\nCOPY nosuch /\n");
    let (code, stdout, stderr) = run(&["--debug"], "echo nothing\n");
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("Only a command that fails"), "{stderr}");
    scene.write("Dockerfile", "FROM base\nRUN echo well\n");
    let (code, _, stderr) = run(&["--debug", "-o", "type=local,dest=../out"], "");
    assert_eq!(code, Some(0), "{stderr}");
    assert!(scene.path("out/bin/busybox").exists());
    let bad = scene.run(&["build", "--debug", "-"]).fails();
    assert!(bad.stderr.contains("needs stdin"), "{}", bad.stderr);
}

#[test]
fn files_out_of_a_failed_step() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("Dockerfile", FAILING);
    let none = scene.run(&["debug", "cp", "/left", "x"]).fails();
    assert!(none.stderr.contains("no build runs"), "{}", none.stderr);
    let mut client = scene
        .command(&["build", "--progress=plain", "--debug", "."])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    input.write_all(b"echo ready\n").unwrap();
    let mut line = String::new();
    BufReader::new(client.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let list = scene.run(&["history", "ls", "--filter", "status=running", "--format", "json"]).ok().stdout;
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let build = list["ref"].as_str().unwrap().to_owned();

    let all = scene.path("all");
    let copied = scene.run(&["debug", "cp", &format!("{build}:/left"), all.to_str().unwrap()]).ok();
    assert!(copied.stderr.contains("`/left/pipe` is neither"), "{}", copied.stderr);
    assert_eq!(copied.stderr.matches("a name that cannot be told").count(), 2, "{}", copied.stderr);
    assert_eq!(fs_err::read_to_string(all.join("f")).unwrap(), "content\n");
    assert_eq!(fs_err::read_link(all.join("l")).unwrap(), std::path::Path::new("f"));
    assert_eq!(fs_err::read_to_string(all.join("sub/g")).unwrap(), "deep\n");
    assert_eq!(fs_err::metadata(all.join("large")).unwrap().len(), 9 << 20);
    assert!(!all.join("pipe").exists());
    // Into a directory that exists, under its own name, without the build's.
    scene.run(&["debug", "cp", "/left/sub/g", all.join("sub").to_str().unwrap()]).ok();
    scene.run(&["debug", "cp", "/left/f", all.join("renamed").to_str().unwrap()]).ok();
    assert_eq!(fs_err::read_to_string(all.join("renamed")).unwrap(), "content\n");
    // Nothing that is there is removed for something of another kind, and what was set-id is so no more.
    fs_err::create_dir_all(scene.path("kept/f/inner")).unwrap();
    let kept = scene.run(&["debug", "cp", "/left/f", scene.path("kept").to_str().unwrap()]).fails();
    assert!(kept.stderr.contains("only one of both is a directory"), "{}", kept.stderr);
    assert!(scene.path("kept/f/inner").exists());
    let mode = fs_err::metadata(all.join("f")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o750);
    for (from, error) in [
        ("/nosuch", "nosuch"),
        ("relative", "no path from the root"),
        ("nosuch:/left", "no build `nosuch` runs"),
    ] {
        let out = scene.run(&["debug", "cp", from, all.to_str().unwrap()]).fails();
        assert!(out.stderr.contains(error), "{from}: {}", out.stderr);
    }
    drop(input);
    assert_eq!(client.wait().unwrap().code(), Some(1));
    let mut rest = String::new();
    client.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
    assert!(rest.contains(&format!("rbuild debug cp {build}:/PATH")), "{rest}");
}

#[test]
fn files_out_of_a_failed_step_without_a_shell() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("Dockerfile", FAILING);
    fs_err::create_dir(scene.path("reports")).unwrap();
    let to = |name: &str| scene.path(name).to_str().unwrap().to_owned();
    let copies = [
        "--debug-cp=/nosuch".to_owned(),
        format!("--debug-cp=/left/sub:{}", to("reports")),
        format!("--debug-cp=/left/f:{}", to("renamed")),
    ];
    let flags: Vec<&str> = copies.iter().map(String::as_str).collect();
    let failed = scene.run(&[&["build", "--progress=plain"], &flags[..], &["."]].concat()).fails();
    assert!(failed.stderr.contains("exit code: 7"), "{}", failed.stderr);
    assert_eq!(failed.stderr.matches("ERROR: failed to solve").count(), 1, "{}", failed.stderr);
    assert!(failed.stderr.contains("WARNING: cannot copy `/nosuch`"), "{}", failed.stderr);
    assert!(failed.stderr.contains("copied `/left/f`"), "{}", failed.stderr);
    assert_eq!(fs_err::read_to_string(scene.path("reports/sub/g")).unwrap(), "deep\n");
    assert_eq!(fs_err::read_to_string(scene.path("renamed")).unwrap(), "content\n");
    // With a command both happen, the copies first.
    let copy = format!("--debug-cp=/left/sub/g:{}", to("both"));
    let both = scene.run(&["build", "--progress=plain", "--debug=rm -r /left", &copy, "."]).fails();
    assert!(both.stderr.contains("copied `/left/sub/g`"), "{}", both.stderr);
    assert_eq!(fs_err::read_to_string(scene.path("both")).unwrap(), "deep\n");
    let bad = scene.run(&["build", "--debug-cp=left", "."]).fails();
    assert!(bad.stderr.contains("`--debug-cp`") && !bad.stderr.contains("RUN"), "{}", bad.stderr);
    scene.write("Dockerfile", "FROM base\nRUN echo well\n");
    let well = scene.run(&["build", "--progress=plain", &copy, "."]).ok();
    assert!(!well.stderr.contains("copied"), "{}", well.stderr);
}
