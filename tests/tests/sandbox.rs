//! What a step may see and do, from the classes of flaw that such programs have had.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use tests::{Agent, Output, Scene, Web, base, output, ready};

const CANARY: &str = "canary-6f1c2e9a7b";

/// What a step printed, without numbers and times.
fn printed(scene: &Scene, dockerfile: &str, args: &[&str]) -> String {
    let out = scene.dockerfile(dockerfile, &[args, &["-t", "x", "--no-cache"]].concat()).ok();
    let line = |l: &str| {
        let mut words = l.strip_prefix('#')?.splitn(3, ' ').skip(1);
        words.next()?.parse::<f64>().ok()?;
        Some(format!("{}\n", words.next()?))
    };
    out.stderr.lines().filter_map(line).collect()
}

#[test]
fn identity_and_privileges() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text =
        "FROM base\nRUN grep -E '^(Cap|Seccomp:|NoNewPrivs|Groups)' /proc/self/status | tr -s '\\t ' ' '\n";
    let status = printed(&scene, text, &[]);
    for line in [
        "CapInh: 0000000000000000",
        "CapPrm: 00000000a80425fb",
        "CapEff: 00000000a80425fb",
        "CapBnd: 00000000a80425fb",
        "CapAmb: 0000000000000000",
        "NoNewPrivs: 0",
        "Seccomp: 2",
    ] {
        assert!(status.contains(&format!("{line}\n")), "`{line}` in\n{status}");
    }
    let user = printed(&scene, &text.replace("RUN", "USER user\nRUN"), &[]);
    assert!(user.contains("CapEff: 0000000000000000\n") && user.contains("Seccomp: 2\n"), "{user}");
    let ids = |user: &str| printed(&scene, &format!("FROM base\nUSER {user}\nRUN id -u; id -G\n"), &[]);
    let groups = |user: &str| {
        let text = ids(user);
        let mut groups: Vec<u32> =
            text.lines().nth(1).unwrap().split_whitespace().map(|g| g.parse().unwrap()).collect();
        groups.sort_unstable();
        groups
    };
    assert_eq!(groups("user"), [50, 1000]);
    assert_eq!(groups("4711"), [0]);
    assert_eq!(groups("4711:4712"), [4712]);
    assert!(
        scene.dockerfile("FROM base\nUSER 4294967296\nRUN id\n", &[]).fails().stderr.contains("4294967296")
    );
}

#[test]
fn what_is_masked_and_refused() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text = "FROM base\nRUN <<EOF\n\
        cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c\n\
        ls /sys/firmware /proc/acpi 2>/dev/null | grep -v : | wc -w\n\
        for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/x /etc/resolv.conf /etc/hosts; do\n\
        \x20 (echo x > $f) 2>/dev/null && echo wrote $f\n\
        done\n\
        mount -t tmpfs t /tmp 2>/dev/null && echo mounted\n\
        unshare -U true 2>/dev/null && echo unshared\n\
        mknod /tmp/sda b 8 0 && (head -c1 /tmp/sda) 2>/dev/null && echo opened; rm -f /tmp/sda\n\
        ls /proc/self/fd | wc -l\n\
        cat /proc/1/environ | tr '\\0' '\\n' | grep -c RBUILD\n\
        hostname\n\
        EOF\n";
    // `ls` itself has a descriptor for what it lists.
    assert_eq!(printed(&scene, text, &[]), "0\n0\n4\n0\nbuildkitsandbox\n");
    let base = scene.path("rootfs");
    scene.build(&["-o", &format!("type=local,dest={}", base.display())]).ok();
    for stub in ["dev/null", "etc/resolv.conf", "etc/hosts", "proc/self", "sys/kernel"] {
        assert!(!base.join(stub).exists(), "`{stub}` is left in a layer");
    }
}

