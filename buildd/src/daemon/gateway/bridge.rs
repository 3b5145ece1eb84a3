//! One build's bridge: the results that its client has references to, and what it returns in the end.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::try_join_all;
use proto::control::{CacheOptionsEntry, StatusResponse, VertexWarning};
use proto::gateway::{Ref, ReturnRequest, SolveRequest, SolveResponse, WarnRequest};
use proto::pb::Definition;
use solver::{Graph, Hold, Need, Output};
use tokio::sync::{OnceCell, watch};
use tonic::{Code, Status};

use super::container::Containers;
use super::result::{self, Returned, ReturnedPart};
use crate::daemon::broken::Piece;
use crate::daemon::claims::{self, Claim, Scans};
use crate::daemon::definition;
use crate::daemon::export::{Built, Results};
use crate::daemon::failure::Failure;
use crate::daemon::frontends::{self, Outcome};
use crate::daemon::parts::Parts;
use crate::daemon::plan::{Plan, Planned};
use crate::daemon::policies::{self, Rules};
use crate::daemon::provenance::{Made, Origin};
use crate::daemon::remote_cache;
use crate::daemon::run::Run;
use crate::daemon::sources::image::host_platform;

/// A client's end of a build.
#[derive(Debug)]
pub(in crate::daemon) struct Bridge {
    pub(super) parts: Arc<Parts>,
    pub(super) run: Arc<Run>,
    /// Graphs that the client gave to `Control.Solve`.
    pub(super) inputs: BTreeMap<String, Definition>,
    /// Stands for the client where it is its own frontend.
    origin: Arc<Origin>,
    /// What is told of requests to frontends besides: what was asked for in the first place.
    root: Arc<Origin>,
    references: Mutex<HashMap<String, Arc<Reference>>>,
    pub(super) containers: Containers,
    /// What the client returned.
    returned: watch::Sender<Option<Result<Returned, Failure>>>,
}

/// Something that the client can look into: a graph, evaluated when it is first needed.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) graph: Arc<Graph>,
    /// Who asked for it.
    pub(super) origin: Arc<Origin>,
    /// `SOURCE_DATE_EPOCH`, where a frontend read it.
    pub(super) epoch: Option<i64>,
    /// So many entries of its config's history are those of the image that it is built on.
    pub(super) inherited: usize,
    /// What an SBOM of it is to cover besides.
    pub(super) scans: Arc<Scans>,
    available: OnceCell<Output>,
    present: OnceCell<Output>,
    /// Other builds may be given the graph and make it before this one does.
    _hold: Hold,
}

impl Reference {
    fn is_evaluated(&self) -> bool {
        self.available.initialized() || self.present.initialized()
    }

    /// The output, evaluated at most once: a directory of the client is not walked again for each file that is read.
    async fn output(&self, run: &Run, need: Need) -> Result<Output, Failure> {
        if let Some(present) = self.present.get() {
            return Ok(present.clone());
        }
        let cell = if need == Need::Present { &self.present } else { &self.available };
        cell.get_or_try_init(|| run.evaluate(&self.graph, need)).await.cloned()
    }
}

