//! Statements about images of the image store: how they get there, stay there, and leave with the image.

use std::path::Path;

use base64::Engine as _;
use serde_json::Value;
use tests::archive::{blob, entries, target};
use tests::{Auth, Registry, Scene, ready};

const SLSA: &str = "https://slsa.dev/provenance/v1";
const SPDX: &str = "https://spdx.dev/Document";

/// Checks that an index holds one image and the statements about it; gives both entries.
fn pair(index: &Value) -> [Value; 2] {
    let [image, attested] = &index["manifests"].as_array().expect("an index")[..] else {
        panic!("{index:#}")
    };
    assert_eq!(attested["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(attested["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    assert_eq!(attested["platform"]["os"], "unknown");
    assert_eq!(attested["platform"]["architecture"], "unknown");
    [image.clone(), attested.clone()]
}

/// The types of the statements in an archive about its image, which have to be about that.
fn in_archive(path: &Path) -> (Value, Vec<String>) {
    let all = entries(path);
    let index = target(&all);
    let [image, attested] = pair(&index);
    let layers = blob(&all, &attested)["layers"].as_array().unwrap().clone();
    let kind = |layer: &Value| {
        let statement = blob(&all, layer);
        for subject in statement["subject"].as_array().unwrap() {
            let digest = subject["digest"]["sha256"].as_str().unwrap();
            assert_eq!(image["digest"], format!("sha256:{digest}"), "{statement:#}");
        }
        statement["predicateType"].as_str().unwrap().to_owned()
    };
    (index, layers.iter().map(kind).collect())
}

/// The same of what a registry has under a tag.
fn at_registry(registry: &Registry, repository: &str, tag: &str) -> (Value, Vec<String>) {
    let index = registry.manifest(repository, tag).unwrap();
    let [image, attested] = pair(&index);
    let digest = |descriptor: &Value| descriptor["digest"].as_str().unwrap().to_owned();
    let config = registry.manifest(repository, &digest(&image)).unwrap()["config"].clone();
    assert!(registry.blob(repository, &digest(&config)).is_some());
    let layers =
        registry.manifest(repository, &digest(&attested)).unwrap()["layers"].as_array().unwrap().clone();
    let kind = |layer: &Value| {
        let statement = registry.blob(repository, &digest(layer)).unwrap();
        statement["predicateType"].as_str().unwrap().to_owned()
    };
    (index, layers.iter().map(kind).collect())
}

/// What is said of an image goes where the image goes: to registries and archives, out of them, and through a prune.
#[test]
fn statements_stay_with_their_image() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let registry = scene.registry(Auth::Open);
    let name = |tag: &str| format!("{}/app:{tag}", registry.host());
    let (one, two) = (name("one"), name("two"));
    scene.dockerfile("FROM base\nRUN echo ok > /f\n", &["-t", &one, "--provenance=mode=max"]).ok();
    scene.run(&["prune", "--all", "--force"]).ok();
    scene.run(&["push", "-q", &one]).ok();
    let (pushed, kinds) = at_registry(&registry, "app", "one");
    assert_eq!(kinds, [SLSA]);
    scene.run(&["save", "-o", "../one.tar", &one]).ok();
    assert_eq!(in_archive(&scene.path("one.tar")), (pushed.clone(), kinds.clone()));

    // What it is can be seen.
    let list = scene.run(&["inspect", "--attestations", &one]).ok().stdout;
    assert!(list.contains("provenance   https://slsa.dev/provenance/v1"), "{list}");
    let json = |args: &[&str]| -> Value { serde_json::from_str(&scene.run(args).ok().stdout).unwrap() };
    let image = &json(&["inspect", &one])[0];
    let said = &image["Attestations"][0];
    assert_eq!((&said["Kind"], &said["PredicateType"]), (&"provenance".into(), &SLSA.into()));
    assert!(list.contains(said["Digest"].as_str().unwrap()), "{list}");
    let statement = json(&["inspect", "--provenance", &one]);
    assert_eq!(statement["predicateType"], SLSA);
    assert_eq!(json(&["inspect", "--attestations", "--format", "json", &one])[0]["Statement"], statement);
    let fails = |args: &[&str], says: &str| {
        let told = scene.run(args).fails();
        assert!(told.stderr.contains(says), "{args:?}: {}", told.stderr);
    };
    fails(&["inspect", "--sbom", &one], "has no sbom");
    fails(&["inspect", "--provenance", "base"], "image `base` has no provenance");
    fails(&["inspect", "--sbom", "nope"], "no such image");
    fails(&["inspect", "--sbom", "--provenance", &one], "cannot be used with");
    assert_eq!(json(&["inspect", "base"])[0]["Attestations"], serde_json::json!([]));

    // From the archive.
    scene.run(&["rmi", &one, "base"]).ok();
    scene.run(&["prune", "--all", "--force"]).ok();
    scene.run(&["load", "-i", "../one.tar"]).ok();
    scene.run(&["prune", "--all", "--force"]).ok();
    assert_eq!(scene.run(&["run", "--rm", &one, "cat", "/f"]).ok().stdout, "ok\n");
    scene.run(&["tag", &one, &two]).ok();
    scene.run(&["push", "-q", &two]).ok();
    assert_eq!(at_registry(&registry, "app", "two"), (pushed.clone(), kinds.clone()));

    // From the registry.
    scene.run(&["rmi", &one, &two]).ok();
    scene.run(&["prune", "--all", "--force"]).ok();
    scene.run(&["pull", "-q", &two]).ok();
    scene.run(&["prune", "--all", "--force"]).ok();
    scene.run(&["save", "--format", "oci", "-o", "../two.tar", &two]).ok();
    assert_eq!(in_archive(&scene.path("two.tar")), (pushed, kinds));

    // An image about which nothing is said is no index.
    scene.dockerfile("FROM scratch\nCOPY Dockerfile /\n", &["-t", &one]).ok();
    scene.run(&["push", "-q", &one]).ok();
    assert_eq!(registry.manifest("app", "one").unwrap()["manifests"], Value::Null);
}

/// Who pushes tells how it came about, as with buildx; a name here tells nothing.
#[test]
fn pushes_tell_how_the_image_came_about() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let registry = scene.registry(Auth::Open);
    let name = format!("{}/app:1", registry.host());
    scene.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let statements = |args: &[&str], silent: &str| {
        let mut build = scene.command(&[&["build", "-t", &name, "."], args].concat());
        let built = build.env("BUILDX_NO_DEFAULT_ATTESTATIONS", silent).output().unwrap();
        assert!(built.status.success(), "{built:?}");
        if args.is_empty() {
            scene.run(&["push", "-q", &name]).ok();
        }
        registry.manifest("app", "1").unwrap()["manifests"].as_array().map_or(0, Vec::len)
    };
    assert_eq!(statements(&["--push"], ""), 2);
    assert_eq!(statements(&["--push", "--provenance=false"], ""), 0);
    assert_eq!(statements(&["--push"], "1"), 0);
    assert_eq!(statements(&[], ""), 0);
}

