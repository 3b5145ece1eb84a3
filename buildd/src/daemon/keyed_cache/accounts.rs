//! What a project's latest build was keyed on, for machines that have not built it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cache::keyed::{RECORD_LIMIT, Scope, SharedAccount, SharedBlob, Trust};
use solver::{Digest, VertexContext};
use tokio::io::AsyncReadExt as _;

use super::home::{Home, HomeError, account_name, blob_name};
use super::place::{KeyedPlace, KeyedTarget};
use super::{KeyedCaches, Source};
use crate::daemon::blocking::blocking;

/// How large an account may be, in bytes, as it is shared.
const LIMIT: u64 = 32 << 20;
/// How long the end of a build waits for an account to come or go.
const PATIENCE: Duration = Duration::from_secs(20);
/// The type of an account's blob.
const TYPE: &str = "application/vnd.rbuild.account.v1+zstd";

/// An account that others have left.
#[derive(Debug)]
pub(in crate::daemon) struct Found {
    /// When, in milliseconds since 1970.
    pub(in crate::daemon) written_ms: u64,
    /// As it was left.
    pub(in crate::daemon) bytes: Vec<u8>,
}

/// An account to leave.
#[derive(Debug)]
pub(in crate::daemon) struct Left {
    /// Of which project.
    pub(in crate::daemon) project: Digest,
    /// What it is not written again for.
    pub(in crate::daemon) state: Digest,
    /// When it was made, in milliseconds since 1970.
    pub(in crate::daemon) written_ms: u64,
    pub(in crate::daemon) bytes: Bytes,
}

impl KeyedCaches {
    /// The latest account of a project in all caches that are looked into. What cannot be had is as good as none.
    pub(in crate::daemon) async fn account(&self, project: &Digest, cx: &VertexContext) -> Option<Found> {
        let sources = self.lock().sources.clone();
        let one = |source: Arc<Source>| async move {
            let found = self.account_from(&source, project, cx);
            match tokio::time::timeout(PATIENCE, found).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => {
                    let name = source.wanted.name();
                    let error = crate::causes::causes(&error);
                    tracing::debug!(
                        build = cx.build,
                        "what builds were keyed on cannot be had from {name}: {error}"
                    );
                    None
                }
                Err(_) => None,
            }
        };
        let asked = sources.into_iter().filter(|source| source.failed.get().is_none()).map(one);
        let all = cx.cancel.run_until_cancelled(futures_util::future::join_all(asked)).await?;
        all.into_iter().flatten().max_by_key(|found| found.written_ms)
    }

    async fn account_from(
        &self,
        source: &Source,
        project: &Digest,
        cx: &VertexContext,
    ) -> Result<Option<Found>, HomeError> {
        let place = &source.wanted.place;
        let home = self.home(place, cx).await?;
        for scope in &source.wanted.scopes {
            let there = there(&home, (scope, &source.wanted.trust), project).await?;
            let Some(there) = there.filter(|there| there.body.size <= LIMIT) else { continue };
            let mut bytes = Vec::new();
            let read = home.blob(&there.body).await?.read_to_end(&mut bytes).await;
            let wanted = there.body.digest;
            let whole = blocking(move || (Digest::of(&bytes) == wanted).then_some(bytes)).await;
            match whole.filter(|_| read.is_ok()) {
                Some(bytes) => {
                    self.keep_account_young(&home, scope, &there);
                    return Ok(Some(Found { written_ms: there.written_ms, bytes }));
                }
                None => drop(self.lock().damaged.insert((place.id(), there.body))),
            }
        }
        Ok(None)
    }

    /// Leaves an account in all caches that are written and do not have one like it. What cannot be written is only logged.
    pub(in crate::daemon) async fn leave_account(&self, left: &Left, cx: &VertexContext) {
        let one = |target: KeyedTarget| async move {
            let written = tokio::time::timeout(PATIENCE, self.leave_account_at(&target, left, cx)).await;
            if let Ok(Err(error)) = written {
                let error = crate::causes::causes(&error);
                tracing::warn!(build = cx.build, "cannot write what the build was keyed on: {error}");
            }
        };
        let all = futures_util::future::join_all(self.uploads.wanted().into_iter().map(one));
        let _ = cx.cancel.run_until_cancelled(all).await;
    }

    async fn leave_account_at(
        &self,
        target: &KeyedTarget,
        left: &Left,
        cx: &VertexContext,
    ) -> Result<(), HomeError> {
        let KeyedTarget { place, scope, trust, signer, .. } = target;
        let home = self.home(place, cx).await?;
        let there = there(&home, (scope, trust), &left.project).await?;
        if let Some(there) =
            there.filter(|there| there.state == left.state && !self.lacks(place, &there.body))
        {
            self.keep_account_young(&home, scope, &there);
            return Ok(());
        }
        let Left { project, state, written_ms, bytes } = left;
        let body =
            SharedBlob { digest: Digest::of(bytes), size: bytes.len() as u64, media_type: TYPE.to_owned() };
        let account = SharedAccount { project: *project, state: *state, written_ms: *written_ms, body };
        let sealed = account.seal(scope, signer.as_ref());
        if account.body.size > LIMIT || sealed.len() as u64 > RECORD_LIMIT {
            return Ok(());
        }
        home.prepare().await?;
        home.put(&account.body, Arc::new(bytes.clone())).await?;
        home.put_account(scope, &account, sealed).await
    }

    fn lacks(&self, place: &KeyedPlace, blob: &SharedBlob) -> bool {
        self.lock().damaged.contains(&(place.id(), blob.clone()))
    }

    fn keep_account_young(&self, home: &Arc<Home>, scope: &Scope, account: &SharedAccount) {
        let names = vec![account_name(scope, &account.project), blob_name(&account.body.digest)];
        self.uploads.keep_young(home.clone(), names);
    }
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
