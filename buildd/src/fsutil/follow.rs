//! Follow paths: what COPY needs of a context, symbolic links included.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use solver::pattern::{PatternMatcher, clean};

use super::TransferError;

/// More links than the kernel follows in one path (ELOOP at 40), times the branches that wildcards may open.
const MAX_STEPS: usize = 10_000;

/// Names `paths` and all that links on the way to them lead to; `None` when that is everything.
///
/// Wildcards are resolved where links could hide behind them, and stay in the result. Links that leave the root are
/// taken as inside it. What does not exist stays in the result: the include patterns may match it later.
pub(super) fn follow_links(root: &Path, paths: &[String]) -> Result<Option<Vec<String>>, TransferError> {
    let mut resolver = Resolver { root, found: BTreeSet::new(), steps: 0 };
    for path in paths {
        resolver.add(path)?;
    }
    if resolver.found.contains(".") {
        return Ok(None);
    }
    Ok(Some(resolver.found.into_iter().collect()))
}

struct Resolver<'a> {
    root: &'a Path,
    found: BTreeSet<String>,
    steps: usize,
}

impl Resolver<'_> {
    fn add(&mut self, path: &str) -> Result<(), TransferError> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Ok(());
        }
        let path = inside(path);
        let mut current = String::new();
        let mut rest = path.as_str();
        loop {
            let (part, after) = rest.split_once('/').unwrap_or((rest, ""));
            current = join(&current, part);
            let targets = self.targets(&current)?;
            if (after.is_empty() || !targets.is_empty()) && !self.found.insert(current.clone()) {
                return Ok(());
            }
            for target in &targets {
                self.add(&join(target, after))?;
            }
            if after.is_empty() || !targets.is_empty() {
                return Ok(());
            }
            rest = after;
        }
    }

    /// Where the links lead that a path with at most one wildcard, in its last part, stands for.
    fn targets(&self, path: &str) -> Result<Vec<String>, TransferError> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        if !has_wildcard(name) {
            return self.target(path).map(|found| found.into_iter().collect());
        }
        let matcher = PatternMatcher::new(&[name])?;
        let full = self.root.join(dir);
        let entries = match std::fs::read_dir(&full) {
            Ok(entries) => entries,
            Err(e) if missing(&e) => return Ok(Vec::new()),
            Err(e) => return Err(TransferError::io(full, e)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| TransferError::io(&full, e))?.file_name();
            if let Some(name) = name.to_str().filter(|name| matcher.matches(name.as_bytes())) {
                found.extend(self.target(&join(dir, name))?);
            }
        }
        Ok(found)
    }

    fn target(&self, path: &str) -> Result<Option<String>, TransferError> {
        let full = self.root.join(path);
        match std::fs::read_link(&full) {
            Ok(link) => {
                let link = link.to_string_lossy();
                let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
                Ok(Some(inside(&if link.starts_with('/') { link.into_owned() } else { join(dir, &link) })))
            }
            // No link at all is EINVAL.
            Err(e) if missing(&e) || e.kind() == io::ErrorKind::InvalidInput => Ok(None),
            Err(e) => Err(TransferError::io(full, e)),
        }
    }
}

fn missing(err: &io::Error) -> bool {
    matches!(err.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The shortest form of a path taken as below the root; `.` for the root itself.
fn inside(path: &str) -> String {
    let path = clean(&format!("/{path}"));
    match path.trim_start_matches('/') {
        "" => ".".to_owned(),
        inner => inner.to_owned(),
    }
}

fn join(dir: &str, name: &str) -> String {
    match (dir, name) {
        ("" | ".", name) => name.to_owned(),
        (dir, "") => dir.to_owned(),
        (dir, name) => format!("{dir}/{name}"),
    }
}

fn has_wildcard(name: &str) -> bool {
    let mut chars = name.chars();
    while let Some(ch) = chars.next() {
        match ch {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}
