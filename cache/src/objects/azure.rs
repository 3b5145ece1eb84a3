//! What opendal does not do: making a container.

use std::str::FromStr;

use bytes::Bytes;
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
        let failed = |reason: String| ObjectError::Failed {
            store: store.to_owned(),
            object: self.container.clone(),
            reason,
        };
        let mut credentials =
            ProvideCredentialChain::<Credential>::new().push(DefaultCredentialProvider::new());
        if let Some(key) = &self.key {
            credentials =
                credentials.push_front(StaticCredentialProvider::new_shared_key(&self.account, key.expose()));
        }
        let context =
            Context::new().with_file_read(TokioFileRead).with_env(OsEnv).with_http_send(Http(http.clone()));
        let signer = Signer::new(context, credentials, RequestSigner::new());
        let url = format!("{}/{}?restype=container", self.account_url.trim_end_matches('/'), self.container);
        let uri = http::Uri::from_str(&url).map_err(|e| failed(e.to_string()))?;
        for method in [http::Method::GET, http::Method::PUT] {
            let request = http::Request::builder()
                .method(method.clone())
                .uri(uri.clone())
                .header(VERSION.0, VERSION.1)
                .header(http::header::CONTENT_LENGTH, 0);
            let (mut parts, ()) = request.body(()).map_err(|e| failed(e.to_string()))?.into_parts();
            signer.sign(&mut parts, None).await.map_err(|e| failed(e.to_string()))?;
            let request = reqwest::Request::try_from(http::Request::from_parts(parts, Bytes::new()));
            let sent = match request {
                Ok(request) => http.execute(request).await,
                Err(error) => Err(error),
            };
            let response = sent.map_err(|e| failed(e.without_url().to_string()))?;
            match response.status().as_u16() {
                200..300 => return Ok(()),
                // Not there yet; or somebody was quicker.
                404 if method == http::Method::GET => {}
                409 => return Ok(()),
                403 | 401 => {
                    return Err(ObjectError::Denied {
                        store: store.to_owned(),
                        object: self.container.clone(),
                        reason: code(&response),
                    });
                }
                status => return Err(failed(format!("{} ({status})", code(&response)))),
            }
        }
        Err(failed("it was neither there nor could it be made".to_owned()))
    }
}

/// The service's own word.
fn code(response: &reqwest::Response) -> String {
    let code = response.headers().get("x-ms-error-code").and_then(|value| value.to_str().ok());
    code.unwrap_or("no word why").to_owned()
}
