//! Looking up what lowering asks for.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use frontend::ast::Document;
use frontend::diagnostic::Diagnostic;
use frontend::lower::{ImageRequest, LocalRequest, Need as Wanted, Resolved, ResolvedImage, TimeRequest};
use frontend::options::ResolveMode;
use futures_util::future::try_join_all;
use solver::op::{Platform, SourceOp, attr};
use solver::{Edge, Graph, GraphBuilder, Need, Op, Vertex, VertexMeta};

use super::Dockerfile;
use crate::daemon::failure::{self, Failure};
use crate::daemon::policies::{self, Rules};
use crate::errdetails::Refusal;

/// What was looked up so far.
#[derive(Debug)]
pub(super) struct Answers<'a> {
    inputs: &'a BTreeMap<String, Graph>,
    ignore: Vec<u8>,
    images: HashMap<ImageKey, ResolvedImage>,
    ignores: HashMap<String, Vec<u8>>,
    times: HashMap<String, Option<i64>>,
}

/// Why a need stays unanswered.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// The Dockerfile names something that is not there.
    Wrong(Box<Diagnostic>),
    /// The Dockerfile names something that a policy forbids.
    Denied(Box<Diagnostic>, Option<Box<Refusal>>),
    /// Anything else.
    Failed(Failure),
}

impl From<Failure> for NoAnswer {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

type ImageKey = (String, Platform, Option<String>);

fn key(r: &ImageRequest) -> ImageKey {
    (r.reference.clone(), r.platform.clone(), r.oci_store.clone())
}

impl<'a> Answers<'a> {
    pub(super) fn new(ignore: Vec<u8>, inputs: &'a BTreeMap<String, Graph>) -> Self {
        let (images, ignores, times) = Default::default();
        Self { inputs, ignore, images, ignores, times }
    }
}

impl Resolved for Answers<'_> {
    fn image(&self, request: &ImageRequest) -> Option<&ResolvedImage> {
        self.images.get(&key(request))
    }

    fn dockerignore(&self) -> &[u8] {
        &self.ignore
    }

    fn context_dockerignore(&self, request: &LocalRequest) -> Option<&[u8]> {
        self.ignores.get(&request.local).map(Vec::as_slice)
    }

    fn input(&self, name: &str) -> Option<&Graph> {
        self.inputs.get(name)
    }

    fn source_time(&self, request: &TimeRequest) -> Option<Option<i64>> {
        self.times.get(&request.source.identifier).copied()
    }
}

impl Dockerfile<'_> {
    /// Looks all needs up, images at the same time.
    pub(super) async fn answer(
        &self,
        document: &Document,
        answers: &mut Answers<'_>,
        needs: Vec<Wanted>,
    ) -> Result<(), NoAnswer> {
        let mut images = Vec::new();
        for need in needs {
            match need {
                Wanted::Image(request) => images.push(request),
                Wanted::ContextIgnore(request) => {
                    let ignore = self.context_ignore(&request).await?;
                    answers.ignores.insert(request.local.clone(), ignore);
                }
                Wanted::SourceTime(request) => {
                    let time = self.source_time(&request).await?;
                    answers.times.insert(request.source.identifier.clone(), time);
                }
            }
        }
        let found = try_join_all(images.iter().map(|r| self.image(document, r))).await?;
        answers.images.extend(images.iter().map(key).zip(found));
        Ok(())
    }

    async fn source_time(&self, request: &TimeRequest) -> Result<Option<i64>, Failure> {
        let source =
            policies::resolve(self.parts, self.run, &request.source, None, &Rules::default()).await?;
        let step = self.run.teller.step(&request.log_name);
        let cx = self.run.context(step.progress());
        let time = step.end(self.parts.sources.time(&source, &cx).await);
        time.map_err(|e| Failure::of_export(&e))
    }

    async fn image(&self, document: &Document, request: &ImageRequest) -> Result<ResolvedImage, NoAnswer> {
        let op = image_source(request, &self.run.session);
        let platform = Some(&request.platform);
        let allowed = policies::resolve(self.parts, self.run, &op, platform, &Rules::default()).await;
        let mut allowed = allowed.map_err(|failure| {
            let cause = format!("failed to resolve source metadata for {}: {failure}", request.reference);
            NoAnswer::Denied(Box::new(request.failure(document, &cause)), failure.details.refusal)
        })?;
        let (scheme, reference) = allowed.scheme_and_ref();
        let replaced = (allowed.identifier != op.identifier).then(|| reference.to_owned());
        if replaced.is_some() && !matches!(scheme, "docker-image" | "oci-layout") {
            let elsewhere = Some(allowed.identifier);
            return Ok(ResolvedImage { elsewhere, ..ResolvedImage::default() });
        }
        if self.options.resolve_mode == ResolveMode::ForcePull {
            allowed.attrs.insert(attr::IMAGE_RESOLVE_MODE.to_owned(), "pull".to_owned());
        }
        let step = self.run.teller.step(&request.log_name);
        let cx = self.run.context(step.progress());
        let found = self.parts.images.of_op(&allowed, platform, &cx).await;
        let found = step.end(found).map_err(|e| {
            let why = failure::text(&e);
            let cause = format!("failed to resolve source metadata for {}: {why}", request.reference);
            NoAnswer::Wrong(Box::new(request.failure(document, &cause)))
        })?;
        Ok(ResolvedImage {
            reference: replaced,
            elsewhere: None,
            digest: Some(found.image.digest.to_string()),
            config: found.image.config_bytes.clone(),
        })
    }

    async fn context_ignore(&self, request: &LocalRequest) -> Result<Vec<u8>, Failure> {
        let mut meta = VertexMeta::default();
        meta.description.insert("llb.customname".to_owned(), request.log_name.clone());
        let vertex = Vertex {
            op: Op::Source(request.source.clone()),
            inputs: vec![],
            platform: None,
            constraints: vec![],
            meta,
        };
        let mut graph = GraphBuilder::new();
        let id = graph.add(vertex).map_err(|e| Failure::invalid(&e))?;
        let graph = self.allowed(graph.finish(Some(Edge { vertex: id, output: 0 }))).await?;
        let output = self.run.evaluate(&Arc::new(graph), Need::Known).await?;
        Ok(self.read(&output, ".dockerignore").await?.unwrap_or_default())
    }
}

/// An image that the Dockerfile names, as LLB has it.
fn image_source(request: &ImageRequest, session: &str) -> SourceOp {
    let Some(store) = &request.oci_store else {
        let identifier = format!("docker-image://{}", request.reference);
        return SourceOp { identifier, attrs: BTreeMap::new() };
    };
    let attrs = [
        (attr::OCI_LAYOUT_SESSION_ID.to_owned(), session.to_owned()),
        (attr::OCI_LAYOUT_STORE_ID.to_owned(), store.clone()),
    ];
    SourceOp { identifier: format!("oci-layout://{}", request.reference), attrs: attrs.into() }
}
