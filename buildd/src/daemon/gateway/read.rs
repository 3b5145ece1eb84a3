//! Looking into results: files, directories, attributes.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;

use cache::tree::Follow;
use cache::view::{Located, MergedView, ViewError};
use proto::fsutil::Stat;
use proto::gateway::{
    FileRange, ReadDirRequest, ReadDirResponse, ReadFileRequest, ReadFileResponse, StatFileRequest,
    StatFileResponse,
};
use solver::Need;
use solver::pattern::PatternMatcher;
use tonic::Code;

use super::Bridge;
use crate::daemon::blocking::blocking;
use crate::daemon::failure::{self, Failure};
use crate::daemon::stat::stat;

/// A file larger than this fits into no message; ranges of it do.
const LIMIT: u64 = (16 << 20) - 4096;

impl Bridge {
    pub(super) async fn read_file(&self, request: ReadFileRequest) -> Result<ReadFileResponse, Failure> {
        let view = self.view(&request.r#ref).await?;
        let data = blocking(move || file(&view, &request.file_path, request.range)).await?;
        Ok(ReadFileResponse { data: data.into() })
    }

    pub(super) async fn read_dir(&self, request: ReadDirRequest) -> Result<ReadDirResponse, Failure> {
        let view = self.view(&request.r#ref).await?;
        let entries = blocking(move || directory(&view, &request.dir_path, &request.include_pattern)).await?;
        Ok(ReadDirResponse { entries })
    }

    pub(super) async fn stat_file(&self, request: StatFileRequest) -> Result<StatFileResponse, Failure> {
        let view = self.view(&request.r#ref).await?;
        let found = blocking(move || {
            let found = find(&view, &request.path)?;
            stat(&view, &found, found.path.name()).map_err(|e| Failure::invalid(&e))
        });
        Ok(StatFileResponse { stat: Some(found.await?) })
    }

    async fn view(&self, id: &str) -> Result<Arc<MergedView>, Failure> {
        let output = self.output(id, Need::Present).await?;
        let chains = self.parts.chains.clone();
        let base = blocking(move || chains.base(&output)).await;
        base.map(|base| base.view).map_err(|e| Failure::new(Code::Unknown, failure::text(&e)))
    }
}

/// What a path stands for, links followed within the view.
fn find(view: &MergedView, path: &str) -> Result<Located, Failure> {
    let missing = || Failure::new(Code::NotFound, format!("open {path}: no such file or directory"));
    match view.resolve(path.as_bytes(), Follow::Last) {
        Ok(Some(found)) => Ok(found),
        Ok(None) | Err(ViewError::NotFound(_)) => Err(missing()),
        Err(e) => Err(Failure::invalid(&e)),
    }
}

fn file(view: &MergedView, path: &str, range: Option<FileRange>) -> Result<Vec<u8>, Failure> {
    let found = find(view, path)?;
    let mut file = view.open_file(&found).map_err(|e| Failure::invalid(&e))?;
    contents(&mut file, path, range)
}

/// A file's bytes, or a range of them.
pub(super) fn contents(
    file: &mut (impl Read + Seek),
    path: &str,
    range: Option<FileRange>,
) -> Result<Vec<u8>, Failure> {
    let failed = |e| Failure::new(Code::Unknown, format!("read {path}: {e}"));
    let length = match range {
        Some(FileRange { offset, length }) => {
            let positive = |n: i64| u64::try_from(n).ok();
            let (Some(offset), Some(length)) = (positive(offset), positive(length)) else {
                let message = format!("invalid range {offset}+{length} of {path}");
                return Err(Failure::new(Code::InvalidArgument, message));
            };
            file.seek(SeekFrom::Start(offset)).map_err(failed)?;
            length
        }
        None => u64::MAX,
    };
    let mut data = Vec::new();
    file.take(length.min(LIMIT + 1)).read_to_end(&mut data).map_err(failed)?;
    match data.len() as u64 > LIMIT {
        true => Err(Failure::new(
            Code::ResourceExhausted,
            format!("{path} is larger than {LIMIT} bytes; ask for ranges of it"),
        )),
        false => Ok(data),
    }
}

/// The entries of a directory whose names match the pattern, if there is one.
fn directory(view: &MergedView, path: &str, pattern: &str) -> Result<Vec<Stat>, Failure> {
    let wanted = wanted(pattern)?;
    let dir = match view.resolve(path.as_bytes(), Follow::Last) {
        // The root of nothing is empty.
        Ok(None) if path.split('/').all(|part| matches!(part, "" | ".")) => return Ok(Vec::new()),
        _ => find(view, path)?,
    };
    let mut entries = Vec::new();
    for item in view.list(&dir.path).map_err(|e| Failure::invalid(&e))? {
        if wanted.as_ref().is_some_and(|wanted| !wanted.matches(&item.name)) {
            continue;
        }
        let failed = |e: ViewError| Failure::invalid(&e);
        let Ok(path) = dir.path.join(&item.name) else { continue };
        let Some(found) = view.get(&path).map_err(failed)? else { continue };
        entries.push(stat(view, &found, &item.name).map_err(failed)?);
    }
    Ok(entries)
}

/// Which names are wanted; `None`: all.
pub(super) fn wanted(pattern: &str) -> Result<Option<PatternMatcher>, Failure> {
    match pattern {
        "" => Ok(None),
        pattern => PatternMatcher::new(&[pattern]).map(Some).map_err(|e| Failure::invalid(&e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_directories_and_attributes() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("fs");
        fs_err::create_dir_all(layer.join("a/b")).unwrap();
        fs_err::write(layer.join("a/one.txt"), "0123456789").unwrap();
        fs_err::write(layer.join("a/two.md"), "").unwrap();
        std::os::unix::fs::symlink("/a/one.txt", layer.join("link")).unwrap();
        let view = MergedView::open(&[layer]).unwrap();
        let read = |path: &str, range: Option<(i64, i64)>| {
            let range = range.map(|(offset, length)| FileRange { offset, length });
            file(&view, path, range).map(|d| String::from_utf8(d).unwrap()).map_err(|e| e.code)
        };
        assert_eq!(read("a/one.txt", None).unwrap(), "0123456789");
        assert_eq!(read("/link", Some((2, 3))).unwrap(), "234");
        assert_eq!(read("/link", Some((8, i64::MAX))).unwrap(), "89");
        assert_eq!(read("link", Some((-1, 3))), Err(Code::InvalidArgument));
        assert_eq!(read("/a/../../a/none", None), Err(Code::NotFound));
        assert_eq!(read("a", None), Err(Code::InvalidArgument));
        let names = |path: &str, pattern: &str| {
            directory(&view, path, pattern).map(|all| all.into_iter().map(|s| s.path).collect::<Vec<_>>())
        };
        assert_eq!(names("/", "").unwrap(), ["a", "link"]);
        assert_eq!(names("a", "").unwrap(), ["b", "one.txt", "two.md"]);
        assert_eq!(names("a", "*.txt").unwrap(), ["one.txt"]);
        assert_eq!(names("nope", "").unwrap_err().code, Code::NotFound);
        assert!(directory(&MergedView::empty(), ".", "").unwrap().is_empty());
        let of_link = find(&view, "link").unwrap();
        let stat = stat(&view, &of_link, of_link.path.name()).unwrap();
        assert_eq!((stat.path.as_str(), stat.size), ("one.txt", 10));
    }
}
