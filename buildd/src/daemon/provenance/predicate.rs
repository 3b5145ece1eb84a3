//! What is said of a result.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use cache::oci::Descriptor;
use serde_json::{Map, Value, json};
use solver::{Edge, Graph, Op, redacted};

use super::attest::{Detail, ProvenanceOptions};
use super::capture::Capture;
use super::origin::{Made, Request};
use crate::daemon::about;
use crate::daemon::sources::image::{host_platform, oci_platform};
use crate::llb;

/// SLSA's predicate types.
const V1: &str = "https://slsa.dev/provenance/v1";
const V02: &str = "https://slsa.dev/provenance/v0.2";
/// BuildKit's build types: a result is told as BuildKit tells it.
const BUILD_TYPE_V1: &str =
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILD_TYPE_V02: &str = "https://mobyproject.org/buildkit@v1";

/// BuildKit's number for how results are made now (`solver/llbsolver/compat`).
const COMPATIBILITY: u32 = 30;

/// What is known of the build.
#[derive(Debug, Clone)]
pub(in crate::daemon) struct Facts {
    /// Its ref.
    pub invocation: String,
    /// When it began.
    pub started: SystemTime,
    /// What the daemon's configuration adds.
    pub environment: Arc<Map<String, Value>>,
}

/// What can be said of one result.
#[derive(Debug, Clone)]
pub(in crate::daemon) struct Provenance {
    options: ProvenanceOptions,
    facts: Facts,
    made: Made,
    capture: Capture,
}

impl Provenance {
    /// What can be said of a result that is made from what `capture` tells.
    pub(in crate::daemon) fn new(
        options: ProvenanceOptions,
        facts: Facts,
        made: Made,
        capture: Capture,
    ) -> Self {
        Self { options, facts, made, capture }
    }

    /// The same, told in another way.
    pub(in crate::daemon) fn with(self, options: ProvenanceOptions) -> Self {
        Self { options, ..self }
    }

    /// How it is asked to be told.
    pub(in crate::daemon) fn options(&self) -> &ProvenanceOptions {
        &self.options
    }

    /// The predicate's type.
    pub(in crate::daemon) fn predicate_type(&self) -> &'static str {
        if self.options.old { V02 } else { V1 }
    }

    /// What is said; `layers` are the blobs of the result's layers, where there are any.
    pub(in crate::daemon) fn predicate(&self, layers: &[Descriptor]) -> Value {
        let told = self.told(layers);
        if self.options.old { told.v02() } else { told.v1() }
    }

    fn told(&self, layers: &[Descriptor]) -> Told {
        let mut request = self.made.origin.request(&self.capture);
        request.body.insert("compatibilityVersion".to_owned(), COMPATIBILITY.into());
        let mut metadata = Map::new();
        let vcs = take_vcs(&mut request);
        if !vcs.is_empty() {
            metadata.insert("vcs".to_owned(), vcs.into());
        }
        let mut complete = !self.made.origin.frontend.is_empty();
        let (secrets, ssh) = self.capture.given();
        let mut config = None;
        if self.options.detail == Detail::Most {
            put(&mut request.body, "secrets", secrets);
            put(&mut request.body, "ssh", ssh);
            let steps = llb::steps(&self.made.graph);
            put_sources(&self.made, &steps, &mut metadata);
            let layers = of_steps(&self.made.graph, &steps, layers);
            if !layers.is_empty() {
                metadata.insert("layers".to_owned(), layers.into());
            }
            config = Some(json!({ "llbDefinition": steps.steps, "digestMapping": steps.names }));
        } else {
            if self.options.detail == Detail::Sources {
                put_sources(&self.made, &llb::steps(&self.made.graph), &mut metadata);
            }
            complete &= !scrub(&mut request.body);
        }
        put(&mut request.body, "locals", self.capture.locals());
        let mut environment: Map<String, Value> = (*self.facts.environment).clone();
        if self.made.origin.frontend == "dockerfile.v0" {
            let version = about::version().dockerfile_version;
            environment.insert("dockerfileVersion".to_owned(), version.into());
        }
        Told {
            request,
            complete,
            materials: self.capture.materials(),
            all_materials: self.capture.is_complete(),
            hermetic: self.capture.is_complete() && !self.capture.uses_network(),
            config,
            environment,
            builder: self.options.builder.clone(),
            reproducible: self.options.reproducible,
            invocation: self.facts.invocation.clone(),
            started: rfc3339(self.facts.started),
            finished: rfc3339(SystemTime::now()),
            metadata,
        }
    }
}

