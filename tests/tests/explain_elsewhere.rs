//! `rbuild explain` on machines that know nothing but a keyed cache.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::explained::{causes, check, follows, told};
use tests::{Actions, Fleet, Job, Scene, bucket_ready};

const COPY: &str = "COPY src /src";
const RUN: &str = "RUN cat /src/* > /out$SUFFIX";

/// So many machines, the same sources on all, and what they build.
fn machines(count: usize) -> Option<(Fleet, String)> {
    let fleet = Fleet::new(count)?;
    for machine in &fleet.machines {
        machine.write("src/a", "1").write("src/b", "1").write(".secret", "s");
    }
    let text = format!("FROM {}\nARG SUFFIX\n{COPY}\n{RUN}\nRUN true\n", fleet.base());
    Some((fleet, text))
}

fn content(path: &str) -> Value {
    json!({"kind": "file", "path": path, "change": "content", "old": "…", "new": "…"})
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let found = walkdir::WalkDir::new(dir).into_iter().map(|entry| entry.unwrap());
    found.filter(|entry| entry.file_type().is_file()).map(|entry| entry.into_path()).collect()
}

/// A change on each of three machines that have never built it, with a store for them: each is told exactly.
fn changes(fleet: &Fleet, text: &str, cache: &str) {
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|at| &fleet.machines[at]);
    let both = ["--cache-from", cache, "--cache-to", cache];
    let began = first.dockerfile(text, &both).ok();
    check(
        first,
        &[COPY, RUN, "RUN true"].map(|step| {
            let name = cache.split_once("url=").unwrap().1.split(',').next().unwrap();
            (step, json!({"kind": "absent", "cache": format!("{name} (scope default)")}))
        }),
    );
    let build = told(first)["build"].clone();

    // All from the cache: there is nothing to tell, and nothing to write.
    let same = second.dockerfile(text, &both).ok();
    assert_eq!(same.ran(), Vec::<String>::new(), "{} {}", began.stderr, same.stderr);
    check(second, &[]);

    third.write("src/b", "2").dockerfile(text, &[&both[..], &["--explain"]].concat()).ok();
    check(third, &[(COPY, content("src/b")), (RUN, follows(COPY)), ("RUN true", follows(RUN))]);
    let told_third = told(third);
    assert_eq!((&told_third["against"], &told_third["elsewhere"]), (&build, &json!(true)), "{told_third:#}");
    let words = third.run(&["explain"]).ok().stdout;
    assert!(
        words.contains(&format!("compared with {} of another machine:", build.as_str().unwrap())),
        "{words}"
    );

    // The latest counts: what changed since the third machine's, and by name what changed for the step.
    fourth.write("src/b", "2").write("src/c", "3");
    let whole =
        fourth.dockerfile(text, &[&both[..], &["--explain", "--build-arg", "SUFFIX=x"]].concat()).ok();
    let added = json!({"kind": "file", "path": "src/c", "change": "added", "new": "…"});
    let arg = json!({"kind": "arg", "name": "SUFFIX"});
    check(fourth, &[(COPY, added), ("RUN cat /src/* > /outx", arg.clone()), ("RUN true", arg)]);
    assert_eq!(told(fourth)["against"], told_third["build"]);
    assert!(whole.stderr.contains("src/c: added ("), "{}", whole.stderr);

    // A machine that has built it compares with the later build elsewhere: what the cache has by now is no news.
    second.write("src/b", "2").write("src/c", "3").write("src/d", "4");
    second.dockerfile(text, &[&both[..], &["--build-arg", "SUFFIX=x"]].concat()).ok();
    let added = json!({"kind": "file", "path": "src/d", "change": "added", "new": "…"});
    let run = "RUN cat /src/* > /outx";
    check(second, &[(COPY, added), (run, follows(COPY)), ("RUN true", follows(run))]);
    // And with its own, where that is the latest.
    second.write("src/d", "5").build(&["--build-arg", "SUFFIX=x"]).ok();
    check(second, &[(COPY, content("src/d")), (run, follows(COPY)), ("RUN true", follows(run))]);
    assert_eq!(told(second).get("elsewhere"), None);
}

#[test]
fn changes_through_a_directory() {
    let Some((fleet, text)) = machines(4) else { return };
    let dir = fleet.machines[0].path("shared");
    changes(&fleet, &text, &format!("type=keyed,url=file://{}", dir.display()));
    // What no step reads is not told to anybody.
    for blob in files(&dir.join("rbuild-1/blobs")) {
        let bytes = fs_err::read(&blob).unwrap();
        let plain = zstd::decode_all(bytes.as_slice()).unwrap_or(bytes);
        assert!(!plain.windows(7).any(|part| part == b".secret"), "{}", blob.display());
    }
}

