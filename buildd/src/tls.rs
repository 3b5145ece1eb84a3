//! TLS of tcp addresses: PEM files become settings, for either side.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// gRPC's protocol in ALPN.
const ALPN: &[u8] = b"h2";

/// The PEM files of one side, as BuildKit names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities that the other side's certificate has to come from (`--tlscacert`).
    pub ca: Option<PathBuf>,
    /// This side's certificate, and what leads to its authority (`--tlscert`).
    pub cert: Option<PathBuf>,
    /// Its private key (`--tlskey`).
    pub key: Option<PathBuf>,
}

/// Files that give no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of a pair is missing.
    #[error("a TLS certificate and its key belong together: `{0}` is missing")]
    Half(&'static str),
    /// A client that does not know whom to trust.
    #[error("`--tlscacert` is missing: the daemon's certificate could not be verified")]
    NoAuthority,
    /// A directory of certificates lacks one.
    #[error("`{dir}` has neither `{name}` nor `{other}`")]
    Missing {
        /// The directory.
        dir: PathBuf,
        /// The file's name.
        name: &'static str,
        /// The other name that it may have.
        other: &'static str,
    },
    /// A file cannot be read, or is no PEM.
    #[error("cannot read `{path}`: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A certificate and its key do not fit together, or are of a kind that is not supported.
    #[error("cannot use the TLS certificate `{path}`")]
    Unusable {
        /// The certificate.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The authorities cannot verify anybody.
    #[error("cannot use the TLS authorities `{path}`")]
    Authorities {
        /// Their file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The cryptography library has no protocol version in common with itself.
    #[error("cannot set TLS up")]
    Protocol(#[source] rustls::Error),
}

impl TlsFiles {
    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// All files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.ca, &self.cert, &self.key].into_iter().flatten().map(PathBuf::as_path)
    }

    /// The files of a directory, under the names that buildctl knows: `ca.pem`, `cert.pem`, `key.pem`, or `ca.crt`,
    /// `tls.crt`, `tls.key`.
    ///
    /// # Errors
    /// One is missing.
    pub fn of_dir(dir: &Path) -> Result<Self, TlsError> {
        let find = |name, other| {
            let found = [name, other].into_iter().map(|name| dir.join(name)).find(|path| path.exists());
            found.map(Some).ok_or_else(|| TlsError::Missing { dir: dir.to_owned(), name, other })
        };
        Ok(Self {
            ca: find("ca.pem", "ca.crt")?,
            cert: find("cert.pem", "tls.crt")?,
            key: find("key.pem", "tls.key")?,
        })
    }

    /// A server's settings; with authorities it takes only clients that have a certificate from one of them.
    ///
    /// # Errors
    /// A file that is missing, cannot be read, or does not fit.
    pub fn server(&self) -> Result<ServerConfig, TlsError> {
        let identity = self.identity()?.ok_or(TlsError::Half("--tlscert"))?;
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Protocol)?;
        let builder = match &self.ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots(ca)?.into(), provider());
                builder.with_client_cert_verifier(verifier.build().map_err(|e| unfit(ca, e))?)
            }
        };
        let Identity { path, chain, key } = identity;
        let mut config =
            builder.with_single_cert(chain, key).map_err(|source| TlsError::Unusable { path, source })?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    /// A client's settings.
    ///
    /// # Errors
    /// As [`Self::server`].
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        let ca = self.ca.as_ref().ok_or(TlsError::NoAuthority)?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Protocol)?
            .with_root_certificates(roots(ca)?);
        let mut config = match self.identity()? {
            None => builder.with_no_client_auth(),
            Some(Identity { path, chain, key }) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|source| TlsError::Unusable { path, source })?,
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }

    fn identity(&self) -> Result<Option<Identity>, TlsError> {
        match (&self.cert, &self.key) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(TlsError::Half("--tlscert")),
            (Some(_), None) => Err(TlsError::Half("--tlskey")),
            (Some(cert), Some(key)) => {
                let read = PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable(key, &e))?;
                Ok(Some(Identity { path: cert.clone(), chain: certificates(cert)?, key: read }))
            }
        }
    }
}

/// Who one side is.
struct Identity {
    /// Where the certificate is from.
    path: PathBuf,
    /// The certificate first, then what leads to its authority.
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match all {
        Ok(all) if all.is_empty() => {
            Err(TlsError::File { path: path.to_owned(), reason: "it holds no certificate in PEM".to_owned() })
        }
        Ok(all) => Ok(all),
        Err(e) => Err(unreadable(path, &e)),
    }
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|e| unfit(path, e))?;
    }
    Ok(roots)
}

fn unfit(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TlsError {
    TlsError::Authorities { path: path.to_owned(), source: source.into() }
}

fn unreadable(path: &Path, error: &rustls::pki_types::pem::Error) -> TlsError {
    let reason = match error {
        rustls::pki_types::pem::Error::NoItemsFound => "it holds no private key in PEM".to_owned(),
        other => other.to_string(),
    };
    TlsError::File { path: path.to_owned(), reason }
}
