//! What lets git in: the client's secrets and SSH agent. None of it is on git's command line, which everybody can read.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use solver::op::SshMount;
use solver::{ExecError, VertexContext};
use tempfile::TempDir;

use super::request::{AccessRequest, Request};
use crate::daemon::agent::AgentSocket;
use crate::daemon::secrets::secret;
use crate::session::SessionManager;

/// Whose token serves for all their repositories, submodules for instance (as actions/checkout and BuildKit have it).
const SHARED_HOSTS: [&str; 2] = ["https://github.com/", "https://www.github.com/"];

/// Environment of git; the agent's socket lives as long as this.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) env: Vec<(&'static str, OsString)>,
    _agent: Option<AgentSocket>,
}

impl Access {
    /// `dir` takes what has to be a file.
    ///
    /// # Errors
    /// An agent is asked for and no session forwards it; a session went away.
    pub(super) async fn new(
        request: &Request,
        dir: &TempDir,
        sessions: &SessionManager,
        cx: &VertexContext,
    ) -> Result<Self, ExecError> {
        let AccessRequest { agent, known_hosts, .. } = &request.access;
        let mut env = Vec::new();
        if let Some(value) = authorization(request, sessions, cx).await? {
            env.push(("GIT_CONFIG_COUNT", "1".into()));
            env.push(("GIT_CONFIG_KEY_0", format!("http.{}.extraheader", scope(&request.url)).into()));
            env.push(("GIT_CONFIG_VALUE_0", format!("Authorization: {value}").into()));
        }
        // The keys of the daemon's own user are not the client's.
        let mut ssh = OsString::from("ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none");
        let hosts = dir.path().join("known_hosts");
        fs_err::write(&hosts, known_hosts).map_err(ExecError::failed)?;
        // A host that the client says nothing of is believed, unless /etc/ssh/ssh_known_hosts knows it under another key.
        let strict = if known_hosts.is_empty() { "accept-new" } else { "yes" };
        ssh.push(format!(" -o StrictHostKeyChecking={strict} -o UserKnownHostsFile="));
        ssh.push(quoted(&hosts));
        env.push(("GIT_SSH_COMMAND", ssh));
        let agent = match agent {
            None => None,
            Some(id) => {
                let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
                let mount = SshMount { id: id.clone(), uid, gid, mode: 0o600, optional: false };
                AgentSocket::open(sessions, &mount, dir.path().join("agent"), cx).await?
            }
        };
        if let Some(agent) = &agent {
            env.push(("SSH_AUTH_SOCK", agent.path().into()));
        }
        Ok(Self { env, _agent: agent })
    }
}

/// The value of the `Authorization` header, from the first secret that a client has.
async fn authorization(
    request: &Request,
    sessions: &SessionManager,
    cx: &VertexContext,
) -> Result<Option<String>, ExecError> {
    let Some(host) = host(&request.url) else { return Ok(None) };
    let AccessRequest { header_secret: header, token_secret: token, .. } = &request.access;
    let of_host = |name: &str| if name.is_empty() { String::new() } else { format!("{name}.{host}") };
    let names =
        [(of_host(header), false), (of_host(token), true), (header.clone(), false), (token.clone(), true)];
    for (name, is_token) in names.into_iter().filter(|(name, _)| !name.is_empty()) {
        let Some(value) = secret(sessions, &name, true, cx).await? else { continue };
        let value = String::from_utf8_lossy(&value);
        let value = value.trim_end_matches(['\r', '\n']);
        return Ok(Some(match is_token {
            true => format!("basic {}", STANDARD.encode(format!("x-access-token:{value}"))),
            false => value.to_owned(),
        }));
    }
    Ok(None)
}

/// A path as one word to the shell that runs ssh, and to ssh, which splits its options at blanks.
fn quoted(path: &Path) -> OsString {
    let text = path.as_os_str().as_bytes().to_vec();
    let mut quoted = b"'\"".to_vec();
    for byte in text {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            b'"' | b'\\' => quoted.extend_from_slice(&[b'\\', byte]),
            _ => quoted.push(byte),
        }
    }
    quoted.extend_from_slice(b"\"'");
    OsString::from_vec(quoted)
}

/// Host and port of an HTTP URL.
fn host(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

/// The URLs that the header is sent to, by their beginning.
fn scope(url: &str) -> &str {
    SHARED_HOSTS.into_iter().find(|host| url.starts_with(host)).unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_one_word() {
        assert_eq!(quoted(Path::new("/srv/my cache/k")), r#"'"/srv/my cache/k"'"#);
        assert_eq!(quoted(Path::new("/it's")), r#"'"/it'\''s"'"#);
    }

    #[test]
    fn a_token_goes_to_its_own_repository() {
        for (url, of, to) in [
            ("https://github.com/a/b", Some("github.com"), "https://github.com/"),
            ("https://u:p@h:8443/a", Some("h:8443"), "https://u:p@h:8443/a"),
            ("http://h", Some("h"), "http://h"),
            ("ssh://git@h/a", None, "ssh://git@h/a"),
            ("git@github.com:a/b", None, "git@github.com:a/b"),
        ] {
            assert_eq!((host(url), scope(url)), (of, to), "{url}");
        }
    }
}
