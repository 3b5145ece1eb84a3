//! Flags that become settings of the frontend, under the names that buildx and buildctl give them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use frontend::number::boolean;

use super::Args;
use super::attest::attestations;
use super::call::Call;
use crate::cli::context::absolute;
use crate::client::{ClientError, Output, SecretSource, Services, SshSource};
use crate::csv::fields;

impl Args {
    /// The frontend's settings for these outputs.
    pub(super) fn attrs(
        &self,
        call: Option<&Call>,
        outputs: &[Output],
    ) -> Result<BTreeMap<String, String>, ClientError> {
        let mut attrs = BTreeMap::new();
        let mut set = |key: &str, value: String| drop(attrs.insert(key.to_owned(), value));
        if let Some(target) = &self.target {
            set("target", target.clone());
        }
        if self.no_cache || !self.no_cache_filter.is_empty() {
            // Empty means every stage.
            set("no-cache", if self.no_cache { String::new() } else { self.no_cache_filter.join(",") });
        }
        if self.pull {
            set("image-resolve-mode", "pull".to_owned());
        }
        if !self.platforms.is_empty() {
            set("platform", self.platforms.join(","));
        }
        match self.network.as_str() {
            "" | "default" => {}
            mode @ ("none" | "host") => set("force-network-mode", mode.to_owned()),
            mode => {
                return Err(ClientError::Usage(format!(
                    "network mode `{mode}` is not supported: want default, none or host"
                )));
            }
        }
        if let Some(size) = &self.shm_size {
            set("shm-size", bytes("--shm-size", size)?.to_string());
        }
        for (name, value) in super::resources::attrs(&self.old_resources, &self.resources)? {
            set(name, value);
        }
        if let Some(parent) = self.cgroup_parent.as_ref().filter(|parent| !parent.is_empty()) {
            set("cgroup-parent", parent.clone());
        }
        if !self.add_hosts.is_empty() {
            let hosts: Result<Vec<_>, _> = self.add_hosts.iter().map(|text| host(text)).collect();
            set("add-hosts", hosts?.join(","));
        }
        if !self.ulimits.is_empty() {
            let limits: Result<Vec<_>, _> = self.ulimits.iter().map(|text| ulimit(text)).collect();
            set("ulimit", limits?.join(","));
        }
        if let Some(call) = call {
            set("requestid", call.request.to_owned());
            set("frontend.caps", "moby.buildkit.frontend.subrequests".to_owned());
        }
        for text in &self.build_args {
            match text.split_once('=') {
                Some((key, value)) => set(&format!("build-arg:{key}"), value.to_owned()),
                None => {
                    if let Ok(value) = std::env::var(text) {
                        set(&format!("build-arg:{text}"), value);
                    }
                }
            }
        }
        for text in &self.labels {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            set(&format!("label:{key}"), value.to_owned());
        }
        let (provenance, sbom) = (self.provenance.as_deref(), self.sbom.as_deref());
        attrs.extend(attestations(&self.attest, provenance, sbom, tells_of_pushes(outputs))?);
        Ok(attrs)
    }

    /// What the build may do. Asking for the host's network is not allowing it.
    pub(super) fn entitlements(&self) -> Vec<String> {
        // What a device may be called stands behind a comma of its own.
        let split = |text: &String| match text.starts_with("device=") {
            true => vec![text.clone()],
            false => text.split(',').map(str::to_owned).collect(),
        };
        self.allow.iter().flat_map(split).collect()
    }

    /// Secrets and SSH agents.
    pub(super) fn services(&self) -> Result<Services, ClientError> {
        let secrets: Result<_, _> = self.secrets.iter().map(|text| secret(text)).collect();
        let ssh: Result<_, _> = self.ssh.iter().map(|text| agent(text)).collect();
        Ok(Services { secrets: secrets?, ssh: ssh?, ..Services::default() })
    }
}

pub(super) fn invalid(flag: &str, text: &str, want: &str) -> ClientError {
    ClientError::Usage(format!("invalid value `{text}` for `{flag}`: want {want}"))
}

/// docker's sizes: a number and an optional binary unit.
pub(super) fn bytes(flag: &str, text: &str) -> Result<u64, ClientError> {
    let bad = || invalid(flag, text, "a size such as 64m");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let power = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return Err(bad()),
    };
    let number: f64 = number.parse().map_err(|_| bad())?;
    Ok((number * 1024f64.powi(power)) as u64)
}

/// HOST:IP or HOST=IP, brackets around IPv6 or not, as `host=ip`.
fn host(text: &str) -> Result<String, ClientError> {
    let bad = || invalid("--add-host", text, "HOST:IP");
    let at = text.find(['=', ':']).filter(|&at| at > 0).ok_or_else(bad)?;
    let (name, ip) = (&text[..at], &text[at + 1..]);
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    let ip: IpAddr = ip.parse().map_err(|_| bad())?;
    Ok(format!("{name}={ip}"))
}

/// `NAME=SOFT[:HARD]`; -1 is unlimited.
fn ulimit(text: &str) -> Result<String, ClientError> {
    let bad = || invalid("--ulimit", text, "NAME=SOFT[:HARD]");
    let (name, limits) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(bad)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().map_err(|_| bad());
    Ok(format!("{name}={}:{}", number(soft)?, number(hard)?))
}

