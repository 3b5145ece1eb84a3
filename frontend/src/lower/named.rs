//! Named contexts: `--build-context NAME=…` in place of a stage or an image.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use solver::graph::VertexMeta;
use solver::op::{Op, Platform, SourceOp, attr};

use crate::config::ImageConfig;
use crate::dockerignore::read_patterns;
use crate::lower::arena::{Inputs, NewOp, Output};
use crate::lower::base::{described, image_source};
use crate::lower::build::Context;
use crate::lower::error::{Fault, LowerError, Result};
use crate::lower::from::SCRATCH;
use crate::lower::git_ref::GitSource;
use crate::lower::resolved::{ImageRequest, LocalRequest, Need, ResolvedImage};
use crate::lower::stage::UsedPaths;
use crate::lower::state::State;
use crate::platform;
use crate::reference::Reference;

/// A named context that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct NamedContext {
    /// What it is, such as `docker-image://alpine`.
    spec: String,
    /// The name.
    name: String,
    /// The name, with the platform where the context was given for one.
    full_name: String,
    /// For which platform it is wanted.
    platform: Option<Platform>,
}

/// A local context whose used paths are known only at the end.
#[derive(Debug)]
pub(crate) struct PendingLocal {
    pub(crate) output: Output,
    pub(crate) local: String,
    pub(crate) full_name: String,
    pub(crate) excludes: Vec<String>,
    pub(crate) paths: UsedPaths,
}

/// How often policies may put another source in a context's place.
const REPLACEMENTS: usize = 10;

/// The context of this name for this platform, if there is one.
pub(super) fn find(
    context: &Context<'_>,
    name: &str,
    platform: Option<&Platform>,
) -> Result<Option<NamedContext>> {
    let contexts = &context.options.named_contexts;
    if contexts.is_empty() || name.eq_ignore_ascii_case(SCRATCH) || name.eq_ignore_ascii_case("context") {
        return Ok(None);
    }
    let reference =
        Reference::parse(name).map_err(|source| Fault::ContextName { name: name.to_owned(), source })?;
    let familiar = reference.familiar();
    let name = familiar.strip_suffix(":latest").unwrap_or(&familiar);
    let given = (!context.implicit_platform).then_some(&context.target_platform);
    let platform = platform.or(given);
    let shown = platform::normalize(platform.unwrap_or(&context.options.build_platform));
    let with_platform = format!("{name}::{}", platform::format_all(&shown));
    let found = [with_platform, name.to_owned()].into_iter().find_map(|key| contexts.get_key_value(&key));
    Ok(found.map(|(full_name, spec)| NamedContext {
        spec: spec.clone(),
        name: name.to_owned(),
        full_name: full_name.clone(),
        platform: platform.cloned(),
    }))
}

/// The files of a named context, and its image config where it has one.
pub(super) fn load(
    context: &mut Context<'_>,
    named: &NamedContext,
    paths: UsedPaths,
) -> Result<(State, Option<ImageConfig>)> {
    load_replaced(context, named, paths, REPLACEMENTS)
}

/// As [`load`], while policies may put another source in the context's place so many times.
fn load_replaced(
    context: &mut Context<'_>,
    named: &NamedContext,
    paths: UsedPaths,
    left: usize,
) -> Result<(State, Option<ImageConfig>)> {
    let spec = || Fault::ContextSpec { spec: named.spec.clone(), name: named.full_name.clone() };
    let (kind, rest) = named.spec.split_once(':').ok_or_else(spec)?;
    let bare = rest.strip_prefix("//").unwrap_or(rest);
    match kind {
        "docker-image" if bare == SCRATCH => Ok((State::scratch(), None)),
        "docker-image" => match image(context, named, bare)? {
            Image::Found(found) => Ok((found.0, Some(found.1))),
            Image::Elsewhere(_) if left == 0 => Err(Fault::ContextCycle(named.spec.clone()).into()),
            Image::Elsewhere(source) => {
                let spec = source.replacen("://", ":", 1);
                load_replaced(context, &NamedContext { spec, ..named.clone() }, paths, left - 1)
            }
        },
        "oci-layout" => oci_layout(context, named, bare),
        "git" => git(context, named)?.ok_or_else(|| Fault::GitContext(named.spec.clone()).into()),
        _ if kind.starts_with("git@") => {
            git(context, named)?.ok_or_else(|| Fault::GitContext(named.spec.clone()).into())
        }
        "http" | "https" => match git(context, named)? {
            Some(found) => Ok(found),
            None => Ok(http(context, named)),
        },
        "local" => local(context, named, rest, paths),
        "input" => input(context, named, rest),
        _ => Err(Fault::ContextKind { kind: kind.to_owned(), name: named.full_name.clone() }.into()),
    }
}

fn find_image(
    context: &mut Context<'_>,
    named: &NamedContext,
    reference: &str,
    shown: &str,
    oci_store: Option<String>,
) -> Result<ResolvedImage> {
    let request = ImageRequest {
        reference: reference.to_owned(),
        platform: named.platform.clone().unwrap_or_else(|| context.target_platform.clone()),
        log_name: format!("[context {}] load metadata for {shown}", named.full_name),
        oci_store,
        written: shown.to_owned(),
        lines: None,
        suggestion: None,
    };
    context.images.push(request.clone());
    match context.resolved.image(&request) {
        Some(found) => Ok(found.clone()),
        None => Err(LowerError::Needs(vec![Need::Image(request)])),
    }
}

fn config_of(found: &ResolvedImage) -> Result<ImageConfig> {
    let image: ImageConfig =
        serde_json::from_slice(&found.config).map_err(|error| Fault::ImageConfig(error.to_string()))?;
    Ok(ImageConfig { created: None, ..image })
}

