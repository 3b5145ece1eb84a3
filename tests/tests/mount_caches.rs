//! Cache mounts that travel from machine to machine by keyed caches.

use std::path::{Path, PathBuf};

use tests::{Bucket, Fleet, Output, Scene, bucket_ready};

/// One that reads and writes a cache, with more attributes.
fn through(cache: &str, more: &str) -> Vec<String> {
    let attrs = if more.is_empty() { String::new() } else { format!(",{more}") };
    let (from, to) = (cache.to_owned(), format!("{cache}{attrs}"));
    // What is united is for who writes to say.
    let from = match attrs.split_once(",mergeable") {
        Some((before, _)) => format!("{from}{before}"),
        None => format!("{from}{attrs}"),
    };
    ["--cache-from".to_owned(), from, "--cache-to".to_owned(), to].into()
}

/// Runs a script with a mount, never from the cache.
fn step((fleet, machine): (&Fleet, usize), mount: &str, script: &str, args: &[String]) -> Output {
    let unique = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
    let text =
        format!("FROM {}\nRUN --mount=type=cache,{mount} : {} && {script}\n", fleet.base(), unique.trim());
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    fleet.machines[machine].dockerfile(&text, &args)
}

/// What a script says with a mount.
fn says(at: (&Fleet, usize), mount: &str, script: &str, args: &[String]) -> String {
    let built = step(at, mount, &format!("({script}) | sed 's/^/SAYS /'"), args).ok();
    let said = built.stderr.lines().filter_map(|line| line.split_once("SAYS "));
    // Not the line that tells the command.
    let said: Vec<&str> = said.filter(|(before, _)| !before.contains("RUN")).map(|(_, said)| said).collect();
    said.join("\n")
}

fn forget(machine: &Scene) {
    machine.run(&["prune", "--all", "--force"]).ok();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let found = walkdir::WalkDir::new(dir).into_iter().filter_map(Result::ok);
    found.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}

fn count(requests: &[String], text: &str) -> usize {
    requests.iter().filter(|request| request.contains(text)).count()
}

/// All that a tree holds, but for directories' times.
const TREE: &str = "cd /m && find . | sort | xargs stat -c '%n %F %a %u %g %s %h' && cat a/f && stat -c %y a/f a/large && \
                    md5sum a/large && readlink l";

#[test]
fn from_machine_to_machine_by_a_bucket() {
    if !bucket_ready() {
        return;
    }
    let Some(fleet) = Fleet::new(2) else { return };
    let bucket: Bucket = fleet.machines[0].bucket();
    let through = through(&bucket.keyed("x"), "cache-mounts=all");
    let mount = "target=/m,id=things";
    let make = "mkdir -p /m/a/b && echo text > /m/a/f && ln /m/a/f /m/a/b/again && ln -s a /m/l && mkfifo /m/p && \
                head -c 3000000 /dev/urandom > /m/a/large && chown 7:8 /m/a/f && chmod 1711 /m/a && : > '/m/.wh.x'";
    let built = step((&fleet, 0), mount, make, &through).ok();
    assert!(built.stderr.contains("exporting cache mount things to s3://cache/x"), "{}", built.stderr);
    assert!(built.stderr.contains("nobody has left it there"), "{}", built.stderr);
    let there = says((&fleet, 0), mount, TREE, &[]);
    assert!(there.contains("./a/b/again regular file 644 7 8 5 2"), "{there}");
    bucket.requests();

    // All of it comes to a machine that has none, and nothing is written that is there.
    let come = says((&fleet, 1), mount, TREE, &through);
    assert_eq!(come, there);
    let requests = bucket.requests();
    assert_eq!(count(&requests, "PUT /cache/x/rbuild-1/mounts/"), 0, "{requests:#?}");
    assert!(count(&requests, "GET /cache/x/rbuild-1/blobs/") >= 2, "{requests:#?}");
    // It is there now.
    says((&fleet, 1), mount, TREE, &through);
    assert_eq!(count(&bucket.requests(), "GET /cache/x/rbuild-1/blobs/sha256/"), 1, "the list only");

    // Of a change only what is new goes, and takes the place of what was.
    let written = |bucket: &Bucket| files(&bucket.object("x/rbuild-1/blobs"));
    let before = written(&bucket);
    let change = "printf 'a bit more' | dd of=/m/a/large bs=1 seek=1500000 conv=notrunc 2>/dev/null && rm /m/l && echo 2 > /m/new";
    step((&fleet, 1), mount, change, &through).ok();
    let new: u64 = written(&bucket)
        .iter()
        .filter(|file| !before.contains(file))
        .map(|f| f.metadata().unwrap().len())
        .sum();
    assert!(new > 0 && new < 1_500_000, "{new}");
    assert_eq!(files(&bucket.object("x/rbuild-1/mounts")).len(), 1);
    forget(&fleet.machines[0]);
    let seen = says((&fleet, 0), mount, "cd /m && cat new && md5sum a/large && ls", &through);
    assert_eq!(seen, says((&fleet, 1), mount, "cd /m && cat new && md5sum a/large && ls", &[]));
    assert!(seen.contains("2\n") && !seen.lines().any(|line| line == "l"), "{seen}");
}

