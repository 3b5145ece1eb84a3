//! The document: SPDX 2.3 in JSON (<https://spdx.github.io/spdx-spec/v2.3/>).

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::inventory::{Evidence, Installed};
use super::license::License;
use super::{FileKind, Inventory};

/// What nothing is said of.
const UNKNOWN: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";
const ROOT: &str = "SPDXRef-Root";

/// What a document says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// What it is about.
    pub name: &'a str,
    /// When what it is about was made, in seconds since 1970.
    pub created: i64,
    /// Who made it: a program and its version.
    pub tool: &'a str,
}

/// What is in a file system. Equal inventories of the same origin give equal documents.
pub fn document(origin: Origin<'_>, inventory: &Inventory) -> Value {
    let licenses: BTreeMap<&str, License> = inventory
        .packages
        .values()
        .filter_map(|installed| installed.package.license.as_deref())
        .map(|text| (text, License::new(text)))
        .collect();
    let root = json!({
        "SPDXID": ROOT,
        "name": origin.name,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
    });
    let packages =
        inventory.packages.iter().map(|(purl, installed)| package(purl, installed, inventory, &licenses));
    let files = inventory.files.iter().map(|(path, evidence)| file(path, evidence));
    let mut document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT,
        "name": origin.name,
        "creationInfo": { "creators": [format!("Tool: {}", origin.tool)], "created": rfc3339(origin.created) },
        "packages": std::iter::once(root).chain(packages).collect::<Vec<_>>(),
        "files": files.collect::<Vec<_>>(),
        "relationships": relationships(inventory),
    });
    let mut others: Vec<&License> =
        licenses.values().filter(|license| matches!(license, License::Other { .. })).collect();
    others.sort();
    others.dedup();
    if !others.is_empty() {
        document["hasExtractedLicensingInfos"] = others.into_iter().filter_map(extracted).collect();
    }
    // A name of its own for each content, as the specification proposes.
    let mark = hex::encode(&Sha256::digest(document.to_string())[..16]);
    document["documentNamespace"] = format!("https://spdx.org/spdxdocs/{}-{mark}", plain(origin.name)).into();
    document
}

fn package(
    purl: &str,
    installed: &Installed,
    inventory: &Inventory,
    licenses: &BTreeMap<&str, License>,
) -> Value {
    let package = &installed.package;
    let license = package.license.as_deref().and_then(|text| licenses.get(text));
    let found = |path: &String| {
        let kind = inventory.files.get(path).map_or("a file", |file| FileKind::title(file.kind));
        format!("{kind}: {path}")
    };
    let found: Vec<String> = installed.files.iter().map(found).collect();
    json!({
        "SPDXID": package_id(purl),
        "name": package.full_name(),
        "versionInfo": package.version,
        "supplier": UNKNOWN,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "sourceInfo": format!("told by {}", found.join(", ")),
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": license.map_or(UNKNOWN, License::id),
        "copyrightText": UNKNOWN,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl,
        }],
    })
}

fn file(path: &str, evidence: &Evidence) -> Value {
    json!({
        "SPDXID": file_id(path),
        "fileName": path,
        "checksums": [
            { "algorithm": "SHA1", "checksumValue": evidence.sha1 },
            { "algorithm": "SHA256", "checksumValue": evidence.sha256 },
        ],
        "licenseConcluded": UNKNOWN,
        "copyrightText": UNKNOWN,
    })
}

fn relationships(inventory: &Inventory) -> Vec<Value> {
    let relation = |from: &str, kind: &str, to: &str| json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to });
    let mut all = vec![relation(DOCUMENT, "DESCRIBES", ROOT)];
    for (purl, installed) in &inventory.packages {
        let id = package_id(purl);
        all.push(relation(ROOT, "CONTAINS", &id));
        for path in &installed.files {
            let mut told = relation(&id, "OTHER", &file_id(path));
            told["comment"] = "evident-by: this file tells of the package".into();
            all.push(told);
        }
    }
    all
}

fn extracted(license: &License) -> Option<Value> {
    match license {
        License::Expression(_) => None,
        License::Other { id, text } => Some(json!({ "licenseId": id, "name": text, "extractedText": text })),
    }
}

fn package_id(purl: &str) -> String {
    let stem = purl.split(['?']).next().unwrap_or_default().trim_start_matches("pkg:");
    format!("SPDXRef-Package-{}-{}", plain(stem), mark(purl))
}

fn file_id(path: &str) -> String {
    format!("SPDXRef-File-{}", mark(path))
}

/// Tells what would be the same in letters and digits apart.
fn mark(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..8])
}

/// A text in the letters that identifiers have.
fn plain(text: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    text.chars().take(64).map(plain).collect()
}

/// SPDX knows whole seconds only.
fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
