//! What a project's latest build was keyed on, for machines that have not built it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cache::keyed::{RECORD_LIMIT, Scope, SharedAccount, SharedBlob, Trust};
use solver::{Digest, VertexContext};

use super::home::{Home, HomeError, account_name, blob_name};
use super::place::{KeyedPlace, KeyedTarget};
use super::{KeyedCaches, Source};
use crate::daemon::blocking::blocking;
use crate::daemon::timestamp::now_ms;

/// How large an account may be, in bytes, as it is shared.
const LIMIT: u64 = 40 << 20;
/// How long the end of a build waits for an account to come, and for it to go.
const PATIENCE: Duration = Duration::from_secs(10);
/// The type of an account's blob.
const TYPE: &str = "application/vnd.rbuild.account.v1+zstd";

/// An account to leave.
#[derive(Debug)]
pub(in crate::daemon) struct Left {
    /// Of which project.
    pub(in crate::daemon) project: Digest,
    /// What it is not written again for.
    pub(in crate::daemon) state: Digest,
    /// When it was made, in milliseconds since 1970.
    pub(in crate::daemon) written_ms: u64,
    /// The digest of its bytes.
    pub(in crate::daemon) digest: Digest,
    pub(in crate::daemon) bytes: Bytes,
}

/// Where an account lies.
struct Lying<'a> {
    source: &'a Source,
    scope: &'a Scope,
    home: Arc<Home>,
    account: SharedAccount,
}

impl KeyedCaches {
    /// The latest account of a project in all caches that are looked into, if it is later than `since`, in milliseconds since 1970. What
    /// cannot be had is as good as none.
    pub(in crate::daemon) async fn account(
        &self,
        project: &Digest,
        since: Option<u64>,
        cx: &VertexContext,
    ) -> Option<Vec<u8>> {
        let sources = self.lock().sources.clone();
        let find = async {
            let asked = sources.iter().filter(|source| source.failed.get().is_none());
            let all =
                futures_util::future::join_all(asked.map(|source| self.lying(source, project, cx))).await;
            let mut all: Vec<Lying<'_>> = all.into_iter().flatten().collect();
            // Of one that is ahead of this clock nobody knows when it was written: it is better than nothing.
            let now = now_ms();
            let age = |lying: &Lying<'_>| Some(lying.account.written_ms).filter(|at| *at <= now).unwrap_or(0);
            all.retain(|lying| since.is_none_or(|since| age(lying) > since));
            all.sort_by_key(|lying| std::cmp::Reverse(age(lying)));
            for lying in all {
                let bytes = self.account_bytes(&lying, cx).await;
                if bytes.is_some() {
                    return bytes;
                }
            }
            None
        };
        let find = tokio::time::timeout(PATIENCE, find);
        cx.cancel.run_until_cancelled(find).await?.ok()?
    }

