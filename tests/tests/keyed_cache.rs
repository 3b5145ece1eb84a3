//! Keyed caches: what one machine made, others have, without agreeing on a name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use proto::control::{CacheOptions, CacheOptionsEntry, SolveRequest};
use tests::llb::Llb;
use tests::{
    Actions, Api, Azure, Bucket, Fleet, Google, Job, Random, Registry, Scene, bucket_ready, ready, rounds,
};

/// Several machines, and a base image that all can pull.
struct Machines {
    machines: Vec<Scene>,
    registry: Registry,
}

impl Machines {
    /// `None` where this machine cannot run them.
    fn new(count: usize) -> Option<Self> {
        let Fleet { machines, registry } = Fleet::new(count)?;
        for machine in &machines {
            machine.write("f", "1");
        }
        Some(Self { machines, registry })
    }

    /// A stage of its own, steps that are not the same twice, all sorts of files, and a step that no image needs.
    fn text(&self) -> String {
        format!(
            "FROM {0}/base:1 AS side\nRUN cat /proc/sys/kernel/random/uuid > /side\n\
             FROM {0}/base:1\nRUN cat /proc/sys/kernel/random/uuid > /unique\nCOPY f /f\n\
             RUN cat /f > /g && mkfifo /p && ln /g /h && mkdir -p /d/e && touch -d @5 /d/e/x && chown 7:8 /d && rm /f\n\
             COPY --from=side /side /side\nRUN rm -r /d/e && ln -s g /l && cat /unique /side > /derived\n\
             RUN --mount=type=bind,from=side,target=/s test -f /s/side\n",
            self.registry.host()
        )
    }

    /// So many steps are not sources.
    const STEPS: usize = 7;

    fn build(&self, machine: usize, args: &[&str]) -> tests::Output {
        self.machines[machine].dockerfile(&self.text(), args)
    }

    /// Forgets all that a machine knows.
    fn forget(&self, machine: usize) {
        self.machines[machine].run(&["rmi", "app"]);
        self.machines[machine].run(&["prune", "--all", "--force"]).ok();
    }

    /// Files of the image `app` that were not the same had they been made twice.
    fn unique(&self, machine: usize) -> String {
        let script = "cat /unique /side /g /h; readlink /l; stat -c '%u %g %a' /d; test -p /p && ls /d /f";
        let stdout = self.machines[machine].run(&["run", "--rm", "app", "sh", "-c", script]).stdout;
        let derived = self.machines[machine].run(&["run", "--rm", "app", "cat", "/derived"]).stdout;
        assert!(stdout.starts_with(&derived), "steps of different machines are mixed: {stdout} {derived}");
        stdout
    }
}

fn from_to(cache: &str) -> [&str; 4] {
    ["--cache-from", cache, "--cache-to", cache]
}

fn count(requests: &[String], text: &str) -> usize {
    requests.iter().filter(|request| request.contains(text)).count()
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let found = walkdir::WalkDir::new(dir).into_iter().map(|entry| entry.unwrap());
    found.filter(|entry| entry.file_type().is_file()).map(|entry| entry.into_path()).collect()
}

#[test]
fn in_a_bucket() {
    if !bucket_ready() {
        return;
    }
    let Some(machines) = Machines::new(2) else { return };
    let bucket: Bucket = machines.machines[0].bucket();
    let cache = bucket.keyed("a/b");
    let built = machines.build(0, &[&["-t", "app"][..], &from_to(&cache)].concat()).ok();
    assert_eq!(built.ran().len(), Machines::STEPS, "{}", built.stderr);
    assert!(built.stderr.contains("exporting cache to s3://cache/a/b (scope default)"), "{}", built.stderr);
    let written = bucket.requests();
    assert!(count(&written, "PUT /cache/a/b/rbuild-1/blobs/") > 8, "{written:#?}");

    // All is known before anything runs; nothing comes in for what nobody looks at, and nothing is written again.
    let again = machines.build(1, &from_to(&cache)).ok();
    assert_eq!(again.ran(), Vec::<String>::new(), "{}", again.stderr);
    assert!(again.stderr.contains("importing cache from s3://cache/a/b (scope default)"), "{}", again.stderr);
    assert!(again.stderr.contains("nothing new to write"), "{}", again.stderr);
    let requests = bucket.requests();
    assert_eq!(count(&requests, "PUT "), 0, "{requests:#?}");
    assert_eq!(count(&requests, "GET /cache/a/b/rbuild-1/blobs/"), 0, "{requests:#?}");
    assert_eq!(count(&requests, "GET /cache/a/b/rbuild-1/records/"), Machines::STEPS, "{requests:#?}");

    // Only the image's own layers come in, once, and the image is the same.
    let named = machines.build(1, &["-t", "app", "--cache-from", &cache]).ok();
    assert_eq!(named.ran(), Vec::<String>::new(), "{}", named.stderr);
    let read = count(&bucket.requests(), "GET /cache/a/b/rbuild-1/blobs/");
    assert_eq!(read, 2 * 6, "two blobs for each layer that is in the image");
    assert_eq!(machines.unique(1), machines.unique(0));
    let id = |machine: usize| machines.machines[machine].run(&["images", "-q", "app"]).ok().stdout;
    assert_eq!(id(0), id(1));

    // A changed file: what does not stand on it is taken.
    machines.machines[1].write("f", "2");
    let changed = machines.build(1, &[&["-t", "app"][..], &from_to(&cache)].concat()).ok();
    assert_eq!(changed.ran().len(), 5, "{}", changed.stderr);
    let (old, new) = (machines.unique(0), machines.unique(1));
    assert_eq!(old.lines().take(2).collect::<Vec<_>>(), new.lines().take(2).collect::<Vec<_>>());
    machines.machines[0].write("f", "2");
    machines.build(0, &["-t", "app", "--cache-from", &cache]).ok();
    assert_eq!(machines.unique(0), new);

    // What others say is believed by who asks for it, and by nobody else.
    machines.forget(1);
    machines.build(1, &["-t", "app", "--cache-from", &cache]).ok();
    assert_eq!(machines.unique(1), new);
    let alone = machines.build(1, &["-t", "app"]).ok();
    assert_eq!(alone.ran().len(), Machines::STEPS, "{}", alone.stderr);
}

