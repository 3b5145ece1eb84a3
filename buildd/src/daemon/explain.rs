//! Why the steps of builds ran: what each build was keyed on is compared with what the build of the same project before was.
//!
//! A build whose steps all come from the cache, by the definitions that they had last time, costs no more than the look at those.

mod account;
mod alignment;
mod causes;
mod former;
mod live;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use cache::fileop::difference::{Difference, differences};
use cache::oci::Platform;
use cache::store::{Eviction, Store, StoreError};
use cache::tree::{NodeId, Trees};
use solver::{Digest, Event, EventSink, Finding, Graph, Selection, VertexId};

use super::blocking::blocking;
use super::keyed_cache::Left;
use super::parts::Parts;
use super::timestamp::to_millis;
use crate::explanation::{Cause, Explanation, Step};
use crate::session::Session;
use account::{Account, Course, Input, Seen, What};
pub(super) use causes::Asked;
use causes::Memory;
pub(super) use former::Elsewhere;
use former::Former;
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
}

impl Observer {
    /// Of a build whose caches may know of others; it also tells the client, where there is a `live`.
    pub(super) fn new(elsewhere: Arc<Elsewhere>, live: Option<Live>) -> Self {
        Self { observed: Arc::default(), elsewhere, live: live.map(Arc::new) }
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

/// What a client builds.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// Who the client is, and which directory it builds.
    pub directory: Vec<String>,
    /// What that directory is called, whatever machine it is on; empty where that is not known.
    pub called: String,
}

/// What the client of a session builds, if it is still there.
pub(super) fn place(parts: &Parts, id: &str, session: Option<&Session>) -> Place {
    Place { directory: parts.locals.place(id, session), called: parts.locals.called(id, session) }
}

/// A build that has ended.
#[derive(Debug)]
struct Ended {
    /// Its ref.
    build: String,
    well: bool,
    project: Project,
    /// Shared caches that it was to look into.
    caches: Vec<Asked>,
    /// The project's latest build elsewhere.
    former: Option<Arc<Former>>,
    /// What it was keyed on is to be left for others.
    leaves: bool,
}

/// Explains a build of `place` that has ended, well or not, and keeps that and what it was keyed on, here and in the caches that it writes. What
/// fails is only logged.
pub(super) async fn end(parts: &Parts, (build, well): (&str, bool), observer: &Observer, place: &Place) {
    let (project, worked) = {
        let observed = observer.lock();
        (Project::of(observed.asked.as_ref(), place), observed.seen.worked())
    };
    let (explainer, elsewhere) = (parts.explainer.clone(), &observer.elsewhere);
    let former = match worked {
        true => elsewhere.former(&project, &explainer.trees).await,
        false => None,
    };
    let caches = elsewhere.caches.asked();
    let leaves = elsewhere.caches.keyed().writes();
    let ended = Ended { build: build.to_owned(), well, project, caches, former, leaves };
    let own = observer.clone();
    let left = blocking(move || {
        explainer.explain(&own.lock(), &ended).unwrap_or_else(|e| {
            tracing::warn!(build = ended.build, "cannot explain a build: {e}");
            None
        })
    });
    if let Some(left) = left.await {
        elsewhere.leave(&left).await;
    }
}

impl Explainer {
    /// Remembers what the store does.
    pub(super) fn new(store: Store, trees: Arc<Trees>) -> Self {
        Self { store, trees, latest: Mutex::default() }
    }

    /// What the builds of a project are compared with: the latest, here or elsewhere.
    fn before(&self, project: &Project, former: Option<Arc<Former>>) -> Result<Before, StoreError> {
        let read = |key: &Digest| -> Result<Option<(u64, Account)>, StoreError> {
            let known = self.store.accounts().latest(key)?;
            Ok(known.and_then(|known| Some((known.written_ms, serde_json::from_str(&known.body).ok()?))))
        };
        if !project.is_told {
            return Ok(Before { former, ..Before::default() });
        }
        let (written_ms, account) = read(&project.own)?.unzip();
        let former = former.filter(|former| written_ms.is_none_or(|own| own < former.written_ms));
        let others = match account.is_some() || former.is_some() {
            true => None,
            false => read(&project.others)?.map(|(_, others)| others),
        };
        let others = others.filter(|others| others.platforms != project.platforms);
        Ok(Before { own: account, former, others })
    }

