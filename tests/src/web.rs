//! busybox's web server on loopback.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server of a directory's files; ends when dropped.
#[derive(Debug)]
pub struct Web {
    child: Child,
    port: u16,
}

impl Web {
    /// Serves `dir` to whoever knows the password, which is that of `user` and of `x-access-token`, as git servers name it.
    ///
    /// # Panics
    /// When it does not listen within ten seconds.
    pub fn start(dir: &Path, password: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        let config = dir.with_extension("httpd");
        fs_err::write(&config, format!("/:user:{password}\n/:x-access-token:{password}\n"))
            .expect("a configuration");
        let child = Command::new("/bin/busybox")
            .args(["httpd", "-f", "-p", &format!("127.0.0.1:{port}"), "-h"])
            .arg(dir)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .spawn()
            .expect("busybox starts");
        let web = Self { child, port };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "httpd does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        web
    }

    /// A URL with credentials.
    pub fn url(&self, userinfo: &str, path: &str) -> String {
        format!("http://{userinfo}@{}/{path}", self.host())
    }

    /// Address and port.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
