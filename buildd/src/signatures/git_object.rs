//! Commits and annotated tags as git stores them, taken apart into what is signed and the signature.
//!
//! A commit has its signature in a header (`gpgsig`, in repositories of SHA-256 `gpgsig-sha256`) whose further lines begin with a
//! blank; signed is the commit without such headers. A tag has it at the end of its message; signed is what stands before it
//! (gitformat-signature(5)).

use std::collections::BTreeMap;
use std::fmt;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

/// What begins the signature of a tag.
const MARKS: [&[u8]; 2] = [b"-----BEGIN PGP SIGNATURE-----", b"-----BEGIN SSH SIGNATURE-----"];
/// The headers of a commit that hold signatures.
const SIGNATURES: [&[u8]; 2] = [b"gpgsig ", b"gpgsig-sha256 "];

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A commit.
    Commit,
    /// An annotated tag.
    Tag,
}

impl Kind {
    /// The headers without which it is none.
    fn required(self) -> &'static [&'static str] {
        match self {
            Self::Commit => &["tree", "author", "committer"],
            Self::Tag => &["object", "type", "tag", "tagger"],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Commit => "commit",
            Self::Tag => "tag",
        })
    }
}

/// A commit or a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitObject<'a> {
    /// Which of the two.
    pub kind: Kind,
    /// The signature in its armor; empty if there is none.
    pub signature: Vec<u8>,
    /// What the signature is about.
    pub payload: Vec<u8>,
    /// The first value of each header, but for signatures.
    headers: BTreeMap<Vec<u8>, Vec<u8>>,
    raw: &'a [u8],
}

/// Bytes that are no commit or tag, or not the one that was asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ObjectError {
    /// A header is missing.
    #[error("invalid {kind} object: missing {header} header")]
    Header {
        /// What the object should be.
        kind: Kind,
        /// The header's name.
        header: &'static str,
    },
    /// Its hash is another one.
    #[error("checksum mismatch: expected {want}, got {got}")]
    Checksum {
        /// In hexadecimal.
        want: String,
        /// In hexadecimal.
        got: String,
    },
    /// What was asked for is no hash.
    #[error("unsupported sha length {0}")]
    Length(usize),
}

impl<'a> GitObject<'a> {
    /// Takes an object apart, as `git cat-file` gives it.
    ///
    /// # Errors
    /// A header without which it is none of that kind is missing.
    pub fn parse(kind: Kind, raw: &'a [u8]) -> Result<Self, ObjectError> {
        let (head, message) = split_head(raw);
        let mut object = Self {
            kind,
            signature: Vec::new(),
            payload: Vec::with_capacity(raw.len()),
            headers: BTreeMap::new(),
            raw,
        };
        let mut of_signature = None;
        for line in head.split_inclusive(|byte| *byte == b'\n') {
            if let (Some(kept), Some(more)) = (of_signature, line.strip_prefix(b" ")) {
                object.sign(kept, more);
                continue;
            }
            of_signature = None;
            if kind == Kind::Commit
                && let Some(value) = SIGNATURES.iter().find_map(|header| line.strip_prefix(*header))
            {
                // The first counts: a commit has one for each format that it was signed in.
                let kept = object.signature.is_empty();
                object.sign(kept, value);
                of_signature = Some(kept);
                continue;
            }
            object.payload.extend_from_slice(line);
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            if let Some(at) = line.iter().position(|byte| *byte == b' ') {
                object.headers.entry(line[..at].to_vec()).or_insert_with(|| line[at + 1..].to_vec());
            }
        }
        let signed = match kind {
            Kind::Tag => mark(message),
            Kind::Commit => None,
        };
        let (text, signature) = message.split_at(signed.unwrap_or(message.len()));
        object.payload.extend_from_slice(text);
        object.signature.extend_from_slice(signature);
        match kind.required().iter().find(|header| !object.headers.contains_key(header.as_bytes())) {
            Some(header) => Err(ObjectError::Header { kind, header }),
            None => Ok(object),
        }
    }

    /// What a header says.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.get(name.as_bytes()).map(Vec::as_slice)
    }

    /// Checks that the object is the one that is named by `want`: 40 digits of SHA-1 or 64 of SHA-256, in lower case.
    ///
    /// # Errors
    /// It is another one, or `want` is no hash.
    pub fn check(&self, want: &str) -> Result<(), ObjectError> {
        let algorithm = match want.len() {
            40 => &SHA1_FOR_LEGACY_USE_ONLY,
            64 => &SHA256,
            other => return Err(ObjectError::Length(other)),
        };
        let stored = [format!("{} {}\0", self.kind, self.raw.len()).as_bytes(), self.raw].concat();
        let got = hex::encode(digest(algorithm, &stored));
        match got == want {
            true => Ok(()),
            false => Err(ObjectError::Checksum { want: want.to_owned(), got }),
        }
    }

    fn sign(&mut self, kept: bool, line: &[u8]) {
        if kept {
            self.signature.extend_from_slice(line);
        }
    }
}

/// Headers, and the message with the empty line before it.
fn split_head(raw: &[u8]) -> (&[u8], &[u8]) {
    if raw.starts_with(b"\n") {
        return (&[], raw);
    }
    match raw.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => raw.split_at(at + 1),
        None => (raw, &[]),
    }
}

/// Where the signature of a tag begins in its message: at a line that is nothing but a mark.
fn mark(message: &[u8]) -> Option<usize> {
    let mut at = 0;
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if MARKS.contains(&line.strip_suffix(b"\n").unwrap_or(line)) {
            return Some(at);
        }
        at += line.len();
    }
    None
}