#[test]
fn a_choice_of_mounts_and_what_else_tells_them_apart() {
    let Some(fleet) = Fleet::new(2) else { return };
    let cache = format!("type=keyed,url=file://{}", fleet.machines[0].path("shared").display());
    let [one, two] = [0, 1].map(|at: usize| (&fleet, at));
    let chosen = through(&cache, "cache-mounts=yes;/by/path");
    let from_base = format!("target=/m,id=yes,from={},source=/bin", fleet.base());
    for mount in ["target=/m,id=yes", "target=/m,id=no", "target=/by/path"] {
        let at = if mount.contains("path") { "/by/path" } else { "/m" };
        step(one, mount, &format!("echo here > {at}/f"), &chosen).ok();
    }
    let has = |mount: &str, args: &[String]| {
        forget(&fleet.machines[1]);
        let at = if mount.contains("path") { "/by/path" } else { "/m" };
        says(two, mount, &format!("ls {at}"), args) == "f"
    };
    assert!(has("target=/m,id=yes", &chosen) && has("target=/by/path", &chosen));
    assert!(!has("target=/m,id=no", &chosen));
    // A mount that was not written stays what it was.
    assert!(!has("target=/m,id=no", &through(&cache, "cache-mounts=all")));
    // Nobody asked.
    assert!(!has("target=/m,id=yes", &through(&cache, "")));
    // Another owner, another beginning, another namespace: another mount.
    assert!(!has("target=/m,id=yes,uid=7", &chosen));
    assert!(!has(&from_base, &chosen));
    let apart = [chosen.clone(), vec!["--build-arg=BUILDKIT_CACHE_MOUNT_NS=apart".to_owned()]].concat();
    assert!(!has("target=/m,id=yes", &apart));
    // How it is shared is no part of that; who builds without the cache begins with nothing.
    assert!(
        has("target=/m,id=yes,sharing=locked", &chosen) && has("target=/m,id=yes,sharing=private", &chosen)
    );
    assert!(!has("target=/m,id=yes", &[chosen.clone(), vec!["--no-cache".to_owned()]].concat()));
    // Those go as well.
    for (mount, script, test) in [
        ("target=/m,id=yes,uid=7,mode=0700", "echo 7 > /m/g", "stat -c '%u %a' /m && cat /m/g"),
        (&from_base, "rm /m/sh && echo 8 > /m/g", "ls /m/sh; cat /m/g"),
        ("target=/m,id=yes,sharing=locked", "echo 9 > /m/g", "cat /m/g"),
        ("target=/m,id=yes,sharing=private", "echo 10 > /m/g", "cat /m/g"),
    ] {
        step(one, mount, script, &chosen).ok();
        let there = says(one, mount, test, &[]);
        forget(&fleet.machines[1]);
        assert_eq!(says(two, mount, test, &chosen), there, "{mount}");
        assert!(!there.is_empty());
    }
    for (attrs, why) in
        [("cache-mounts=;", "want `all` or ids"), ("cache-mounts=all,mergeable=;", "mergeable: want")]
    {
        let failed = fleet.machines[1].build(&["--cache-to", &format!("{cache},{attrs}")]).fails();
        assert!(failed.stderr.contains(why), "{}", failed.stderr);
    }
}

