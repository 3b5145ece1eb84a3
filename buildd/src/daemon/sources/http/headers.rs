//! Headers of a download: those that the source asks for, and the client's secrets that let it in.

use std::sync::Arc;

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use serde_json::{Value, json};
use solver::op::{SourceOp, attr};
use solver::{ExecError, VertexContext};

use super::coding;
use crate::daemon::secrets::secret;
use crate::session::SessionManager;

/// The headers that a source may set, with the names that they have in BuildKit's keys; others are left out, as in BuildKit.
const ALLOWED: [(HeaderName, &str); 2] = [(ACCEPT, "Accept"), (USER_AGENT, "User-Agent")];
/// With the host after it: the secret that is the whole value of `Authorization` for all of the host's files.
const HEADER_OF_HOST: &str = "HTTP_AUTH_HEADER_";
/// With the host after it: the secret that is a bearer token for all of the host's files.
const TOKEN_OF_HOST: &str = "HTTP_AUTH_TOKEN_";

/// What is to be sent along cannot be. No value is told: it may be a secret.
#[derive(Debug, thiserror::Error)]
enum HeaderError {
    #[error("the value of `{0}` cannot stand in a header")]
    Value(String),
    #[error("failed to retrieve HTTP auth secret {id}")]
    Secret {
        id: String,
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}

/// What is sent along with the request for a file.
///
/// # Errors
/// A secret that the source names and no client has; values that no header can have.
pub(super) async fn headers(
    op: &SourceOp,
    sessions: &SessionManager,
    cx: &VertexContext,
) -> Result<HeaderMap, ExecError> {
    let mut headers = asked_for(op).map_err(ExecError::failed)?;
    let named = op.attrs.get(attr::HTTP_AUTH_HEADER_SECRET).filter(|id| !id.is_empty());
    let found = match named {
        Some(id) => match secret(sessions, id, false, cx).await {
            Ok(value) => value.map(|value| (id.clone(), value)),
            Err(ExecError::Failed(source)) => {
                return Err(ExecError::failed(HeaderError::Secret { id: id.clone(), source }));
            }
            Err(error) => return Err(error),
        },
        None => of_host(op, sessions, cx).await,
    };
    if let Some((id, value)) = found {
        let mut value =
            HeaderValue::from_bytes(&value).map_err(|_| ExecError::failed(HeaderError::Value(id)))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

/// The headers among the source's attributes.
fn asked_for(op: &SourceOp) -> Result<HeaderMap, HeaderError> {
    let mut headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(coding::ACCEPTED))]);
    for (name, value) in &op.attrs {
        let Some(name) = name.strip_prefix(attr::HTTP_HEADER_PREFIX) else { continue };
        let Some((allowed, _)) = ALLOWED.iter().find(|(_, allowed)| name.eq_ignore_ascii_case(allowed))
        else {
            continue;
        };
        let value = HeaderValue::from_str(value).map_err(|_| HeaderError::Value(name.to_owned()))?;
        headers.insert(allowed, value);
    }
    Ok(headers)
}

/// The headers among the source's attributes as BuildKit's keys have them, sorted by their names.
pub(super) fn key_fields(op: &SourceOp) -> Vec<Value> {
    let set = |(_, allowed): &(HeaderName, &'static str)| {
        let is_it = |name: &str| {
            let name = name.strip_prefix(attr::HTTP_HEADER_PREFIX);
            name.is_some_and(|name| name.eq_ignore_ascii_case(allowed))
        };
        let values = op.attrs.iter().filter(|(name, _)| is_it(name)).map(|(_, value)| value);
        let allowed = *allowed;
        values.map(|value| json!({ "Name": allowed, "Value": value })).collect::<Vec<_>>()
    };
    ALLOWED.iter().flat_map(set).collect()
}

/// What a client keeps for the source's host, if it does; a token counts more. Who has no session has no secrets either.
async fn of_host(op: &SourceOp, sessions: &SessionManager, cx: &VertexContext) -> Option<(String, Vec<u8>)> {
    let url = reqwest::Url::parse(&op.identifier).ok()?;
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    let token = format!("{TOKEN_OF_HOST}{host}");
    if let Ok(Some(value)) = secret(sessions, &token, true, cx).await {
        return Some((token, [b"Bearer ", &value[..]].concat()));
    }
    let header = format!("{HEADER_OF_HOST}{host}");
    let value = secret(sessions, &header, true, cx).await.ok()??;
    Some((header, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_headers_are_passed_on() {
        let attrs = [("accept", "a/b"), ("User-Agent", "me"), ("authorization", "x"), ("host", "h")];
        let attrs = attrs.map(|(name, value)| (format!("http.header.{name}"), value.to_owned())).into();
        let headers = asked_for(&SourceOp { identifier: "https://h/f".to_owned(), attrs }).unwrap();
        assert_eq!(headers.len(), 3, "and accept-encoding");
        assert_eq!((headers[ACCEPT].as_bytes(), headers[USER_AGENT].as_bytes()), (&b"a/b"[..], &b"me"[..]));
        let attrs = [("http.header.accept".to_owned(), "a\r\nb: c".to_owned())].into();
        assert!(asked_for(&SourceOp { identifier: "https://h/f".to_owned(), attrs }).is_err());
    }
}