    /// Explains a build, and keeps that and what it was keyed on; what is to be left for other machines. Blocking.
    fn explain(&self, observed: &Observed, ended: &Ended) -> Result<Option<Left>, StoreError> {
        let Ended { build, well, project, caches, former, leaves } = ended;
        let courses = observed.seen.courses();
        let definitions = observed.seen.definitions();
        let worked = courses.iter().any(|course| course.outcome.is_execution());
        let mut explanation = Explanation { build: build.clone(), ..Explanation::default() };
        let mut why = vec![Vec::new(); courses.len()];
        let mut left = None;
        let shared = project.shared.filter(|_| *leaves);
        if worked || shared.is_some() || self.latest().get(&project.own) != Some(&definitions) {
            let now = observed.seen.account(build, &project.platforms);
            let former = former.clone().filter(|former| former.resembles(&now));
            let before = self.before(project, former)?;
            if worked {
                let looking = Looking { store: &self.store, trees: before.trees(&self.trees) };
                why = causes::causes(before.account(), &now, &courses, caches, &looking);
                why.iter_mut().flatten().for_each(|cause| before.settle(cause, &project.platforms));
            }
            explanation.against = before.account().map(|before| before.build.clone());
            let mut kept = match before.account() {
                Some(account) => causes::carry(account, now, &courses),
                None => now,
            };
            if !kept.steps.is_empty() {
                if project.is_told {
                    self.keep(project, &before, &kept)?;
                    self.latest().insert(project.own, definitions);
                }
                // Of a build that ended well there is nothing left to do: what it did not reach somebody had done before.
                kept.steps.iter_mut().for_each(|step| step.finished |= *well);
                left = shared.and_then(|to| former::pack(to, &kept, before.trees(&self.trees)));
            }
        }
        explanation.steps = steps(&courses, why);
        explanation.count();
        let text = serde_json::to_string(&explanation).unwrap_or_default();
        self.store.accounts().explain(build, text)?;
        Ok(left)
    }

    /// Keeps what the next build is compared with, if that is something else than before.
    fn keep(&self, project: &Project, before: &Before, now: &Account) -> Result<(), StoreError> {
        if before.own.as_ref().is_some_and(|own| own.steps == now.steps) {
            return Ok(());
        }
        let mut roots = directories(now);
        // Of a build elsewhere not all is here.
        roots.retain(|root| self.trees.contains(&NodeId::new(*root)).unwrap_or(false));
        self.put(&project.own, now, roots)?;
        self.put(&project.others, &Account { steps: Vec::new(), ..now.clone() }, Vec::new())
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
    /// For its platforms, as other machines know it, if they do.
    shared: Option<Digest>,
    /// It is known what is built: else builds of other directories, and of others, would be taken for earlier ones of it.
    is_told: bool,
}

impl Project {
    /// What a build's frontend was asked for, of which directory of which client.
    fn of(asked: Option<&BTreeMap<String, String>>, place: &Place) -> Self {
        let platforms = platforms(asked);
        let digest = |platforms: &str| {
            let mut hasher = solver::digest::Hasher::new("rbuild.explain.project.v2");
            hasher.strs(&place.directory);
            for name in ["filename", "target", "context", "source"] {
                hasher.str(asked.and_then(|attrs| attrs.get(name)).map_or("", String::as_str));
            }
            hasher.str(platforms);
            hasher.finish()
        };
        let is_told = place.directory.last().is_some_and(|directory| !directory.is_empty());
        let shared = known_as(asked, &place.called).map(|name| {
            let mut hasher = solver::digest::Hasher::new("rbuild.explain.shared-project.v1");
            hasher.str(&name);
            for name in ["filename", "target"] {
                hasher.str(asked.and_then(|attrs| attrs.get(name)).map_or("", String::as_str));
            }
            hasher.str(&platforms);
            hasher.finish()
        });
        Self { own: digest(&platforms), others: digest(""), platforms, shared, is_told }
    }
}

/// What machines that have nothing in common but a cache know a project by: where it comes from, or what its directory is called.
fn known_as(asked: Option<&BTreeMap<String, String>>, called: &str) -> Option<String> {
    let attr = |name: &str| asked.and_then(|attrs| attrs.get(name)).filter(|value| !value.is_empty());
    let from_url = attr("context").filter(|context| context.contains("://") || context.starts_with("git@"));
    let url = from_url.or_else(|| attr("vcs:source")).map(|url| {
        let url = url.split_once('#').map_or(url.as_str(), |(url, _)| url);
        solver::redacted(url).into_owned()
    });
    url.or_else(|| (!called.is_empty()).then(|| called.to_owned()))
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

    /// The trees that that names; `here` are those of this machine.
    fn trees<'a>(&'a self, here: &'a Trees) -> &'a Trees {
        self.former.as_ref().map_or(here, |former| &former.trees)
    }

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
