//! Connections to services that keep objects.

use std::time::Duration;

use crate::registry::is_loopback;

/// For a connection, with TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Without a byte from the service; an upload of a part counts as silence.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Connections to a service at `url`. Redirects are not followed: signatures and tokens are for one host only.
///
/// # Errors
/// The system's TLS authorities cannot be read.
pub fn http_client(url: &str) -> Result<reqwest::Client, reqwest::Error> {
    // Fails when the process has chosen a provider already, which then serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .user_agent(concat!("rbuild/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(STALL_TIMEOUT);
    let host =
        url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let builder = match is_loopback(&host) {
        true => builder.no_proxy(),
        false => builder,
    };
    match url.starts_with("http://") {
        // Loading the system's authorities takes time and memory.
        true => builder.tls_certs_only([]).build(),
        false => builder.build(),
    }
}
