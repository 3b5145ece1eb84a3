//! What a build elsewhere was keyed on, from the caches that machines share: for who builds on one that has not built the project.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cache::tree::{Bundle, NodeId, Trees};
use solver::digest::Hasher;
use solver::{Digest, VertexContext};
use tokio::sync::OnceCell;

use super::account::Account;
use super::{Explainer, Project, directories};
use crate::daemon::blocking::blocking;
use crate::daemon::keyed_cache::Left;
use crate::daemon::parts::Parts;
use crate::daemon::remote_cache::RemoteCaches;

/// How long an account may be before it is compressed, in bytes, without its trees and those alone. What was left by others may take some
/// thirty times as much once it is read.
const HEAD_LIMIT: usize = 4 << 20;
const TREES_LIMIT: usize = 32 << 20;
/// How many paths its trees may have.
const MOST_PATHS: u64 = 4 << 20;
/// How hard it is compressed, on zstd's scale.
const LEVEL: i32 = 3;

/// A build elsewhere.
#[derive(Debug)]
pub(super) struct Former {
    pub account: Account,
    /// The trees that it names, as far as they came along, and those that are here.
    pub trees: Trees,
}

/// What a build was keyed on, for other machines.
#[derive(Debug)]
pub(in crate::daemon) struct Leaving {
    pub(super) project: Digest,
    pub(super) account: Account,
    /// Where the trees that it names may be besides this machine.
    pub(super) former: Option<Arc<Former>>,
    /// In milliseconds since 1970.
    pub(super) written_ms: u64,
}

/// What the caches of one build have of the project's builds elsewhere; they are asked once.
pub(in crate::daemon) struct Elsewhere {
    parts: Arc<Parts>,
    session: String,
    pub(super) caches: Arc<RemoteCaches>,
    cx: VertexContext,
    project: OnceCell<Project>,
    /// Somebody is looking already.
    expected: AtomicBool,
    former: OnceCell<Option<Arc<Former>>>,
}

impl std::fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Elsewhere").field("former", &self.former).finish_non_exhaustive()
    }
}

impl Elsewhere {
    /// Of the caches of a build of `session`, which `cx` is of.
    pub(in crate::daemon) fn new(
        parts: &Arc<Parts>,
        session: &str,
        caches: &Arc<RemoteCaches>,
        cx: VertexContext,
    ) -> Self {
        let (parts, session, caches) = (parts.clone(), session.to_owned(), caches.clone());
        let (project, expected, former) = Default::default();
        Self { parts, session, caches, cx, project, expected, former }
    }

    /// What is built, the frontend having been asked for this; the first that is asked for counts.
    pub(super) async fn project(&self, asked: Option<&BTreeMap<String, String>>) -> &Project {
        let find = || async {
            let session = match self.session.as_str() {
                "" => None,
                session => self.parts.sessions.get(session, Duration::ZERO).await.ok(),
            };
            let locals = &self.parts.locals;
            let directory = locals.place(&self.session, session.as_ref());
            let called = locals.called(&self.session, session.as_ref());
            Project::of(asked, &directory, &called)
        };
        self.project.get_or_init(find).await
    }

    /// The project's latest build elsewhere, if it is later than the latest one here.
    pub(super) async fn former(&self, project: &Project) -> Option<Arc<Former>> {
        let find = || async {
            let shared = project.shared?;
            if !self.caches.keyed().reads() {
                return None;
            }
            let (explainer, own) = (self.parts.explainer.clone(), project.clone());
            let since = blocking(move || explainer.ended_ms(&own)).await;
            let found = self.caches.keyed().account(&shared, since, &self.cx).await?;
            let here = self.parts.chains.trees.clone();
            blocking(move || unpack(&found, &here)).await.map(Arc::new)
        };
        self.former.get_or_init(find).await.clone()
    }

    /// Begins to look for the latest build elsewhere, now that it will be needed.
    pub(super) fn expect(self: &Arc<Self>, asked: Option<&BTreeMap<String, String>>) {
        if !self.caches.keyed().reads() || self.expected.swap(true, Ordering::Relaxed) {
            return;
        }
        let (me, asked) = (self.clone(), asked.cloned());
        tokio::spawn(async move {
            let project = me.project(asked.as_ref()).await;
            me.former(project).await;
        });
    }

