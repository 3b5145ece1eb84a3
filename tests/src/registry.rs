//! Debian's docker-registry on loopback.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ready::program;

/// Who may use a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Everybody.
    Open,
    /// The user `user` with the password `geheim`.
    Basic,
}

/// bcrypt of `geheim`.
const HTPASSWD: &str = "user:$2b$05$abcdefghijklmnopqrstuuVWu8RjbNovPZWAMRdd7iqaaG0mI53Uu\n";

/// Writes the password file; returns the `auth` section, in YAML.
fn basic(dir: &Path) -> String {
    let file = dir.join("htpasswd");
    fs_err::write(&file, HTPASSWD).expect("a password file");
    format!("auth:\n  htpasswd:\n    realm: tests\n    path: {}\n", file.display())
}

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
        Self::with(dir, Auth::Open)
    }

    /// Starts a registry that asks for a password, or does not.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    pub fn with(dir: &Path, auth: Auth) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let host = format!("127.0.0.1:{port}");
        let config = dir.join("registry.yaml");
        let data = dir.join("registry");
        let auth = match auth {
            Auth::Open => String::new(),
            Auth::Basic => basic(dir),
        };
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n  secret: tests\n{auth}",
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

    /// A manifest or index, by tag or digest; `None` where there is none.
    ///
    /// # Panics
    /// When the registry does not answer, or with something else.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Value> {
        self.json(&format!("{repository}/manifests/{reference}"))
    }

    /// A blob that is JSON; `None` where there is none.
    ///
    /// # Panics
    /// As [`Self::manifest`].
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Value> {
        self.json(&format!("{repository}/blobs/{digest}"))
    }

    /// Whether a repository has a blob.
    ///
    /// # Panics
    /// When the registry does not answer.
    pub fn has_blob(&self, repository: &str, digest: &str) -> bool {
        let answer = self.ask("HEAD", &format!("{repository}/blobs/{digest}")).expect("an answer");
        answer.lines().next().is_some_and(|line| line.contains(" 200 "))
    }

    /// The tags of a repository; none where there is no such repository.
    ///
    /// # Panics
    /// As [`Self::manifest`].
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let list = self.json(&format!("{repository}/tags/list")).unwrap_or_default();
        let tags = list["tags"].as_array().cloned().unwrap_or_default();
        tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect()
    }

    fn json(&self, path: &str) -> Option<Value> {
        let answer = self.get(path).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let found = head.lines().next().is_some_and(|line| line.contains(" 200 "));
        found.then(|| serde_json::from_str(body).expect("JSON"))
    }

    fn get(&self, path: &str) -> std::io::Result<String> {
        self.ask("GET", path)
    }

    fn ask(&self, method: &str, path: &str) -> std::io::Result<String> {
        let accept =
            "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, */*";
        let mut stream = TcpStream::connect(&self.host)?;
        write!(stream, "{method} /v2/{path} HTTP/1.0\r\nAccept: {accept}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn answers(&self) -> bool {
        self.get("").is_ok_and(|a| a.starts_with("HTTP/1."))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
