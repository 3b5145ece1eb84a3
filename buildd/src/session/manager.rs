//! The open sessions.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use proto::control::BytesMessage;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::SessionError;
use super::health;
use super::tunnel::{Tunnel, dial};
use crate::pipe::outgoing;

const HEADER_ID: &str = "x-docker-expose-session-uuid";
/// What a client calls what it builds: older clients of docker, and ours.
const HEADER_NAME: &str = "x-docker-expose-session-name";
const HEADER_SHARED_KEY: &str = "x-docker-expose-session-sharedkey";
const HEADER_METHOD: &str = "x-docker-expose-session-grpc-method";

/// How long a session may take to arrive after a call that names it (BuildKit's figure): clients open both at the same time.
pub const ARRIVAL: Duration = Duration::from_secs(5);

/// The open sessions of a daemon. Clones share them.
#[derive(Clone, Default)]
pub struct SessionManager {
    open: Arc<Open>,
}

#[derive(Default)]
struct Open {
    sessions: Mutex<HashMap<String, Session>>,
    arrived: Notify,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// A client's session. Clones are the same session.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    id: String,
    name: String,
    shared_key: String,
    owner: String,
    /// Lower-cased `/service/method`.
    methods: HashSet<String>,
    channel: Channel,
    closed: CancellationToken,
}

impl fmt::Debug for SessionManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionManager").finish_non_exhaustive()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.inner.id).finish_non_exhaustive()
    }
}

impl SessionManager {
    /// No sessions yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether any session is open.
    pub fn is_used(&self) -> bool {
        !self.open.sessions().is_empty()
    }

    /// The first of these sessions that is open, or opens soon.
    pub async fn first(&self, ids: &[String]) -> Option<Session> {
        for id in ids {
            if let Ok(session) = self.get(id, ARRIVAL).await {
                return Some(session);
            }
        }
        None
    }

    /// Serves `Control.Session`: registers the session until its stream ends or its health fails. `owner` is who calls.
    ///
    /// # Errors
    /// A missing id, or one that is in use.
    pub async fn handle(
        &self,
        request: Request<Streaming<BytesMessage>>,
        owner: String,
    ) -> Result<Response<SessionStream>, Status> {
        let (metadata, _, incoming) = request.into_parts();
        let closed = self.open.shutdown.child_token();
        let (tx, rx) = outgoing();
        let channel = dial(Tunnel::new(incoming, tx, closed.clone()));
        let session = Session::new(&metadata, channel, closed, owner);
        self.register(&session).map_err(|err| Status::already_exists(err.to_string()))?;
        let open = Arc::clone(&self.open);
        self.open.tasks.spawn(async move {
            health::watch(&session.inner.channel, &session.inner.closed, &metadata).await;
            session.inner.closed.cancel();
            open.remove(&session);
        });
        Ok(Response::new(Box::pin(rx.map(Ok))))
    }

    fn register(&self, session: &Session) -> Result<(), SessionError> {
        let id = &session.inner.id;
        let mut sessions = self.open.sessions();
        if id.is_empty() || sessions.get(id).is_some_and(|old| !old.is_closed()) {
            return Err(SessionError::Id(id.clone()));
        }
        sessions.insert(id.clone(), session.clone());
        drop(sessions);
        self.open.arrived.notify_waiters();
        Ok(())
    }

    /// The session `id`, waiting up to `wait` for its arrival.
    ///
    /// BuildKit's clients may put a prefix and a colon before the id; it is ignored.
    ///
    /// # Errors
    /// It is not there in time.
    pub async fn get(&self, id: &str, wait: Duration) -> Result<Session, SessionError> {
        let id = id.split_once(':').map_or(id, |(_, rest)| if rest.is_empty() { id } else { rest });
        let search = async {
            loop {
                let arrived = self.open.arrived.notified();
                if let Some(session) = self.open.sessions().get(id).filter(|s| !s.is_closed()) {
                    return session.clone();
                }
                arrived.await;
            }
        };
        let found = tokio::time::timeout(wait, search).await;
        found.map_err(|_| SessionError::Unknown(id.to_owned()))
    }

    /// Closes all sessions and waits until their tasks are gone.
    pub async fn shutdown(&self) {
        self.open.shutdown.cancel();
        self.open.tasks.close();
        self.open.tasks.wait().await;
    }
}

/// The answer to `Control.Session`.
pub type SessionStream = BoxStream<'static, Result<BytesMessage, Status>>;

impl Open {
    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        // A map of whole entries is never left half changed.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a session, but not the one that its client may have opened again under the same id.
    fn remove(&self, session: &Session) {
        let mut sessions = self.sessions();
        if sessions.get(session.id()).is_some_and(|open| Arc::ptr_eq(&open.inner, &session.inner)) {
            sessions.remove(session.id());
        }
    }
}

impl Session {
    fn new(metadata: &MetadataMap, channel: Channel, closed: CancellationToken, owner: String) -> Self {
        let text = |name| metadata.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let methods = metadata.get_all(HEADER_METHOD).iter();
        let inner = Inner {
            id: text(HEADER_ID),
            name: text(HEADER_NAME),
            shared_key: text(HEADER_SHARED_KEY),
            owner,
            methods: methods.filter_map(|m| m.to_str().ok()).map(str::to_ascii_lowercase).collect(),
            channel,
            closed,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The id that the client chose.
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// What the client calls what it builds; may be empty.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What tells that two sessions' local sources are the same; may be empty.
    pub fn shared_key(&self) -> &str {
        &self.inner.shared_key
    }

    /// Who opened it, as far as that is known.
    pub fn owner(&self) -> &str {
        &self.inner.owner
    }

    /// Whether the client serves a method, written `/service/Method`; case does not matter.
    pub fn supports(&self, method: &str) -> bool {
        self.inner.methods.contains(&method.to_ascii_lowercase())
    }

    /// Whether the client is gone.
    pub fn is_closed(&self) -> bool {
        self.inner.closed.is_cancelled()
    }

    /// Completes when the client is gone.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        self.inner.closed.clone().cancelled_owned()
    }

    pub(super) fn channel(&self) -> Channel {
        self.inner.channel.clone()
    }
}

#[cfg(test)]
mod tests {
    use tonic::transport::Endpoint;

    use super::*;

    fn session(id: &str) -> Session {
        let mut metadata = MetadataMap::new();
        metadata.insert(HEADER_ID, id.parse().unwrap());
        let channel = Endpoint::from_static("http://session").connect_lazy();
        Session::new(&metadata, channel, CancellationToken::new(), String::new())
    }

    #[tokio::test]
    async fn a_session_that_is_opened_again_outlives_the_old_one() {
        let manager = SessionManager::new();
        let (old, new) = (session("s"), session("s"));
        manager.register(&old).unwrap();
        assert!(manager.register(&new).is_err(), "it is open");
        old.inner.closed.cancel();
        manager.register(&new).unwrap();
        manager.open.remove(&old);
        let found = manager.get("s", Duration::ZERO).await.unwrap();
        assert!(Arc::ptr_eq(&found.inner, &new.inner));
    }
}