#[test]
fn in_a_directory_and_at_a_registry() {
    let Some(machines) = Machines::new(2) else { return };
    let dir = machines.machines[0].path("shared");
    let places =
        [format!("file://{}", dir.display()), format!("registry://{}/team/cache", machines.registry.host())];
    for url in places {
        let cache = format!("type=keyed,url={url}");
        let built = machines.build(0, &[&["-t", "app"][..], &from_to(&cache)].concat()).ok();
        assert_eq!(built.ran().len(), Machines::STEPS, "{}", built.stderr);
        let again = machines.build(1, &[&["-t", "app"][..], &from_to(&cache)].concat()).ok();
        assert_eq!(again.ran(), Vec::<String>::new(), "{}", again.stderr);
        assert!(again.stderr.contains("nothing new to write"), "{}", again.stderr);
        assert_eq!(machines.unique(1), machines.unique(0));
        machines.forget(0);
        machines.forget(1);
    }
    // Nothing half written stays behind, also not of clients that were killed.
    let tmp = dir.join("tmp");
    assert_eq!(files(&tmp), Vec::<PathBuf>::new());
    for (name, hours) in [("killed", 25), ("at-work", 23)] {
        let file = fs_err::File::create(tmp.join(name)).unwrap();
        file.file().set_modified(SystemTime::now() - Duration::from_hours(hours)).unwrap();
    }
    machines.machines[0].write("f", "2");
    machines.build(0, &["--cache-to", &format!("type=keyed,url=file://{}", dir.display())]).ok();
    assert_eq!(files(&tmp), [tmp.join("at-work")]);
    let beside = machines.machines[1].build(&["--cache-to", "type=keyed,url=file:///dev/null/x"]).fails();
    assert!(
        beside.stderr.contains("/dev/null/x") || beside.stderr.contains("Not a directory"),
        "{}",
        beside.stderr
    );
}

#[test]
fn damage_is_a_miss_that_heals() {
    let Some(machines) = Machines::new(2) else { return };
    let dir = machines.machines[0].path("shared");
    let cache = format!("type=keyed,url=file://{}", dir.display());
    machines.build(0, &[&["-t", "app"][..], &from_to(&cache)].concat()).ok();
    let (records, blobs) = (dir.join("rbuild-1/records"), dir.join("rbuild-1/blobs"));
    let flip = |file: &Path| {
        let mut bytes = fs_err::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs_err::write(file, bytes).unwrap();
    };
    // What the image has that is not the same twice, after a build of a machine that knows nothing.
    let built = || {
        let built = machines.build(1, &[&["-t", "app"][..], &from_to(&cache)].concat()).ok();
        let unique = machines.unique(1);
        assert!(unique.contains("\n1\n1\ng\n7 8 755") || unique.contains("\n11g\n7 8 755"), "{unique}");
        machines.forget(1);
        (unique, built.ran().len())
    };
    // What is not needed is not found to be damaged: it may take another build until all is whole.
    let settled = |mut last: String| {
        for _ in 0..4 {
            let (unique, ran) = built();
            if (&unique, ran) == (&last, 0) {
                return unique;
            }
            last = unique;
        }
        panic!("it does not heal");
    };
    let first = machines.unique(0);
    assert_eq!(built(), (first.clone(), 0));
    // Every blob.
    files(&blobs).iter().for_each(|file| flip(file));
    let told = machines.build(1, &["-t", "app", "--cache-from", &cache]).ok().stderr;
    assert!(told.contains("cannot be had: doing without"), "{told}");
    machines.forget(1);
    let (second, _) = built();
    assert_ne!(second, first);
    settled(second);
    // Every record.
    files(&records).iter().for_each(|file| flip(file));
    let told = machines.build(1, &["--cache-from", &cache]).ok().stderr;
    assert!(told.contains("records are damaged: doing without them"), "{told}");
    machines.forget(1);
    let (third, ran) = built();
    assert_eq!(ran, Machines::STEPS);
    assert_eq!(built(), (third, 0));
    // Records under each other's keys.
    let all = files(&records);
    let texts: Vec<Vec<u8>> = all.iter().map(|file| fs_err::read(file).unwrap()).collect();
    for (file, text) in all.iter().zip(texts.iter().cycle().skip(1)) {
        fs_err::write(file, text).unwrap();
    }
    let (fourth, ran) = built();
    assert_eq!(ran, Machines::STEPS);
    assert_eq!(built(), (fourth.clone(), 0));
    // Blobs that are gone, or were cut.
    for (i, file) in files(&blobs).iter().enumerate() {
        match i % 2 {
            0 => fs_err::remove_file(file).unwrap(),
            _ => fs_err::OpenOptions::new().write(true).open(file).unwrap().set_len(10).unwrap(),
        }
    }
    let (fifth, _) = built();
    assert_ne!(fifth, fourth);
    settled(fifth);
}

