//! Caches that machines share in object stores and at GitHub's service, in BuildKit's format.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tests::archive::Image;
use tests::{Actions, Auth, Azure, Bucket, Downloads, Job, Registry, Scene, bucket_ready, ready};

/// Two machines, and a base image that both can pull.
struct Machines {
    one: Scene,
    two: Scene,
    registry: Registry,
}

impl Machines {
    /// `None` where this machine cannot run them.
    fn new() -> Option<Self> {
        if !ready() {
            return None;
        }
        let (one, two) = (Scene::new(), Scene::new());
        let registry = one.registry(Auth::Open);
        let base = format!("{}/base:1", registry.host());
        one.run(&["tag", "base", &base]).ok();
        one.run(&["push", "-q", &base]).ok();
        for scene in [&one, &two] {
            scene.write("f", "1");
        }
        Some(Self { one, two, registry })
    }

    /// With a bucket.
    fn with_bucket() -> Option<(Self, Bucket)> {
        let machines = Self::new().filter(|_| bucket_ready())?;
        let bucket = machines.one.bucket();
        Some((machines, bucket))
    }

    /// A step with a result of its own each time, one that stands on a file, and one that no image needs.
    fn text(&self) -> String {
        format!(
            "FROM {0}/base:1 AS side\nRUN echo side > /side\nFROM {0}/base:1\nRUN cat /proc/sys/kernel/random/uuid > /unique\nCOPY f /f\nRUN cat /f > /g\nRUN --mount=type=bind,from=side,target=/s test -f /s/side\n",
            self.registry.host()
        )
    }

    /// Builds on the first machine, and writes a cache.
    fn export(&self, to: &str, step: &str) {
        let to = format!("{to},mode=max");
        let built = self.one.dockerfile(&self.text(), &["-t", "app", "--cache-to", &to]).ok();
        assert!(built.stderr.contains(step), "{}", built.stderr);
        assert!(built.stderr.contains("preparing build cache for export"), "{}", built.stderr);
        assert!(built.stderr.contains("writing layer sha256:"), "{}", built.stderr);
    }

    /// Forgets all that the second machine knows.
    fn forget(&self) {
        self.two.run(&["rmi", "app"]);
        self.two.run(&["prune", "--all", "--force"]).ok();
    }
}

/// What the step of an export to a bucket is called.
const S3: &str = "exporting cache to Amazon S3";

fn unique(scene: &Scene) -> String {
    scene.run(&["run", "--rm", "app", "cat", "/unique"]).ok().stdout
}

fn blobs_read(requests: &[String]) -> usize {
    requests.iter().filter(|request| request.starts_with("GET /cache/blobs/")).count()
}

