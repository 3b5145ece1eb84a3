//! Checking everything again: what `rbuild debug verify` runs.

mod layer;

use std::path::Path;
use std::sync::Arc;

use fs_err as fs;
use solver::Digest;

use super::Store;
use super::db::Cf;
use super::error::StoreError;
use super::records::RecordEntry;
use crate::hashing::Hashing;
use crate::tree::{NodeId, TreeError, Trees};
pub(super) use layer::is_sound as layer_is_sound;

/// What a verification looked at, and what it found wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Records read.
    pub records: usize,
    /// Tree nodes hashed.
    pub trees: usize,
    /// Layers compared file by file.
    pub layers: usize,
    /// Blobs hashed.
    pub blobs: usize,
    /// Images checked for all their parts.
    pub images: usize,
    /// One line for each thing that is wrong.
    pub problems: Vec<String>,
}

impl Store {
    /// Reads every record, tree node, layer and blob again and compares it with its digest. Changes nothing.
    ///
    /// Takes as long as reading the whole store does; what a prune removes meanwhile counts as sound.
    pub fn verify(&self) -> Result<VerifyReport, StoreError> {
        let mut report = VerifyReport::default();
        self.verify_records(&mut report)?;
        self.verify_trees(&mut report)?;
        self.verify_layers(&mut report)?;
        self.verify_blobs(&mut report)?;
        self.verify_images(&mut report)?;
        Ok(report)
    }

    fn verify_records(&self, report: &mut VerifyReport) -> Result<(), StoreError> {
        let mut aliases = Vec::new();
        self.shared.tables.records.scan(|key, entry| {
            report.records += 1;
            match (key, entry) {
                (Some(key), Some(RecordEntry::Alias { home, .. })) => aliases.push((key, home)),
                (Some(_), Some(RecordEntry::Record(_))) => {}
                (key, _) => report.problems.push(format!("record `{key:?}` is damaged")),
            }
            true
        })?;
        for (key, home) in aliases {
            if let Some(RecordEntry::Alias { .. }) = self.shared.tables.records.get(&home)? {
                report.problems.push(format!("record `{key:?}` is an alias of an alias"));
            }
        }
        Ok(())
    }

    fn verify_trees(&self, report: &mut VerifyReport) -> Result<(), StoreError> {
        let mut ids = Vec::new();
        self.shared.db.scan(Cf::Trees, &mut |key, _| {
            report.trees += 1;
            match key.try_into() {
                Ok(id) => ids.push(NodeId::new(Digest::from_bytes(id))),
                Err(_) => report.problems.push(format!("tree node `{}` has no digest", hex::encode(key))),
            }
            true
        })?;
        let trees = Trees::new(Arc::new(self.nodes()));
        for id in ids {
            match trees.subtrees(&id) {
                Ok(below) => {
                    for child in below {
                        if !trees.contains(&child)? && trees.contains(&id)? {
                            report.problems.push(format!("`{child:?}` is missing, `{id:?}` names it"));
                        }
                    }
                }
                Err(TreeError::Missing(_)) => {} // pruned meanwhile
                Err(e @ TreeError::Damaged(_)) => report.problems.push(e.to_string()),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn verify_layers(&self, report: &mut VerifyReport) -> Result<(), StoreError> {
        for (id, info) in self.shared.tables.layers.all()?.into_iter().filter(|(_, info)| info.present) {
            report.layers += 1;
            let problem = match layer::problem(&self.shared.layout, &id, &info) {
                Err(StoreError::Io { action, path, source }) => {
                    Some(format!("cannot {action} `{}`: {source}", path.display()))
                }
                other => other?,
            };
            let still_there =
                || Ok::<_, StoreError>(self.shared.tables.layers.get(&id)?.is_some_and(|now| now.present));
            match problem {
                Some(problem) if still_there()? => {
                    report.problems.push(format!("`{id}` is damaged: {problem}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn verify_blobs(&self, report: &mut VerifyReport) -> Result<(), StoreError> {
        for (digest, _) in self.shared.tables.blobs.all()? {
            report.blobs += 1;
            let sound = match blob_is_sound(&self.shared.layout.blob(&digest), &digest) {
                Err(StoreError::Io { .. }) => false,
                other => other?,
            };
            if !sound && self.shared.tables.blobs.get(&digest)?.is_some() {
                report.problems.push(format!("blob `{digest}` is damaged, unreadable or missing"));
            }
        }
        Ok(())
    }

    fn verify_images(&self, report: &mut VerifyReport) -> Result<(), StoreError> {
        for (name, image) in self.shared.tables.images.all()? {
            report.images += 1;
            if !self.shared.is_whole(&image)? {
                report.problems.push(format!("image `{name}` lost a part of its data"));
            }
        }
        Ok(())
    }
}

/// Whether the file `path` holds the blob `digest`. A file that is not there does not.
pub(super) fn blob_is_sound(path: &Path, digest: &Digest) -> Result<bool, StoreError> {
    Ok(file_digest(path)?.is_some_and(|found| found == *digest))
}

/// The digest of the bytes of the file `path`; `None` when it is not there.
pub(super) fn file_digest(path: &Path) -> Result<Option<Digest>, StoreError> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StoreError::io("open", path)(e)),
    };
    let mut hashing = Hashing::new(std::io::sink());
    std::io::copy(&mut file, &mut hashing).map_err(StoreError::io("read", path))?;
    let (_, digest, _) = hashing.finish();
    Ok(Some(digest))
}
