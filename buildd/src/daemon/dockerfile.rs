//! The Dockerfile frontend at work: what it has to know is looked up here, the graph it makes is evaluated here.

mod answers;
mod check;
mod elsewhere;
mod policy;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use cache::fileop::{ARCHIVE_HEAD, is_archive};
use frontend::ast::Document;
use frontend::diagnostic::Diagnostic;
use frontend::lint::Finding;
use frontend::lower::{LowerError, Lowered, lower, unused_args};
use frontend::options::{BuildOptions, ContextSpec};
use frontend::parse::parse;
use proto::control::{StatusResponse, VertexWarning};
use solver::op::Platform;
use solver::{Graph, Need, Output};

use super::claims::Scans;
use super::failure::Failure;
use super::frontends::Outcome;
use super::mounting::Mounting;
use super::parts::Parts;
use super::plan::{Plan, Planned};
use super::policies::{self, Rules};
use super::provenance::Origin;
use super::run::Run;
use super::sources::image::host_platform;
use crate::llb::to_definition;
use answers::{Answers, NoAnswer};
pub(super) use elsewhere::{Elsewhere, Solved};
pub(super) use policy::{NETWORK_HOST, check as check_policy};

/// The input that stands for the client's directory.
const CONTEXT: &str = "context";
/// A Dockerfile larger than this is not read.
const DOCKERFILE_LIMIT: u64 = 16 << 20;

/// The Dockerfile frontend for one build.
pub(super) struct Dockerfile<'a> {
    parts: &'a Parts,
    run: &'a Run,
    options: BuildOptions,
    inputs: BTreeMap<String, Graph>,
    origin: Arc<Origin>,
}

impl std::fmt::Debug for Dockerfile<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dockerfile")
    }
}

impl<'a> Dockerfile<'a> {
    /// Reads the frontend's attributes, which `origin` holds; `inputs` are what named contexts may refer to.
    ///
    /// # Errors
    /// An attribute whose value cannot be.
    pub(super) fn new(
        parts: &'a Parts,
        run: &'a Run,
        origin: Origin,
        inputs: BTreeMap<String, Graph>,
    ) -> Result<Self, Failure> {
        let mut options =
            BuildOptions::from_attrs(&origin.attrs, host_platform()).map_err(|e| Failure::invalid(&e))?;
        options.session = Some(run.session.clone());
        if options.context.spec.is_local() && inputs.contains_key(CONTEXT) {
            options.context.spec = ContextSpec::Input;
        }
        Ok(Self { parts, run, options, inputs, origin: Arc::new(origin) })
    }

    /// Plans a build, or answers a question about the Dockerfile, unless that is for another frontend.
    ///
    /// # Errors
    /// Whatever is wrong with the Dockerfile, and sources that cannot be had.
    pub(super) async fn solve(mut self) -> Result<Solved, Failure> {
        self.look_at_http_context().await?;
        let loading = to_definition(&frontend::lower::dockerfile_sources(&self.options).0);
        let solved = self.plan().await.map_err(|failure| failure.in_file_of(&loading))?;
        Ok(match solved {
            Solved::Outcome(Outcome::Plan(mut plan)) => {
                for graph in plan.parts.iter_mut().map(|part| Arc::make_mut(&mut part.graph)) {
                    // Others came along with inputs.
                    if let Some(file) = graph.sources.first_mut() {
                        file.definition = loading.def.iter().map(|op| op.to_vec()).collect();
                    }
                    graph.unite_sources();
                }
                Solved::Outcome(Outcome::Plan(plan))
            }
            Solved::Elsewhere(other) => Solved::Elsewhere(Box::new(other.loaded_by(&loading))),
            other => other,
        })
    }

