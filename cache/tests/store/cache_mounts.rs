//! Cache mounts: who gets which instance, and when.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use cache::store::{CacheMountLease, CacheMountRequest, MountOwner, Sharing};
use solver::Digest;

use crate::support::{TestStore, names, prune_all};

fn request(id: &str, sharing: Sharing, step: &str) -> CacheMountRequest {
    CacheMountRequest {
        id: id.to_owned(),
        sharing,
        owner: None,
        base: None,
        step: step.to_owned(),
        clear_for: None,
        description: format!("cache {id}"),
    }
}

async fn get(test: &TestStore, request: CacheMountRequest) -> CacheMountLease {
    let mounts = test.store.cache_mounts();
    let acquired = mounts.acquire(request, None);
    tokio::time::timeout(Duration::from_secs(20), acquired).await.expect("nothing to wait for").unwrap()
}

#[tokio::test]
async fn shared_steps_share() {
    let test = TestStore::new();
    let a = get(&test, request("go", Sharing::Shared, "1")).await;
    std::fs::write(a.dir().join("x"), "").unwrap();
    let b = get(&test, request("go", Sharing::Shared, "2")).await;
    assert_eq!(a.dir(), b.dir());
    let other = get(&test, request("npm", Sharing::Shared, "3")).await;
    assert_ne!(a.dir(), other.dir());
    drop((a, b, other));
    let again = get(&test, request("go", Sharing::Private, "4")).await;
    assert!(again.dir().join("x").exists());
    let separate = get(&test, request("go", Sharing::Shared, "5")).await;
    assert_ne!(again.dir(), separate.dir(), "a private one is not joined");
}

#[tokio::test]
async fn private_steps_get_their_own() {
    let test = TestStore::new();
    let a = get(&test, request("go", Sharing::Private, "1")).await;
    let b = get(&test, request("go", Sharing::Private, "2")).await;
    assert_ne!(a.dir(), b.dir());
    let (first, second) = (a.dir().to_owned(), b.dir().to_owned());
    drop((a, b));
    let c = get(&test, request("go", Sharing::Private, "3")).await;
    let d = get(&test, request("go", Sharing::Private, "4")).await;
    assert_eq!((c.dir(), d.dir()), (&*first, &*second), "free ones are taken again");
}

#[tokio::test]
async fn locked_steps_wait() {
    let test = TestStore::new();
    let a = get(&test, request("apt", Sharing::Locked, "1")).await;
    let dir = a.dir().to_owned();
    let mounts = test.store.cache_mounts();
    let mut second = Box::pin({
        let mounts = mounts.clone();
        async move { mounts.acquire(request("apt", Sharing::Locked, "2"), None).await }
    });
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut second).await.is_err(), "it is taken");
    let given_up = mounts.acquire(request("apt", Sharing::Locked, "3"), None);
    assert!(tokio::time::timeout(Duration::from_millis(10), given_up).await.is_err());
    drop(a);
    let b = tokio::time::timeout(Duration::from_secs(20), second).await.expect("it is free").unwrap();
    assert_eq!(b.dir(), dir);
    drop(b);
    get(&test, request("apt", Sharing::Locked, "4")).await;
}

#[tokio::test]
async fn of_many_locked_steps_one_at_a_time() {
    let test = TestStore::new();
    let steps: Vec<_> = (0..8)
        .map(|n| {
            let mounts = test.store.cache_mounts();
            tokio::spawn(async move {
                let step = n.to_string();
                let lease = mounts.acquire(request("apt", Sharing::Locked, &step), None).await.unwrap();
                let marker = lease.dir().join("taken");
                std::fs::File::create_new(&marker).expect("nobody else is in");
                tokio::task::yield_now().await;
                std::fs::remove_file(&marker).unwrap();
                lease.dir().to_owned()
            })
        })
        .collect();
    let mut dirs = Vec::new();
    for step in steps {
        dirs.push(step.await.unwrap());
    }
    dirs.dedup();
    assert_eq!(dirs.len(), 1);
}

#[tokio::test]
async fn two_mounts_of_one_step_are_one() {
    let test = TestStore::new();
    let requests = vec![
        (request("b", Sharing::Locked, "1"), None),
        (request("a", Sharing::Locked, "1"), None),
        (request("b", Sharing::Locked, "1"), None),
    ];
    let mounts = test.store.cache_mounts();
    let acquired = mounts.acquire_all(requests);
    let leases = tokio::time::timeout(Duration::from_secs(20), acquired).await.expect("no deadlock").unwrap();
    assert_eq!(leases[0].dir(), leases[2].dir());
    assert_ne!(leases[0].dir(), leases[1].dir());
}

