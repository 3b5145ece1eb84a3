//! Mutated tar archives whose headers are still taken for headers.

use tempfile::TempDir;

const BLOCK: usize = 512;

/// Sets the checksum of every header, found as a reader finds them: mutations would hardly ever get it right.
pub(crate) fn repair(bytes: &[u8]) -> Vec<u8> {
    let mut archive = bytes.to_vec();
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + BLOCK).filter(|block| block.iter().any(|b| *b != 0)) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let digits: String = header[124..136].iter().map(|b| char::from(*b)).collect();
        let size = usize::from_str_radix(digits.trim_matches(['\0', ' ']), 8).unwrap_or(0);
        at = at.saturating_add(BLOCK).saturating_add(size.min(1 << 30).next_multiple_of(BLOCK));
    }
    archive
}

/// A directory in memory where there is one: thousands are made in a second.
pub(crate) fn scratch() -> TempDir {
    let memory = tempfile::Builder::new().prefix("rbuild-fuzz.").tempdir_in("/dev/shm");
    memory.or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}