#[test]
fn changes_through_a_registry() {
    let Some((fleet, text)) = machines(4) else { return };
    let cache = format!("type=keyed,url=registry://{}/team/cache", fleet.registry.host());
    changes(&fleet, &text, &cache);
}

#[test]
fn changes_through_a_bucket() {
    if !bucket_ready() {
        return;
    }
    let Some((fleet, text)) = machines(4) else { return };
    let bucket = fleet.machines[0].bucket();
    changes(&fleet, &text, &bucket.keyed("p"));
}

#[test]
fn changes_through_github() {
    let Some((mut fleet, text)) = machines(4) else { return };
    let github = Actions::start();
    for machine in &mut fleet.machines {
        machine.daemon.stop();
        machine.daemon.set_environment("GITHUB_API_URL", github.url());
        machine.daemon.again();
    }
    changes(&fleet, &text, &github.keyed(2, Job::Main));
}

#[test]
fn what_a_cache_has_but_cannot_be_used() {
    let Some((fleet, text)) = machines(5) else { return };
    let [first, second, third, fourth, fifth] = [0, 1, 2, 3, 4].map(|at| &fleet.machines[at]);
    let dir = first.path("shared");
    let name = format!("file://{}", dir.display());
    let cache = format!("type=keyed,url={name}");
    first.dockerfile(&text, &["--cache-to", &cache]).ok();
    let flip = |file: &PathBuf| {
        let mut bytes = fs_err::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs_err::write(file, bytes).unwrap();
    };
    let all = |cause: &Value| [COPY, RUN, "RUN true"].map(|step| (step, cause.clone()));
    let shown = format!("{name} (scope default)");

    // Nobody who is trusted has signed it.
    let public = fourth.path("key.pub");
    let private = fourth.path("key.pem");
    let openssl = |args: &[&str]| {
        assert!(std::process::Command::new("openssl").args(args).status().unwrap().success());
    };
    let (pem, pub_pem) = (private.to_str().unwrap(), public.to_str().unwrap());
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", pem]);
    openssl(&["pkey", "-in", pem, "-pubout", "-out", pub_pem]);
    fourth.dockerfile(&text, &["--cache-from", &format!("{cache},trust={pub_pem}")]).ok();
    let reason = "its record is not signed by anybody who is trusted";
    check(fourth, &all(&json!({"kind": "refused", "cache": shown, "reason": reason})));
    let words = fourth.run(&["explain"]).ok().stdout;
    assert!(words.contains(&format!("of no use in the cache {shown}: {reason}")), "{words}");

    // The records are damaged.
    files(&dir.join("rbuild-1/records")).iter().for_each(flip);
    second.dockerfile(&text, &["--cache-from", &cache]).ok();
    let damaged = json!({"kind": "refused", "cache": shown, "reason": "its record is damaged"});
    check(second, &all(&damaged));

    // The records are gone: it is known that nothing has changed, and that the cache has it not.
    fs_err::remove_dir_all(dir.join("rbuild-1/records")).unwrap();
    third.dockerfile(&text, &["--cache-from", &cache]).ok();
    let absent = json!({"kind": "absent", "cache": shown});
    check(third, &[(COPY, absent), (RUN, follows(COPY)), ("RUN true", follows(RUN))]);

    // Layers that cannot be had.
    first.run(&["prune", "--all", "--force"]).ok();
    let layers = first.path("layers");
    let cache = format!("type=keyed,url=file://{}", layers.display());
    first.dockerfile(&text, &["--cache-to", &cache]).ok();
    files(&layers.join("rbuild-1/blobs")).iter().for_each(flip);
    fifth.dockerfile(&text, &["-t", "x", "--cache-from", &cache]).ok();
    let found = told(fifth);
    let steps = causes(&found);
    let (step, why) = &steps[0];
    assert_eq!((step.as_str(), why.len(), &why[0]["kind"]), (COPY, 1, &json!("refused")), "{found:#}");
    assert!(why[0]["reason"].as_str().unwrap().contains("is damaged"), "{found:#}");
    let kinds: Vec<&Value> = steps[1..].iter().map(|(_, why)| &why[0]["kind"]).collect();
    assert_eq!(kinds, ["follows", "follows"], "{found:#}");
}

