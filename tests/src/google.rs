//! A fake of Google Cloud Storage: objects of one bucket in memory, over the JSON API, and uploads of parts over the XML API.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::azure::part;
use crate::http::{Request, answer, serve};

/// The bucket.
const BUCKET: &str = "cache";
/// The OAuth token that is taken.
const TOKEN: &str = "very-geheim";
/// So many objects are listed at a time.
const PAGE: usize = 5;

/// A bucket named `cache` on loopback.
#[derive(Debug)]
pub struct Google {
    url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    /// Resumable uploads: the object's name, whether it has to be new, and what came so far.
    sessions: Vec<(String, bool, Vec<u8>)>,
    /// Uploads of parts: the object's name, and the parts by number.
    uploads: Vec<(String, BTreeMap<usize, Vec<u8>>)>,
    generation: u64,
    requests: Vec<String>,
    failing: Option<(String, u16)>,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Vec<u8>,
    updated: SystemTime,
    generation: u64,
}

impl Google {
    /// Starts a service with an empty bucket.
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let address = serve(move |request| handle(&mut lock(&shared), &request));
        Self { url: format!("http://{address}"), state }
    }

    /// A keyed cache there, below `prefix`.
    pub fn keyed(&self, prefix: &str) -> String {
        format!("type=keyed,url=gs://{BUCKET}/{prefix},endpoint={},token={TOKEN}", self.url)
    }

    /// The token.
    pub fn token(&self) -> &'static str {
        TOKEN
    }

    /// The names of all objects.
    pub fn names(&self) -> Vec<String> {
        lock(&self.state).objects.keys().cloned().collect()
    }

    /// Replaces the objects whose name contains `text`.
    pub fn replace(&self, text: &str, bytes: &[u8]) {
        let mut state = lock(&self.state);
        state.objects.iter_mut().filter(|(name, _)| name.contains(text)).for_each(|(_, object)| {
            object.bytes = bytes.to_vec();
        });
    }

    /// Makes all objects older.
    pub fn age(&self, by: Duration) {
        lock(&self.state).objects.values_mut().for_each(|object| object.updated -= by);
    }

    /// Takes the requests since the last time, as `METHOD /path`.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).requests)
    }

    /// Answers requests that contain `text` with a status, from now on.
    pub fn fail(&self, text: &str, status: u16) {
        lock(&self.state).failing = Some((text.to_owned(), status));
    }

    /// Answers all requests again.
    pub fn heal(&self) {
        lock(&self.state).failing = None;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn said(status: u16, body: &Value) -> Vec<u8> {
    answer(status, &[("Content-Type", "application/json")], body.to_string().as_bytes())
}

fn refuse(status: u16, reason: &str) -> Vec<u8> {
    let error = json!({ "code": status, "message": "told so", "errors": [{ "domain": "global", "reason": reason, "message": "told so" }] });
    said(status, &json!({ "error": error }))
}

fn handle(state: &mut State, request: &Request) -> Vec<u8> {
    let line = format!("{} {}", request.method, request.path);
    state.requests.push(line.clone());
    if let Some((_, status)) = state.failing.clone().filter(|(text, _)| line.contains(text.as_str())) {
        return refuse(status, "told");
    }
    // Who knows a session's address need not say who it is.
    if let Some(session) = request.path.strip_prefix("/session/") {
        return resume(state, session.parse().unwrap_or_default(), request);
    }
    if request.headers.get("authorization").is_none_or(|header| header != &format!("Bearer {TOKEN}")) {
        return refuse(401, "authError");
    }
    let objects = format!("/storage/v1/b/{BUCKET}/o");
    if request.path == format!("/upload{objects}") {
        return upload(state, request);
    }
    match request.path.strip_prefix(&objects) {
        Some("") => list(state, request),
        Some(name) => one(state, name.trim_start_matches('/'), request),
        None => match request.path.strip_prefix(&format!("/{BUCKET}/")) {
            Some(name) => parts(state, name, request),
            None => refuse(404, "notFound"),
        },
    }
}

/// As Google describes an object.
fn told(name: &str, object: &Object) -> Value {
    let updated = jiff::Timestamp::try_from(object.updated).expect("a time").to_string();
    json!({
        "kind": "storage#object", "bucket": BUCKET, "name": name, "size": object.bytes.len().to_string(),
        "generation": object.generation.to_string(), "etag": object.generation.to_string(), "updated": updated,
        "md5Hash": "", "contentType": "application/octet-stream",
    })
}

impl State {
    /// Writes an object; says what it is then.
    fn put(&mut self, name: &str, bytes: Vec<u8>, only_new: bool) -> Vec<u8> {
        if only_new && self.objects.contains_key(name) {
            return refuse(412, "conditionNotMet");
        }
        self.generation += 1;
        let object = Object { bytes, updated: SystemTime::now(), generation: self.generation };
        let answer = said(200, &told(name, &object));
        self.objects.insert(name.to_owned(), object);
        answer
    }
}

fn upload(state: &mut State, request: &Request) -> Vec<u8> {
    let get = |name: &str| request.query.get(name).map(String::as_str);
    let Some(name) = get("name") else { return refuse(400, "required") };
    let only_new = get("ifGenerationMatch") == Some("0");
    match (request.method.as_str(), get("uploadType")) {
        ("POST", Some("media")) => state.put(name, request.body.clone(), only_new),
        ("POST", Some("resumable")) => {
            if only_new && state.objects.contains_key(name) {
                return refuse(412, "conditionNotMet");
            }
            state.sessions.push((name.to_owned(), only_new, Vec::new()));
            let host = request.headers.get("host").cloned().unwrap_or_default();
            let location = format!("http://{host}/session/{}", state.sessions.len());
            answer(200, &[("Location", &location)], b"")
        }
        _ => refuse(400, "invalid"),
    }
}

/// A piece of a resumable upload, `bytes FROM-TO/TOTAL` or with `*` for what is not known.
fn resume(state: &mut State, id: usize, request: &Request) -> Vec<u8> {
    let Some((name, only_new, so_far)) = id.checked_sub(1).and_then(|at| state.sessions.get_mut(at)) else {
        return refuse(404, "notFound");
    };
    let range = request.headers.get("content-range").cloned().unwrap_or_default();
    let Some((piece, total)) = range.strip_prefix("bytes ").and_then(|range| range.split_once('/')) else {
        return refuse(400, "invalid");
    };
    let at = piece.split_once('-').map_or(so_far.len(), |(from, _)| from.parse().unwrap_or(usize::MAX));
    if at != so_far.len() {
        return refuse(400, "invalid");
    }
    so_far.extend(&request.body);
    let length = so_far.len();
    if total.parse() != Ok(length) {
        let range = format!("bytes=0-{}", length.saturating_sub(1));
        let range = if length > 0 { vec![("Range", range.as_str())] } else { Vec::new() };
        return answer(308, &range, b"");
    }
    let (name, only_new, bytes) = (name.clone(), *only_new, std::mem::take(so_far));
    state.put(&name, bytes, only_new)
}

fn list(state: &State, request: &Request) -> Vec<u8> {
    let get = |name: &str| request.query.get(name).map_or("", String::as_str);
    let (prefix, after) = (get("prefix"), get("pageToken"));
    let found = state.objects.iter().filter(|(name, _)| name.starts_with(prefix) && name.as_str() > after);
    let found: Vec<(&String, &Object)> = found.take(PAGE + 1).collect();
    let page = &found[..found.len().min(PAGE)];
    let items: Vec<Value> = page.iter().map(|(name, object)| told(name, object)).collect();
    let mut body = json!({ "kind": "storage#objects", "items": items });
    if found.len() > PAGE {
        body["nextPageToken"] = page[PAGE - 1].0.as_str().into();
    }
    said(200, &body)
}

fn one(state: &mut State, name: &str, request: &Request) -> Vec<u8> {
    if let (Some((from, to)), "POST") = (name.split_once("/rewriteTo/b/cache/o/"), request.method.as_str()) {
        let Some(bytes) = state.objects.get(from).map(|object| object.bytes.clone()) else {
            return refuse(404, "notFound");
        };
        let generation = state.objects.get(to).map_or(0, |object| object.generation).to_string();
        if request.query.get("ifGenerationMatch").is_some_and(|wanted| *wanted != generation) {
            return refuse(412, "conditionNotMet");
        }
        let size = bytes.len().to_string();
        state.put(to, bytes, false);
        let resource = told(to, &state.objects[to]);
        return said(
            200,
            &json!({ "kind": "storage#rewriteResponse", "done": true, "objectSize": size, "totalBytesRewritten": size, "resource": resource }),
        );
    }
    let Some(object) = state.objects.get(name) else { return refuse(404, "notFound") };
    match (request.method.as_str(), request.query.get("alt").map(String::as_str)) {
        ("GET", Some("media")) => part(&object.bytes, request),
        ("GET", _) => said(200, &told(name, object)),
        ("DELETE", _) => {
            state.objects.remove(name);
            answer(204, &[], b"")
        }
        _ => refuse(405, "methodNotAllowed"),
    }
}

/// The XML API, as far as it uploads parts.
fn parts(state: &mut State, name: &str, request: &Request) -> Vec<u8> {
    let number = |name: &str| request.query.get(name).and_then(|text| text.parse::<usize>().ok());
    if request.method == "POST" && request.query.contains_key("uploads") {
        state.uploads.push((name.to_owned(), BTreeMap::new()));
        let id = state.uploads.len();
        let body = format!(
            "<?xml version=\"1.0\"?><InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{name}</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
        );
        return answer(200, &[("Content-Type", "application/xml")], body.as_bytes());
    }
    let upload = number("uploadId").and_then(|id| state.uploads.get_mut(id.checked_sub(1)?));
    let Some((_, parts)) = upload.filter(|(of, _)| of == name) else { return refuse(404, "NoSuchUpload") };
    match (request.method.as_str(), number("partNumber")) {
        ("PUT", Some(part)) => {
            parts.insert(part, request.body.clone());
            answer(200, &[("ETag", &format!("\"{part}\""))], b"")
        }
        ("POST", None) => {
            let bytes = std::mem::take(parts).into_values().collect::<Vec<_>>().concat();
            state.put(name, bytes, false);
            answer(200, &[("ETag", "\"whole\"")], b"<CompleteMultipartUploadResult/>")
        }
        ("DELETE", None) => {
            parts.clear();
            answer(204, &[], b"")
        }
        _ => refuse(400, "InvalidArgument"),
    }
}