#[test]
fn a_cache_in_a_bucket() {
    let Some((machines, bucket)) = Machines::with_bucket() else { return };
    let Machines { one, two, .. } = &machines;
    machines.export(&bucket.cache("main;other"), S3);
    let config: Value =
        serde_json::from_slice(&fs_err::read(bucket.object("manifests/main")).unwrap()).unwrap();
    let layer = &config["layers"][0];
    assert!(
        layer["annotations"]["diffID"].is_string() && layer["annotations"]["size"].is_u64(),
        "{config:#}"
    );
    assert_eq!(layer["annotations"]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
    let other = fs_err::read(bucket.object("manifests/other")).unwrap();
    assert_eq!(other, fs_err::read(bucket.object("manifests/main")).unwrap());
    let written = bucket.blobs().len();
    assert!(bucket.requests().iter().any(|request| request.starts_with("PUT /cache/blobs/sha256:")));

    // Nothing comes in for what nobody looks at, and nothing that is there is written again.
    let cache = bucket.cache("main");
    let (from, to) = (["--cache-from", &cache], format!("{},mode=max", bucket.cache("third")));
    let again = two.dockerfile(&machines.text(), &[&from[..], &["--cache-to", &to]].concat()).ok();
    assert_eq!(again.ran(), Vec::<String>::new(), "{}", again.stderr);
    assert!(
        again.stderr.contains("importing cache manifest from s3:cache/manifests/main"),
        "{}",
        again.stderr
    );
    let requests = bucket.requests();
    assert_eq!(blobs_read(&requests), 0, "{requests:#?}");
    assert!(!requests.iter().any(|request| request.starts_with("PUT /cache/blobs/")), "{requests:#?}");
    let third: Value =
        serde_json::from_slice(&fs_err::read(bucket.object("manifests/third")).unwrap()).unwrap();
    let blobs = |config: &Value| {
        let layers = config["layers"].as_array().unwrap();
        layers.iter().map(|layer| layer["blob"].to_string()).collect::<Vec<_>>()
    };
    assert_eq!(blobs(&third), blobs(&config));

    // Only the result's own layers come in: one of the base, three of steps, and the last step left none or an empty one.
    let named = two.dockerfile(&machines.text(), &[&from[..], &["-t", "app"]].concat()).ok();
    assert_eq!(named.ran(), Vec::<String>::new(), "{}", named.stderr);
    let read = blobs_read(&bucket.requests());
    assert!((3..written).contains(&read), "{read} of {written}");
    assert_eq!(unique(two), unique(one));
    assert_eq!(blobs_read(&bucket.requests()), 0);

    // A changed file: what stands before it is taken, and steps run on it.
    let changed =
        two.write("f", "2").dockerfile(&machines.text(), &[&from[..], &["-t", "app"]].concat()).ok();
    assert_eq!(changed.ran().len(), 3, "{}", changed.stderr);
    assert_eq!(unique(two), unique(one));
    assert_eq!(two.run(&["run", "--rm", "app", "cat", "/g"]).ok().stdout, "2");
}

#[test]
fn a_bucket_that_cannot_be_read_is_no_cache() {
    let Some((machines, bucket)) = Machines::with_bucket() else { return };
    let two = &machines.two;
    machines.export(&bucket.cache("main"), S3);
    let steps = 5;
    let misses = |from: &str, why: &str| {
        let built = two.dockerfile(&machines.text(), &["-t", "app", "--cache-from", from]).ok();
        assert_eq!(built.ran().len(), steps, "{from}: {}", built.stderr);
        assert!(built.stderr.contains(why), "{from}: {}", built.stderr);
        assert!(!built.stderr.contains(bucket.key().1), "{}", built.stderr);
        machines.forget();
    };
    let cache = bucket.cache("main");
    misses(&bucket.cache("never-written"), "importing cache manifest from s3:cache/manifests/never-written");
    misses(&cache.replace("=very-", "=not-very-"), "S3 bucket `cache` denies access to `manifests/main`");
    bucket.fail(" /none/", 404, "NoSuchBucket");
    misses(
        &cache.replace("bucket=cache", "bucket=none"),
        "S3 bucket `none` failed at `manifests/main`: told so (NoSuchBucket)",
    );
    misses(&cache.replace(",region=us-east-1", ""), "region ($AWS_REGION) not set for s3 cache");
    misses(&format!("{cache},prefix=/x/"), "cannot be an object's name");
    bucket.fail("GET /cache/manifests/", 500, "InternalError");
    bucket.requests();
    misses(&format!("{cache},retry_max_attempts=2"), "S3 bucket `cache` failed at `manifests/main`");
    assert_eq!(bucket.requests().len(), 2);
    bucket.heal();

    // The config is no JSON, describes nothing, or leads nowhere.
    let manifest = bucket.object("manifests/main");
    let whole = fs_err::read_to_string(&manifest).unwrap();
    for (damaged, why) in [
        (whole[..whole.len() / 2].to_owned(), "malformed cache config"),
        (whole.replacen("\"annotations\"", "\"others\"", 1), "with missing annotations"),
        (whole.replacen("\"link\":0", "\"link\":700", 1), "has no record 700"),
    ] {
        fs_err::write(&manifest, damaged).unwrap();
        misses(&cache, why);
    }
    fs_err::write(&manifest, &whole).unwrap();

    // Blobs are not what they were, are gone, or cannot be had.
    for blob in bucket.blobs() {
        fs_err::write(blob, "something else").unwrap();
    }
    let runs = |f: &str| {
        two.write("f", f).dockerfile(&machines.text(), &["-t", "app", "--cache-from", &cache]).ok();
        assert_ne!(unique(two), unique(&machines.one));
        assert_eq!(two.run(&["run", "--rm", "app", "cat", "/g"]).ok().stdout, f);
        machines.forget();
    };
    runs("2");
    runs("1");
    bucket.fail("GET /cache/blobs/", 503, "SlowDown");
    runs("3");
}

/// A cache may say of a blob that it is a layer that it is not: then nobody is given it for that.
#[test]
fn a_blob_that_is_another_layer() {
    let Some((machines, bucket)) = Machines::with_bucket() else { return };
    let two = &machines.two;
    machines.export(&bucket.cache("main"), S3);
    let manifest = bucket.object("manifests/main");
    let mut config: Value = serde_json::from_slice(&fs_err::read(&manifest).unwrap()).unwrap();
    let layers = config["layers"].as_array_mut().unwrap();
    let ids: Vec<Value> = layers.iter().map(|layer| layer["annotations"]["diffID"].clone()).collect();
    for (i, layer) in layers.iter_mut().enumerate() {
        layer["annotations"]["diffID"] = ids[(i + 1) % ids.len()].clone();
    }
    fs_err::write(&manifest, config.to_string()).unwrap();
    let args = ["-o", "type=oci,dest=../o.tar", "--cache-from", &bucket.cache("main")];
    two.dockerfile(&machines.text(), &args).ok();
    let image = Image::open(&two.path("o.tar"));
    assert_eq!(image.file("g"), Some(&b"1"[..]));
    assert_eq!(image.file("f"), Some(&b"1"[..]));
}

#[test]
fn a_bucket_that_cannot_be_written_fails_the_build() {
    let Some((machines, bucket)) = Machines::with_bucket() else { return };
    let one = &machines.one;
    let text = machines.text();
    let cache = bucket.cache("main");
    bucket.fail(" /none/", 404, "NoSuchBucket");
    for (to, why) in [
        (cache.replace("=very-", "=not-very-"), "S3 bucket `cache` denies access to `blobs/sha256:"),
        (cache.replace("bucket=cache", "bucket=none"), "told so (NoSuchBucket)"),
        (cache.replace(",bucket=cache", ""), "bucket ($AWS_BUCKET) not set for s3 cache"),
        (format!("{cache},upload_parallelism=no"), "upload_parallelism must be a positive integer"),
    ] {
        let built = one.dockerfile(&text, &["-t", "app", "--cache-to", &to]).fails();
        assert!(built.stderr.contains(why), "{to}: {}", built.stderr);
        assert!(!built.stderr.contains(bucket.key().1), "{}", built.stderr);
    }
    bucket.fail("PUT /cache/blobs/", 500, "InternalError");
    let to = format!("{cache},retry_max_attempts=1");
    let failed = one.dockerfile(&text, &["-t", "app", "--cache-to", &to]).fails();
    let why = "ERROR: S3 bucket `cache` failed at `blobs/sha256:";
    assert!(failed.stderr.contains(why), "{}", failed.stderr);
    // The failure shows, although it is of no consequence and other layers were on their way.
    let built = one.dockerfile(&text, &["-t", "app", "--cache-to", &format!("{to},ignore-error=true")]).ok();
    assert!(built.stderr.contains(why), "{}", built.stderr);
    assert!(!bucket.object("manifests/main").exists());
    bucket.heal();
    one.dockerfile(&text, &["-t", "app", "--cache-to", &cache]).ok();
    assert!(bucket.object("manifests/main").exists());
}

#[test]
fn a_key_from_the_environment_and_old_blobs() {
    let Some((machines, bucket)) = Machines::with_bucket() else { return };
    let one = &machines.one;
    machines.export(&bucket.cache("main"), S3);
    let old = SystemTime::now() - Duration::from_hours(48);
    for blob in bucket.blobs() {
        fs_err::File::options().write(true).open(blob).unwrap().set_modified(old).unwrap();
    }
    let age = || {
        let young = |blob: &std::path::PathBuf| {
            fs_err::metadata(blob).unwrap().modified().unwrap() > old + Duration::from_hours(1)
        };
        bucket.blobs().iter().filter(|blob| young(blob)).count()
    };
    let (id, secret) = bucket.key();
    let build = |to: &str| {
        let text = machines.text();
        let built = one.write("Dockerfile", &text).command(&["build", ".", "-t", "app", "--cache-to", to]);
        let mut built = built;
        tests::output(built.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret)).ok()
    };
    build(&format!("{},touch_refresh=72h", bucket.keyless("main")));
    assert_eq!(age(), 0);
    build(&bucket.keyless("main"));
    assert!(age() > 0, "{:#?}", bucket.requests());
}

