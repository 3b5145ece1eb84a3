//! Lists as docker's flags and BuildKit's attributes have them: one record of RFC 4180.

/// A quote that does not end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("missing closing quote in `{0}`")]
pub(crate) struct OpenQuote(String);

/// Splits at commas; a field in double quotes may hold commas, and `""` for a quote.
///
/// # Errors
/// A quote that does not end.
pub(crate) fn fields(text: &str) -> Result<Vec<String>, OpenQuote> {
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
        true => Err(OpenQuote(text.to_owned())),
        false => Ok(fields),
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
    }
}
