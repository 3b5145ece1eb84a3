//! Who asked for a result, and how.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use prost::Message as _;
use proto::pb::{Definition, Op};
use serde_json::{Map, Value, json};
use solver::{Graph, redacted};

use super::Capture;

/// How a result came about.
#[derive(Debug, Clone)]
pub(in crate::daemon) struct Made {
    /// What makes its files.
    pub graph: Arc<Graph>,
    /// Who asked for it.
    pub origin: Arc<Origin>,
}

/// A request that a frontend answered, or a client that is its own frontend.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Origin {
    /// The frontend's name; empty for a client that is its own.
    pub frontend: String,
    /// The frontend's attributes.
    pub attrs: BTreeMap<String, String>,
    /// The requests that made the graphs which the frontend was given.
    pub inputs: BTreeMap<String, Value>,
    /// What the client asked for in the first place, where this is asked by another frontend or a client of its own.
    pub root: Option<Arc<Self>>,
    /// Graphs that were looked into besides the result's: of the Dockerfile, of the ignore file.
    looked_at: Mutex<Vec<Arc<Graph>>>,
    /// The graph that gave the file which was read.
    file: OnceLock<Arc<Graph>>,
}

/// Attributes that say something of the machine or of the export, and nothing of the result.
const NOT_TOLD: [&str; 4] = ["cgroup-parent", "image-resolve-mode", "platform", "cache-imports"];

impl Origin {
    /// A request to a frontend.
    pub(in crate::daemon) fn asked(
        frontend: &str,
        attrs: BTreeMap<String, String>,
        inputs: BTreeMap<String, Value>,
        root: Option<Arc<Self>>,
    ) -> Self {
        Self {
            frontend: frontend.to_owned(),
            attrs,
            inputs,
            root,
            looked_at: Mutex::default(),
            file: OnceLock::new(),
        }
    }

    /// Notes a graph that was looked into.
    pub(in crate::daemon) fn looks_at(&self, graph: Arc<Graph>) {
        self.lock().push(graph);
    }

    /// Notes which graph gave the file that was read; the first one counts.
    pub(in crate::daemon) fn reads(&self, graph: Arc<Graph>) {
        let _ = self.file.set(graph);
    }

    /// The graph that gave the file which was read.
    pub(super) fn file(&self) -> Option<&Graph> {
        self.file.get().map(Arc::as_ref)
    }

    /// All graphs that were looked into.
    pub(in crate::daemon) fn looked_at(&self) -> Vec<Arc<Graph>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Graph>>> {
        self.looked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request in BuildKit's words, and where its context came from.
    pub(super) fn request(&self, capture: &Capture) -> Request {
        if self.frontend.is_empty() {
            return Request::default();
        }
        let mut request = Request::of(self, capture);
        let root = self.root.as_ref().map(|root| Request::of(root, capture));
        if let Some(root) = root.filter(|root| !root.body.is_empty() && *root != request) {
            request.body.insert("root".to_owned(), root.told());
        }
        request
    }
}

/// A request as it is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Request {
    /// Where the context came from, and which file in it was read.
    pub source: Map<String, Value>,
    /// Frontend, arguments and the like.
    pub body: Map<String, Value>,
}

impl Request {
    /// What `origin` alone asks for.
    fn of(origin: &Origin, capture: &Capture) -> Self {
        let Origin { frontend, attrs, inputs, .. } = origin;
        let get = |name: &str| attrs.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let context_key = match (get("contextkey"), get("input:context")) {
            (Some(key), _) => key,
            (None, Some(_)) => "input:context",
            (None, None) => "context",
        };
        let mut request = Self::default();
        if !frontend.is_empty() {
            request.body.insert("frontend".to_owned(), frontend.as_str().into());
        }
        if let Some(context) = get(context_key) {
            request.source.insert("uri".to_owned(), redacted(context).into());
            if let Some(digest) = capture.config_digest(context) {
                request.source.insert("digest".to_owned(), digest);
            }
        }
        if let Some(filename) = get("filename") {
            request.source.insert("path".to_owned(), filename.into());
        }
        let told = |name: &str| {
            let taken = [context_key, "filename"].contains(&name) && get(name).is_some();
            !taken && !NOT_TOLD.contains(&name) && !name.starts_with("attest:")
        };
        let args: Map<String, Value> = attrs
            .iter()
            .filter(|(name, _)| told(name))
            .map(|(name, value)| (name.clone(), Value::from(redacted(value))))
            .collect();
        if !args.is_empty() {
            request.body.insert("args".to_owned(), args.into());
        }
        if !inputs.is_empty() {
            let inputs: Map<String, Value> = inputs.clone().into_iter().collect();
            request.body.insert("inputs".to_owned(), inputs.into());
        }
        request
    }

    /// As it stands within another one.
    fn told(self) -> Value {
        json!({ "configSource": self.source, "request": self.body })
    }
}

