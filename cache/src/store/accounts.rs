//! What builds were keyed on, for who asks why a step ran again: the latest account of each project, and what was told of each
//! build. Both are opaque here, but for the trees that an account names.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use solver::Digest;

use super::db::{Batch, Sync};
use super::error::StoreError;
use super::shared::Shared;
use super::table::{TableValue, json_value};

/// So many projects are remembered, those that were built last; each counts for its platforms and for all of them together.
const MAX_PROJECTS: usize = 400;

/// What a project's latest build was keyed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// When it was written, in milliseconds since 1970.
    pub written_ms: u64,
    /// The roots of the trees of directories that it names; they are kept as long as it is.
    pub roots: Vec<Digest>,
    /// All of it, as its writer has it.
    #[serde(skip)]
    pub body: String,
}

/// A line of JSON, and the body as it is.
impl TableValue for Account {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("plain data always serialises");
        bytes.push(b'\n');
        bytes.extend(self.body.as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, body) = std::str::from_utf8(bytes).ok()?.split_once('\n')?;
        let head: Self = serde_json::from_str(head).ok()?;
        Some(Self { body: body.to_owned(), ..head })
    }
}

/// What was told of a build, as its writer has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Explained(String);

json_value!(Explained);

/// The accounts of a store.
#[derive(Debug, Clone)]
pub struct Accounts {
    pub(super) shared: Arc<Shared>,
}

impl Accounts {
    /// The latest account of `project`.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn latest(&self, project: &Digest) -> Result<Option<Account>, StoreError> {
        self.shared.tables.accounts.get(project)
    }

    /// Writes an account in place of the one before; unsynced, as all that can be done without.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn put(&self, project: &Digest, account: &Account) -> Result<(), StoreError> {
        self.shared.tables.accounts.put(project, account)
    }

    /// Keeps what is to be told of a build; it goes when the build's record goes.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn explain(&self, build: &str, text: String) -> Result<(), StoreError> {
        self.shared.tables.explanations.put(&build.to_owned(), &Explained(text))
    }

    /// What is to be told of a build.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn explanation(&self, build: &str) -> Result<Option<String>, StoreError> {
        Ok(self.shared.tables.explanations.get(&build.to_owned())?.map(|Explained(text)| text))
    }
}

impl Shared {
    /// Forgets the accounts of the projects that were not built for longest, and what was told of builds without a record.
    pub(super) fn trim_accounts(&self) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let mut written: Vec<(u64, Digest)> = Vec::new();
        self.tables.accounts.scan(|key, account| {
            written.extend(key.zip(account).map(|(key, account)| (account.written_ms, key)));
            true
        })?;
        written.sort_unstable();
        let surplus = written.len().saturating_sub(MAX_PROJECTS);
        written.iter().take(surplus).for_each(|(_, key)| self.tables.accounts.delete_in(&mut batch, key));
        for (build, _) in self.tables.explanations.all()? {
            if self.tables.history.get(&build)?.is_none() {
                self.tables.explanations.delete_in(&mut batch, &build);
            }
        }
        self.db.write(&batch, Sync::No)
    }

    /// The roots of the trees that accounts name.
    pub(super) fn account_roots(&self) -> Result<Vec<Digest>, StoreError> {
        let mut roots = Vec::new();
        self.tables.accounts.scan(|_, account| {
            roots.extend(account.map(|account| account.roots).unwrap_or_default());
            true
        })?;
        Ok(roots)
    }
}
