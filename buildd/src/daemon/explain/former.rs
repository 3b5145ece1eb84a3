//! What a build elsewhere was keyed on, from the caches that machines share: for who builds on one that has not built the project.

use std::io::Read as _;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use cache::tree::{Bundle, NodeId, Trees};
use solver::digest::Hasher;
use solver::{Digest, VertexContext};
use tokio::sync::OnceCell;

use super::account::Account;
use super::{Project, directories};
use crate::daemon::blocking::blocking;
use crate::daemon::keyed_cache::{Found, Left};
use crate::daemon::remote_cache::RemoteCaches;
use crate::daemon::timestamp::to_millis;

/// How long an account may be before it is compressed, in bytes. Without its trees it may say less, but it is shorter.
const LIMIT: usize = 64 << 20;
/// How hard it is compressed, on zstd's scale.
const LEVEL: i32 = 3;

/// A build elsewhere.
#[derive(Debug)]
pub(super) struct Former {
    pub account: Account,
    /// In milliseconds since 1970.
    pub written_ms: u64,
    /// The trees that it names, as far as they came along, and those that are here.
    pub trees: Trees,
}

/// What the caches of one build have of the project's builds elsewhere; they are asked once.
pub(in crate::daemon) struct Elsewhere {
    pub(super) caches: Arc<RemoteCaches>,
    cx: VertexContext,
    former: OnceCell<Option<Arc<Former>>>,
}

impl std::fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Elsewhere").field("former", &self.former).finish_non_exhaustive()
    }
}

impl Elsewhere {
    /// Of the caches of a build, which `cx` is of.
    pub(in crate::daemon) fn new(caches: &Arc<RemoteCaches>, cx: VertexContext) -> Self {
        Self { caches: caches.clone(), cx, former: OnceCell::new() }
    }

    /// The project's latest build elsewhere; `here` are the trees of this machine.
    pub(super) async fn former(&self, project: &Project, here: &Arc<Trees>) -> Option<Arc<Former>> {
        let find = || async {
            let shared = project.shared?;
            let found = self.caches.keyed().account(&shared, &self.cx).await?;
            let here = here.clone();
            blocking(move || unpack(&found, &here)).await.map(Arc::new)
        };
        self.former.get_or_init(find).await.clone()
    }

    /// Leaves what this build was keyed on in the caches that it writes.
    pub(super) async fn leave(&self, left: &Left) {
        self.caches.keyed().leave_account(left, &self.cx).await;
    }
}

/// What is left of a build of `project`, with those of `trees` that it names, if they are not too large. Blocking.
pub(super) fn pack(project: Digest, account: &Account, trees: &Trees) -> Option<Left> {
    let mut hasher = Hasher::new("rbuild.explain.state.v1");
    for step in &account.steps {
        hasher.digest(&step.definition.map_or(Digest::of(b""), |key| key.0)).bool(step.finished);
    }
    let state = hasher.finish();
    let roots: Vec<NodeId> = directories(account).into_iter().map(NodeId::new).collect();
    let head = serde_json::to_vec(account).ok()?;
    let room = LIMIT.checked_sub(head.len() + 1)?;
    let bundle = trees.bundle(&roots, room).ok().flatten().unwrap_or_default();
    let plain = [&head[..], b"\n", &bundle.encode()].concat();
    let bytes = Bytes::from(zstd::encode_all(plain.as_slice(), LEVEL).ok()?);
    Some(Left { project, state, written_ms: to_millis(SystemTime::now()), bytes })
}

/// Reads what [`pack`] gave; `None` of anything else.
fn unpack(found: &Found, here: &Trees) -> Option<Former> {
    let mut plain = Vec::new();
    let decoder = zstd::Decoder::with_buffer(found.bytes.as_slice()).ok()?;
    // The nodes' lengths are not counted above.
    decoder.take(2 * LIMIT as u64).read_to_end(&mut plain).ok()?;
    let end = plain.iter().position(|byte| *byte == b'\n')?;
    let account: Account = serde_json::from_slice(&plain[..end]).ok()?;
    let trees = here.with(&Bundle::decode(&plain[end + 1..])?);
    Some(Former { account, written_ms: found.written_ms, trees })
}

impl Former {
    /// Whether it seems to be of the same project: else two that are called alike would be compared.
    pub(super) fn resembles(&self, now: &Account) -> bool {
        let has = |text: &Digest| self.account.steps.iter().any(|step| step.raw == *text);
        now.steps.iter().any(|step| has(&step.raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(left: &Left) -> Found {
        Found { written_ms: left.written_ms, bytes: left.bytes.to_vec() }
    }

    #[test]
    fn nothing_but_what_was_packed_is_read() {
        let here = Trees::new(Arc::new(cache::tree::MemoryNodes::default()));
        let account = Account { build: "b".to_owned(), ..Account::default() };
        let left = pack(Digest::of(b"p"), &account, &here).unwrap();
        assert_eq!(unpack(&found(&left), &here).unwrap().account, account);
        for cut in 0..left.bytes.len() {
            let cut = Found { written_ms: 0, bytes: left.bytes[..cut].to_vec() };
            assert!(unpack(&cut, &here).is_none());
        }
        let other = zstd::encode_all(&b"{}\n\0"[..], LEVEL).unwrap();
        assert!(unpack(&Found { written_ms: 0, bytes: other }, &here).is_none());
    }
}
