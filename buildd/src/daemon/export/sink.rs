//! Where an archive's bytes go: a file that the client passed, or its session.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use solver::{ExecError, VertexContext};
use tokio_util::io::SyncIoBridge;

use super::Exporter;
use crate::daemon::blocking::blocking;

/// How long an export waits for the session that it goes to.
const ARRIVAL: Duration = Duration::from_secs(5);
/// Large enough to make a chunk's cost small, small enough for any gRPC limit.
const CHUNK: usize = 256 << 10;

/// A file that the client passed; errors name its directory.
struct Passed(File);

/// The client's disk is full, or the like. Its file has a temporary name until it is whole, so the directory is named.
#[derive(Debug, thiserror::Error)]
#[error("cannot write into `{}`", .dir.display())]
struct NotWritten {
    dir: PathBuf,
    #[source]
    source: io::Error,
}

impl Passed {
    fn named(&self, source: io::Error) -> io::Error {
        let file = format!("/proc/self/fd/{}", self.0.as_raw_fd());
        match std::fs::read_link(file).ok().as_deref().and_then(Path::parent) {
            Some(dir) => io::Error::new(source.kind(), NotWritten { dir: dir.to_owned(), source }),
            None => source,
        }
    }
}

impl Write for Passed {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf).map_err(|e| self.named(e))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(|e| self.named(e))
    }
}

impl Exporter {
    /// Hands a writer to `produce`, on a blocking thread, and waits until the client has everything.
    pub(super) async fn stream<F>(
        &self,
        exporter: usize,
        cx: &VertexContext,
        produce: F,
    ) -> Result<(), ExecError>
    where
        F: FnOnce(&mut dyn Write) -> Result<(), ExecError> + Send + 'static,
    {
        let ids = cx.sessions.ids();
        let passed = ids.iter().find_map(|id| self.passed.take_output(id, &exporter.to_string()));
        if let Some(fd) = passed {
            return blocking(move || {
                let mut out = BufWriter::with_capacity(CHUNK, Passed(File::from(fd)));
                produce(&mut out)?;
                out.flush().map_err(ExecError::failed)
            })
            .await;
        }
        let id = ids.first().cloned().unwrap_or_default();
        let session = self.sessions.get(&id, ARRIVAL).await.map_err(ExecError::failed)?;
        let file = session.send_file(exporter, &Default::default()).map_err(ExecError::failed)?;
        let bridge = SyncIoBridge::new(file);
        let file = blocking(move || {
            let mut out = BufWriter::with_capacity(CHUNK, bridge);
            produce(&mut out)?;
            let bridge = out.into_inner().map_err(|e| ExecError::failed(e.into_error()))?;
            Ok::<_, ExecError>(bridge.into_inner())
        })
        .await?;
        file.finish().await.map_err(ExecError::failed)
    }
}