/// Eight machines that had the same write files of their own at the same time: all files are there in the end.
#[test]
fn writers_at_once_are_united() {
    if !bucket_ready() {
        return;
    }
    let Some(fleet) = Fleet::new(8) else { return };
    let bucket = fleet.machines[0].bucket();
    let dir = fleet.machines[0].path("shared");
    let places = [
        bucket.keyed("many"),
        format!("type=keyed,url=registry://{}/team/mounts", fleet.registry.host()),
        format!("type=keyed,url=file://{}", dir.display()),
    ];
    for cache in places {
        let merging = through(&cache, "cache-mounts=all,mergeable=all");
        let mount = "target=/m,id=shared";
        step((&fleet, 0), mount, "echo base > /m/base; echo old > /m/both; echo gone > /m/removed", &merging)
            .ok();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (fleet, merging) = (&fleet, &merging);
                scope.spawn(move || {
                    if n > 0 {
                        forget(&fleet.machines[n]);
                    }
                    // One that begins when a later one has ended leaves what that one wrote.
                    let script = format!(
                        "cat /m/base && mkdir -p /m/d && echo {n} > /m/d/{n} && v=$(cat /m/both) && \
                         {{ test $v != old && test $v -gt {n} || \
                         {{ echo {n} > /m/both && touch -d @{} /m/both; }}; }} && {{ test {n} != 7 || rm /m/removed; }}",
                        n + 2_000_000_000
                    );
                    step((fleet, n), mount, &script, merging).ok();
                });
            }
        });
        // Whoever comes next has all of them, the newest of what all wrote, and what seven did not remove.
        forget(&fleet.machines[3]);
        let seen = says((&fleet, 3), mount, "cd /m && ls d && cat both base removed", &merging);
        assert_eq!(seen, "0\n1\n2\n3\n4\n5\n6\n7\n7\nbase\ngone", "{cache}");
        // What one takes away of what it had, and nobody else has written meanwhile, stays away.
        forget(&fleet.machines[4]);
        step((&fleet, 4), mount, "rm /m/removed /m/d/5", &merging).ok();
        forget(&fleet.machines[5]);
        assert_eq!(
            says((&fleet, 5), mount, "ls /m /m/d | xargs", &merging),
            "/m: base both d /m/d: 0 1 2 3 4 6 7"
        );
        // Also what it takes away of what it wrote itself.
        step((&fleet, 4), mount, "rm /m/d/6", &merging).ok();
        forget(&fleet.machines[5]);
        assert_eq!(says((&fleet, 5), mount, "ls /m/d | xargs", &merging), "0 1 2 3 4 7");
        fleet.machines.iter().for_each(forget);
    }
}

