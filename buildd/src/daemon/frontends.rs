//! Which frontend makes a request's graph.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use proto::pb::Definition;
use solver::Graph;
use tonic::Code;

use super::config::FrontendConfig;
use super::definition;
use super::dockerfile::{Dockerfile, Solved};
use super::failure::Failure;
use super::gateway;
use super::parts::Parts;
use super::plan::Plan;
use super::provenance::Origin;
use super::run::Run;

/// What a frontend made of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Files, to be evaluated and exported.
    Plan(Plan),
    /// Texts, for the client.
    Answer(BTreeMap<String, String>),
}

/// What the built-in frontend can do (`frontend/dockerfile/builder/caps.go`).
const CAPS: [&str; 4] = [
    "moby.buildkit.frontend.inputs",
    "moby.buildkit.frontend.subrequests",
    "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.gitquerystring",
];

/// The Dockerfile frontend's name.
const DOCKERFILE: &str = "dockerfile.v0";
/// Inputs that stand for the client's own directories; with nothing in them there is nothing to build.
const MAIN: [&str; 2] = ["context", "dockerfile"];
/// The name of the frontend that runs other frontends' images.
const GATEWAY: &str = "gateway.v0";
/// Images of the Dockerfile frontend: this daemon's own takes their place.
const DOCKERFILE_IMAGES: [&str; 2] = ["docker.io/docker/dockerfile", "docker.io/docker/dockerfile-upstream"];

/// Asks the frontend `name`. `root` is what was asked for in the first place, where a frontend asks. Frontends ask
/// each other, so the future has a type of its own.
///
/// # Errors
/// An unknown frontend; inputs that are no graphs; what the frontend says.
pub(super) fn plan<'a>(
    parts: &'a Arc<Parts>,
    run: &'a Arc<Run>,
    name: &'a str,
    attrs: &'a BTreeMap<String, String>,
    inputs: &'a BTreeMap<String, Definition>,
    root: Option<&'a Arc<Origin>>,
) -> BoxFuture<'a, Result<Outcome, Failure>> {
    Box::pin(async move {
        allowed(&parts.config.frontend, name, attrs.get("source").map(String::as_str))?;
        run.observer.is_of(attrs);
        match name {
            DOCKERFILE => {}
            GATEWAY => match attrs.get("source").map(String::as_str).unwrap_or_default() {
                "" => return Err(Failure::new(Code::InvalidArgument, "no source specified for gateway")),
                source if is_built_in(source) => {}
                source => return gateway::ask_frontend(parts, run, source, attrs, inputs, root).await,
            },
            other => {
                return Err(Failure::new(Code::InvalidArgument, format!("frontend {other} not found")));
            }
        }
        let mut own = attrs.clone();
        if name == GATEWAY {
            // They are for who finds the frontend.
            own.retain(|name, _| name != "source" && name != "cmdline");
        }
        let lacking = lacking_cap(attrs.get("frontend.caps").map_or("", String::as_str));
        if let Some((cap, false)) = lacking {
            return Err(Failure::no_cap(cap));
        }
        let origin = Origin::asked(DOCKERFILE, own, parts.requests.of(inputs), root.cloned());
        let graphs = graphs(parts, run, inputs).await?;
        match Dockerfile::new(parts, run, origin, graphs)?.solve().await? {
            Solved::Outcome(outcome) => match lacking {
                None => Ok(outcome),
                Some((cap, _)) => Err(Failure::no_cap(cap)),
            },
            Solved::Elsewhere(other) => {
                let mut attrs = attrs.clone();
                attrs.insert("source".to_owned(), other.source.clone());
                attrs.insert("cmdline".to_owned(), other.command_line.clone());
                allowed(&parts.config.frontend, GATEWAY, Some(&other.source))?;
                let asked = gateway::ask_frontend(parts, run, &other.source, &attrs, inputs, root).await;
                asked.map_err(|failure| other.locate(failure))
            }
        }
    })
}

