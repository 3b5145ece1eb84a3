//! A fake of Azure's blob storage: containers, blobs and blocks in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::http::{Request, answer, serve};

/// The account's name.
const ACCOUNT: &str = "devstore";
/// The account's key, in base64.
const KEY: &str = "dmVyeS1nZWhlaW0=";
/// So many blobs are listed at a time.
const PAGE: usize = 5;

/// A storage account on loopback.
#[derive(Debug)]
pub struct Azure {
    url: String,
    blobs: Arc<Blobs>,
}

/// What it stores.
#[derive(Debug, Default)]
pub(crate) struct Blobs(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    containers: BTreeSet<String>,
    /// By path, container included.
    blobs: BTreeMap<String, Stored>,
    /// By path and id: those that no list names.
    blocks: BTreeMap<(String, String), Vec<u8>>,
    requests: Vec<String>,
    failing: Option<(String, u16)>,
}

#[derive(Debug, Clone)]
struct Stored {
    bytes: Vec<u8>,
    written: SystemTime,
}

impl Stored {
    fn now(bytes: Vec<u8>) -> Self {
        Self { bytes, written: SystemTime::now() }
    }
}

impl Azure {
    /// Starts a service with an account and no container.
    pub fn start() -> Self {
        let blobs = Arc::new(Blobs::default());
        let shared = blobs.clone();
        let address = serve(move |request| {
            let key = format!("SharedKey {ACCOUNT}:");
            let known = request.headers.get("authorization").is_some_and(|header| header.starts_with(&key));
            match known {
                true => shared.handle(&request),
                false => refuse(403, "AuthenticationFailed"),
            }
        });
        Self { url: format!("http://{address}"), blobs }
    }

    /// The cache `name` there, as `--cache-from` and `--cache-to` take it.
    pub fn cache(&self, name: &str) -> String {
        format!(
            "type=azblob,account_url={},account_name={ACCOUNT},container=c,name={name},secret_access_key={KEY}",
            self.url
        )
    }

    /// A keyed cache in the container `c`, below `prefix`.
    pub fn keyed(&self, prefix: &str) -> String {
        format!(
            "type=keyed,url=azblob://c/{prefix},account_url={},account_name={ACCOUNT},secret_access_key={KEY}",
            self.url
        )
    }

    /// The names of all blobs, containers included.
    pub fn names(&self) -> Vec<String> {
        self.blobs.lock().blobs.keys().map(|path| path.trim_start_matches('/').to_owned()).collect()
    }

    /// Makes all blobs older.
    pub fn age(&self, by: Duration) {
        self.blobs.lock().blobs.values_mut().for_each(|blob| blob.written -= by);
    }

    /// The account's key.
    pub fn key(&self) -> &'static str {
        KEY
    }

    /// A blob, by container and name.
    pub fn blob(&self, name: &str) -> Option<Vec<u8>> {
        self.blobs.whole(&format!("/{name}"))
    }

    /// Replaces the blobs whose name contains `text`.
    pub fn replace(&self, text: &str, bytes: &[u8]) {
        let mut state = self.blobs.lock();
        state.blobs.iter_mut().filter(|(name, _)| name.contains(text)).for_each(|(_, blob)| {
            blob.bytes = bytes.to_vec();
        });
    }

    /// Takes the requests since the last time, as `METHOD /container/blob`.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.blobs.lock().requests)
    }

    /// Answers requests that contain `text` with a status, from now on.
    pub fn fail(&self, text: &str, status: u16) {
        self.blobs.lock().failing = Some((text.to_owned(), status));
    }

    /// Answers all requests again.
    pub fn heal(&self) {
        self.blobs.lock().failing = None;
    }
}

fn refuse(status: u16, code: &str) -> Vec<u8> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>told so</Message></Error>");
    answer(status, &[("x-ms-error-code", code)], body.as_bytes())
}

impl Blobs {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A whole blob, by its path.
    pub(crate) fn whole(&self, path: &str) -> Option<Vec<u8>> {
        self.lock().blobs.get(path).map(|blob| blob.bytes.clone())
    }

