//! Where an archive's bytes go: a file that the client passed, or its session.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use cache::oci::Amend;
use cache::stream::StreamWriter;
use solver::{ExecError, VertexContext};
use tokio_util::io::SyncIoBridge;
use tonic::Code;

use super::Exporter;
use crate::daemon::blocking::blocking;
use crate::session::{ARRIVAL, SessionError};

/// Large enough to make a chunk's cost small, small enough for any gRPC limit.
const CHUNK: usize = 256 << 10;
/// Chunks that wait for the disk.
const WAITING: usize = 2;

/// A file that the client passed; errors name its directory.
#[derive(Debug)]
pub(super) struct Passed(StreamWriter);

/// The client's disk is full, or the like. Its file has a temporary name until it is whole, so the directory is named.
#[derive(Debug, thiserror::Error)]
#[error("cannot write into `{}`", .dir.display())]
struct NotWritten {
    dir: PathBuf,
    #[source]
    source: io::Error,
}

impl Passed {
    /// Whether bytes can be replaced.
    pub(super) fn can_amend(&self) -> bool {
        self.0.can_amend()
    }

    fn named(&self, source: io::Error) -> io::Error {
        let file = format!("/proc/self/fd/{}", self.0.file().as_raw_fd());
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

impl Amend for Passed {
    fn amend(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.amend(offset, bytes).map_err(|e| self.named(e))
    }
}

/// Takes chunks for the thread that writes them.
struct Behind(SyncSender<Vec<u8>>);

impl Write for Behind {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        // The thread has given up, and tells why.
        self.0.send(buf.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what `produce` gives into `file` on another thread, so that reading and hashing go on meanwhile.
fn write_behind(
    mut file: impl Write + Send,
    produce: impl FnOnce(&mut dyn Write) -> Result<(), ExecError>,
) -> Result<(), ExecError> {
    std::thread::scope(|scope| {
        let (sender, chunks) = sync_channel::<Vec<u8>>(WAITING);
        let writing = scope.spawn(move || {
            for chunk in chunks {
                file.write_all(&chunk)?;
            }
            file.flush()
        });
        let mut out = BufWriter::with_capacity(CHUNK, Behind(sender));
        let produced = produce(&mut out).and_then(|()| out.flush().map_err(ExecError::failed));
        drop(out);
        match writing.join() {
            // It is why producing failed, if that did.
            Ok(Err(error)) => Err(ExecError::failed(error)),
            Ok(Ok(())) => produced,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl Exporter {
    /// Takes the file that the client passed for an exporter's output.
    pub(super) fn passed_file(&self, exporter: usize, cx: &VertexContext) -> Option<Passed> {
        let take = |id: &String| self.passed.take_output(id, &exporter.to_string());
        let fd = cx.sessions.ids().iter().find_map(take)?;
        Some(Passed(StreamWriter::new(File::from(fd))))
    }

    /// Hands a writer to `produce`, on a blocking thread, and waits until the client has everything: in the file that it
    /// `passed`, or through its session, with `about` it. A client that says it has it already has it.
    pub(super) async fn stream<F>(
        &self,
        exporter: usize,
        passed: Option<Passed>,
        about: &BTreeMap<String, String>,
        cx: &VertexContext,
        produce: F,
    ) -> Result<(), ExecError>
    where
        F: FnOnce(&mut dyn Write) -> Result<(), ExecError> + Send + 'static,
    {
        if let Some(file) = passed {
            return blocking(move || write_behind(file, produce)).await;
        }
        let id = cx.sessions.ids().first().cloned().unwrap_or_default();
        let session = self.sessions.get(&id, ARRIVAL).await.map_err(ExecError::failed)?;
        let file = session.send_file(exporter, about).map_err(ExecError::failed)?;
        let bridge = SyncIoBridge::new(file);
        let (file, produced) = blocking(move || {
            let mut out = BufWriter::with_capacity(CHUNK, bridge);
            let produced = produce(&mut out).and_then(|()| out.flush().map_err(ExecError::failed));
            (out.into_parts().0.into_inner(), produced)
        })
        .await;
        let (ended, failed) = match produced {
            Ok(()) => (file.finish().await, None),
            // Nothing may look like its end.
            Err(error) => (file.refusal().await, Some(error)),
        };
        match (ended, failed) {
            (Err(SessionError::Client(status)), _) if status.code() == Code::AlreadyExists => Ok(()),
            (_, Some(error)) => Err(error),
            (ended, None) => ended.map_err(ExecError::failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, and then no more.
    struct Small(Vec<u8>, usize);

    impl Write for &mut Small {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            if self.0.len() + buf.len() > self.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.extend_from_slice(buf);
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_is_written_in_order_or_the_reason_told() {
        let text: Vec<u8> = (0..5 * CHUNK + 7).map(|i| (i / 1000) as u8).collect();
        let produce = |out: &mut dyn Write| {
            text.chunks(77_777).try_for_each(|part| out.write_all(part)).map_err(ExecError::failed)
        };
        let mut file = Small(Vec::new(), usize::MAX);
        write_behind(&mut file, produce).unwrap();
        assert!(file.0 == text);
        for room in [0, CHUNK, text.len() - 1] {
            let error = write_behind(&mut Small(Vec::new(), room), produce).unwrap_err();
            assert!(error.to_string().contains("no storage space"), "{room}: {error}");
        }
        let failed = write_behind(&mut Small(Vec::new(), usize::MAX), |_| Err(ExecError::Canceled));
        assert!(matches!(failed, Err(ExecError::Canceled)));
    }
}