#[tokio::test]
async fn new_ones_are_seeded_and_owned() {
    let test = TestStore::new();
    let owner =
        MountOwner { mode: 0o711, uid: nix::unistd::getuid().as_raw(), gid: nix::unistd::getgid().as_raw() };
    let seeded = CacheMountRequest {
        owner: Some(owner),
        base: Some(Digest::of(b"base")),
        ..request("go", Sharing::Shared, "1")
    };
    let seed =
        || -> Option<cache::store::Seed> { Some(Box::new(|dir| std::fs::write(dir.join("seed"), "1"))) };
    let lease = test.store.cache_mounts().acquire(seeded.clone(), seed()).await.unwrap();
    let meta = std::fs::metadata(lease.dir()).unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o711);
    assert_eq!(meta.uid(), owner.uid);
    std::fs::write(lease.dir().join("seed"), "2").unwrap();
    drop(lease);
    let lease = test.store.cache_mounts().acquire(seeded, seed()).await.unwrap();
    assert_eq!(std::fs::read_to_string(lease.dir().join("seed")).unwrap(), "2", "seeded once");
    let plain = get(&test, request("go", Sharing::Shared, "1")).await;
    assert_ne!(plain.dir(), lease.dir(), "owner and base are part of the key");
    assert_eq!(std::fs::metadata(plain.dir()).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[tokio::test]
async fn a_failed_seed_leaves_nothing() {
    let test = TestStore::new();
    let seed: cache::store::Seed = Box::new(|_| Err(std::io::Error::other("no")));
    let acquired = test.store.cache_mounts().acquire(request("go", Sharing::Locked, "1"), Some(seed)).await;
    assert_eq!(acquired.unwrap_err().to_string().split('`').next(), Some("cannot fill "));
    assert_eq!(names(&test.root(), "cache-mounts"), [""; 0]);
    get(&test, request("go", Sharing::Locked, "2")).await;
}

#[tokio::test]
async fn no_cache_starts_anew_once_per_build() {
    let test = TestStore::new();
    let fresh = |build: &str, step: &str| CacheMountRequest {
        clear_for: Some(build.to_owned()),
        ..request("go", Sharing::Shared, step)
    };
    let old = get(&test, request("go", Sharing::Shared, "1")).await;
    std::fs::write(old.dir().join("old"), "").unwrap();
    let new = get(&test, fresh("build-1", "2")).await;
    assert!(!new.dir().join("old").exists());
    assert!(old.dir().join("old").exists(), "whoever uses it keeps it");
    std::fs::write(new.dir().join("new"), "").unwrap();
    drop((old, new));
    let again = get(&test, fresh("build-1", "3")).await;
    assert!(again.dir().join("new").exists(), "the same build clears once");
    drop(again);
    assert_eq!(names(&test.root(), "cache-mounts").len(), 1, "the old one is gone");
    let next = get(&test, fresh("build-2", "4")).await;
    assert!(!next.dir().join("new").exists());
}

#[tokio::test]
async fn ids_are_no_paths() {
    let test = TestStore::new();
    for id in ["../../../etc", "/", "..", "", "a/b", "a\0b"] {
        let lease = get(&test, request(id, Sharing::Shared, "1")).await;
        assert_eq!(lease.dir().parent().unwrap(), test.root().join("cache-mounts"), "{id:?}");
    }
}

#[tokio::test]
async fn a_prune_takes_those_not_in_use() {
    let test = TestStore::new();
    let used = get(&test, request("used", Sharing::Shared, "1")).await;
    let idle = get(&test, request("idle", Sharing::Shared, "1")).await;
    std::fs::write(idle.dir().join("x"), [1; 100_000]).unwrap();
    drop(idle);
    let pruned = prune_all(&test.store);
    assert_eq!(pruned.items, 1);
    assert!(pruned.bytes >= 100_000, "{pruned:?}");
    assert!(used.dir().exists());
    let left = test.store.du(&[], Duration::ZERO).unwrap();
    assert_eq!(left.len(), 1);
    assert!(left[0].in_use && left[0].mutable);
}
