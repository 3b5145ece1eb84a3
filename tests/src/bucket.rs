//! An S3 server on loopback, behind a door that counts requests and can be told to fail them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::http::{Request, answer, serve};
use crate::ready::program;

/// The key that the server takes.
const KEY: (&str, &str) = ("rbuild", "very-geheim");

/// A bucket named `cache`; its server ends when dropped.
#[derive(Debug)]
pub struct Bucket {
    child: Child,
    port: u16,
    dir: PathBuf,
    endpoint: String,
    door: Arc<Mutex<Door>>,
}

#[derive(Debug, Default)]
struct Door {
    /// `METHOD /path`, as they came.
    requests: Vec<String>,
    /// What is answered with a status and a code rather than by the server: requests that contain the text.
    failing: Option<(String, u16, String)>,
    /// Of so many requests one fails.
    flaky: Option<usize>,
    /// Requests since the server started.
    count: usize,
}

/// Whether an S3 server is installed; says when it is not.
pub fn bucket_ready() -> bool {
    let there = program("s3s-fs").is_some();
    if !there {
        eprintln!("SKIPPED: needs s3s-fs (`make tools`)");
    }
    there
}

impl Bucket {
    /// Starts a server that keeps its objects in `dir`.
    ///
    /// # Panics
    /// When it does not answer within ten seconds.
    pub fn start(dir: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        fs_err::create_dir_all(dir.join("cache")).expect("a bucket");
        let child = Command::new(program("s3s-fs").expect("checked before"))
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--access-key", KEY.0, "--secret-key", KEY.1])
            .arg(dir)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the S3 server starts");
        let door = Arc::new(Mutex::new(Door::default()));
        let shared = door.clone();
        let endpoint = format!("http://{}", serve(move |request| pass(&request, port, &shared)));
        let bucket = Self { child, port, dir: dir.join("cache"), endpoint, door };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the S3 server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        bucket
    }

    /// The cache `name` there, as `--cache-from` and `--cache-to` take it.
    pub fn cache(&self, name: &str) -> String {
        format!("{},access_key_id={},secret_access_key={}", self.keyless(name), KEY.0, KEY.1)
    }

    /// As [`Self::cache`], without a key.
    pub fn keyless(&self, name: &str) -> String {
        format!(
            "type=s3,region=us-east-1,bucket=cache,name={name},use_path_style=true,endpoint_url={}",
            self.endpoint
        )
    }

    /// A keyed cache there, below `prefix`.
    pub fn keyed(&self, prefix: &str) -> String {
        keyed(prefix, &self.endpoint)
    }

    /// As [`Self::keyed`], past the door: requests are not counted and cost nothing but what the server needs.
    pub fn keyed_directly(&self, prefix: &str) -> String {
        keyed(prefix, &format!("http://127.0.0.1:{}", self.port))
    }

    /// The key's name and the key.
    pub fn key(&self) -> (&'static str, &'static str) {
        KEY
    }

    /// The file that is an object.
    pub fn object(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The files that are blobs.
    pub fn blobs(&self) -> Vec<PathBuf> {
        let dir = fs_err::read_dir(self.object("blobs")).expect("blobs");
        dir.map(|entry| entry.expect("a file").path()).collect()
    }

    /// Takes the requests since the last time, as `METHOD /bucket/object`.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().requests)
    }

    /// Answers requests that contain `text` with a status and one of S3's codes, from now on.
    pub fn fail(&self, text: &str, status: u16, code: &str) {
        self.lock().failing = Some((text.to_owned(), status, code.to_owned()));
    }

    /// Fails one of `every` requests, from now on.
    pub fn be_flaky(&self, every: usize) {
        self.lock().flaky = Some(every);
    }

    /// Answers all requests again.
    pub fn heal(&self) {
        let mut door = self.lock();
        (door.failing, door.flaky) = (None, None);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keyed(prefix: &str, endpoint: &str) -> String {
    format!(
        "type=keyed,url=s3://cache/{prefix},use_path_style=true,endpoint_url={endpoint},access_key_id={},secret_access_key={}",
        KEY.0, KEY.1
    )
}

/// Hands a request to the server, and gives its answer.
fn pass(request: &Request, port: u16, door: &Mutex<Door>) -> Vec<u8> {
    let first = format!("{} {}", request.method, request.path);
    let failing = {
        let mut door = door.lock().unwrap_or_else(PoisonError::into_inner);
        door.requests.push(first.clone());
        door.count += 1;
        let unlucky = door.flaky.is_some_and(|every| door.count.is_multiple_of(every));
        let flaky = unlucky.then(|| (String::new(), 500, "InternalError".to_owned()));
        flaky.or_else(|| door.failing.clone().filter(|(text, ..)| first.contains(text.as_str())))
    };
    if let Some((_, status, code)) = failing {
        let body = format!("<Error><Code>{code}</Code><Message>told so</Message></Error>");
        return answer(status, &[], if request.method == "HEAD" { b"" } else { body.as_bytes() });
    }
    let forward = || {
        let mut server = TcpStream::connect(("127.0.0.1", port))?;
        server.write_all(format!("{}Connection: close\r\n\r\n", request.head).as_bytes())?;
        server.write_all(&request.body)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).map(|_| answer)
    };
    forward().unwrap_or_default()
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