/// Statements name the manifest that is pushed, also where layers were packed in a way of their own; images of other
/// platforms go along.
#[test]
fn statements_of_several_platforms_and_packings() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let registry = scene.registry(Auth::Open);
    let name = format!("{}/app:1", registry.host());
    scene.write("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n");
    let output = format!("type=image,name={name},compression=zstd");
    let build = |args: &[&str]| {
        scene.build(&[&["-o", &output, "--provenance=mode=min"], args].concat()).ok();
        scene.run(&["prune", "--all", "--force"]).ok();
        scene.run(&["push", "-q", &name]).ok();
        registry.manifest("app", "1").unwrap()
    };
    let (index, _) = {
        build(&[]);
        at_registry(&registry, "app", "1")
    };
    let manifest = registry.manifest("app", index["manifests"][0]["digest"].as_str().unwrap()).unwrap();
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");

    let index = build(&["--platform", "linux/amd64,linux/arm64"]);
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 4, "{index:#}");
    let list = scene.run(&["inspect", "--attestations", &name]).ok().stdout;
    let platforms: Vec<&str> =
        list.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/arm64"], "this machine's first: {list}");
    for image in &entries[..2] {
        let about = |entry: &&Value| entry["annotations"]["vnd.docker.reference.digest"] == image["digest"];
        assert_eq!(entries.iter().filter(about).count(), 1);
        assert!(registry.manifest("app", image["digest"].as_str().unwrap()).is_some());
    }

    // Who does not say which is meant is shown this machine's; more than one statement comes one after the other.
    let subjects = |args: &[&str]| -> Vec<String> {
        let told = scene.run(&[&["inspect", "--provenance"], args, &[&name]].concat()).ok().stdout;
        let digest = |said: &Value| said["subject"][0]["digest"]["sha256"].as_str().unwrap().to_owned();
        documents(&told).iter().map(digest).collect()
    };
    let image = |at: usize| entries[at]["digest"].as_str().unwrap()[7..].to_owned();
    let (mine, other) = if host() == "linux/amd64" { (0, 1) } else { (1, 0) };
    assert_eq!(subjects(&[]), [image(mine)]);
    let foreign = entries[other]["platform"]["architecture"].as_str().unwrap();
    assert_eq!(subjects(&["--platform", foreign]), [image(other)]);
    assert_eq!(subjects(&["--platform", "all"]), [image(mine), image(other)]);
    assert_eq!(subjects(&["--platform", "amd64,arm64"]), [image(mine), image(other)]);
    let list = scene.run(&["inspect", "--attestations", "--platform", foreign, &name]).ok().stdout;
    assert_eq!(list.lines().count(), 2, "{list}");
    let none = scene.run(&["inspect", "--provenance", "--platform", "s390x", &name]).fails();
    let says =
        "no provenance for `linux/s390x`; there is one for linux/amd64, linux/arm64 (see `--platform`)";
    assert!(none.stderr.contains(says) || host() != "linux/amd64", "{}", none.stderr);

    // Of what comes from elsewhere only this machine's image is handed on, with what is said of it, even where somebody here
    // has the others.
    scene.run(&["tag", &name, "mine"]).ok();
    scene.run(&["rmi", &name]).ok();
    scene.run(&["pull", "-q", &name]).ok();
    scene.run(&["save", "-o", "../mine.tar", &name]).ok();
    let (mine, kinds) = in_archive(&scene.path("mine.tar"));
    assert_eq!(
        (&mine["manifests"][0]["digest"], &kinds[..]),
        (&entries[0]["digest"], &[SLSA.to_owned()][..])
    );
}

