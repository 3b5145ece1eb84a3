//! Debian's docker-registry on loopback.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::ready::program;

/// A registry; ends when dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    host: String,
}

impl Registry {
    /// Starts a registry that keeps its data in `dir`.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    pub fn start(dir: &Path) -> Self {
        Self::with_auth(dir, "")
    }

    /// Starts a registry with an `auth` section, in YAML.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    pub fn with_auth(dir: &Path, auth: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let host = format!("127.0.0.1:{port}");
        let config = dir.join("registry.yaml");
        let data = dir.join("registry");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n{auth}",
            data.display()
        );
        fs_err::write(&config, text).expect("a configuration");
        let child = Command::new(program("docker-registry").expect("checked before"))
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the registry starts");
        let registry = Self { child, host };
        let begun = Instant::now();
        while !registry.answers() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the registry does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }

    /// `HOST:PORT`.
    pub fn host(&self) -> &str {
        &self.host
    }

    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(&self.host)?;
            stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|a| a.starts_with("HTTP/1."))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
