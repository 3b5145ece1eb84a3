//! Input that cannot work: a clear error, and a daemon that lives.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tests::archive::Image;
use tests::{Daemon, Output, Registry, Scene, base, output, program, ready};

#[test]
fn what_is_wrong_is_said() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let pid = scene.daemon.pid();
    // Dockerfile, arguments, and what the error holds.
    let cases: [(&str, &[&str], &[&str]); 20] = [
        ("FROM base\nCOPY nope /\n", &[], &["nope", "not found", "2 | >>> COPY nope /"]),
        ("FROM base\nFRUM x\n", &[], &["2 | >>> FRUM x", "unknown instruction"]),
        ("", &[], &["Dockerfile"]),
        ("RUN x\n", &[], &["1 | >>> RUN x"]),
        ("FROM 127.0.0.1:1/x\n", &[], &["127.0.0.1:1"]),
        ("FROM base\nRUN true\nRUN exit 42\n", &[], &["3 | >>> RUN exit 42", "exit code: 42"]),
        ("FROM base\nRUN [\"/not/there\"]\n", &[], &["/not/there"]),
        ("FROM base\nCOPY --from=nowhere a b\n", &[], &["nowhere"]),
        ("FROM base\n", &["-f", "other"], &["other"]),
        ("FROM base\n", &["--target", "nothere"], &["nothere"]),
        ("FROM base\n", &["--bogus"], &["--bogus"]),
        ("FROM base\n", &["--network", "bogus"], &["bogus"]),
        ("FROM base\n", &["--platform", "no/such/thing/at/all"], &["no/such/thing"]),
        ("FROM base\n", &["-o", "type=bogus"], &["bogus"]),
        ("FROM base\n", &["--allow", "bogus"], &["bogus"]),
        ("FROM base\n", &["--shm-size", "bogus"], &["bogus"]),
        ("FROM base\n", &["--ulimit", "bogus=1"], &["bogus"]),
        ("FROM base\n", &["-t", "UPPER CASE"], &["UPPER CASE"]),
        ("FROM base\n", &["--secret", "id=s,src=nofile"], &["nofile"]),
        ("FROM base\n", &["--add-host", "bogus"], &["bogus"]),
    ];
    for (dockerfile, args, expected) in cases {
        let out = scene.dockerfile(dockerfile, args).fails();
        let said = expected.iter().all(|e| out.stderr.contains(e));
        assert!(said, "{dockerfile}{args:?} wants {expected:?}:\n{}", out.stderr);
        assert_eq!(out.stdout, "", "{dockerfile}{args:?}");
    }
    assert!(scene.run(&["build", "nodir"]).fails().stderr.contains("nodir"));
    let elsewhere = output(Command::new(program()).args(["--addr", "unix:///not/there", "images"])).fails();
    assert!(elsewhere.stderr.contains("/not/there"), "{}", elsewhere.stderr);
    scene.dockerfile("FROM base\nRUN true\n", &["-t", "x"]).ok();
    assert!(scene.daemon.alive() && scene.daemon.pid() == pid);
}

#[test]
fn a_check_tells_findings_and_all_errors() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let checked = scene.dockerfile("FROM base AS Up\nCOPPY a b\nRUN --mout=x true\n", &["--check"]).fails();
    let stdout: Vec<&str> = checked.stdout.lines().filter(|line| line.starts_with("WARNING: ")).collect();
    assert_eq!(
        stdout,
        ["WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/"]
    );
    assert!(!checked.stdout.contains("COPPY (did"), "errors are not among the findings: {}", checked.stdout);
    for said in
        ["unknown instruction: COPPY (did you mean COPY?)", "unknown flag: --mout (did you mean mount?)"]
    {
        assert!(checked.stderr.contains(said), "{}", checked.stderr);
    }
    let unknown = scene.dockerfile("FROM bsae AS up\nRUN true\n", &["--call=check,format=json"]).fails();
    assert!(unknown.stdout.contains("\"buildError\""), "{}", unknown.stdout);
    assert!(
        unknown.stderr.contains("   1 | >>> FROM bsae AS up\n     |          ^^^^"),
        "{}",
        unknown.stderr
    );
    let warned = scene.dockerfile("ARG VERSION\nFROM base\n", &["--build-arg=VERSOIN=1"]).ok();
    let warning = "WARN: no ARG declares the build argument VERSOIN (did you mean VERSION?)";
    assert!(warned.stderr.contains(warning), "{}", warned.stderr);
}