/// JSON documents one after the other.
fn documents(text: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>().unwrap()
}

/// The platform of this machine.
fn host() -> &'static str {
    if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" }
}

/// What somebody else signed is shown like any other statement.
#[test]
fn signed_statements() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let text = "FROM scratch\nCOPY Dockerfile /\n";
    scene.dockerfile(text, &["-t", "app", "--provenance=mode=min"]).ok();
    scene.run(&["save", "-o", "../app.tar", "app"]).ok();
    scene.run(&["rmi", "app"]).ok();
    let signed = sign(&scene.path("app.tar"));
    let json = |args: &[&str]| -> Value { serde_json::from_str(&scene.run(args).ok().stdout).unwrap() };
    scene.run(&["load", "-i", "../app.tar"]).ok();
    assert_eq!(json(&["inspect", "--provenance", "app"]), signed);
    let said = &json(&["inspect", "--attestations", "--format", "json", "app"])[0];
    assert_eq!(said["MediaType"], "application/vnd.in-toto.provenance+dsse");
    assert_eq!((&said["Platform"], &said["Statement"]), (&host().into(), &signed));
}

/// Puts the one statement in an archive into an envelope with signatures, and gives it.
fn sign(path: &Path) -> Value {
    let mut all = entries(path);
    let name = |digest: &Value| format!("blobs/sha256/{}", &digest.as_str().unwrap()[7..]);
    let mut put = |old: &mut Value, new: &Value| {
        let bytes = serde_json::to_vec(new).unwrap();
        all.remove(&name(&old["digest"]));
        old["digest"] =
            format!("sha256:{}", hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&bytes))).into();
        old["size"] = bytes.len().into();
        all.insert(name(&old["digest"]), bytes);
    };
    let first = entries(path);
    let mut outer: Value = serde_json::from_slice(&first["index.json"]).unwrap();
    let mut index = target(&first);
    let mut manifest = blob(&first, &index["manifests"][1]);
    let statement = blob(&first, &manifest["layers"][0]);
    let payload = base64::engine::general_purpose::STANDARD.encode(statement.to_string());
    let envelope = serde_json::json!({"payloadType": "application/vnd.in-toto+json", "payload": payload, "signatures": [{"sig": ""}]});
    manifest["layers"][0]["mediaType"] = "application/vnd.in-toto.provenance+dsse".into();
    put(&mut manifest["layers"][0], &envelope);
    put(&mut index["manifests"][1], &manifest);
    // An index need not say what its only image is for.
    index["manifests"][0].as_object_mut().unwrap().remove("platform");
    put(&mut outer["manifests"][0], &index);
    all.insert("index.json".to_owned(), serde_json::to_vec(&outer).unwrap());
    let mut tar = tar::Builder::new(fs_err::File::create(path).unwrap());
    for (name, bytes) in &all {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    tar.finish().unwrap();
    statement
}