/// What a context that is an image turns out to be.
enum Image {
    Found(Box<(State, ImageConfig)>),
    /// Another source, which a policy put in its place.
    Elsewhere(String),
}

fn image(context: &mut Context<'_>, named: &NamedContext, text: &str) -> Result<Image> {
    let reference = Reference::parse(text).map_err(Fault::ContextImage)?.or_latest();
    let found = find_image(context, named, &reference.to_string(), text, None)?;
    if let Some(source) = found.elsewhere {
        return Ok(Image::Elsewhere(source));
    }
    let image = config_of(&found)?;
    let mut reference = match &found.reference {
        Some(name) => Reference::parse(name).map_err(Fault::ContextImage)?.or_latest(),
        None => reference,
    };
    if let Some(digest) = &found.digest {
        reference = reference.with_digest(digest);
    }
    let name = format!("[context {}] {reference}", named.full_name);
    let meta = VertexMeta { description: described(&name, None), ..VertexMeta::default() };
    let output = image_source(context, &reference.to_string(), named.platform.clone(), meta);
    Ok(Image::Found(Box::new((State::of(Some(output)).with_config(&image), image))))
}

fn oci_layout(
    context: &mut Context<'_>,
    named: &NamedContext,
    text: &str,
) -> Result<(State, Option<ImageConfig>)> {
    let (store, digest) = text.split_once('@').ok_or_else(|| Fault::LayoutDigest(text.to_owned()))?;
    let store =
        store.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(store, |(store, _)| store);
    let reference =
        Reference::parse(&named.name).map_err(Fault::ContextImage)?.with_digest(digest).to_string();
    let found = find_image(context, named, &reference, &reference, Some(store.to_owned()))?;
    let image = config_of(&found)?;
    let mut attrs =
        std::collections::BTreeMap::from([(attr::OCI_LAYOUT_STORE_ID.to_owned(), store.to_owned())]);
    if let Some(session) = &context.options.session {
        attrs.insert(attr::OCI_LAYOUT_SESSION_ID.to_owned(), session.clone());
    }
    let name = format!("[context {}] OCI load from client", named.full_name);
    let platform = named.platform.clone().unwrap_or_else(|| context.target_platform.clone());
    let output = context.arena.add(NewOp {
        op: Op::Source(SourceOp { identifier: format!("oci-layout://{reference}"), attrs }),
        inputs: Inputs::default(),
        platform: Some(platform),
        meta: VertexMeta { description: described(&name, None), ..VertexMeta::default() },
    });
    Ok((State::of(Some(output)).with_config(&image), Some(image)))
}

fn git(context: &mut Context<'_>, named: &NamedContext) -> Result<Option<(State, Option<ImageConfig>)>> {
    let Some(git) = GitSource::parse(&named.spec, false, false)? else { return Ok(None) };
    let name = format!("[internal] load git source {}", named.spec);
    Ok(Some((State::of(Some(source(context, git.source(), &name))), None)))
}

fn http(context: &mut Context<'_>, named: &NamedContext) -> (State, Option<ImageConfig>) {
    let attrs = std::collections::BTreeMap::from([(attr::HTTP_FILENAME.to_owned(), "context".to_owned())]);
    let name = format!("[context {}] {}", named.full_name, named.spec);
    let op = SourceOp { identifier: named.spec.clone(), attrs };
    (State::of(Some(source(context, op, &name))), None)
}

fn source(context: &mut Context<'_>, op: SourceOp, name: &str) -> Output {
    let meta = VertexMeta { description: described(name, None), ..VertexMeta::default() };
    context.arena.add(NewOp { op: Op::Source(op), inputs: Inputs::default(), platform: None, meta })
}

fn local(
    context: &mut Context<'_>,
    named: &NamedContext,
    local: &str,
    paths: UsedPaths,
) -> Result<(State, Option<ImageConfig>)> {
    let hint = format!("context:{}-.dockerignore", named.full_name);
    let request = LocalRequest {
        local: local.to_owned(),
        context: named.full_name.clone(),
        source: crate::lower::context::ignore_file_source(context.options, local, &hint),
        log_name: format!("[context {}] load .dockerignore", named.full_name),
    };
    let Some(ignore) = context.resolved.context_dockerignore(&request) else {
        return Err(LowerError::Needs(vec![Need::ContextIgnore(request)]));
    };
    let pending = PendingLocal {
        output: context.arena.reserve(),
        local: local.to_owned(),
        full_name: named.full_name.clone(),
        excludes: read_patterns(ignore),
        paths,
    };
    let state = State::of(Some(pending.output));
    context.pending_locals.push(pending);
    Ok((state, None))
}

fn input(
    context: &mut Context<'_>,
    named: &NamedContext,
    input: &str,
) -> Result<(State, Option<ImageConfig>)> {
    let unknown = || Fault::ContextInput { input: input.to_owned(), name: named.full_name.clone() };
    let graph = context.resolved.input(input).ok_or_else(unknown)?;
    let state = State::of(context.arena.import(graph));
    let Some(metadata) = context.options.input_metadata.get(input) else { return Ok((state, None)) };
    let image = input_config(metadata).ok_or_else(|| Fault::InputMetadata(metadata.clone()))?;
    Ok(match image {
        Some(image) => (state.with_config(&image), Some(image)),
        None => (state, None),
    })
}

/// The image config in an input's metadata, a JSON object of base64 values; `None` when it is malformed.
fn input_config(metadata: &str) -> Option<Option<ImageConfig>> {
    let values: std::collections::BTreeMap<String, String> = serde_json::from_str(metadata).ok()?;
    let Some(config) = values.get("containerimage.config") else { return Some(None) };
    let config = BASE64_STANDARD.decode(config).ok()?;
    serde_json::from_slice(&config).ok().map(Some)
}