/// The same entry, as the control API has it.
fn in_control(entry: &proto::gateway::CacheOptionsEntry) -> CacheOptionsEntry {
    CacheOptionsEntry { r#type: entry.r#type.clone(), attrs: entry.attrs.clone() }
}

impl Bridge {
    /// A client's end, for one that stands for `origin` and is given `inputs`.
    pub(super) fn new(
        parts: &Arc<Parts>,
        run: &Arc<Run>,
        inputs: BTreeMap<String, Definition>,
        origin: Arc<Origin>,
        root: Arc<Origin>,
    ) -> Self {
        Self {
            parts: parts.clone(),
            run: run.clone(),
            inputs,
            origin,
            root,
            references: Mutex::default(),
            containers: Containers::default(),
            returned: watch::channel(None).0,
        }
    }

    /// Makes references to what a definition or a frontend gives.
    pub(super) async fn solve(&self, request: SolveRequest) -> Result<SolveResponse, Failure> {
        let entries: Vec<CacheOptionsEntry> = request.cache_imports.iter().map(in_control).collect();
        self.run.caches.add(remote_cache::imports_of(&request.frontend_opt, &entries));
        let rules = Rules::new(&request.source_policies).map_err(|e| Failure::invalid(&e))?;
        let mut plan = match self.outcome(&request).await? {
            Outcome::Plan(plan) => plan,
            Outcome::Answer(answer) => return Ok(result::answer(&request, answer)),
        };
        // What the frontend was told to build was looked at already.
        for part in plan.parts.iter_mut().filter(|_| !rules.is_empty()) {
            let graph = policies::apply(&self.parts, &self.run, part.graph.as_ref().clone(), &rules).await?;
            part.graph = Arc::new(graph);
        }
        let references: Vec<Arc<Reference>> = plan.parts.iter().map(|part| self.refer(part)).collect();
        if request.evaluate {
            try_join_all(references.iter().map(|r| r.output(&self.run, Need::Available))).await?;
        }
        for part in &plan.parts {
            let definition = crate::llb::to_definition(&part.graph);
            self.parts.requests.note(&self.run.reference, &definition, &part.origin);
        }
        let ids: Vec<String> = references.into_iter().map(|r| self.keep(r)).collect();
        let claims = plan.parts.iter().map(|part| self.keep_claims(part)).collect();
        result::response(&request, &plan, &ids, claims)
    }

    async fn outcome(&self, request: &SolveRequest) -> Result<Outcome, Failure> {
        let definition = request.definition.as_ref().filter(|d| !d.def.is_empty());
        match (definition, request.frontend.as_str()) {
            (None, "") => Ok(Outcome::Plan(Plan::default())),
            (Some(definition), "") => {
                let graph = definition::load(&self.parts, &self.run, definition).await?;
                let (graph, platform) = (Arc::new(graph), host_platform());
                let origin = self.origin.clone();
                let part = Planned {
                    platform,
                    graph,
                    origin,
                    config: None,
                    epoch: None,
                    inherited: 0,
                    claims: Vec::new(),
                    scans: Arc::default(),
                };
                Ok(Outcome::Plan(Plan { parts: vec![part], ..Plan::default() }))
            }
            (None, name) => {
                let (attrs, inputs) = (&request.frontend_opt, &request.frontend_inputs);
                frontends::plan(&self.parts, &self.run, name, attrs, inputs, Some(&self.root)).await
            }
            (Some(_), _) => Err(Failure::two_ways()),
        }
    }

    /// Evaluates what an id stands for.
    pub(super) async fn evaluate(&self, id: &str) -> Result<(), Failure> {
        self.output(id, Need::Available).await.map(drop)
    }

    /// The output that an id stands for.
    pub(super) async fn output(&self, id: &str, need: Need) -> Result<Output, Failure> {
        let reference = self.reference(id)?;
        let reference =
            reference.ok_or_else(|| Failure::new(Code::InvalidArgument, "the reference is empty"))?;
        reference.output(&self.run, need).await
    }

    /// The files that an id stands for: a reference, or something of a step that failed.
    pub(super) async fn files(&self, id: &str) -> Result<Output, Failure> {
        match self.run.pieces.get(id) {
            None => self.output(id, Need::Present).await,
            Some(Piece::Made(graph)) => self.run.evaluate(&graph, Need::Present).await,
            Some(Piece::Left(remains, mount)) => {
                let left = self.parts.worker.salvage(&remains, mount, &self.run.reference).await;
                left.map_err(|e| Failure::of_export(&e))
            }
        }
    }

    /// A failure as the client is told, with what it may look into.
    pub(super) fn told(&self, mut failure: Failure) -> Status {
        if let Some(step) = failure.step.take().filter(|_| failure.code != Code::Cancelled) {
            failure.details.add_solve(&self.run.pieces.keep(&self.run.reference, &step));
        }
        failure.status()
    }

    /// What an id stands for; the empty one for nothing.
    pub(super) fn reference(&self, id: &str) -> Result<Option<Arc<Reference>>, Failure> {
        if id.is_empty() {
            return Ok(None);
        }
        let found = self.lock().get(id).cloned();
        found.map(Some).ok_or_else(|| Failure::new(Code::NotFound, format!("no such ref: {id}")))
    }

    /// The id under which a reference is known.
    pub(super) fn id_of(&self, reference: &Arc<Reference>) -> Option<String> {
        let all = self.lock();
        all.iter().find(|(_, known)| Arc::ptr_eq(known, reference)).map(|(id, _)| id.clone())
    }

    /// The claims of a plan's part, their files as references.
    fn keep_claims(&self, part: &Planned) -> Vec<Claim<Ref>> {
        let keep = |claim: &claims::Planned| {
            let files = claim.files.as_ref().map_or_else(Ref::default, |graph| {
                let def = Some(crate::llb::to_definition(graph));
                let scans = Arc::default();
                let files =
                    Planned { graph: graph.clone(), config: None, epoch: None, scans, ..part.clone() };
                Ref { id: self.keep(self.refer(&files)), def }
            });
            claim.with(files)
        };
        part.claims.iter().map(keep).collect()
    }

    fn refer(&self, part: &Planned) -> Arc<Reference> {
        Arc::new(Reference {
            graph: part.graph.clone(),
            origin: part.origin.clone(),
            epoch: part.epoch,
            inherited: part.inherited,
            scans: part.scans.clone(),
            available: OnceCell::new(),
            present: OnceCell::new(),
            _hold: self.run.build.hold(&part.graph),
        })
    }

    fn keep(&self, reference: Arc<Reference>) -> String {
        let mut all = self.lock();
        let id = format!("{}-{}", self.run.reference, all.len());
        all.insert(id.clone(), reference);
        id
    }

    /// Tells a warning of the client's.
    pub(super) fn warn(&self, request: WarnRequest) {
        let warning = VertexWarning {
            vertex: request.digest,
            level: request.level,
            short: request.short,
            detail: request.detail,
            url: request.url,
            info: request.info,
            ranges: request.ranges,
        };
        self.run.journal.push(&StatusResponse { warnings: vec![warning], ..StatusResponse::default() });
    }

    /// Takes the client's last word.
    pub(super) fn accept(&self, request: ReturnRequest) -> Result<(), Failure> {
        let value = match (request.error, request.result) {
            (Some(error), _) => Err(Failure::told(&error)),
            (None, Some(result)) => Ok(Returned::read(self, result)?),
            (None, None) => {
                return Err(Failure::new(Code::InvalidArgument, "neither a result nor an error is returned"));
            }
        };
        let first = self.returned.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(value);
            }
            first
        });
        match first {
            true => Ok(()),
            false => Err(Failure::new(Code::FailedPrecondition, "a result was returned already")),
        }
    }

    /// The client's last word, if it has said it.
    pub(super) fn returned(&self) -> Option<Result<Returned, Failure>> {
        self.returned.borrow().clone()
    }

    /// Waits for the client's last word.
    pub(super) async fn wait_returned(&self) {
        // The sender is this bridge's own, so it is there.
        let _ = self.returned.subscribe().wait_for(Option::is_some).await;
    }

    /// Waits for the client's last word and evaluates it.
    pub(super) async fn result(&self) -> Result<Results, Failure> {
        let mut changes = self.returned.subscribe();
        let returned = tokio::select! {
            returned = changes.wait_for(Option::is_some) => match returned {
                Ok(returned) => returned.clone(),
                Err(_) => None,
            },
            () = self.run.cancel.cancelled() => None,
        };
        let returned = returned.unwrap_or_else(|| Err(Failure::of_export(&solver::ExecError::Canceled)))?;
        self.look_back(&returned);
        let built = try_join_all(returned.parts.into_iter().map(|part| async move {
            let output = match &part.reference {
                Some(reference) => reference.output(&self.run, Need::Available).await?,
                None => Output::scratch(crate::daemon::chains::Chains::empty()),
            };
            let mut claims = Vec::with_capacity(part.claims.len());
            for claim in &part.claims {
                let files = match &claim.files {
                    Some(reference) => Some(reference.output(&self.run, Need::Present).await?),
                    None => None,
                };
                claims.push(claim.with(files));
            }
            let ReturnedPart { platform, reference, config, epoch, inherited, .. } = part;
            let scans = reference.as_ref().map(|r| r.scans.clone()).unwrap_or_default();
            let made = reference.map(|r| Made { graph: r.graph.clone(), origin: r.origin.clone() });
            let provenance = None;
            Ok::<_, Failure>(Built {
                platform,
                output,
                config,
                epoch,
                inherited,
                made,
                provenance,
                claims,
                scans,
                cache: None,
                sbom: Vec::new(),
            })
        }))
        .await?;
        Ok(Results {
            built,
            multi_platform: returned.multi_platform,
            metadata: returned.metadata,
            ..Results::default()
        })
    }

    /// Notes what the client looked into besides what it returned: it may have made this of it.
    pub(super) fn look_back(&self, returned: &Returned) {
        let is_result = |reference: &Arc<Reference>| {
            returned
                .parts
                .iter()
                .flat_map(|part| {
                    let claimed = part.claims.iter().filter_map(|claim| claim.files.as_ref());
                    part.reference.iter().chain(claimed)
                })
                .any(|r| Arc::ptr_eq(r, reference))
        };
        for reference in self.lock().values().filter(|r| r.is_evaluated() && !is_result(r)) {
            self.origin.looks_at(reference.graph.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Reference>>> {
        self.references.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
