//! `https://…`: one file from a web server, or from a client that uploads it (`http://buildkit-session/…`).

mod coding;
mod headers;
mod signer;

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cache::fileop::{ARCHIVE_HEAD, is_archive};
use cache::layer::Meta;
use cache::store::{BlobPurpose, DownloadRecord};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use reqwest::StatusCode;
use reqwest::header::{ETAG, HeaderMap, IF_NONE_MATCH};
use solver::digest::Hasher;
use solver::op::{SourceOp, attr};
use solver::{Digest, ExecError, Output, SourceAnswer, SourceIdentity, Status, VertexContext, redacted};
use tokio_util::io::ReaderStream;

use super::file::{self, file_name, meta};
use crate::daemon::blocking::blocking;
use crate::daemon::chains::from_store;
use crate::daemon::provenance::Pin;
use crate::daemon::snapshot::Maker;
use crate::daemon::turns::Turns;
use crate::session::{ARRIVAL, SessionManager};
use coding::Coding;
pub(super) use signer::ATTRS as SIGNATURE;
use signer::Signer;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A server that sends nothing for this long has stalled.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Some servers answer BuildKit in a way of its own.
const USER_AGENT: &str = concat!("rbuild/", env!("CARGO_PKG_VERSION"), " buildkit/v0.32");
/// The host that stands for the build's own client.
const SESSION_HOST: &str = "buildkit-session";

/// Downloads files.
#[derive(Debug)]
pub(crate) struct HttpSource {
    client: std::sync::OnceLock<reqwest::Client>,
    sessions: Arc<SessionManager>,
    maker: Maker,
    /// By build and vertex identity: a build downloads a file once.
    done: Mutex<HashMap<(String, Digest), Download>>,
    turns: Turns<(String, Digest)>,
}

/// A file that was downloaded, and how it is to lie in the image.
#[derive(Debug, Clone)]
struct Download {
    body: Digest,
    name: String,
    meta: Meta,
    /// When the server says that it was changed, in nanoseconds since 1970.
    modified: Option<i64>,
    /// The signers ([`Signer::id`]) whose signature was found to be right.
    signed_by: Vec<Digest>,
}

/// What a file behind a URL is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    /// Of its bytes.
    pub digest: Digest,
    /// What it is called.
    pub name: String,
    /// When the server says that it was changed, in nanoseconds since 1970.
    pub modified: Option<i64>,
}

/// A download failed.
#[derive(Debug, thiserror::Error)]
enum HttpError {
    #[error("cannot fetch `{url}`")]
    Request {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("`{url}`: invalid response status {status}")]
    Status { url: String, status: u16 },
    #[error("cannot receive `{url}` from the client")]
    Upload {
        url: String,
        #[source]
        source: std::io::Error,
    },
    #[error("no session uploads `{0}`")]
    NoUpload(String),
    #[error("digest mismatch {got}: {want}")]
    Checksum { got: Digest, want: String },
}

impl HttpSource {
    pub(super) fn new(maker: Maker, sessions: Arc<SessionManager>) -> Self {
        Self {
            client: std::sync::OnceLock::new(),
            sessions,
            maker,
            done: Mutex::default(),
            turns: Turns::default(),
        }
    }

    pub(super) async fn identify(
        &self,
        op: &SourceOp,
        cx: &VertexContext,
    ) -> Result<SourceAnswer, ExecError> {
        let mut h = Hasher::new("rbuild.source.http.v1");
        let (body, name, meta) = match checksum(op) {
            // What it is is known without the server; its name in headers and its time do not count then, as in BuildKit.
            Some(body) => {
                // Who signed it is no part of the key: no build gets the result of another one without asking this.
                if Signer::new(op)?.is_some() {
                    self.download(op, cx).await?;
                }
                (body, file_name(op, None), meta(op, None)?)
            }
            None => {
                let Download { body, name, meta, .. } = self.download(op, cx).await?;
                (body, name, meta)
            }
        };
        h.digest(&body);
        file::identify(&mut h, &name, &meta);
        let revision = Some(body.to_string());
        Ok(SourceAnswer { identity: SourceIdentity::Digest(h.finish()), revision, output: None })
    }

    pub(super) async fn fetch(&self, op: &SourceOp, cx: &VertexContext) -> Result<Output, ExecError> {
        let d = self.download(op, cx).await?;
        let (maker, build, description) = (self.maker.clone(), cx.build.clone(), op.identifier.clone());
        blocking(move || {
            let body = maker.chains.store.blobs().open(&d.body).map_err(from_store)?;
            maker.of_file(&d.name, &d.meta, body, &build, &description)
        })
        .await
    }

