//! What a cache mount held when somebody wrote it, as machines share it.
//!
//! Each writer leaves a snapshot under a name of its own, which grows with time, and tells which others are in it. Who reads a mount
//! takes the newest one and, of a mount that is mergeable, all those that no newer one tells. So writers need not agree on anything:
//! those that write at the same time leave two snapshots, and the next one unites them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use solver::Digest;

use super::record::SharedBlob;
use super::scope::Scope;
use super::seal::{Unacceptable, open, said, seal};
use super::signature::{Signer, Trust};

/// For how long a snapshot may be on its way from its name to the store, in milliseconds: those that are older than this when another one
/// is made count as read by that one, though it names only the younger ones.
const ON_ITS_WAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Digits of a time, and of what tells names of the same time apart.
const DIGITS: (usize, usize) = (13, 8);

/// The name of a snapshot: when it was made in milliseconds since 1970, and eight hex digits of chance. The order is that of time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotName(String);

impl SnapshotName {
    /// A name for what is made at `now_ms`, after `newest` whatever the clocks say.
    pub fn new(now_ms: u64, newest: Option<&Self>, chance: u32) -> Self {
        let at = now_ms.max(newest.map_or(0, |newest| newest.made_ms().saturating_add(1)));
        Self::at(at, chance)
    }

    fn at(ms: u64, chance: u32) -> Self {
        Self(format!("{:013}-{chance:08x}", ms.min(9_999_999_999_999)))
    }

    fn made_ms(&self) -> u64 {
        self.0[..DIGITS.0].parse().unwrap_or_default()
    }

    /// Whether it was made after `ms`, in milliseconds since 1970.
    pub fn is_after(&self, ms: u64) -> bool {
        self.made_ms() > ms
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that names no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no snapshot of a cache mount")]
pub struct InvalidSnapshotName(String);

impl FromStr for SnapshotName {
    type Err = InvalidSnapshotName;

    fn from_str(text: &str) -> Result<Self, InvalidSnapshotName> {
        let fits = text.split_once('-').is_some_and(|(at, chance)| {
            let hex = |b: u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
            (at.len(), chance.len()) == DIGITS
                && at.bytes().all(|b| b.is_ascii_digit())
                && chance.bytes().all(hex)
        });
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidSnapshotName(text.to_owned())) }
    }
}

impl TryFrom<String> for SnapshotName {
    type Error = InvalidSnapshotName;

    fn try_from(text: String) -> Result<Self, InvalidSnapshotName> {
        text.parse()
    }
}

impl From<SnapshotName> for String {
    fn from(name: SnapshotName) -> Self {
        name.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a mount held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountSnapshot {
    /// Which mount.
    pub mount: Digest,
    /// Its own name.
    pub name: SnapshotName,
    /// It may be united with others.
    pub mergeable: bool,
    /// What is in it.
    pub told: Told,
    /// The list of its files ([`crate::mounts::MountList`]).
    pub list: SharedBlob,
    /// The bytes of those.
    pub packs: Vec<SharedBlob>,
}

/// The snapshots that were read for another one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Told {
    /// All that are older than this.
    floor: Option<SnapshotName>,
    names: BTreeSet<SnapshotName>,
}

impl Told {
    /// What is told by a snapshot called `name`, made at `now_ms`, for which all of `read` were read, and of what was there `unread` and
    /// what is younger were not.
    pub fn by(
        name: &SnapshotName,
        now_ms: u64,
        read: impl IntoIterator<Item = SnapshotName>,
        unread: Option<&SnapshotName>,
    ) -> Self {
        // Of a name that is ahead of its time, because of what was read, the time counts.
        let floor = SnapshotName::at(name.made_ms().min(now_ms).saturating_sub(ON_ITS_WAY_MS), 0);
        let floor = unread.map_or(floor.clone(), |unread| floor.min(unread.clone()));
        let names = read.into_iter().filter(|read| *read >= floor).collect();
        Self { floor: Some(floor), names }
    }

    /// Whether this one is in it.
    pub fn has(&self, name: &SnapshotName) -> bool {
        self.floor.as_ref().is_some_and(|floor| name < floor) || self.names.contains(name)
    }
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Said {
    scope: String,
    mount: Digest,
    name: SnapshotName,
    mergeable: bool,
    told: Told,
    list: SharedBlob,
    packs: Vec<SharedBlob>,
}

/// The blobs that a sealed snapshot names, whoever sealed it; none of what is no snapshot.
pub(super) fn blobs_in(bytes: &[u8]) -> BTreeSet<SharedBlob> {
    let blobs = |said: Said| std::iter::once(said.list).chain(said.packs).collect();
    said::<Said>(bytes).map(blobs).unwrap_or_default()
}

impl MountSnapshot {
    /// The bytes that are written, as those of a record ([`super::SharedRecord::seal`]).
    pub fn seal(&self, scope: &Scope, signer: Option<&Signer>) -> Vec<u8> {
        let Self { mount, name, mergeable, told, list, packs } = self.clone();
        seal(&Said { scope: scope.to_string(), mount, name, mergeable, told, list, packs }, signer)
    }

