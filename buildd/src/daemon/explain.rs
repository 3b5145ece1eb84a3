//! Why the steps of builds ran: what each build was keyed on is compared with what the build of the same project before was.
//!
//! A build whose steps all come from the cache, by the definitions that they had last time, costs no more than the look at those.

mod account;
mod alignment;
mod causes;
mod live;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use cache::fileop::difference::{Difference, differences};
use cache::oci::Platform;
use cache::store::{Eviction, Store, StoreError};
use cache::tree::{NodeId, Trees};
use solver::{Digest, Event, EventSink, Finding, Graph, Selection, VertexId};

use super::timestamp::to_millis;
use crate::explanation::{Cause, Explanation, Step};
use account::{Account, Course, Input, Seen, What};
use causes::Memory;
pub(super) use live::Live;
use live::Now;

/// So many files are named of each step.
const MAX_FILES: usize = 50;

/// Explains the builds of a daemon.
#[derive(Debug)]
pub(super) struct Explainer {
    store: Store,
    trees: Arc<Trees>,
    /// The definitions of each project's latest build.
    latest: Mutex<HashMap<Digest, Digest>>,
}

/// What one build tells of its graphs while it runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Observer {
    observed: Arc<Mutex<Observed>>,
    /// Where its steps are to tell why they run.
    live: Option<Arc<Live>>,
}

#[derive(Debug, Default)]
struct Observed {
    seen: Seen,
    /// What the build's frontend was asked for.
    asked: Option<BTreeMap<String, String>>,
}

impl Observer {
    /// One that also tells the client, where there is a `live`.
    pub(super) fn new(live: Option<Live>) -> Self {
        Self { observed: Arc::default(), live: live.map(Arc::new) }
    }

    /// Notes what the build is of; the first that is asked for counts.
    pub(super) fn is_of(&self, attrs: &BTreeMap<String, String>) {
        self.lock().asked.get_or_insert_with(|| attrs.clone());
    }

    /// Listens to the evaluation of a graph, beside `events`; its vertices are known by `digests`.
    pub(super) fn beside(
        &self,
        events: Arc<dyn EventSink>,
        graph: &Arc<Graph>,
        digests: Vec<Digest>,
    ) -> Arc<dyn EventSink> {
        Arc::new(Listener { events, observer: self.clone(), graph: graph.clone(), digests })
    }

    fn lock(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Listener {
    events: Arc<dyn EventSink>,
    observer: Observer,
    graph: Arc<Graph>,
    digests: Vec<Digest>,
}

impl EventSink for Listener {
    fn event(&self, vertex: VertexId, event: Event) {
        self.events.event(vertex, event);
    }

    fn executing(&self, vertex: VertexId, known: &dyn Fn() -> Vec<(VertexId, Finding)>) {
        let Some(live) = self.observer.live.clone() else { return };
        let mut observed = self.observer.lock();
        observed.seen.add(&self.graph, &self.digests, known());
        let now = Now::of(&observed, self.digests[vertex.index()]);
        drop(observed);
        let events = self.events.clone();
        tokio::spawn(async move { live.tell(now, &*events, vertex).await });
    }

    fn found(&self, findings: Vec<(VertexId, Finding)>) {
        self.observer.lock().seen.add(&self.graph, &self.digests, findings);
    }
}

/// A build that has ended.
#[derive(Debug)]
pub(super) struct Ended<'a> {
    /// Its ref.
    pub build: &'a str,
    /// Who its client is, and which directory it builds.
    pub place: &'a [String],
    /// Shared caches that it was to look into, and why they could not be read.
    pub caches: &'a causes::Asked,
}

impl Explainer {
    /// Remembers what the store does.
    pub(super) fn new(store: Store, trees: Arc<Trees>) -> Self {
        Self { store, trees, latest: Mutex::default() }
    }

