//! The bytes of a directory's entries.
//!
//! A version byte (1), then per entry: name length (LEB128), name, inode, size (LEB128), mtime, ctime
//! (8 bytes each, little-endian), digest (32 bytes).

use super::StatEntry;
use crate::store::table::TableValue;

const VERSION: u8 = 1;

/// The entries of one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct DirEntries(pub(in crate::store) Vec<StatEntry>);

impl TableValue for DirEntries {
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + self.0.len() * 80);
        out.push(VERSION);
        for entry in &self.0 {
            put_varint(&mut out, entry.name.len() as u64);
            out.extend_from_slice(&entry.name);
            put_varint(&mut out, entry.ino);
            put_varint(&mut out, entry.size);
            out.extend_from_slice(&entry.mtime_ns.to_le_bytes());
            out.extend_from_slice(&entry.ctime_ns.to_le_bytes());
            out.extend_from_slice(&entry.digest);
        }
        out
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[VERSION])?;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            entries.push(take_entry(&mut rest)?);
        }
        Some(Self(entries))
    }
}

fn take_entry(rest: &mut &[u8]) -> Option<StatEntry> {
    let len = usize::try_from(take_varint(rest)?).ok()?;
    let name = rest.split_off(..len)?.into();
    let ino = take_varint(rest)?;
    let size = take_varint(rest)?;
    let mtime_ns = i64::from_le_bytes(rest.split_off(..8)?.try_into().ok()?);
    let ctime_ns = i64::from_le_bytes(rest.split_off(..8)?.try_into().ok()?);
    let digest = rest.split_off(..32)?.try_into().ok()?;
    Some(StatEntry { name, ino, size, mtime_ns, ctime_ns, digest })
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut n = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trip(entries in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 1..300), any::<[u64; 2]>(), any::<[i64; 2]>(), any::<[u8; 32]>()), 0..20,
        )) {
            let entries = entries.into_iter().map(|(name, [ino, size], [mtime_ns, ctime_ns], digest)| {
                StatEntry { name: name.into(), ino, size, mtime_ns, ctime_ns, digest }
            });
            let dir = DirEntries(entries.collect());
            prop_assert_eq!(DirEntries::from_bytes(&dir.to_bytes()), Some(dir));
        }

        #[test]
        fn damage_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = DirEntries::from_bytes(&bytes);
        }
    }
}
