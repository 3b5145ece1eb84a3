//! `key=value,key=value` as docker's flags have it: one record of RFC 4180.

use crate::client::ClientError;

/// Splits at commas; a field in double quotes may hold commas, and `""` for a quote.
pub(super) fn fields(text: &str) -> Result<Vec<String>, ClientError> {
    let mut fields = vec![String::new()];
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(ch) = chars.next() {
        let field = fields.last_mut().expect("starts with one field");
        match ch {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(String::new()),
            ch => field.push(ch),
        }
    }
    match quoted {
        true => Err(ClientError::Usage(format!("missing closing quote in `{text}`"))),
        false => Ok(fields),
    }
}

/// Splits into pairs; keys are lower-cased.
pub(super) fn pairs(flag: &str, text: &str) -> Result<Vec<(String, String)>, ClientError> {
    fields(text)?.iter().map(|field| pair(flag, field)).collect()
}

fn pair(flag: &str, field: &str) -> Result<(String, String), ClientError> {
    match field.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_lowercase(), value.to_owned())),
        None => Err(ClientError::Usage(format!("invalid value `{field}` for `{flag}`: want KEY=VALUE"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_hold_commas() {
        assert_eq!(fields(r#"type=oci,"dest=a,b ""c""",x"#).unwrap(), ["type=oci", r#"dest=a,b "c""#, "x"]);
        assert_eq!(fields("").unwrap(), [""]);
        assert_eq!(fields(r#"a"b"#).unwrap(), [r#"a"b"#]);
        assert!(fields(r#""a"#).is_err());
        assert!(pairs("--output", "type=oci,dest").is_err());
        assert_eq!(pairs("--output", "Type=oci").unwrap(), [("type".to_owned(), "oci".to_owned())]);
    }
}
