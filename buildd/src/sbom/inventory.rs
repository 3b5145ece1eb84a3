//! What was found, each package once.

use std::collections::{BTreeMap, BTreeSet};

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use super::{FileKind, OsRelease, Package, ReadError};

/// More packages are not told of.
const MOST: usize = 200_000;

/// The packages of a file system, and the files that tell of them.
#[derive(Debug, Default)]
pub struct Inventory {
    os: OsRelease,
    pub(super) packages: BTreeMap<String, Installed>,
    pub(super) files: BTreeMap<String, Evidence>,
}

/// A package, and which files tell of it.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) package: Package,
    pub(super) files: BTreeSet<String>,
}

/// A file that tells of packages.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) kind: FileKind,
    pub(super) sha1: String,
    pub(super) sha256: String,
}

impl Inventory {
    /// Of a file system of a distribution.
    pub fn new(os: OsRelease) -> Self {
        Self { os, ..Self::default() }
    }

    /// Adds what a file says that lies at the absolute path `path`.
    ///
    /// # Errors
    /// A file that is not what its name says; nothing of it counts then.
    pub fn add(&mut self, path: &str, kind: FileKind, bytes: &[u8]) -> Result<(), ReadError> {
        let found = kind.packages(bytes)?;
        if found.is_empty() {
            return Ok(());
        }
        let hash = |algorithm| hex::encode(digest(algorithm, bytes));
        let evidence = Evidence { kind, sha1: hash(&SHA1_FOR_LEGACY_USE_ONLY), sha256: hash(&SHA256) };
        self.files.insert(path.to_owned(), evidence);
        for package in found {
            let package = self.os.name(package);
            let purl = package.purl();
            if self.packages.len() == MOST && !self.packages.contains_key(&purl) {
                break;
            }
            let installed = self
                .packages
                .entry(purl)
                .or_insert_with(|| Installed { package: package.clone(), files: BTreeSet::new() });
            installed.files.insert(path.to_owned());
            // A lock file may not say what the installed package does.
            installed.package.license = installed.package.license.take().or(package.license);
        }
        Ok(())
    }

    /// How many packages there are.
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }
}
