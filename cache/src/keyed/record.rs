//! A record as machines share it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use solver::{Digest, Key, LayerId, Record, StandsOn};

use super::scope::Scope;
use super::seal::{Unacceptable, open, said, seal};
use super::signature::{Signer, Trust};

/// What the solver has on record under a key, and where the layers of that are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedRecord {
    /// The key.
    pub key: Key,
    /// What is on record.
    pub record: Record,
    /// What it was made on, under a definition key.
    pub stands_on: Option<StandsOn>,
    /// Its layers, as far as they are shared, too.
    pub layers: Vec<SharedLayer>,
}

/// A layer that is shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedLayer {
    /// Which.
    pub id: LayerId,
    /// The list of its entries ([`crate::layer::Entries::encode`]), compressed with zstd.
    pub entries: SharedBlob,
    /// Its tar stream, compressed in whatever way.
    pub tar: SharedBlob,
    /// Digest of the tar stream before compression.
    pub diff_id: Digest,
    /// When it was made, in milliseconds since 1970: images say so.
    pub created_ms: u64,
}

/// A blob that is shared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SharedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Said {
    scope: String,
    key: Key,
    record: Record,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stands_on: Option<StandsOn>,
    layers: Vec<SharedLayer>,
}

/// The blobs that a sealed record names, whoever sealed it for whatever key; none of what is no record.
pub(super) fn blobs_in(bytes: &[u8]) -> BTreeSet<SharedBlob> {
    let layers = said::<Said>(bytes).map(|said| said.layers).unwrap_or_default();
    layers.into_iter().flat_map(|layer| [layer.entries, layer.tar]).collect()
}

impl SharedRecord {
    /// The bytes that are written: a line that says it, and a line with the digest of that and, where `signer` is given, a signature.
    pub fn seal(&self, scope: &Scope, signer: Option<&Signer>) -> Vec<u8> {
        let said = Said {
            scope: scope.to_string(),
            key: self.key,
            record: self.record.clone(),
            stands_on: self.stands_on.clone(),
            layers: self.layers.clone(),
        };
        seal(&said, signer)
    }

    /// Reads what [`Self::seal`] gave for this key and scope.
    ///
    /// # Errors
    /// Any other bytes; records that `trust` does not accept.
    pub fn open(bytes: &[u8], key: &Key, scope: &Scope, trust: &Trust) -> Result<Self, Unacceptable> {
        let fits = |said: &Said| said.key == *key && said.scope == scope.as_str();
        let said = open(bytes, fits, trust)?;
        Ok(Self { key: said.key, record: said.record, stands_on: said.stands_on, layers: said.layers })
    }

    /// The blobs that it names, each once.
    pub fn blobs(&self) -> BTreeSet<&SharedBlob> {
        self.layers.iter().flat_map(|layer| [&layer.entries, &layer.tar]).collect()
    }

    /// Whether all of its layers are shared.
    pub fn is_whole(&self) -> bool {
        let shared = |id: &LayerId| self.layers.iter().any(|layer| layer.id == *id);
        self.record.outputs.values().filter_map(|output| output.layer.as_ref()).all(shared)
    }

    /// Its layers that are shared, without what it only says is one.
    pub fn own_layers(&self) -> impl Iterator<Item = &SharedLayer> {
        let own = |id: &LayerId| self.record.outputs.values().any(|output| output.layer.as_ref() == Some(id));
        self.layers.iter().filter(move |layer| own(&layer.id))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use solver::OutputRecord;

    use super::super::signature::tests::{OTHER, PRIVATE, PUBLIC};
    use super::*;

    fn example() -> SharedRecord {
        let (layer, other) = (LayerId(Digest::of(b"layer")), LayerId(Digest::of(b"other")));
        let output = |layer| OutputRecord { content: Digest::of(b"content"), layer: Some(layer) };
        let blob = |of: &[u8]| SharedBlob {
            digest: Digest::of(of),
            size: of.len() as u64,
            media_type: "application/octet-stream".to_owned(),
        };
        SharedRecord {
            key: Key(Digest::of(b"key")),
            record: Record {
                outputs: BTreeMap::from([(0, output(layer)), (1, output(other))]),
                created_ms: 1,
                took_ms: 2,
                name: "RUN \"true\"\n".to_owned(),
            },
            stands_on: Some(vec![None, Some(Digest::of(b"below"))]),
            layers: vec![SharedLayer {
                id: layer,
                entries: blob(b"entries"),
                tar: blob(b"tar"),
                diff_id: Digest::of(b"plain"),
                created_ms: 3,
            }],
        }
    }

    #[test]
    fn sealed_and_opened() {
        let (record, scope, trust) = (example(), "main".parse().unwrap(), Trust::default());
        let bytes = record.seal(&scope, None);
        assert_eq!(SharedRecord::open(&bytes, &record.key, &scope, &trust), Ok(record.clone()));
        assert_eq!((record.blobs().len(), record.is_whole()), (2, false));
        // Under another key or in another scope it is no record.
        let other = Key(Digest::of(b"other"));
        assert_eq!(SharedRecord::open(&bytes, &other, &scope, &trust), Err(Unacceptable::Damaged));
        let pr = "pr-1".parse().unwrap();
        assert_eq!(SharedRecord::open(&bytes, &record.key, &pr, &trust), Err(Unacceptable::Damaged));
        let strict = Trust::only([PUBLIC]).unwrap();
        assert_eq!(SharedRecord::open(&bytes, &record.key, &scope, &strict), Err(Unacceptable::Untrusted));
    }

    #[test]
    fn every_flipped_bit_shows() {
        let (record, scope) = (example(), Scope::default());
        let signer = Signer::from_pem(PRIVATE).unwrap();
        let trust = Trust::only([PUBLIC]).unwrap();
        let bytes = record.seal(&scope, Some(&signer));
        assert_eq!(SharedRecord::open(&bytes, &record.key, &scope, &trust), Ok(record.clone()));
        let stranger = Trust::only([OTHER]).unwrap();
        assert_eq!(SharedRecord::open(&bytes, &record.key, &scope, &stranger), Err(Unacceptable::Untrusted));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                // A field of the seal that turned into another name leaves no signature.
                let opened = SharedRecord::open(&bytes, &record.key, &scope, &trust);
                assert!(opened.is_err(), "byte {at}, bit {bit}");
            }
            assert!(SharedRecord::open(&bytes[..at], &record.key, &scope, &trust).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn names_of_scopes() {
        let long = "x".repeat(41);
        for (name, fits) in
            [("main", true), ("pr-1.2_a", true), ("0", true), ("", false), ("-a", false), ("A", false)]
        {
            assert_eq!(name.parse::<Scope>().is_ok(), fits, "{name}");
        }
        for name in ["a/b", "a b", "..", &long] {
            assert!(name.parse::<Scope>().is_err(), "{name}");
        }
    }
}