/// The parts of a predicate, before they are put where a version wants them.
struct Told {
    request: Request,
    complete: bool,
    materials: Vec<Value>,
    all_materials: bool,
    hermetic: bool,
    config: Option<Value>,
    environment: Map<String, Value>,
    builder: String,
    reproducible: bool,
    invocation: String,
    started: String,
    finished: String,
    metadata: Map<String, Value>,
}

impl Told {
    fn v1(mut self) -> Value {
        self.environment.insert("builderPlatform".to_owned(), platform().into());
        if let Some(config) = self.config {
            self.environment.insert("buildConfig".to_owned(), config);
        }
        let mut definition = json!({
            "buildType": BUILD_TYPE_V1,
            "externalParameters": { "configSource": self.request.source, "request": self.request.body },
            "internalParameters": self.environment,
        });
        if !self.materials.is_empty() {
            definition["resolvedDependencies"] = self.materials.into();
        }
        let mut metadata = json!({
            "invocationId": self.invocation,
            "startedOn": self.started,
            "finishedOn": self.finished,
            "buildkit_metadata": self.metadata,
            "buildkit_completeness": {
                "request": self.complete,
                "resolvedDependencies": self.all_materials,
            },
        });
        if self.hermetic {
            metadata["buildkit_hermetic"] = true.into();
        }
        if self.reproducible {
            metadata["buildkit_reproducible"] = true.into();
        }
        json!({
            "buildDefinition": definition,
            "runDetails": { "builder": { "id": self.builder }, "metadata": metadata },
        })
    }

    fn v02(mut self) -> Value {
        self.environment.insert("platform".to_owned(), platform().into());
        if let Some(path) = self.request.source.remove("path") {
            self.request.source.insert("entryPoint".to_owned(), path);
        }
        let mut metadata = json!({
            "buildInvocationID": self.invocation,
            "buildStartedOn": self.started,
            "buildFinishedOn": self.finished,
            "completeness": {
                "parameters": self.complete,
                "environment": true,
                "materials": self.all_materials,
            },
            "reproducible": self.reproducible,
            "https://mobyproject.org/buildkit@v1#metadata": self.metadata,
        });
        if self.hermetic {
            metadata["https://mobyproject.org/buildkit@v1#hermetic"] = true.into();
        }
        let mut predicate = json!({
            "builder": { "id": self.builder },
            "buildType": BUILD_TYPE_V02,
            "invocation": {
                "configSource": self.request.source,
                "parameters": self.request.body,
                "environment": self.environment,
            },
            "metadata": metadata,
        });
        if !self.materials.is_empty() {
            predicate["materials"] = self.materials.into();
        }
        if let Some(config) = self.config {
            predicate["buildConfig"] = config;
        }
        predicate
    }
}

fn platform() -> String {
    oci_platform(&host_platform()).to_string()
}

fn rfc3339(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or_default().to_string()
}

fn put(object: &mut Map<String, Value>, name: &str, list: Vec<Value>) {
    if !list.is_empty() {
        object.insert(name.to_owned(), list.into());
    }
}

/// Takes out what a client says of the repository that it builds from.
fn take_vcs(request: &mut Request) -> Map<String, Value> {
    let mut vcs = Map::new();
    let Some(Value::Object(args)) = request.body.get_mut("args") else { return vcs };
    let names: Vec<String> = args.keys().filter(|name| name.starts_with("vcs:")).cloned().collect();
    for name in names {
        let value = args.remove(&name).and_then(|value| value.as_str().map(str::to_owned));
        if let (Some(value), Some(name)) = (value.filter(|v| !v.is_empty()), name.strip_prefix("vcs:")) {
            vcs.insert(name.to_owned(), redacted(&value).into());
        }
    }
    if args.is_empty() {
        request.body.remove("args");
    }
    vcs
}

/// Takes out what may be private, and says whether there was anything.
fn scrub(body: &mut Map<String, Value>) -> bool {
    let mut found = false;
    if let Some(Value::Object(args)) = body.get_mut("args") {
        let all = args.len();
        args.retain(|name, _| !name.starts_with("build-arg:") && !name.starts_with("label:"));
        found |= args.len() < all;
    }
    if let Some(Value::Object(inputs)) = body.get_mut("inputs") {
        for input in inputs.values_mut() {
            found |= input["request"].as_object_mut().is_some_and(scrub);
        }
    }
    if let Some(root) = body.get_mut("root") {
        found |= root["request"].as_object_mut().is_some_and(scrub);
    }
    found
}