#[test]
fn keys_are_in_no_history() {
    let Some((machines, bucket)) = Machines::with_bucket() else { return };
    let one = &machines.one;
    machines.export(&bucket.cache("main"), S3);
    let cache = bucket.cache("main");
    one.dockerfile(&machines.text(), &["-t", "app", "--cache-from", &cache, "--cache-to", &cache]).ok();
    one.run(&["history", "inspect"]);
    is_nowhere(one, bucket.key().1);
}

/// A secret is in no file of a daemon.
fn is_nowhere(scene: &Scene, secret: &str) {
    let mut grep = std::process::Command::new("grep");
    let found = grep.args(["-rl", secret]).arg(scene.daemon.root()).arg(scene.daemon.log()).output();
    assert_eq!(String::from_utf8_lossy(&found.unwrap().stdout), "");
}

#[test]
fn a_cache_in_a_container() {
    let Some(machines) = Machines::new() else { return };
    let Machines { one, two, .. } = &machines;
    let azure = Azure::start();
    machines.export(&azure.cache("old"), "exporting cache to Azure Blob Storage");
    assert!(azure.blob("c/manifests/old").is_some(), "{:#?}", azure.requests());
    one.write("f", "2");
    machines.export(&azure.cache("new"), "exporting cache to Azure Blob Storage");
    let requests = azure.requests();
    let made = requests.iter().filter(|request| *request == "PUT /c").count();
    assert_eq!(made, 1, "{requests:#?}");

    // All names are looked into, not only the first.
    let cache = azure.cache("never-written;new;old");
    for f in ["2", "1"] {
        let built =
            two.write("f", f).dockerfile(&machines.text(), &["-t", "app", "--cache-from", &cache]).ok();
        assert_eq!(built.ran(), Vec::<String>::new(), "{}", built.stderr);
        assert_eq!(two.run(&["run", "--rm", "app", "cat", "/g"]).ok().stdout, f);
        assert_eq!(unique(two), unique(one));
        assert!(!built.stderr.contains(azure.key()), "{}", built.stderr);
        machines.forget();
    }

    // What cannot be read is none; what cannot be written is a failure.
    let misses = |why: &str| {
        let built = two.dockerfile(&machines.text(), &["-t", "app", "--cache-from", &cache]).ok();
        assert!(built.stderr.contains(why), "{}", built.stderr);
        assert_ne!(unique(two), unique(one));
        machines.forget();
    };
    azure.replace("/blobs/", b"something else");
    misses("importing cache manifest from azblob:c/manifests/never-written");
    azure.replace("/manifests/", b"{");
    misses("malformed cache config");
    azure.fail("GET /c/manifests/", 403);
    misses("Azure container `c` denies access to `manifests/");
    azure.fail("PUT /c/blobs/", 403);
    one.write("f", "3");
    let to = format!("{},mode=max", azure.cache("new"));
    let failed = one.dockerfile(&machines.text(), &["-t", "app", "--cache-to", &to]).fails();
    assert!(
        failed.stderr.contains("Azure container `c` denies access to `blobs/sha256:"),
        "{}",
        failed.stderr
    );
    one.dockerfile(&machines.text(), &["-t", "app", "--cache-to", &format!("{to},ignore-error=true")]).ok();
}

