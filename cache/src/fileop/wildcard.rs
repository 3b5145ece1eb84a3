//! Sources with wildcards: `filepath.Match` over the names of a file system, as fsutil resolves them.

use super::error::ActionError;
use super::source::Source;
use crate::pattern::{glob_match, split_at_wildcard};
use crate::tree::TreePath;

/// The paths that `pattern` means, in walk order; a pattern without wildcards means itself.
///
/// Links before the first wildcard are followed (the last of them only if `follow`), those after it never. A
/// matched directory is not entered.
///
/// # Errors
/// When the directory before the first wildcard does not exist.
pub(super) fn resolve_wildcards(
    source: &Source<'_>,
    pattern: &TreePath,
    follow: bool,
) -> Result<Vec<TreePath>, ActionError> {
    let (fixed, wild) = split_at_wildcard(pattern.as_bytes());
    if wild.is_empty() {
        return Ok(vec![pattern.clone()]);
    }
    let base = source.resolve(fixed, follow)?;
    if source.get(&base)?.is_none() {
        return Err(ActionError::NotFound { action: "lstat", path: base });
    }
    let names: Vec<&[u8]> = wild.split(|&b| b == b'/').collect();
    let mut found = Vec::new();
    expand(source, &base, &names, &mut found)?;
    Ok(found)
}

fn expand(
    source: &Source<'_>,
    dir: &TreePath,
    names: &[&[u8]],
    found: &mut Vec<TreePath>,
) -> Result<(), ActionError> {
    let Some((name, below)) = names.split_first() else {
        found.push(dir.clone());
        return Ok(());
    };
    if !source.get(dir)?.is_some_and(|node| node.is_dir()) {
        return Ok(());
    }
    for entry in source.list(dir)? {
        // A malformed pattern matches nothing, as in BuildKit.
        if glob_match(name, &entry.name).unwrap_or(false) {
            expand(source, &dir.join(&entry.name)?, below, found)?;
        }
    }
    Ok(())
}