#[test]
fn a_dockerfiles_errors_come_at_once_with_hints() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let failed = |scene: &mut Scene, dockerfile: &str| {
        let stderr = scene.dockerfile(dockerfile, &[]).fails().stderr;
        let places: Vec<String> = stderr
            .lines()
            .filter(|line| line.contains(">>>") || line.contains('^'))
            .map(str::to_owned)
            .collect();
        let (_, said) = stderr.split_once("\nERROR: ").expect("an error");
        (places.join("\n"), said.to_owned())
    };
    let (places, said) = failed(&mut scene, "FROM base\nCOPPY a b\nRUN --mout=x true\n");
    assert_eq!(
        places,
        "   2 | >>> COPPY a b\n     |     ^^^^^\n   3 | >>> RUN --mout=x true\n     |         ^^^^^^"
    );
    assert_eq!(
        said,
        "failed to solve: dockerfile parse error on line 2: unknown instruction: COPPY (did you mean COPY?)\n"
    );
    let all = scene
        .dockerfile(
            "FROM base AS builder\nRUN --mount=type=cach,target=/x true\nFROM base\n\
             COPY --from=bulder /a /b\nCOPY --form=builder /a /b\n",
            &[],
        )
        .fails()
        .stderr;
    let said: Vec<&str> = all.lines().filter(|line| line.to_lowercase().starts_with("error: ")).collect();
    assert_eq!(
        said,
        [
            "error: unsupported mount type \"cach\" (did you mean cache?) (line 2)",
            "error: bulder is no stage, so it is taken for an image (did you mean builder?) (line 4)",
            "error: unknown flag: --form (did you mean from?) (line 5)",
            "ERROR: failed to solve: dockerfile parse error on line 5: unknown flag: --form (did you mean from?)",
        ]
    );
    let (places, said) = failed(&mut scene, "FROM base\nRUN true && \\\n  mkae all && \\\n  true\n");
    assert!(places.contains("   3 | >>>   mkae all && \\\n     |       ^^^^^^^^^^^^^\n"), "{places}");
    assert!(said.ends_with("exit code: 127\nhint: line 3: mkae: not found\n"), "{said}");
    scene.write(".dockerignore", "*.key\n");
    scene.write("own.key", "");
    let (_, said) = failed(&mut scene, "FROM base\nCOPY own.key /\n");
    let hint = "hint: `.dockerignore` keeps `own.key` out of the context, by its pattern `*.key`\n";
    assert!(said.ends_with(&format!("\"/own.key\": not found\n{hint}")), "{said}");
    scene.write("src/main.c", "").write("other.key", "");
    let (places, said) = failed(&mut scene, "FROM base\nCOPY .dockerignore src/mian.c /\n");
    assert!(places.ends_with("\n     |                        ^^^^^^^^^^"), "{places}");
    assert!(said.ends_with(": not found\nhint: did you mean `src/main.c`?\n"), "{said}");
    // What the context lacks is told at once, and before anything runs.
    let lacking = "FROM base\nRUN sleep 100\nCOPY src/mian.c /\nCOPY --chmod=0 more \\\n  /\n";
    let all = scene.dockerfile(lacking, &[]).fails().stderr;
    let is_said = |line: &&str| ["error: ", "hint: ", "ERROR: "].iter().any(|start| line.starts_with(start));
    assert_eq!(
        all.lines().filter(is_said).collect::<Vec<_>>(),
        [
            "error: \"/src/mian.c\": not found (line 3)",
            "hint: did you mean `src/main.c`?",
            "error: \"/more\": not found (line 4)",
            "ERROR: failed to solve: \"/src/mian.c\": not found",
            "hint: did you mean `src/main.c`?",
        ]
    );
    let (_, said) = failed(&mut scene, "FROM base\nCOPY other.kye /\n");
    let hidden = "`other.key` (which `.dockerignore` keeps out, by its pattern `*.key`)";
    assert!(said.ends_with(&format!("\nhint: did you mean {hidden}?\n")), "{said}");
    let stage =
        "FROM base AS a\nRUN mkdir /out && touch /out/server\nFROM base\nCOPY --from=a /out/sever /\n";
    let (_, said) = failed(&mut scene, stage);
    assert!(said.ends_with("\nhint: did you mean `/out/server`?\n"), "{said}");
    let (_, said) = failed(&mut scene, "FROM base\nRUN --mount=source=srcs,target=/s ls /s\n");
    assert!(said.ends_with("\nhint: did you mean `src`?\n"), "{said}");
    let (_, said) = failed(&mut scene, "FROM base\nCOPY nothing/like/it /\n");
    assert!(said.ends_with("\"/nothing/like/it\": not found\n"), "{said}");
}