/// What the step of an export to GitHub's service is called.
const GHA: &str = "exporting to GitHub Actions Cache";

/// What the keys of configs begin with; their last part is from SHA-256 of the branch's name.
const MAIN: &str = "index-tests-1-f921bd05";
const FEATURE: &str = "index-tests-1-f04dcc3f";

fn configs(github: &Actions) -> Vec<String> {
    github.keys().into_iter().filter(|key| key.starts_with("index-")).collect()
}

/// How many entries were begun since the last time.
fn begun(github: &Actions) -> usize {
    let requests = github.requests();
    let begin = |request: &&String| {
        request.ends_with(" /_apis/artifactcache/caches") || request.ends_with("/CreateCacheEntry")
    };
    requests.iter().filter(begin).count()
}

fn caches_at_github(version: u32) {
    let Some(machines) = Machines::new() else { return };
    let Machines { one, two, .. } = &machines;
    let github = Actions::start();
    let [main, feature, fork, late] =
        [Job::Main, Job::Feature, Job::Fork, Job::Late].map(|job| github.cache(version, "tests", job));
    github.throttle(2, 0);
    machines.export(&main, GHA);
    assert_eq!(configs(&github), [format!("{MAIN}#1")]);
    let blob = "buildkit-blob-1-sha256:";
    assert!(github.keys().iter().filter(|key| key.starts_with(blob)).count() > 3, "{:#?}", github.keys());

    // Blobs that are there are not written again; a new config takes the old one's place.
    begun(&github);
    let again = ["-t", "app", "--cache-to", &format!("{main},mode=max")];
    one.dockerfile(&machines.text(), &again).ok();
    assert_eq!(begun(&github), 1);
    assert_eq!(configs(&github), [format!("{MAIN}#1"), format!("{MAIN}#2")]);

    // A branch reads the main branch's, and writes its own.
    let hits = |f: &str, from: &str| {
        let args = ["-t", "app", "--cache-from", from];
        let built = two.write("f", f).dockerfile(&machines.text(), &args).ok();
        assert_eq!(built.ran(), Vec::<String>::new(), "{}", built.stderr);
        assert!(built.stderr.contains("importing cache manifest from gha:tests"), "{}", built.stderr);
        assert_eq!(unique(two), unique(one));
        assert_eq!(two.run(&["run", "--rm", "app", "cat", "/g"]).ok().stdout, f);
        machines.forget();
    };
    hits("1", &feature);
    one.write("f", "2");
    machines.export(&feature, GHA);
    assert_eq!(configs(&github)[2..], [format!("{FEATURE}#1")]);
    hits("2", &feature);
    hits("1", &feature);
    hits("1", &fork);

    // Downloads that break off go on where they broke.
    github.spoil(Downloads::Break);
    hits("1", &fork);
    github.heal();

    // An entry of many megabytes goes in parts.
    let text = machines.text() + "RUN dd if=/dev/urandom of=/big bs=1M count=17\n";
    let sum = |scene: &Scene| scene.run(&["run", "--rm", "app", "md5sum", "/big"]).ok().stdout;
    one.dockerfile(&text, &["-t", "app", "--cache-to", &main]).ok();
    let built = two.write("f", "2").dockerfile(&text, &["-t", "app", "--cache-from", &main]).ok();
    assert!(built.ran().is_empty(), "{}", built.stderr);
    assert_eq!(sum(two), sum(one));
    machines.forget();

    // What cannot be read is none.
    let misses = |f: &str, from: &str, why: &str| {
        let args = ["-t", "app", "--cache-from", from];
        let built = two.write("f", f).dockerfile(&machines.text(), &args).ok();
        assert!(built.stderr.contains(why), "{}", built.stderr);
        assert!(!built.stderr.contains(github.secret()), "{}", built.stderr);
        assert_ne!(unique(two), unique(one));
        machines.forget();
    };
    misses("1", &late, "the token for github actions cache cannot be used: it has expired");
    github.throttle(100, 3600);
    misses("1", &format!("{main},timeout=1s"), "github actions cache limits the rate of requests");
    github.heal();
    github.spoil(Downloads::BreakAndShift);
    misses("1", &fork, "it begins elsewhere");
    github.heal();
    let find = if version == 1 { "GET /_apis/artifactcache/cache" } else { "GetCacheEntryDownloadURL" };
    github.fail(find, 500);
    misses("1", &fork, &format!("github actions cache answered 500 to {MAIN}#: told so"));
    github.fail("GET /signed/", 404);
    misses("1", &fork, "github actions cache answered 404 to");
    github.heal();
    github.replace(blob, b"something else");
    misses("1", &fork, "importing cache manifest from gha:tests");
    github.replace("index-", b"{");
    misses("1", &fork, "malformed cache config");

    // What cannot be written is a failure, unless the client would do without.
    let refused = |to: &str, why: &str| {
        let text = machines.text();
        let failed = one.write("f", "3").dockerfile(&text, &["-t", "app", "--cache-to", to]).fails();
        assert!(failed.stderr.contains(why), "{}", failed.stderr);
        assert!(!failed.stderr.contains(github.secret()), "{}", failed.stderr);
        let to = format!("{to},ignore-error=true");
        let built = one.dockerfile(&text, &["-t", "app", "--cache-to", &to]).ok();
        assert!(built.stderr.contains(why), "{}", built.stderr);
    };
    let written = github.keys();
    refused(&late, "it has expired");
    refused(&fork, "the token for github actions cache allows no writing");
    github.fail(if version == 1 { "POST /_apis" } else { "CreateCacheEntry" }, 403);
    refused(&main, "github actions cache answered 403 to buildkit-blob-1-sha256:");
    assert_eq!(github.keys(), written);

    // A blob that was begun and never ended cannot be written again, and is one that is not there.
    github.fail(if version == 1 { "PATCH " } else { "PUT /signed/" }, 403);
    let export = ["-t", "app", "--cache-to", &main];
    let failed = one.dockerfile(&machines.text(), &export).fails();
    assert!(failed.stderr.contains("answered 403 to buildkit-blob-1-sha256:"), "{}", failed.stderr);
    github.heal();
    one.dockerfile(&machines.text(), &export).ok();
    two.write("f", "3").dockerfile(&machines.text(), &["-t", "app", "--cache-from", &main]).ok();
    assert_eq!(two.run(&["run", "--rm", "app", "cat", "/g"]).ok().stdout, "3");
    is_nowhere(one, github.secret());
    is_nowhere(two, github.secret());
}