/// The requests whose results clients have, so that it can be told where a graph comes from that they pass on.
#[derive(Debug, Default)]
pub(in crate::daemon) struct Requests {
    /// What was asked, and in which running build, by the digest of the last vertex.
    by_head: Mutex<HashMap<String, Vec<Asked>>>,
}

/// A request of a build.
#[derive(Debug, PartialEq)]
struct Asked {
    build: String,
    request: Value,
}

impl Requests {
    /// Notes that `definition` was given to the client of `build` by the frontend that `origin` asked.
    pub(in crate::daemon) fn note(&self, build: &str, definition: &Definition, origin: &Origin) {
        let Some(head) = head(definition).filter(|_| !origin.frontend.is_empty()) else { return };
        // What the frontend was asked, not what the client was.
        let request = Request::of(origin, &Capture::default()).told();
        let asked = Asked { build: build.to_owned(), request };
        let mut all = self.lock();
        let known = all.entry(head).or_default();
        if !known.contains(&asked) {
            known.push(asked);
        }
    }

    /// Forgets the requests of a build.
    pub(in crate::daemon) fn forget(&self, build: &str) {
        self.lock().retain(|_, asked| {
            asked.retain(|asked| asked.build != build);
            !asked.is_empty()
        });
    }

    /// Where the graphs come from that a frontend is given; nothing where several requests made the same.
    pub(in crate::daemon) fn of(&self, inputs: &BTreeMap<String, Definition>) -> BTreeMap<String, Value> {
        let all = self.lock();
        let find = |(name, definition): (&String, &Definition)| {
            let (first, others) = all.get(&head(definition)?)?.split_first()?;
            let alike = others.iter().all(|other| other.request == first.request);
            alike.then(|| (name.clone(), first.request.clone()))
        };
        inputs.iter().filter_map(find).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Asked>>> {
        self.by_head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The digest of the vertex that a definition ends with.
fn head(definition: &Definition) -> Option<String> {
    let last = Op::decode(definition.def.last()?.clone()).ok()?;
    last.inputs.into_iter().next().map(|input| input.digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(frontend: &str, attrs: &[(&str, &str)]) -> Origin {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Origin { frontend: frontend.to_owned(), attrs, ..Origin::default() }
    }

    #[test]
    fn requests_are_told_without_credentials_and_settings() {
        let origin = origin(
            "dockerfile.v0",
            &[
                ("attest:provenance", "mode=max"),
                ("platform", "linux/amd64"),
                ("context", "https://u:p@h/r.git#v1:src"),
                ("filename", "x.Dockerfile"),
                ("context:foo", "https://u:p@h/f"),
                ("build-arg:A", "b"),
            ],
        );
        let request = origin.request(&Capture::default());
        assert_eq!(
            Value::from(request.source),
            json!({ "uri": "https://xxxxx:xxxxx@h/r.git#v1:src", "path": "x.Dockerfile" })
        );
        assert_eq!(
            Value::from(request.body),
            json!({
                "frontend": "dockerfile.v0",
                "args": { "build-arg:A": "b", "context:foo": "https://xxxxx:xxxxx@h/f" }
            })
        );
    }

    #[test]
    fn a_client_that_is_its_own_frontend_is_told_only_as_the_root() {
        let mut asked = origin("dockerfile.v0", &[("target", "t")]);
        asked.root = Some(origin("", &[("attest:provenance", "")]).into());
        assert!(!asked.request(&Capture::default()).body.contains_key("root"));
        asked.root = Some(origin("", &[("x", "y")]).into());
        let root = &asked.request(&Capture::default()).body["root"];
        assert_eq!(*root, json!({ "configSource": {}, "request": { "args": { "x": "y" } } }));
        assert_eq!(origin("", &[("x", "y")]).request(&Capture::default()), Request::default());
    }

    #[test]
    fn an_input_has_one_origin_or_none() {
        let op = |digest: &str| {
            let input = proto::pb::Input { digest: digest.to_owned(), index: 0 };
            Op { inputs: vec![input], ..Op::default() }.encode_to_vec().into()
        };
        let definition = Definition { def: vec![op("a")], ..Definition::default() };
        let requests = Requests::default();
        requests.note("1", &definition, &origin("dockerfile.v0", &[("target", "t")]));
        requests.note("2", &definition, &origin("dockerfile.v0", &[("target", "t")]));
        let inputs = BTreeMap::from([("in".to_owned(), definition.clone())]);
        assert_eq!(requests.of(&inputs)["in"]["request"]["args"]["target"], "t");
        requests.note("3", &definition, &origin("dockerfile.v0", &[("target", "u")]));
        assert!(requests.of(&inputs).is_empty());
        requests.forget("3");
        assert_eq!(requests.of(&inputs).len(), 1);
        requests.forget("1");
        requests.forget("2");
        assert!(requests.of(&inputs).is_empty());
    }
}
