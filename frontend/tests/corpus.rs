//! The public Dockerfiles of `shared/corpus` against what BuildKit's own frontend made of them.
//!
//! Runs where `$RBUILD_SHARED` (or `../shared` beside the workspace) is there, and says so where it is not.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use frontend::inspect::ParseRecord;
use serde_json::Value;

/// How many of a thousand records must be equal.
const FLOOR_PER_MILLE: usize = 995;

#[test]
fn parsing_equals_buildkit() {
    let Some(corpus) = Corpus::open() else { return };
    let mut unequal = Vec::new();
    let total = corpus.for_each(|file, bytes, reference| {
        let (document, diagnostics) = frontend::parse::parse("Dockerfile", bytes);
        let ours =
            serde_json::to_value(ParseRecord::new(&document, &diagnostics)).expect("a record serialises");
        for field in ["parse_ok", "error", "directives", "stages", "instructions"] {
            if let Some(difference) = difference(&reference[field], &ours[field], field) {
                unequal.push(format!("{file}: {difference}"));
                break;
            }
        }
    });
    for line in &unequal {
        println!("{line}");
    }
    println!("{} of {total} equal", total - unequal.len());
    assert!((total - unequal.len()) * 1000 >= total * FLOOR_PER_MILLE, "{} of {total} differ", unequal.len());
}

/// The corpus' two archives.
struct Corpus {
    dir: PathBuf,
}

impl Corpus {
    fn open() -> Option<Self> {
        let shared = std::env::var_os("RBUILD_SHARED").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")),
            PathBuf::from,
        );
        let dir = shared.join("corpus");
        if dir.join("reference.jsonl.zst").exists() {
            return Some(Self { dir });
        }
        eprintln!("skipped: no corpus in {}", dir.display());
        None
    }

    fn unpack(&self, name: &str) -> impl Read + use<> {
        let file = std::fs::File::open(self.dir.join(name)).expect("the corpus is complete");
        zstd::Decoder::new(file).expect("the corpus is zstd")
    }

    /// Calls back with name, bytes and reference record of each file; returns how many there are.
    fn for_each(&self, mut check: impl FnMut(&str, &[u8], &Value)) -> usize {
        let mut files = std::collections::HashMap::new();
        let mut archive = tar::Archive::new(self.unpack("dockerfiles.tar.zst"));
        for entry in archive.entries().expect("a tar archive") {
            let mut entry = entry.expect("a whole entry");
            let name = entry.path().expect("a path").to_string_lossy().trim_start_matches("./").to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("a whole entry");
            files.insert(name, bytes);
        }
        let mut total = 0;
        for line in BufReader::new(self.unpack("reference.jsonl.zst")).lines() {
            let record: Value = serde_json::from_str(&line.expect("a whole line")).expect("a record");
            let name = record["file"].as_str().expect("a name");
            check(name, files.get(name).expect("each record has its file"), &record);
            total += 1;
        }
        total
    }
}

/// The path and the two values of the first difference; messages of errors are not compared.
fn difference(reference: &Value, ours: &Value, path: &str) -> Option<String> {
    match (reference, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            keys.filter(|key| !(path.ends_with("error") && *key == "message")).find_map(|key| {
                let value =
                    |object: &serde_json::Map<String, Value>| object.get(key).cloned().unwrap_or_default();
                difference(&value(a), &value(b), &format!("{path}.{key}"))
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => a
            .iter()
            .zip(b)
            .enumerate()
            .find_map(|(index, (a, b))| difference(a, b, &format!("{path}[{index}]"))),
        _ if reference == ours => None,
        _ => Some(format!("{path}: reference {reference}, ours {ours}")),
    }
}