/// `id=ID[,src=FILE|,env=NAME][,type=file|env]`. Without a source it is the variable of that name, else the file.
fn secret(text: &str) -> Result<(String, SecretSource), ClientError> {
    let bad = || invalid("--secret", text, "id=ID[,src=FILE|,env=NAME]");
    let (mut id, mut file, mut env, mut kind) = (None, None, None, None);
    for field in fields(text)? {
        let (key, value) = field.split_once('=').ok_or_else(bad)?;
        let slot = match key.trim().to_ascii_lowercase().as_str() {
            "id" => &mut id,
            "src" | "source" => &mut file,
            "env" => &mut env,
            "type" => &mut kind,
            _ => return Err(bad()),
        };
        *slot = Some(value.to_owned());
    }
    let id = id.or_else(|| file.clone()).filter(|id| !id.is_empty()).ok_or_else(bad)?;
    if kind.as_deref() == Some("env") {
        env = env.or_else(|| file.take());
    }
    let source = match (file, env) {
        (_, Some(name)) => SecretSource::Env(name),
        (Some(path), None) => SecretSource::File(absolute(Path::new(&path))?),
        (None, None) if std::env::var_os(&id).is_some() => SecretSource::Env(id.clone()),
        (None, None) => SecretSource::File(absolute(Path::new(&id))?),
    };
    if let SecretSource::File(path) = &source {
        std::fs::metadata(path).map_err(|e| ClientError::io(path, e))?;
    }
    Ok((id, source))
}

/// `ID[=SOCKET]`; without a socket it is the agent of the environment.
fn agent(text: &str) -> Result<(String, SshSource), ClientError> {
    let (id, socket) = text.split_once('=').unwrap_or((text, ""));
    let socket = match socket {
        "" => std::env::var_os("SSH_AUTH_SOCK")
            .filter(|path| !path.is_empty())
            .ok_or_else(|| {
                ClientError::Usage(format!("`--ssh {text}` needs an agent, but $SSH_AUTH_SOCK is not set"))
            })?
            .into(),
        path => absolute(Path::new(path))?,
    };
    use std::os::unix::fs::FileTypeExt as _;
    let meta = std::fs::metadata(&socket).map_err(|e| ClientError::io(&socket, e))?;
    match meta.file_type().is_socket() {
        true => Ok((id.to_owned(), SshSource { socket })),
        false => Err(ClientError::Usage(format!(
            "`{}` is no agent's socket; add the key to an agent (ssh-add) and pass that",
            socket.display()
        ))),
    }
}

/// Whether something is pushed, and the environment does not say that nothing is to be told of it.
fn tells_of_pushes(outputs: &[Output]) -> bool {
    let yes = |value: &str| boolean(value).unwrap_or(false);
    let silent = std::env::var("BUILDX_NO_DEFAULT_ATTESTATIONS").is_ok_and(|value| yes(&value));
    let pushed = |output: &Output| output.attrs.get("push").is_some_and(|value| yes(value));
    !silent && outputs.iter().any(pushed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_buildkits_names() {
        let own = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
        let args = Args {
            target: Some(String::new()),
            build_args: own(&["A=b=c", "EMPTY=", "RBUILD_TEST_UNSET"]),
            labels: own(&["l=1"]),
            no_cache_filter: own(&["x", "y"]),
            pull: true,
            platforms: own(&["linux/amd64", "linux/arm64"]),
            network: "none".into(),
            shm_size: Some("64m".into()),
            cgroup_parent: Some("ci/builds".into()),
            add_hosts: own(&["db.inner:10.9.8.7", "six:2001:db8::6", "x=[::1]"]),
            ulimits: own(&["nofile=1234:2345", "core=0"]),
            ..Args::default()
        };
        let attrs = args.attrs(None, &[]).unwrap();
        let expected = [
            ("add-hosts", "db.inner=10.9.8.7,six=2001:db8::6,x=::1"),
            ("build-arg:A", "b=c"),
            ("build-arg:EMPTY", ""),
            ("cgroup-parent", "ci/builds"),
            ("force-network-mode", "none"),
            ("image-resolve-mode", "pull"),
            ("label:l", "1"),
            ("no-cache", "x,y"),
            ("platform", "linux/amd64,linux/arm64"),
            ("shm-size", "67108864"),
            ("target", ""),
            ("ulimit", "nofile=1234:2345,core=0:0"),
        ];
        assert_eq!(attrs.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn host_network_has_to_be_allowed() {
        let args =
            Args { network: "host".into(), allow: vec!["security.insecure".into()], ..Args::default() };
        assert_eq!(args.entitlements(), ["security.insecure"]);
        assert!(Args { network: "bridge".into(), ..Args::default() }.attrs(None, &[]).is_err());
    }

    #[test]
    fn secrets_are_files_or_variables() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        std::fs::write(&path, "x").unwrap();
        let text = format!("id=a,src={}", path.display());
        assert_eq!(secret(&text).unwrap(), ("a".into(), SecretSource::File(path)));
        assert_eq!(secret("id=a,env=B").unwrap(), ("a".into(), SecretSource::Env("B".into())));
        assert_eq!(secret("type=env,id=a,src=B").unwrap(), ("a".into(), SecretSource::Env("B".into())));
        for bad in ["", "id", "src=/nonexistent", "id=a,x=y", "id=a,src=/nonexistent"] {
            assert!(secret(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn malformed_values() {
        for bad in ["", "m", "1x", "-1"] {
            assert!(bytes("--x", bad).is_err(), "{bad}");
        }
        for bad in ["", "a", "a:b", ":1.2.3.4"] {
            assert!(host(bad).is_err(), "{bad}");
        }
        for bad in ["", "nofile", "nofile=a", "=1", "nofile=1:"] {
            assert!(ulimit(bad).is_err(), "{bad}");
        }
    }
}
