//! An HTTP/1.1 server that answers as a test says and remembers what it was asked.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Header names in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// `METHOD target`.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// An answer, and how far it gets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Send only so many bytes of the body, then close.
    cut: Option<usize>,
    /// Then wait with the connection open, until the server is dropped.
    hang: bool,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }

    pub(crate) fn hang(mut self) -> Self {
        self.hang = true;
        self
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// The server; its threads end with the process.
pub(crate) struct Fake {
    /// `127.0.0.1:port`.
    pub(crate) host: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    pub(crate) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1", handler)
    }

    /// Listens on another address of this machine.
    pub(crate) fn on(address: &str, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let host = format!("{address}:{}", listener.local_addr().unwrap().port());
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let (seen, handler) =
            (Arc::clone(&requests), Arc::<Handler>::from(Box::new(handler) as Box<Handler>));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, handler) = (Arc::clone(&seen), Arc::clone(&handler));
                thread::spawn(move || serve(stream.unwrap(), &seen, &*handler));
            }
        });
        Self { host, requests }
    }

    /// What it was asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Method and target of each request.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Request>>, handler: &Handler) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    let Some(request) = read_request(&mut reader) else { return };
    let reply = handler(&request);
    let head_only = request.method == "HEAD";
    seen.lock().unwrap().push(request);
    let mut text = format!("HTTP/1.1 {} Answer\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        text += &format!("{name}: {value}\r\n");
    }
    if !reply.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding")) {
        text += &format!("Content-Length: {}\r\n", reply.body.len());
    }
    text += "\r\n";
    let end = reply.cut.unwrap_or(reply.body.len());
    let body = if head_only { &[] } else { &reply.body[..end] };
    // The client may have hung up, which is its right.
    let _ =
        writer.write_all(text.as_bytes()).and_then(|()| writer.write_all(body)).and_then(|()| writer.flush());
    if reply.hang {
        let _ = reader.read(&mut [0]);
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let mut request =
        Request { method: words.next()?.to_owned(), target: words.next()?.to_owned(), ..Request::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    request.body = vec![0; length];
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}
