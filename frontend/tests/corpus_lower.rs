//! The public Dockerfiles of `shared/corpus`: the whole record against what BuildKit's own frontend made of them.
//!
//! Runs where `$RBUILD_SHARED` (or `../shared` beside the workspace) is there, and says so where it is not.
//! Not compared: file names, digests, and the texts of errors (their phases and lines are).

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// How many records of ten thousand must be equal.
const FLOOR: usize = 10_000;

#[test]
fn records_equal_buildkits() {
    let shared = std::env::var_os("RBUILD_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")), PathBuf::from);
    let dir = shared.join("corpus");
    if !dir.join("reference.jsonl.zst").exists() {
        println!("skipped: no corpus in {}", dir.display());
        return;
    }
    let files = dockerfiles(&dir);
    let (mut total, mut unequal) = (0, Vec::new());
    for line in BufReader::new(unpack(&dir, "reference.jsonl.zst")).lines() {
        let reference: Value = serde_json::from_str(&line.expect("a whole line")).expect("a record");
        let name = reference["file"].as_str().expect("a name");
        let ours = frontend::inspect::inspect(name, &files[name]);
        total += 1;
        if let Some(difference) = difference(&reference, &ours, "") {
            unequal.push(format!("{name}: {difference}"));
        }
    }
    for line in &unequal {
        println!("{line}");
    }
    println!("{} of {total} equal", total - unequal.len());
    assert!((total - unequal.len()) * 10_000 >= total * FLOOR, "{} of {total} differ", unequal.len());
}

fn unpack(dir: &Path, name: &str) -> impl Read + use<> {
    let file = std::fs::File::open(dir.join(name)).expect("the corpus is complete");
    zstd::Decoder::new(file).expect("the corpus is zstd")
}

fn dockerfiles(dir: &Path) -> HashMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(unpack(dir, "dockerfiles.tar.zst"));
    let entries = archive.entries().expect("a tar archive").map(|entry| {
        let mut entry = entry.expect("a whole entry");
        let name = entry.path().expect("a path").to_string_lossy().trim_start_matches("./").to_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("a whole entry");
        (name, bytes)
    });
    entries.collect()
}

/// Whether a field is not compared: file names, digests, texts of errors.
fn is_apart(path: &str, key: &str) -> bool {
    match key {
        "file" => path.is_empty(),
        "head_digest" => path == ".llb",
        "digest" => path.starts_with(".llb.ops["),
        "message" => path.ends_with("error"),
        "error" => path == ".lint",
        _ => false,
    }
}

/// The path and the two values of the first difference.
fn difference(reference: &Value, ours: &Value, path: &str) -> Option<String> {
    let value = |object: &Map<String, Value>, key: &str| object.get(key).cloned();
    match (reference, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.filter(|key| !is_apart(path, key)).find_map(|key| {
                let path = format!("{path}.{key}");
                match (value(a, key), value(b, key)) {
                    (Some(a), Some(b)) => difference(&a, &b, &path),
                    (a, b) => Some(format!("{path}: reference {a:?}, ours {b:?}")),
                }
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.into_iter().find_map(|(index, (a, b))| difference(a, b, &format!("{path}[{index}]")))
        }
        _ if reference == ours => None,
        _ => Some(format!("{path}: reference {reference}, ours {ours}")),
    }
}
