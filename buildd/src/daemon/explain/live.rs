//! Why a step runs, told while it does, to clients that want that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use solver::{Digest, Event, EventSink, Status, Update, VertexId};
use tokio::sync::OnceCell;

use super::account::{Account, Course};
use super::causes::Comparison;
use super::{Before, Observed, Project, platforms};
use crate::daemon::blocking::blocking;
use crate::daemon::parts::Parts;
use crate::daemon::remote_cache::RemoteCaches;
use crate::explanation::BECAUSE;

/// So many causes of a step are told while it runs; all of them at the end.
const MAX_CAUSES: usize = 3;

/// A build whose client wants to be told.
pub(in crate::daemon) struct Live {
    parts: Arc<Parts>,
    session: String,
    caches: Arc<RemoteCaches>,
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
    /// Of a build of `session` that looks into `caches`.
    pub(in crate::daemon) fn new(parts: &Arc<Parts>, session: &str, caches: &Arc<RemoteCaches>) -> Self {
        let (parts, session, caches) = (parts.clone(), session.to_owned(), caches.clone());
        Self { parts, session, caches, before: OnceCell::new() }
    }

    /// Tells `events` why a step began, as parts of its vertex. What fails is only logged.
    pub(super) async fn tell(&self, now: Now, events: &dyn EventSink, vertex: VertexId) {
        let before = match self.before(now.asked.as_ref()).await {
            Ok(before) => before,
            Err(error) => {
                tracing::warn!("cannot explain a step: {error}");
                return;
            }
        };
        let (explainer, caches) = (self.parts.explainer.clone(), self.caches.asked());
        let words = blocking(move || {
            let Now { account, courses, step, .. } = &now;
            let (project, before) = &*before;
            let comparison = Comparison::new(before.account.as_ref(), account, courses, &caches, &*explainer);
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
    async fn before(
        &self,
        asked: Option<&BTreeMap<String, String>>,
    ) -> Result<Arc<(Project, Before)>, cache::store::StoreError> {
        let find = || async {
            let session = self.parts.sessions.get(&self.session, Duration::ZERO).await.ok();
            let project = Project::of(asked, &self.parts.locals.place(&self.session, session.as_ref()));
            let explainer = self.parts.explainer.clone();
            blocking(move || Ok(Arc::new((project.clone(), explainer.before(&project)?)))).await
        };
        self.before.get_or_try_init(find).await.cloned()
    }
}