    /// Explains a build, and keeps that and what it was keyed on. Blocking; what fails is only logged.
    pub(super) fn end(&self, observer: &Observer, ended: &Ended<'_>) {
        if let Err(e) = self.explain(&observer.lock(), ended) {
            tracing::warn!(build = ended.build, "cannot explain a build: {e}");
        }
    }

    /// What the builds of a project are compared with.
    fn before(&self, project: &Project) -> Result<Before, StoreError> {
        let read = |key: &Digest| -> Result<Option<Account>, StoreError> {
            let known = self.store.accounts().latest(key)?;
            Ok(known.and_then(|known| serde_json::from_str(&known.body).ok()))
        };
        if !project.is_told {
            return Ok(Before::default());
        }
        let account = read(&project.own)?;
        let others = match account {
            Some(_) => None,
            None => read(&project.others)?.filter(|others| others.platforms != project.platforms),
        };
        Ok(Before { account, others })
    }

    fn explain(&self, observed: &Observed, ended: &Ended<'_>) -> Result<(), StoreError> {
        let courses = observed.seen.courses();
        let project = Project::of(observed.asked.as_ref(), ended.place);
        let definitions = observed.seen.definitions();
        let worked = courses.iter().any(|course| course.outcome.is_execution());
        let mut explanation = Explanation { build: ended.build.to_owned(), ..Explanation::default() };
        let mut why = vec![Vec::new(); courses.len()];
        if worked || self.latest().get(&project.own) != Some(&definitions) {
            let before = self.before(&project)?;
            let now = observed.seen.account(ended.build, &project.platforms);
            if worked {
                why = causes::causes(before.account.as_ref(), &now, &courses, ended.caches, self);
                why.iter_mut().flatten().for_each(|cause| before.settle(cause, &project.platforms));
            }
            explanation.against = before.account.as_ref().map(|before| before.build.clone());
            if !now.steps.is_empty() && project.is_told {
                let latest = Account { steps: Vec::new(), ..now.clone() };
                if self.keep(&project.own, before.account, now, &courses)? {
                    self.put(&project.others, &latest, Vec::new())?;
                }
                self.latest().insert(project.own, definitions);
            }
        }
        explanation.steps = steps(&courses, why);
        explanation.count();
        let text = serde_json::to_string(&explanation).unwrap_or_default();
        self.store.accounts().explain(ended.build, text)
    }

    /// Keeps what the next build is compared with; whether that is something else than before.
    fn keep(
        &self,
        project: &Digest,
        before: Option<Account>,
        now: Account,
        courses: &[Course],
    ) -> Result<bool, StoreError> {
        let known = before.as_ref().map(|before| before.steps.clone());
        let now = match before {
            Some(before) => causes::carry(before, now, courses),
            None => now,
        };
        if known.as_ref() == Some(&now.steps) {
            return Ok(false);
        }
        let directory = |input: &Input| input.content.filter(|_| matches!(input.what, What::Directory(_)));
        let mut roots: Vec<Digest> =
            now.steps.iter().flat_map(|step| &step.inputs).filter_map(directory).collect();
        roots.sort_unstable();
        roots.dedup();
        self.put(project, &now, roots)?;
        Ok(true)
    }

    fn put(&self, project: &Digest, account: &Account, roots: Vec<Digest>) -> Result<(), StoreError> {
        let body = serde_json::to_string(account).unwrap_or_default();
        let account = cache::store::Account { written_ms: to_millis(SystemTime::now()), roots, body };
        self.store.accounts().put(project, &account)
    }

    /// What is told of a build, as JSON; of the one that ended last where none is named. Blocking.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn told(&self, build: &str) -> Result<Option<String>, StoreError> {
        if !build.is_empty() {
            return self.store.accounts().explanation(build);
        }
        let mut builds = self.store.history().list()?;
        builds.sort_by_key(|build| build.finished_ms);
        for build in builds.iter().rev() {
            if let Some(told) = self.store.accounts().explanation(&build.reference)? {
                return Ok(Some(told));
            }
        }
        Ok(None)
    }

