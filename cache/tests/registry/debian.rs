//! Debian's `docker-registry` on a loopback port.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A registry that ends with the test.
pub(crate) struct Debian {
    /// `127.0.0.1:port`.
    pub(crate) host: String,
    child: Child,
    _directory: TempDir,
    _tls: Option<TempDir>,
}

impl Debian {
    /// Starts one; none, with a word about it, where it is not installed.
    ///
    /// `htpasswd` is the content of its password file; without one everybody may do everything.
    pub(crate) fn start(htpasswd: Option<&str>) -> Option<Self> {
        Self::launch(htpasswd, None)
    }

    /// Starts one that speaks HTTPS, with a certificate that it signed itself and the path of it.
    pub(crate) fn start_tls() -> Option<(Self, PathBuf)> {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=registry", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .args([&key, Path::new("-out"), &certificate])
            .output();
        if !made.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: `openssl` is not installed");
            return None;
        }
        let tls = format!("  tls: {{certificate: {}, key: {}}}\n", certificate.display(), key.display());
        let mut registry = Self::launch(None, Some(&tls))?;
        registry._tls = Some(directory);
        Some((registry, certificate))
    }

    fn launch(htpasswd: Option<&str>, tls: Option<&str>) -> Option<Self> {
        if Command::new("docker-registry").arg("--version").output().is_err() {
            eprintln!("skipped: `docker-registry` is not installed");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: \"{host}\"\n{}",
            root.join("data").display(),
            tls.unwrap_or_default(),
        );
        if let Some(lines) = htpasswd {
            let path = root.join("htpasswd");
            std::fs::write(&path, lines).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", path.display());
        }
        std::fs::write(root.join("config.yml"), config).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(root.join("config.yml"))
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        // Shown only where the test runner shows output, that is when the test fails.
        thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| eprintln!("{line}"))
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&host).is_err() {
            assert!(Instant::now() < deadline, "docker-registry does not listen on {host}");
            thread::sleep(Duration::from_millis(20));
        }
        Some(Self { host, child, _directory: directory, _tls: None })
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
