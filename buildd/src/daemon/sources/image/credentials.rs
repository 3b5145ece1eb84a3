//! Registry credentials from a build's sessions.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cache::registry::{Credential, Credentials, CredentialsError};
use solver::SessionGroup;

use crate::session::SessionManager;

/// Asks whichever of the sessions lives.
#[derive(Debug)]
pub(super) struct OfSessions {
    sessions: Arc<SessionManager>,
    group: SessionGroup,
}

impl OfSessions {
    pub(super) fn new(sessions: Arc<SessionManager>, group: SessionGroup) -> Self {
        Self { sessions, group }
    }
}

#[async_trait]
impl Credentials for OfSessions {
    async fn lookup(&self, host: &str) -> Result<Option<Credential>, CredentialsError> {
        for id in self.group.ids() {
            let Ok(session) = self.sessions.get(&id, Duration::ZERO).await else { continue };
            match session.credentials(host).await {
                Ok(Some(c)) => return Ok(Credential::from_pair(&c.username, &c.secret)),
                Ok(None) => {}
                Err(e) => return Err(CredentialsError::Session { reason: e.to_string() }),
            }
        }
        Ok(None)
    }
}