    async fn plan(&mut self) -> Result<Solved, Failure> {
        let (bytes, ignore_beside) = self.load_dockerfile().await?;
        let (document, diagnostics) = parse(&self.options.filename, &bytes);
        if let Some(other) = Elsewhere::of(&self.options, &document, &bytes) {
            return Ok(Solved::Elsewhere(Box::new(other)));
        }
        self.options.devices = elsewhere::is_labs(&self.options, &document);
        if let Some(request) = &self.options.subrequest {
            let answer = self.subrequest(request, &document, &bytes, &diagnostics, ignore_beside).await;
            return answer.map(Solved::Outcome);
        }
        if let Some(first) = diagnostics.first() {
            self.warn(&document, &bytes, &self.findings_before(&document, first));
            let platform = self.options.platforms.first();
            let all = self.survey(&document, diagnostics, platform, &Answers::new(Vec::new(), &self.inputs));
            return Err(Failure::of_diagnostics(&document.source, &bytes, &all));
        }
        let ignore = self.load_ignore(ignore_beside).await?;
        let mut platforms: Vec<Option<&Platform>> = self.options.platforms.iter().map(Some).collect();
        if platforms.is_empty() {
            platforms.push(None);
        }
        let multi_platform = self.options.multi_platform || platforms.len() > 1;
        let mut lowered = Vec::new();
        let mut answers = Answers::new(ignore, &self.inputs);
        for platform in platforms {
            lowered.push(self.lower(&document, &bytes, platform, &mut answers).await?);
        }
        // What holds for one platform mostly holds for all: told once.
        let findings = lowered.first().map(|first| &first.warnings[..]).unwrap_or_default();
        self.warn(&document, &bytes, findings);
        unused_args(&document, &self.options, &lowered).into_iter().for_each(|text| self.warn_in_short(text));
        if self.parts.mounting == Mounting::Copy {
            self.warn_of_copies();
        }
        let mut parts = Vec::new();
        for Lowered { graph, image, epoch, scans, ignore_cache, .. } in lowered {
            let mut graph = self.allowed(graph).await?;
            policy::check(&mut graph, self.run)?;
            parts.push(Planned {
                platform: image.platform(),
                graph: Arc::new(graph),
                origin: self.origin.clone(),
                // The build's own entries get their times when they leave.
                inherited: image.history.iter().take_while(|entry| entry.created.is_some()).count(),
                config: Some(image),
                epoch,
                claims: Vec::new(),
                scans: Arc::new(Scans { extras: scans, ignore_cache }),
            });
        }
        Ok(Solved::Outcome(Outcome::Plan(Plan { parts, multi_platform, ..Plan::default() })))
    }

    /// Lowers, looking up whatever the frontend asks for, until it asks for nothing more.
    async fn lower(
        &self,
        document: &Document,
        bytes: &[u8],
        platform: Option<&Platform>,
        answers: &mut Answers<'_>,
    ) -> Result<Lowered, Failure> {
        loop {
            let mut refusal = None;
            let errors = match lower(document, &self.options, platform, answers) {
                Ok(lowered) => return Ok(lowered),
                Err(LowerError::Needs(needs)) => match self.answer(document, answers, needs).await {
                    Ok(()) => Vec::new(),
                    Err(NoAnswer::Failed(failure)) => return Err(failure),
                    Err(NoAnswer::Wrong(error)) => vec![*error],
                    Err(NoAnswer::Denied(error, why)) => {
                        refusal = why;
                        vec![*error]
                    }
                },
                Err(LowerError::Failed(failure)) => {
                    self.warn(document, bytes, &failure.findings);
                    failure.diagnostics()
                }
            };
            if !errors.is_empty() {
                let all = self.survey(document, errors, platform, answers);
                let mut failure = Failure::of_diagnostics(&document.source, bytes, &all);
                failure.details.refusal = refusal;
                return Err(failure);
            }
        }
    }

    /// A graph as source policies leave it.
    async fn allowed(&self, graph: Graph) -> Result<Graph, Failure> {
        policies::apply(self.parts, self.run, graph, &Rules::default()).await
    }

    /// All errors of the file, where a build would tell some.
    fn survey(
        &self,
        document: &Document,
        errors: Vec<Diagnostic>,
        platform: Option<&Platform>,
        answers: &Answers<'_>,
    ) -> Vec<Diagnostic> {
        frontend::lower::survey(document, errors, &self.options, platform, answers)
    }

    /// Finds out whether an HTTP context is an archive; if not, it is the Dockerfile.
    async fn look_at_http_context(&mut self) -> Result<(), Failure> {
        let Some((graph, name)) = frontend::lower::http_context_file(&self.options) else { return Ok(()) };
        let output = self.look_at(self.allowed(graph).await?.into(), Need::Present).await?;
        let head = self.parts.read_head(&output, name, ARCHIVE_HEAD).await?;
        let is_archive = is_archive(&head);
        if let ContextSpec::Http { archive, .. } = &mut self.options.context.spec {
            *archive = is_archive;
        }
        if !is_archive && !self.options.dockerfile_is_local {
            name.clone_into(&mut self.options.filename);
        }
        Ok(())
    }

