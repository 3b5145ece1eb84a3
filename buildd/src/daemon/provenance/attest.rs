//! What statements a request asks for, and statements as exporters write them (in-toto v1).

use std::collections::BTreeMap;

use cache::oci::Reference;
use serde_json::{Value, json};
use tonic::Code;

use crate::csv::fields;
use crate::daemon::failure::Failure;

/// The type of a statement (<https://github.com/in-toto/attestation>, `spec/v1/statement.md`).
const STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// The annotation of a statement's descriptor that says what kind of predicate it holds.
pub(in crate::daemon) const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";

/// What a request asks to be attested.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Attestations {
    /// How provenance is told; `None` where it is not.
    pub provenance: Option<ProvenanceOptions>,
    /// How it is found out what the result holds; `None` where it is not.
    pub sbom: Option<SbomOptions>,
}

/// The options of `attest:sbom`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct SbomOptions {
    /// The image of the scanner, in full; `None` is the one that is built in.
    pub generator: Option<String>,
    /// What the scanner is told besides, by name.
    pub parameters: BTreeMap<String, String>,
}

/// The options of `attest:provenance`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct ProvenanceOptions {
    /// How much is told.
    pub detail: Detail,
    /// SLSA 0.2 rather than 1.
    pub old: bool,
    /// Who says that it built this.
    pub builder: String,
    /// The builder says that a second build gives the same.
    pub reproducible: bool,
    /// The name of the file in exports of files.
    pub filename: String,
    /// Left out of exports of files.
    pub inline_only: bool,
}

/// How much is told of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) enum Detail {
    /// Nothing that may be private.
    Least,
    /// Also the source files: what the history keeps, which leaves arguments out.
    Sources,
    /// Also what was built, from which lines, and arguments.
    Most,
}

impl Default for ProvenanceOptions {
    fn default() -> Self {
        Self {
            detail: Detail::Most,
            old: false,
            builder: String::new(),
            reproducible: false,
            filename: "provenance.json".to_owned(),
            inline_only: false,
        }
    }
}

/// `attest:KIND`, or this as a build argument.
const PREFIXES: [&str; 2] = ["attest:", "build-arg:BUILDKIT_ATTEST_"];

impl Attestations {
    /// Reads a frontend's attributes.
    ///
    /// # Errors
    /// An unknown kind of attestation, a value that cannot be.
    pub(in crate::daemon) fn read(attrs: &BTreeMap<String, String>) -> Result<Self, Failure> {
        let mut wanted = Self::default();
        for (name, value) in attrs {
            let Some(kind) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) else { continue };
            match kind.to_ascii_lowercase().as_str() {
                "provenance" => wanted.provenance = Some(ProvenanceOptions::read(value)?),
                "sbom" => wanted.sbom = Some(SbomOptions::read(value)?),
                kind => return Err(invalid(format!("unknown attestation type \"{kind}\""))),
            }
        }
        Ok(wanted)
    }
}

impl SbomOptions {
    fn read(text: &str) -> Result<Self, Failure> {
        let (mut generator, mut parameters) = (None, BTreeMap::new());
        let fields = fields(text).map_err(|error| Failure::invalid(&error))?;
        for field in fields.iter().filter(|field| !field.is_empty()) {
            match field.split_once('=').unwrap_or((field, "")) {
                ("generator", name) => generator = Some(name.to_owned()),
                (name, value) => drop(parameters.insert(name.to_owned(), value.to_owned())),
            }
        }
        let full = |name: String| {
            if name.is_empty() {
                return Err(invalid("sbom generator cannot be empty".to_owned()));
            }
            let image = Reference::parse(&name)
                .map_err(|e| invalid(format!("failed to parse sbom generator {name}: {e}")))?;
            Ok(image.with_default_tag().to_string())
        };
        Ok(Self { generator: generator.map(full).transpose()?, parameters })
    }
}

