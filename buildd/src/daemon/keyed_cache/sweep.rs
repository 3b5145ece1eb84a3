//! Removing what nobody has used for long.
//!
//! Who uses a record, a snapshot of a mount, an account or a blob makes it young ([`super::lend::REFRESH`]). A sweep removes the records,
//! snapshots and accounts that have grown old. The blobs that
//! no record names any more it only lists; those that a later sweep, [`GRACE`] after, finds on that list, still old and unnamed, it
//! removes. A build that read a record just before it went has that long to fetch its blobs, and one that found a blob there and did not
//! write it again has made it young. A removal too many costs a build a step, never a wrong result.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cache::keyed::{RECORD_LIMIT, blobs_in};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use solver::{ExecError, VertexContext};

use super::home::{Home, HomeError, Listed, blob_name};
use super::{KeyedCaches, KeyedTarget};
use crate::daemon::progress::Step;

/// How long after the one another sweep begins.
const INTERVAL: Duration = Duration::from_hours(24);
/// How long a blob without a record stays.
pub(super) const GRACE: Duration = Duration::from_hours(24);
/// How large the list of blobs that are to go may be, in bytes.
const LIST_LIMIT: u64 = 256 << 20;
/// How many requests are under way at a time.
const AT_ONCE: usize = 32;

/// What a sweep leaves for the next one.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Sweep {
    /// When it began, in milliseconds since 1970.
    began_ms: u64,
    /// By scope: for how many milliseconds what nobody uses is kept, as its last writer said. Others are kept for ever.
    #[serde(default)]
    limits: BTreeMap<String, u64>,
    /// The names of blobs that nothing named then.
    unnamed: BTreeSet<String>,
}

impl KeyedCaches {
    /// Sweeps a store of what was not used for as long as the target says, if that was not done lately.
    pub(super) async fn expire(
        &self,
        target: &KeyedTarget,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let Some(limit) = target.expire else { return Ok(()) };
        let swept = async {
            let home = self.home(&target.place, cx).await?;
            let Some(mut last) = last(&home).await? else { return Ok(None) };
            let limit_ms = limit.as_millis() as u64;
            let told = last.limits.insert(target.scope.as_str().to_owned(), limit_ms) == Some(limit_ms);
            if !last.is_due() {
                if !told {
                    home.leave_note(last.to_json()).await?;
                }
                return Ok(None);
            }
            step.part("removing what has expired", sweep(&home, last, limit)).await.map(Some)
        };
        let swept: Result<Option<(usize, usize)>, HomeError> = tokio::select! {
            swept = swept => swept,
            () = cx.cancel.cancelled() => return Err(ExecError::Canceled),
        };
        if let Some((records, blobs)) = swept.map_err(ExecError::failed)? {
            let told = format!("removed {records} records and {blobs} blobs");
            step.part(&told, async { Ok::<_, ExecError>(()) }).await?;
        }
        Ok(())
    }
}

impl Sweep {
    /// Whether it is time for another.
    fn is_due(&self) -> bool {
        SystemTime::now() >= UNIX_EPOCH + Duration::from_millis(self.began_ms) + INTERVAL.max(GRACE)
    }

    fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What the last sweep left; `None` for a store that cannot be swept.
async fn last(home: &Home) -> Result<Option<Sweep>, HomeError> {
    let Some(bytes) = home.note(LIST_LIMIT).await? else { return Ok(home.can_sweep().then(Sweep::default)) };
    // A list that cannot be read is as good as none: the blobs are listed again.
    Ok(Some(serde_json::from_slice(&bytes).unwrap_or_default()))
}

/// Removes expired records, each scope's as that says, and the blobs that the last sweep listed, and lists others; how many of each were
/// removed.
async fn sweep(home: &Home, last: Sweep, limit: Duration) -> Result<(usize, usize), HomeError> {
    let began = SystemTime::now();
    let mut named: BTreeSet<String> = BTreeSet::new();
    let mut records = 0;
    // What took the place of a snapshot or account that was read at the first look is there at the next.
    for sort in ["records", "mounts", "accounts", "mounts", "accounts"] {
        let judged = home.list(sort).await?.map_ok(|listed| judge(home, listed, &last.limits));
        let mut judged = judged.try_buffer_unordered(AT_ONCE);
        while let Some(kept) = judged.try_next().await? {
            match kept {
                Some(names) => named.extend(names),
                None => records += 1,
            }
        }
    }
    let mut unnamed = BTreeSet::new();
    let mut gone = Vec::new();
    let mut blobs = std::pin::pin!(home.list("blobs").await?);
    while let Some(Listed { name, stat }) = blobs.try_next().await? {
        if named.contains(&name) || !super::home::is_old(&stat, limit) {
            continue;
        }
        match last.unnamed.contains(&name) {
            true => gone.push(name),
            false => drop(unnamed.insert(name)),
        }
    }
    let removed = gone.len();
    futures_util::stream::iter(gone.into_iter().map(Ok))
        .try_for_each_concurrent(AT_ONCE, |name| async move {
            // It may have been used since it was listed.
            match home.stat_of(&name).await? {
                Some(stat) if super::home::is_old(&stat, limit) => home.remove(&name).await,
                _ => Ok(()),
            }
        })
        .await?;
    let began_ms = began.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    home.leave_note(Sweep { began_ms, unnamed, limits: last.limits }.to_json()).await?;
    Ok((records, removed))
}

/// Removes a record, a snapshot or an account if it is older than its scope keeps it; else gives the names of its blobs.
async fn judge(
    home: &Home,
    listed: Listed,
    limits: &BTreeMap<String, u64>,
) -> Result<Option<Vec<String>>, HomeError> {
    let Listed { name, stat } = listed;
    let limit = name.split('/').nth(2).and_then(|scope| limits.get(scope));
    if let Some(limit) = limit.copied().map(Duration::from_millis)
        && super::home::is_old(&stat, limit)
    {
        // It may have been used since it was listed.
        if home.stat_of(&name).await?.is_none_or(|now| super::home::is_old(&now, limit)) {
            home.remove(&name).await?;
            return Ok(None);
        }
    }
    if stat.size > RECORD_LIMIT {
        // Nobody wrote that as a record.
        return Ok(Some(Vec::new()));
    }
    let bytes = home.read_whole(&name, RECORD_LIMIT).await?.unwrap_or_default();
    Ok(Some(blobs_in(&bytes).iter().map(|blob| blob_name(&blob.digest)).collect()))
}
