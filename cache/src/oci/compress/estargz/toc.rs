//! The index of an eStargz layer, and the footer that leads to it.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

/// The name of the index's tar entry.
pub(in crate::oci::compress) const INDEX_NAME: &str = "stargz.index.json";

/// An entry of the index: an object of the layer, or a further piece of a large file. The names are the format's; what
/// is empty is left out.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) size: u64,
    /// RFC 3339.
    #[serde(rename = "modtime", skip_serializing_if = "String::is_empty")]
    pub(super) modified: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) link_name: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) gid: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) user_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) group_name: String,
    /// The member that begins with its bytes.
    #[serde(skip)]
    pub(super) member: Option<usize>,
    /// Where that member begins, filled in at the end.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) dev_minor: u64,
    /// Base64.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) digest: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) chunk_offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) chunk_size: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) chunk_digest: String,
}

#[derive(Serialize)]
struct Index<'a> {
    version: u32,
    entries: &'a [Entry],
}

/// The index as JSON, with tabs as its other writers have it; `offsets` tells where each member begins.
pub(super) fn encode(entries: &mut [Entry], offsets: &[u64]) -> io::Result<Vec<u8>> {
    for entry in entries.iter_mut() {
        entry.offset = entry.member.and_then(|member| offsets.get(member)).copied().unwrap_or(0);
    }
    let index = Index { version: 1, entries };
    let mut json = Vec::new();
    index.serialize(&mut Serializer::with_formatter(&mut json, PrettyFormatter::with_indent(b"\t")))?;
    Ok(json)
}

/// An empty gzip member whose extra field has the offset of the index: 51 bytes.
pub(super) fn footer(toc_offset: u64) -> Vec<u8> {
    // RFC 1952: magic, deflate, FEXTRA, no time, no flags, unknown system.
    let mut out = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff];
    let field = format!("{toc_offset:016x}STARGZ");
    out.extend_from_slice(&(field.len() as u16 + 4).to_le_bytes());
    out.extend_from_slice(b"SG");
    out.extend_from_slice(&(field.len() as u16).to_le_bytes());
    out.extend_from_slice(field.as_bytes());
    // One stored block of nothing, its CRC and its size.
    out.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
    out.extend_from_slice(&[0; 8]);
    out
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
