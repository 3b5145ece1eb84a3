//! Files of each kind, what they tell, and the document that comes of it.

use serde_json::Value;

use super::*;

/// A database of rpm's with pages of 512 bytes, so that it has pages of every kind; made with Python's sqlite3.
const RPM: &[u8] = include_bytes!("../../../fuzz/seeds/sbom/rpm.sqlite");

/// The package URLs that a file tells of, in its order.
fn purls(path: &str, text: &str) -> Vec<String> {
    let kind = FileKind::of(path.as_bytes()).unwrap_or_else(|| panic!("{path}"));
    kind.packages(text.as_bytes()).unwrap().iter().map(Package::purl).collect()
}

fn error(path: &str, bytes: &[u8]) -> String {
    let kind = FileKind::of(path.as_bytes()).unwrap();
    crate::causes::causes(&kind.packages(bytes).unwrap_err())
}

#[test]
fn paths() {
    let told = [
        ("var/lib/dpkg/status", FileKind::Dpkg),
        ("rootfs/var/lib/dpkg/status.d/base", FileKind::Dpkg),
        ("lib/apk/db/installed", FileKind::Apk),
        ("usr/lib/apk/db/installed", FileKind::Apk),
        ("usr/lib/sysimage/rpm/rpmdb.sqlite", FileKind::Rpm),
        ("var/lib/rpm/Packages", FileKind::OldRpm),
        ("src/Cargo.lock", FileKind::CargoLock),
        ("Cargo.lock", FileKind::CargoLock),
        ("a/node_modules/b/package.json", FileKind::NpmPackage),
        ("node_modules/@s/b/package.json", FileKind::NpmPackage),
        ("a/node_modules/.package-lock.json", FileKind::NpmLock),
        ("usr/lib/python3/x.dist-info/METADATA", FileKind::PythonMetadata),
        ("requirements-dev.txt", FileKind::Requirements),
        ("usr/lib/ruby/gems/3.1.0/specifications/rake-13.0.6.gemspec", FileKind::GemSpecification),
        ("vendor/composer/installed.json", FileKind::ComposerInstalled),
    ];
    for (path, kind) in told {
        assert_eq!(FileKind::of(path.as_bytes()), Some(kind), "{path}");
    }
    let silent =
        ["", "status", "xvar/lib/dpkg/status", "lib/dpkg/status", "var/lib/dpkg/status.d/base.md5sums"];
    for path in
        silent.into_iter().chain(["package.json", "a/node_modules/b/c/package.json", "METADATA", "x.gemspec"])
    {
        assert_eq!(FileKind::of(path.as_bytes()), None, "{path}");
    }
}

#[test]
fn distributions() {
    let status = "Package: curl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 7.88.1-10+deb12u5\nDescription: x\n Package: no\n\n\
        Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
        Package: libc6\nStatus: hold ok installed\nSource: glibc (2.36-9)\nArchitecture: amd64\nVersion: 2.36-9+b1\n";
    assert_eq!(
        purls("var/lib/dpkg/status", status),
        [
            "pkg:deb/curl@7.88.1-10%2Bdeb12u5?arch=amd64",
            "pkg:deb/libc6@2.36-9%2Bb1?arch=amd64&upstream=glibc@2.36-9"
        ]
    );
    assert_eq!(purls("var/lib/dpkg/status.d/t", "Package: tz\nVersion: 1:2-3\n"), ["pkg:deb/tz@1:2-3"]);
    let apk = "C:Q1\nP:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\nF:lib\nR:ld\n\nP:ssl_client\nV:1.36.1-r5\no:busybox\n";
    assert_eq!(
        purls("lib/apk/db/installed", apk),
        ["pkg:apk/musl@1.2.4-r2?arch=x86_64", "pkg:apk/ssl_client@1.36.1-r5?upstream=busybox"]
    );
    let os = OsRelease::parse(b"NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.18.4\n");
    let package = FileKind::Apk.packages(apk.as_bytes()).unwrap().remove(0);
    assert_eq!(os.name(package).purl(), "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64&distro=alpine-3.18.4");
    assert_eq!(
        OsRelease::parse(b"ID=\"../x y\"\nVERSION_ID='12'\n"),
        OsRelease { version: "12".into(), ..OsRelease::default() }
    );
}

