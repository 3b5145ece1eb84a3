//! The addresses at which a registry can be asked, and the connections to them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use reqwest::Url;
use reqwest::redirect::Policy;
use solver::Digest;

use super::host::{HostConfig, is_loopback};
use super::{Error, Tuning};

/// Docker Hub's name and the host that serves it.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");
/// Unused connections kept per host. More would cost memory in an idle daemon.
const IDLE_CONNECTIONS: usize = 4;
/// HTTP/2 windows in bytes: enough for a fast link, small enough for several layers at once.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// How many faults of mirrors are remembered; beyond it all are forgotten. Bounds the memory that a bad mirror costs.
const MAX_DISTRUSTED: usize = 4096;

/// One address of a registry.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// Host with port.
    pub(super) host: String,
    /// `http` or `https`.
    pub(super) scheme: &'static str,
    /// What precedes repository paths there, with a slash at its end, or nothing.
    pub(super) prefix: String,
    /// The registry that this one stands for, if it is a mirror.
    pub(super) mirror_of: Option<String>,
    /// Whether another scheme of the same host follows in the list.
    pub(super) has_fallback: bool,
    /// The connections.
    pub(super) http: reqwest::Client,
}

impl Endpoint {
    /// The URL of something in a repository: `manifests/latest`, `blobs/uploads/`.
    pub(super) fn url(&self, path: &str, what: &str) -> Result<Url, Error> {
        let text = format!("{}://{}/v2/{}{path}/{what}", self.scheme, self.host, self.prefix);
        let mut url: Url = text.parse().map_err(|_| Error::Config {
            host: self.host.clone(),
            reason: "this is no host name".to_owned(),
        })?;
        if let Some(origin) = &self.mirror_of {
            url.query_pairs_mut().append_pair("ns", origin);
        }
        Ok(url)
    }

    /// The scope of a token for this repository.
    pub(super) fn scope(&self, path: &str, actions: &str) -> String {
        format!("repository:{}{path}:{actions}", self.prefix)
    }

    /// Whether both are the same address.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.host, self.scheme, &self.prefix) == (&other.host, other.scheme, &other.prefix)
    }

    /// Whether a URL is at this endpoint, so that its credentials may be sent there.
    pub(super) fn owns(&self, url: &Url) -> bool {
        let own = format!("{}://{}/", self.scheme, self.host).parse::<Url>();
        own.is_ok_and(|own| own.origin() == url.origin())
    }
}

/// Configuration and connections, shared by all builds.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) hosts: BTreeMap<String, HostConfig>,
    pub(super) tuning: Tuning,
    clients: Mutex<HashMap<Kind, reqwest::Client>>,
    /// Endpoints that could not be reached, and when.
    down: Mutex<HashMap<String, Instant>>,
    /// Mirrors that sent wrong bytes, each with the blob.
    distrusted: Mutex<HashSet<(String, Digest)>>,
}

/// Which connections may be shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Plain HTTP on loopback: never through a proxy.
    Loopback,
    /// Plain HTTP.
    Plain,
    /// HTTPS with the system's authorities.
    Tls,
    /// HTTPS as configured for a host.
    TlsOf(String),
}