#[test]
fn security_modes() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    for (mode, args) in
        [("bogus", &[][..]), ("insecure", &[]), ("insecure", &["--allow", "security.insecure"])]
    {
        let text = format!("FROM base\nRUN --security={mode} true\n");
        let out = scene.dockerfile(&text, args).fails();
        assert!(out.stderr.contains(mode), "{}", out.stderr);
    }
}

/// Paths of mounts lead nowhere but into the image, whatever links there are.
#[test]
fn mounts_stay_inside() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let host = scene.path("host");
    fs_err::create_dir(&host).unwrap();
    fs_err::write(host.join("f"), CANARY).unwrap();
    let evil = scene.context().join("evil");
    fs_err::create_dir_all(&evil).unwrap();
    symlink(&host, evil.join("abs")).unwrap();
    symlink(format!("../../../../../../../../..{}", host.display()), evil.join("rel")).unwrap();
    symlink("/proc/self/root", evil.join("proc")).unwrap();
    let path = host.display();
    for mount in [
        format!("type=cache,target=/m,id=../../../../../../../../../..{path}"),
        format!("type=cache,target=/m,id={path}"),
        format!("type=bind,target=/m,source=../../../../../../../..{path}"),
        "type=bind,target=/m,source=evil/abs".to_owned(),
        "type=bind,target=/m,source=evil/rel".to_owned(),
        "type=bind,target=/m,from=evil,source=/abs".to_owned(),
        "type=bind,target=/m,from=evil,source=/rel,rw".to_owned(),
        "type=cache,target=/m,from=evil,source=/abs".to_owned(),
        format!("type=cache,target=/evil/abs/../../../../../../../../..{path}"),
        "type=cache,target=/evil/rel".to_owned(),
        "type=tmpfs,target=/evil/proc/etc".to_owned(),
    ] {
        let text = format!(
            "FROM base AS evil\nCOPY evil /\nFROM base\nCOPY evil /evil\n\
             RUN --mount={mount} cat /m/f /evil/abs/f /evil/rel/f; for d in /m /evil/abs /evil/rel; do echo x > $d/f; done; true\n"
        );
        let out = scene.dockerfile(&text, &["--no-cache"]);
        assert!(out.code <= 1 && !out.stderr.contains(CANARY), "{mount}:\n{}", out.stderr);
        let left: Vec<_> = fs_err::read_dir(&host).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["f"], "{mount}");
        assert_eq!(fs_err::read_to_string(host.join("f")).unwrap(), CANARY, "{mount}");
    }
}

/// An image whose own places for mounts are links: the masks hold, or the step is refused.
#[test]
fn images_with_links_for_mount_points() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let host = scene.path("host");
    fs_err::create_dir(&host).unwrap();
    fs_err::write(host.join("f"), CANARY).unwrap();
    for (link, to) in [
        ("dev", host.to_str().unwrap()),
        ("dev", "/etc"),
        ("proc", "/etc"),
        ("sys", "../../../../.."),
        ("dev/null", "/etc/passwd"),
        ("dev/pts", host.to_str().unwrap()),
        ("etc/resolv.conf", "/proc/self/root/etc/group"),
        ("etc/hosts", host.to_str().unwrap()),
    ] {
        let evil = scene.context().join("evil");
        let _ = fs_err::remove_dir_all(&evil);
        fs_err::create_dir_all(evil.join(link).parent().unwrap()).unwrap();
        symlink(to, evil.join(link)).unwrap();
        let text = "FROM base\nCOPY evil /\n\
            RUN head -c1 /proc/kcore | wc -c; (echo x > /proc/sys/kernel/hostname) 2>/dev/null && echo wrote; \
            grep Seccomp: /proc/self/status | tr -d '\\t'; grep -c canary /dev/f /etc/hosts /dev/pts/f 2>/dev/null; true\n";
        let out = scene.dockerfile(text, &["--no-cache"]);
        if out.code == 0 {
            assert!(out.stderr.contains(" Seccomp:2\n"), "{link} → {to}:\n{}", out.stderr);
            assert!(!out.stderr.contains(" wrote\n"), "{link} → {to}:\n{}", out.stderr);
        } else {
            out.fails();
        }
        assert_eq!(fs_err::read_dir(&host).unwrap().count(), 1, "{link} → {to}");
        assert_eq!(fs_err::read_to_string(host.join("f")).unwrap(), CANARY);
    }
}

