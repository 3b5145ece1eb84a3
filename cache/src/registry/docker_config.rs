//! Credentials of this machine's user: `~/.docker/config.json` and its helpers.

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use docker_credential::{CredentialRetrievalError, DockerCredential};

use super::credentials::{Credential, Credentials, CredentialsError, Secret};

/// How Docker files the credentials of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// A Docker configuration file.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    path: PathBuf,
}

impl DockerConfig {
    /// The file at `path`; it need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`; none without a home.
    pub fn of_user() -> Option<Self> {
        let directory =
            std::env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker"));
        directory.or_else(home).map(|directory| Self::new(directory.join("config.json")))
    }

    /// Asks the file and its helpers. Blocks while a helper runs.
    ///
    /// # Errors
    /// The file is malformed or a helper failed; an absent file is no error.
    pub fn lookup_blocking(&self, host: &str) -> Result<Option<Credential>, CredentialsError> {
        let path = || self.path.display().to_string();
        let text = match fs_err::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CredentialsError::Config { path: path(), source }),
        };
        let key = match host {
            "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB_KEY,
            other => other,
        };
        match docker_credential::get_credential_from_reader(text.as_slice(), key) {
            Ok(DockerCredential::IdentityToken(token)) => Ok(Credential::from_pair("", &token)),
            Ok(DockerCredential::UsernamePassword(username, password)) => {
                Ok(Some(Credential::Password { username, password: Secret::new(password) }))
            }
            Err(error) => absent_or_failed(error, &path()),
        }
    }
}

#[async_trait]
impl Credentials for DockerConfig {
    async fn lookup(&self, host: &str) -> Result<Option<Credential>, CredentialsError> {
        let (config, host) = (self.clone(), host.to_owned());
        let blocking = tokio::task::spawn_blocking(move || config.lookup_blocking(&host));
        blocking
            .await
            .unwrap_or_else(|_| Err(CredentialsError::Helper { helper: "docker-credential".to_owned() }))
    }
}

fn absent_or_failed(
    error: CredentialRetrievalError,
    path: &str,
) -> Result<Option<Credential>, CredentialsError> {
    use CredentialRetrievalError as E;
    match error {
        E::NoCredentialConfigured | E::ConfigNotFound => Ok(None),
        // Helpers print this for hosts that they do not know, and fail.
        E::HelperFailure { stdout, stderr, .. } if [&stdout, &stderr].iter().any(|text| is_absent(text)) => {
            Ok(None)
        }
        E::HelperFailure { helper, .. } => Err(CredentialsError::Helper { helper }),
        E::HelperCommunicationError => {
            Err(CredentialsError::Helper { helper: "docker-credential".to_owned() })
        }
        E::MalformedHelperResponse => {
            Err(CredentialsError::Malformed { what: "the credential helper's answer".to_owned() })
        }
        E::CredentialDecodingError | E::CredentialMismatchError | E::ConfigReadError => {
            Err(CredentialsError::Malformed { what: format!("`{path}`") })
        }
    }
}

fn is_absent(text: &str) -> bool {
    text.contains("credentials not found") || text.contains("no credentials server URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(config: &str, host: &str) -> Result<Option<Credential>, CredentialsError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        fs_err::write(&path, config).unwrap();
        DockerConfig::new(path).lookup_blocking(host)
    }

    #[test]
    fn hosts_are_found() {
        let config = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"aHViOnB3"},
            "localhost:5000":{"auth":"bWU6YTpi"},
            "https://ghcr.io":{"auth":"Z2g6dA=="},
            "quay.io":{"identitytoken":"idt"},
            "empty.example":{}
        }}"#;
        let pair = Credential::from_pair;
        let cases = [
            ("registry-1.docker.io", pair("hub", "pw")),
            ("docker.io", pair("hub", "pw")),
            ("localhost:5000", pair("me", "a:b")),
            ("localhost:5001", None),
            ("ghcr.io", pair("gh", "t")),
            ("quay.io", pair("", "idt")),
            ("empty.example", None),
            ("io", None),
        ];
        for (host, expected) in cases {
            assert_eq!(lookup(config, host).unwrap(), expected, "{host}");
        }
    }

    #[test]
    fn damage_is_told_and_absence_is_not() {
        assert!(matches!(lookup("{", "a.b"), Err(CredentialsError::Malformed { .. })));
        assert!(matches!(
            lookup(r#"{"auths":{"a.b":{"auth":"!"}}}"#, "a.b"),
            Err(CredentialsError::Malformed { .. })
        ));
        assert!(lookup("{}", "a.b").unwrap().is_none());
        assert!(DockerConfig::new("/nonexistent/config.json").lookup_blocking("a.b").unwrap().is_none());
        let missing_helper = r#"{"credHelpers":{"a.b":"rbuild-test-does-not-exist"}}"#;
        assert!(matches!(lookup(missing_helper, "a.b"), Err(CredentialsError::Helper { .. })));
    }
}