#[test]
fn scopes_and_signatures() {
    let Some(machines) = Machines::new(3) else { return };
    let [main, pr, other] = [0, 1, 2];
    let dir = machines.machines[main].path("shared");
    let url = format!("type=keyed,url=file://{}", dir.display());
    let key = |name: &str| {
        let private = dir.with_file_name(format!("{name}.pem"));
        let public = dir.with_file_name(format!("{name}.pub"));
        let run = |args: &[&str]| {
            assert!(std::process::Command::new("openssl").args(args).status().unwrap().success());
        };
        run(&["genpkey", "-algorithm", "ed25519", "-out", private.to_str().unwrap()]);
        run(&["pkey", "-in", private.to_str().unwrap(), "-pubout", "-out", public.to_str().unwrap()]);
        (private.display().to_string(), public.display().to_string())
    };
    let ((private, public), (stranger, strangers)) = (key("a"), key("b"));
    let runs = |machine: usize, args: &[&str]| {
        let built = machines.build(machine, args).ok();
        machines.forget(machine);
        built.ran().len()
    };
    let signed = format!("{url},scope=main,signing-key={private}");
    assert_eq!(runs(main, &["--cache-to", &signed]), Machines::STEPS);
    // A pull request reads what main wrote, and writes where main does not read.
    machines.machines[pr].write("f", "2");
    let both = format!("{url},scope=pr-1;main,trust={public}");
    assert_eq!(runs(pr, &["--cache-from", &both, "--cache-to", &format!("{url},scope=pr-1")]), 5);
    machines.machines[other].write("f", "2");
    let from_main = format!("{url},scope=main,trust={public}");
    assert_eq!(runs(other, &["--cache-from", &from_main]), 5);
    // Its own records are not signed: they count for who does not ask for that.
    assert_eq!(runs(other, &["--cache-from", &both]), 5);
    assert_eq!(runs(other, &["--cache-from", &format!("{url},scope=pr-1;main")]), 0);
    // Nobody trusts the stranger, nor him main.
    assert_eq!(
        runs(other, &["--cache-from", &format!("{url},scope=main,trust={strangers}")]),
        Machines::STEPS
    );
    let forged = format!("{url},scope=main,signing-key={stranger}");
    machines.machines[other].write("f", "1");
    runs(other, &["--cache-to", &forged]);
    assert_eq!(runs(other, &["--cache-from", &from_main]), Machines::STEPS);
    let either = format!("{url},scope=main,trust={public};{strangers}");
    assert_eq!(runs(other, &["--cache-from", &either]), 0);
    // No file of the cache and no log has the key.
    let secret = fs_err::read_to_string(&private).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    for file in files(&dir).into_iter().chain([machines.machines[main].daemon.log()]) {
        let bytes = fs_err::read(&file).unwrap();
        assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{}", file.display());
    }
}

