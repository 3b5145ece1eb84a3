//! What a receiver checks of every entry before it believes it.

use std::collections::HashSet;

use proto::fsutil::Stat;

use super::TransferError;
use super::mode::{is_dir, is_symlink};

/// Checks that entries come in walk order, each below a directory sent before, and that hard links point back.
///
/// With it no path can leave the tree: every parent is a directory of this very transfer.
#[derive(Debug, Default)]
pub struct OrderCheck {
    /// The open directories from the root down, with the name last seen in each.
    open: Vec<(String, String)>,
    /// The last name at the top.
    top: String,
    files: HashSet<String>,
}

impl OrderCheck {
    /// Takes the next entry.
    ///
    /// # Errors
    /// The path, its order or its link is wrong.
    pub fn check(&mut self, stat: &Stat) -> Result<(), TransferError> {
        let path = stat.path.as_str();
        let bad = |part: &str| part.is_empty() || part == "." || part == "..";
        if path.split('/').any(bad) || path.contains('\0') {
            return Err(TransferError::Path(path.to_owned()));
        }
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        while self.open.last().is_some_and(|(open, _)| open != dir) {
            self.open.pop();
        }
        let last = match self.open.last_mut() {
            Some((_, last)) => last,
            None if dir.is_empty() => &mut self.top,
            None => return Err(TransferError::Order(path.to_owned())),
        };
        if last.as_str() >= name {
            return Err(TransferError::Order(path.to_owned()));
        }
        name.clone_into(last);
        if is_dir(stat.mode) {
            self.open.push((path.to_owned(), String::new()));
        }
        self.check_link(stat)
    }

    fn check_link(&mut self, stat: &Stat) -> Result<(), TransferError> {
        if is_dir(stat.mode) || is_symlink(stat.mode) {
            return Ok(());
        }
        if stat.linkname.is_empty() {
            self.files.insert(stat.path.clone());
        } else if !self.files.contains(&stat.linkname) {
            return Err(TransferError::Link { path: stat.path.clone(), target: stat.linkname.clone() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsutil::file_mode;

    fn stat(path: &str, mode: u32) -> Stat {
        Stat { path: path.into(), mode: file_mode(mode), ..Stat::default() }
    }

    fn accepts(entries: &[Stat]) -> bool {
        let mut check = OrderCheck::default();
        entries.iter().all(|entry| check.check(entry).is_ok())
    }

    const FILE: u32 = 0o100644;
    const DIR: u32 = 0o040755;

    #[test]
    fn walk_order() {
        assert!(accepts(&[
            stat("a", DIR),
            stat("a/b", FILE),
            stat("a/c", DIR),
            stat("a/c/d", FILE),
            stat("a.b", FILE)
        ]));
        assert!(!accepts(&[stat("b", FILE), stat("a", FILE)]));
        assert!(!accepts(&[stat("a", FILE), stat("a", FILE)]));
        assert!(!accepts(&[stat("a", DIR), stat("b", FILE), stat("a/c", FILE)]));
    }

    #[test]
    fn nothing_below_what_is_no_directory() {
        assert!(!accepts(&[stat("a/b", FILE)]));
        assert!(!accepts(&[stat("a", 0o120777), stat("a/b", FILE)]));
        assert!(!accepts(&[stat("a", FILE), stat("a/b", FILE)]));
    }

    #[test]
    fn paths_stay_inside() {
        for path in ["", "/a", "..", "../a", "./a", "a/", "a//b", "a\0b"] {
            assert!(!accepts(&[stat(path, FILE)]), "{path:?}");
        }
    }

    #[test]
    fn links_point_back() {
        let link = |path: &str, to: &str| Stat { linkname: to.into(), ..stat(path, FILE) };
        assert!(accepts(&[stat("a", FILE), link("b", "a")]));
        assert!(!accepts(&[link("a", "b"), stat("b", FILE)]));
        assert!(!accepts(&[stat("a", DIR), link("b", "a")]));
        assert!(!accepts(&[link("b", "../etc/passwd")]));
    }
}
