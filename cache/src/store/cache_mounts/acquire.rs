//! Taking instances and giving them back.

use std::collections::{BTreeMap, HashMap};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fs_err as fs;

use super::state::Users;
use super::{CacheMountLease, CacheMountRequest, MountEntry, MountKey, MountOwner, Seed, Sharing};
use crate::store::db::{Batch, Sync};
use crate::store::epoch::Epoch;
use crate::store::error::StoreError;
use crate::store::shared::Shared;
use crate::store::trash;
use crate::store::usage::{UsageKind, Use};

/// What a request comes to at the moment.
enum Choice {
    /// This instance is ours.
    Reuse(CacheMountLease),
    /// This one is ours to make.
    Make(CacheMountLease),
    /// Somebody has to give one back first.
    Wait,
}

pub(in crate::store) async fn acquire(
    shared: &Arc<Shared>,
    kind: UsageKind,
    key: MountKey,
    request: CacheMountRequest,
    seed: Option<Seed>,
) -> Result<CacheMountLease, StoreError> {
    loop {
        let mut changed = std::pin::pin!(shared.mounts.changed.notified());
        // From here on a change is not missed, also when it comes before the wait.
        changed.as_mut().enable();
        match choose(shared, &key, &request)? {
            Choice::Reuse(lease) => return Ok(lease),
            Choice::Make(lease) => return make(lease, kind, request, seed).await,
            Choice::Wait => changed.await,
        }
    }
}

fn choose(shared: &Arc<Shared>, key: &MountKey, request: &CacheMountRequest) -> Result<Choice, StoreError> {
    let mut in_use = shared.mounts.lock();
    let mut known: Vec<(u64, String, MountEntry)> = shared
        .tables
        .cache_mounts
        .all()?
        .into_iter()
        .filter_map(|(name, entry)| Some((key.number(&name)?, name, entry)))
        .collect();
    known.sort_by_key(|(number, ..)| *number);
    if request.clear_for.is_some() {
        clear(shared, &in_use, &mut known, request)?;
    }
    known.retain(|(_, _, entry)| !entry.retired);
    let lease = |name: &str| lease(shared, name, &request.step);
    for (_, name, _) in &known {
        if let Some(users) = in_use.get_mut(name).filter(|users| users.admits(&request.step, request.sharing))
        {
            users.join(&request.step);
            return Ok(Choice::Reuse(lease(name)));
        }
    }
    for (_, name, entry) in &known {
        if !in_use.contains_key(name) {
            open(shared, name, entry)?;
            in_use.insert(name.clone(), Users::new(&request.step, request.sharing, false));
            return Ok(Choice::Reuse(lease(name)));
        }
    }
    // One that is being made has no entry yet.
    let making = in_use.iter().any(|(name, users)| users.making && key.number(name).is_some());
    let wait = match request.sharing {
        Sharing::Shared => making,
        Sharing::Private => false,
        Sharing::Locked => making || !known.is_empty(),
    };
    if wait {
        return Ok(Choice::Wait);
    }
    let name = free_name(shared, key, &in_use);
    in_use.insert(name.clone(), Users::new(&request.step, request.sharing, true));
    Ok(Choice::Make(lease(&name)))
}

/// Marks an instance as being written to, before anybody writes. A power cut may not leave a mark that is older and
/// on disk; one that a checkpoint is yet to cover is void after it as well.
fn open(shared: &Shared, name: &String, entry: &MountEntry) -> Result<(), StoreError> {
    let mut entry = entry.clone();
    entry.used.again(shared.now_ms());
    let last = std::mem::replace(&mut entry.epoch, Epoch::OPEN);
    // Not known before it is released.
    entry.size = None;
    let mut batch = Batch::default();
    shared.tables.cache_mounts.put_in(&mut batch, name, &entry);
    shared.db.write(&batch, Sync::No)?;
    // A checkpoint that begins from here on takes the write along.
    if last != shared.epochs.stamp() {
        shared.db.write(&batch, Sync::Yes)?;
    }
    Ok(())
}

/// Drops the instances that a `--no-cache` build has not had cleared yet.
fn clear(
    shared: &Shared,
    in_use: &HashMap<String, Users>,
    known: &mut [(u64, String, MountEntry)],
    request: &CacheMountRequest,
) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    let mut free = Vec::new();
    for (_, name, entry) in known.iter_mut().filter(|(_, _, entry)| entry.cleared_for != request.clear_for) {
        entry.retired = true;
        if in_use.contains_key(name) {
            shared.tables.cache_mounts.put_in(&mut batch, name, entry);
        } else {
            shared.tables.cache_mounts.delete_in(&mut batch, name);
            free.push(name.clone());
        }
    }
    if batch.is_empty() {
        return Ok(());
    }
    shared.db.write(&batch, Sync::Yes)?;
    for name in free {
        remove_later(shared, &name)?;
    }
    Ok(())
}

