//! Copying files out of what a failed step left.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use proto::fsutil::Stat;
use rustix::fs::FileType;

use super::super::build::warn;
use crate::client::{ClientError, Inside};
use crate::fsutil::{DirWriter, Owners, Sink as _, TransferError, file_mode, st_mode};

/// Copies what lies at `path` in the step's root to `to`: into a directory that exists, or under this name.
///
/// # Errors
/// Nothing lies there, or `to` cannot be written.
pub(in super::super) async fn copy(inside: &Inside<'_>, path: &str, to: &Path) -> Result<(), ClientError> {
    let top = inside.stat(path).await?;
    let own = Path::new(path).file_name();
    let (dir, name) = match (to.is_dir(), own) {
        (true, Some(own)) => (to.to_owned(), own.to_owned()),
        _ => (parent(to), to.file_name().or(own).unwrap_or_default().to_owned()),
    };
    let name = name.to_str().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| ClientError::Usage(format!("`{}` is no name", to.display())))?;
    let writer = DirWriter::new(&dir, Owners::Mine);
    let mut copy = Copy { inside, dir, writer, entries: 0 };
    copy.entry(path, Stat { path: name.to_owned(), ..top }).await?;
    copy.writer.finish().map_err(|e| failed(&e))
}

fn parent(path: &Path) -> PathBuf {
    path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new(".")).to_owned()
}

fn failed(error: &TransferError) -> ClientError {
    ClientError::Print(std::io::Error::other(error.full()))
}

fn leave_out(path: &str, why: &str) {
    warn(&format!("`{}` {why}: left out", path.escape_debug()));
}

/// A copy under way.
struct Copy<'a> {
    inside: &'a Inside<'a>,
    dir: PathBuf,
    writer: DirWriter,
    entries: u32,
}

impl Copy<'_> {
    /// What lies at `from`, with `stat.path` as its path below the destination.
    async fn entry(&mut self, from: &str, stat: Stat) -> Result<(), ClientError> {
        let kind = FileType::from_raw_mode(st_mode(stat.mode));
        let known = matches!(kind, FileType::Directory | FileType::RegularFile | FileType::Symlink);
        if !known {
            leave_out(from, "is neither file nor directory");
            return Ok(());
        }
        let there = std::fs::symlink_metadata(self.dir.join(&stat.path)).ok();
        if there.is_some_and(|there| there.is_dir() != (kind == FileType::Directory)) {
            let path = self.dir.join(&stat.path);
            let reason = format!("`{}` is there, and only one of both is a directory", path.display());
            return Err(ClientError::Usage(format!("cannot copy `{}`: {reason}", from.escape_debug())));
        }
        let (id, to, size) = (self.entries, stat.path.clone(), stat.size);
        self.entries += 1;
        // Each name is a file of its own here.
        let linkname = if kind == FileType::Symlink { stat.linkname.clone() } else { String::new() };
        // Its owner is the user now, whom nobody else is to act for.
        let mode = file_mode(st_mode(stat.mode) & !0o7000);
        let wanted = self.writer.entry(id, Stat { linkname, mode, ..stat }).map_err(|e| failed(&e))?;
        if wanted {
            return self.data(id, from, size).await;
        }
        if kind == FileType::Directory {
            let mut names = HashSet::new();
            for child in self.inside.list(from).await? {
                let name = child.path.clone();
                // A container's word: it must not lead elsewhere.
                if name.is_empty() || name.contains(['/', '\0']) || [".", ".."].contains(&name.as_str()) {
                    let (from, name) = (from.escape_debug(), name.escape_debug());
                    return Err(ClientError::Usage(format!("`{from}` has an entry with the name `{name}`")));
                }
                // What is no UTF-8 comes as something else, by which it cannot be read, and which several may share.
                if name.contains(char::REPLACEMENT_CHARACTER) || !names.insert(name.clone()) {
                    leave_out(&format!("{from}/{name}"), "has a name that cannot be told");
                    continue;
                }
                let path = format!("{}/{name}", from.trim_end_matches('/'));
                let stat = Stat { path: format!("{to}/{name}"), ..child };
                Box::pin(self.entry(&path, stat)).await?;
            }
        }
        Ok(())
    }

    /// BuildKit sends the whole file whatever part is asked for, so its size says when all is there.
    async fn data(&mut self, id: u32, from: &str, size: i64) -> Result<(), ClientError> {
        let mut offset = 0;
        loop {
            let data = self.inside.read(from, offset).await?;
            offset += data.len() as i64;
            let end = data.is_empty() || offset >= size;
            self.writer.data(id, data.into()).map_err(|e| failed(&e))?;
            if end {
                return self.writer.end(id).map_err(|e| failed(&e));
            }
        }
    }
}
