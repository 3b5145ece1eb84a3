//! The registry client against Debian's `docker-registry` and against a fake that misbehaves on purpose.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "registry/debian.rs"]
mod debian;
#[path = "registry/fake.rs"]
mod fake;
#[path = "registry/faults.rs"]
mod faults;
#[path = "registry/login.rs"]
mod login;
#[path = "registry/mirrors.rs"]
mod mirrors;
#[path = "registry/referrers.rs"]
mod referrers;
#[path = "registry/roundtrip.rs"]
mod roundtrip;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cache::oci::{Descriptor, Manifest, media_type};
use cache::registry::{
    Anonymous, Client, Credential, Credentials, CredentialsError, HostConfig, Registries, Tuning,
};

use fake::{Fake, Reply, Request};

/// Retries at once, and gives up on silence soon.
fn impatient() -> Tuning {
    Tuning {
        backoff: Duration::from_millis(5),
        max_backoff: Duration::from_millis(20),
        connect_timeout: Duration::from_secs(5),
        stall_timeout: Duration::from_millis(400),
        ..Tuning::default()
    }
}

/// A client without credentials.
fn anonymous() -> Client {
    Registries::new(BTreeMap::new(), impatient()).client(Arc::new(Anonymous))
}

/// A client of configured hosts.
fn configured(hosts: &[(&str, HostConfig)]) -> Client {
    let hosts = hosts.iter().map(|(host, config)| ((*host).to_owned(), config.clone())).collect();
    Registries::new(hosts, impatient()).client(Arc::new(Anonymous))
}

/// A client that knows a user and password, or an identity token, for every host.
fn logged_in(username: &str, secret: &str) -> Client {
    #[derive(Debug)]
    struct Fixed(Option<Credential>);
    #[async_trait]
    impl Credentials for Fixed {
        async fn lookup(&self, _host: &str) -> Result<Option<Credential>, CredentialsError> {
            Ok(self.0.clone())
        }
    }
    let credentials = Fixed(Credential::from_pair(username, secret));
    Registries::new(BTreeMap::new(), impatient()).client(Arc::new(credentials))
}

/// An image of one layer: config, layer and manifest, each with its descriptor.
fn image(layer: &[u8]) -> [(Descriptor, Vec<u8>); 3] {
    let diff_id = solver::Digest::of(layer);
    let config =
        format!(r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#)
            .into_bytes();
    let config_descriptor = Descriptor::of(media_type::OCI_CONFIG, &config);
    let layer_descriptor = Descriptor::of(media_type::OCI_LAYER, layer);
    let manifest = Manifest::new(config_descriptor.clone(), vec![layer_descriptor.clone()]).to_json();
    let manifest_descriptor = Descriptor::of(media_type::OCI_MANIFEST, &manifest);
    [(config_descriptor, config), (layer_descriptor, layer.to_vec()), (manifest_descriptor, manifest)]
}

/// Serves one image under any name, with `edit` applied to each answer.
fn image_server(edit: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static) -> Fake {
    let documents = image(b"layer");
    Fake::start(move |request| {
        let path = request.target.split('?').next().unwrap_or_default();
        let found = documents.iter().find(|(descriptor, _)| path.ends_with(&descriptor.digest.to_string()));
        let found = found.or_else(|| path.ends_with("/manifests/tag").then_some(&documents[2]));
        let reply = match found {
            None => Reply::new(404),
            Some((descriptor, bytes)) => Reply::ok(bytes.clone())
                .header("Content-Type", descriptor.media_type.clone())
                .header("Docker-Content-Digest", descriptor.digest.to_string()),
        };
        edit(request, reply)
    })
}

/// Reads a blob to its end.
async fn read(mut stream: cache::registry::BlobStream) -> Result<Vec<u8>, cache::registry::Error> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}
