//! Why a step runs, told while it does, to clients that want that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use solver::{Digest, Event, EventSink, Status, Update, VertexId};
use tokio::sync::OnceCell;

use super::account::{Account, Course};
use super::causes::Comparison;
use super::project::platforms;
use super::{Before, Elsewhere, Explainer, Looking, Observed, Project, settle};
use crate::daemon::blocking::blocking;
use crate::explanation::BECAUSE;

/// So many causes of a step are told while it runs; all of them at the end.
const MAX_CAUSES: usize = 3;

/// A build whose client wants to be told.
pub(super) struct Live {
    explainer: Arc<Explainer>,
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
        let Observed { seen, asked, .. } = observed;
        let account = seen.account("", &platforms(asked.as_ref()));
        Self { asked: asked.clone(), account, courses: seen.courses(), step }
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("elsewhere", &self.elsewhere).finish_non_exhaustive()
    }
}

impl Live {
    /// Of a build whose caches may know of others.
    pub(super) fn new(explainer: &Arc<Explainer>, elsewhere: &Arc<Elsewhere>) -> Self {
        Self { explainer: explainer.clone(), elsewhere: elsewhere.clone(), before: OnceCell::new() }
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
        let (explainer, caches) = (self.explainer.clone(), self.elsewhere.caches.asked());
        let words = blocking(move || {
            let Now { asked, account, courses, step } = &now;
            let (project, before) = &*before;
            let trees = explainer.trees_of(before.former.as_deref());
            let looking = Looking { store: &explainer.store, trees };
            let comparison = Comparison::new(before.compared(), account, courses, &caches, &looking);
            let course = courses.iter().find(|course| course.digest == *step);
            let mut causes = course.map(|course| comparison.of(course)).unwrap_or_default();
            for cause in &mut causes {
                before.settle(cause, &project.platforms);
                settle(cause, asked.as_ref());
            }
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
            let project = self.elsewhere.project(now.asked.as_ref()).await.clone();
            let former = self.elsewhere.former(&project).await;
            let (explainer, account) = (self.explainer.clone(), now.account.clone());
            blocking(move || {
                let before = explainer.before(&project, former, &account)?;
                Ok(Arc::new((project, before)))
            })
            .await
        };
        self.before.get_or_try_init(find).await.cloned()
    }
}