/// The largest memory that a process had so far, in MiB; `None` when it has ended.
fn peak(pid: i32) -> Option<u64> {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024)
}

#[test]
fn a_step_that_prints_100_mb() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let before = peak(scene.daemon.pid()).unwrap();
    let text =
        "FROM base\nRUN yes 0123456789012345678901234567890123456789 | head -c 100000000\nRUN echo after\n";
    scene.write("Dockerfile", text);
    let printed = fs_err::File::create(scene.path("printed")).unwrap().into_parts().0;
    let mut client =
        scene.command(&["build", "--progress=plain", "-t", "x", "."]).stderr(printed).spawn().unwrap();
    let mut largest = 0;
    while client.try_wait().unwrap().is_none() {
        largest = peak(client.id() as i32).unwrap_or(largest);
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(client.wait().unwrap().success());
    assert!(largest > 0 && largest < 128, "the client took {largest} MiB");
    let after = peak(scene.daemon.pid()).unwrap();
    assert!(after < before + 64, "the daemon grew from {before} to {after} MiB");
    // All of it is shown: nothing is clipped.
    let printed = BufReader::new(fs_err::File::open(scene.path("printed")).unwrap());
    let (mut lines, mut last) = (0, false);
    for line in printed.lines().map(Result::unwrap) {
        lines += usize::from(line.ends_with(" 0123456789012345678901234567890123456789"));
        last |= line.ends_with(" after");
    }
    assert_eq!((lines, last), (100_000_000 / 41, true));
}

/// Starts a build and waits until it prints a line that ends with `sign`.
fn start(scene: &Scene, sign: &str) -> Child {
    let args = ["build", "--progress=plain", "."];
    let mut child = scene.command(&args).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = String::new();
    while let Some(line) = lines.next() {
        let line = line.unwrap();
        seen += &format!("{line}\n");
        if line.ends_with(sign) && !line.contains(" RUN ") {
            // Whoever writes to a closed pipe dies; these are to be killed by us.
            std::thread::spawn(move || lines.for_each(drop));
            return child;
        }
    }
    let _ = child.wait();
    panic!("`{sign}` is not printed:\n{seen}");
}

#[test]
fn a_client_killed_in_the_middle() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let pid = scene.daemon.pid();
    scene.write("Dockerfile", "FROM base\nRUN (sleep 1000 &) ; echo started; sleep 1000\n");
    for _ in 0..3 {
        let mut child = start(&scene, " started");
        child.kill().unwrap();
        child.wait().unwrap();
        scene.check_sandboxes();
    }
    assert!(scene.daemon.alive() && scene.daemon.pid() == pid);
    scene.dockerfile("FROM base\nRUN true\n", &["-t", "x"]).ok();
}