/// Adds the source files of a graph, the first of which the frontend read, and which lines its steps come from.
fn put_sources(made: &Made, steps: &llb::Steps, metadata: &mut Map<String, Value>) {
    let (graph, file) = (&made.graph, made.origin.file());
    if graph.sources.is_empty() {
        return;
    }
    let mut infos: Vec<Value> = Vec::new();
    for info in &graph.sources {
        let text = String::from_utf8_lossy(&info.data);
        let data = base64::engine::general_purpose::STANDARD.encode(solver::redacted(&text).as_bytes());
        infos.push(json!({ "filename": info.filename, "language": info.language, "data": data }));
    }
    if let Some(file) = file {
        let made = llb::steps(file);
        infos[0]["llbDefinition"] = made.steps.into();
        infos[0]["digestMapping"] = json!(made.names);
    }
    metadata.insert("source".to_owned(), json!({ "infos": infos, "locations": steps.locations }));
}

/// The layers of each step that the result's own layers lie on, by step and output.
fn of_steps(graph: &Graph, steps: &llb::Steps, layers: &[Descriptor]) -> Map<String, Value> {
    let mut told = Map::new();
    let digests = llb::vertex_digests(graph);
    let mut rest = layers;
    let mut next = graph.head;
    while let Some(edge) = next.filter(|_| !rest.is_empty()) {
        let descriptors: Vec<Value> = rest
            .iter()
            .map(|d| json!({ "mediaType": d.media_type, "digest": d.digest.to_string(), "size": d.size }))
            .collect();
        if let Some(name) = steps.names.get(&digests[edge.vertex.index()].to_string()) {
            told.insert(format!("{name}:{}", edge.output), json!([descriptors]));
        }
        next = below(graph, edge);
        rest = &rest[..rest.len() - 1];
    }
    told
}

/// What a step's layer lies on, where the step makes one layer.
fn below(graph: &Graph, edge: Edge) -> Option<Edge> {
    let vertex = graph.vertex(edge.vertex);
    let input = match &vertex.op {
        Op::Exec(op) => op.mounts.iter().find(|mount| mount.dest == "/")?.input?,
        Op::File(_) if !vertex.inputs.is_empty() => 0,
        _ => return None,
    };
    vertex.inputs.get(input).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Origin;
    use super::*;

    fn provenance(options: ProvenanceOptions) -> Provenance {
        let attrs =
            [("build-arg:A", "b"), ("target", "t"), ("vcs:revision", "1"), ("vcs:source", "https://u:p@h/r")];
        let attrs = attrs.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let origin = Origin::asked("dockerfile.v0", attrs, BTreeMap::new(), None);
        let facts = Facts {
            invocation: "ref".to_owned(),
            started: SystemTime::UNIX_EPOCH,
            environment: Arc::new([("foo".to_owned(), "bar".into())].into_iter().collect()),
        };
        let made = Made { graph: Arc::default(), origin: Arc::new(origin) };
        Provenance::new(options, facts, made, Capture::default())
    }

    #[test]
    fn version_1() {
        let told = provenance(ProvenanceOptions::default()).predicate(&[]);
        let parameters = &told["buildDefinition"]["externalParameters"];
        assert_eq!(parameters["request"]["args"], json!({ "build-arg:A": "b", "target": "t" }));
        assert_eq!(told["buildDefinition"]["internalParameters"]["foo"], "bar");
        let metadata = &told["runDetails"]["metadata"];
        assert_eq!(
            metadata["buildkit_metadata"]["vcs"],
            json!({ "revision": "1", "source": "https://xxxxx:xxxxx@h/r" })
        );
        assert_eq!(metadata["startedOn"], "1970-01-01T00:00:00Z");
        assert_eq!(metadata["buildkit_completeness"]["request"], true);
        assert_eq!(metadata["buildkit_hermetic"], true);
    }

    #[test]
    fn the_least() {
        let told = provenance(ProvenanceOptions { detail: Detail::Least, ..ProvenanceOptions::default() })
            .predicate(&[]);
        let definition = &told["buildDefinition"];
        assert_eq!(definition["externalParameters"]["request"]["args"], json!({ "target": "t" }));
        assert_eq!(definition["internalParameters"].get("buildConfig"), None);
        assert_eq!(told["runDetails"]["metadata"]["buildkit_completeness"]["request"], false);
    }

    #[test]
    fn version_0_2() {
        let told = provenance(ProvenanceOptions { old: true, ..ProvenanceOptions::default() }).predicate(&[]);
        assert_eq!(told["buildType"], BUILD_TYPE_V02);
        assert_eq!(told["invocation"]["environment"]["foo"], "bar");
        assert_eq!(told["metadata"]["completeness"]["parameters"], true);
        assert_eq!(told["metadata"]["buildInvocationID"], "ref");
    }
}
