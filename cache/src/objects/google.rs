//! Buckets of Google Cloud Storage, and who we are there.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use opendal::services::Gcs;
use serde_json::{Map, Value};

use crate::registry::Secret;

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoogleBucket {
    /// Its name.
    pub bucket: String,
    /// The service's URL; none is Google's.
    pub endpoint: Option<String>,
    /// Who we are.
    pub credential: GoogleCredential,
}

/// Who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GoogleCredential {
    /// Whom the process's environment, its configuration files or its machine name.
    Environment,
    /// Nobody: requests are not signed.
    Anonymous,
    /// Who has an OAuth token.
    Token(Secret),
    /// Whom a credentials file names.
    File(GoogleCredentialFile),
}

/// The text of a credentials file, as [`GoogleCredential::from_json`] takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoogleCredentialFile(Secret);

/// A credentials file that is not taken. No variant holds what it says.
#[derive(Debug, thiserror::Error)]
pub enum GoogleCredentialError {
    /// It is none.
    #[error("it is no credentials file in JSON")]
    Malformed,
    /// It would have this process read its own files or environment, or run something, for whoever wrote the file.
    #[error(
        "a credentials file of type `external_account` is taken only with a `credential_source.url`, and without variables"
    )]
    ReadsHere,
    /// Of another type.
    #[error(
        "only credentials files of the types `service_account`, `authorized_user` and `external_account` are taken"
    )]
    Kind,
}

impl GoogleCredential {
    /// Takes a credentials file that somebody else wrote.
    ///
    /// # Errors
    /// One that is malformed, or that leads to what this machine has.
    pub fn from_json(text: &str) -> Result<Self, GoogleCredentialError> {
        let file: Map<String, Value> =
            serde_json::from_str(text).map_err(|_| GoogleCredentialError::Malformed)?;
        // As it was understood here, so that nobody understands it in another way.
        let text = Value::from(file.clone()).to_string();
        match file.get("type").and_then(Value::as_str) {
            Some("service_account" | "authorized_user") => {}
            // What a job of another platform proves itself by.
            Some("external_account") => {
                let source = file.get("credential_source").and_then(Value::as_object);
                let plain = |name: &String| matches!(name.as_str(), "url" | "headers" | "format");
                let from_url =
                    |source: &Map<String, Value>| source.contains_key("url") && source.keys().all(plain);
                if !source.is_some_and(from_url) || text.contains("${") {
                    return Err(GoogleCredentialError::ReadsHere);
                }
            }
            _ => return Err(GoogleCredentialError::Kind),
        }
        Ok(Self::File(GoogleCredentialFile(Secret::new(text))))
    }
}

impl GoogleBucket {
    pub(super) fn builder(&self) -> Gcs {
        let mut builder = Gcs::default().bucket(&self.bucket);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.endpoint(endpoint);
        }
        match &self.credential {
            GoogleCredential::Environment => builder,
            GoogleCredential::Anonymous => builder.skip_signature(),
            GoogleCredential::Token(token) => builder.token(token.expose().to_owned()),
            GoogleCredential::File(GoogleCredentialFile(text)) => {
                builder.credential(&STANDARD.encode(text.expose()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_lead_elsewhere_only() {
        let external =
            |source: &str| format!(r#"{{"type":"external_account","credential_source":{source}}}"#);
        for (text, want) in [
            (r#"{"type":"service_account","private_key":"geheim"}"#.to_owned(), None),
            (r#"{"type":"authorized_user","refresh_token":"geheim"}"#.to_owned(), None),
            (external(r#"{"url":"https://h","headers":{},"format":{"type":"json"}}"#), None),
            (external(r#"{"file":"/etc/shadow"}"#), Some("taken only with")),
            (external(r#"{"url":"https://h/\u0024{HOME}"}"#), Some("without variables")),
            (external(r#"{"url":"https://h","file":"/etc/shadow"}"#), Some("taken only with")),
            (external(r#"{"executable":{"command":"sh"}}"#), Some("taken only with")),
            (r#"{"type":"external_account"}"#.to_owned(), Some("taken only with")),
            (
                r#"{"type":"impersonated_service_account"}"#.to_owned(),
                Some("only credentials files of the types"),
            ),
            ("geheim".to_owned(), Some("it is no credentials file in JSON")),
            ("{}".to_owned(), Some("only credentials files of the types")),
        ] {
            match (GoogleCredential::from_json(&text), want) {
                (Ok(taken), None) => assert!(!format!("{taken:?}").contains("geheim"), "{taken:?}"),
                (Err(error), Some(want)) => assert!(error.to_string().contains(want), "{text}: {error}"),
                (taken, _) => panic!("{text}: {taken:?}"),
            }
        }
    }
}
