//! A fake of GitHub's cache service: both protocols, the store behind the second, and the list of the REST API.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::azure::{Blobs, part};
use crate::http::{Request, answer, serve};

/// The secret part of tokens and signed URLs.
const SIGNATURE: &str = "very-geheim";
/// May be read.
const READ: u64 = 1;
/// May be read and written.
const WRITE: u64 = 3;

/// The service on loopback.
#[derive(Debug)]
pub struct Actions {
    url: String,
    state: Arc<Mutex<State>>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub enum Job {
    /// One of the main branch.
    Main,
    /// One of a branch of its own, which reads the main branch's caches.
    Feature,
    /// One that only reads the main branch's.
    Fork,
    /// One that took too long.
    Late,
}

/// What is wrong with downloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Downloads {
    /// They end half way, and can be taken up there.
    Break,
    /// They end half way, and begin elsewhere when they are taken up.
    BreakAndShift,
}

#[derive(Debug, Default)]
struct State {
    /// Oldest first.
    entries: Vec<Entry>,
    requests: Vec<String>,
    /// How many requests are put off, and by how many seconds.
    throttled: (u32, u32),
    failing: Option<(String, u16)>,
    downloads: Option<Downloads>,
}

#[derive(Debug)]
struct Entry {
    branch: String,
    key: String,
    data: Vec<u8>,
    committed: bool,
}

impl Job {
    /// The token that the job has.
    pub fn token(self) -> String {
        let main = |permission| json!({ "Scope": "refs/heads/main", "Permission": permission });
        let scopes = match self {
            Self::Feature => json!([{ "Scope": "refs/heads/feature", "Permission": WRITE }, main(READ)]),
            Self::Fork => json!([main(READ)]),
            Self::Main | Self::Late => json!([main(WRITE)]),
        };
        let expires = if matches!(self, Self::Late) { 7u64 } else { 9_999_999_999 };
        let claims = json!({ "ac": scopes.to_string(), "exp": expires, "nbf": 1 });
        let [head, claims] = [json!({ "alg": "HS256", "typ": "JWT" }), claims]
            .map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        format!("{head}.{claims}.{SIGNATURE}")
    }
}

impl Actions {
    /// Starts a service without entries.
    pub fn start() -> Self {
        let (state, blobs) = (Arc::new(Mutex::new(State::default())), Blobs::default());
        let shared = state.clone();
        let address = serve(move |request| handle(&mut lock(&shared), &blobs, &request));
        Self { url: format!("http://{address}"), state }
    }

    /// The caches of a scope there, in one version of the protocol, as `--cache-from` and `--cache-to` take it.
    pub fn cache(&self, version: u32, scope: &str, job: Job) -> String {
        let url = if version == 2 { "url_v2" } else { "url" };
        format!("type=gha,{url}={},scope={scope},token={}", self.url, job.token())
    }

    /// A keyed cache there.
    pub fn keyed(&self, version: u32, job: Job) -> String {
        format!("type=keyed,url=gha://,url_v{version}={},token={}", self.url, job.token())
    }