/// Of a mount that is not to be united the last one counts, whole.
#[test]
fn the_last_one_counts() {
    let Some(fleet) = Fleet::new(3) else { return };
    let cache = format!("type=keyed,url=file://{}", fleet.machines[0].path("shared").display());
    let whole = through(&cache, "cache-mounts=all");
    let mount = "target=/m,id=x";
    std::thread::scope(|scope| {
        for n in 0..3 {
            let (fleet, whole) = (&fleet, &whole);
            scope.spawn(move || step((fleet, n), mount, &format!("touch /m/{n}a /m/{n}b"), whole).ok());
        }
    });
    forget(&fleet.machines[0]);
    let seen = says((&fleet, 0), mount, "ls /m | xargs", &whole);
    let has = |name: &str| seen.split(' ').any(|seen| seen == name);
    // Of one that began when another one had ended, what that one wrote is part of it.
    let whole_ones = (0..3).filter(|n| has(&format!("{n}a")) && has(&format!("{n}b"))).count();
    assert!(whole_ones > 0 && seen.split(' ').count() == 2 * whole_ones, "{seen}");
    forget(&fleet.machines[1]);
    step((&fleet, 1), mount, "rm -rf /m/* && touch /m/new", &whole).ok();
    forget(&fleet.machines[2]);
    assert_eq!(says((&fleet, 2), mount, "ls /m", &whole), "new");
}

#[test]
fn what_a_step_that_failed_left_stays() {
    let Some(fleet) = Fleet::new(2) else { return };
    let cache = format!("type=keyed,url=file://{}", fleet.machines[0].path("shared").display());
    let all = through(&cache, "cache-mounts=all");
    let text = format!(
        "FROM {} AS good\nRUN --mount=type=cache,target=/m,id=good touch /m/f\n\
         FROM good\nRUN --mount=type=cache,target=/m,id=bad touch /m/f && false\n",
        fleet.base()
    );
    let args: Vec<&str> = all.iter().map(String::as_str).collect();
    fleet.machines[0].dockerfile(&text, &args).fails();
    assert_eq!(says((&fleet, 1), "target=/m,id=good", "ls /m", &all), "f");
    assert_eq!(says((&fleet, 1), "target=/m,id=bad", "ls /m", &all), "");
}

#[test]
fn damage_costs_the_mount_and_heals() {
    let Some(fleet) = Fleet::new(2) else { return };
    let dir = fleet.machines[0].path("shared");
    let cache = format!("type=keyed,url=file://{}", dir.display());
    let all = through(&cache, "cache-mounts=all");
    let mount = "target=/m,id=x";
    let fill = "head -c 2000000 /dev/urandom > /m/large && echo 1 > /m/small";
    step((&fleet, 0), mount, fill, &all).ok();
    let sum = says((&fleet, 0), mount, "md5sum /m/large", &[]);
    let come = || {
        forget(&fleet.machines[1]);
        says((&fleet, 1), mount, "test ! -e /m/large || md5sum /m/large; ls /m | wc -l", &all)
    };
    assert_eq!(come(), format!("{sum}\n2"));
    let flip = |file: &Path| {
        let mut bytes = fs_err::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs_err::write(file, bytes).unwrap();
    };
    let (blobs, mounts) = (dir.join("rbuild-1/blobs"), dir.join("rbuild-1/mounts"));
    let largest =
        |dir: &Path| files(dir).into_iter().max_by_key(|file| file.metadata().unwrap().len()).unwrap();
    let cut = |file: &Path| fs_err::OpenOptions::new().write(true).open(file).unwrap().set_len(20).unwrap();
    let ways: [&dyn Fn(); 6] = [
        &|| flip(&largest(&blobs)),
        &|| fs_err::remove_file(largest(&blobs)).unwrap(),
        &|| cut(&largest(&blobs)),
        &|| files(&blobs).iter().for_each(|file| cut(file)),
        &|| files(&blobs).iter().for_each(|file| flip(file)),
        &|| files(&mounts).iter().for_each(|file| flip(file)),
    ];
    for (n, damage) in ways.iter().enumerate() {
        damage();
        // Nothing of it came, and the machine's own, which is nothing, was written.
        assert_eq!(come(), "0", "{n}");
        // The one that has it writes it again.
        step((&fleet, 0), mount, "echo more > /m/small", &all).ok();
        assert_eq!(come(), format!("{sum}\n2"), "{n}");
    }
}