/// A name that neither an entry nor a directory has.
fn free_name(shared: &Shared, key: &MountKey, in_use: &HashMap<String, Users>) -> String {
    let mut number = 0;
    loop {
        let name = key.instance(number);
        if !in_use.contains_key(&name) && !shared.layout.cache_mounts().join(&name).exists() {
            return name;
        }
        number += 1;
    }
}

/// Makes the instance that `lease` has reserved. If this is given up, the blocking part still ends in order.
async fn make(
    lease: CacheMountLease,
    kind: UsageKind,
    request: CacheMountRequest,
    seed: Option<Seed>,
) -> Result<CacheMountLease, StoreError> {
    let made = tokio::task::spawn_blocking(move || {
        let shared = &lease.shared;
        let dir = new_dir(shared, &request, seed)?;
        let entry = MountEntry {
            kind,
            id: request.id,
            description: request.description,
            cleared_for: request.clear_for,
            retired: false,
            used: Use { count: 1, ..Use::new(shared.now_ms()) },
            epoch: Epoch::OPEN,
            size: None,
            based_on: BTreeMap::new(),
        };
        let mut in_use = shared.mounts.lock();
        fs::rename(dir.path(), &lease.dir).map_err(StoreError::io("create", &lease.dir))?;
        let _moved = dir.keep();
        shared.tables.cache_mounts.put(&lease.name, &entry)?;
        if let Some(users) = in_use.get_mut(&lease.name) {
            users.making = false;
        }
        drop(in_use);
        shared.mounts.changed.notify_waiters();
        Ok(lease)
    });
    match made.await {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => Err(StoreError::Interrupted("making a cache mount")),
    }
}

fn new_dir(
    shared: &Shared,
    request: &CacheMountRequest,
    seed: Option<Seed>,
) -> Result<tempfile::TempDir, StoreError> {
    let tmp = shared.layout.tmp();
    let dir = tempfile::Builder::new().prefix("mount-").tempdir_in(&tmp);
    let dir = dir.map_err(StoreError::io("create a directory in", &tmp))?;
    let path = dir.path();
    fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(StoreError::io("create", path))?;
    if let Some(seed) = seed {
        seed(path).map_err(StoreError::io("fill", path))?;
    }
    if let Some(owner) = &request.owner {
        set_owner(path, owner).map_err(StoreError::io("set the owner of", path))?;
    }
    Ok(dir)
}

fn set_owner(path: &Path, owner: &MountOwner) -> std::io::Result<()> {
    std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid))?;
    // After chown, which clears setuid and setgid.
    fs::set_permissions(path, Permissions::from_mode(owner.mode & 0o7777))
}

fn lease(shared: &Arc<Shared>, name: &str, step: &str) -> CacheMountLease {
    CacheMountLease {
        shared: Arc::clone(shared),
        name: name.to_owned(),
        step: step.to_owned(),
        dir: shared.layout.cache_mounts().join(name),
        size: Mutex::default(),
    }
}

/// Gives one use of an instance back.
pub(super) fn release(shared: &Shared, name: &str, step: &str, size: Option<u64>) -> Result<(), StoreError> {
    let mut in_use = shared.mounts.lock();
    let unused = in_use.get_mut(name).is_some_and(|users| users.leave(step));
    if !unused {
        return Ok(());
    }
    in_use.remove(name);
    let noted = note_release(shared, name, size);
    drop(in_use);
    shared.mounts.changed.notify_waiters();
    noted
}

fn note_release(shared: &Shared, name: &str, size: Option<u64>) -> Result<(), StoreError> {
    let name = name.to_owned();
    let Some(mut entry) = shared.tables.cache_mounts.get(&name)? else { return Ok(()) }; // was never made
    if entry.retired {
        return remove_entry(shared, &name);
    }
    entry.epoch = shared.epochs.stamp();
    entry.size = size;
    shared.tables.cache_mounts.put(&name, &entry)
}

/// Gives an instance back that was only read. The mount states are locked.
pub(super) fn end_reading(shared: &Shared, name: &String) -> Result<(), StoreError> {
    match shared.tables.cache_mounts.get(name)? {
        Some(entry) if entry.retired => remove_entry(shared, name),
        _ => Ok(()),
    }
}