/// Whether the configuration lets a frontend be asked, and an image be one.
fn allowed(
    config: &BTreeMap<String, FrontendConfig>,
    name: &str,
    source: Option<&str>,
) -> Result<(), Failure> {
    let Some(config) = config.get(name) else { return Ok(()) };
    if config.enabled == Some(false) {
        return Err(Failure::new(Code::InvalidArgument, format!("frontend {name} not found")));
    }
    let repository = |name: &str| Some(cache::oci::Reference::parse(name).ok()?.repository());
    let (Some(source), [_, ..]) = (source.filter(|_| name == GATEWAY), &config.allowed_repositories[..])
    else {
        return Ok(());
    };
    let wanted = repository(source);
    match config.allowed_repositories.iter().any(|known| wanted.is_some() && repository(known) == wanted) {
        true => Ok(()),
        false => {
            let message = format!("'{source}' is not an allowed gateway source");
            Err(Failure::new(Code::PermissionDenied, message))
        }
    }
}

/// Whether this daemon's own Dockerfile frontend takes the place of an image.
pub(super) fn is_built_in(source: &str) -> bool {
    source == DOCKERFILE
        || cache::oci::Reference::parse(source)
            .is_ok_and(|reference| DOCKERFILE_IMAGES.contains(&reference.repository().as_str()))
}

/// What the built-in frontend is asked for and cannot do, and whether another that the Dockerfile names may.
fn lacking_cap(wanted: &str) -> Option<(&str, bool)> {
    let split = wanted.split(',').map(|cap| cap.split_once('+').unwrap_or((cap, "")));
    let unknown = split.filter(|(name, _)| !name.is_empty() && !CAPS.contains(name));
    unknown
        .map(|(name, detail)| (name, detail.split('+').any(|d| d == "forward")))
        .min_by_key(|(_, forward)| *forward)
}

/// The graphs that a frontend is given by name; a definition without operations is scratch. Go's clients send one without
/// anything where they have none.
async fn graphs(
    parts: &Parts,
    run: &Run,
    inputs: &BTreeMap<String, Definition>,
) -> Result<BTreeMap<String, Graph>, Failure> {
    let mut graphs = BTreeMap::new();
    for (name, definition) in inputs {
        if definition.def.is_empty() && MAIN.contains(&name.as_str()) {
            let message = "invalid nil input definition to definition op";
            return Err(Failure::new(Code::InvalidArgument, message));
        }
        let graph = match definition.def.is_empty() {
            true if definition.metadata.is_empty() => {
                let message = "invalid nil input definition to definition op";
                return Err(Failure::new(Code::InvalidArgument, message));
            }
            true => Graph::default(),
            false => definition::load(parts, run, definition).await?,
        };
        graphs.insert(name.clone(), graph);
    }
    Ok(graphs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_configuration_allows() {
        let config = |enabled, repositories: &[&str]| FrontendConfig {
            enabled,
            allowed_repositories: repositories.iter().map(|name| (*name).to_owned()).collect(),
        };
        let of = |config: FrontendConfig, name: &str, source: Option<&str>| {
            let all = BTreeMap::from([(GATEWAY.to_owned(), config.clone()), (DOCKERFILE.to_owned(), config)]);
            allowed(&all, name, source).map_err(|failure| failure.message)
        };
        assert_eq!(of(config(None, &[]), GATEWAY, Some("a/b")), Ok(()));
        assert_eq!(
            of(config(Some(false), &[]), DOCKERFILE, None),
            Err("frontend dockerfile.v0 not found".into())
        );
        let few = || config(Some(true), &["docker.io/a/b", "h.com/c"]);
        assert_eq!(of(few(), GATEWAY, Some("a/b:1")), Ok(()));
        assert_eq!(
            of(few(), GATEWAY, Some("h.com/c@sha256:x")),
            Err("'h.com/c@sha256:x' is not an allowed gateway source".into())
        );
        assert_eq!(of(few(), GATEWAY, Some("a/c")), Err("'a/c' is not an allowed gateway source".into()));
        assert_eq!(of(few(), DOCKERFILE, None), Ok(()));
    }

    #[test]
    fn capabilities() {
        for (wanted, lacking) in [
            ("", None),
            ("moby.buildkit.frontend.inputs,moby.buildkit.frontend.contexts+forward", None),
            ("x+forward", Some(("x", true))),
            ("x+forward,y", Some(("y", false))),
        ] {
            assert_eq!(lacking_cap(wanted), lacking, "{wanted}");
        }
    }
}
