//! A client's encrypted connections, and in plain words why one cannot be had.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ClientError;
use crate::tls::TlsFiles;

/// How a daemon proves who it is, and the client to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// The PEM files; none of them: connections are not encrypted.
    pub files: TlsFiles,
    /// Whom the daemon's certificate has to name; none: the host of the address.
    pub server_name: Option<String>,
}

/// How long the daemon's first words are waited for. They come at once; one that is silent is believed to have taken the client.
const FIRST_WORDS: Duration = Duration::from_secs(3);

/// Connects to one daemon.
#[derive(Clone)]
pub(super) struct Connector {
    tls: TlsConnector,
    name: ServerName<'static>,
    host: String,
}

impl Connector {
    /// A connector to `HOST:PORT`.
    ///
    /// # Errors
    /// Files that give no TLS, or a name that no certificate can have.
    pub(super) fn new(host: &str, tls: &Tls) -> Result<Self, ClientError> {
        let name = tls.server_name.as_deref().unwrap_or_else(|| host_name(host));
        let no_name = |_| ClientError::Usage(format!("no certificate can name `{name}`"));
        Ok(Self {
            tls: TlsConnector::from(Arc::new(tls.files.client()?)),
            name: ServerName::try_from(name.to_owned()).map_err(no_name)?,
            host: host.to_owned(),
        })
    }

    /// Connects, and waits until the daemon has taken the client's certificate: of TLS 1.3 that comes after the handshake.
    pub(super) async fn connect(self) -> io::Result<BufReader<TlsStream<TcpStream>>> {
        let stream = TcpStream::connect(&self.host).await?;
        stream.set_nodelay(true)?;
        let told = |error| explained(error, &self.name);
        let stream = self.tls.connect(self.name.clone(), stream).await.map_err(told)?;
        let mut stream = BufReader::new(stream);
        if let Ok(first) = tokio::time::timeout(FIRST_WORDS, stream.fill_buf()).await {
            first.map_err(told)?;
        }
        Ok(stream)
    }
}

/// `HOST` of `HOST:PORT`.
fn host_name(host: &str) -> &str {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.trim_start_matches('[').trim_end_matches(']')
}

/// The error in words that say which file to look at, where it is one of certificates.
fn explained(error: io::Error, name: &ServerName<'_>) -> io::Error {
    let why = error.get_ref().and_then(|e| e.downcast_ref::<Error>()).and_then(|e| reason(e, name));
    why.map_or(error, io::Error::other)
}

fn reason(error: &Error, name: &ServerName<'_>) -> Option<String> {
    use AlertDescription as Alert;
    use CertificateError as Bad;
    let text = match error {
        Error::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer | Bad::BadSignature => {
                "its certificate comes from none of the authorities of `--tlscacert`"
            }
            Bad::Expired | Bad::ExpiredContext { .. } => "its certificate has expired",
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => "its certificate is not valid yet",
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                let name = name.to_str();
                return Some(format!(
                    "its certificate is not for `{name}` (`--tlsservername` names another)"
                ));
            }
            _ => return None,
        },
        Error::AlertReceived(alert) => match alert {
            Alert::CertificateRequired => "it wants a certificate: see `--tlscert` and `--tlskey`",
            Alert::UnknownCA | Alert::DecryptError => {
                "it does not know the authority of the certificate of `--tlscert`"
            }
            Alert::CertificateExpired => "the certificate of `--tlscert` has expired or is not valid yet",
            Alert::BadCertificate | Alert::UnsupportedCertificate | Alert::CertificateUnknown => {
                "it refuses the certificate of `--tlscert`"
            }
            _ => return None,
        },
        Error::InvalidMessage(_) => "it does not speak TLS",
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts() {
        for (host, name) in
            [("example.com:1", "example.com"), ("[::1]:1", "::1"), ("127.0.0.1:1", "127.0.0.1")]
        {
            assert_eq!(host_name(host), name);
            assert!(ServerName::try_from(host_name(host)).is_ok(), "{host}");
        }
    }
}