    /// Leaves what this build was keyed on in the caches that it writes, but for those that have it.
    pub(super) async fn leave(&self, leaving: Leaving) {
        let keyed = self.caches.keyed();
        let state = state(&leaving.account);
        let targets = keyed.accounts_to_write(&leaving.project, &state, &self.cx).await;
        if targets.is_empty() {
            return;
        }
        let explainer = self.parts.explainer.clone();
        let left = blocking(move || {
            let Leaving { project, account, former, written_ms } = leaving;
            let bytes = pack(&account, explainer.trees_of(former.as_deref()))?;
            Some(Left { project, state, written_ms, digest: Digest::of(&bytes), bytes })
        });
        if let Some(left) = left.await {
            keyed.write_account(targets, &left, &self.cx).await;
        }
    }
}

/// What an account tells for which it need not be written again.
fn state(account: &Account) -> Digest {
    let mut hasher = Hasher::new("rbuild.explain.state.v1");
    for step in &account.steps {
        hasher.digest(&step.definition.map_or(Digest::of(b""), |key| key.0)).bool(step.finished);
    }
    hasher.finish()
}

/// An account and those of `trees` that it names, if they are not too large: compressed, the length of the account as eight bytes, that, and
/// a bundle. `None` of an account that is too large itself. Blocking.
fn pack(account: &Account, trees: &Trees) -> Option<Bytes> {
    let roots: Vec<NodeId> = directories(account).into_iter().map(NodeId::new).collect();
    let head = serde_json::to_vec(&account.without_what_is_masked()).ok()?;
    if head.len() > HEAD_LIMIT {
        return None;
    }
    let bundle = trees.bundle(&roots, TREES_LIMIT).ok().flatten().unwrap_or_default();
    let plain = [&(head.len() as u64).to_le_bytes()[..], &head, &bundle.encode()].concat();
    zstd::encode_all(plain.as_slice(), LEVEL).ok().map(Bytes::from)
}

/// Reads what [`pack`] gave; `None` of anything else.
fn unpack(bytes: &[u8], here: &Trees) -> Option<Former> {
    // So many bytes tell the lengths of the nodes, which are not counted as theirs.
    let limit = HEAD_LIMIT + TREES_LIMIT + TREES_LIMIT / 2;
    let mut plain = Vec::new();
    let decoder = zstd::Decoder::with_buffer(bytes).ok()?;
    decoder.take(limit as u64).read_to_end(&mut plain).ok()?;
    let (length, rest) = plain.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|length| *length <= HEAD_LIMIT)?;
    let (head, _) = rest.split_at_checked(length)?;
    let account: Account = serde_json::from_slice(head).ok()?;
    let trees = here.with(&Bundle::decode(&Bytes::from(plain).slice(8 + length..))?);
    let roots: Vec<NodeId> = directories(&account).into_iter().map(NodeId::new).collect();
    let fits = trees.have_paths_within(&roots, MOST_PATHS).unwrap_or(false);
    fits.then_some(Former { account, trees })
}

impl Explainer {
    /// The trees here, and those of a build elsewhere.
    pub(super) fn trees_of<'a>(&'a self, former: Option<&'a Former>) -> &'a Trees {
        former.map_or(&self.trees, |former| &former.trees)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_what_was_packed_is_read() {
        let here = Trees::new(Arc::new(cache::tree::MemoryNodes::default()));
        let account = Account { build: "b".to_owned(), ..Account::default() };
        let packed = pack(&account, &here).unwrap();
        assert_eq!(unpack(&packed, &here).unwrap().account, account);
        for cut in 0..packed.len() {
            assert!(unpack(&packed[..cut], &here).is_none());
        }
        let read = |length: u64, rest: &[u8]| {
            let plain = [&length.to_le_bytes()[..], rest].concat();
            unpack(&zstd::encode_all(plain.as_slice(), LEVEL).unwrap(), &here).is_some()
        };
        let account = serde_json::to_vec(&former_account()).unwrap();
        let rest = |count: &[u8]| [&account[..], count].concat();
        let length = account.len() as u64;
        assert!(read(length, &rest(b"\0")));
        for (length, rest) in [
            (2, b"{}\0".to_vec()),
            (length, rest(b"")),
            (length, rest(b"\0\0")),
            // Nodes of nothing cost more than what tells of them.
            (length, rest(b"\x02\0\0")),
            (length + 9, rest(b"\0")),
            (u64::MAX, rest(b"\0")),
        ] {
            assert!(!read(length, &rest));
        }
    }

    fn former_account() -> Account {
        Account { build: "c".to_owned(), ..Account::default() }
    }
}
