//! Requests with authorisation, redirects and time limits.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use super::challenge::Challenge;
use super::endpoint::{Endpoint, authority};
use super::{Client, Error};

/// The most redirects that are followed.
const MAX_REDIRECTS: usize = 10;
/// The most of an error's body that is read, in bytes.
const ERROR_LIMIT: u64 = 64 << 10;
/// The most of a registry's own words that is shown, in characters.
const MESSAGE_LIMIT: usize = 300;

/// A request that can be made more than once.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    /// The token's scopes.
    pub(super) scopes: &'a [String],
    /// For the response to begin.
    pub(super) timeout: Duration,
    /// Adds headers and body; called anew for each attempt.
    pub(super) prepare: &'a (dyn Fn(RequestBuilder) -> RequestBuilder + Send + Sync),
}

impl Client {
    /// Makes a request, logging in when asked to and following redirects of reads.
    ///
    /// Any status but 401 and followed redirects is returned for the caller to judge.
    pub(super) async fn call(&self, endpoint: &Endpoint, call: Call<'_>) -> Result<Response, Error> {
        let mut url = call.url.clone();
        let mut logged_in = 0;
        let mut redirects = 0;
        loop {
            let own = endpoint.owns(&url);
            let http = if own { endpoint.http.clone() } else { self.transport.http_for(&url)? };
            let mut request = (call.prepare)(http.request(call.method.clone(), url.clone()));
            let mut shown = None;
            if own {
                shown = self.auth.header(&self.transport, endpoint, call.scopes).await?;
            }
            if let Some(header) = &shown {
                request = request.header(AUTHORIZATION, header.clone());
            }
            let response = send(&authority(&url), call.timeout, request).await?;
            if response.status() == StatusCode::UNAUTHORIZED && own && logged_in < 2 {
                logged_in += 1;
                let headers = response.headers().get_all(WWW_AUTHENTICATE);
                let challenge = Challenge::choose(headers.iter().filter_map(|value| value.to_str().ok()));
                self.auth
                    .challenged(&self.transport, endpoint, call.scopes, shown.as_ref(), challenge)
                    .await?;
                continue;
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let Some(next) = redirect(&call.method, &url, response.status(), location)? else {
                return Ok(response);
            };
            redirects += 1;
            if redirects > MAX_REDIRECTS {
                return Err(Error::Redirect { host: authority(&url), reason: "too many redirects" });
            }
            url = next;
        }
    }
}

/// Where a redirected read goes on; writes are never redirected.
fn redirect(
    method: &Method,
    from: &Url,
    status: StatusCode,
    location: Option<&str>,
) -> Result<Option<Url>, Error> {
    let fail = |reason| Error::Redirect { host: authority(from), reason };
    let followed = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    if !followed || !matches!(*method, Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let location = location.ok_or_else(|| fail("it does not say where to"))?;
    let mut next = from.join(location).map_err(|_| fail("the new place is no URL"))?;
    if !matches!(next.scheme(), "http" | "https") {
        return Err(fail("the new place is not on HTTP"));
    }
    if from.scheme() == "https" && next.scheme() == "http" {
        return Err(fail("it leads from HTTPS to HTTP"));
    }
    // User and password in a redirect are not ours to send.
    if next.set_username("").and_then(|()| next.set_password(None)).is_err() {
        return Err(fail("the new place has no host"));
    }
    Ok(Some(next))
}

/// Sends a request and waits for the response to begin.
pub(super) async fn send(host: &str, timeout: Duration, request: RequestBuilder) -> Result<Response, Error> {
    match tokio::time::timeout(timeout, request.send()).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(Error::from_http(host, error)),
        Err(_) => Err(Error::Stalled { host: host.to_owned(), limit: timeout }),
    }
}

/// Reads a body that must not be larger than `limit` bytes.
pub(super) async fn read_limited(
    host: &str,
    mut response: Response,
    limit: u64,
    what: &'static str,
    stall: Duration,
) -> Result<Vec<u8>, Error> {
    let too_large = || Error::TooLarge { host: host.to_owned(), what, limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    loop {
        let chunk = match tokio::time::timeout(stall, response.chunk()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Ok(body),
            Ok(Err(error)) => return Err(Error::from_http(host, error)),
            Err(_) => return Err(Error::Stalled { host: host.to_owned(), limit: stall }),
        };
        if body.len() as u64 + chunk.len() as u64 > limit {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
}

/// The error that an unexpected status stands for. `not_found` makes the one for 404.
pub(super) async fn failure(
    endpoint: &Endpoint,
    path: &str,
    response: Response,
    stall: Duration,
    not_found: impl FnOnce() -> Error,
) -> Error {
    let host = authority(response.url());
    let status = response.status();
    match status {
        StatusCode::NOT_FOUND => return not_found(),
        StatusCode::TOO_MANY_REQUESTS => {
            let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
            return Error::RateLimited { host, retry_after };
        }
        StatusCode::UNAUTHORIZED => {
            return Error::Unauthorized { host, reason: "it refuses the credentials".to_owned() };
        }
        _ => {}
    }
    let body = read_limited(&host, response, ERROR_LIMIT, "an error", stall).await.unwrap_or_default();
    let message = message(&body);
    match status {
        StatusCode::FORBIDDEN => {
            Error::Denied { host, repository: format!("{}{path}", endpoint.prefix), message }
        }
        _ => Error::Status { host, status: status.as_u16(), message },
    }
}

/// The registry's own words, if they are in the format of the distribution specification.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Body {
        errors: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(body) = serde_json::from_slice::<Body>(body) else { return String::new() };
    let Some(first) = body.errors.first() else { return String::new() };
    let text = match first.message.is_empty() {
        true => first.code.clone(),
        false => format!("{} ({})", first.message, first.code),
    };
    text.chars().filter(|c| !c.is_control()).take(MESSAGE_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_never_leave_https() {
        let follow = |method: Method, status, location| {
            let from = "https://a.example/v2/x/blobs/y".parse().unwrap();
            let next = redirect(&method, &from, StatusCode::from_u16(status).unwrap(), location);
            next.map(|next| next.map(String::from)).map_err(|error| error.to_string())
        };
        let refused = |reason: &str| {
            Err(format!("registry `a.example` redirects in a way that is not followed: {reason}"))
        };
        let cases = [
            (
                Method::GET,
                307,
                Some("https://b.example/z?s=1"),
                Ok(Some("https://b.example/z?s=1".to_owned())),
            ),
            (Method::HEAD, 302, Some("/z"), Ok(Some("https://a.example/z".to_owned()))),
            (Method::GET, 301, Some("//b.example/z"), Ok(Some("https://b.example/z".to_owned()))),
            (Method::GET, 307, Some("https://me:pw@b.example/"), Ok(Some("https://b.example/".to_owned()))),
            (Method::GET, 307, Some("http://a.example/z"), refused("it leads from HTTPS to HTTP")),
            (Method::GET, 307, Some("file:///etc/passwd"), refused("the new place is not on HTTP")),
            (Method::GET, 307, None, refused("it does not say where to")),
            (Method::PUT, 307, Some("https://b.example/"), Ok(None)),
            (Method::GET, 304, Some("https://b.example/"), Ok(None)),
        ];
        for (method, status, location, expected) in cases {
            assert_eq!(follow(method, status, location), expected, "{status} {location:?}");
        }
    }

    #[test]
    fn words_of_the_registry() {
        let cases = [
            (r#"{"errors":[{"code":"DENIED","message":"no \u001b[31mway"}]}"#, "no [31mway (DENIED)"),
            (r#"{"errors":[{"code":"UNKNOWN"}]}"#, "UNKNOWN"),
            (r#"{"errors":[]}"#, ""),
            ("<html>", ""),
        ];
        for (body, expected) in cases {
            assert_eq!(message(body.as_bytes()), expected);
        }
    }
}