/// Every step has limits, asked for or not.
#[test]
fn a_step_that_forks_endlessly() {
    if !ready() {
        return;
    }
    let mut scene = Scene::with("[worker.oci.step]\npids = 150\n");
    let pid = scene.daemon.pid();
    let text = "FROM base\nRUN for i in $(seq 1000); do sleep 100 & done\n";
    let out = scene.dockerfile(text, &["-t", "x"]).fails();
    assert!(out.stderr.contains("the step's limit of 150 processes was reached"), "{}", out.stderr);

    // One that never ends hurts nobody but itself.
    scene.write("Dockerfile", "FROM base\nRUN echo started; f() { f | f & f; }; f 2>/dev/null; sleep 1000\n");
    let mut child = start(&scene, " started");
    let others = scene.path("others");
    base::context(
        &others,
        &[("Dockerfile", "FROM base\nRUN for i in $(seq 20); do true & done; wait; echo fine\n")],
    );
    for _ in 0..3 {
        let out = scene.daemon.build(&others, &["-t", "y", "--no-cache"]).ok();
        assert!(out.stderr.contains(" fine\n"), "{}", out.stderr);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    scene.check_sandboxes();
    assert!(scene.daemon.alive() && scene.daemon.pid() == pid);
    scene.dockerfile("FROM base\nRUN true\n", &["-t", "x"]).ok();
}

/// The limits of somebody else's cgroup hold for steps that are to lie in it, and nothing stays in it.
#[test]
fn a_cgroup_that_somebody_else_limits() {
    if !ready() {
        return;
    }
    let top = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(Path::new).into_iter().find(|dir| dir.is_dir());
    let name = format!("rbuild-test-{}", std::process::id());
    let group = top.unwrap().join(&name);
    let control = top.unwrap().join("cgroup.subtree_control");
    if control.exists() {
        fs_err::write(control, "+pids").unwrap();
    }
    fs_err::create_dir(&group).unwrap();
    fs_err::write(group.join("pids.max"), "20").unwrap();
    let scene = Scene::with(&format!("[worker.oci]\ndefaultCgroupParent = \"{name}/made/here\"\n"));
    let forks = "FROM base\nRUN for i in $(seq 40); do sleep 5 & done 2>&1\n";
    for parent in [&["--cgroup-parent", &format!("../{name}")][..], &["--cgroup-parent", ""]] {
        let out = scene.dockerfile(forks, &[&["-t", "x"], parent].concat()).fails();
        assert!(out.stderr.contains("can't fork"), "{}", out.stderr);
        let left = |dir: &Path| {
            let entries = fs_err::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
            entries.filter(|path| path.is_dir()).collect::<Vec<_>>()
        };
        // What leads to the step's own stays.
        for dir in [&group, &group.join("made/here")].into_iter().filter(|dir| dir.exists()) {
            assert!(left(dir).iter().all(|dir| dir.ends_with("made")), "{parent:?}: {:?}", left(dir));
        }
    }
    scene.dockerfile(forks, &["-t", "x", "--no-cache", "--cgroup-parent", "/"]).ok();
    // Groups in one with processes cannot be limited, in version 2; in version 1 a file stands in the way.
    let bad = format!("{name}/pids.max");
    let out = scene.dockerfile(forks, &["-t", "x", "--no-cache", "--cgroup-parent", &bad]).fails();
    assert!(out.stderr.contains(&format!("cannot use cgroup parent `{bad}`")), "{}", out.stderr);
    // Steps that ask for nothing are not held by what was refused.
    let plain = Scene::new();
    plain.dockerfile(forks, &["-t", "x", "--cgroup-parent", &bad]).fails();
    plain.dockerfile("FROM base\nRUN echo fine\n", &["-t", "x"]).ok();
    // In each hierarchy that steps are limited in.
    for base in ["", "memory", "cpu", "pids", "cpuset", "cpu,cpuacct", "unified"] {
        for dir in ["made/here", "made", "pids.max", ""] {
            let _elsewhere = fs_err::remove_dir(Path::new("/sys/fs/cgroup").join(base).join(&name).join(dir));
        }
    }
    assert!(!group.exists());
}

/// What clients ask for in place of the usual share is what a step gets, and the next one gets the usual again.
#[test]
fn shares_of_the_machine() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text = "FROM base\nRUN grep Cpus_allowed_list /proc/self/status; cd /sys/fs/cgroup; \\\n\
        cat cpu.weight cpu/cpu.shares memory.max memory/memory.limit_in_bytes 2>/dev/null; \\\n\
        cat memory.swap.max memory/memory.memsw.limit_in_bytes 2>/dev/null; true\n";
    let told = |args: &[&str]| {
        let out = scene.dockerfile(text, &[&["-t", "x", "--no-cache"], args].concat()).ok();
        out.stderr.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let usual = told(&[]);
    let special = told(&[
        "--resource=cpuset-cpus=0",
        "--resource=cpuset-mems=0",
        "--resource=cpu-shares=512",
        "--resource=memory=64m",
        "--memory-swap=96m",
    ]);
    let place = special.iter().position(|word| word == "Cpus_allowed_list:").unwrap();
    assert_eq!(special[place + 1], "0");
    // Of version 2 and 1: weights, and swap alone or with memory.
    let has = |words: &[&str]| words.iter().any(|word| special.contains(&(*word).to_owned()));
    assert!(has(&["512", "20"]) && has(&["67108864"]), "{special:?}");
    if std::path::Path::new("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes").exists() {
        assert!(has(&["100663296"]), "{special:?}");
    }
    let numbers = |words: &[String]| {
        words.iter().filter_map(|word| word.parse::<u64>().ok()).filter(|n| *n > 100).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&usual), numbers(&told(&[])));
    let out = scene.dockerfile(text, &["--resource=cpuset-cpus=4000", "--no-cache"]).fails();
    assert!(out.stderr.contains("cannot limit `cpuset.cpus`"), "{}", out.stderr);
    let out = scene.dockerfile(text, &["--resource=memory=64m", "--memory-swap=32m", "--no-cache"]).fails();
    assert!(out.stderr.contains("cannot limit `memory-swap`"), "{}", out.stderr);
    let refused = ["--resource=cpu-shares=2", "--resource=cpuset-cpus=4000", "--no-cache"];
    scene.dockerfile(text, &refused).fails();
    assert_eq!(numbers(&usual), numbers(&told(&[])), "nothing of what was refused is left");
    let out = scene.dockerfile(text, &["--resource=cpuset-cpus=a"]).fails();
    assert!(out.stderr.contains("cpusetcpus"), "{}", out.stderr);
}