    /// Answers a request for a container or a blob.
    pub(crate) fn handle(&self, request: &Request) -> Vec<u8> {
        let mut state = self.lock();
        let first = format!("{} {}", request.method, request.path);
        state.requests.push(first.clone());
        if let Some((_, status)) = state.failing.clone().filter(|(text, _)| first.contains(text.as_str())) {
            return refuse(status, "InternalError");
        }
        let get = |name: &str| request.query.get(name).map(String::as_str);
        let path = request.path.clone();
        if get("restype") == Some("container") {
            if get("comp") == Some("list") {
                return state.list(
                    &path,
                    get("prefix").unwrap_or_default(),
                    get("marker").unwrap_or_default(),
                );
            }
            return match (request.method.as_str(), state.containers.contains(&path)) {
                ("PUT", false) => {
                    state.containers.insert(path);
                    answer(201, &[], b"")
                }
                ("PUT", true) => refuse(409, "ContainerAlreadyExists"),
                (_, true) => answer(200, &[], b""),
                (_, false) => answer(404, &[("x-ms-error-code", "ContainerNotFound")], b""),
            };
        }
        let there = state.blobs.contains_key(&path);
        let only_new = request.headers.get("if-none-match").is_some_and(|value| value == "*");
        match (request.method.as_str(), get("comp")) {
            ("PUT", Some("block")) => {
                let id = get("blockid").unwrap_or_default().to_owned();
                state.blocks.insert((path, id), request.body.clone());
                answer(201, &[], b"")
            }
            ("PUT", Some("metadata")) if there => {
                state.blobs.entry(path).and_modify(|blob| blob.written = SystemTime::now());
                answer(200, &[], b"")
            }
            ("PUT", Some("metadata")) => refuse(404, "BlobNotFound"),
            ("PUT", _) if there && only_new => refuse(409, "BlobAlreadyExists"),
            ("PUT", Some("blocklist")) => {
                let list = String::from_utf8_lossy(&request.body).into_owned();
                let ids = list.split("<Latest>").skip(1).filter_map(|rest| rest.split('<').next());
                let mut whole = Vec::new();
                for id in ids {
                    match state.blocks.remove(&(path.clone(), id.to_owned())) {
                        Some(block) => whole.extend(block),
                        None => return refuse(400, "InvalidBlockList"),
                    }
                }
                state.put(path, whole)
            }
            ("PUT", _) => state.put(path, request.body.clone()),
            ("DELETE", _) if there => {
                state.blobs.remove(&path);
                answer(202, &[], b"")
            }
            ("HEAD", _) if !there => answer(404, &[("x-ms-error-code", "BlobNotFound")], b""),
            ("HEAD", _) => {
                let Stored { bytes, written } = &state.blobs[&path];
                let (length, written) = (bytes.len().to_string(), httpdate::fmt_http_date(*written));
                answer(
                    200,
                    &[("Content-Length", &length), ("ETag", "\"1\""), ("Last-Modified", &written)],
                    b"",
                )
            }
            _ if !there => refuse(404, "BlobNotFound"),
            _ => part(&state.blobs[&path].bytes, request),
        }
    }
}

impl State {
    fn put(&mut self, path: String, bytes: Vec<u8>) -> Vec<u8> {
        let blob = Stored::now(bytes);
        let written = httpdate::fmt_http_date(blob.written);
        self.blobs.insert(path, blob);
        // BuildKit wants to know which request it was.
        answer(201, &[("ETag", "\"1\""), ("Last-Modified", &written), ("x-ms-request-id", "1")], b"")
    }

    /// A page of the blobs of a container whose names begin with `prefix`, after `marker`.
    fn list(&self, container: &str, prefix: &str, marker: &str) -> Vec<u8> {
        let name = |path: &String| path.strip_prefix(container)?.strip_prefix('/').map(str::to_owned);
        let all = self.blobs.iter().filter_map(|(path, blob)| Some((name(path)?, blob)));
        let found: Vec<(String, &Stored)> = all
            .filter(|(name, _)| name.starts_with(prefix) && name.as_str() > marker)
            .take(PAGE + 1)
            .collect();
        let page = &found[..found.len().min(PAGE)];
        let blob = |(name, Stored { bytes, written }): &(String, &Stored)| {
            let (written, length) = (httpdate::fmt_http_date(*written), bytes.len());
            format!(
                "<Blob><Name>{name}</Name><Properties><Last-Modified>{written}</Last-Modified><Etag>1</Etag><Content-Length>{length}</Content-Length><Content-Type>application/octet-stream</Content-Type></Properties></Blob>"
            )
        };
        let blobs: String = page.iter().map(blob).collect();
        let next = if found.len() > PAGE { page[PAGE - 1].0.as_str() } else { "" };
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{next}</NextMarker></EnumerationResults>"
        );
        answer(200, &[("Content-Type", "application/xml")], body.as_bytes())
    }
}

/// A blob, or the range that is asked for.
pub(crate) fn part(blob: &[u8], request: &Request) -> Vec<u8> {
    let range = ["x-ms-range", "range"].iter().find_map(|name| request.headers.get(*name));
    let now = httpdate::fmt_http_date(SystemTime::now());
    let told = [("ETag", "\"1\""), ("Last-Modified", now.as_str())];
    let Some((from, to)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return answer(200, &told, blob);
    };
    let from: usize = from.parse().unwrap_or(0).min(blob.len());
    let to = to.parse().map_or(blob.len(), |to: usize| (to + 1).min(blob.len()));
    let range = format!("bytes {from}-{}/{}", to.saturating_sub(1), blob.len());
    answer(206, &[("Content-Range", &range), told[0], told[1]], &blob[from..to])
}
