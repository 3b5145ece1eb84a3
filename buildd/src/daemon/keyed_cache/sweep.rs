//! Removing what nobody has used for long.
//!
//! Who uses a record, a snapshot of a mount, an account or a blob makes it young ([`super::lend::REFRESH`]). A sweep removes the records,
//! snapshots and accounts that have grown old, those of each scope as its own writers said last. The blobs that
//! no record names any more it only lists; those that a later sweep, [`INTERVAL`] after, finds on that list, still old and unnamed, it
//! removes. A build that read a record just before it went has that long to fetch its blobs, and one that found a blob there and did not
//! write it again has made it young. A removal too many costs a build a step, never a wrong result.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use cache::keyed::{RECORD_LIMIT, Scope, blobs_in};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use solver::{ExecError, VertexContext};

use super::home::{Home, HomeError, Listed, NOTE, blob_name, limit_name};
use super::place::MIN_EXPIRE;
use super::{KeyedCaches, KeyedTarget};
use crate::daemon::progress::Step;
use crate::progress::plural;

/// How long after the one another sweep begins, and how long a blob without a record stays.
const INTERVAL: Duration = Duration::from_hours(24);
/// How large the list of blobs that are to go may be, in bytes.
const LIST_LIMIT: u64 = 256 << 20;
/// How large what a scope's writers say may be, in bytes.
const SAID_LIMIT: u64 = 1 << 10;
/// How many requests are under way at a time.
const AT_ONCE: usize = 32;

/// What a sweep leaves for the next one.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Sweep {
    /// The names of blobs that nothing named then.
    unnamed: BTreeSet<String>,
}

/// What the writers of a scope say of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    /// What nobody uses is kept for so many milliseconds.
    keep_ms: u64,
}

impl Said {
    /// For how long what nobody uses is kept: not so short that it could be in use, whoever says so.
    fn limit(&self) -> Duration {
        Duration::from_millis(self.keep_ms).max(MIN_EXPIRE)
    }
}

/// What a sweep did.
#[derive(Debug, Default)]
struct Swept {
    records: usize,
    blobs: usize,
    /// So many things could not be looked at, and why the first could not.
    unread: (usize, Option<HomeError>),
}

