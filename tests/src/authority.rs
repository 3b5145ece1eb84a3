//! Certificates of authorities made up for a test.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

/// An authority that issues certificates.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Valid {
    /// Long enough.
    Now,
    /// Until the end of the last century.
    Past,
    /// From the end of this century.
    Later,
}

impl Authority {
    /// An authority.
    ///
    /// # Panics
    /// When there is no randomness to be had.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Writes its own certificate to a file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, path: &Path) {
        fs_err::write(path, self.0.pem()).expect("a file");
    }

    /// Writes `ca.pem`, and `cert.pem` and `key.pem` of somebody who is at `127.0.0.1` and `daemon.test`.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn issue(&self, dir: &Path, valid: Valid) -> PathBuf {
        fs_err::create_dir_all(dir).expect("a directory");
        let names = ["127.0.0.1".to_owned(), "daemon.test".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        let (from, until) = match valid {
            Valid::Now => (2001, 2090),
            Valid::Past => (1999, 2000),
            Valid::Later => (2090, 2091),
        };
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        self.write(&dir.join("ca.pem"));
        fs_err::write(dir.join("key.pem"), key.serialize_pem()).expect("a file");
        fs_err::write(dir.join("cert.pem"), cert.pem()).expect("a file");
        dir.to_owned()
    }
}