#[test]
fn rpm_databases() {
    let found = FileKind::Rpm.packages(RPM).unwrap();
    let purls: Vec<String> = found.iter().map(Package::purl).collect();
    assert_eq!(purls.len(), 15, "all but the key: {purls:?}");
    assert_eq!(
        purls[..3],
        [
            "pkg:rpm/bash@5.2.15-3.fc38?arch=x86_64&upstream=bash-5.2.15-3.fc38.src.rpm",
            "pkg:rpm/openssl-libs@3.0.9-2.fc38?arch=x86_64&epoch=1&upstream=openssl-3.0.9-2.fc38.src.rpm",
            "pkg:rpm/old@1-2?arch=noarch&upstream=old-1-2.src.rpm",
        ]
    );
    assert_eq!(purls[14], "pkg:rpm/p11@1.11-1?arch=noarch&upstream=p-1.src.rpm");
    assert_eq!(found[2].license.as_deref(), Some("GPLv2+ and MIT"));
    let path = "var/lib/rpm/rpmdb.sqlite";
    assert_eq!(error(path, b"junk"), "it is no SQLite database");
    assert!(error(path, &RPM[..RPM.len() - 2048]).contains("is damaged"));
    assert_eq!(error("var/lib/rpm/Packages.db", b""), "databases of Berkeley DB and ndb are not read");
    // Whatever byte is another: an answer, and soon.
    for at in 0..RPM.len() {
        let mut damaged = RPM.to_vec();
        damaged[at] ^= 0xff;
        let _ = FileKind::Rpm.packages(&damaged);
    }
}