#[test]
fn a_store_that_fails() {
    if !bucket_ready() {
        return;
    }
    let Some(machines) = Machines::new(2) else { return };
    let bucket = machines.machines[0].bucket();
    let cache = format!("{},retry_max_attempts=2", bucket.keyed("x"));
    machines.build(0, &["-t", "app", "--cache-to", &cache]).ok();
    for (text, status, code) in [
        ("GET /cache/x/rbuild-1/records/", 500, "InternalError"),
        ("GET /cache/x/rbuild-1/records/", 403, "AccessDenied"),
        ("GET /cache/x/rbuild-1/blobs/", 503, "SlowDown"),
    ] {
        bucket.fail(text, status, code);
        let built = machines.build(1, &["-t", "app", "--cache-from", &cache]).ok();
        assert_ne!(machines.unique(1), machines.unique(0), "{text}: {}", built.stderr);
        assert!(!built.stderr.contains(bucket.key().1), "{}", built.stderr);
        machines.forget(1);
    }
    bucket.fail("PUT /cache/x/", 403, "AccessDenied");
    let write = |more: &str| {
        machines.machines[1].write("f", more);
        machines.build(1, &["--cache-to", &format!("{cache}{more}")])
    };
    let failed = write("").fails();
    assert!(failed.stderr.contains("S3 bucket `cache` denies access to"), "{}", failed.stderr);
    write(",ignore-error=true").ok();
    bucket.heal();
    for (attrs, why) in [
        ("url=s3://", "names no bucket"),
        ("url=http://x", "is no store"),
        ("url=s3://b,scope=UP", "cannot be a scope"),
        ("url=s3://b,expire=1m", "less than a day"),
    ] {
        let wrong = format!("type=keyed,{attrs}");
        let failed = machines.build(1, &["--cache-to", &wrong]).fails();
        assert!(failed.stderr.contains(why), "{}", failed.stderr);
        assert!(failed.stderr.contains("failed to configure keyed cache exporter"), "{}", failed.stderr);
    }
    let missing = "type=keyed,url=s3://b,trust=/nowhere";
    let told = machines.build(1, &["--cache-from", missing]).ok().stderr;
    assert!(told.contains("/nowhere") && told.contains("doing without that cache"), "{told}");
    let failed = machines.build(1, &["--cache-to", missing]).fails();
    assert!(failed.stderr.contains("`trust` of a keyed cache"), "{}", failed.stderr);
}

#[test]
fn what_succeeded_of_a_failed_build() {
    let Some(machines) = Machines::new(2) else { return };
    let cache = format!("type=keyed,url=file://{}", machines.machines[0].path("shared").display());
    let text = format!("{}RUN false\n", machines.text());
    machines.machines[0].dockerfile(&text, &["--cache-to", &cache]).fails();
    let built = machines.build(1, &["-t", "app", "--cache-from", &cache]).ok();
    assert_eq!(built.ran(), Vec::<String>::new(), "{}", built.stderr);
}

#[test]
fn the_least_of_it() {
    let Some(machines) = Machines::new(2) else { return };
    let dir = machines.machines[0].path("shared");
    let cache = format!("type=keyed,url=file://{},mode=min", dir.display());
    machines.build(0, &["--cache-to", &cache]).ok();
    let layers = |dir: &Path| files(&dir.join("rbuild-1/blobs")).len();
    // One is what the build was keyed on.
    assert_eq!(layers(&dir), 2 * 6 + 1, "the stage that no image needs has no layer there");
    let built = machines.build(1, &["-t", "app", "--cache-from", &cache]).ok();
    assert_eq!(built.ran(), Vec::<String>::new(), "{}", built.stderr);
    // A step that needs the stage has it made.
    let text = machines.text() + "COPY --from=side /side /again\n";
    let built = machines.machines[1].dockerfile(&text, &["-t", "app", "--cache-from", &cache]).ok();
    assert!(built.ran().iter().any(|step| step.contains("/again")), "{}", built.stderr);
    let again = machines.machines[1].run(&["run", "--rm", "app", "cat", "/again"]).ok().stdout;
    assert!(again.len() > 30 && again != machines.unique(0).lines().nth(1).unwrap_or_default(), "{again}");
}