    /// Reads what [`Self::seal`] gave for this mount, name and scope.
    ///
    /// # Errors
    /// Any other bytes; snapshots that `trust` does not accept.
    pub fn open(
        bytes: &[u8],
        mount: &Digest,
        name: &SnapshotName,
        scope: &Scope,
        trust: &Trust,
    ) -> Result<Self, Unacceptable> {
        let fits = |said: &Said| said.mount == *mount && said.name == *name && said.scope == scope.as_str();
        let Said { mount, name, mergeable, told, list, packs, .. } = open(bytes, fits, trust)?;
        Ok(Self { mount, name, mergeable, told, list, packs })
    }

    /// The blobs that it names.
    pub fn blobs(&self) -> impl Iterator<Item = &SharedBlob> {
        std::iter::once(&self.list).chain(&self.packs)
    }
}

#[cfg(test)]
mod tests {
    use super::super::signature::tests::{PRIVATE, PUBLIC};
    use super::*;

    fn name(ms: u64) -> SnapshotName {
        SnapshotName::at(ms, 7)
    }

    fn example() -> MountSnapshot {
        let blob = |of: &[u8]| SharedBlob {
            digest: Digest::of(of),
            size: of.len() as u64,
            media_type: "application/octet-stream".to_owned(),
        };
        MountSnapshot {
            mount: Digest::of(b"mount"),
            name: name(2_000_000_000_000),
            mergeable: true,
            told: Told::by(&name(2_000_000_000_000), 2_000_000_000_000, [name(1_999_999_999_999)], None),
            list: blob(b"list"),
            packs: vec![blob(b"one"), blob(b"two")],
        }
    }

    #[test]
    fn names_are_in_order_of_time() {
        let first = SnapshotName::new(5, None, u32::MAX);
        assert_eq!(first.as_str(), "0000000000005-ffffffff");
        let second = SnapshotName::new(3, Some(&first), 0);
        assert!(second > first && second.as_str() == "0000000000006-00000000");
        assert_eq!(first.as_str().parse(), Ok(first));
        for other in
            ["", "5-ffffffff", "0000000000005_ffffffff", "000000000000x-ffffffff", "0000000000005-FFFFFFFF"]
        {
            assert!(other.parse::<SnapshotName>().is_err(), "{other}");
        }
    }

    #[test]
    fn what_was_read_is_told_by_name_for_a_day_and_by_age_then() {
        let day = 86_400_000;
        let read = [name(1), name(day + 1), name(3 * day - 1)];
        let told = Told::by(&name(3 * day), 3 * day, read.clone(), None);
        assert!(told.has(&read[0]) && told.has(&read[1]) && told.has(&read[2]));
        assert_eq!(told.names.len(), 1);
        assert!(!told.has(&name(3 * day - 2)) && !told.has(&name(3 * day)));
        assert!(!Told::default().has(&name(1)));
        let ahead = Told::by(&name(9 * day), 3 * day, [], None);
        assert!(ahead.has(&name(2 * day - 1)) && !ahead.has(&name(2 * day)));
        // What was left for others is not told by its age.
        let some = Told::by(&name(3 * day), 3 * day, read.clone(), Some(&name(5)));
        assert!(read.iter().all(|read| some.has(read)) && some.has(&name(4)));
        assert!(!some.has(&name(5)) && !some.has(&name(day)));
        let young = Told::by(&name(3 * day), 3 * day, read, Some(&name(3 * day - 1)));
        assert!(young.has(&name(5)) && young.has(&name(day)));
    }

    #[test]
    fn sealed_and_opened() {
        let snapshot = example();
        let (scope, signer) = (Scope::default(), Signer::from_pem(PRIVATE).unwrap());
        let strict = Trust::only([PUBLIC]).unwrap();
        let MountSnapshot { mount, name: own, .. } = &snapshot;
        let bytes = snapshot.seal(&scope, Some(&signer));
        let open = |bytes: &[u8], mount, name, scope| MountSnapshot::open(bytes, mount, name, scope, &strict);
        assert_eq!(open(&bytes, mount, own, &scope), Ok(snapshot.clone()));
        assert_eq!(blobs_in(&bytes).len(), 3);
        // Nowhere else is it a snapshot.
        let (other, pr) = (Digest::of(b"other"), "pr".parse().unwrap());
        assert_eq!(open(&bytes, &other, own, &scope), Err(Unacceptable::Damaged));
        let another = name(1);
        assert_eq!(open(&bytes, mount, &another, &scope), Err(Unacceptable::Damaged));
        assert_eq!(open(&bytes, mount, own, &pr), Err(Unacceptable::Damaged));
        let unsigned = snapshot.seal(&scope, None);
        assert_eq!(open(&unsigned, mount, own, &scope), Err(Unacceptable::Untrusted));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert!(open(&flipped, mount, own, &scope).is_err(), "byte {at}");
        }
    }
}
