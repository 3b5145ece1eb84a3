//! Who we are to a registry.

use std::fmt;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, only to be sent.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What proves who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// User and password.
    Password {
        /// The user's name.
        username: String,
        /// The password, or a personal access token.
        password: Secret,
    },
    /// An OAuth2 refresh token, which the token server takes for an access token.
    IdentityToken(Secret),
}

impl Credential {
    /// What BuildKit's session protocol sends: a secret without a user is an identity token, nothing is nobody.
    pub fn from_pair(username: &str, secret: &str) -> Option<Self> {
        match (username, secret) {
            (_, "") => None,
            ("", token) => Some(Self::IdentityToken(Secret::new(token))),
            (username, password) => {
                Some(Self::Password { username: username.to_owned(), password: Secret::new(password) })
            }
        }
    }
}

/// A token as a registry asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenAsk<'a> {
    /// The registry, with port, `registry-1.docker.io` for Docker Hub.
    pub host: &'a str,
    /// The token server's URL.
    pub realm: &'a str,
    /// What the registry is called there.
    pub service: Option<&'a str>,
    /// What the token is to allow, such as `repository:library/busybox:pull`.
    pub scopes: &'a [String],
}

/// A token from a token server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedToken {
    /// The token.
    pub token: Secret,
    /// How long it is valid from now on; zero where that is not known.
    pub valid: Duration,
}

/// Where credentials come from: the client's session, or this machine's Docker configuration.
#[async_trait]
pub trait Credentials: Send + Sync + fmt::Debug {
    /// A token that whoever has the credentials fetched, so that they stay there; none to use [`Self::lookup`].
    ///
    /// # Errors
    /// There are credentials for it, but no token could be had.
    async fn token(&self, _ask: &TokenAsk<'_>) -> Result<Option<IssuedToken>, CredentialsError> {
        Ok(None)
    }

    /// What is known for `host` (with port, `registry-1.docker.io` for Docker Hub); none to stay anonymous.
    ///
    /// # Errors
    /// There may be credentials, but they could not be had.
    async fn lookup(&self, host: &str) -> Result<Option<Credential>, CredentialsError>;
}

/// No credentials for anybody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

#[async_trait]
impl Credentials for Anonymous {
    async fn lookup(&self, _host: &str) -> Result<Option<Credential>, CredentialsError> {
        Ok(None)
    }
}

/// Why credentials could not be had. Never holds what a helper printed: it may be the secret.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// The Docker configuration cannot be read.
    #[error("cannot read `{path}`")]
    Config {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The Docker configuration, or a helper's answer, is malformed.
    #[error("{what} is malformed")]
    Malformed {
        /// The file or helper.
        what: String,
    },
    /// A credential helper failed.
    #[error("credential helper `{helper}` failed")]
    Helper {
        /// The program.
        helper: String,
    },
    /// Whoever has the credentials got no token for them.
    #[error("{reason}")]
    Token {
        /// Why.
        reason: String,
    },
    /// The session that has them is gone.
    #[error("the client's session cannot be asked: {reason}")]
    Session {
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        for credential in [Credential::from_pair("me", "canary"), Credential::from_pair("", "canary")] {
            assert!(!format!("{credential:?}").contains("canary"));
        }
        assert_eq!(Credential::from_pair("me", ""), None);
    }
}
