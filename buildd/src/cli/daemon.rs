//! `rbuild daemon`.

mod stock;

use std::path::PathBuf;
use std::time::Duration;

use crate::client::ClientError;

pub use stock::StockFlags;

/// Runs the daemon in the foreground
#[derive(Debug, Clone, clap::Args)]
pub struct DaemonArgs {
    /// Where its state is kept [default: /var/lib/rbuild; without root $XDG_DATA_HOME/rbuild]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Where it listens: unix:///PATH or tcp://HOST:PORT; may be given several times [default: the user's own socket]
    #[arg(long, value_name = "ADDRESS")]
    pub addr: Vec<String>,
    /// Its configuration [default: /etc/rbuild/buildd.toml; without root $XDG_CONFIG_HOME/rbuild/buildd.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Logs more
    #[arg(long)]
    pub debug: bool,
    /// Leaves after this time without builds, such as `10m`
    #[arg(long, value_name = "TIME", value_parser = duration, hide = true)]
    pub idle_timeout: Option<Duration>,
    /// Leaves the caller's session and closes what it inherited
    #[arg(long, hide = true)]
    pub background: bool,
    /// Encryption of tcp addresses
    #[command(flatten)]
    pub tls: TlsFlags,
    /// buildkitd's flags
    #[command(flatten)]
    pub stock: StockFlags,
}

/// PEM files for tcp addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct TlsFlags {
    /// For tcp addresses: the daemon's certificate
    #[arg(long, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,
    /// For tcp addresses: its key
    #[arg(long, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,
    /// For tcp addresses: the authorities that clients' certificates have to come from
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,
}

impl DaemonArgs {
    /// Where state is kept when nothing says otherwise: /var/lib/rbuild for root, else `$XDG_DATA_HOME/rbuild`.
    pub fn default_root() -> PathBuf {
        if rustix::process::geteuid().is_root() {
            return "/var/lib/rbuild".into();
        }
        match (variable("XDG_DATA_HOME"), variable("HOME")) {
            (Some(data), _) => data.join("rbuild"),
            (None, Some(home)) => home.join(".local/share/rbuild"),
            (None, None) => format!("/tmp/rbuild-{}/root", rustix::process::geteuid().as_raw()).into(),
        }
    }

    /// The configuration when none is named: /etc/rbuild/buildd.toml for root, else `$XDG_CONFIG_HOME/rbuild/buildd.toml`.
    pub fn default_config() -> Option<PathBuf> {
        if rustix::process::geteuid().is_root() {
            return Some("/etc/rbuild/buildd.toml".into());
        }
        let dir = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")))?;
        Some(dir.join("rbuild/buildd.toml"))
    }

    /// Makes modes of files what they are asked for whoever starts it, and cuts the ties to the caller when asked to. To
    /// be called before anything is opened and any thread started.
    pub(super) fn prepare(&self) -> Result<(), ClientError> {
        // git checks out with it, and its modes are a part of the content; BuildKit runs git with the same.
        rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
        if !self.background {
            return Ok(());
        }
        // It fails only for a process that leads a group already, which then has the session it needs.
        let _ = nix::unistd::setsid();
        let path = "/proc/self/fd";
        let open: Vec<i32> = std::fs::read_dir(path)
            .map_err(|e| ClientError::io(path, e))?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        for fd in open.into_iter().filter(|&fd| fd > 2) {
            // The one that listed them is closed already.
            let _ = nix::unistd::close(fd);
        }
        Ok(())
    }
}

/// The directory that a variable names; an empty one counts as missing.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A number and `s`, `m` or `h`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().next_back().map_or(0, char::len_utf8));
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("want a number and s, m or h".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "want a number and s, m or h".to_owned())?;
    Ok(Duration::from_secs(number.saturating_mul(factor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_umask_does_not_count() {
        use rustix::fs::Mode;
        let args = DaemonArgs {
            root: None,
            addr: Vec::new(),
            config: None,
            debug: false,
            idle_timeout: None,
            background: false,
            tls: TlsFlags::default(),
            stock: StockFlags::default(),
        };
        rustix::process::umask(Mode::from_raw_mode(0o077));
        args.prepare().unwrap();
        assert_eq!(rustix::process::umask(Mode::from_raw_mode(0o022)), Mode::from_raw_mode(0o022));
    }

    #[test]
    fn durations() {
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("3s"), Ok(Duration::from_secs(3)));
        for bad in ["", "10", "m", "1d", "-1s", "1ä"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