impl Transport {
    pub(super) fn new(hosts: BTreeMap<String, HostConfig>, tuning: Tuning) -> Self {
        // Fails when the process has chosen a provider already, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            hosts,
            tuning,
            clients: Mutex::default(),
            down: Mutex::default(),
            distrusted: Mutex::default(),
        }
    }

    /// Where to read from `domain`, in order: mirrors that are not known to be down, then the registry itself.
    pub(super) fn for_pull(&self, domain: &str) -> Result<Vec<Endpoint>, Error> {
        let mut endpoints = Vec::new();
        for mirror in self.config(domain).mirrors {
            let address = mirror.split_once("://").map_or(mirror.as_str(), |(_, rest)| rest);
            let (host, prefix) = address.trim_end_matches('/').split_once('/').unwrap_or((address, ""));
            let host = host.trim_end_matches('/');
            let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
            for mut endpoint in self.schemes(host)? {
                endpoint.prefix.clone_from(&prefix);
                endpoint.mirror_of = Some(domain.to_owned());
                if !self.is_down(&endpoint) {
                    endpoints.push(endpoint);
                }
            }
        }
        endpoints.extend(self.for_push(domain)?);
        Ok(endpoints)
    }

    /// Where to read a blob of `domain` from: as [`Self::for_pull`], without the mirrors that sent wrong bytes for it.
    pub(super) fn for_blob(&self, domain: &str, digest: &Digest) -> Result<Vec<Endpoint>, Error> {
        let mut endpoints = self.for_pull(domain)?;
        let distrusted = self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        endpoints.retain(|e| e.mirror_of.is_none() || !distrusted.contains(&(key(e), *digest)));
        Ok(endpoints)
    }

    /// Where to write to `domain`: the registry itself, by one or two schemes.
    pub(super) fn for_push(&self, domain: &str) -> Result<Vec<Endpoint>, Error> {
        let host = if domain == DOCKER_HUB.0 { DOCKER_HUB.1 } else { domain };
        self.schemes(host)
    }

    /// The token servers that may have a host's credentials although they are elsewhere.
    pub(super) fn token_hosts(&self, host: &str) -> Vec<String> {
        self.config(host).token_hosts
    }

    /// The connections for a URL off the registry: a redirect, a token server, a foreign layer.
    pub(super) fn http_for(&self, url: &Url) -> Result<reqwest::Client, Error> {
        let host = authority(url);
        match url.scheme() {
            "http" => self.client(plain_kind(&host), &host),
            _ => self.client(self.tls_kind(&host), &host),
        }
    }

    /// Notes that a mirror sent wrong bytes for a blob, so that it is not asked for it again.
    pub(super) fn distrust(&self, mirror: &Endpoint, digest: &Digest) {
        let mut distrusted = self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        if distrusted.len() >= MAX_DISTRUSTED {
            distrusted.clear();
        }
        distrusted.insert((key(mirror), *digest));
    }

    /// Whether the endpoint that follows `endpoint` may be asked after this failure. One that could not be reached is
    /// noted as down.
    pub(super) fn may_pass_on(&self, endpoint: &Endpoint, error: &Error) -> bool {
        let is_mirror = endpoint.mirror_of.is_some();
        if error.is_unreachable() && (is_mirror || endpoint.has_fallback) {
            self.mark_down(endpoint);
        }
        is_mirror || (endpoint.has_fallback && error.is_unreachable())
    }

    /// Notes that an endpoint could not be reached, so that the next requests need not wait for it.
    fn mark_down(&self, endpoint: &Endpoint) {
        let mut down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.insert(key(endpoint), Instant::now());
    }

    fn is_down(&self, endpoint: &Endpoint) -> bool {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        down.get(&key(endpoint)).is_some_and(|since| since.elapsed() < self.tuning.mirror_pause)
    }

    /// The configuration of a host, of Docker Hub under either name.
    fn config(&self, host: &str) -> HostConfig {
        let other = if host == DOCKER_HUB.1 { DOCKER_HUB.0 } else { host };
        self.hosts.get(host).or_else(|| self.hosts.get(other)).cloned().unwrap_or_default()
    }

    fn schemes(&self, host: &str) -> Result<Vec<Endpoint>, Error> {
        let config = self.config(host);
        let plain = config.http.unwrap_or_else(|| is_loopback(host));
        let endpoint = |scheme, has_fallback| {
            let kind = if scheme == "http" { plain_kind(host) } else { self.tls_kind(host) };
            Ok(Endpoint {
                host: host.to_owned(),
                scheme,
                prefix: String::new(),
                mirror_of: None,
                has_fallback,
                http: self.client(kind, host)?,
            })
        };
        match (plain, config.insecure) {
            (true, true) => {
                let first = endpoint("https", true)?;
                let second = endpoint("http", false)?;
                Ok(if self.is_down(&first) { vec![second] } else { vec![first, second] })
            }
            (true, false) => Ok(vec![endpoint("http", false)?]),
            (false, _) => Ok(vec![endpoint("https", false)?]),
        }
    }

    fn tls_kind(&self, host: &str) -> Kind {
        let config = self.config(host);
        match config.insecure || !config.ca.is_empty() || !config.keypair.is_empty() {
            true => Kind::TlsOf(host.to_owned()),
            false => Kind::Tls,
        }
    }

    /// The connections of a kind, opened on first use: loading the system's authorities takes time and memory.
    fn client(&self, kind: Kind, host: &str) -> Result<reqwest::Client, Error> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&kind) {
            return Ok(client.clone());
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("rbuild/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(self.tuning.connect_timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW);
        builder = match &kind {
            Kind::Loopback => builder.no_proxy().tls_certs_only([]),
            Kind::Plain => builder.tls_certs_only([]),
            Kind::Tls => builder,
            Kind::TlsOf(host) if is_loopback(host) => tls(builder.no_proxy(), host, &self.config(host))?,
            Kind::TlsOf(host) => tls(builder, host, &self.config(host))?,
        };
        let client = builder.build().map_err(|error| Error::from_http(host, error))?;
        clients.insert(kind, client.clone());
        Ok(client)
    }
}

