//! When to try again, and how long to wait before.

use std::future::Future;
use std::time::Duration;

use super::Error;
use super::endpoint::Endpoint;

/// How often a mirror is asked before the next place is.
const MIRROR_ATTEMPTS: u32 = 2;

/// Time limits and retries. The defaults suit registries on the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// How often a request is made at most, the first time included.
    pub attempts: u32,
    /// The wait before the second attempt; doubled for each further one.
    pub backoff: Duration,
    /// The longest wait, also where a registry asks for more.
    pub max_backoff: Duration,
    /// For a connection, with TLS.
    pub connect_timeout: Duration,
    /// Without a byte from the registry. An upload may be silent ten times as long, while it is stored.
    pub stall_timeout: Duration,
    /// How long a mirror that cannot be reached is left out.
    pub mirror_pause: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            attempts: 5,
            backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            mirror_pause: Duration::from_secs(60),
        }
    }
}

impl Tuning {
    /// The limits for requests to `endpoint`: behind a mirror others can be asked, which is quicker than to wait for it.
    pub(super) fn at(&self, endpoint: &Endpoint) -> Self {
        let attempts = if endpoint.mirror_of.is_some() { MIRROR_ATTEMPTS } else { self.attempts };
        Self { attempts: attempts.min(self.attempts), ..*self }
    }

    /// The wait before attempt `number` (the second is 1) after `error`; none if it is not to be made.
    pub(super) fn wait(&self, number: u32, error: &Error) -> Option<Duration> {
        if number >= self.attempts || !error.is_transient() {
            return None;
        }
        let doubled = self.backoff.saturating_mul(1 << (number - 1).min(16));
        Some(error.retry_after().unwrap_or(doubled).min(self.max_backoff))
    }

    /// Runs `operation` until it succeeds or is not worth trying again.
    pub(super) async fn retry<T, F>(&self, mut operation: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut number = 1;
        loop {
            let error = match operation().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let Some(wait) = self.wait(number, &error) else { return Err(error) };
            tracing::debug!(number, ?wait, %error, "registry request is made again");
            tokio::time::sleep(wait).await;
            number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit() {
        let tuning = Tuning { max_backoff: Duration::from_secs(3), ..Tuning::default() };
        let broken = Error::Status { host: "h".into(), status: 503, message: String::new() };
        let waits: Vec<_> = (1..=5).map(|n| tuning.wait(n, &broken).map(|w| w.as_millis())).collect();
        assert_eq!(waits, [Some(500), Some(1000), Some(2000), Some(3000), None]);
        let limited =
            |secs| Error::RateLimited { host: "h".into(), retry_after: Some(Duration::from_secs(secs)) };
        assert_eq!(tuning.wait(1, &limited(1)), Some(Duration::from_secs(1)));
        assert_eq!(tuning.wait(1, &limited(900)), Some(Duration::from_secs(3)));
        let gone = Error::ImageNotFound { reference: "r".into() };
        assert_eq!(tuning.wait(1, &gone), None);
        let refused =
            |code: &str| Error::Status { host: "h".into(), status: 400, message: format!("no ({code})") };
        assert!(tuning.wait(1, &refused("DIGEST_INVALID")).is_some());
        assert_eq!(tuning.wait(1, &refused("NAME_INVALID")), None);
    }
}
