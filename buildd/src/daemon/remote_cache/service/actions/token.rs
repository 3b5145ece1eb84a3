//! The token that a job has for the cache service: a JWT that names the branches whose caches it may use.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use serde::Deserialize;

use super::ActionsError;

/// The bit of a permission that allows reading.
const READ: u32 = 1;
/// The bit of a permission that allows writing.
const WRITE: u32 = 2;

/// What a token allows. The service checks it; its signature is not ours to verify.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    branches: Vec<Branch>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Branch {
    scope: String,
    permission: u32,
}

#[derive(Deserialize)]
struct Claims {
    ac: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

impl Token {
    /// Reads a token.
    ///
    /// # Errors
    /// One that says too little, or is not valid now.
    pub(super) fn parse(text: &str) -> Result<Self, ActionsError> {
        let malformed = || ActionsError::Token("it is no JWT");
        let mut parts = text.split('.');
        let claims = parts.nth(1).filter(|_| parts.count() == 1).ok_or_else(malformed)?;
        let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims.trim_end_matches('='));
        let claims: Claims =
            serde_json::from_slice(&json.map_err(|_| malformed())?).map_err(|_| malformed())?;
        let controls = claims.ac.ok_or(ActionsError::Token("it has no access controls"))?;
        let expires = claims.exp.ok_or(ActionsError::Token("it has no expiration time"))?;
        let begins = claims.nbf.ok_or(ActionsError::Token("it does not say since when it is valid"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        if now > expires {
            return Err(ActionsError::Token("it has expired"));
        }
        if now < begins {
            return Err(ActionsError::Token("it is not valid yet"));
        }
        let branches = serde_json::from_str(&controls)
            .map_err(|_| ActionsError::Token("its access controls are malformed"))?;
        Ok(Self { branches })
    }

    /// The branches whose caches may be read, the job's own first.
    pub(super) fn readable(&self) -> impl Iterator<Item = &str> {
        self.branches
            .iter()
            .filter(|branch| branch.permission & READ != 0)
            .map(|branch| branch.scope.as_str())
    }

    /// The branch whose cache is written.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn writable(&self) -> Result<&str, ActionsError> {
        let mut writable = self.branches.iter().filter(|branch| branch.permission & WRITE != 0);
        writable.next_back().map(|branch| branch.scope.as_str()).ok_or(ActionsError::ReadOnly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> Result<Token, String> {
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims);
        Token::parse(&format!("e30.{claims}.geheim")).map_err(|e| e.to_string())
    }

    #[test]
    fn what_a_token_allows() {
        let controls = r#"[{\"Scope\":\"refs/heads/x\",\"Permission\":3},{\"Scope\":\"refs/heads/main\",\"Permission\":1}]"#;
        let read = token(&format!(r#"{{"ac":"{controls}","exp":9999999999,"nbf":1.5}}"#)).unwrap();
        assert_eq!(read.readable().collect::<Vec<_>>(), ["refs/heads/x", "refs/heads/main"]);
        assert_eq!(read.writable().unwrap(), "refs/heads/x");
        let only =
            token(r#"{"ac":"[{\"Scope\":\"a\",\"Permission\":1}]","exp":9999999999,"nbf":1}"#).unwrap();
        assert!(matches!(only.writable(), Err(ActionsError::ReadOnly)));
    }

    #[test]
    fn tokens_that_say_too_little() {
        for (claims, want) in [
            ("7", "it is no JWT"),
            (r#"{"exp":9999999999,"nbf":1}"#, "it has no access controls"),
            (r#"{"ac":"[]","nbf":1}"#, "it has no expiration time"),
            (r#"{"ac":"[]","exp":9999999999}"#, "it does not say since when it is valid"),
            (r#"{"ac":"[]","exp":1,"nbf":1}"#, "it has expired"),
            (r#"{"ac":"[]","exp":9999999999,"nbf":9999999998}"#, "it is not valid yet"),
            (r#"{"ac":"x","exp":9999999999,"nbf":1}"#, "its access controls are malformed"),
        ] {
            let error = token(claims).unwrap_err();
            assert_eq!(error, format!("the token for github actions cache cannot be used: {want}"));
        }
        assert!(Token::parse("geheim").is_err());
    }
}