#[test]
fn caches_at_github_in_its_first_protocol() {
    caches_at_github(1);
}

#[test]
fn caches_at_github_in_its_second_protocol() {
    caches_at_github(2);
}

#[test]
fn what_githubs_jobs_are_told() {
    let Some(machines) = Machines::new() else { return };
    let one = &machines.one;
    one.write("Dockerfile", &machines.text());
    // Outside of them there is no such cache.
    one.run(&["build", ".", "-t", "app", "--cache-to", "type=gha", "--cache-from", "type=gha"]).ok();
    for (variables, call) in [
        (&["ACTIONS_CACHE_URL"][..], "/_apis/artifactcache/caches"),
        (&["ACTIONS_RESULTS_URL", "ACTIONS_CACHE_SERVICE_V2"], "/CreateCacheEntry"),
    ] {
        let github = Actions::start();
        let mut build = one.command(&["build", ".", "-t", "app", "--cache-to", "type=gha,scope=tests"]);
        build.env("ACTIONS_RUNTIME_TOKEN", Job::Main.token());
        for variable in variables {
            build.env(variable, if variable.ends_with("URL") { github.url() } else { "True" });
        }
        tests::output(&mut build).ok();
        assert_eq!(configs(&github), [format!("{MAIN}#1")]);
        assert!(github.requests().iter().any(|request| request.ends_with(call)), "{call}");
    }
}

