//! `key=value,key=value` as docker's flags have it.

use crate::client::ClientError;
use crate::csv::fields;

/// Splits into pairs; keys are lower-cased.
pub(super) fn pairs(flag: &str, text: &str) -> Result<Vec<(String, String)>, ClientError> {
    fields(text)?.iter().map(|field| pair(flag, field)).collect()
}

fn pair(flag: &str, field: &str) -> Result<(String, String), ClientError> {
    match field.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_lowercase(), value.to_owned())),
        None => Err(ClientError::Usage(format!(
            "invalid value `{field}` for `{flag}`: `{field}` is no KEY=VALUE"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_lower_cased() {
        assert!(pairs("--output", "type=oci,dest").is_err());
        assert!(pairs("--output", "\"type=oci").is_err());
        assert_eq!(pairs("--output", "Type=oci").unwrap(), [("type".to_owned(), "oci".to_owned())]);
    }
}
