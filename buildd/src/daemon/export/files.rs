//! `type=local` and `type=tar`: the files themselves.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use cache::tree::TreePath;
use cache::view::{FileType, MergedView, ViewError};
use proto::fsutil::Stat;
use solver::{ExecError, VertexContext};

use super::{Built, ExportRequest, Exporter, Results};
use crate::daemon::progress::Step;
use crate::daemon::stat::stat;
use crate::fsutil::{Files, TransferError};
use crate::session::ARRIVAL;

/// Several platforms in one directory.
#[derive(Debug, thiserror::Error)]
#[error("exporting the files of several platforms at once: name one with `--platform`")]
struct SeveralPlatforms;

impl Exporter {
    pub(super) async fn local(
        &self,
        request: &ExportRequest,
        results: &Results,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<BTreeMap<String, String>, ExecError> {
        let files = ViewFiles { view: self.view(results)? };
        let id = cx.sessions.ids().first().cloned().unwrap_or_default();
        let session = self.sessions.get(&id, ARRIVAL).await.map_err(ExecError::failed)?;
        let send = async { session.send_dir(request.id, Arc::new(files)).await.map_err(ExecError::failed) };
        step.part("copying files", send).await?;
        Ok(BTreeMap::new())
    }

    pub(super) async fn tar(
        &self,
        request: &ExportRequest,
        results: &Results,
        step: &Step,
        cx: &VertexContext,
    ) -> Result<BTreeMap<String, String>, ExecError> {
        let view = self.view(results)?;
        let passed = self.passed_file(request.id, cx);
        let write = self.stream(request.id, passed, cx, move |out| {
            crate::daemon::rootfs_tar::write(&view, out).map_err(ExecError::failed)
        });
        step.part("sending tarball", write).await?;
        Ok(BTreeMap::new())
    }

    fn view(&self, results: &Results) -> Result<Arc<MergedView>, ExecError> {
        match results.built.as_slice() {
            [] => Ok(Arc::new(MergedView::empty())),
            [Built { output, .. }] => Ok(self.chains.base(output)?.view),
            _ => Err(ExecError::failed(SeveralPlatforms)),
        }
    }
}

/// A merged view as fsutil sends it.
struct ViewFiles {
    view: Arc<MergedView>,
}

impl Files for ViewFiles {
    fn walk(&self, emit: &mut dyn FnMut(Stat) -> Result<(), TransferError>) -> Result<(), TransferError> {
        self.below(&TreePath::root(), emit)
    }

    fn open(&self, path: &str) -> io::Result<Box<dyn Read + Send>> {
        let path = TreePath::clean(path.as_bytes()).map_err(io::Error::other)?;
        let found = self.view.get(&path).map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(self.view.open_file(&found).map_err(io::Error::other)?))
    }
}

impl ViewFiles {
    fn below(
        &self,
        dir: &TreePath,
        emit: &mut dyn FnMut(Stat) -> Result<(), TransferError>,
    ) -> Result<(), TransferError> {
        let failed = |e: ViewError| unreadable(dir, e);
        for item in self.view.list(dir).map_err(failed)? {
            let path = dir.join(&item.name).map_err(|e| unreadable(dir, e))?;
            let Some(found) = self.view.get(&path).map_err(failed)? else { continue };
            emit(stat(&self.view, &found, found.path.as_bytes()).map_err(failed)?)?;
            if found.stat.file_type == FileType::Dir {
                self.below(&path, emit)?;
            }
        }
        Ok(())
    }
}

fn unreadable(path: &TreePath, e: impl std::error::Error + Send + Sync + 'static) -> TransferError {
    TransferError::Io { path: path.as_path().to_owned(), source: io::Error::other(e) }
}