    fn latest(&self) -> MutexGuard<'_, HashMap<Digest, Digest>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory for Explainer {
    fn differences(&self, old: &Digest, new: &Digest, selections: &[Selection]) -> Option<Vec<Cause>> {
        let found = differences(&self.trees, &NodeId::new(*old), &NodeId::new(*new), selections).ok()?;
        let more = found.len().saturating_sub(MAX_FILES);
        let mut told: Vec<Cause> = found.into_iter().take(MAX_FILES).map(file).collect();
        if more > 0 {
            told.push(Cause::MoreFiles { count: more });
        }
        Some(told)
    }

    fn evicted(&self, course: &Course) -> Option<Cause> {
        let evictions = self.store.evictions();
        let layers = course.lost.iter().filter_map(|layer| evictions.of_layer(layer).ok()?);
        let keys = [course.key, course.definition].into_iter().flatten();
        let records = keys.filter_map(|key| evictions.of_record(&key).ok()?);
        let newest = layers.chain(records).max_by_key(|eviction| eviction.at_ms);
        newest.map(|Eviction { at_ms, rule }| Cause::Evicted { at_ms, rule })
    }
}

/// What tells the builds of one thing from those of others.
#[derive(Debug, Clone)]
struct Project {
    /// For its platforms.
    own: Digest,
    /// For any.
    others: Digest,
    platforms: String,
    /// It is known what is built: else builds of other directories, and of others, would be taken for earlier ones of it.
    is_told: bool,
}

impl Project {
    /// What a build's frontend was asked for, of which directory of which client.
    fn of(asked: Option<&BTreeMap<String, String>>, place: &[String]) -> Self {
        let platforms = platforms(asked);
        let digest = |platforms: &str| {
            let mut hasher = solver::digest::Hasher::new("rbuild.explain.project.v2");
            hasher.strs(place);
            for name in ["filename", "target", "context", "source"] {
                hasher.str(asked.and_then(|attrs| attrs.get(name)).map_or("", String::as_str));
            }
            hasher.str(platforms);
            hasher.finish()
        };
        let is_told = place.last().is_some_and(|directory| !directory.is_empty());
        Self { own: digest(&platforms), others: digest(""), platforms, is_told }
    }
}

/// What a build is compared with.
#[derive(Debug, Default)]
struct Before {
    account: Option<Account>,
    /// Without steps: the latest build for other platforms, where there was none for these.
    others: Option<Account>,
}

impl Before {
    /// Tells of a first build for `platforms` what it is the first of.
    fn settle(&self, cause: &mut Cause, platforms: &str) {
        if let (Cause::FirstBuild, Some(others)) = (&cause, &self.others) {
            *cause = Cause::Platform { old: others.platforms.clone(), new: platforms.to_owned() };
        }
    }
}

/// What a build is for, separated by commas, in one spelling and order.
fn platforms(asked: Option<&BTreeMap<String, String>>) -> String {
    let host = Platform::host().to_string();
    let asked = asked.and_then(|attrs| attrs.get("platform")).filter(|platforms| !platforms.is_empty());
    let one = |name: &str| match name.parse::<Platform>() {
        Ok(platform) => platform.normalized().full(),
        Err(_) => name.to_owned(),
    };
    let all: BTreeSet<String> = asked.unwrap_or(&host).split(',').map(one).collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}

fn steps(courses: &[Course], why: Vec<Vec<Cause>>) -> Vec<Step> {
    let step = |(course, causes): (&Course, Vec<Cause>)| Step {
        name: course.name.clone(),
        stage: course.stage.clone(),
        inputs: course.inputs.clone(),
        outcome: course.outcome,
        seconds: course.seconds,
        first: false,
        causes,
    };
    courses.iter().zip(why).map(step).collect()
}

fn file(difference: Difference) -> Cause {
    let Difference { path, by: change, old, new } = difference;
    Cause::File { path: String::from_utf8_lossy(path.as_bytes()).into_owned(), change, old, new }
}
