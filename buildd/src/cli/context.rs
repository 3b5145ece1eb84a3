//! What all verbs share: which daemon they talk to.

use std::path::{Path, PathBuf};

use tokio::task::JoinHandle;

use crate::client::{Address, Client, ClientError, Tls, connect_or_start, own_address};
use crate::progress::{Display, Mode, spawn};

/// How to reach the daemon.
#[derive(Debug)]
pub struct Context {
    /// The one that was named, if any.
    address: Option<Address>,
    /// What it is reached with over tcp.
    tls: Tls,
}

impl Context {
    /// Takes `--addr` or `$RBUILD_HOST`; an empty one counts as none.
    ///
    /// # Errors
    /// A malformed address.
    pub fn new(addr: Option<String>, tls: Tls) -> Result<Self, ClientError> {
        let address = addr.filter(|a| !a.is_empty()).map(|a| a.parse()).transpose()?;
        Ok(Self { address, tls })
    }

    /// Where the daemon is.
    pub fn address(&self) -> Address {
        self.address.clone().unwrap_or_else(own_address)
    }

    /// Connects to the daemon that was named, or to the user's own, starting it when it does not run.
    ///
    /// # Errors
    /// A named daemon does not answer, or the own one cannot be started.
    pub async fn connect(&self) -> Result<Client, ClientError> {
        match &self.address {
            Some(address) => Client::connect(address, &self.tls).await,
            None => connect_or_start().await,
        }
    }
}

/// Starts showing progress.
pub(super) fn show(
    mode: Mode,
) -> Result<(tokio::sync::mpsc::Sender<proto::control::StatusResponse>, JoinHandle<()>), ClientError> {
    Ok(spawn(Display::new(mode)?))
}

/// A user's path, made absolute against the client's directory.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, ClientError> {
    std::path::absolute(path).map_err(|e| ClientError::io(path, e))
}