#[test]
fn scopes_and_other_projects() {
    let Some((fleet, text)) = machines(3) else { return };
    let [main, pr, other] = [0, 1, 2].map(|at| &fleet.machines[at]);
    let url = format!("type=keyed,url=file://{}", main.path("shared").display());
    main.dockerfile(&text, &["--cache-to", &format!("{url},scope=main")]).ok();
    // A pull request is compared with main until it has built itself.
    let (from, to) = (format!("{url},scope=pr;main"), format!("{url},scope=pr"));
    let both = ["--cache-from", &from, "--cache-to", &to];
    pr.write("src/a", "2").dockerfile(&text, &both).ok();
    check(pr, &[(COPY, content("src/a")), (RUN, follows(COPY)), ("RUN true", follows(RUN))]);
    let against = told(pr)["build"].clone();
    other.write("src/a", "2").write("src/b", "2").dockerfile(&text, &both).ok();
    check(other, &[(COPY, content("src/b")), (RUN, follows(COPY)), ("RUN true", follows(RUN))]);
    assert_eq!(told(other)["against"], against);

    // Other projects whose directories are called the same, also if they have a line in common.
    let cache = format!("file://{} (scopes pr, main)", main.path("shared").display());
    let absent = json!({"kind": "absent", "cache": cache});
    for line in ["COPY a /b", COPY] {
        let fresh = Scene::new();
        fresh.write("a", "1").write("src/a", "1");
        let text = format!("FROM base\n{line}\nRUN false || true\nRUN true && true\n");
        fresh.dockerfile(&text, &["--cache-from", &from]).ok();
        let all = [line, "RUN false || true", "RUN true && true"].map(|step| (step, absent.clone()));
        check(&fresh, &all);
    }
}

#[test]
fn what_is_no_account_for_others() {
    let Some((fleet, text)) = machines(4) else { return };
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|at| &fleet.machines[at]);
    let dir = first.path("shared");
    let cache = format!("type=keyed,url=file://{}", dir.display());
    let both = ["--cache-from", &cache, "--cache-to", &cache];
    let accounts = || files(&dir.join("rbuild-1/accounts"));
    // What comes on stdin has no name.
    let stdin = format!("FROM {}\nRUN true\n", fleet.base());
    first.run_with_stdin(&["build", "--cache-to", &cache, "-"], &stdin).ok();
    assert!(!dir.join("rbuild-1/accounts").exists());
    first.dockerfile(&text, &both).ok();
    let whole = fs_err::read(&accounts()[0]).unwrap();

    // A build that failed before it did anything has no more to tell than the one before.
    let broken = format!("FROM {}\nARG SUFFIX\n{COPY}\nCOPY none /\n{RUN}\nRUN true\n", fleet.base());
    second.dockerfile(&broken, &both).fails();
    third.write("src/b", "2").dockerfile(&text, &both).ok();
    check(third, &[(COPY, content("src/b")), (RUN, follows(COPY)), ("RUN true", follows(RUN))]);

    // One whose files are gone is written again, by whoever builds the same.
    fs_err::write(&accounts()[0], whole).unwrap();
    for blob in files(&dir.join("rbuild-1/blobs")) {
        let plain = zstd::decode_all(fs_err::read(&blob).unwrap().as_slice()).unwrap_or_default();
        if plain.windows(9).any(|part| part == b"\"build\":\"") {
            fs_err::remove_file(blob).unwrap();
        }
    }
    fourth.dockerfile(&text, &both).ok();
    let fresh = Scene::new();
    fresh.write("src/a", "2").write("src/b", "1").dockerfile(&text, &["--cache-from", &cache]).ok();
    check(&fresh, &[(COPY, content("src/a")), (RUN, follows(COPY)), ("RUN true", follows(RUN))]);
}

#[test]
fn while_a_step_runs() {
    let Some((fleet, _)) = machines(2) else { return };
    let [first, second] = [0, 1].map(|at| &fleet.machines[at]);
    let cache = format!("type=keyed,url=file://{}", first.path("shared").display());
    let text = format!("FROM {}\nARG TIME=0\nRUN sleep $TIME\n", fleet.base());
    first.dockerfile(&text, &["--cache-to", &cache]).ok();
    let args = ["--cache-from", &cache, "--explain", "--build-arg", "TIME=3"];
    let told = second.dockerfile(&text, &args).ok().stderr;
    assert!(told.contains("because ARG TIME changed"), "{told}");
}

#[test]
fn a_build_that_failed_elsewhere() {
    let Some((fleet, _)) = machines(3) else { return };
    let [first, second, third] = [0, 1, 2].map(|at| &fleet.machines[at]);
    let cache = format!("type=keyed,url=file://{}", first.path("shared").display());
    let both = ["--cache-from", &cache, "--cache-to", &cache];
    let grep = "RUN grep -q 1 /src/a";
    let text = format!("FROM {}\n{COPY}\n{grep}\nRUN true\n", fleet.base());
    first.dockerfile(&text, &both).ok();
    second.write("src/a", "2").dockerfile(&text, &both).fails();
    check(second, &[(COPY, content("src/a")), (grep, follows(COPY))]);
    // What failed is compared with, as far as it came.
    third.write("src/a", "2").dockerfile(&text, &both).fails();
    check(third, &[(grep, json!({"kind": "unfinished"}))]);
    third.write("src/a", "11").build(&both).ok();
    check(third, &[(COPY, content("src/a")), (grep, follows(COPY)), ("RUN true", follows(grep))]);
}