#[test]
fn working_directories_that_are_descriptors() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    fs_err::write(scene.path("canary"), CANARY).unwrap();
    let up = "../".repeat(12);
    for fd in 3..12 {
        let path = scene.path("canary");
        let text = format!(
            "FROM base\nWORKDIR /proc/self/fd/{fd}\nRUN cat {up}{} ; true\n",
            &path.display().to_string()[1..]
        );
        let out = scene.dockerfile(&text, &["--no-cache"]);
        assert!(out.code <= 1 && !out.stderr.contains(CANARY), "{}", out.stderr);
    }
}

/// Files below `dir` that hold the canary.
fn holding(dir: &Path, found: &mut Vec<String>) {
    for entry in fs_err::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            holding(&path, found);
        } else if path.is_file() {
            let data = fs_err::read(&path).unwrap_or_default();
            if spellings().iter().any(|canary| data.windows(canary.len()).any(|w| w == canary.as_bytes())) {
                found.push(path.display().to_string());
            }
        }
    }
}

/// The canary as it is, and in base64 behind other bytes.
fn spellings() -> Vec<String> {
    let encoded = (0..3).map(|before| {
        let text = base64::engine::general_purpose::STANDARD.encode(format!("{}{CANARY}", &"   "[..before]));
        // Without the characters that depend on what stands around.
        text[(before * 4).div_ceil(3)..(before + CANARY.len()) * 4 / 3].to_owned()
    });
    encoded.chain([CANARY.to_owned()]).collect()
}

#[test]
fn secrets_leave_no_trace() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    fs_err::write(scene.path("secret"), CANARY).unwrap();
    let text = "FROM base\n\
        RUN --mount=type=secret,id=file test $(wc -c < /run/secrets/file) = 17\n\
        RUN --mount=type=secret,id=env,env=S test ${#S} = 17\n";
    scene.write("Dockerfile", text);
    let secret = format!("id=file,src={}", scene.path("secret").display());
    let args = ["build", "--progress=plain", "-t", "x", "-o", "type=oci,dest=../o.tar"];
    let args = [&args[..], &["--secret", &secret, "--secret", "id=env,env=CANARY", "."]].concat();
    let out = output(scene.command(&args).env("CANARY", CANARY).env("OTHER", CANARY)).ok();
    assert!(!out.stderr.contains(CANARY));
    let mut found = Vec::new();
    holding(&scene.daemon.root(), &mut found);
    assert_eq!(found, Vec::<String>::new());
    let log = fs_err::read_to_string(scene.daemon.log()).unwrap();
    assert!(!log.contains(CANARY), "{log}");
    for layer in tests::archive::Image::open(&scene.path("o.tar")).layers {
        let held = layer.values().flatten().any(|f| f.windows(CANARY.len()).any(|w| w == CANARY.as_bytes()));
        assert!(!held && !layer.contains_key("run/secrets/file"), "{:?}", layer.keys());
    }
}

