//! Why the steps of builds ran: what each build was keyed on is compared with what the build of the same project before was.
//!
//! A build whose steps all come from the cache, by the definitions that they had last time, costs no more than the look at those.

mod account;
mod alignment;
mod causes;
mod ending;
mod former;
mod live;
mod project;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cache::fileop::difference::{Difference, differences};
use cache::store::{Eviction, Store, StoreError};
use cache::tree::{NodeId, Trees};
use solver::{Digest, Event, EventSink, Finding, Graph, Selection, VertexId};

use super::failure::Failure;
use super::timestamp::now_ms;
use crate::explanation::{Cause, Explanation, Step};
use account::{Account, Course, Input, Seen, What};
pub(super) use causes::Asked;
use causes::{Comparison, Memory};
use ending::{Errors, Failed};
pub(super) use former::Elsewhere;
use former::{Former, Leaving};
use live::{Live, Now};
use project::Project;

/// So many files are named of each step.
const MAX_FILES: usize = 50;

/// Explains the builds of a daemon.
#[derive(Debug)]
pub(super) struct Explainer {
    store: Store,
    trees: Arc<Trees>,
    /// The definitions of each project's latest build, and when it ended, in milliseconds since 1970.
    latest: Mutex<HashMap<Digest, (Digest, u64)>>,
}

/// What one build tells of its graphs while it runs.
#[derive(Debug, Clone)]
pub(super) struct Observer {
    observed: Arc<Mutex<Observed>>,
    elsewhere: Arc<Elsewhere>,
    /// Where its steps are to tell why they run.
    live: Option<Arc<Live>>,
}

#[derive(Debug, Default)]
struct Observed {
    seen: Seen,
    /// What the build's frontend was asked for.
    asked: Option<BTreeMap<String, String>>,
    errors: Errors,
}

impl Observer {
    /// Of a build whose caches may know of others; where it is to be `live`, its steps tell the client while they run.
    pub(super) fn new(explainer: &Arc<Explainer>, elsewhere: Elsewhere, live: bool) -> Self {
        let elsewhere = Arc::new(elsewhere);
        let live = live.then(|| Arc::new(Live::new(explainer, &elsewhere)));
        Self { observed: Arc::default(), elsewhere, live }
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
        if let Event::Completed(_, Some(error)) = &event {
            self.observer.lock().errors.add(self.digests[vertex.index()], error);
        }
        self.events.event(vertex, event);
    }

