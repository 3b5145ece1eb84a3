//! Notices clients that are gone without saying so.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const HEADER_TIMEOUT: &str = "x-buildkit-session-health-custom-timeout";

/// How often the client is asked, how long it may take, and how often it may fail in a row (BuildKit's figures).
struct Limits {
    interval: Duration,
    timeout: Duration,
    failures: u32,
}

impl Limits {
    /// The client may ask, in milliseconds, for one strict limit; less than a second counts as one.
    fn new(metadata: &MetadataMap) -> Self {
        let custom = metadata.get(HEADER_TIMEOUT).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        match custom.filter(|&ms| ms > 0) {
            Some(ms) => {
                let limit = Duration::from_millis(ms).max(Duration::from_secs(1));
                Self { interval: limit, timeout: limit, failures: 1 }
            }
            None => Self { interval: Duration::from_secs(5), timeout: Duration::from_secs(15), failures: 2 },
        }
    }
}

/// Returns when the session is closed or its client no longer answers.
pub(super) async fn watch(channel: &Channel, closed: &CancellationToken, metadata: &MetadataMap) {
    let limits = Limits::new(metadata);
    let mut client = HealthClient::new(channel.clone());
    let checks = async {
        // The first check at once: it connects the tunnel, so that its end is noticed even when no call is ever made.
        let mut failed = 0;
        loop {
            let check = client.check(HealthCheckRequest::default());
            match tokio::time::timeout(limits.timeout, check).await {
                Ok(Ok(_)) => failed = 0,
                Ok(Err(_)) | Err(_) => failed += 1,
            }
            if failed == limits.failures {
                return;
            }
            tokio::time::sleep(limits.interval).await;
        }
    };
    tokio::select! {
        () = closed.cancelled() => {}
        () = checks => tracing::warn!("session client does not answer health checks"),
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use tonic::transport::Endpoint;

    use super::*;

    #[tokio::test]
    async fn a_client_that_never_answers_is_noticed() {
        let (ours, _silent) = tokio::io::duplex(1 << 16);
        let ours = std::sync::Mutex::new(Some(TokioIo::new(ours)));
        let connector = tower::service_fn(move |_| {
            let io = ours.lock().unwrap().take().ok_or(std::io::ErrorKind::BrokenPipe);
            async move { io.map_err(std::io::Error::from) }
        });
        let channel = Endpoint::from_static("http://session").connect_with_connector_lazy(connector);
        let mut metadata = MetadataMap::new();
        metadata.insert(HEADER_TIMEOUT, "1".parse().unwrap());
        let open = CancellationToken::new();
        let watched = watch(&channel, &open, &metadata);
        tokio::time::timeout(Duration::from_secs(30), watched).await.unwrap();
    }
}