    /// What is behind the URL.
    pub(super) async fn about(&self, op: &SourceOp, cx: &VertexContext) -> Result<About, ExecError> {
        let Download { body, name, modified, .. } = self.download(op, cx).await?;
        Ok(About { digest: body, name, modified })
    }

    /// When the file was changed, in seconds since 1970, or else the newest file in the archive that it is.
    pub(super) async fn time(&self, op: &SourceOp, cx: &VertexContext) -> Result<Option<i64>, ExecError> {
        let download = self.download(op, cx).await?;
        if let Some(modified) = download.modified {
            return Ok(Some(modified.div_euclid(1_000_000_000)));
        }
        let store = self.maker.chains.store.clone();
        blocking(move || {
            let open = || store.blobs().open(&download.body).map_err(from_store);
            newest(open()?, open()?)
        })
        .await
    }

    /// What provenance tells of the source.
    pub(super) async fn told(&self, op: &SourceOp, cx: &VertexContext) -> Result<Pin, ExecError> {
        let digest = match checksum(op) {
            Some(known) => known,
            None => self.download(op, cx).await?.body,
        };
        Ok(Pin::Http { url: redacted(&op.identifier).into_owned(), digest })
    }

    /// What BuildKit's caches know the file by (`source/http/source.go`).
    ///
    /// # Errors
    /// A file that cannot be downloaded.
    pub(super) async fn buildkit_keys(
        &self,
        op: &SourceOp,
        cx: &VertexContext,
    ) -> Result<Vec<String>, ExecError> {
        let (body, name, modified) = match checksum(op) {
            // Nothing that the server says counts then, and it is not asked.
            Some(body) if Signer::new(op)?.is_none() => (body, file_name(op, None), None),
            _ => {
                let Download { body, name, modified, .. } = self.download(op, cx).await?;
                (body, name, modified)
            }
        };
        let mut fields = serde_json::Map::from_iter([("Filename".to_owned(), name.into())]);
        fields.extend(file::key_fields(op)?);
        fields.insert("Checksum".to_owned(), body.to_string().into());
        if let Some(seconds) = modified.map(|nanos| nanos.div_euclid(1_000_000_000))
            && let Some(time) = http_date(seconds)
        {
            fields.insert("LastModTime".to_owned(), time.into());
        }
        if let Some(id) = op.attrs.get(attr::HTTP_AUTH_HEADER_SECRET).filter(|id| !id.is_empty()) {
            fields.insert("AuthHeaderSecret".to_owned(), id.as_str().into());
        }
        let headers = headers::key_fields(op);
        if !headers.is_empty() {
            fields.insert("Header".to_owned(), headers.into());
        }
        Ok(vec![Digest::of(&crate::llb::go_json(&fields.into())).to_string()])
    }

    /// Forgets what was downloaded for a build.
    pub(super) fn forget(&self, build: &str) {
        self.lock().retain(|(b, _), _| b != build);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, Digest), Download>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file, signed by whom the source names.
    async fn download(&self, op: &SourceOp, cx: &VertexContext) -> Result<Download, ExecError> {
        let signer = Signer::new(op)?;
        let mut h = Hasher::new("rbuild.source.http.request");
        h.str(&op.identifier);
        for (k, v) in op.attrs.iter().filter(|(name, _)| !signer::ATTRS.contains(&name.as_str())) {
            h.str(k).str(v);
        }
        let request = h.finish();
        let key = (cx.build.clone(), request);
        // Several graphs of a build may ask at once, and the body may be another one the second time.
        let _turn = self.turns.turn(key.clone()).await;
        let known = self.lock().get(&key).cloned();
        let mut download = match known {
            Some(known) => known,
            None => {
                let download = self.get(op, &request, cx).await?;
                self.lock().insert(key.clone(), download.clone());
                download
            }
        };
        if let Some(signer) = signer.filter(|signer| !download.signed_by.contains(&signer.id())) {
            download.signed_by.push(signer.id());
            signer.verify(&self.maker.chains.store, download.body).await?;
            self.lock().insert(key, download.clone());
        }
        Ok(download)
    }

