//! The list of a layer's entries, as it is shared.

use std::io::{self, Read};

use solver::LayerId;

use crate::layer::{Entries, LayerError};

/// How hard it is compressed, on zstd's scale.
const LEVEL: i32 = 6;
/// How large it may be, in bytes: some two million entries.
const LIMIT: u64 = 128 << 20;

/// What it may take in memory, in bytes.
const MEMORY_LIMIT: usize = 1 << 30;

/// Compresses a list.
///
/// # Errors
/// Out of memory.
pub fn pack(entries: &Entries) -> io::Result<Vec<u8>> {
    zstd::encode_all(entries.encode().as_slice(), LEVEL)
}

/// Reads what [`pack`] gave for the layer `id`.
///
/// # Errors
/// [`LayerError::DamagedEntries`] for anything else.
pub fn unpack(bytes: &[u8], id: &LayerId) -> Result<Entries, LayerError> {
    let mut plain = Vec::new();
    let decoder = zstd::Decoder::with_buffer(bytes).map_err(|_| LayerError::DamagedEntries)?;
    decoder.take(LIMIT).read_to_end(&mut plain).map_err(|_| LayerError::DamagedEntries)?;
    let entries = Entries::decode_within(&plain, MEMORY_LIMIT)?;
    if entries.layer_id() == *id { Ok(entries) } else { Err(LayerError::DamagedEntries) }
}

#[cfg(test)]
mod tests {
    use solver::Digest;

    use super::*;

    #[test]
    fn only_the_layer_itself_is_read() {
        let entries = Entries::default();
        let (packed, id) = (pack(&entries).unwrap(), entries.layer_id());
        assert_eq!(unpack(&packed, &id).unwrap(), entries);
        assert!(unpack(&packed, &LayerId(Digest::of(b"other"))).is_err());
        assert!(unpack(&packed[1..], &id).is_err() && unpack(b"", &id).is_err());
    }
}
