//! What opendal does not do: making a container, and making a blob young.

use std::str::FromStr;

use bytes::Bytes;
use http::Method;
use reqsign_azure_storage::{Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider};
use reqsign_core::{Context, HttpSend, OsEnv, ProvideCredentialChain, Signer};
use reqsign_file_read_tokio::TokioFileRead;

use super::{AzureContainer, ObjectError};

/// The version of the protocol.
const VERSION: (&str, &str) = ("x-ms-version", "2021-12-02");

/// Sends what credentials ask for.
#[derive(Debug, Clone)]
struct Http(reqwest::Client);

impl HttpSend for Http {
    async fn http_send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, reqsign_core::Error> {
        let failed = |error: reqwest::Error| {
            reqsign_core::Error::unexpected("cannot send a request").with_source(error.without_url())
        };
        let request = reqwest::Request::try_from(request).map_err(failed)?;
        let response = self.0.execute(request).await.map_err(failed)?;
        let status = response.status();
        let headers = response.headers().clone();
        let mut answer = http::Response::new(response.bytes().await.map_err(failed)?);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}

impl AzureContainer {
    /// Makes the container unless it is there.
    pub(super) async fn create(&self, http: &reqwest::Client, store: &str) -> Result<(), ObjectError> {
        let call = Call { container: self, http, store, object: &self.container };
        for method in [Method::GET, Method::PUT] {
            let response = call.send(&method, "?restype=container").await?;
            match response.status().as_u16() {
                200..300 => return Ok(()),
                // Not there yet; or somebody was quicker.
                404 if method == Method::GET => {}
                409 => return Ok(()),
                _ => return Err(call.refused(&response)),
            }
        }
        Err(call.failed("it was neither there nor could it be made".to_owned()))
    }

    /// Makes a blob as young as if it had been written now: by metadata, of which it has none before and after.
    pub(super) async fn touch(
        &self,
        http: &reqwest::Client,
        store: &str,
        blob: &str,
    ) -> Result<(), ObjectError> {
        let call = Call { container: self, http, store, object: blob };
        let response = call.send(&Method::PUT, &format!("/{}?comp=metadata", encoded(blob))).await?;
        match response.status().as_u16() {
            200..300 => Ok(()),
            404 => Err(ObjectError::Missing { store: store.to_owned(), object: blob.to_owned() }),
            _ => Err(call.refused(&response)),
        }
    }
}

/// A name in a path, where slashes are parts of it.
fn encoded(name: &str) -> String {
    let part = |part: &str| url::form_urlencoded::byte_serialize(part.as_bytes()).collect::<String>();
    let parts: Vec<String> = name.split('/').map(|name| part(name).replace('+', "%20")).collect();
    parts.join("/")
}

/// What is asked of the service, and what for.
struct Call<'a> {
    container: &'a AzureContainer,
    http: &'a reqwest::Client,
    store: &'a str,
    object: &'a str,
}

impl Call<'_> {
    /// Sends a request without a body; `rest` follows the container's name.
    async fn send(&self, method: &Method, rest: &str) -> Result<reqwest::Response, ObjectError> {
        let AzureContainer { account_url, account, container, key } = self.container;
        let mut credentials =
            ProvideCredentialChain::<Credential>::new().push(DefaultCredentialProvider::new());
        if let Some(key) = key {
            credentials =
                credentials.push_front(StaticCredentialProvider::new_shared_key(account, key.expose()));
        }
        let context = Context::new()
            .with_file_read(TokioFileRead)
            .with_env(OsEnv)
            .with_http_send(Http(self.http.clone()));
        let signer = Signer::new(context, credentials, RequestSigner::new());
        let url = format!("{}/{container}{rest}", account_url.trim_end_matches('/'));
        let uri = http::Uri::from_str(&url).map_err(|e| self.failed(e.to_string()))?;
        let request = http::Request::builder()
            .method(method.clone())
            .uri(uri)
            .header(VERSION.0, VERSION.1)
            .header(http::header::CONTENT_LENGTH, 0);
        let (mut parts, ()) = request.body(()).map_err(|e| self.failed(e.to_string()))?.into_parts();
        signer.sign(&mut parts, None).await.map_err(|e| self.failed(e.to_string()))?;
        let request = reqwest::Request::try_from(http::Request::from_parts(parts, Bytes::new()));
        let sent = match request {
            Ok(request) => self.http.execute(request).await,
            Err(error) => Err(error),
        };
        sent.map_err(|e| self.failed(e.without_url().to_string()))
    }

    fn refused(&self, response: &reqwest::Response) -> ObjectError {
        match response.status().as_u16() {
            401 | 403 => ObjectError::Denied {
                store: self.store.to_owned(),
                object: self.object.to_owned(),
                reason: code(response),
            },
            status => self.failed(format!("{} ({status})", code(response))),
        }
    }

    fn failed(&self, reason: String) -> ObjectError {
        ObjectError::Failed { store: self.store.to_owned(), object: self.object.to_owned(), reason }
    }
}

/// The service's own word.
fn code(response: &reqwest::Response) -> String {
    let code = response.headers().get("x-ms-error-code").and_then(|value| value.to_str().ok());
    code.unwrap_or("no word why").to_owned()
}