#[test]
fn default_limits() {
    if !ready() {
        return;
    }
    let text = "FROM base\nRUN cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; \\\n\
        cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true\n";
    let numbers = |scene: &Scene| -> Vec<u64> {
        let out = scene.dockerfile(text, &["-t", "x", "--no-cache"]).ok();
        let printed = out.stderr.lines().filter_map(|l| l.split(' ').nth(2)?.parse().ok());
        printed.collect()
    };
    let pages = 1 << 50;
    let limited = numbers(&Scene::new());
    assert!(limited.len() == 2 && limited.iter().all(|n| *n > 0 && *n < pages), "{limited:?}");
    let free = numbers(&Scene::with("[worker.oci.step]\npids = 0\nmemory = 0\n"));
    assert!(free.iter().all(|n| !limited.contains(n)), "{free:?}");
    // Enough for a shell, and not for what it holds here.
    let small = Scene::with("[worker.oci.step]\nmemory = \"64MiB\"\n");
    let hog = "FROM base\nRUN x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo survived\n";
    let out = small.dockerfile(hog, &["-t", "x"]).fails();
    assert!(out.stderr.contains("the step's memory limit of 64 MiB was reached"), "{}", out.stderr);
}

/// Flips a bit in the middle of every blob of the store.
fn damage(daemon: &Daemon) -> usize {
    let mut damaged = 0;
    let mut todo = vec![daemon.root().join("blobs")];
    while let Some(dir) = todo.pop() {
        for entry in fs_err::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
                continue;
            }
            let mut data = fs_err::read(&path).unwrap();
            let middle = data.len() / 2;
            data[middle] ^= 0xff;
            fs_err::write(&path, data).unwrap();
            damaged += 1;
        }
    }
    damaged
}

/// Tries until it works: each attempt names a blob and drops it.
#[track_caller]
fn heals(mut attempt: impl FnMut() -> Output) {
    for _ in 0..8 {
        let out = attempt();
        if out.code == 0 {
            return;
        }
        let error = out.fails().stderr;
        let line = error.lines().find(|l| l.starts_with("ERROR: ")).unwrap_or_default();
        assert!(line.contains("sha256:"), "no blob is named:\n{error}");
    }
    panic!("it does not heal: {:?}", attempt());
}

#[test]
fn corrupt_blobs() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let registry = Registry::start(&scene.path(""));
    let name = format!("{}/x:1", registry.host());
    let args = ["-t", name.as_str(), "-o", "type=oci,dest=../o.tar"];
    // Nothing of it comes from another image, which only its own build could bring back.
    tests::base::busybox(&scene.context().join("root"));
    let text = "FROM scratch\nCOPY root /\nRUN echo content > /f\n";
    scene.dockerfile(text, &args).ok();
    scene.dockerfile(text, &["-t", &name, "--push"]).ok();

    let count = damage(&scene.daemon);
    assert!(count >= 4, "manifest, config and layers are blobs");
    let found = scene.run(&["debug", "verify"]).fails();
    assert!(found.stdout.contains(&format!("{count} wrong")), "{}", found.stdout);

    // Another run of the build.
    fs_err::remove_file(scene.path("o.tar")).unwrap();
    heals(|| scene.build(&args));
    assert_eq!(Image::open(&scene.path("o.tar")).file("f"), Some(&b"content\n"[..]));

    // Another pull, also of what is not unpacked any more.
    damage(&scene.daemon);
    heals(|| scene.run(&["pull", &name]));
    heals(|| scene.run(&["save", "-o", "../s.tar", &name]));
    assert_eq!(Image::open(&scene.path("s.tar")).file("f"), Some(&b"content\n"[..]));
    heals(|| scene.run(&["push", &name]));
    assert_eq!(scene.run(&["run", "--rm", &name, "cat", "/f"]).ok().stdout, "content\n");
    scene.run(&["prune", "--all", "--force"]).ok();
    scene.dockerfile("FROM scratch\nCOPY Dockerfile /d\n", &args).ok();
    Image::open(&scene.path("o.tar"));
}