/// The files of a small system, with packages of several kinds, below `root` in the context.
fn installed(scene: &Scene) {
    let dpkg = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9\n\n\
        Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n";
    scene.write("root/var/lib/dpkg/status", dpkg);
    scene.write("root/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
    scene.write("root/lib/apk/db/installed", "P:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\n");
    scene.write("root/app/Cargo.lock", "[[package]]\nname = \"rand\"\nversion = \"0.7.2\"\n");
    let npm = r#"{"packages":{"node_modules/a":{"version":"1.0.0","license":"ISC"}}}"#;
    scene.write("root/app/package-lock.json", npm);
    let rpm = include_bytes!("../../fuzz/seeds/sbom/rpm.sqlite");
    fs_err::create_dir_all(scene.context().join("root/var/lib/rpm")).unwrap();
    fs_err::write(scene.context().join("root/var/lib/rpm/rpmdb.sqlite"), rpm).unwrap();
}

/// The package URLs in a document.
fn purls(document: &Value) -> Vec<String> {
    let url = |package: &Value| Some(package["externalRefs"][0]["referenceLocator"].as_str()?.to_owned());
    document["packages"].as_array().unwrap().iter().filter_map(url).collect()
}

/// Without a generator the daemon itself says what is in an image, in its build context and in stages.
#[test]
fn what_is_installed() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let registry = scene.registry(Auth::Open);
    let name = format!("{}/app:1", registry.host());
    installed(&scene);
    scene.write("tool/go.mod", "module m\nrequire github.com/a/b v1.0.0\n");
    let text = "FROM base AS tools\nARG BUILDKIT_SBOM_SCAN_STAGE=true\nCOPY root/lib /lib\nCOPY tool /tool\nRUN echo ok > /ok\n\
        FROM scratch\nARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nCOPY Dockerfile /\nCOPY root /\nCOPY --from=tools /ok /ok\n";
    let build = || {
        scene.dockerfile(text, &["-t", &name, "--sbom=true", "--build-arg", "SOURCE_DATE_EPOCH=1700000000"])
    };
    let told = build().ok();
    assert!(told.stderr.contains("generating sbom"), "{}", told.stderr);
    scene.run(&["push", "-q", &name]).ok();
    let (index, kinds) = at_registry(&registry, "app", "1");
    assert_eq!(kinds, [SPDX; 3]);
    let digest = |descriptor: &Value| descriptor["digest"].as_str().unwrap().to_owned();
    let manifest = |at: usize| registry.manifest("app", &digest(&index["manifests"][at])).unwrap();
    let layers = manifest(1)["layers"].as_array().unwrap().clone();
    assert!(layers.iter().all(|layer| layer["annotations"]["in-toto.io/predicate-type"] == SPDX));
    let statements: Vec<Value> =
        layers.iter().map(|layer| registry.blob("app", &digest(layer)).unwrap()).collect();
    let [core, more @ ..] = &statements[..] else { panic!() };
    let image = digest(&index["manifests"][0]);
    assert_eq!(core["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(core["subject"][0]["digest"]["sha256"], image.trim_start_matches("sha256:"));
    let document = &core["predicate"];
    assert_eq!((&document["spdxVersion"], &document["name"]), (&"SPDX-2.3".into(), &"sbom".into()));
    assert_eq!(document["creationInfo"]["created"], "2023-11-14T22:13:20Z");
    let found = purls(document);
    for url in [
        "pkg:deb/debian/libc6@2.36-9?arch=amd64&distro=debian-12",
        "pkg:apk/debian/musl@1.2.4-r2?arch=x86_64&distro=debian-12",
        "pkg:rpm/debian/old@1-2?arch=noarch&distro=debian-12&upstream=old-1-2.src.rpm",
        "pkg:cargo/rand@0.7.2",
        "pkg:npm/a@1.0.0",
    ] {
        assert!(found.iter().any(|found| found == url), "{url}: {found:#?}");
    }
    assert!(!found.iter().any(|url| url.contains("gone") || url.contains("github")), "{found:#?}");
    // Each file that tells of something is in the layer that has it.
    let layer = digest(&manifest(0)["layers"][1]);
    let files = document["files"].as_array().unwrap();
    assert_eq!(files.len(), 5, "{files:#?}");
    assert!(files.iter().all(|file| file["comment"] == format!("layerID: {layer}")), "{files:#?}");
    let mut names: Vec<&str> = more.iter().map(|more| more["predicate"]["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["sbom-context", "sbom-tools"]);
    let of =
        |name: &str| purls(&more.iter().find(|more| more["predicate"]["name"] == name).unwrap()["predicate"]);
    assert!(of("sbom-context").contains(&"pkg:golang/github.com/a/b@v1.0.0".to_owned()));
    assert_eq!(of("sbom-tools"), ["pkg:apk/musl@1.2.4-r2?arch=x86_64", "pkg:golang/github.com/a/b@v1.0.0"]);

    // All of it is shown, the image's own first.
    assert_eq!(documents(&scene.run(&["inspect", "--sbom", &name]).ok().stdout), statements);
    let json = scene.run(&["inspect", "--sbom", "--format", "json", &name]).ok().stdout;
    let json: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(json.iter().map(|said| said["Statement"].clone()).collect::<Vec<_>>(), statements);
    assert!(json.iter().all(|said| said["Image"] == *image && said["Platform"] == host()), "{json:#?}");

    // The same again is the same, to the digest, and stays.
    build().ok();
    scene.run(&["prune", "--all", "--force"]).ok();
    scene.run(&["push", "-q", &name]).ok();
    assert_eq!(at_registry(&registry, "app", "1").0, index);

    // Files that are exported have it beside them.
    scene.build(&["-o", "type=local,dest=../l", "--attest=type=sbom"]).ok();
    for name in ["sbom.spdx.json", "sbom-context.spdx.json", "sbom-tools.spdx.json"] {
        let statement: Value =
            serde_json::from_slice(&fs_err::read(scene.path("l").join(name)).unwrap()).unwrap();
        assert_eq!(statement["predicateType"], SPDX);
    }
}

/// What is in an image is nobody's word: it is left out where it is not what it seems, and nothing else is looked at.
#[test]
fn hostile_databases() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.write("secret/Cargo.lock", "[[package]]\nname = \"secret\"\nversion = \"1.0.0\"\n");
    let outside = scene.context().join("secret/Cargo.lock");
    scene.write("good/Cargo.lock", "[[package]]\nname = \"good\"\nversion = \"1.0.0\"\n");
    let text = format!(
        "FROM base\nRUN mkdir -p /l /p /d /var/lib/rpm /var/lib/dpkg/status && ln -s {} /l/Cargo.lock && ln -s /l/Cargo.lock /p/Cargo.lock \\\n\
        && echo '{{' > /d/package-lock.json && head -c 40000000 /dev/zero > /d/yarn.lock && echo x > /var/lib/rpm/rpmdb.sqlite\n\
        COPY good/Cargo.lock /g/\n",
        outside.display()
    );
    let told = scene.dockerfile(&text, &["-o", "type=local,dest=../l", "--sbom=true"]).ok();
    for says in [
        "`/d/package-lock.json` tells: it is malformed",
        "`/d/yarn.lock` tells: ",
        "`/var/lib/rpm/rpmdb.sqlite` tells: it is no SQLite database",
    ] {
        assert!(told.stderr.contains(says), "{says}: {}", told.stderr);
    }
    let statement: Value =
        serde_json::from_slice(&fs_err::read(scene.path("l/sbom.spdx.json")).unwrap()).unwrap();
    assert_eq!(purls(&statement["predicate"]), ["pkg:cargo/good@1.0.0"]);
    for bad in ["generator=", "generator=A B"] {
        scene.build(&["-o", "type=local,dest=../x", &format!("--sbom={bad}")]).fails();
    }
}