/// A git repository with a file `f`, readable through a plain web server.
fn repository(dir: &Path) {
    base::context(dir, &[("f", "content\n")]);
    for args in [
        "init -q -b main .",
        "-c user.name=t -c user.email=t@t add f",
        "-c user.name=t -c user.email=t@t commit -q -m m",
        "update-server-info",
    ] {
        let out = Command::new("git").args(args.split(' ')).current_dir(dir).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

/// Checks that the canary is neither shown nor kept: output, log, cache and what is noted of builds, metadata, image.
fn no_trace(scene: &Scene, out: &Output) {
    assert!(!format!("{}{}", out.stdout, out.stderr).contains(CANARY), "{}{}", out.stdout, out.stderr);
    assert!(!fs_err::read_to_string(scene.daemon.log()).unwrap().contains(CANARY));
    let shown = scene.run(&["du", "--verbose"]).ok();
    assert!(!shown.stdout.contains(CANARY), "{}", shown.stdout);
    let mut found = Vec::new();
    holding(&scene.daemon.root(), &mut found);
    assert_eq!(found, Vec::<String>::new());
    for file in ["o.tar", "metadata.json", "id"] {
        let Ok(data) = fs_err::read(scene.path(file)) else { continue };
        assert!(!data.windows(CANARY.len()).any(|w| w == CANARY.as_bytes()), "{file}");
    }
    if scene.path("o.tar").exists() {
        let image = tests::archive::Image::open(&scene.path("o.tar"));
        assert!(!image.config.to_string().contains(CANARY), "{}", image.config);
        for layer in image.layers {
            let held = |f: &Vec<u8>| f.windows(CANARY.len()).any(|w| w == CANARY.as_bytes());
            let holds: Vec<_> = layer.iter().filter(|(_, f)| f.as_ref().is_some_and(held)).collect();
            assert!(holds.is_empty(), "{:?}", holds.iter().map(|(name, _)| name).collect::<Vec<_>>());
        }
    }
}

/// Credentials in a URL are used, and nobody is told them.
#[test]
fn credentials_in_urls_leave_no_trace() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let www = scene.path("www");
    repository(&www);
    base::context(&www, &[("Dockerfile", "FROM base\nCOPY f /f\n")]);
    let web = Web::start(&www, CANARY);
    let good = |path: &str| web.url(&format!("user:{CANARY}"), path);
    let outputs =
        ["-o", "type=oci,dest=../o.tar", "--metadata-file", "../metadata.json", "--iidfile", "../id"];

    // A context and a named context.
    let build = |args: &[&str], context: &str| {
        let all = [&["build", "--progress=plain", "-t", "x"], &outputs[..], args, &[context]].concat();
        scene.run(&all)
    };
    let out = build(&["-f", "Dockerfile"], &good(".git#main")).fails();
    assert!(out.stderr.contains("Dockerfile"), "the repository has none: {}", out.stderr);
    no_trace(&scene, &out);
    scene.write("Dockerfile", "FROM base\nCOPY --from=src f /f\nRUN test \"$(cat /f)\" = content\n");
    let named = format!("src={}", good(".git#main"));
    no_trace(&scene, &build(&["--build-context", &named, "--provenance=mode=max"], ".").ok());
    // A failure is kept with the file that it points into, and with how that was loaded.
    let out = build(&[], &good("Dockerfile")).fails();
    assert!(out.stderr.contains("COPY f /f"), "{}", out.stderr);
    no_trace(&scene, &out);

    // What is wrong is said without them.
    for path in [".git#nosuch", ".git#main:nosuch", "nosuch.git"] {
        let named = format!("src={}", good(path));
        no_trace(&scene, &build(&["--build-context", &named], ".").fails());
    }
    for scheme in ["http", "https"] {
        let named = format!("src={scheme}://user:{CANARY}@127.0.0.1:1/x.git");
        no_trace(&scene, &build(&["--build-context", &named], ".").fails());
    }
    let token = format!("src=http://{CANARY}@127.0.0.1:1/x.git");
    no_trace(&scene, &build(&["--build-context", &token], ".").fails());

    // Proxies are not for the image.
    scene.write("Dockerfile", "FROM base\nRUN test -n \"$HTTP_PROXY\"\n");
    let proxy = format!("HTTP_PROXY=http://user:{CANARY}@127.0.0.1:1");
    no_trace(&scene, &build(&["--build-arg", &proxy], ".").ok());
}

/// Where the Dockerfile itself holds credentials, they stay in it.
#[test]
fn credentials_in_a_dockerfile_stay_there() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let www = scene.path("www");
    repository(&www);
    let web = Web::start(&www, CANARY);
    let (file, git) =
        (web.url(&format!("user:{CANARY}"), "f"), web.url(&format!("user:{CANARY}"), ".git#main"));
    let text = format!("FROM base\nADD {file} /f\nADD --keep-git-dir=true {git} /g\nRUN test -d /g/.git\n");
    let out = scene
        .dockerfile(&text, &["-o", "type=oci,dest=../o.tar", "--metadata-file", "../metadata.json"])
        .ok();
    assert!(!out.stderr.contains(CANARY), "{}", out.stderr);
    assert!(out.stderr.contains("ADD http://xxxxx:xxxxx@127.0.0.1:"), "{}", out.stderr);
    let image = tests::archive::Image::open(&scene.path("o.tar"));
    assert!(!image.config.to_string().contains(CANARY), "{}", image.config);
    for (name, data) in image.layers.iter().flatten() {
        let held = data.as_ref().is_some_and(|d| d.windows(CANARY.len()).any(|w| w == CANARY.as_bytes()));
        assert!(!held, "{name}");
    }
    assert_eq!(image.file("f").unwrap(), b"content\n");
    assert!(String::from_utf8_lossy(image.file("g/.git/config").unwrap()).contains("xxxxx:xxxxx@"));
    assert!(!fs_err::read_to_string(scene.path("metadata.json")).unwrap().contains(CANARY));
    assert!(!fs_err::read_to_string(scene.daemon.log()).unwrap().contains(CANARY));
    assert!(!scene.run(&["du", "--verbose"]).ok().stdout.contains(CANARY));
    // A wrong password: the excerpt of the Dockerfile is the client's own, the messages are not.
    let wrong = scene
        .dockerfile(&format!("FROM base\nADD {}x /f\n", web.url(&format!("user:{CANARY}y"), "f")), &[])
        .fails();
    let said: Vec<&str> =
        wrong.stderr.lines().filter(|l| l.contains(CANARY) && !l.contains(" ADD http")).collect();
    assert!(said.is_empty(), "{said:?}");
    assert!(wrong.stderr.contains("401"), "{}", wrong.stderr);
}

