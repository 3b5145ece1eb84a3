//! Serde helpers that keep what other tools wrote.

use serde::{Deserialize, Deserializer};

/// Reads `null` as the default value: Docker writes `"Env": null` for an empty list.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