/// Adds a host's certificates.
fn tls(
    mut builder: reqwest::ClientBuilder,
    host: &str,
    config: &HostConfig,
) -> Result<reqwest::ClientBuilder, Error> {
    let bad = |reason: String| Error::Config { host: host.to_owned(), reason };
    let read = |path: &Path| fs_err::read(path).map_err(|error| bad(error.to_string()));
    for path in &config.ca {
        let certificates = reqwest::Certificate::from_pem_bundle(&read(path)?)
            .map_err(|_| bad(format!("`{}` is no PEM file of certificates", path.display())))?;
        builder = builder.tls_certs_merge(certificates);
    }
    for (certificate, key) in &config.keypair {
        let pem = [read(certificate)?, b"\n".to_vec(), read(key)?].concat();
        let identity = reqwest::Identity::from_pem(&pem)
            .map_err(|_| bad(format!("`{}` and its key are no client certificate", certificate.display())))?;
        builder = builder.identity(identity);
    }
    Ok(builder.tls_danger_accept_invalid_certs(config.insecure))
}

fn plain_kind(host: &str) -> Kind {
    if is_loopback(host) { Kind::Loopback } else { Kind::Plain }
}

fn key(endpoint: &Endpoint) -> String {
    format!("{}://{}", endpoint.scheme, endpoint.host)
}

/// `host[:port]` of a URL, the port only if it is not the scheme's own.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Endpoints are tried in order as long as there is a next one and the failure is theirs. What one of them said is told
/// rather than that the next cannot be reached.
pub(super) async fn first_that_answers<T, F>(
    transport: &Transport,
    endpoints: Vec<Endpoint>,
    mut ask: impl FnMut(Arc<Endpoint>) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut said = None;
    let mut endpoints = endpoints.into_iter().map(Arc::new).peekable();
    loop {
        let endpoint = endpoints.next().expect("a registry has at least one endpoint");
        let error = match ask(Arc::clone(&endpoint)).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let is_telling = !error.is_unreachable();
        if !transport.may_pass_on(&endpoint, &error) || endpoints.peek().is_none() {
            return Err(if is_telling { error } else { said.unwrap_or(error) });
        }
        tracing::debug!(host = endpoint.host, %error, "trying the next endpoint");
        if is_telling {
            said = Some(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(hosts: &[(&str, HostConfig)], domain: &str) -> Vec<String> {
        let hosts = hosts.iter().map(|(name, config)| ((*name).to_owned(), config.clone())).collect();
        let transport = Transport::new(hosts, Tuning::default());
        let endpoints = transport.for_pull(domain).unwrap();
        endpoints.iter().map(|e| e.url("library/x", "manifests/1").unwrap().to_string()).collect()
    }

    #[test]
    fn addresses_follow_from_names_and_configuration() {
        assert_eq!(endpoints(&[], "docker.io"), ["https://registry-1.docker.io/v2/library/x/manifests/1"]);
        assert_eq!(endpoints(&[], "localhost:5000"), ["http://localhost:5000/v2/library/x/manifests/1"]);
        assert_eq!(endpoints(&[], "[::1]:5000"), ["http://[::1]:5000/v2/library/x/manifests/1"]);
        let mirrored = HostConfig {
            mirrors: vec!["127.0.0.1:1".into(), "https://m.example/hub/".into()],
            ..HostConfig::default()
        };
        assert_eq!(
            endpoints(&[("docker.io", mirrored)], "docker.io"),
            [
                "http://127.0.0.1:1/v2/library/x/manifests/1?ns=docker.io",
                "https://m.example/v2/hub/library/x/manifests/1?ns=docker.io",
                "https://registry-1.docker.io/v2/library/x/manifests/1",
            ]
        );
        let http = |http, insecure| HostConfig { http, insecure, ..HostConfig::default() };
        assert_eq!(
            endpoints(&[("a.b", http(Some(true), false))], "a.b"),
            ["http://a.b/v2/library/x/manifests/1"]
        );
        assert_eq!(endpoints(&[("a.b", http(None, true))], "a.b"), ["https://a.b/v2/library/x/manifests/1"]);
        assert_eq!(
            endpoints(&[("a.b", http(Some(true), true))], "a.b"),
            ["https://a.b/v2/library/x/manifests/1", "http://a.b/v2/library/x/manifests/1"]
        );
        assert_eq!(
            endpoints(&[("localhost", http(Some(false), true))], "localhost"),
            ["https://localhost/v2/library/x/manifests/1"]
        );
    }

    #[test]
    fn credentials_belong_to_one_origin() {
        let transport = Transport::new(BTreeMap::new(), Tuning::default());
        let endpoint = transport.for_push("example.com").unwrap().remove(0);
        for (url, expected) in [
            ("https://example.com/v2/x", true),
            ("https://example.com:443/x", true),
            ("http://example.com/x", false),
            ("https://example.com:444/x", false),
            ("https://example.com.evil/x", false),
            ("https://cdn.example.com/x", false),
        ] {
            assert_eq!(endpoint.owns(&url.parse().unwrap()), expected, "{url}");
        }
    }
}