    /// Where the account of a project lies in a cache: in the first scope that has any.
    async fn lying<'a>(&self, source: &'a Source, project: &Digest, cx: &VertexContext) -> Option<Lying<'a>> {
        let home = logged(self.home(&source.wanted.place, cx).await, cx)?;
        for scope in &source.wanted.scopes {
            let there = there(&home, (scope, &source.wanted.trust), project).await;
            if let Some(account) = logged(there, cx).flatten().filter(|there| there.body.size <= LIMIT) {
                return Some(Lying { source, scope, home, account });
            }
        }
        None
    }

    async fn account_bytes(&self, lying: &Lying<'_>, cx: &VertexContext) -> Option<Vec<u8>> {
        let Lying { source, scope, home, account } = lying;
        let bytes = logged(home.whole_new(&account.body).await, cx)?;
        let wanted = account.body.digest;
        let whole = blocking(move || (Digest::of(&bytes) == wanted).then_some(bytes)).await;
        match &whole {
            Some(_) => self.keep_account_young(home, scope, account),
            None => drop(self.lock().damaged.insert((source.wanted.place.id(), account.body.clone()))),
        }
        whole
    }

    /// The caches that are written and do not have an account of this state.
    pub(in crate::daemon) async fn accounts_to_write(
        &self,
        project: &Digest,
        state: &Digest,
        cx: &VertexContext,
    ) -> Vec<KeyedTarget> {
        let one = |target: KeyedTarget| async move {
            let lacks = self.lacks_account(&target, project, state, cx);
            let lacks = tokio::time::timeout(PATIENCE, lacks).await.ok()?;
            logged(lacks, cx)?.then_some(target)
        };
        let all = futures_util::future::join_all(self.uploads.wanted().into_iter().map(one));
        let all = cx.cancel.run_until_cancelled(all).await.unwrap_or_default();
        all.into_iter().flatten().collect()
    }

    async fn lacks_account(
        &self,
        target: &KeyedTarget,
        project: &Digest,
        state: &Digest,
        cx: &VertexContext,
    ) -> Result<bool, HomeError> {
        let KeyedTarget { place, scope, trust, .. } = target;
        let home = self.home(place, cx).await?;
        let there = there(&home, (scope, trust), project).await?;
        let Some(there) = there.filter(|there| there.state == *state && !self.is_bad(place, &there.body))
        else {
            return Ok(true);
        };
        self.keep_account_young(&home, scope, &there);
        Ok(home.stat(&there.body).await?.is_none())
    }

    /// Writes an account to these caches. What cannot be written is only logged.
    pub(in crate::daemon) async fn write_account(
        &self,
        targets: Vec<KeyedTarget>,
        left: &Left,
        cx: &VertexContext,
    ) {
        let one = |target: KeyedTarget| async move {
            let written = tokio::time::timeout(PATIENCE, self.write_account_to(&target, left, cx)).await;
            logged(written.unwrap_or(Ok(())), cx)
        };
        let all = futures_util::future::join_all(targets.into_iter().map(one));
        let _ = cx.cancel.run_until_cancelled(all).await;
    }

    async fn write_account_to(
        &self,
        target: &KeyedTarget,
        left: &Left,
        cx: &VertexContext,
    ) -> Result<(), HomeError> {
        let KeyedTarget { place, scope, signer, .. } = target;
        let Left { project, state, written_ms, digest, bytes } = left;
        let (size, media_type) = (bytes.len() as u64, TYPE.to_owned());
        let body = SharedBlob { digest: *digest, size, media_type };
        let account = SharedAccount { project: *project, state: *state, written_ms: *written_ms, body };
        let sealed = account.seal(scope, signer.as_ref());
        if account.body.size > LIMIT || sealed.len() as u64 > RECORD_LIMIT {
            return Ok(());
        }
        let home = self.home(place, cx).await?;
        home.prepare().await?;
        home.put(&account.body, Arc::new(bytes.clone())).await?;
        home.put_account(scope, &account, sealed).await
    }

    fn is_bad(&self, place: &KeyedPlace, blob: &SharedBlob) -> bool {
        self.lock().damaged.contains(&(place.id(), blob.clone()))
    }

    fn keep_account_young(&self, home: &Arc<Home>, scope: &Scope, account: &SharedAccount) {
        let names = vec![account_name(scope, &account.project), blob_name(&account.body.digest)];
        self.uploads.keep_young(home.clone(), names);
    }
}

/// What was had. An explanation that could have said more is no reason to warn of anything.
fn logged<T>(result: Result<T, HomeError>, cx: &VertexContext) -> Option<T> {
    result
        .inspect_err(|error| {
            let error = crate::causes::causes(error);
            tracing::debug!(build = cx.build, "what builds were keyed on cannot be shared: {error}");
        })
        .ok()
}

/// The account of a project that lies in a store, if it is one to go by.
async fn there(
    home: &Home,
    (scope, trust): (&Scope, &Trust),
    project: &Digest,
) -> Result<Option<SharedAccount>, HomeError> {
    let bytes = home.account(scope, project).await?;
    Ok(bytes.and_then(|bytes| SharedAccount::open(&bytes, project, scope, trust).ok()))
}