#[test]
fn locks() {
    let cargo = "version = 3\n[[package]]\nname = \"rand\"\nversion = \"0.7.2\"\nsource = \"registry+x\"\n";
    assert_eq!(purls("Cargo.lock", cargo), ["pkg:cargo/rand@0.7.2"]);
    let poetry = "[[package]]\nname = \"Zope_Interface\"\nversion = \"6.0\"\n[metadata]\nx = 1\n";
    assert_eq!(purls("poetry.lock", poetry), ["pkg:pypi/zope-interface@6.0"]);
    assert_eq!(purls("uv.lock", "[[package]]\nname = \"me\"\n"), Vec::<String>::new());

    let npm = r#"{"lockfileVersion":3,"packages":{"":{"name":"app","version":"1.0.0"},"lib":{"version":"2.0.0"},
        "node_modules/@babel/core":{"version":"7.0.0","license":"MIT"},"node_modules/a/node_modules/b":{"version":"1.1.0"},
        "node_modules/l":{"link":true,"resolved":"lib"},"node_modules/alias":{"name":"real","version":"3.0.0"}}}"#;
    assert_eq!(
        purls("package-lock.json", npm),
        ["pkg:npm/%40babel/core@7.0.0", "pkg:npm/b@1.1.0", "pkg:npm/real@3.0.0"]
    );
    let old = r#"{"dependencies":{"a":{"version":"1.0.0","dependencies":{"b":{"version":"2.0.0"}}},"f":{"version":"file:x"}}}"#;
    assert_eq!(purls("npm-shrinkwrap.json", old), ["pkg:npm/a@1.0.0", "pkg:npm/b@2.0.0"]);
    let manifest = r#"{"name":"@s/p","version":"1.0.0","licenses":[{"type":"MIT"},{"type":"Apache-2.0"}]}"#;
    let found = FileKind::NpmPackage.packages(manifest.as_bytes()).unwrap();
    assert_eq!(
        (found[0].full_name(), found[0].license.as_deref()),
        ("@s/p".into(), Some("MIT OR Apache-2.0"))
    );

    let yarn = "# yarn lockfile v1\n\n\"@babel/core@^7.0.0\", \"@babel/core@^7.1.0\":\n  version \"7.1.2\"\n  dependencies:\n    version \"9\"\n\na@1:\n  version \"1.0.0\"\n";
    assert_eq!(purls("yarn.lock", yarn), ["pkg:npm/%40babel/core@7.1.2", "pkg:npm/a@1.0.0"]);
    let berry = "__metadata:\n  version: 6\n\n\"me@workspace:.\":\n  version: 0.0.0-use.local\n\n\"x@npm:@s/real@^1\":\n  version: 1.2.3\n";
    assert_eq!(purls("yarn.lock", berry), ["pkg:npm/%40s/real@1.2.3"]);
    let pnpm = "lockfileVersion: '9.0'\nimporters:\n  .:\n    x\n\npackages:\n\n  '@s/a@1.0.0':\n    resolution: {}\n\n  b@2.0.0(react@17.0.0):\n\n  /c@3.0.0:\n  /@s/d/4.0.0_react@17.0.0:\n  /e/5.0.0:\n  file:x:\nsnapshots:\n  z@1.0.0:\n";
    assert_eq!(
        purls("pnpm-lock.yaml", pnpm),
        [
            "pkg:npm/%40s/a@1.0.0",
            "pkg:npm/b@2.0.0",
            "pkg:npm/c@3.0.0",
            "pkg:npm/%40s/d@4.0.0",
            "pkg:npm/e@5.0.0"
        ]
    );

    let metadata = "Metadata-Version: 2.1\nName: Flask\nVersion: 2.3\nLicense: BSD-3-Clause\n\nVersion: 9\n";
    assert_eq!(purls("Flask.dist-info/METADATA", metadata), ["pkg:pypi/flask@2.3"]);
    let pins = "# x\nflask[async]==2.3 ; python_version > '3'\nb ==1.0 --hash=sha256:0\nc>=1\nd==1.*\n-r other.txt\ne===2\n";
    assert_eq!(purls("requirements.txt", pins), ["pkg:pypi/flask@2.3", "pkg:pypi/b@1.0", "pkg:pypi/e@2"]);

    let module = "module example.com/me\ngo 1.21\nrequire github.com/A/b v1.0.0\nrequire (\n\tgolang.org/x/net v0.1.0 // indirect\n\texample.com/old v1.0.0\n\texample.com/here v1.0.0\n)\nreplace example.com/old => example.com/new v2.0.0+incompatible\nreplace (\n\texample.com/here v1.0.0 => ./here\n)\nexclude x v1\n";
    assert_eq!(
        purls("go.mod", module),
        [
            "pkg:golang/github.com/a/b@v1.0.0",
            "pkg:golang/golang.org/x/net@v0.1.0",
            "pkg:golang/example.com/new@v2.0.0%2Bincompatible",
            "pkg:golang/example.com/here@v1.0.0",
        ]
    );
    let sums = "a.b/c v1.0.0 h1:x=\na.b/c v1.0.0/go.mod h1:y=\nbroken\n";
    assert_eq!(purls("go.sum", sums), ["pkg:golang/a.b/c@v1.0.0"]);

    let gems = "GEM\n  remote: https://rubygems.org/\n  specs:\n    nokogiri (1.15.4-x86_64-linux)\n      racc (~> 1.4)\n    rake (13.0.6)\n\nPLATFORMS\n  ruby\n\nDEPENDENCIES\n    no (1)\n";
    assert_eq!(
        purls("Gemfile.lock", gems),
        ["pkg:gem/nokogiri@1.15.4?platform=x86_64-linux", "pkg:gem/rake@13.0.6"]
    );
    let stub = "# -*- encoding: utf-8 -*-\n# stub: rake 13.0.6 ruby lib\n\nGem::Specification.new do |s|\n";
    assert_eq!(purls("specifications/rake-13.0.6.gemspec", stub), ["pkg:gem/rake@13.0.6"]);

    let composer = r#"{"packages":[{"name":"Laravel/laravel","version":"v5.5.0","license":["MIT","BSD-3-Clause"]}],"packages-dev":[{"name":"a/b","version":"1"},{"name":1}]}"#;
    assert_eq!(
        purls("composer.lock", composer),
        ["pkg:composer/laravel/laravel@v5.5.0", "pkg:composer/a/b@1"]
    );
}

