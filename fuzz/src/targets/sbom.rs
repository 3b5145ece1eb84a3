//! Databases of package managers and lock files, each input read as every kind: what is found can be named, and the document
//! refers to nothing that it has not.

use std::collections::BTreeSet;

use buildd::sbom::{FileKind, Inventory, Origin, OsRelease, document};

/// A path for each kind of file.
const PATHS: [&str; 18] = [
    "var/lib/dpkg/status",
    "lib/apk/db/installed",
    "var/lib/rpm/rpmdb.sqlite",
    "var/lib/rpm/Packages",
    "Cargo.lock",
    "package-lock.json",
    "node_modules/a/package.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "a.dist-info/METADATA",
    "requirements.txt",
    "poetry.lock",
    "go.mod",
    "go.sum",
    "Gemfile.lock",
    "specifications/a.gemspec",
    "composer.lock",
    "vendor/composer/installed.json",
];

pub(super) fn run(bytes: &[u8]) {
    let mut inventory = Inventory::new(OsRelease::parse(bytes));
    for path in PATHS {
        let kind = FileKind::of(path.as_bytes()).expect("a path of a kind");
        for package in kind.packages(bytes).unwrap_or_default() {
            let url = package.purl();
            assert!(url.starts_with("pkg:") && url.bytes().all(|byte| byte.is_ascii_graphic()), "{url:?}");
        }
        let _ = inventory.add(path, kind, bytes);
    }
    let written = document(Origin { name: "sbom", created: 0, tool: "fuzz" }, &inventory);
    let listed = |name: &str| written[name].as_array().into_iter().flatten();
    let ids: BTreeSet<&str> =
        listed("packages").chain(listed("files")).filter_map(|found| found["SPDXID"].as_str()).collect();
    assert_eq!(ids.len(), listed("packages").chain(listed("files")).count(), "names of their own");
    for relation in listed("relationships") {
        let to = relation["relatedSpdxElement"].as_str().unwrap_or_default();
        assert!(ids.contains(to), "{to:?}");
    }
    assert!(inventory.is_empty() || inventory.len() + 1 == listed("packages").count());
}
