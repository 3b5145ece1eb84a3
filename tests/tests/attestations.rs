//! Statements about images of the image store: how they get there, stay there, and leave with the image.

use std::path::Path;

use serde_json::Value;
use tests::archive::{blob, entries, target};
use tests::{Auth, Registry, Scene, ready};

const SLSA: &str = "https://slsa.dev/provenance/v1";

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
    for image in &entries[..2] {
        let about = |entry: &&Value| entry["annotations"]["vnd.docker.reference.digest"] == image["digest"];
        assert_eq!(entries.iter().filter(about).count(), 1);
        assert!(registry.manifest("app", image["digest"].as_str().unwrap()).is_some());
    }

    // Of what comes from elsewhere only this machine's image is here, and it goes on with what is said of it.
    scene.run(&["rmi", &name]).ok();
    scene.run(&["prune", "--all", "--force"]).ok();
    scene.run(&["pull", "-q", &name]).ok();
    scene.run(&["save", "-o", "../mine.tar", &name]).ok();
    let (mine, kinds) = in_archive(&scene.path("mine.tar"));
    assert_eq!(
        (&mine["manifests"][0]["digest"], &kinds[..]),
        (&entries[0]["digest"], &[SLSA.to_owned()][..])
    );
}
