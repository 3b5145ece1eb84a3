//! ADD of git repositories and URLs.

use std::collections::BTreeMap;

use solver::graph::VertexMeta;
use solver::op::{Op, SourceOp, attr};

use crate::lower::arena::{Arena, Inputs, NewOp, Output};
use crate::lower::base::described;
use crate::lower::error::{Fault, Result};
use crate::lower::git_ref::GitRef;
use crate::lower::path;
use crate::lower::url::Url;

/// A source of ADD or COPY.
#[derive(Debug)]
pub(super) enum Remote {
    Git(Box<GitRef>),
    Http,
    None,
}

/// What a source means.
pub(super) fn kind(source: &str) -> Result<Remote> {
    Ok(match GitRef::parse(source)? {
        Some(git) if !git.like_a_path => Remote::Git(Box::new(git)),
        _ if source.starts_with("http://") || source.starts_with("https://") => Remote::Http,
        _ => Remote::None,
    })
}

/// Flags of ADD that are about remote sources; a source's own query changes them for the sources after it.
#[derive(Debug, Clone, Default)]
pub(super) struct RemoteFlags {
    pub(super) keep_git_dir: Option<bool>,
    pub(super) checksum: String,
}

/// Adds the source operation of a repository.
pub(super) fn add_git(
    arena: &mut Arena,
    mut git: GitRef,
    flags: &mut RemoteFlags,
    name: &str,
) -> Result<Output> {
    if let (Some(flag), Some(query)) = (flags.keep_git_dir, git.keep_git_dir)
        && flag != query
    {
        return Err(Fault::KeepGitDir.into());
    }
    flags.keep_git_dir = git.keep_git_dir.or(flags.keep_git_dir);
    if !flags.checksum.is_empty() && !git.checksum.is_empty() && flags.checksum != git.checksum {
        let (given, query) = (flags.checksum.clone(), git.checksum);
        return Err(Fault::ChecksumMismatch { given, query }.into());
    }
    if !git.checksum.is_empty() {
        flags.checksum = std::mem::take(&mut git.checksum);
    }
    git.keep_git_dir = flags.keep_git_dir;
    git.checksum.clone_from(&flags.checksum);
    // Only contexts are dated.
    git.mtime.clear();
    Ok(add(arena, git.source(), name))
}

/// Adds the source operation of a URL, and returns the name of its file.
pub(super) fn add_http(arena: &mut Arena, url: &str, checksum: &str, name: &str) -> Result<(Output, String)> {
    let file = http_file_name(url);
    let source = http_source(url, &file, checksum)?;
    Ok((add(arena, source, name), file))
}

/// A URL's source operation.
pub(super) fn http_source(url: &str, file: &str, checksum: &str) -> Result<SourceOp> {
    let mut attrs = BTreeMap::from([(attr::HTTP_FILENAME.to_owned(), file.to_owned())]);
    if !checksum.is_empty() {
        check_digest(checksum)?;
        attrs.insert(attr::HTTP_CHECKSUM.to_owned(), checksum.to_owned());
    }
    Ok(SourceOp { identifier: url.to_owned(), attrs })
}

/// The last part of a URL's path.
pub(super) fn http_file_name(url: &str) -> String {
    let name = Url::parse(url).map(|url| path::base(&url.path).to_owned());
    name.filter(|name| name != "." && name != "/").unwrap_or_else(|| "__unnamed__".to_owned())
}

fn add(arena: &mut Arena, source: SourceOp, name: &str) -> Output {
    let meta = VertexMeta { description: described(name, None), ..VertexMeta::default() };
    arena.add(NewOp { op: Op::Source(source), inputs: Inputs::default(), platform: None, meta })
}

/// Go's `digest.Parse`.
fn check_digest(digest: &str) -> Result<()> {
    let algorithm_fits = |text: &str| {
        !text.is_empty()
            && text.split(['+', '.', '_', '-']).all(|part| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            })
    };
    let encoded = |b: u8| b.is_ascii_alphanumeric() || b"=_-".contains(&b);
    let parts = digest
        .split_once(':')
        .filter(|(algorithm, hex)| algorithm_fits(algorithm) && !hex.is_empty() && hex.bytes().all(encoded));
    let Some((algorithm, hex)) = parts else {
        return Err(Fault::ChecksumFormat("invalid checksum digest format").into());
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(Fault::ChecksumFormat("unsupported digest algorithm").into()),
    };
    if hex.len() != length {
        return Err(Fault::ChecksumFormat("invalid checksum digest length").into());
    }
    if hex.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Fault::ChecksumFormat("invalid checksum digest format").into());
    }
    Ok(())
}