#[test]
fn what_nobody_uses_expires() {
    let Some(machines) = Machines::new(2) else { return };
    let dir = machines.machines[0].path("shared");
    let cache = format!("type=keyed,url=file://{}", dir.display());
    let sweeping = format!("{cache},expire=48h");
    let (records, blobs) = (dir.join("rbuild-1/records"), dir.join("rbuild-1/blobs"));
    let age = |dir: &Path, hours: u64| {
        let at = SystemTime::now() - Duration::from_secs(hours * 3600);
        for file in files(dir).into_iter().filter(|file| !file.ends_with("sweep.json")) {
            fs_err::OpenOptions::new().write(true).open(&file).unwrap().file().set_modified(at).unwrap();
        }
    };
    let counts = || (files(&records).len(), files(&blobs).len());
    machines.build(0, &["--cache-to", &cache]).ok();
    let first = counts();
    age(&dir, 100);
    // A build that reads makes what it reads young, also what it did not have to fetch.
    machines.build(1, &["--cache-from", &cache, "--cache-to", &sweeping]).ok();
    let read = counts();
    assert_eq!(read.0, Machines::STEPS, "of each step one of two keys: {first:?} {read:?}");
    assert_eq!(
        read.1,
        first.1 + 1,
        "what the project was keyed on went before it was used, and is written anew"
    );
    // What nobody read: the records go, and the blobs a day later.
    age(&dir, 100);
    machines.machines[0].write("other/Dockerfile", "FROM scratch\nCOPY f /\n");
    let sweep = || {
        let other = machines.machines[0].context().join("other/Dockerfile");
        machines.machines[0].build(&["-f", other.to_str().unwrap(), "--cache-to", &sweeping]).ok().stderr
    };
    let told = sweep();
    let after = counts();
    assert!(!told.contains("removing what has expired"), "one sweep a day: {told}");
    let note = dir.join("rbuild-1/sweep.json");
    let yesterday = || {
        let at = SystemTime::now() - Duration::from_hours(25);
        fs_err::OpenOptions::new().write(true).open(&note).unwrap().file().set_modified(at).unwrap();
    };
    yesterday();
    // What others leave in the directory is in nobody's way.
    fs_err::write(records.join("default/.nfs0001"), "").unwrap();
    let told = sweep();
    assert!(told.contains("removing what has expired"), "{told}");
    let records_gone = counts();
    // But for the one blob that the sweep before had listed: what the project was keyed on before.
    assert!(records_gone.0 < after.0 && records_gone.1 + 1 == after.1, "{after:?} {records_gone:?}");
    yesterday();
    sweep();
    let all_gone = counts();
    assert!(all_gone.1 < records_gone.1, "{all_gone:?}");
    let rebuilt = machines.build(1, &["-t", "app", "--cache-from", &cache]).ok();
    assert_eq!(rebuilt.ran().len(), Machines::STEPS, "{}", rebuilt.stderr);
    // Each scope is kept for as long as its own writers say, whoever sweeps; for ever if they say nothing.
    let of = |scope: &str| files(&records.join(scope)).len();
    machines.build(0, &["--cache-to", &format!("{cache},scope=kept")]).ok();
    machines.build(0, &["--cache-to", &format!("{sweeping},scope=pr")]).ok();
    let (kept, pr) = (of("kept"), of("pr"));
    assert!(kept > 0 && pr > 0);
    age(&dir, 100);
    yesterday();
    sweep();
    assert_eq!((of("kept"), of("pr")), (kept, 0));
    // Who says nothing any more is not held to what was said.
    machines.build(0, &["--cache-to", &format!("{sweeping},scope=pr")]).ok();
    machines.build(0, &["--cache-to", &format!("{cache},scope=pr")]).ok();
    age(&dir, 100);
    yesterday();
    sweep();
    assert_eq!(of("pr"), pr);
}

/// Writers of one store at once: their daemons are killed now and then, and the store fails now and then. Ten minutes and eight
/// writers with `RBUILD_SOAK=1`.
#[test]
fn writers_at_once() {
    if !bucket_ready() {
        return;
    }
    let (writers, time) = rounds((3, Duration::from_secs(6)), (8, Duration::from_secs(600)));
    let Some(mut machines) = Machines::new(writers) else { return };
    let bucket = machines.machines[0].bucket();
    let (cache, text) = (format!("{},retry_max_attempts=2", bucket.keyed("many")), machines.text());
    let (end, mut random) = (Instant::now() + time, Random::new());
    bucket.be_flaky(31);
    let records = bucket.object("many/rbuild-1/records");
    // What was there when some build had been told that all of it was written.
    let written: Mutex<BTreeSet<PathBuf>> = Mutex::default();
    std::thread::scope(|scope| {
        for machine in &mut machines.machines {
            let (cache, text, mut chance) = (&cache, &text, random.split());
            let (records, written) = (&records, &written);
            scope.spawn(move || {
                while Instant::now() < end {
                    let f = format!("{}", chance.below(4));
                    let args = [&["-t", "app"][..], &from_to(cache)].concat();
                    machine.write("f", &f);
                    if chance.below(4) == 0 {
                        machine.write("Dockerfile", text);
                        let mut build = machine.command(&[&["build", "."][..], &args].concat());
                        let mut client = build.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                        std::thread::sleep(Duration::from_millis(50 + chance.below(400)));
                        machine.daemon.kill();
                        client.wait().unwrap();
                        machine.daemon.again();
                    } else if machine.dockerfile(text, &args).code == 0 {
                        // Else the store did not take it.
                        written.lock().unwrap().extend(files(records));
                        assert_eq!(machine.run(&["run", "--rm", "app", "cat", "/g"]).ok().stdout, f);
                    }
                    machine.run(&["rmi", "app"]);
                    machine.run(&["prune", "--all", "--force"]).ok();
                }
            });
        }
    });
    bucket.heal();
    let (written, left) = (written.into_inner().unwrap(), BTreeSet::from_iter(files(&records)));
    assert!(!written.is_empty());
    assert_eq!(written.difference(&left).collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "records were lost");
    for f in ["0", "1", "2", "3"] {
        machines.machines[0].write("f", f);
        machines.build(0, &[&["-t", "app"][..], &from_to(&cache)].concat()).ok();
        let first = machines.unique(0);
        assert!(first.contains(&format!("\n{f}{f}g\n")), "{first}");
        for machine in 0..3 {
            machines.forget(machine);
            machines.machines[machine].write("f", f);
            let built = machines.build(machine, &["-t", "app", "--cache-from", &cache]).ok();
            assert_eq!(built.ran(), Vec::<String>::new(), "{}", built.stderr);
            assert_eq!(machines.unique(machine), first);
        }
    }
    // Every record says what it says, and all that it names is there as it was named.
    let blobs = bucket.object("many/rbuild-1/blobs/sha256");
    for record in files(&records) {
        let text = fs_err::read_to_string(&record).unwrap();
        let said: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(said["key"], format!("sha256:{}", record.file_name().unwrap().to_str().unwrap()));
        for layer in said["layers"].as_array().unwrap() {
            for part in ["entries", "tar"] {
                let name = layer[part]["digest"].as_str().unwrap().replace("sha256:", "");
                let bytes = fs_err::read(blobs.join(&name[..2]).join(&name)).unwrap();
                assert_eq!(hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes)), name);
            }
        }
    }
}

