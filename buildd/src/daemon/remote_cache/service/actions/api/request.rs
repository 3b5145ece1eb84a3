//! One request, made again while the service wants it later.

use std::time::{Duration, Instant, SystemTime};

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;

use crate::daemon::remote_cache::service::actions::ActionsError;

/// The wait before the second attempt where the service does not say how long; doubled for each further one.
const BACKOFF: Duration = Duration::from_secs(1);
/// The shortest wait where it says how long, which may be not at all.
const MIN_WAIT: Duration = Duration::from_millis(200);
/// The longest wait that is ours.
const MAX_BACKOFF: Duration = Duration::from_secs(90);
/// How often a request is made that the service cannot answer, or that does not reach it.
const ATTEMPTS: u32 = 3;
/// The most of an answer that is read, in bytes: a page of a list is the longest.
const LIMIT: usize = 1 << 20;
/// The most of the service's own words that is shown, in characters.
const MESSAGE_LIMIT: usize = 300;

/// What is asked.
pub(super) struct Wish<'a> {
    /// What it is called in errors.
    pub(super) what: &'a str,
    pub(super) method: Method,
    /// May hold a signature: it is never shown.
    pub(super) url: &'a str,
    /// How long it is tried.
    pub(super) timeout: Duration,
}

/// Adds headers and body; called anew for each attempt.
pub(super) type Prepare<'a> = dyn Fn(RequestBuilder) -> RequestBuilder + Send + Sync + 'a;

impl Wish<'_> {
    /// The whole answer.
    ///
    /// # Errors
    /// As [`Self::send`]; an answer that is too long.
    pub(super) async fn answer(&self, http: &Client, prepare: &Prepare<'_>) -> Result<Vec<u8>, ActionsError> {
        let response = self.send(http, prepare).await?;
        self.body(response).await
    }

    /// The answer's beginning, which tells of success.
    ///
    /// # Errors
    /// Any other status, a service that cannot be reached, or that wants all later than is to be waited.
    pub(super) async fn send(&self, http: &Client, prepare: &Prepare<'_>) -> Result<Response, ActionsError> {
        let (begun, mut number) = (Instant::now(), 1);
        let mut backoff = BACKOFF;
        loop {
            let sent = prepare(http.request(self.method.clone(), self.url)).send().await;
            let (error, wait) = match sent {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                    let wait = retry_after(&response).map_or(backoff, |wait| wait.max(MIN_WAIT));
                    (ActionsError::RateLimited { what: self.what.to_owned() }, Some(wait))
                }
                Ok(response) => {
                    let again = response.status().is_server_error() && number < ATTEMPTS;
                    (self.status(response).await, again.then_some(backoff))
                }
                Err(error) => (unreachable(self.what, error), (number < ATTEMPTS).then_some(backoff)),
            };
            let left = self.timeout.saturating_sub(begun.elapsed());
            let Some(wait) = wait.filter(|wait| *wait <= left) else { return Err(error) };
            tracing::debug!(what = self.what, ?wait, "github actions cache is asked again: {error}");
            tokio::time::sleep(wait).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
            number += 1;
        }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, ActionsError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| unreachable(self.what, e))? {
            if bytes.len() + chunk.len() > LIMIT {
                return Err(malformed(self.what, "it is too long"));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn status(&self, response: Response) -> ActionsError {
        let status = response.status();
        let body = self.body(response).await.unwrap_or_default();
        let reason = words(&body).unwrap_or_else(|| status.canonical_reason().unwrap_or_default().to_owned());
        ActionsError::Status { what: self.what.to_owned(), status: status.as_u16(), reason }
    }
}

/// How long the service wants to be left alone: in seconds, or until when.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    Some(until.duration_since(SystemTime::now()).unwrap_or_default())
}

/// The service's own words, in any of its forms.
fn words(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Said {
        #[serde(default, alias = "msg")]
        message: String,
        #[serde(default, alias = "code")]
        type_key: String,
    }
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let said: Said = serde_json::from_slice(body).ok()?;
    let text = match (said.message.is_empty(), said.type_key.is_empty()) {
        (true, true) => return None,
        (false, true) => said.message,
        (true, false) => said.type_key,
        (false, false) => format!("{} ({})", said.message, said.type_key),
    };
    Some(text.chars().filter(|c| !c.is_control()).take(MESSAGE_LIMIT).collect())
}

/// An answer that means nothing.
pub(super) fn malformed(what: &str, reason: &str) -> ActionsError {
    ActionsError::Protocol { what: what.to_owned(), reason: reason.to_owned() }
}

/// A service that cannot be reached; its URL is not told.
pub(super) fn unreachable(what: &str, error: reqwest::Error) -> ActionsError {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    ActionsError::Unreachable { what: what.to_owned(), reason: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_service() {
        for (body, want) in [
            (
                "\u{feff}{\"message\":\"Cache already exists.\",\"typeKey\":\"ArtifactCacheItemAlreadyExistsException\"}",
                Some("Cache already exists. (ArtifactCacheItemAlreadyExistsException)"),
            ),
            (r#"{"code":"already_exists","msg":"no"}"#, Some("no (already_exists)")),
            (r#"{"code":"already_exists"}"#, Some("already_exists")),
            ("{}", None),
            ("<html>", None),
        ] {
            assert_eq!(words(body.as_bytes()).as_deref(), want, "{body}");
        }
    }
}
