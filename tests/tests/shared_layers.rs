//! Layers that images, caches and registries have in common are compressed once, stored once, and travel as little as can be.

use std::path::PathBuf;

use serde_json::Value;
use tests::{Auth, Fleet, Output, Registry, bucket_ready};

/// Two steps that are not the same twice, of which the second stands on a file, and one that no image needs.
fn build(fleet: &Fleet, machine: usize, args: &[&str]) -> Output {
    let text = format!(
        "FROM {0} AS side\nRUN cat /proc/sys/kernel/random/uuid > /side\n\
         FROM {0}\nRUN cat /proc/sys/kernel/random/uuid > /unique\nCOPY f /f\n\
         RUN --mount=type=bind,from=side,target=/s cat /s/side /f > /derived\n",
        fleet.base()
    );
    let args = [&["--provenance=false"], args].concat();
    fleet.machines[machine].write("f", "1").dockerfile(&text, &args)
}

fn pushed(name: &str) -> String {
    format!("type=image,name={name},push=true")
}

fn layers(registry: &Registry, repository: &str, tag: &str) -> Vec<String> {
    let manifest = registry.manifest(repository, tag).expect("a manifest");
    let digest = |layer: &Value| layer["digest"].as_str().expect("a digest").to_owned();
    manifest["layers"].as_array().expect("layers").iter().map(digest).collect()
}

/// What a machine has of layers, as `du` shows it: no documents, and nothing that it only knows of.
fn here(fleet: &Fleet, machine: usize) -> Vec<String> {
    let told = fleet.machines[machine].run(&["du", "--verbose"]).ok().stdout;
    told.lines().filter(|row| row.ends_with("layer")).map(str::to_owned).collect()
}

fn image(fleet: &Fleet, machine: usize, name: &str) -> String {
    fleet.machines[machine].run(&["run", "--rm", name, "cat", "/unique", "/derived"]).ok().stdout
}

#[test]
fn a_cache_stores_what_the_image_stores() {
    if !bucket_ready() {
        return;
    }
    let Some(fleet) = Fleet::new(5) else { return };
    let host = fleet.registry.host();
    let name = |name: &str| format!("{host}/{name}");
    let cache = format!("type=keyed,url=registry://{host}/team/cache");
    let bucket = fleet.machines[0].bucket();
    let (app, in_bucket) = (pushed(&name("app:1")), bucket.keyed("p"));
    let built = build(&fleet, 0, &["--cache-to", &cache, "--cache-to", &in_bucket, "-o", &app]).ok();
    assert_eq!(built.ran().len(), 4, "{}", built.stderr);
    let first = layers(&fleet.registry, "app", "1");
    let written = bucket.requests();
    for layer in &first[1..] {
        assert!(fleet.registry.has_blob("team/cache", layer), "{layer} is stored in two forms");
        let (_, hex) = layer.split_once(':').unwrap();
        assert!(written.iter().any(|r| r.starts_with("PUT") && r.contains(hex)), "{layer}: {written:#?}");
    }

    // A registry that has it all is told a name; also under another name, and of another repository.
    for to in ["app:2", "elsewhere/app:1"] {
        let (to, tag) = (name(to), to.rsplit_once(':').unwrap());
        let again = build(&fleet, 1, &["--cache-from", &cache, "-o", &pushed(&to)]).ok();
        assert_eq!(again.ran(), Vec::<String>::new(), "{}", again.stderr);
        assert_eq!(fleet.registry.manifest(tag.0, tag.1), fleet.registry.manifest("app", "1"));
        assert_eq!(here(&fleet, 1), Vec::<String>::new());
    }
    assert_eq!(image(&fleet, 1, &name("elsewhere/app:1")), image(&fleet, 2, &name("app:1")));

    // Who keeps the image, too, has it, and gets its files when somebody looks at them.
    let kept = name("app:3");
    let again = build(&fleet, 3, &["--cache-from", &in_bucket, "-t", &kept, "--push"]).ok();
    assert_eq!(again.ran(), Vec::<String>::new(), "{}", again.stderr);
    assert_eq!(bucket.requests().iter().filter(|r| r.starts_with("GET") && r.contains("/blobs/")).count(), 0);
    assert_eq!(here(&fleet, 3), Vec::<String>::new());
    assert_eq!(image(&fleet, 3, &kept), image(&fleet, 2, &name("app:1")));
    fleet.machines[3].run(&["tag", &kept, &name("app:4")]).ok();
    fleet.machines[3].run(&["push", "-q", &name("app:4")]).ok();
    assert_eq!(layers(&fleet.registry, "app", "4"), first);

    // Another registry gets it whole, with the blobs as they came.
    let other = fleet.machines[4].registry(Auth::Open);
    let to = format!("{}/app:1", other.host());
    let again = build(&fleet, 4, &["--cache-from", &in_bucket, "-o", &pushed(&to)]).ok();
    assert_eq!(again.ran(), Vec::<String>::new(), "{}", again.stderr);
    assert_eq!(other.manifest("app", "1"), fleet.registry.manifest("app", "1"));
    assert_eq!(here(&fleet, 4).len(), 3);
    assert_eq!(image(&fleet, 2, &to), image(&fleet, 2, &name("app:1")));

    // What is damaged on its way is made again.
    fleet.machines[4].run(&["prune", "--all", "--force"]).ok();
    let is_layer = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap();
        file.is_file() && first.iter().any(|digest| digest.ends_with(name))
    };
    let objects =
        walkdir::WalkDir::new(bucket.object("p")).into_iter().map(|entry| entry.unwrap().into_path());
    let damaged: Vec<PathBuf> = objects.filter(is_layer).collect();
    assert_eq!(damaged.len(), 3);
    for file in damaged {
        let mut bytes = fs_err::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs_err::write(&file, bytes).unwrap();
    }
    let third = fleet.machines[1].registry(Auth::Open);
    let to = format!("{}/app:2", third.host());
    build(&fleet, 4, &["--cache-from", &in_bucket, "-o", &pushed(&to)]).ok();
    assert_ne!(layers(&third, "app", "2"), first);
    assert!(!image(&fleet, 2, &to).is_empty());
}

#[test]
fn a_base_that_the_registry_has_does_not_come_in() {
    let Some(fleet) = Fleet::new(2) else { return };
    let machine = &fleet.machines[1];
    let name = format!("{}/labelled:1", fleet.registry.host());
    machine
        .dockerfile(
            &format!("FROM {}\nLABEL a=b\n", fleet.base()),
            &["--provenance=false", "-o", &pushed(&name)],
        )
        .ok();
    assert_eq!(layers(&fleet.registry, "labelled", "1"), layers(&fleet.registry, "base", "1"));
    let blobs = |dir| {
        let found = walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap);
        found.filter(|entry| entry.file_type().is_file()).map(|e| e.metadata().unwrap().len()).max()
    };
    // Manifests and configs.
    assert!(blobs(machine.daemon.root().join("blobs")).unwrap() < 10_000);
    // Another registry has to be given it.
    let other = machine.registry(Auth::Open);
    let name = format!("{}/labelled:1", other.host());
    machine
        .dockerfile(
            &format!("FROM {}\nLABEL a=b\n", fleet.base()),
            &["--provenance=false", "-o", &pushed(&name)],
        )
        .ok();
    assert_eq!(other.manifest("labelled", "1"), fleet.registry.manifest("labelled", "1"));
    assert_eq!(machine.run(&["run", "--rm", &name, "echo", "it", "runs"]).ok().stdout, "it runs\n");
}