#[test]
fn entries_that_are_listed_and_such_that_never_end() {
    let Some(mut machines) = Machines::new() else { return };
    let github = Actions::start();
    let daemon = &mut machines.one.daemon;
    daemon.stop();
    daemon.set_environment("GITHUB_API_URL", github.url());
    daemon.again();
    let main = github.cache(2, "tests", Job::Main);
    let listed = format!("{main},repository=owner/name,ghtoken={}", Job::Fork.token());
    let asked = |to: &str| {
        github.requests();
        machines.export(to, GHA);
        let requests = github.requests();
        let count = |text: &str| requests.iter().filter(|request| request.ends_with(text)).count();
        (count("/repos/owner/name/actions/caches"), count("/GetCacheEntryDownloadURL"))
    };
    // Only the config is asked for.
    assert_eq!(asked(&listed), (1, 1));
    // A list that cannot be had is done without.
    github.fail("/repos/", 403);
    machines.one.write("f", "2");
    let (lists, finds) = asked(&listed);
    assert!(lists == 1 && finds > 3, "{lists} {finds}");
    // Another job died over the next config: for a while it might still write it.
    machines.one.write("f", "3");
    github.abandon(&format!("{MAIN}#3"));
    github.abandon(&format!("{MAIN}#4"));
    machines.export(&main, GHA);
    assert_eq!(configs(&github), [1, 2, 5].map(|number| format!("{MAIN}#{number}")));
}