impl KeyedCaches {
    /// Says for how long what nobody uses is kept, and sweeps the store, if that was not done lately.
    pub(super) async fn expire(
        &self,
        target: &KeyedTarget,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<(), ExecError> {
        let swept = async {
            let home = self.home(&target.place, cx).await?;
            if !home.can_sweep() {
                return Ok(None);
            }
            say(&home, &target.scope, target.expire).await?;
            let (Some(limit), true) = (target.expire, is_due(&home).await?) else { return Ok(None) };
            step.part("removing what has expired", sweep(&home, limit)).await.map(Some)
        };
        let swept: Result<Option<Swept>, HomeError> = tokio::select! {
            swept = swept => swept,
            () = cx.cancel.cancelled() => return Err(ExecError::Canceled),
        };
        let Some(Swept { records, blobs, unread }) = swept.map_err(ExecError::failed)? else { return Ok(()) };
        if let (count, Some(error)) = unread {
            let why = crate::causes::causes(&error);
            step.warn(&[format!("no blobs are removed: {count} records and others cannot be read ({why})")]);
        }
        let (records, blobs) = (plural(records as u64, "record"), plural(blobs as u64, "blob"));
        let told = format!("removed {records} and {blobs}");
        step.part(&told, async { Ok::<_, ExecError>(()) }).await
    }
}

/// Leaves what is now said of a scope, if that is something else than before.
async fn say(home: &Home, scope: &Scope, limit: Option<Duration>) -> Result<(), HomeError> {
    let name = limit_name(scope);
    let known = home.read_whole(&name, SAID_LIMIT).await?;
    let said_before: Option<Said> = known.as_deref().and_then(|known| serde_json::from_slice(known).ok());
    match limit.map(|limit| Said { keep_ms: limit.as_millis() as u64 }) {
        Some(said) if said_before.as_ref() != Some(&said) => {
            home.put_whole(&name, serde_json::to_vec(&said).unwrap_or_default()).await
        }
        None if known.is_some() => home.remove(&name).await,
        _ => Ok(()),
    }
}

/// Whether it is time for a sweep. One that is to come is one of a wrong clock.
async fn is_due(home: &Home) -> Result<bool, HomeError> {
    let last = home.stat_of(NOTE).await?.and_then(|stat| stat.modified);
    let lately = last.is_some_and(|last| match SystemTime::now().duration_since(last) {
        Ok(age) => age < INTERVAL,
        Err(ahead) => ahead.duration() < INTERVAL,
    });
    Ok(!lately)
}

/// What the writers of all scopes say. Of the others all is kept for ever.
async fn limits(home: &Home) -> Result<BTreeMap<String, Duration>, HomeError> {
    let mut limits = BTreeMap::new();
    let mut listed = home.list("limits").await?;
    while let Some(Listed { name, .. }) = listed.try_next().await? {
        let said = match home.read_whole(&name, SAID_LIMIT).await {
            Err(error) if error.is_of_one() => continue,
            said => said?.and_then(|said| serde_json::from_slice::<Said>(&said).ok()),
        };
        if let (Some(said), Some(scope)) = (said, name.rsplit('/').next()) {
            limits.insert(scope.to_owned(), said.limit());
        }
    }
    Ok(limits)
}

/// Removes expired records, each scope's as that says, and the blobs that the last sweep listed, and lists others.
async fn sweep(home: &Home, limit: Duration) -> Result<Swept, HomeError> {
    let limits = limits(home).await?;
    // A list that cannot be read is as good as none: the blobs are listed again.
    let last = home.read_whole(NOTE, LIST_LIMIT).await?.unwrap_or_default();
    let last: Sweep = serde_json::from_slice(&last).unwrap_or_default();
    let mut named: BTreeSet<String> = BTreeSet::new();
    let mut swept = Swept::default();
    // What took the place of a snapshot or account that was read at the first look is there at the next.
    for sort in ["records", "mounts", "accounts", "mounts", "accounts"] {
        let judged = home.list(sort).await?.map_ok(|listed| judge(home, listed, &limits));
        let mut judged = judged.try_buffer_unordered(AT_ONCE);
        while let Some(judged) = judged.try_next().await? {
            match judged {
                Judged::Named(names) => named.extend(names),
                Judged::Removed => swept.records += 1,
                Judged::Unread(error) => {
                    swept.unread = (swept.unread.0 + 1, swept.unread.1.or(Some(error)));
                }
            }
        }
    }
    let (mut unnamed, mut gone) = (BTreeSet::new(), Vec::new());
    // Which blobs are named by what cannot be read nobody knows.
    if swept.unread.0 == 0 {
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
    }
    swept.blobs = gone.len();
    futures_util::stream::iter(gone.into_iter().map(Ok))
        .try_for_each_concurrent(AT_ONCE, |name| async move {
            // It may have been used since it was listed.
            match home.stat_of(&name).await? {
                Some(stat) if super::home::is_old(&stat, limit) => home.remove(&name).await,
                _ => Ok(()),
            }
        })
        .await?;
    home.put_whole(NOTE, serde_json::to_vec(&Sweep { unnamed }).unwrap_or_default()).await?;
    Ok(swept)
}

/// What became of a record, a snapshot or an account.
enum Judged {
    /// It stays, and names these blobs.
    Named(Vec<String>),
    Removed,
    Unread(HomeError),
}

/// Removes a record, a snapshot or an account if it is older than its scope keeps it.
async fn judge(
    home: &Home,
    listed: Listed,
    limits: &BTreeMap<String, Duration>,
) -> Result<Judged, HomeError> {
    match judged(home, listed, limits).await {
        Err(error) if error.is_of_one() => Ok(Judged::Unread(error)),
        judged => judged,
    }
}

async fn judged(
    home: &Home,
    Listed { name, stat }: Listed,
    limits: &BTreeMap<String, Duration>,
) -> Result<Judged, HomeError> {
    let limit = name.split('/').nth(2).and_then(|scope| limits.get(scope));
    if let Some(limit) = limit.copied()
        && super::home::is_old(&stat, limit)
    {
        // It may have been used since it was listed.
        if home.stat_of(&name).await?.is_none_or(|now| super::home::is_old(&now, limit)) {
            home.remove(&name).await?;
            return Ok(Judged::Removed);
        }
    }
    if stat.size > RECORD_LIMIT {
        // Nobody wrote that as a record.
        return Ok(Judged::Named(Vec::new()));
    }
    let bytes = home.read_whole(&name, RECORD_LIMIT).await?.unwrap_or_default();
    Ok(Judged::Named(blobs_in(&bytes).iter().map(|blob| blob_name(&blob.digest)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_have_removed_what_may_be_in_use() {
        assert_eq!(Said { keep_ms: 1 }.limit(), MIN_EXPIRE);
        let month = Duration::from_hours(720);
        assert_eq!(Said { keep_ms: month.as_millis() as u64 }.limit(), month);
    }
}