impl ProvenanceOptions {
    fn read(text: &str) -> Result<Self, Failure> {
        let mut options = Self::default();
        let fields = fields(text).map_err(|error| Failure::invalid(&error))?;
        for field in fields.iter().filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let flag = || match value {
                "true" | "1" => Ok(true),
                "false" | "0" => Ok(false),
                _ => Err(invalid(format!("failed to parse {name} flag \"{value}\""))),
            };
            match name {
                "mode" => {
                    options.detail = match value {
                        "max" | "full" => Detail::Most,
                        "min" => Detail::Least,
                        _ => return Err(invalid(format!("invalid mode \"{value}\""))),
                    }
                }
                "version" => {
                    options.old = match value {
                        "v1" => false,
                        "v0.2" => true,
                        _ => return Err(invalid(format!("invalid provenance SLSA version: {value}"))),
                    }
                }
                "builder-id" => options.builder = value.to_owned(),
                "reproducible" => options.reproducible = flag()?,
                "filename" => {
                    options.filename = value.rsplit('/').next().unwrap_or_default().to_owned();
                    if matches!(options.filename.as_str(), "" | "." | "..") {
                        return Err(invalid(format!("invalid filename \"{value}\" of provenance")));
                    }
                }
                "inline-only" => options.inline_only = flag()?,
                // Others are of other versions, and change no result.
                _ => {}
            }
        }
        Ok(options)
    }
}

fn invalid(message: String) -> Failure {
    Failure::new(Code::InvalidArgument, message)
}

/// A statement about files or images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct Statement {
    /// What kind of predicate it holds.
    pub predicate_type: String,
    /// What it says.
    pub predicate: Value,
    /// What it is about.
    pub subjects: Vec<About>,
}

/// Something that a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct About {
    /// Its name.
    pub name: String,
    /// Its digests in hexadecimal digits, by algorithm.
    pub digests: BTreeMap<String, String>,
}

impl About {
    /// Something with this SHA-256 in hexadecimal digits.
    pub(in crate::daemon) fn new(name: String, sha256: String) -> Self {
        Self { name, digests: [("sha256".to_owned(), sha256)].into() }
    }
}

impl Statement {
    /// The statement as JSON.
    pub(in crate::daemon) fn json(&self) -> Value {
        let subject = |about: &About| json!({ "name": about.name, "digest": about.digests });
        json!({
            "_type": STATEMENT,
            "predicateType": self.predicate_type,
            "subject": self.subjects.iter().map(subject).collect::<Vec<_>>(),
            "predicate": self.predicate,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, value: &str) -> Result<Attestations, Failure> {
        Attestations::read(&[(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn options() {
        assert_eq!(read("build-arg:X", "").unwrap(), Attestations::default());
        let all =
            "mode=min,version=v0.2,builder-id=https://b,reproducible=true,filename=p.json,inline-only=1";
        let want = ProvenanceOptions {
            detail: Detail::Least,
            old: true,
            builder: "https://b".to_owned(),
            reproducible: true,
            filename: "p.json".to_owned(),
            inline_only: true,
        };
        assert_eq!(read("attest:provenance", all).unwrap().provenance, Some(want));
        let default = Some(ProvenanceOptions::default());
        assert_eq!(read("build-arg:BUILDKIT_ATTEST_PROVENANCE", "").unwrap().provenance, default);
    }

    #[test]
    fn scanners() {
        let sbom = |value: &str| read("attest:sbom", value).unwrap().sbom.unwrap();
        assert_eq!(sbom("").generator, None, "the one that is built in");
        let named = sbom("generator=h:5000/s,EXTRA_SCANNERS=a,x");
        assert_eq!(named.generator.as_deref(), Some("h:5000/s:latest"));
        let parameters = [("EXTRA_SCANNERS", "a"), ("x", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(named.parameters, parameters.into());
    }

    #[test]
    fn bad_options() {
        for (name, value) in [
            ("attest:magic", ""),
            ("attest:sbom", "generator="),
            ("attest:sbom", "generator=A B"),
            ("attest:provenance", "mode=medium"),
            ("attest:provenance", "version=v3"),
            ("attest:provenance", "reproducible=perhaps"),
            ("attest:provenance", "filename=.."),
            ("attest:provenance", "\"mode=max"),
        ] {
            assert_eq!(read(name, value).unwrap_err().code, Code::InvalidArgument, "{name}={value}");
        }
    }
}