/// No URL makes git read a repository of the daemon's machine.
#[test]
fn git_reads_nothing_of_this_machine() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let host = scene.path("host");
    repository(&host);
    fs_err::write(host.join("f"), CANARY).unwrap();
    scene.write("Dockerfile", "FROM base\nCOPY --from=src f /f\nRUN cat /f\n");
    let path = host.display();
    for url in [
        format!("file://{path}/.git"),
        format!("ext::cat {path}/f"),
        format!("git@127.0.0.1:{path}/.git"),
        format!("git://127.0.0.1:1{path}/.git"),
    ] {
        let named = format!("src={url}");
        let out = scene.build(&["-t", "x", "--build-context", &named]).fails();
        assert!(!out.stderr.contains(" content"), "{url}: {}", out.stderr);
        let out = scene.dockerfile(&format!("FROM base\nADD {url} /g\nRUN ls /g\n"), &["-t", "x"]).fails();
        assert!(!out.stderr.contains(" f\n"), "{url}: {}", out.stderr);
        scene.write("Dockerfile", "FROM base\nCOPY --from=src f /f\nRUN cat /f\n");
    }
}

/// `ssh-add` and what it is linked with, below `dir`.
fn ssh_add(dir: &Path) {
    let listed = Command::new("ldd").arg("/usr/bin/ssh-add").output().unwrap().stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain(["/usr/bin/ssh-add"]) {
        let to = dir.join(&path[1..]);
        fs_err::create_dir_all(to.parent().unwrap()).unwrap();
        fs_err::copy(path, to).unwrap();
    }
}

