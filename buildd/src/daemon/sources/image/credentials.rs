//! Registry credentials from a build's sessions: tokens that the client fetches, else its passwords.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cache::registry::{Credential, Credentials, CredentialsError, IssuedToken, TokenAsk};
use solver::SessionGroup;

use super::tokens::Tokens;
use crate::session::SessionManager;

/// Asks whichever of the sessions lives.
#[derive(Debug)]
pub(super) struct OfSessions {
    pub(super) sessions: Arc<SessionManager>,
    pub(super) group: SessionGroup,
    pub(super) tokens: Arc<Tokens>,
}

#[async_trait]
impl Credentials for OfSessions {
    async fn token(&self, ask: &TokenAsk<'_>) -> Result<Option<IssuedToken>, CredentialsError> {
        for id in self.group.ids() {
            let Ok(session) = self.sessions.get(&id, Duration::ZERO).await else { continue };
            match self.tokens.of(&session, ask).await {
                Ok(Some(token)) => return Ok(Some(token)),
                Ok(None) => {}
                Err(e) if e.is_absence() => {}
                Err(e) => return Err(CredentialsError::Token { reason: e.to_string() }),
            }
        }
        Ok(None)
    }

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