    fn executing(&self, vertex: VertexId, known: &dyn Fn() -> Vec<(VertexId, Finding)>) {
        let mut observed = self.observer.lock();
        self.observer.elsewhere.expect(observed.asked.as_ref());
        let Some(live) = self.observer.live.clone() else { return };
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
pub(super) struct Ended {
    /// Its ref.
    build: String,
    failed: Option<Failed>,
    project: Project,
    /// Shared caches that it was to look into.
    caches: Vec<Asked>,
    /// The project's latest build elsewhere.
    former: Option<Arc<Former>>,
    /// What it was keyed on is to be left for others.
    leaves: bool,
}

impl Observer {
    /// The build has ended, well or with a failure: finds out what it can be compared with.
    pub(super) async fn ended(&self, build: &str, failure: Option<&Failure>) -> Ended {
        let (asked, worked) = {
            let observed = self.lock();
            (observed.asked.clone(), observed.seen.worked())
        };
        let project = self.elsewhere.project(asked.as_ref()).await.clone();
        let leaves = self.elsewhere.caches.keyed().writes();
        // What failed without doing anything takes what it did not reach from the one before.
        let failed = failure.map(Failed::of);
        let former = match worked || (failed.is_some() && leaves) {
            true => self.elsewhere.former(&project).await,
            false => None,
        };
        let caches = self.elsewhere.caches.asked();
        Ended { build: build.to_owned(), failed, project, caches, former, leaves }
    }

    /// Leaves what the build was keyed on in the caches that it writes. What fails is only logged.
    pub(super) async fn leave(&self, leaving: Leaving) {
        self.elsewhere.leave(leaving).await;
    }
}

impl Explainer {
    /// Remembers what the store does.
    pub(super) fn new(store: Store, trees: Arc<Trees>) -> Self {
        Self { store, trees, latest: Mutex::default() }
    }

    /// Explains a build, and keeps that and what it was keyed on; what is to be left for other machines. Blocking; what fails is only logged.
    pub(super) fn end(&self, observer: &Observer, ended: Ended) -> Option<Leaving> {
        let explained = self.explain(&observer.lock(), &ended);
        explained.unwrap_or_else(|e| {
            tracing::warn!(build = ended.build, "cannot explain a build: {e}");
            None
        })
    }

    /// What the builds of a project are compared with: the latest, here or elsewhere. `now` is what a build is keyed on.
    fn before(
        &self,
        project: &Project,
        former: Option<Arc<Former>>,
        now: &Account,
    ) -> Result<Before, StoreError> {
        // Of two projects that are called alike one would be compared with the other.
        let former = former.filter(|former| 2 * former.account.has(now) > now.steps.len());
        let read = |key: &Digest| -> Result<Option<Account>, StoreError> {
            let known = self.store.accounts().latest(key)?;
            Ok(known.and_then(|known| serde_json::from_str(&known.body).ok()))
        };
        if !project.is_told {
            return Ok(Before { former, ..Before::default() });
        }
        let since = self.ended_ms(project);
        let own = read(&project.own)?;
        let is_nearer =
            |former: &Arc<Former>| own.as_ref().is_none_or(|own| own.has(now) <= former.account.has(now));
        let former = former.filter(is_nearer);
        let others = match own.is_some() || former.is_some() {
            true => None,
            false => read(&project.others)?,
        };
        let others = others.filter(|others| others.platforms != project.platforms);
        Ok(Before { own, since, former, others })
    }

    /// When the latest build of a project ended here, in milliseconds since 1970. What cannot be read is as good as none. Blocking.
    fn ended_ms(&self, project: &Project) -> Option<u64> {
        if !project.is_told {
            return None;
        }
        // What is keyed on the same again is not written again.
        let since = self.latest().get(&project.own).map(|(_, ended_ms)| *ended_ms);
        let written = self.store.accounts().latest(&project.own).ok().flatten();
        since.max(written.map(|account| account.written_ms))
    }

    fn explain(&self, observed: &Observed, ended: &Ended) -> Result<Option<Leaving>, StoreError> {
        let Ended { build, failed, project, caches, former, leaves } = ended;
        let well = failed.is_none();
        let mut courses = observed.seen.courses();
        let definitions = observed.seen.definitions();
        let worked = courses.iter().any(|course| course.outcome.is_execution());
        let error = failed.as_ref().map(|failed| failed.error.clone());
        let mut explanation = Explanation { build: build.clone(), error, ..Explanation::default() };
        let mut why = vec![Vec::new(); courses.len()];
        let mut leaving = None;
        let written_ms = now_ms();
        if worked || !self.is_latest(project, definitions, written_ms) {
            let now = observed.seen.account(build, &project.platforms);
            let before = self.before(project, former.clone(), &now)?;
            if worked {
                let looking = Looking { store: &self.store, trees: self.trees_of(before.former.as_deref()) };
                why = causes::causes(&Comparison::new(before.compared(), &now, &courses, caches, &looking));
                for cause in why.iter_mut().flatten() {
                    before.settle(cause, &project.platforms);
                    settle(cause, observed.asked.as_ref());
                }
            }
            explanation.against = before.account().map(|before| before.build.clone());
            explanation.elsewhere = before.former.is_some();
            let mut kept = match before.account() {
                Some(account) => causes::carry(account, now, &courses),
                None => now,
            };
            if !kept.steps.is_empty() {
                if project.is_told {
                    self.keep(project, &before, &kept, written_ms)?;
                    self.latest().insert(project.own, (definitions, written_ms));
                }
                // Of a build that ended well there is nothing left to do: what it did not reach somebody had done before.
                kept.steps.iter_mut().for_each(|step| step.finished |= well);
                // One that failed takes the place only of what it was compared with.
                let is_whole = well || before.account().is_some();
                let shared = project.shared.filter(|_| *leaves && is_whole);
                let former = before.former;
                leaving = shared.map(|project| Leaving { project, account: kept, former, written_ms });
            }
        }
        observed.errors.settle(&mut courses, failed.as_ref());
        explanation.steps = steps(&courses, why);
        explanation.count();
        let text = serde_json::to_string(&explanation).unwrap_or_default();
        self.store.accounts().explain(build, text)?;
        Ok(leaving)
    }

    /// Keeps what the next build is compared with, if that is something else than before.
    fn keep(
        &self,
        project: &Project,
        before: &Before,
        now: &Account,
        written_ms: u64,
    ) -> Result<(), StoreError> {
        if before.own.as_ref().is_some_and(|own| own.steps == now.steps) {
            return Ok(());
        }
        let mut roots = directories(now);
        // Of a build elsewhere not all is here.
        roots.retain(|root| self.trees.contains(&NodeId::new(*root)).unwrap_or(false));
        self.put(&project.own, now, roots, written_ms)?;
        self.put(&project.others, &Account { steps: Vec::new(), ..now.clone() }, Vec::new(), written_ms)
    }

    fn put(
        &self,
        project: &Digest,
        account: &Account,
        roots: Vec<Digest>,
        written_ms: u64,
    ) -> Result<(), StoreError> {
        let body = serde_json::to_string(account).unwrap_or_default();
        self.store.accounts().put(project, &cache::store::Account { written_ms, roots, body })
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

    /// Whether the project's latest build had these definitions; then this one is the latest.
    fn is_latest(&self, project: &Project, definitions: Digest, now_ms: u64) -> bool {
        let mut latest = self.latest();
        let known = latest.get_mut(&project.own).filter(|(known, _)| *known == definitions);
        known.map(|(_, ended_ms)| *ended_ms = now_ms).is_some()
    }

    fn latest(&self) -> MutexGuard<'_, HashMap<Digest, (Digest, u64)>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where an explanation looks up what is not in accounts.
struct Looking<'a> {
    store: &'a Store,
    trees: &'a Trees,
}

impl Memory for Looking<'_> {
    fn differences(&self, old: &Digest, new: &Digest, selections: &[Selection]) -> Option<Vec<Cause>> {
        let found = differences(self.trees, &NodeId::new(*old), &NodeId::new(*new), selections).ok()?;
        let more = found.len().saturating_sub(MAX_FILES);
        let mut told: Vec<Cause> = found.into_iter().take(MAX_FILES).map(file).collect();
        if more > 0 {
            told.push(Cause::MoreFiles { count: more });
        }
        Some(told)
    }

    fn evicted(&self, course: &Course, since: Option<u64>) -> Option<Cause> {
        let evictions = self.store.evictions();
        let layers = course.lost.iter().filter_map(|layer| evictions.of_layer(layer).ok()?);
        let keys = [course.key, course.definition].into_iter().flatten();
        let records = keys.filter_map(|key| evictions.of_record(&key).ok()?);
        let newest = layers.chain(records).max_by_key(|eviction| eviction.at_ms);
        let newest = newest.filter(|eviction| since.is_none_or(|since| eviction.at_ms > since));
        newest.map(|Eviction { at_ms, rule }| Cause::Evicted { at_ms, rule })
    }
}

/// The roots of the clients' directories that an account names.
fn directories(account: &Account) -> Vec<Digest> {
    let directory = |input: &Input| input.content.filter(|_| matches!(input.what, What::Directory(_)));
    let mut roots: Vec<Digest> =
        account.steps.iter().flat_map(|step| &step.inputs).filter_map(directory).collect();
    roots.sort_unstable();
    roots.dedup();
    roots
}

/// What a build is compared with.
#[derive(Debug, Default)]
struct Before {
    /// The latest build here.
    own: Option<Account>,
    /// When that ended, in milliseconds since 1970.
    since: Option<u64>,
    /// A later one elsewhere.
    former: Option<Arc<Former>>,
    /// Without steps: the latest build for other platforms, where there was none for these.
    others: Option<Account>,
}

impl Before {
    /// What the latest build was keyed on.
    fn account(&self) -> Option<&Account> {
        self.former.as_ref().map(|former| &former.account).or(self.own.as_ref())
    }

    /// That, and when the latest one here ended.
    fn compared(&self) -> (Option<&Account>, Option<u64>) {
        (self.account(), self.since)
    }

    /// Tells of a first build for `platforms` what it is the first of.
    fn settle(&self, cause: &mut Cause, platforms: &str) {
        if let (Cause::FirstBuild, Some(others)) = (&cause, &self.others) {
            *cause = Cause::Platform { old: others.platforms.clone(), new: platforms.to_owned() };
        }
    }
}

/// Tells of what was asked to run again by which flag.
fn settle(cause: &mut Cause, asked: Option<&BTreeMap<String, String>>) {
    if let Cause::NoCache { flag } = cause {
        let stages = asked.and_then(|attrs| attrs.get("no-cache"));
        *flag = stages.map(|stages| match stages.as_str() {
            "" => "--no-cache".to_owned(),
            stages => format!("--no-cache-filter={stages}"),
        });
    }
}

fn steps(courses: &[Course], why: Vec<Vec<Cause>>) -> Vec<Step> {
    let step = |(course, causes): (&Course, Vec<Cause>)| Step {
        name: course.name.clone(),
        stage: course.stage.clone(),
        inputs: course.inputs.clone(),
        outcome: course.outcome,
        seconds: course.seconds,
        error: course.error.clone(),
        first: false,
        causes,
    };
    courses.iter().zip(why).map(step).collect()
}

fn file(difference: Difference) -> Cause {
    let Difference { path, by: change, old, new } = difference;
    Cause::File { path: String::from_utf8_lossy(path.as_bytes()).into_owned(), change, old, new }
}
