//! Lock files in TOML with a list `package`: `Cargo.lock`, and Python's `poetry.lock`, `uv.lock` and `pdm.lock`.

use serde::Deserialize;

use super::file_kind::ReadError;
use super::package::{Ecosystem, Package};

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    /// `uv.lock` has packages without one, which are the project's own.
    #[serde(default)]
    version: String,
}

/// The packages of a lock file.
///
/// # Errors
/// No TOML, or another shape.
pub(super) fn packages(ecosystem: Ecosystem, bytes: &[u8]) -> Result<Vec<Package>, ReadError> {
    let text = std::str::from_utf8(bytes).map_err(ReadError::Text)?;
    let lock: Lock = toml::from_str(text).map_err(|e| ReadError::Toml(Box::new(e)))?;
    Ok(lock.package.iter().filter_map(|p| Package::new(ecosystem, &p.name, &p.version)).collect())
}