/// What comes from one cache goes to another one, whole.
#[test]
fn from_one_cache_to_another() {
    let Some(machines) = Machines::new(2) else { return };
    let cache = |name: &str| {
        let dir = machines.machines[0].path(name);
        (format!("type=keyed,url=file://{}", dir.display()), dir)
    };
    let ((one, dir), (two, other)) = (cache("one"), cache("two"));
    machines.build(0, &["-t", "app", "--cache-to", &one]).ok();
    let handed = machines.build(1, &["--cache-from", &one, "--cache-to", &two]).ok();
    assert_eq!(handed.ran(), Vec::<String>::new(), "{}", handed.stderr);
    let blobs = |dir: &Path| files(&dir.join("rbuild-1/blobs")).len();
    assert_eq!(blobs(&other), blobs(&dir));
    machines.forget(1);
    fs_err::remove_dir_all(&dir).unwrap();
    let built = machines.build(1, &["-t", "app", "--cache-from", &two]).ok();
    assert_eq!(built.ran(), Vec::<String>::new(), "{}", built.stderr);
    assert_eq!(machines.unique(1), machines.unique(0));
    // What cannot be had of the first is not in the second, and fails nothing.
    machines.forget(1);
    let (third, place) = cache("three");
    for blob in files(&other.join("rbuild-1/blobs")) {
        fs_err::write(blob, "something else").unwrap();
    }
    machines.build(1, &["--cache-from", &two, "--cache-to", &third]).ok();
    assert!(!place.join("rbuild-1/blobs").exists());
    machines.forget(1);
    let built = machines.build(1, &["-t", "app", "--cache-from", &third]).ok();
    assert!(built.ran().len() > 4, "{}", built.stderr);
}

/// Results that were made apart are not put together.
#[test]
fn two_lineages() {
    let Some(machines) = Machines::new(3) else { return };
    let cache = format!("type=keyed,url=file://{}", machines.machines[0].path("shared").display());
    // The first machine has all of it from before, the second one has written what it made itself.
    machines.build(0, &["-t", "app"]).ok();
    let own = machines.unique(0);
    machines.build(1, &["-t", "app", "--cache-to", &cache]).ok();
    let written = machines.unique(1);
    assert_ne!(own, written);
    // The first one knows the lower steps, and gets the upper ones from the store, on which they do not fit.
    let (top, whole) = (machines.text(), "RUN cat /unique > /more\n");
    machines.machines[1].dockerfile(&format!("{top}{whole}"), &["--cache-to", &cache]).ok();
    machines.machines[0]
        .dockerfile(&format!("{top}{whole}"), &[&["-t", "app"][..], &from_to(&cache)].concat())
        .ok();
    assert_eq!(machines.unique(0), own);
    let more = machines.machines[0].run(&["run", "--rm", "app", "cat", "/more"]).ok().stdout;
    assert!(own.starts_with(&more), "{more}");
    // A fresh machine gets one or the other.
    machines.machines[2]
        .dockerfile(&format!("{top}{whole}"), &[&["-t", "app"][..], &from_to(&cache)].concat())
        .ok();
    let fresh = machines.unique(2);
    let more = machines.machines[2].run(&["run", "--rm", "app", "cat", "/more"]).ok().stdout;
    assert!(fresh.starts_with(&more), "{fresh} {more}");
}

/// Clients that offer no directories are told so before anything runs.
#[test]
fn a_directory_of_another_client() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let solve = |more: &[(&str, &str)]| {
        let attrs = [&[("url", "file:///srv/cache")], more].concat();
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let exports = vec![CacheOptionsEntry { r#type: "keyed".to_owned(), attrs }];
        let mut llb = Llb::new();
        let base = llb.image("docker.io/library/base:latest");
        let head = llb.run(&base, "echo ran", |_| ());
        let definition = Some(llb.definition(&head));
        let cache = Some(CacheOptions { exports, ..CacheOptions::default() });
        api.solve(SolveRequest {
            r#ref: format!("b{}", more.len()),
            definition,
            cache,
            ..SolveRequest::default()
        })
    };
    let refused = solve(&[]).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("a cache for rbuild's own client only"), "{refused}");
    assert!(!scene.run(&["history", "logs", "b0"]).stdout.contains("ran"));
    // One that does not count may fail.
    solve(&[("ignore-error", "true")]).unwrap();
}