/// Removes an instance. The mount states are locked.
fn remove_entry(shared: &Shared, name: &String) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    shared.tables.cache_mounts.delete_in(&mut batch, name);
    shared.db.write(&batch, Sync::Yes)?;
    remove_later(shared, name)
}

/// Moves a directory away and removes it beside us. The mount states are locked.
fn remove_later(shared: &Shared, name: &str) -> Result<(), StoreError> {
    let gone: Option<PathBuf> = shared.trash.take(&shared.layout.cache_mounts().join(name))?;
    if let Some(gone) = gone {
        std::thread::spawn(move || trash::remove(&gone));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, StoreOptions};

    fn request(step: &str, sharing: Sharing) -> CacheMountRequest {
        CacheMountRequest {
            id: "id".to_owned(),
            sharing,
            owner: None,
            base: None,
            step: step.to_owned(),
            clear_for: None,
            description: String::new(),
        }
    }

    #[tokio::test]
    async fn who_reads_a_mount_waits_for_its_users_and_they_for_it() -> Result<(), Box<dyn std::error::Error>>
    {
        let dir = tempfile::tempdir()?;
        let store = Store::open(&dir.path().join("root"), StoreOptions::default())?;
        let mounts = store.cache_mounts();
        let used = mounts.acquire(request("one", Sharing::Shared), None).await?;
        let instance = used.instance().to_owned();
        fs::write(used.dir().join("f"), "1")?;
        let reading = tokio::spawn({
            let (mounts, instance) = (store.cache_mounts(), instance.clone());
            async move { mounts.read(&instance).await }
        });
        tokio::task::yield_now().await;
        assert!(!reading.is_finished());
        drop(used);
        let reading = reading.await??.ok_or("it is there")?;
        assert_eq!(fs::read(reading.dir().join("f"))?, b"1");

        // Who shares it waits; who wants it alone takes another one.
        let sharing = tokio::spawn({
            let mounts = store.cache_mounts();
            async move { mounts.acquire(request("two", Sharing::Shared), None).await }
        });
        let alone = mounts.acquire(request("three", Sharing::Private), None).await?;
        assert_ne!(alone.instance(), instance);
        assert!(!sharing.is_finished());
        drop(reading);
        let shared = sharing.await??;
        assert_eq!(shared.instance(), instance);
        drop((shared, alone));

        // What it was filled with is known for as long as it is there.
        let mounts_again = store.cache_mounts();
        mounts_again.set_based_on(&instance, "place", vec!["one".to_owned()])?;
        let reading = mounts.read(&instance).await?.ok_or("it is there")?;
        assert_eq!(reading.based_on("place")?, ["one"]);
        assert_eq!(reading.based_on("elsewhere")?, [""; 0]);
        drop(reading);

        // One that is not what it should be goes with its last user, and nobody else gets it.
        let used = mounts.acquire(request("five", Sharing::Shared), None).await?;
        used.retire()?;
        let other = mounts.acquire(request("six", Sharing::Shared), None).await?;
        assert_ne!(other.instance(), used.instance());
        let dir = used.dir().to_owned();
        let retired = used.instance().to_owned();
        drop((used, other));
        assert!(!dir.exists() && mounts.read(&retired).await?.is_none());
        let used = mounts.acquire(request("seven", Sharing::Shared), None).await?;
        let instance = used.instance().to_owned();
        drop(used);

        // One that was cleared meanwhile goes when it has been read.
        let reading = mounts.read(&instance).await?.ok_or("it is there")?;
        let cleared =
            CacheMountRequest { clear_for: Some("build".to_owned()), ..request("four", Sharing::Private) };
        drop(mounts.acquire(cleared, None).await?);
        assert!(reading.dir().exists());
        drop(reading);
        assert!(mounts.read(&instance).await?.is_none());
        Ok(())
    }

    #[tokio::test]
    async fn a_mount_in_use_is_marked_on_disk_once_per_checkpoint() -> Result<(), Box<dyn std::error::Error>>
    {
        let dir = tempfile::tempdir()?;
        let store = Store::open(&dir.path().join("root"), StoreOptions::default())?;
        let request = request("step", Sharing::Shared);
        drop(store.cache_mounts().acquire(request.clone(), None).await?);
        for checkpoint in [false, true, false] {
            if checkpoint {
                store.checkpoint()?;
            }
            let before = store.shared.db.synced();
            drop(store.cache_mounts().acquire(request.clone(), None).await?);
            assert_eq!(store.shared.db.synced() - before, usize::from(checkpoint));
        }
        Ok(())
    }
}
