//! Exchanging credentials for tokens.
//!
//! Source: the distribution project's token authentication (GET) and OAuth2 (POST) specifications.

use std::time::{Duration, Instant};

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use url::form_urlencoded;

use super::credentials::{IssuedToken, Secret};
use super::endpoint::{Endpoint, Transport, authority};
use super::host::{trusts_realm, without_port};
use super::http::{read_limited, send};
use super::{Credential, Error};

/// How we call ourselves to token servers.
const CLIENT_ID: &str = "rbuild";
/// How long a token is valid that does not say so; the specification's value.
const DEFAULT_EXPIRY: Duration = Duration::from_secs(60);
/// A token is not used for longer than this.
const LONGEST_EXPIRY: Duration = Duration::from_secs(86_400);
/// The largest answer of a token server, in bytes.
const ANSWER_LIMIT: u64 = 1 << 20;
/// A token this young that is refused will not be accepted if fetched again.
const FRESH: Duration = Duration::from_secs(10);

/// What lets requests through until it expires.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) value: Secret,
    pub(super) expires: Instant,
    fetched: Instant,
}

impl Token {
    /// A token that was issued just now.
    pub(super) fn new(issued: IssuedToken) -> Self {
        let valid = if issued.valid.is_zero() { DEFAULT_EXPIRY } else { issued.valid.min(LONGEST_EXPIRY) };
        let fetched = Instant::now();
        // A tenth of the time is left as a margin for slow requests.
        Self { value: issued.token, expires: fetched + valid * 9 / 10, fetched }
    }

    /// Whether it was fetched just now.
    pub(super) fn is_fresh(&self) -> bool {
        self.fetched.elapsed() < FRESH
    }
}

/// A token to fetch.
#[derive(Debug)]
pub(super) struct TokenRequest<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) realm: &'a str,
    pub(super) service: Option<&'a str>,
    pub(super) scopes: &'a [String],
    pub(super) credential: Option<&'a Credential>,
}

/// A token server's answer, GET or POST.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Fetches a token, with the credentials if the realm may have them, else as anybody.
pub(super) async fn fetch(transport: &Transport, request: &TokenRequest<'_>) -> Result<Token, Error> {
    let host = &request.endpoint.host;
    let protocol = |reason: &str| Error::Protocol { host: host.clone(), reason: reason.to_owned() };
    let realm: Url = request.realm.parse().map_err(|_| protocol("the realm is no URL"))?;
    if !matches!(realm.scheme(), "http" | "https") {
        return Err(protocol("the realm is no HTTP URL"));
    }
    let trusted = is_trusted(transport, request.endpoint, &realm);
    let credential = request.credential.filter(|_| trusted);
    let result = match credential {
        Some(Credential::IdentityToken(token)) => {
            post(
                transport,
                request,
                &realm,
                &[("grant_type", "refresh_token"), ("refresh_token", token.expose())],
            )
            .await
        }
        Some(Credential::Password { username, password }) => {
            match get(transport, request, &realm, Some((username, password))).await {
                // Docker Hub knows GET only, others (GCR, Artifactory) POST only.
                Err(Refused::Status(
                    StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNAUTHORIZED,
                )) => {
                    let form =
                        [("grant_type", "password"), ("username", username), ("password", password.expose())];
                    post(transport, request, &realm, &form).await
                }
                other => other,
            }
        }
        None => get(transport, request, &realm, None).await,
    };
    result.map_err(|refused| match refused {
        Refused::Error(error) => error,
        Refused::Status(status) => {
            refusal(host, &realm, status, credential.is_some(), request.credential.is_some())
        }
    })
}

/// Whether the credentials of a request may go to its realm.
pub(super) fn may_have_credentials(transport: &Transport, request: &TokenRequest<'_>) -> bool {
    request.realm.parse::<Url>().is_ok_and(|realm| is_trusted(transport, request.endpoint, &realm))
}

/// Whether the realm may have the endpoint's credentials: see [`super::HostConfig::token_hosts`]. Never downwards from TLS.
fn is_trusted(transport: &Transport, endpoint: &Endpoint, realm: &Url) -> bool {
    let realm_host = authority(realm);
    let secure = realm.scheme() == "https" || endpoint.scheme == "http";
    let trusted = transport.token_hosts(&endpoint.host);
    secure && trusts_realm(without_port(&endpoint.host), without_port(&realm_host), &trusted)
}

/// A token server's refusal, before it is known what to make of it.
enum Refused {
    Status(StatusCode),
    Error(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

fn refusal(host: &str, realm: &Url, status: StatusCode, shown: bool, had: bool) -> Error {
    let server = authority(realm);
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => Error::Unauthorized {
            host: host.to_owned(),
            reason: match (shown, had) {
                (true, _) => "wrong user name or password".to_owned(),
                (false, true) => {
                    format!("its token server `{server}` is another host, so it got no credentials")
                }
                (false, false) => "authentication required; log in first".to_owned(),
            },
        },
        StatusCode::TOO_MANY_REQUESTS => Error::RateLimited { host: server, retry_after: None },
        status => Error::Status { host: server, status: status.as_u16(), message: "no token".to_owned() },
    }
}

async fn get(
    transport: &Transport,
    request: &TokenRequest<'_>,
    realm: &Url,
    login: Option<(&String, &Secret)>,
) -> Result<Token, Refused> {
    let mut url = realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = request.service {
            query.append_pair("service", service);
        }
        for scope in request.scopes {
            query.append_pair("scope", scope);
        }
        if let Some((username, _)) = login {
            query.append_pair("account", username);
        }
    }
    let http = transport.http_for(&url)?;
    let mut call = http.request(Method::GET, url);
    if let Some((username, password)) = login {
        call = call.basic_auth(username, Some(password.expose()));
    }
    answer(transport, realm, call).await
}

async fn post(
    transport: &Transport,
    request: &TokenRequest<'_>,
    realm: &Url,
    grant: &[(&str, &str)],
) -> Result<Token, Refused> {
    let body = form(request, grant);
    let http = transport.http_for(realm)?;
    let call = http
        .request(Method::POST, realm.clone())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(body);
    answer(transport, realm, call).await
}

fn form(request: &TokenRequest<'_>, grant: &[(&str, &str)]) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(grant).append_pair("client_id", CLIENT_ID);
    if let Some(service) = request.service {
        form.append_pair("service", service);
    }
    if !request.scopes.is_empty() {
        form.append_pair("scope", &request.scopes.join(" "));
    }
    form.finish()
}

/// Sends and reads the answer. Redirects are not followed: they could lead the credentials astray.
async fn answer(transport: &Transport, realm: &Url, call: reqwest::RequestBuilder) -> Result<Token, Refused> {
    let host = authority(realm);
    let stall = transport.tuning.stall_timeout;
    let response = send(&host, stall, call).await?;
    if !response.status().is_success() {
        return Err(Refused::Status(response.status()));
    }
    let body = read_limited(&host, response, ANSWER_LIMIT, "a token", stall).await?;
    let malformed = || Error::Protocol { host: host.clone(), reason: "there is no token in it".to_owned() };
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| malformed())?;
    let value =
        answer.token.or(answer.access_token).filter(|token| !token.is_empty()).ok_or_else(malformed)?;
    let valid = Duration::from_secs(answer.expires_in.unwrap_or_default());
    Ok(Token::new(IssuedToken { token: Secret::new(value), valid }))
}