/// A store of a stand-in.
struct Store<'a> {
    cache: String,
    names: &'a dyn Fn() -> Vec<String>,
    requests: &'a dyn Fn() -> Vec<String>,
    replace: &'a dyn Fn(&str, &[u8]),
    age: &'a dyn Fn(Duration),
    /// Says of records that there are none, or tells the truth again.
    hide: &'a dyn Fn(bool),
}

impl Store<'_> {
    fn count(&self, text: &str) -> usize {
        (self.names)().iter().filter(|name| name.contains(text)).count()
    }

    /// Machines read what others wrote, damage heals, what is used stays young, and what is not used goes.
    fn serves(&self, machines: &Machines) {
        let both = from_to(&self.cache);
        let build = |machine: usize| {
            let built = machines.build(machine, &[&["-t", "app"][..], &both].concat()).ok();
            (built.ran().len(), machines.unique(machine), built.stderr)
        };
        let (ran, first, _) = build(0);
        assert_eq!(ran, Machines::STEPS);
        let (ran, second, told) = build(1);
        assert_eq!((ran, &second), (0, &first), "{told}");
        assert!(told.contains("nothing new to write"), "{told}");
        assert!(self.count("p/q/rbuild-1/records/default/") > Machines::STEPS, "{:#?}", (self.names)());

        // Who did not see a record does not write over it.
        machines.forget(1);
        (self.hide)(true);
        let (ran, third, told) = build(1);
        assert!(ran == Machines::STEPS && third != first, "{told}");
        (self.hide)(false);
        machines.forget(1);
        assert_eq!(build(1).1, first);

        // What is read is made young, in the store.
        machines.forget(1);
        (self.age)(Duration::from_hours(100));
        (self.requests)();
        assert_eq!(build(1).0, 0);
        let requests = (self.requests)();
        let touched = count(&requests, "PUT /c/p/q") + count(&requests, "/rewriteTo/");
        assert!(touched >= Machines::STEPS, "{requests:#?}");
        assert_eq!(count(&requests, "/upload/"), 0, "{requests:#?}");
        assert_eq!(self.count(".young"), 0, "{:#?}", (self.names)());
        let sweeping = format!("{},expire=48h", self.cache);
        machines.machines[0].write("other/Dockerfile", "FROM scratch\nCOPY f /\n");
        let other = machines.machines[0].context().join("other/Dockerfile");
        let sweep =
            || machines.machines[0].build(&["-f", other.to_str().unwrap(), "--cache-to", &sweeping]).ok();
        let before = self.count("/records/");
        let told = sweep().stderr;
        assert!(told.contains("removing what has expired"), "{told}");
        // Of two keys of a step one was read.
        assert!((Machines::STEPS..before).contains(&self.count("/records/")), "{:#?}", (self.names)());
        machines.forget(1);
        assert_eq!(build(1).0, 0);

        // Damage is a miss that heals.
        (self.replace)("/blobs/", b"something else");
        machines.forget(1);
        assert_ne!(build(1).1, first);
        machines.forget(1);
        (self.replace)("/records/", b"something else");
        assert_eq!(build(1).0, Machines::STEPS);
        machines.forget(1);
        assert_eq!(build(1).0, 0);
    }
}

#[test]
fn in_a_container_of_azure() {
    let Some(machines) = Machines::new(2) else { return };
    let azure = Azure::start();
    let store = Store {
        cache: azure.keyed("p/q"),
        names: &|| azure.names(),
        requests: &|| azure.requests(),
        replace: &|text, bytes| azure.replace(text, bytes),
        age: &|by| azure.age(by),
        hide: &|hide| if hide { azure.fail("GET /c/p/q/rbuild-1/records/", 404) } else { azure.heal() },
    };
    store.serves(&machines);
    // One record that cannot be read is one miss.
    let names = azure.names();
    let records = names.iter().filter(|name| name.contains("/records/"));
    for record in records.clone() {
        azure.fail(&format!("GET /c/{record}"), 403);
        machines.forget(1);
        let built = machines.build(1, &["-t", "app", "--cache-from", &store.cache]).ok();
        azure.heal();
        let told = built.stderr.contains("1 record cannot be read: doing without it");
        assert!(built.ran().len() < Machines::STEPS && (told || built.ran().is_empty()), "{}", built.stderr);
    }
    assert!(records.count() > 0);
    azure.fail("PUT /c/p/q/", 403);
    machines.machines[1].write("f", "2");
    let failed = machines.build(1, &["--cache-to", &store.cache]).fails();
    assert!(!failed.stderr.contains("nothing new to write"), "{}", failed.stderr);
    assert!(
        failed.stderr.contains("Azure container `c` denies access to `p/q/rbuild-1/"),
        "{}",
        failed.stderr
    );
    assert!(!failed.stderr.contains(azure.key()), "{}", failed.stderr);
}

