//! PHP: `composer.lock`, and `vendor/composer/installed.json`.

use serde_json::Value;

use super::file_kind::ReadError;
use super::package::{Ecosystem, Package};

/// The packages of either file.
///
/// # Errors
/// No JSON.
pub(super) fn packages(bytes: &[u8]) -> Result<Vec<Package>, ReadError> {
    let lock: Value = serde_json::from_slice(bytes).map_err(ReadError::Json)?;
    // Composer 1 wrote a mere list of what is installed.
    let lists = [&lock["packages"], &lock["packages-dev"], &lock];
    Ok(lists.into_iter().filter_map(Value::as_array).flatten().filter_map(package).collect())
}

fn package(about: &Value) -> Option<Package> {
    let package = Package::new(Ecosystem::Composer, about["name"].as_str()?, about["version"].as_str()?)?;
    // Of several licenses the user chooses one.
    let licenses: Vec<&str> =
        about["license"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    Some(package.licensed(Some(&licenses.join(" OR "))))
}