    /// What must show nowhere.
    pub fn secret(&self) -> &'static str {
        SIGNATURE
    }

    /// Where everything is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The keys of all entries.
    pub fn keys(&self) -> Vec<String> {
        let state = lock(&self.state);
        state.entries.iter().filter(|entry| entry.committed).map(|entry| entry.key.clone()).collect()
    }

    /// Replaces the bytes of entries whose key begins with `prefix`.
    pub fn replace(&self, prefix: &str, bytes: &[u8]) {
        let mut state = lock(&self.state);
        state.entries.iter_mut().filter(|entry| entry.key.starts_with(prefix)).for_each(|entry| {
            entry.data = bytes.to_vec();
        });
    }

    /// Begins an entry that nobody will end.
    pub fn abandon(&self, key: &str) {
        let mut state = lock(&self.state);
        reserve(&mut state, "refs/heads/main", key).expect("a key that is free");
    }

    /// Takes the requests since the last time, as `METHOD /path`.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).requests)
    }

    /// Puts the next requests off by some seconds.
    pub fn throttle(&self, requests: u32, seconds: u32) {
        lock(&self.state).throttled = (requests, seconds);
    }

    /// Answers requests that contain `text` with a status.
    pub fn fail(&self, text: &str, status: u16) {
        lock(&self.state).failing = Some((text.to_owned(), status));
    }

    /// Does something wrong with downloads.
    pub fn spoil(&self, downloads: Downloads) {
        lock(&self.state).downloads = Some(downloads);
    }

    /// Does everything right again.
    pub fn heal(&self) {
        let mut state = lock(&self.state);
        (state.throttled, state.failing, state.downloads) = Default::default();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn said(status: u16, body: &Value) -> Vec<u8> {
    answer(status, &[("Content-Type", "application/json")], body.to_string().as_bytes())
}

fn handle(state: &mut State, blobs: &Blobs, request: &Request) -> Vec<u8> {
    let line = format!("{} {}", request.method, request.path);
    state.requests.push(line.clone());
    if state.throttled.0 > 0 {
        state.throttled.0 -= 1;
        return answer(429, &[("Retry-After", &state.throttled.1.to_string())], b"");
    }
    if let Some((_, status)) = state.failing.clone().filter(|(text, _)| line.contains(text.as_str())) {
        return said(status, &json!({ "message": "told so" }));
    }
    let authorization = request.headers.get("authorization");
    if request.path.starts_with("/signed/") {
        // As Azure's store: a URL says who asks, and nothing else may.
        return match (request.query.get("sig").is_some_and(|sig| sig == SIGNATURE), authorization) {
            (true, None) if request.method == "GET" => download(state, request),
            (true, None) => blobs.handle(request),
            _ => answer(403, &[("x-ms-error-code", "AuthenticationFailed")], b""),
        };
    }
    let Some(scopes) = authorization.and_then(|header| scopes(header)) else {
        return said(401, &json!({ "message": "who are you" }));
    };
    let host = request.headers.get("host").cloned().unwrap_or_default();
    if let Some(call) = request.path.strip_prefix("/twirp/github.actions.results.api.v1.CacheService/") {
        return second(state, blobs, call, &scopes, &host, request);
    }
    if request.path == "/repos/owner/name/actions/caches" {
        return list(state, request);
    }
    match request.path.strip_prefix("/_apis/artifactcache/") {
        Some(path) => first(state, path, &scopes, &host, request),
        None => said(404, &json!({ "message": "what?" })),
    }
}

/// The branches that a token names, each with what may be done to its caches.
fn scopes(header: &str) -> Option<HashMap<String, u64>> {
    let claims = header.strip_prefix("Bearer ")?.strip_suffix(SIGNATURE)?.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let scopes: Vec<Value> = serde_json::from_str(claims["ac"].as_str()?).ok()?;
    let scope = |scope: &Value| Some((scope["Scope"].as_str()?.to_owned(), scope["Permission"].as_u64()?));
    scopes.iter().map(scope).collect()
}

fn first(
    state: &mut State,
    path: &str,
    scopes: &HashMap<String, u64>,
    host: &str,
    request: &Request,
) -> Vec<u8> {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let entry = path.strip_prefix("caches/").and_then(|id| id.parse::<usize>().ok()?.checked_sub(1));
    match (request.method.as_str(), path, entry) {
        ("GET", "cache", _) => match find(state, scopes, &request.query["keys"]) {
            Some((id, key)) => {
                said(200, &json!({ "cacheKey": key, "scope": "", "archiveLocation": signed(host, id) }))
            }
            None => answer(204, &[], b""),
        },
        ("POST", "caches", _) => {
            let Some(branch) = writable(scopes) else {
                return said(403, &json!({ "message": "only reading" }));
            };
            match reserve(state, branch, body["key"].as_str().unwrap_or_default()) {
                Some(id) => said(201, &json!({ "cacheId": id })),
                None => said(
                    409,
                    &json!({ "message": "Cache is there.", "typeKey": "ArtifactCacheItemAlreadyExistsException" }),
                ),
            }
        }
        ("PATCH", _, Some(entry)) => {
            let range = request.headers.get("content-range").and_then(|range| range.strip_prefix("bytes "));
            let Some(from) = range.and_then(|range| range.split('-').next()?.parse::<usize>().ok()) else {
                return said(400, &json!({ "message": "which part?" }));
            };
            let (data, end) = (&mut state.entries[entry].data, from + request.body.len());
            data.resize(data.len().max(end), 0);
            data[from..end].copy_from_slice(&request.body);
            answer(204, &[], b"")
        }
        ("POST", _, Some(entry)) if body["size"] == json!(state.entries[entry].data.len()) => {
            state.entries[entry].committed = true;
            answer(204, &[], b"")
        }
        _ => said(400, &json!({ "message": "what?" })),
    }
}

fn second(
    state: &mut State,
    blobs: &Blobs,
    call: &str,
    scopes: &HashMap<String, u64>,
    host: &str,
    request: &Request,
) -> Vec<u8> {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let key = body["key"].as_str().unwrap_or_default();
    match call {
        "GetCacheEntryDownloadURL" => match find(state, scopes, key) {
            Some((id, key)) => {
                said(200, &json!({ "ok": true, "matched_key": key, "signed_download_url": signed(host, id) }))
            }
            None => said(200, &json!({ "ok": false })),
        },
        "CreateCacheEntry" => {
            let Some(branch) = writable(scopes) else {
                return said(403, &json!({ "code": "permission_denied", "msg": "only reading" }));
            };
            match reserve(state, branch, key) {
                Some(id) => said(200, &json!({ "ok": true, "signed_upload_url": signed(host, id) })),
                None => said(409, &json!({ "code": "already_exists", "msg": "cache entry is there" })),
            }
        }
        "FinalizeCacheEntryUpload" => {
            let branch = writable(scopes);
            let mut entries = state.entries.iter_mut().zip(1..);
            let found = entries.find(|(entry, _)| entry.key == key && Some(&*entry.branch) == branch);
            let whole = found.and_then(|(entry, id)| Some((entry, blobs.whole(&format!("/signed/{id}"))?)));
            match whole {
                Some((entry, data)) if body["size_bytes"] == json!(data.len()) => {
                    (entry.data, entry.committed) = (data, true);
                    said(200, &json!({ "ok": true, "entry_id": "1" }))
                }
                _ => said(200, &json!({ "ok": false })),
            }
        }
        _ => said(404, &json!({ "code": "bad_route" })),
    }
}

fn signed(host: &str, id: usize) -> String {
    format!("http://{host}/signed/{id}?sig={SIGNATURE}")
}

fn download(state: &State, request: &Request) -> Vec<u8> {
    let id = request.path.rsplit('/').next().and_then(|id| id.parse::<usize>().ok()?.checked_sub(1));
    let Some(entry) = id.and_then(|id| state.entries.get(id)) else { return answer(404, &[], b"") };
    let again = request.headers.contains_key("range") || request.headers.contains_key("x-ms-range");
    match (state.downloads, again) {
        (None, _) | (Some(Downloads::Break), true) => part(&entry.data, request),
        (Some(Downloads::BreakAndShift), true) => {
            answer(206, &[("Content-Range", &format!("bytes 0-/{}", entry.data.len()))], &entry.data)
        }
        (Some(_), false) => {
            let length = entry.data.len();
            answer(200, &[("Content-Length", &length.to_string())], &entry.data[..length / 2])
        }
    }
}

/// The newest entry whose key begins with `prefix`, in the branches that may be read, and its id.
fn find(state: &State, scopes: &HashMap<String, u64>, prefix: &str) -> Option<(usize, String)> {
    let mut entries = state.entries.iter().enumerate().rev();
    let (at, entry) = entries.find(|(_, entry)| {
        entry.committed && entry.key.starts_with(prefix) && scopes.contains_key(&entry.branch)
    })?;
    Some((at + 1, entry.key.clone()))
}

fn writable(scopes: &HashMap<String, u64>) -> Option<&str> {
    scopes.iter().find(|(_, permission)| **permission == WRITE).map(|(branch, _)| branch.as_str())
}

/// The id of a new entry; `None` where there is one.
fn reserve(state: &mut State, branch: &str, key: &str) -> Option<usize> {
    if state.entries.iter().any(|entry| entry.key == key && entry.branch == branch) {
        return None;
    }
    let (branch, key) = (branch.to_owned(), key.to_owned());
    state.entries.push(Entry { branch, key, data: Vec::new(), committed: false });
    Some(state.entries.len())
}

/// What GitHub's REST API says of the entries of a branch, all on one page.
fn list(state: &State, request: &Request) -> Vec<u8> {
    let get = |name: &str| request.query.get(name).map_or("", String::as_str);
    let listed =
        |entry: &&Entry| entry.committed && entry.key.starts_with(get("key")) && entry.branch == get("ref");
    let keys: Vec<Value> =
        state.entries.iter().filter(listed).map(|entry| json!({ "key": entry.key })).collect();
    said(200, &json!({ "total_count": keys.len(), "actions_caches": keys }))
}