#[test]
fn in_a_bucket_of_google() {
    let Some(machines) = Machines::new(2) else { return };
    let google = Google::start();
    let store = Store {
        cache: google.keyed("p/q"),
        names: &|| google.names(),
        requests: &|| google.requests(),
        replace: &|text, bytes| google.replace(text, bytes),
        age: &|by| google.age(by),
        hide: &|hide| match hide {
            true => google.fail("GET /storage/v1/b/cache/o/p/q/rbuild-1/records/", 404),
            false => google.heal(),
        },
    };
    store.serves(&machines);
    google.fail("POST /upload/", 403);
    machines.machines[1].write("f", "2");
    let failed = machines.build(1, &["--cache-to", &store.cache]).fails();
    assert!(
        failed.stderr.contains("Google bucket `cache` denies access to `p/q/rbuild-1/"),
        "{}",
        failed.stderr
    );
    assert!(!failed.stderr.contains(google.token()), "{}", failed.stderr);
    let wrong = store.cache.replace("token=very-", "token=not-very-");
    machines.forget(1);
    let built = machines.build(1, &["--cache-from", &wrong]).ok();
    assert!(built.stderr.contains("ERROR: Google bucket `cache` failed at `p/q/"), "{}", built.stderr);
}

fn at_github(version: u32) {
    let Some(mut machines) = Machines::new(2) else { return };
    let github = Actions::start();
    let daemon = &mut machines.machines[1].daemon;
    daemon.stop();
    daemon.set_environment("GITHUB_API_URL", github.url());
    daemon.again();
    let [main, feature, fork] = [Job::Main, Job::Feature, Job::Fork].map(|job| github.keyed(version, job));
    let build = |machine: usize, args: &[&str]| {
        let built = machines.build(machine, &[&["-t", "app"][..], args].concat()).ok();
        let told = (built.ran().len(), machines.unique(machine), built.stderr);
        machines.forget(machine);
        told
    };
    let (ran, first, told) = build(0, &from_to(&main));
    assert_eq!(ran, Machines::STEPS, "{told}");
    assert!(told.contains("exporting cache to gha:// (scope default)"), "{told}");
    let (ran, second, told) = build(1, &from_to(&main));
    assert_eq!((ran, &second), (0, &first), "{told}");
    assert!(told.contains("nothing new to write"), "{told}");
    // A branch reads what main has, and writes its own, which main does not read.
    machines.machines[1].write("f", "2");
    assert_eq!(build(1, &from_to(&feature)).0, 5);
    assert_eq!(build(1, &["--cache-from", &feature]).0, 0);
    assert_eq!(build(1, &["--cache-from", &fork]).0, 5);
    machines.machines[1].write("f", "1");
    assert_eq!(build(1, &["--cache-from", &fork]).0, 0);
    // Where entries can be listed, nothing is asked for that is not there.
    machines.machines[1].write("f", "4");
    let find = if version == 1 { "GET /_apis/artifactcache/cache" } else { "/GetCacheEntryDownloadURL" };
    let finds_and_reads = |cache: &str| {
        github.requests();
        assert_eq!(build(1, &["--cache-from", cache]).0, 5);
        let requests = github.requests();
        (count(&requests, "/repos/owner/name/"), count(&requests, find), count(&requests, "GET /signed/"))
    };
    let listed = format!("{main},repository=owner/name,ghtoken={}", Job::Fork.token());
    let (lists, finds, reads) = finds_and_reads(&listed);
    // One finds out what the newest account is called.
    assert!(lists == 1 && finds == reads + 1 && reads > 2, "{lists} {finds} {reads}");
    let (lists, more, same) = finds_and_reads(&main);
    assert!(lists == 0 && more > finds && same == reads, "{lists} {more} {same}");
    machines.machines[1].write("f", "1");
    let refused = machines.build(1, &["--cache-to", &fork]).fails();
    assert!(refused.stderr.contains("allows no writing"), "{}", refused.stderr);
    machines.forget(1);
    // What is damaged is a miss, and stays one: entries cannot be replaced.
    github.replace("rbuild-1/", b"something else");
    for _ in 0..2 {
        assert_eq!(build(1, &from_to(&main)).0, Machines::STEPS);
    }
    // Its own failures are shown, without what is secret.
    github.fail(if version == 1 { "POST /_apis" } else { "CreateCacheEntry" }, 403);
    machines.machines[1].write("f", "3");
    let failed = machines.build(1, &["--cache-to", &main]).fails();
    assert!(failed.stderr.contains("github actions cache answered 403 to rbuild-1/"), "{}", failed.stderr);
    assert!(!failed.stderr.contains(github.secret()), "{}", failed.stderr);
    // Outside of a job there is no such cache.
    machines.build(1, &from_to("type=keyed,url=gha://")).ok();
}

#[test]
fn at_github_in_its_first_protocol() {
    at_github(1);
}

#[test]
fn at_github_in_its_second_protocol() {
    at_github(2);
}
