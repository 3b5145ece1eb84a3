//! A fake of Azure's blob storage: containers, blobs and blocks in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::http::{Request, answer, serve};

/// The account's name.
const ACCOUNT: &str = "devstore";
/// The account's key, in base64.
const KEY: &str = "dmVyeS1nZWhlaW0=";
/// When everything was written.
const WRITTEN: &str = "Sun, 22 Nov 2026 05:00:00 GMT";
/// What a write is answered with; BuildKit wants to know which request it was.
const WRITE: &[(&str, &str)] = &[("ETag", "\"1\""), ("Last-Modified", WRITTEN), ("x-ms-request-id", "1")];

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
    blobs: BTreeMap<String, Vec<u8>>,
    /// By path and id: those that no list names.
    blocks: BTreeMap<(String, String), Vec<u8>>,
    requests: Vec<String>,
    failing: Option<(String, u16)>,
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

    /// The account's key.
    pub fn key(&self) -> &'static str {
        KEY
    }

    /// A blob, by container and name.
    pub fn blob(&self, name: &str) -> Option<Vec<u8>> {
        self.blobs.lock().blobs.get(&format!("/{name}")).cloned()
    }

    /// Replaces the blobs whose name contains `text`.
    pub fn replace(&self, text: &str, bytes: &[u8]) {
        let mut state = self.blobs.lock();
        state.blobs.iter_mut().filter(|(name, _)| name.contains(text)).for_each(|(_, blob)| {
            *blob = bytes.to_vec();
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
        self.lock().blobs.get(path).cloned()
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
                state.blobs.insert(path, whole);
                answer(201, WRITE, b"")
            }
            ("PUT", _) => {
                state.blobs.insert(path, request.body.clone());
                answer(201, WRITE, b"")
            }
            ("HEAD", _) if !there => answer(404, &[("x-ms-error-code", "BlobNotFound")], b""),
            ("HEAD", _) => {
                let length = state.blobs[&path].len().to_string();
                answer(
                    200,
                    &[("Content-Length", &length), ("ETag", "\"1\""), ("Last-Modified", WRITTEN)],
                    b"",
                )
            }
            _ if !there => refuse(404, "BlobNotFound"),
            _ => part(&state.blobs[&path], request),
        }
    }
}

/// A blob, or the range that is asked for.
pub(crate) fn part(blob: &[u8], request: &Request) -> Vec<u8> {
    let range = ["x-ms-range", "range"].iter().find_map(|name| request.headers.get(*name));
    let told = [("ETag", "\"1\""), ("Last-Modified", WRITTEN)];
    let Some((from, to)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return answer(200, &told, blob);
    };
    let from: usize = from.parse().unwrap_or(0).min(blob.len());
    let to = to.parse().map_or(blob.len(), |to: usize| (to + 1).min(blob.len()));
    let range = format!("bytes {from}-{}/{}", to.saturating_sub(1), blob.len());
    answer(206, &[("Content-Range", &range), told[0], told[1]], &blob[from..to])
}
