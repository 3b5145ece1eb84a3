//! The version of everything below the root.

use fs_err as fs;

use super::error::StoreError;
use super::layout::Layout;

/// The format written here. Raise it when the meaning of anything on disk changes: an older root is emptied
/// then, a newer one refused.
const FORMAT: u32 = 2;

/// First word of the file `format`, so that no other program's file of that name is taken for ours.
const MAGIC: &str = "rbuild-store";

/// What was found and done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FormatCheck {
    /// A new root.
    Fresh,
    /// The current format.
    Current,
    /// An older format: the root was emptied.
    Emptied {
        /// The format found.
        found: u32,
    },
}

/// Checks the root's format and makes it the current one. The lock is held.
pub(super) fn check(layout: &Layout) -> Result<FormatCheck, StoreError> {
    let path = layout.format();
    let found = match fs::read_to_string(&path) {
        Ok(text) => parse(&text).ok_or_else(|| StoreError::Foreign { root: layout.root().to_owned() })?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            refuse_foreign(layout)?;
            write(layout)?;
            return Ok(FormatCheck::Fresh);
        }
        Err(e) => return Err(StoreError::io("read", &path)(e)),
    };
    match found {
        FORMAT => Ok(FormatCheck::Current),
        newer if newer > FORMAT => {
            Err(StoreError::TooNew { root: layout.root().to_owned(), found: newer, known: FORMAT })
        }
        found => {
            empty(layout)?;
            write(layout)?;
            Ok(FormatCheck::Emptied { found })
        }
    }
}

fn parse(text: &str) -> Option<u32> {
    text.trim_end().strip_prefix(MAGIC)?.strip_prefix(' ')?.parse().ok()
}

/// A root without a format file may hold nothing but what an interrupted first start left, and an empty `tmp`: who
/// starts the daemon may point `TMPDIR` there.
fn refuse_foreign(layout: &Layout) -> Result<(), StoreError> {
    let root = layout.root();
    for entry in fs::read_dir(root).map_err(StoreError::io("list", root))? {
        let entry = entry.map_err(StoreError::io("list", root))?;
        let name = entry.file_name();
        let harmless = ["lock", "format.new", "lost+found"].iter().any(|ours| name == *ours);
        let empty = || fs::read_dir(entry.path()).is_ok_and(|mut entries| entries.next().is_none());
        if !(harmless || name == "tmp" && empty()) {
            return Err(StoreError::Foreign { root: root.to_owned() });
        }
    }
    Ok(())
}

/// Replaces the file in one step, so that a crash leaves the old or the new one.
fn write(layout: &Layout) -> Result<(), StoreError> {
    let path = layout.format();
    let new = path.with_extension("new");
    fs::write(&new, format!("{MAGIC} {FORMAT}\n")).map_err(StoreError::io("write", &new))?;
    let file = fs::File::open(&new).map_err(StoreError::io("open", &new))?;
    file.sync_all().map_err(StoreError::io("sync", &new))?;
    fs::rename(&new, &path).map_err(StoreError::io("rename", &path))?;
    let root = fs::File::open(layout.root()).map_err(StoreError::io("open", layout.root()))?;
    root.sync_all().map_err(StoreError::io("sync", layout.root()))
}

/// Removes what a store made; the lock stays, since it is held, and `format` goes last.
fn empty(layout: &Layout) -> Result<(), StoreError> {
    for name in Layout::OWN.iter().filter(|name| !matches!(**name, "lock" | "format")) {
        let path = layout.root().join(name);
        match fs::remove_dir_all(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &path)(e));
            }
            _ => {}
        }
    }
    Ok(())
}