/// A step reaches the client's agent through the session, as the user and at the place that the mount names.
#[test]
fn ssh_agents() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let Some(agent) = Agent::start(&scene.path("ssh")) else { return };
    ssh_add(&scene.context().join("tools"));
    let build = |run: &str, args: &[&str]| {
        scene.write("Dockerfile", &format!("FROM base\nCOPY tools /\n{run}\n"));
        let all = [&["build", "--progress=plain", "--no-cache", "-t", "x"], args, &["."]].concat();
        output(scene.command(&all).env("SSH_AUTH_SOCK", agent.socket()))
    };
    let given = format!("other={}", agent.socket().display());
    for (run, args) in [
        ("RUN --mount=type=ssh ssh-add -L", &["--ssh", "default"][..]),
        ("RUN --mount=type=ssh,required ssh-add -L && ssh-add -L", &["--ssh", "default"]),
        ("RUN --mount=type=ssh,id=other,target=/a SSH_AUTH_SOCK=/a ssh-add -L", &["--ssh", &given]),
        ("USER user\nRUN --mount=type=ssh,uid=1000 ssh-add -L", &["--ssh", "default"]),
    ] {
        let out = build(run, args).ok();
        assert!(out.stderr.contains(agent.key()), "{run}:\n{}", out.stderr);
    }
    // The socket is root's alone unless the mount says otherwise.
    let refused = build("USER user\nRUN --mount=type=ssh ssh-add -L", &["--ssh", "default"]).fails();
    assert!(refused.stderr.contains("Permission denied"), "{}", refused.stderr);
    // Nobody forwards one.
    build("RUN --mount=type=ssh test ! -e /run/buildkit/ssh_agent.0", &[]).ok();
    let missing = build("RUN --mount=type=ssh,required true", &[]).fails();
    assert!(missing.stderr.contains("unset ssh forward key default"), "{}", missing.stderr);
    let other = build("RUN --mount=type=ssh,id=other,required true", &["--ssh", "default"]).fails();
    assert!(other.stderr.contains("unset ssh forward key other"), "{}", other.stderr);
    for bad in ["default=/not/there", "default=/etc/passwd"] {
        let refused = build("RUN true", &["--ssh", bad]).fails();
        assert!(refused.stderr.contains(&bad[8..]), "{}", refused.stderr);
    }
    // Nothing of it is left in the image, and without the agent's help the step is not run from the cache's memory.
    let root = scene.path("rootfs");
    build(
        "RUN --mount=type=ssh ssh-add -L",
        &["--ssh", "default", "-o", &format!("type=local,dest={}", root.display())],
    )
    .ok();
    assert!(!root.join("run/buildkit").exists());
    drop(agent);
}

#[test]
fn networks() {
    if !ready() {
        return;
    }
    let scene = Scene::with("insecure-entitlements = [\"network.host\"]\n");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let text = |network: &str| {
        format!(
            "FROM base\nRUN --network={network} ls /sys/class/net; nc -w 1 127.0.0.1 {port} </dev/null >/dev/null 2>&1 && echo reached; true\n"
        )
    };
    assert_eq!(printed(&scene, &text("none"), &[]), "lo\n");
    let links: BTreeSet<String> = printed(&scene, &text("default"), &[]).lines().map(str::to_owned).collect();
    assert_eq!(links, BTreeSet::from(["eth0".to_owned(), "lo".to_owned()]));
    let refused = scene.dockerfile(&text("host"), &[]).fails();
    assert!(refused.stderr.contains("network.host"), "{}", refused.stderr);
    let host = printed(&scene, &text("host"), &["--allow", "network.host"]);
    assert!(host.ends_with("reached\n"), "{host}");

    let closed = Scene::new();
    let refused = closed.dockerfile(&text("host"), &["--allow", "network.host"]).fails();
    assert!(refused.stderr.contains("network.host"), "{}", refused.stderr);
}
