//! Why a step runs, told while it does, to clients that want that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use solver::{Digest, Event, EventSink, Status, Update, VertexId};
use tokio::sync::OnceCell;

use super::account::{Account, Course};
use super::causes::Comparison;
use super::{Before, Elsewhere, Looking, Observed, Project, place, platforms};
use crate::daemon::blocking::blocking;
use crate::daemon::parts::Parts;
use crate::explanation::BECAUSE;

/// So many causes of a step are told while it runs; all of them at the end.
const MAX_CAUSES: usize = 3;

/// A build whose client wants to be told.
pub(in crate::daemon) struct Live {
    parts: Arc<Parts>,
    session: String,
    elsewhere: Arc<Elsewhere>,
    before: OnceCell<Arc<(Project, Before)>>,
}

/// What is known of a build when a step begins.
pub(super) struct Now {
    asked: Option<BTreeMap<String, String>>,
    account: Account,
    courses: Vec<Course>,
    step: Digest,
}

impl Now {
    /// `step` is what clients know the step by.
    pub(super) fn of(observed: &Observed, step: Digest) -> Self {
        let Observed { seen, asked } = observed;
        let account = seen.account("", &platforms(asked.as_ref()));
        Self { asked: asked.clone(), account, courses: seen.courses(), step }
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("session", &self.session).finish_non_exhaustive()
    }
}

impl Live {
    /// Of a build of `session` whose caches may know of others.
    pub(in crate::daemon) fn new(parts: &Arc<Parts>, session: &str, elsewhere: &Arc<Elsewhere>) -> Self {
        let (parts, session, elsewhere) = (parts.clone(), session.to_owned(), elsewhere.clone());
        Self { parts, session, elsewhere, before: OnceCell::new() }
    }

    /// Tells `events` why a step began, as parts of its vertex. What fails is only logged.
    pub(super) async fn tell(&self, now: Now, events: &dyn EventSink, vertex: VertexId) {
        let before = match self.before(&now).await {
            Ok(before) => before,
            Err(error) => {
                tracing::warn!("cannot explain a step: {error}");
                return;
            }
        };
        let (explainer, caches) = (self.parts.explainer.clone(), self.elsewhere.caches.asked());
        let words = blocking(move || {
            let Now { account, courses, step, .. } = &now;
            let (project, before) = &*before;
            let looking = Looking { store: &explainer.store, trees: before.trees(&explainer.trees) };
            let comparison = Comparison::new(before.account(), account, courses, &caches, &looking);
            let course = courses.iter().find(|course| course.digest == *step);
            let mut causes = course.map(|course| comparison.of(course)).unwrap_or_default();
            causes.iter_mut().for_each(|cause| before.settle(cause, &project.platforms));
            let name = |step: usize| courses.get(step).map_or("", |course| &course.name);
            causes.iter().map(|cause| cause.words(&name)).collect::<Vec<String>>()
        });
        let words = words.await;
        let more = words.len().saturating_sub(MAX_CAUSES);
        let more = (more > 0).then(|| format!("{more} more changes"));
        for id in words.into_iter().take(MAX_CAUSES).chain(more) {
            let at = SystemTime::now();
            let (id, started, completed) = (format!("{BECAUSE}{id}"), at, Some(at));
            let status = Status { id, current: 0, total: 0, started, completed };
            events.event(vertex, Event::Update(Update::Status(status)));
        }
    }

    /// What the build is compared with; found out once.
    async fn before(&self, now: &Now) -> Result<Arc<(Project, Before)>, cache::store::StoreError> {
        let find = || async {
            let session = self.parts.sessions.get(&self.session, Duration::ZERO).await.ok();
            let project =
                Project::of(now.asked.as_ref(), &place(&self.parts, &self.session, session.as_ref()));
            let explainer = self.parts.explainer.clone();
            let former = self.elsewhere.former(&project, &explainer.trees).await;
            let former = former.filter(|former| former.resembles(&now.account));
            blocking(move || Ok(Arc::new((project.clone(), explainer.before(&project, former)?)))).await
        };
        self.before.get_or_try_init(find).await.cloned()
    }
}
