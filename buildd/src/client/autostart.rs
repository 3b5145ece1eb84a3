//! A daemon of the user's own, started when it is first needed.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fs_err as fs;
use proto::rbuild::{LeaveRequest, VersionRequest, VersionResponse};
use rustix::fs::{FlockOperation, flock};
use tonic::Code;

use super::{Address, Client, ClientError, Tls};
use crate::private_dir::private_dir;
use crate::version::Version;

/// How long a daemon may take from its start until it serves: RocksDB may have a log to replay.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a daemon that is starting or leaving is looked at.
const POLL: Duration = Duration::from_millis(5);

/// Idle time after which a started daemon leaves, as its `--idle-timeout` takes it.
const IDLE: &str = "10m";

/// The address of the user's own daemon.
///
/// Root's is below /run; others' below `$XDG_RUNTIME_DIR`, or below a private directory in /tmp where that is not set.
pub fn own_address() -> Address {
    Address::Unix(own_socket())
}

/// The socket of the user's own daemon.
pub fn own_socket() -> PathBuf {
    run_dir().join("rbuild.sock")
}

fn run_dir() -> PathBuf {
    let uid = rustix::process::geteuid();
    if uid.is_root() {
        return "/run/rbuild".into();
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => Path::new(&dir).join("rbuild"),
        None => format!("/tmp/rbuild-{}", uid.as_raw()).into(),
    }
}

/// Connects to the user's own daemon, starting it when nothing listens there.
///
/// An idle daemon of another version that a client has started is replaced; any other is used if its API fits.
///
/// # Errors
/// The daemon cannot be started, or is of a version that cannot be used and stays.
pub async fn connect_or_start() -> Result<Client, ClientError> {
    let address = own_address();
    let dir = run_dir();
    private_dir(&dir).map_err(|e| ClientError::io(&dir, e))?;
    if let Ok(client) = Client::connect(&address, &Tls::default()).await
        && version(&client).await?.is_some_and(|theirs| theirs == Version::own())
    {
        return Ok(client);
    }
    let _lock = lock(&dir.join("start.lock")).await?;
    // Another client may have been faster.
    if let Ok(client) = Client::connect(&address, &Tls::default()).await
        && let Some(client) = use_or_replace(client, &address).await?
    {
        return Ok(client);
    }
    start(&address, &dir).await
}

/// A daemon's version; none when it is leaving.
async fn version(client: &Client) -> Result<Option<Version>, ClientError> {
    match client.version().get(VersionRequest {}).await {
        Ok(theirs) => {
            let VersionResponse { version, api, .. } = theirs.into_inner();
            Ok(Some(Version { version, api }))
        }
        // Something else listens there.
        Err(status) if status.code() == Code::Unimplemented => Err(status.into()),
        Err(_) => Ok(None),
    }
}

/// Decides about a daemon under the lock, so that nobody starts another meanwhile; none when it has left.
async fn use_or_replace(client: Client, address: &Address) -> Result<Option<Client>, ClientError> {
    if let Some(theirs) = version(&client).await? {
        let own = Version::own();
        if theirs == own {
            return Ok(Some(client));
        }
        if let Err(refusal) = client.version().leave(LeaveRequest {}).await {
            if theirs.api == own.api {
                return Ok(Some(client));
            }
            let reason = refusal.message().to_owned();
            return Err(ClientError::OtherVersion { version: theirs.version, reason });
        }
    }
    // Its sockets go first; for the rest of it the new one waits.
    let deadline = Instant::now() + START_TIMEOUT;
    while address.socket().is_some_and(Path::exists) && Instant::now() < deadline {
        tokio::time::sleep(POLL).await;
    }
    Ok(None)
}

async fn start(address: &Address, dir: &Path) -> Result<Client, ClientError> {
    let log = dir.join("daemon.log");
    let mut child = spawn(address, &log)?;
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Ok(client) = Client::connect(address, &Tls::default()).await {
            return Ok(client);
        }
        let left = child.try_wait().map_err(|e| ClientError::io("rbuild daemon", e))?.is_some();
        if left || Instant::now() > deadline {
            let tail = last_event(&fs::read_to_string(&log).unwrap_or_default()).to_owned();
            return Err(ClientError::Start { log, tail });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What a log says last, which may be several lines: from the last error on, or the last line that is not empty.
fn last_event(log: &str) -> &str {
    let log = log.trim_end();
    match log.rsplit_once(" ERROR rbuild: ") {
        Some((_, event)) => event,
        None => log.lines().last().unwrap_or_default(),
    }
}

/// Holds other clients off while a daemon starts.
async fn lock(path: &Path) -> Result<File, ClientError> {
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| ClientError::io(path, e))?;
    let deadline = Instant::now() + START_TIMEOUT;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > deadline {
            return Err(ClientError::Starting(START_TIMEOUT));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(file)
}

/// Starts the daemon; `--background` makes it leave the session and close what it inherited.
fn spawn(address: &Address, log: &Path) -> Result<Child, ClientError> {
    let exe = std::env::current_exe().map_err(|e| ClientError::io("/proc/self/exe", e))?;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(log)
        .map_err(|e| ClientError::io(log, e))?;
    let stderr = file.try_clone().map_err(|e| ClientError::io(log, e))?;
    Command::new(&exe)
        .args(["daemon", "--background", "--idle-timeout", IDLE, "--addr", &address.to_string()])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(stderr)
        .spawn()
        .map_err(|e| ClientError::io(exe, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_event_of_a_log() {
        for (log, event) in [
            ("", ""),
            ("T  INFO rbuild: idle: leaving\nthread panicked\n\n", "thread panicked"),
            (
                "T ERROR rbuild: old\nT ERROR rbuild: bad at line 1\n  |\n1 | x\n\n",
                "bad at line 1\n  |\n1 | x",
            ),
        ] {
            assert_eq!(last_event(log), event);
        }
    }
}