    /// Downloads into a blob.
    async fn get(&self, op: &SourceOp, request: &Digest, cx: &VertexContext) -> Result<Download, ExecError> {
        let url = op.identifier.clone();
        let parsed = reqwest::Url::parse(&url).ok();
        if let Some(own) = parsed.filter(|u| u.host_str() == Some(SESSION_HOST) && u.scheme() == "http") {
            let body = self.upload(&own, cx).await?;
            let (name, meta) = (file_name(op, None), meta(op, None)?);
            return Ok(Download {
                body: self.store(body, Coding::Identity, None, cx).await?,
                name,
                meta,
                modified: None,
                signed_by: Vec::new(),
            });
        }
        let failed = |source| ExecError::failed(HttpError::Request { url: url.clone(), source });
        let headers = headers::headers(op, &self.sessions, cx).await?;
        let known = self.known(request, cx)?;
        let known = match known {
            Some(known) if self.is_current(&url, &headers, &known).await => return again(known, op),
            other => other,
        };
        let asked = self.client().get(&url).headers(headers);
        let asked = match &known {
            Some(known) => asked.header(IF_NONE_MATCH, &known.etag),
            None => asked,
        };
        let response = asked.send().await.map_err(failed)?;
        if let (Some(known), StatusCode::NOT_MODIFIED) = (known, response.status()) {
            return again(known, op);
        }
        if !response.status().is_success() {
            let status = response.status().as_u16();
            return Err(ExecError::failed(HttpError::Status { url, status }));
        }
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
        let name = file_name(op, header("content-disposition"));
        let etag = header("etag").filter(|etag| strong(etag).len() > r#""""#.len()).map(str::to_owned);
        let modified = header("last-modified").and_then(modified);
        let coding = Coding::of(header("content-encoding"));
        let (meta, total) = (meta(op, modified)?, response.content_length());
        let body = response.bytes_stream().map_err(failed);
        let body = self.store(body.boxed(), coding, total, cx).await?;
        if let Some(want) = op.attrs.get(attr::HTTP_CHECKSUM)
            && *want != body.to_string()
        {
            return Err(ExecError::failed(HttpError::Checksum { got: body, want: want.clone() }));
        }
        if let Some(etag) = etag {
            let record = DownloadRecord { etag, body, name: name.clone(), modified };
            self.maker.chains.store.downloads().put(request, &record).map_err(from_store)?;
        }
        Ok(Download { body, name, meta, modified, signed_by: Vec::new() })
    }

    /// What the request gave before; its body stays for the build.
    fn known(&self, request: &Digest, cx: &VertexContext) -> Result<Option<DownloadRecord>, ExecError> {
        let store = &self.maker.chains.store;
        let Some(record) = store.downloads().get(request).map_err(from_store)? else { return Ok(None) };
        let held = store.blobs().hold(&self.maker.leases.of(&cx.build), &record.body).map_err(from_store)?;
        Ok(held.map(|_| record))
    }

    /// Whether the server still has what it gave. Some servers ignore a validator they are asked with, so the one that
    /// they tell is compared, too; one that knows no HEAD is asked again with GET.
    async fn is_current(&self, url: &str, headers: &HeaderMap, known: &DownloadRecord) -> bool {
        let asked = self.client().head(url).headers(headers.clone()).header(IF_NONE_MATCH, &known.etag);
        let Ok(answer) = asked.send().await else { return false };
        let told = answer.headers().get(ETAG).and_then(|etag| etag.to_str().ok());
        match (answer.status(), told) {
            (StatusCode::OK | StatusCode::NOT_MODIFIED, Some(told)) => strong(told) == strong(&known.etag),
            (StatusCode::NOT_MODIFIED, None) => true,
            _ => false,
        }
    }

    /// What the build's client uploads. It does so only once.
    async fn upload(&self, url: &reqwest::Url, cx: &VertexContext) -> Result<Body<'static>, ExecError> {
        for id in cx.sessions.ids() {
            // It may be the first thing that the build does, before its session has arrived.
            let Ok(session) = self.sessions.get(&id, ARRIVAL).await else { continue };
            let Ok(pipe) = session.upload(SESSION_HOST, url.path()) else { continue };
            let url = url.to_string();
            let failed = move |source| ExecError::failed(HttpError::Upload { url: url.clone(), source });
            return Ok(ReaderStream::new(pipe).map_err(failed).boxed());
        }
        Err(ExecError::failed(HttpError::NoUpload(url.to_string())))
    }