#[test]
fn what_is_malformed() {
    for path in ["Cargo.lock", "package-lock.json", "node_modules/a/package.json", "composer.lock"] {
        assert!(error(path, b"{{{").starts_with("it is malformed: "), "{path}");
    }
    assert!(error("Cargo.lock", b"\xff").starts_with("it is no text"));
    let deep = "[".repeat(100_000);
    assert!(error("package-lock.json", deep.as_bytes()).contains("recursion limit"));
    for (name, version) in
        [("", "1"), ("a", ""), ("a b", "1"), ("a\n", "1"), ("a", &*"1".repeat(1000)), ("a/", "1")]
    {
        assert_eq!(Package::new(Ecosystem::Npm, name, version), None, "{name:?} {version:?}");
    }
}

#[test]
fn documents() {
    let mut inventory = Inventory::new(OsRelease::parse(b"ID=alpine\nVERSION_ID=3.18\n"));
    let apk =
        b"P:musl\nV:1.2.4\nL:MIT\n\nP:odd\nV:1\nL:Odd license, ask us\n\nP:old\nV:1\nL:GPL-2.0 AND MIT\n";
    inventory.add("/lib/apk/db/installed", FileKind::Apk, apk).unwrap();
    let lock = br#"{"packages":{"node_modules/a":{"version":"1.0.0"}}}"#;
    inventory.add("/app/package-lock.json", FileKind::NpmLock, lock).unwrap();
    let installed = br#"{"name":"a","version":"1.0.0","license":"ISC"}"#;
    inventory.add("/app/node_modules/a/package.json", FileKind::NpmPackage, installed).unwrap();
    inventory.add("/app/yarn.lock", FileKind::YarnLock, b"").unwrap();
    assert!(inventory.add("/x/package-lock.json", FileKind::NpmLock, b"no").is_err());
    let origin = Origin { name: "sbom", created: 1_700_000_000, tool: "rbuild-1" };
    let written = document(origin, &inventory);
    assert_eq!(written.to_string(), document(origin, &inventory).to_string());
    assert_eq!(written["spdxVersion"], "SPDX-2.3");
    assert_eq!(written["creationInfo"]["created"], "2023-11-14T22:13:20Z");
    let packages = written["packages"].as_array().unwrap();
    let by_name = |name: &str| packages.iter().find(|package| package["name"] == name).unwrap();
    assert_eq!(packages.len(), 5, "{written:#}");
    assert_eq!(by_name("a")["licenseDeclared"], "ISC", "the lock file says nothing, the package does");
    assert_eq!(by_name("a")["versionInfo"], "1.0.0");
    assert_eq!(
        by_name("musl")["externalRefs"][0]["referenceLocator"],
        "pkg:apk/alpine/musl@1.2.4?distro=alpine-3.18"
    );
    assert_eq!(by_name("musl")["sourceInfo"], "told by apk's database: /lib/apk/db/installed");
    assert_eq!(by_name("old")["licenseDeclared"], "GPL-2.0 AND MIT");
    let odd = &written["hasExtractedLicensingInfos"];
    assert_eq!(odd[0]["licenseId"], by_name("odd")["licenseDeclared"]);
    assert_eq!(
        (odd[0]["extractedText"].as_str(), odd.as_array().unwrap().len()),
        (Some("Odd license, ask us"), 1)
    );
    let files = written["files"].as_array().unwrap();
    let names: Vec<&str> = files.iter().map(|file| file["fileName"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["/app/node_modules/a/package.json", "/app/package-lock.json", "/lib/apk/db/installed"]
    );

    // Whatever is referred to is there, under a name of its own.
    let mut ids: Vec<&str> =
        packages.iter().chain(files).map(|found| found["SPDXID"].as_str().unwrap()).collect();
    ids.push("SPDXRef-DOCUMENT");
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
    for relation in written["relationships"].as_array().unwrap() {
        for end in ["spdxElementId", "relatedSpdxElement"] {
            assert!(ids.contains(&relation[end].as_str().unwrap()), "{relation}");
        }
    }
    let plain = |id: &&str| id.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c));
    assert!(ids.iter().all(plain), "{ids:?}");
    let other = document(Origin { created: 1, ..origin }, &inventory);
    assert_ne!(other["documentNamespace"], written["documentNamespace"]);
    assert_eq!(
        document(origin, &Inventory::default())["packages"].as_array().map(Vec::<Value>::len),
        Some(1)
    );
}
