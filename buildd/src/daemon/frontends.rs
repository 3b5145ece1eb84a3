//! Which frontend makes a request's graph.

use std::collections::BTreeMap;

use proto::pb::Definition;
use solver::Graph;
use tonic::Code;

use super::definition;
use super::dockerfile::Dockerfile;
use super::failure::Failure;
use super::parts::Parts;
use super::plan::Plan;
use super::run::Run;

/// What a frontend made of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Files, to be evaluated and exported.
    Plan(Plan),
    /// Texts, for the client.
    Answer(BTreeMap<String, String>),
}

/// The Dockerfile frontend's name.
const DOCKERFILE: &str = "dockerfile.v0";
/// The name of the frontend that runs other frontends' images.
const GATEWAY: &str = "gateway.v0";
/// Images of the Dockerfile frontend: this daemon's own takes their place.
const DOCKERFILE_IMAGES: [&str; 2] = ["docker.io/docker/dockerfile", "docker.io/docker/dockerfile-upstream"];

/// Asks the frontend `name`.
///
/// # Errors
/// An unknown frontend; inputs that are no graphs; what the frontend says.
pub(super) async fn plan(
    parts: &Parts,
    run: &Run,
    name: &str,
    attrs: &BTreeMap<String, String>,
    inputs: &BTreeMap<String, Definition>,
) -> Result<Outcome, Failure> {
    match name {
        DOCKERFILE => {}
        GATEWAY => check_source(attrs.get("source").map(String::as_str).unwrap_or_default())?,
        other => {
            return Err(Failure::new(Code::InvalidArgument, format!("frontend {other} not found")));
        }
    }
    let inputs = graphs(parts, run, inputs).await?;
    Dockerfile::new(parts, run, attrs, inputs)?.solve().await
}

/// Of frontends in images only the one is known that is built in.
fn check_source(source: &str) -> Result<(), Failure> {
    let known = cache::oci::Reference::parse(source)
        .is_ok_and(|reference| DOCKERFILE_IMAGES.contains(&reference.repository().as_str()));
    match known || source == DOCKERFILE {
        true => Ok(()),
        false => Err(Failure::new(
            Code::InvalidArgument,
            format!(
                "frontend image `{source}` is none of those whose frontend is built in: docker/dockerfile, docker/dockerfile-upstream"
            ),
        )),
    }
}

/// The graphs that a frontend is given by name; an empty definition is scratch.
async fn graphs(
    parts: &Parts,
    run: &Run,
    inputs: &BTreeMap<String, Definition>,
) -> Result<BTreeMap<String, Graph>, Failure> {
    let mut graphs = BTreeMap::new();
    for (name, definition) in inputs {
        let graph = match definition.def.is_empty() {
            true => Graph::default(),
            false => definition::load(parts, run, definition).await?,
        };
        graphs.insert(name.clone(), graph);
    }
    Ok(graphs)
}