    async fn store(
        &self,
        mut body: Body<'_>,
        coding: Coding,
        total: Option<u64>,
        cx: &VertexContext,
    ) -> Result<Digest, ExecError> {
        let store = &self.maker.chains.store;
        let mut writer = coding.decoder(store.blobs().writer().map_err(from_store)?);
        let (started, total) = (SystemTime::now(), total.unwrap_or(0));
        let mut current = 0;
        loop {
            let chunk = tokio::select! {
                chunk = body.next() => chunk.transpose()?,
                () = cx.cancel.cancelled() => return Err(ExecError::Canceled),
            };
            let Some(chunk) = chunk else { break };
            writer.write(&chunk).map_err(ExecError::failed)?;
            current += chunk.len() as u64;
        }
        let status =
            Status { id: "transferring".into(), current, total, started, completed: Some(SystemTime::now()) };
        cx.progress.status(status);
        let lease = self.maker.leases.of(&cx.build);
        blocking(move || {
            let writer = writer.finish().map_err(ExecError::failed)?;
            writer.commit(&lease, None, BlobPurpose::default()).map_err(from_store)
        })
        .await
    }

    fn client(&self) -> &reqwest::Client {
        self.client.get_or_init(|| {
            reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
                .user_agent(USER_AGENT)
                .build()
                .expect("the TLS provider is installed at start")
        })
    }
}

/// A file as it comes in.
type Body<'a> = BoxStream<'a, Result<Bytes, ExecError>>;

/// The digest that the body has to have, if it is given.
fn checksum(op: &SourceOp) -> Option<Digest> {
    op.attrs.get(attr::HTTP_CHECKSUM)?.parse().ok()
}

/// A time as HTTP writes it (RFC 9110, section 5.6.7).
fn http_date(seconds: i64) -> Option<String> {
    Some(jiff::Timestamp::from_second(seconds).ok()?.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
}

/// A validator without the mark that it is a weak one: servers that compress lose it on the way.
fn strong(etag: &str) -> &str {
    etag.strip_prefix("W/").unwrap_or(etag)
}

/// What a request gave before.
fn again(known: DownloadRecord, op: &SourceOp) -> Result<Download, ExecError> {
    let DownloadRecord { body, name, modified, .. } = known;
    Ok(Download { body, name, meta: meta(op, modified)?, modified, signed_by: Vec::new() })
}

/// The time of the newest file in an archive, in seconds since 1970; `None` where it is none, or has none. The same
/// bytes are read twice.
fn newest(head: impl Read, archive: impl Read) -> Result<Option<i64>, ExecError> {
    let mut begin = Vec::new();
    head.take(ARCHIVE_HEAD).read_to_end(&mut begin).map_err(ExecError::failed)?;
    if !is_archive(&begin) {
        return Ok(None);
    }
    let plain = cache::oci::Decompressor::new(archive).map_err(ExecError::failed)?;
    let mut newest = None;
    // Raw: long names are entries then, which nobody reads into memory.
    for entry in tar::Archive::new(plain).entries().map_err(ExecError::failed)?.raw(true) {
        let entry = entry.map_err(ExecError::failed)?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_longname()
            || kind.is_gnu_longlink()
            || kind.is_pax_global_extensions()
            || kind.is_pax_local_extensions()
        {
            continue;
        }
        let time = entry.header().mtime().map_err(ExecError::failed)?;
        newest = newest.max(i64::try_from(time).ok());
    }
    Ok(newest)
}

/// The time in a Last-Modified header, in nanoseconds since 1970: any of the three forms of RFC 9110, section 5.6.7, and
/// with the zone named UTC, as Go has it.
fn modified(header: &str) -> Option<i64> {
    let text = header.strip_suffix("UTC").map_or_else(|| header.to_owned(), |rest| format!("{rest}GMT"));
    let time = httpdate::parse_http_date(&text).ok()?;
    i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_file_of_an_archive() {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, mtime) in [("a", 5), ("b", 9), ("c", 7)] {
            let mut header = tar::Header::new_gnu();
            header.set_mtime(mtime);
            header.set_size(0);
            tar.append_data(&mut header, name, std::io::empty()).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        assert_eq!(newest(&tar[..], &tar[..]).unwrap(), Some(9));
        assert_eq!(newest(&b"text"[..], &b"text"[..]).unwrap(), None);
        assert_eq!(modified("Fri, 20 Nov 2026 13:10:20 GMT"), Some(1_795_180_220_000_000_000));
        assert_eq!(modified("Friday, 20-Nov-26 13:10:20 UTC"), Some(1_795_180_220_000_000_000));
        assert_eq!(modified("yesterday"), None);
    }
}
