//! `rbuild debug cp`: files out of what a failed step left.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use proto::fsutil::Stat;
use rustix::fs::FileType;
use tonic::Code;

use super::super::Context;
use super::super::build::warn;
use super::super::history::running;
use crate::client::{ClientError, Inside};
use crate::fsutil::{DirWriter, Owners, Sink as _, TransferError, file_mode, st_mode};

/// Copies files out of the step that `rbuild build --debug` has open
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A path in the step's root; the build's id, or its beginning, may be left out while only one runs
    #[arg(value_name = "[BUILD:]PATH")]
    from: String,
    /// Where it goes: into a directory that exists, or under this name; files that are there are replaced
    #[arg(value_name = "DESTINATION")]
    to: PathBuf,
}

impl Args {
    pub(super) async fn run(&self, context: &Context) -> Result<ExitCode, ClientError> {
        let (build, path) = match self.from.split_once(':') {
            Some((build, path)) if !build.contains('/') => (Some(build), path),
            _ => (None, self.from.as_str()),
        };
        if !path.starts_with('/') {
            return Err(ClientError::Usage(format!("`{path}` is no path from the root, `/…`")));
        }
        let client = context.connect().await?;
        let build = running(&client, build).await?;
        let inside = Inside::of(&client, &build);
        let closed = |status: tonic::Status| match status.code() {
            Code::NotFound if status.message().contains(inside.id()) => ClientError::Usage(format!(
                "build `{build}` has no failed step open: that is what `rbuild build --debug` does"
            )),
            _ => status.into(),
        };
        let top = inside.stat(path).await.map_err(closed)?;
        let own = Path::new(path).file_name();
        let (dir, name) = match (self.to.is_dir(), own) {
            (true, Some(own)) => (self.to.clone(), own.to_owned()),
            _ => (parent(&self.to), self.to.file_name().or(own).unwrap_or_default().to_owned()),
        };
        let name = name.to_str().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| ClientError::Usage(format!("`{}` is no name", self.to.display())))?;
        let writer = DirWriter::new(&dir, Owners::Mine);
        let mut copy = Copy { inside, dir, writer, entries: 0 };
        copy.entry(path, Stat { path: name.to_owned(), ..top }).await?;
        copy.writer.finish().map_err(|e| failed(&e))?;
        Ok(ExitCode::SUCCESS)
    }
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
    inside: Inside<'a>,
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
