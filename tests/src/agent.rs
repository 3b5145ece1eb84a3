//! Debian's ssh-agent with a key.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::ready::program;

/// A running agent that holds one key; ends when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    socket: PathBuf,
    key: String,
}

impl Agent {
    /// Starts an agent that keeps its files in `dir`; none where openssh-client is missing, which is said.
    ///
    /// # Panics
    /// When it does not start or does not take the key.
    pub fn start(dir: &Path) -> Option<Self> {
        if program("ssh-agent").is_none() || program("ssh-add").is_none() {
            eprintln!("SKIPPED: needs openssh-client");
            return None;
        }
        fs_err::create_dir_all(dir).expect("a directory");
        let key = dir.join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
            .arg(&key)
            .status();
        assert!(made.expect("ssh-keygen runs").success());
        let socket = dir.join("agent");
        let child = Command::new("ssh-agent")
            .arg("-D")
            .arg("-a")
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .expect("ssh-agent starts");
        let agent =
            Self { child, socket, key: fs_err::read_to_string(key.with_extension("pub")).expect("a key") };
        let begun = Instant::now();
        while !agent.socket.exists() {
            assert!(begun.elapsed() < Duration::from_secs(10), "ssh-agent does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        let added = Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &agent.socket).status();
        assert!(added.expect("ssh-add runs").success());
        Some(agent)
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The public key that it holds, in base64.
    pub fn key(&self) -> &str {
        self.key.split(' ').nth(1).unwrap_or_default()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
