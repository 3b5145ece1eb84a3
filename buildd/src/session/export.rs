//! Calls that bring results to the client.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use proto::exporter::exporter_client::ExporterClient;
use proto::exporter::{ExporterRequest, FinalizeExportRequest, FindExportersRequest};
use proto::filesync::BytesMessage;
use proto::filesync::file_send_client::FileSendClient;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Status};

use super::call::{add_header, call_packets, lazy};
use super::{Session, SessionError};
use crate::fsutil::{Files, packets, send};
use crate::pipe::{BytePipe, outgoing};

const METHOD: &str = "/moby.filesync.v1.FileSend/DiffCopy";

/// A file that the client writes. Only [`FileWriter::finish`] says that it has it.
#[derive(Debug)]
pub struct FileWriter {
    session: Session,
    pipe: BytePipe<BytesMessage>,
    call: JoinHandle<Result<(), Status>>,
    /// A write failed, so the call is over.
    refused: bool,
}

impl Session {
    /// Starts sending the file that exporter number `exporter` makes.
    ///
    /// `metadata` is what the exporter says of its result; it travels as `exporter-md-*` headers.
    ///
    /// # Errors
    /// The client takes no files.
    pub fn send_file(
        &self,
        exporter: usize,
        metadata: &BTreeMap<String, String>,
    ) -> Result<FileWriter, SessionError> {
        let mut headers = self.export_headers(exporter)?;
        for (key, value) in metadata {
            let key = format!("exporter-md-{}", key.to_ascii_lowercase());
            add_header(&mut headers, &key, std::slice::from_ref(value))?;
        }
        let (tx, rx) = outgoing();
        let request = Request::from_parts(headers, Extensions::default(), rx);
        let mut client = FileSendClient::new(self.channel());
        // A task of its own: the client answers, even with headers, only when it has the file.
        let call = tokio::spawn(async move {
            let mut answer = client.diff_copy(request).await?.into_inner();
            while answer.message().await?.is_some() {}
            Ok(())
        });
        let pipe = BytePipe::new(futures_util::stream::empty(), tx);
        Ok(FileWriter { session: self.clone(), pipe, call, refused: false })
    }

    /// Sends the directory that exporter number `exporter` makes; returns when the client has it.
    ///
    /// # Errors
    /// The client takes no files, could not write them, or went away; `files` could not be read.
    pub async fn send_dir(&self, exporter: usize, files: Arc<dyn Files>) -> Result<(), SessionError> {
        let mut headers = self.export_headers(exporter)?;
        add_header(&mut headers, "buildkit-exporter-multi-platform", &["1".to_owned()])?;
        let (tx, rx) = tokio::sync::mpsc::channel(64);
        let request = Request::from_parts(headers, Extensions::default(), packets(rx));
        let incoming = lazy(call_packets(self.channel(), METHOD, request));
        self.live(send(files, incoming, tx)).await
    }

    /// Which exports the client wishes for, now that there are results: `metadata` is said of them, and the client knows
    /// them by `refs`. None where it does not say.
    ///
    /// # Errors
    /// What the client answers; it went away.
    pub async fn find_exporters(
        &self,
        metadata: BTreeMap<String, Bytes>,
        refs: Vec<String>,
    ) -> Result<Vec<ExporterRequest>, SessionError> {
        if !self.supports("/moby.exporter.v1.Exporter/FindExporters") {
            return Ok(Vec::new());
        }
        let mut client = ExporterClient::new(self.channel());
        let request = FindExportersRequest { metadata, refs };
        match self.live(client.find_exporters(request)).await {
            Ok(answer) => Ok(answer.into_inner().exporters),
            Err(error) if error.is_absence() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Tells the client what the exporters say, so that it can end what it began.
    ///
    /// # Errors
    /// What the client answers; it went away.
    pub async fn finalize_export(&self, response: &BTreeMap<String, String>) -> Result<(), SessionError> {
        if !self.supports("/moby.exporter.v1.Exporter/FinalizeExport") {
            return Ok(());
        }
        let mut client = ExporterClient::new(self.channel());
        let request = FinalizeExportRequest { exporter_response: response.clone() };
        match self.live(client.finalize_export(request)).await {
            Err(error) if !error.is_absence() => Err(error),
            _ => Ok(()),
        }
    }

    fn export_headers(&self, exporter: usize) -> Result<MetadataMap, SessionError> {
        self.require(METHOD)?;
        let mut headers = MetadataMap::new();
        add_header(&mut headers, "buildkit-attachable-exporter-id", &[exporter.to_string()])?;
        Ok(headers)
    }
}

impl FileWriter {
    /// Ends the file and waits until the client has it.
    ///
    /// # Errors
    /// The client could not write it or went away.
    pub async fn finish(mut self) -> Result<(), SessionError> {
        // Fails only when the call is over, and then the call knows why.
        let _ = self.pipe.shutdown().await;
        self.ended().await
    }

    /// What the client said when it took no more, for a file that is not whole.
    ///
    /// # Errors
    /// That.
    pub async fn refusal(mut self) -> Result<(), SessionError> {
        if self.refused { self.ended().await } else { Ok(()) }
    }

    async fn ended(&mut self) -> Result<(), SessionError> {
        let lost = || Status::cancelled("file transfer cancelled");
        let call = &mut self.call;
        self.session.live(async { call.await.map_err(|_| lost())? }).await
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        self.call.abort();
    }
}

impl AsyncWrite for FileWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.pipe).poll_write(cx, buf);
        self.refused |= matches!(written, Poll::Ready(Err(_)));
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}
