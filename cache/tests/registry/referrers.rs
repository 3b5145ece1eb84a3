//! What registries hold about a manifest.

use cache::oci::{Descriptor, Index, Reference, media_type};
use cache::registry::Error;
use solver::Digest;

use crate::anonymous;
use crate::fake::{Fake, Reply};

const SIGNATURE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// A list with one signature, as registries write it.
fn list() -> Vec<u8> {
    let mut entry = Descriptor::of(media_type::OCI_MANIFEST, b"a signature");
    entry.artifact_type = Some(SIGNATURE.to_owned());
    Index::new(vec![entry]).to_json()
}

async fn ask(server: &Fake) -> Result<Vec<Descriptor>, Error> {
    let reference = Reference::parse(&format!("{}/repo:tag", server.host)).unwrap();
    anonymous().referrers(&reference, &Digest::of(b"manifest")).await
}

#[tokio::test]
async fn lists_of_their_own_and_under_a_tag() {
    let digest = Digest::of(b"manifest").to_string();
    let places = [format!("/referrers/{digest}"), format!("/manifests/{}", digest.replace(':', "-"))];
    for (at, asked) in [(0, 1), (1, 2)] {
        let place = places[at].clone();
        let server = Fake::start(move |request| match request.line().ends_with(&place) {
            true => Reply::ok(list()).header("Content-Type", media_type::OCI_INDEX),
            false => Reply::new(404),
        });
        let found = ask(&server).await.unwrap();
        assert_eq!(found[0].artifact_type.as_deref(), Some(SIGNATURE));
        assert_eq!(server.lines().len(), asked, "{:?}", server.lines());
    }
}

#[tokio::test]
async fn none_and_nonsense() {
    let none = Fake::start(|_| Reply::new(404));
    assert_eq!(ask(&none).await.unwrap(), []);
    let nonsense = Fake::start(|_| Reply::ok("{}").header("Content-Type", media_type::OCI_INDEX));
    assert!(matches!(ask(&nonsense).await, Err(Error::Document { .. })));
    let broken = Fake::start(|_| Reply::new(403));
    assert!(matches!(ask(&broken).await, Err(Error::Denied { .. } | Error::Unauthorized { .. })));
}