#[test]
fn signed_and_scoped() {
    let Some(fleet) = Fleet::new(2) else { return };
    let dir = fleet.machines[0].path("shared");
    let url = format!("type=keyed,url=file://{},cache-mounts=all", dir.display());
    let key = |name: &str| {
        let (private, public) =
            (dir.with_file_name(format!("{name}.pem")), dir.with_file_name(format!("{name}.pub")));
        let run = |args: &[&str]| {
            assert!(std::process::Command::new("openssl").args(args).status().unwrap().success());
        };
        run(&["genpkey", "-algorithm", "ed25519", "-out", private.to_str().unwrap()]);
        run(&["pkey", "-in", private.to_str().unwrap(), "-pubout", "-out", public.to_str().unwrap()]);
        (private.display().to_string(), public.display().to_string())
    };
    let ((private, public), (stranger, strangers)) = (key("a"), key("b"));
    let mount = "target=/m,id=x";
    let to = |attrs: &str| vec!["--cache-to".to_owned(), format!("{url},{attrs}")];
    step((&fleet, 0), mount, "echo main > /m/f", &to(&format!("scope=main,signing-key={private}"))).ok();
    let come = |attrs: &str| {
        forget(&fleet.machines[1]);
        says((&fleet, 1), mount, "cat /m/f", &["--cache-from".to_owned(), format!("{url},{attrs}")])
    };
    assert_eq!(come(&format!("scope=main,trust={public}")), "main");
    assert_eq!(come(&format!("scope=main,trust={strangers}")), "");
    assert_eq!(come("scope=pr"), "");
    step((&fleet, 0), mount, "echo pr > /m/f", &to(&format!("scope=pr,signing-key={stranger}"))).ok();
    assert_eq!(come(&format!("scope=pr;main,trust={public}")), "main");
    assert_eq!(come(&format!("scope=pr;main,trust={public};{strangers}")), "pr");
    // What the stranger puts into the place of what is trusted is passed over.
    step((&fleet, 0), mount, "echo forged > /m/f", &to(&format!("scope=main,signing-key={stranger}"))).ok();
    assert_ne!(come(&format!("scope=main,trust={public}")), "forged");
}

/// What could not come for now is not taken to be nothing.
#[test]
fn a_store_that_cannot_be_reached() {
    if !bucket_ready() {
        return;
    }
    let Some(fleet) = Fleet::new(2) else { return };
    let bucket = fleet.machines[0].bucket();
    let all = through(&format!("{},retry_max_attempts=1", bucket.keyed("x")), "cache-mounts=all");
    let mount = "target=/m,id=x";
    step((&fleet, 0), mount, "echo 1 > /m/f", &all).ok();
    bucket.fail("GET /cache/x/rbuild-1/blobs/", 500, "InternalError");
    let alone = step((&fleet, 1), mount, "ls /m | wc -l | sed s/^/FILES/ && touch /m/own", &all[..2]).ok();
    assert!(alone.stderr.contains("FILES0"), "{}", alone.stderr);
    // The mount that began with nothing is not what the next build finds, and not what is written.
    bucket.heal();
    assert_eq!(says((&fleet, 1), mount, "ls /m | xargs", &all), "f");
    forget(&fleet.machines[1]);
    assert_eq!(says((&fleet, 1), mount, "ls /m | xargs", &all), "f");
}

