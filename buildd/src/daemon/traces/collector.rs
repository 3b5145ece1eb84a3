//! The collector that spans are sent on to, as OpenTelemetry's environment variables name it
//! (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prost::Message as _;
use proto::otlp::collector::trace::v1::ExportTraceServiceRequest;
use proto::otlp::collector::trace::v1::trace_service_client::TraceServiceClient;
use proto::otlp::trace::v1::ResourceSpans;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Extensions, Request};

use crate::purl;

/// So many messages may wait; what comes then is lost.
const WAITING: usize = 1000;
/// How long the daemon waits for the collector when it leaves.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a message may take, if the environment says nothing else.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the environment says of the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct Target {
    protocol: Protocol,
    url: String,
    headers: Vec<(String, String)>,
    timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Grpc,
    Http,
}

/// The environment asks for what cannot be.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// An exporter or a protocol that nobody here speaks.
    #[error("unsupported `{value}` in `{name}`")]
    Unsupported {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A header or a time that is none.
    #[error("malformed `{0}`")]
    Malformed(&'static str),
    /// An address that is none.
    #[error("cannot send traces to `{url}`")]
    Url {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Target {
    /// By the variables that `get` gives; `None` where no traces are to be sent.
    ///
    /// # Errors
    /// Values that mean nothing here.
    pub(in crate::daemon) fn of_environment(
        get: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, CollectorError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        // Each setting has a variable for traces alone, which counts more.
        let setting = |name: &str| {
            get(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
                .or_else(|| get(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        match get("OTEL_TRACES_EXPORTER").as_deref() {
            _ if get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) => {
                return Ok(None);
            }
            Some("none") => return Ok(None),
            None if setting("ENDPOINT").is_none() => return Ok(None),
            None | Some("otlp") => {}
            Some(other) => {
                return Err(CollectorError::Unsupported {
                    name: "OTEL_TRACES_EXPORTER",
                    value: other.to_owned(),
                });
            }
        }
        let protocol = match setting("PROTOCOL").as_deref() {
            None | Some("grpc") => Protocol::Grpc,
            Some("http/protobuf") => Protocol::Http,
            Some(other) => {
                return Err(CollectorError::Unsupported {
                    name: "OTEL_EXPORTER_OTLP_PROTOCOL",
                    value: other.to_owned(),
                });
            }
        };
        let url = match (get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), get("OTEL_EXPORTER_OTLP_ENDPOINT")) {
            (Some(url), _) => url,
            (None, Some(url)) if protocol == Protocol::Http => {
                format!("{}/v1/traces", url.trim_end_matches('/'))
            }
            (None, Some(url)) => url,
            (None, None) if protocol == Protocol::Http => "http://localhost:4318/v1/traces".to_owned(),
            (None, None) => "http://localhost:4317".to_owned(),
        };
        let insecure = setting("INSECURE").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let url = match url.contains("://") {
            true => url,
            false => format!("{}://{url}", if insecure { "http" } else { "https" }),
        };
        let malformed = CollectorError::Malformed;
        let headers = setting("HEADERS").unwrap_or_default();
        let headers = headers.split(',').filter(|header| !header.trim().is_empty()).map(|header| {
            let (name, value) = header.split_once('=')?;
            Some((name.trim().to_lowercase(), purl::unescape(value.trim())?))
        });
        let headers = headers.collect::<Option<_>>().ok_or(malformed("OTEL_EXPORTER_OTLP_HEADERS"))?;
        let timeout = match setting("TIMEOUT").map(|value| value.parse()) {
            None => TIMEOUT,
            Some(Ok(milliseconds)) => Duration::from_millis(milliseconds),
            Some(Err(_)) => return Err(malformed("OTEL_EXPORTER_OTLP_TIMEOUT")),
        };
        Ok(Some(Self { protocol, url, headers, timeout }))
    }
}

/// Sends spans, one message after the other, from a task of its own.
#[derive(Debug)]
pub(in crate::daemon) struct Collector {
    work: Mutex<Option<Work>>,
}

/// The task that sends, and its end of the queue.
#[derive(Debug)]
struct Work {
    queue: mpsc::Sender<Vec<ResourceSpans>>,
    task: JoinHandle<()>,
}

impl Collector {
    /// Begins to send to `target`, which need not be there.
    ///
    /// # Errors
    /// An address or headers that are none.
    pub(in crate::daemon) fn start(target: Target) -> Result<Self, CollectorError> {
        let sender = Sender::new(&target)?;
        let (queue, mut waiting) = mpsc::channel(WAITING);
        let task = tokio::spawn(async move {
            while let Some(spans) = waiting.recv().await {
                let sent = tokio::time::timeout(target.timeout, sender.send(spans)).await;
                match sent.map_err(|_| format!("no answer within {:?}", target.timeout)) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) | Err(error) => {
                        tracing::warn!("traces are lost: `{}`: {error}", target.url);
                    }
                }
            }
        });
        Ok(Self { work: Mutex::new(Some(Work { queue, task })) })
    }

    /// Sends spans in the background.
    pub(super) fn send(&self, spans: Vec<ResourceSpans>) {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if work.as_ref().is_some_and(|work| work.queue.try_send(spans).is_err()) {
            tracing::warn!("traces are lost: the collector is too slow");
        }
    }

    /// Sends what waits, if that does not take long, and ends.
    pub(super) async fn shutdown(&self) {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Work { queue, mut task }) = work {
            drop(queue);
            if tokio::time::timeout(FAREWELL, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

/// How spans are sent.
enum Sender {
    Grpc { client: TraceServiceClient<Channel>, headers: MetadataMap },
    Http { client: reqwest::Client, url: String, headers: HeaderMap },
}

impl Sender {
    fn new(target: &Target) -> Result<Self, CollectorError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| CollectorError::Url {
            url: target.url.clone(),
            source,
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &target.headers {
            let malformed = || CollectorError::Malformed("OTEL_EXPORTER_OTLP_HEADERS");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| malformed())?;
            let mut value = HeaderValue::from_str(value).map_err(|_| malformed())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let url = reqwest::Url::parse(&target.url).map_err(|e| failed(e.into()))?;
        if target.protocol == Protocol::Http {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            let client = reqwest::Client::builder().build().map_err(|e| failed(e.into()))?;
            return Ok(Self::Http { client, url: url.into(), headers });
        }
        let mut endpoint = Endpoint::from_shared(target.url.clone()).map_err(|e| failed(e.into()))?;
        if url.scheme() == "https" {
            let tls = ClientTlsConfig::new().with_native_roots();
            endpoint = endpoint.tls_config(tls).map_err(|e| failed(e.into()))?;
        }
        let client = TraceServiceClient::new(endpoint.connect_lazy());
        Ok(Self::Grpc { client, headers: MetadataMap::from_headers(headers) })
    }

    async fn send(&self, resource_spans: Vec<ResourceSpans>) -> Result<(), String> {
        let request = ExportTraceServiceRequest { resource_spans };
        match self {
            Self::Grpc { client, headers } => {
                let request = Request::from_parts(headers.clone(), Extensions::default(), request);
                let answer = client.clone().export(request).await;
                answer.map(drop).map_err(|status| format!("{:?}: {}", status.code(), status.message()))
            }
            Self::Http { client, url, headers } => {
                let request = client.post(url).headers(headers.clone()).body(request.encode_to_vec());
                let answer = request.send().await.map_err(|error| crate::causes::causes(&error))?;
                match answer.status() {
                    status if status.is_success() => Ok(()),
                    status => Err(format!("status {status}")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(variables: &[(&str, &str)]) -> Result<Option<Target>, String> {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Target::of_environment(get).map_err(|error| error.to_string())
    }

    #[test]
    fn where_traces_go() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:1/");
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        for (variables, url) in [
            (&[][..], None),
            (&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], None),
            (&[endpoint, ("OTEL_SDK_DISABLED", "true")], None),
            (&[("OTEL_TRACES_EXPORTER", "otlp")], Some("http://localhost:4317")),
            (&[("OTEL_TRACES_EXPORTER", "otlp"), http], Some("http://localhost:4318/v1/traces")),
            (&[endpoint], Some("http://h:1/")),
            (&[endpoint, http], Some("http://h:1/v1/traces")),
            (&[endpoint, http, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/x")], Some("http://t/x")),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "h:1")], Some("https://h:1")),
        ] {
            let found = target(variables).unwrap().map(|target| target.url);
            assert_eq!(found.as_deref(), url, "{variables:?}");
        }
        let found = target(&[endpoint, ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20x,a=b")]);
        let headers = found.unwrap().unwrap().headers;
        assert_eq!(headers, [("authorization".into(), "Bearer x".into()), ("a".into(), "b".into())]);
    }

    #[test]
    fn what_the_environment_cannot_mean() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:1/");
        for (name, value) in [
            ("OTEL_TRACES_EXPORTER", "jaeger"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%2"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ] {
            let error = target(&[endpoint, (name, value)]).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
        let bad = target(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://")]).unwrap().unwrap();
        assert!(Sender::new(&bad).is_err());
    }
}
