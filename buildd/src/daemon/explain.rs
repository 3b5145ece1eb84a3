//! Why the steps of builds ran: what each build was keyed on is compared with what the build of the same project before was.
//!
//! A build whose steps all come from the cache, by the definitions that they had last time, costs no more than the look at those.

mod account;
mod alignment;
mod causes;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use cache::fileop::difference::{Difference, differences};
use cache::store::{Eviction, Store, StoreError};
use cache::tree::{NodeId, Trees};
use solver::{Digest, Event, EventSink, Finding, Graph, Selection, VertexId};

use super::timestamp::to_millis;
use crate::explanation::{Cause, Explanation, Step};
use account::{Account, Course, Input, Seen, What};
use causes::Memory;

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
pub(super) struct Observer(Arc<Mutex<Observed>>);

#[derive(Debug, Default)]
struct Observed {
    seen: Seen,
    /// What the build's frontend was asked for.
    asked: Option<BTreeMap<String, String>>,
}

impl Observer {
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Ended<'_> {
    /// Whether it is known what is built: else builds of other directories, and of others, would be taken for earlier ones of it.
    fn is_told(&self) -> bool {
        self.place.last().is_some_and(|directory| !directory.is_empty())
    }
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

    fn explain(&self, observed: &Observed, ended: &Ended<'_>) -> Result<(), StoreError> {
        let courses = observed.seen.courses();
        let project = project(observed.asked.as_ref(), ended.place);
        let definitions = observed.seen.definitions();
        let worked = courses.iter().any(|course| course.outcome.is_execution());
        let mut explanation = Explanation { build: ended.build.to_owned(), ..Explanation::default() };
        let mut why = vec![Vec::new(); courses.len()];
        if worked || self.latest().get(&project) != Some(&definitions) {
            let before = match ended.is_told() {
                true => self.store.accounts().latest(&project)?,
                false => None,
            };
            let before: Option<Account> = before.and_then(|before| serde_json::from_str(&before.body).ok());
            let now = observed.seen.account(ended.build);
            if worked {
                why = causes::causes(before.as_ref(), &now, &courses, ended.caches, self);
            }
            explanation.against = before.as_ref().map(|before| before.build.clone());
            if !now.steps.is_empty() && ended.is_told() {
                self.keep(&project, before, now, &courses)?;
                self.latest().insert(project, definitions);
            }
        }
        explanation.steps = steps(&courses, why);
        explanation.count();
        let text = serde_json::to_string(&explanation).unwrap_or_default();
        self.store.accounts().explain(ended.build, text)
    }

    fn keep(
        &self,
        project: &Digest,
        before: Option<Account>,
        now: Account,
        courses: &[Course],
    ) -> Result<(), StoreError> {
        let known = before.as_ref().map(|before| before.steps.clone());
        let now = match before {
            Some(before) => causes::carry(before, now, courses),
            None => now,
        };
        if known.as_ref() == Some(&now.steps) {
            return Ok(());
        }
        let directory = |input: &Input| input.content.filter(|_| matches!(input.what, What::Directory(_)));
        let mut roots: Vec<Digest> =
            now.steps.iter().flat_map(|step| &step.inputs).filter_map(directory).collect();
        roots.sort_unstable();
        roots.dedup();
        let body = serde_json::to_string(&now).unwrap_or_default();
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
fn project(asked: Option<&BTreeMap<String, String>>, place: &[String]) -> Digest {
    let mut hasher = solver::digest::Hasher::new("rbuild.explain.project.v1");
    hasher.strs(place);
    for name in ["filename", "target", "platform", "context", "source"] {
        hasher.str(asked.and_then(|attrs| attrs.get(name)).map_or("", String::as_str));
    }
    hasher.finish()
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