/// Names that nobody has vouched for count for nothing.
#[test]
fn what_others_have_put_among_the_snapshots() {
    let Some(fleet) = Fleet::new(2) else { return };
    let dir = fleet.machines[0].path("shared");
    let cache = format!("type=keyed,url=file://{}", dir.display());
    let all = through(&cache, "cache-mounts=all,mergeable=all");
    let mount = "target=/m,id=x";
    step((&fleet, 0), mount, "touch /m/a", &all).ok();
    let [snapshot] = files(&dir.join("rbuild-1/mounts")).try_into().unwrap();
    for name in ["9999999999999-ffffffff", "0000000000001-00000000", "notes.txt"] {
        fs_err::write(snapshot.with_file_name(name), "junk").unwrap();
    }
    // A copy under another name is no snapshot either.
    fs_err::copy(&snapshot, snapshot.with_file_name("9000000000000-00000000")).unwrap();
    step((&fleet, 1), mount, "test -e /m/a && touch /m/b", &all).ok();
    forget(&fleet.machines[0]);
    assert_eq!(says((&fleet, 0), mount, "ls /m | xargs", &all), "a b");
    let names = files(&dir.join("rbuild-1/mounts"));
    let own = |file: &&PathBuf| file.file_name().unwrap().to_str().unwrap().starts_with('1');
    let newest = names.iter().filter(own).max().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let made: u128 = newest.file_name().unwrap().to_str().unwrap()[..13].parse().unwrap();
    assert!(made <= now, "{}", newest.display());
}

/// Options that have no effect are warned of, and only those.
#[test]
fn what_is_asked_in_vain_is_told() {
    let Some(fleet) = Fleet::new(1) else { return };
    let machine = &fleet.machines[0];
    let host = fleet.registry.host();
    let text = format!(
        "FROM {}\nRUN --mount=type=cache,target=/m,id=npm --mount=type=cache,target=/root/.cache : > /m/f\n",
        fleet.base()
    );
    let warnings = |args: &[String]| -> Vec<String> {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let built = machine.dockerfile(&text, &args).ok();
        let told = built.stderr.lines().filter_map(|line| line.split_once(" WARN: "));
        told.map(|(_, warning)| warning.to_owned()).collect()
    };
    let cache = format!("type=keyed,url=file://{}", machine.path("shared").display());
    let missing = |id: &str, meant: &str| {
        format!("no step of this build has the cache mount `{id}` that `cache-mounts=` names{meant}")
    };
    let vain = [missing("go", ""), missing("npmm", " (did you mean npm?)")];
    // Steps that come from the cache have their mounts, too.
    for _ in 0..2 {
        assert_eq!(warnings(&through(&cache, "cache-mounts=npm;/root/.cache,mergeable=npm")), [""; 0]);
        assert_eq!(warnings(&through(&cache, "cache-mounts=all,mergeable=npm,expire=14d")), [""; 0]);
        assert_eq!(warnings(&through(&cache, "cache-mounts=npmm;go;npm")), vain);
    }
    let to = |cache: &str| ["--cache-to".to_owned(), cache.to_owned()];
    // Once, whether it is said of what is read, of what is written, or of both; and the cache does what it does else.
    let graph = format!("type=registry,ref={host}/graph:1,cache-mounts=npm,mode=max");
    let alone = "`cache-mounts=` has no effect on a cache of type `registry`: cache mounts travel by those of type `keyed` only";
    assert_eq!(warnings(&through(&graph, "")), [alone]);
    assert!(fleet.registry.manifest("graph", "1").is_some());
    let [from, _, _, _] = &through(&graph, "")[..] else { panic!() };
    assert_eq!(warnings(&[from.clone(), graph]), [alone]);
    let name = format!("registry://{host}/keyed");
    assert_eq!(
        warnings(&to(&format!("type=keyed,url={name},expire=14d,mergeable=npm"))),
        [
            format!(
                "`expire=` has no effect on the cache {name} (scope default): a registry removes what is old by rules of its own"
            ),
            format!("`mergeable=` has no effect on the cache {name} (scope default) without `cache-mounts=`"),
        ]
    );
    let failed =
        machine.dockerfile("FROM scratch\nCOPY none /\n", &["--cache-to", &format!("{cache},mergeable=npm")]);
    assert!(failed.fails().stderr.contains("`mergeable=` has no effect"));
}