    /// Loads the Dockerfile, and the ignore file that goes with it.
    async fn load_dockerfile(&self) -> Result<(Vec<u8>, Option<Vec<u8>>), Failure> {
        let (graph, names) = frontend::lower::dockerfile_sources(&self.options);
        let (graph, need) = match self.dockerfile_input() {
            Some(input) => (input.clone(), Need::Present),
            None => (graph, self.reading()),
        };
        let graph = Arc::new(self.allowed(graph).await?);
        let output = self.look_at(graph.clone(), need).await?;
        self.origin.reads(graph);
        for name in &names {
            if let Some(bytes) = self.read(&output, name).await? {
                let ignore = self.read(&output, &format!("{}.dockerignore", self.options.filename)).await?;
                return Ok((bytes, ignore));
            }
        }
        let message =
            format!("failed to read dockerfile: open {}: no such file or directory", self.options.filename);
        Err(Failure::new(tonic::Code::Unknown, message))
    }

    /// Evaluates what no step of the result uses.
    async fn look_at(&self, graph: Arc<Graph>, need: Need) -> Result<Output, Failure> {
        let output = self.run.evaluate(&graph, need).await?;
        self.origin.looks_at(graph);
        Ok(output)
    }

    /// What another frontend handed in to read the Dockerfile from.
    fn dockerfile_input(&self) -> Option<&Graph> {
        let local = !self.options.context.spec.is_remote() && !self.options.dockerfile_is_local;
        self.inputs.get(&self.options.dockerfile_local).filter(|_| local)
    }

    /// A directory of the client is read in place; anything else has to be here.
    fn reading(&self) -> Need {
        match self.options.context.spec.is_remote() && !self.options.dockerfile_is_local {
            true => Need::Present,
            false => Need::Known,
        }
    }

    async fn load_ignore(&self, beside: Option<Vec<u8>>) -> Result<Vec<u8>, Failure> {
        if let Some(own) = beside {
            return Ok(own);
        }
        let Some(graph) = frontend::lower::dockerignore_source(&self.options) else { return Ok(Vec::new()) };
        match self.look_at(self.allowed(graph).await?.into(), Need::Known).await {
            Ok(output) => Ok(self.read(&output, ".dockerignore").await?.unwrap_or_default()),
            // A build that copies nothing needs no context.
            Err(failure) if failure.code == tonic::Code::NotFound => Ok(Vec::new()),
            Err(failure) => Err(failure),
        }
    }

    async fn read(&self, output: &Output, path: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.parts.read_file(output, path, DOCKERFILE_LIMIT).await
    }

    /// Tells the client why its steps are slow.
    fn warn_of_copies(&self) {
        let root = self.parts.store.root().display();
        self.warn_in_short(format!(
            "Each step works on a copy of its files: overlays cannot be mounted below {root}"
        ));
    }

    /// Tells the client something that is no finding.
    fn warn_in_short(&self, text: String) {
        let warning = VertexWarning {
            vertex: self.run.dockerfile_vertex(),
            level: 1,
            short: text.into(),
            ..VertexWarning::default()
        };
        self.run.journal.push(&StatusResponse { warnings: vec![warning], ..StatusResponse::default() });
    }

    /// Tells the client of lint findings.
    fn warn(&self, document: &Document, bytes: &[u8], findings: &[Finding]) {
        let mut told = HashSet::new();
        let data = bytes::Bytes::copy_from_slice(bytes);
        for finding in findings {
            if !told.insert((finding.rule, &finding.message, finding.lines)) {
                continue;
            }
            let range = |line: u32| {
                let at = Some(proto::pb::Position { line: line as i32, character: 0 });
                proto::pb::Range { start: at, end: at }
            };
            let warning = VertexWarning {
                vertex: self.run.dockerfile_vertex(),
                level: 1,
                short: format!("{}: {} (line {})", finding.rule.name(), finding.message, finding.lines.start)
                    .into(),
                detail: vec![finding.rule.description().to_owned().into()],
                url: finding.rule.url().to_owned(),
                info: Some(proto::pb::SourceInfo {
                    filename: document.source.name().to_owned(),
                    data: data.clone(),
                    definition: None,
                    language: "Dockerfile".to_owned(),
                }),
                ranges: finding.lines.iter().map(range).collect(),
            };
            self.run.journal.push(&StatusResponse { warnings: vec![warning], ..StatusResponse::default() });
        }
    }
}
