//! npm: `package-lock.json` (also `npm-shrinkwrap.json` and `node_modules/.package-lock.json`), and the `package.json` of
//! installed packages.

use serde_json::{Map, Value};

use super::file_kind::ReadError;
use super::package::{Ecosystem, Package};

/// The directory that packages are installed in.
const MODULES: &str = "node_modules/";

/// The packages of a lock file, of any version of its form.
///
/// # Errors
/// No JSON.
pub(super) fn locked(bytes: &[u8]) -> Result<Vec<Package>, ReadError> {
    let lock: Value = serde_json::from_slice(bytes).map_err(ReadError::Json)?;
    if let Some(packages) = lock["packages"].as_object() {
        return Ok(packages.iter().filter_map(|(path, about)| at_path(path, about)).collect());
    }
    let mut found = Vec::new();
    let mut waiting: Vec<&Map<String, Value>> = lock["dependencies"].as_object().into_iter().collect();
    while let Some(dependencies) = waiting.pop() {
        for (name, about) in dependencies {
            found.extend(package(name, about));
            waiting.extend(about["dependencies"].as_object());
        }
    }
    Ok(found)
}

/// The package of a `package.json` in `node_modules`.
///
/// # Errors
/// No JSON.
pub(super) fn installed(bytes: &[u8]) -> Result<Vec<Package>, ReadError> {
    let about: Value = serde_json::from_slice(bytes).map_err(ReadError::Json)?;
    Ok(about["name"].as_str().and_then(|name| package(name, &about)).into_iter().collect())
}

/// A package by the path that it is installed at; what is not in `node_modules` is the project's own.
fn at_path(path: &str, about: &Value) -> Option<Package> {
    let (_, name) = path.rsplit_once(MODULES)?;
    if about["link"] == true {
        return None;
    }
    package(about["name"].as_str().unwrap_or(name), about)
}

fn package(name: &str, about: &Value) -> Option<Package> {
    // Others are addresses of files, repositories and other names.
    let version =
        about["version"].as_str().filter(|version| version.starts_with(|c: char| c.is_ascii_digit()))?;
    Some(Package::new(Ecosystem::Npm, name, version)?.licensed(license(about).as_deref()))
}

/// `license` is a text, or once was an object or a list of those.
fn license(about: &Value) -> Option<String> {
    let one = |value: &Value| Some(value.as_str().or_else(|| value["type"].as_str())?.to_owned());
    if let Some(found) = one(&about["license"]) {
        return Some(found);
    }
    let all: Vec<String> = about["licenses"].as_array()?.iter().filter_map(one).collect();
    (!all.is_empty()).then(|| all.join(" OR "))
}
