//! Registries that fail, lie or fall silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cache::oci::{Descriptor, Reference, media_type};
use cache::registry::{Anonymous, Error, NoCache, Registries, Tuning};
use solver::Digest;

use crate::fake::{Fake, Reply};
use crate::{anonymous, image, image_server, impatient, read};

/// A server whose first answers come from `first`, the later ones are the blob, with ranges.
fn blob_server(blob: &'static [u8], first: Vec<Reply>, ranges: bool) -> Fake {
    let count = AtomicUsize::new(0);
    Fake::start(move |request| {
        if let Some(reply) = first.get(count.fetch_add(1, Ordering::Relaxed)) {
            return reply.clone();
        }
        let start = request
            .header("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        match start.filter(|_| ranges) {
            None => Reply::ok(blob),
            Some(start) => Reply::new(206)
                .header("Content-Range", format!("bytes {start}-{}/{}", blob.len() - 1, blob.len()))
                .body(&blob[start..]),
        }
    })
}

fn repository(server: &Fake) -> Reference {
    Reference::parse(&format!("{}/repo:tag", server.host)).unwrap()
}

async fn fetch(server: &Fake, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    read(anonymous().fetch_blob(&repository(server), descriptor).unwrap()).await
}

const BLOB: &[u8] = b"0123456789 the quick brown fox jumps over the lazy dog";

#[tokio::test]
async fn faults_that_pass_are_survived() {
    let descriptor = Descriptor::of(media_type::OCI_LAYER, BLOB);
    let cases: Vec<(&str, Vec<Reply>)> = vec![
        ("none", vec![]),
        ("429", vec![Reply::new(429).header("Retry-After", "0")]),
        ("500, 503", vec![Reply::new(500), Reply::new(503)]),
        ("cut", vec![Reply::ok(BLOB).cut(10)]),
        (
            "cut twice",
            vec![
                Reply::ok(BLOB).cut(10),
                Reply::new(206).header("Content-Range", "bytes 10-53/54").body(&BLOB[10..]).cut(5),
            ],
        ),
        ("silent", vec![Reply::ok(BLOB).cut(7).hang()]),
        ("cut before the first byte", vec![Reply::ok(BLOB).cut(0)]),
    ];
    for (name, first) in cases {
        for ranges in [true, false] {
            let server = blob_server(BLOB, first.clone(), ranges);
            assert_eq!(fetch(&server, &descriptor).await.unwrap(), BLOB, "{name}, ranges: {ranges}");
            let expected = first.len() + 1;
            assert_eq!(server.requests().len(), expected, "{name}: {:?}", server.requests());
        }
    }
}

#[tokio::test]
async fn a_broken_blob_is_resumed_where_it_broke() {
    let descriptor = Descriptor::of(media_type::OCI_LAYER, BLOB);
    let server = blob_server(BLOB, vec![Reply::ok(BLOB).cut(10)], true);
    fetch(&server, &descriptor).await.unwrap();
    let ranges: Vec<_> = server.requests().iter().map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=10-".to_owned())]);
}

#[tokio::test]
async fn lies_are_found_out() {
    let descriptor = Descriptor::of(media_type::OCI_LAYER, BLOB);
    let other = b"0123456789 the quick brown fox jumps over the lazy cat";
    let longer = [BLOB, b"!"].concat();
    let shorter = &BLOB[..BLOB.len() - 1];
    let outcome = |body: &[u8]| {
        let body = body.to_vec();
        let server = Fake::start(move |_| Reply::ok(body.clone()));
        let descriptor = descriptor.clone();
        async move { fetch(&server, &descriptor).await.unwrap_err() }
    };
    let error = outcome(other).await;
    assert!(matches!(error, Error::DigestMismatch { actual, .. } if actual == Digest::of(other)), "{error}");
    let error = outcome(&longer).await;
    assert!(matches!(error, Error::SizeMismatch { actual, .. } if actual == descriptor.size + 1), "{error}");
    let error = outcome(shorter).await;
    assert!(matches!(error, Error::SizeMismatch { .. }), "{error}");
}

#[tokio::test]
async fn faults_that_stay_are_told() {
    let cases: Vec<(Reply, &str)> = vec![
        (Reply::new(429), "registry `HOST` limits the rate of requests"),
        (
            Reply::new(500).body(r#"{"errors":[{"code":"UNKNOWN","message":"disk full"}]}"#),
            "registry `HOST` answered 500: disk full (UNKNOWN)",
        ),
        (Reply::new(403), "registry `HOST` denies access to `repo`"),
        (Reply::new(401), "registry `HOST`: it refuses access and names no way to get it"),
        (Reply::ok(BLOB).cut(0).hang(), "registry `HOST` did not answer for 0.4 s"),
        (
            Reply::new(302).header("Location", "ftp://x/y"),
            "registry `HOST` redirects in a way that is not followed: the new place is not on HTTP",
        ),
        (
            Reply::new(302).header("Location", "/v2/repo/again"),
            "registry `HOST` redirects in a way that is not followed: too many redirects",
        ),
    ];
    let descriptor = Descriptor::of(media_type::OCI_LAYER, BLOB);
    for (reply, expected) in cases {
        let server = Fake::start(move |_| reply.clone());
        let error = fetch(&server, &descriptor).await.unwrap_err();
        assert_eq!(error.to_string().replace(&server.host, "HOST"), expected);
    }
}

#[tokio::test]
async fn an_absent_host_is_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let reference = Reference::parse(&format!("127.0.0.1:{port}/repo")).unwrap();
    let error = anonymous().resolve(&reference, &"linux/amd64".parse().unwrap(), &NoCache).await.unwrap_err();
    assert!(error.is_unreachable());
    assert!(
        error.to_string().starts_with(&format!("registry `127.0.0.1:{port}` cannot be reached: ")),
        "{error}"
    );
}

async fn resolve(server: &Fake) -> Result<Digest, Error> {
    let resolved =
        anonymous().resolve(&repository(server), &"linux/amd64".parse().unwrap(), &NoCache).await?;
    Ok(resolved.digest)
}

#[tokio::test]
async fn documents_are_verified() {
    let server = image_server(|_, reply| reply);
    assert_eq!(resolve(&server).await.unwrap(), image(b"layer")[2].0.digest);

    let server = image_server(|request, reply| match request.method.as_str() {
        "GET" if request.target.contains("/manifests/") => reply.body("{}"),
        _ => reply,
    });
    assert!(matches!(resolve(&server).await, Err(Error::DigestMismatch { .. })));

    let server = image_server(|request, reply| match request.target.contains("/blobs/") {
        true => reply.body("x".repeat(image(b"layer")[0].1.len())),
        false => reply,
    });
    assert!(matches!(resolve(&server).await, Err(Error::DigestMismatch { .. })));
}

#[tokio::test]
async fn a_confusing_content_type_is_refused() {
    let (descriptor, bytes) = image(b"layer")[2].clone();
    let server = Fake::start(move |_| {
        Reply::ok(bytes.clone())
            .header("Content-Type", media_type::OCI_INDEX)
            .header("Docker-Content-Digest", descriptor.digest.to_string())
    });
    assert!(matches!(resolve(&server).await, Err(Error::Document { .. })));
}

#[tokio::test]
async fn a_huge_manifest_is_not_read() {
    let server =
        Fake::start(|_| Reply::ok(vec![b' '; 5 << 20]).header("Content-Type", media_type::OCI_MANIFEST));
    assert!(matches!(resolve(&server).await, Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn a_push_starts_again_after_a_fault() {
    let puts = AtomicUsize::new(0);
    let server = Fake::start(move |request| match request.method.as_str() {
        "HEAD" => Reply::new(404),
        "POST" => Reply::new(202).header("Location", "/v2/repo/blobs/uploads/1?state=a%2Bb"),
        _ if puts.fetch_add(1, Ordering::Relaxed) == 0 => Reply::new(503),
        _ => Reply::new(201),
    });
    let descriptor = Descriptor::of(media_type::OCI_LAYER, BLOB);
    let source = Arc::new(Bytes::from_static(BLOB));
    anonymous().push_blob(&repository(&server), &descriptor, None, source).await.unwrap();
    let put = format!(
        "PUT /v2/repo/blobs/uploads/1?state=a%2Bb&digest={}",
        descriptor.digest.to_string().replace(':', "%3A")
    );
    let head = format!("HEAD /v2/repo/blobs/{}", descriptor.digest);
    let post = "POST /v2/repo/blobs/uploads/".to_owned();
    assert_eq!(server.lines(), [&head, &post, &put, &head, &post, &put].map(Clone::clone));
    assert_eq!(server.requests().last().unwrap().body, BLOB);
}

#[tokio::test]
async fn a_wait_longer_than_allowed_is_cut() {
    let descriptor = Descriptor::of(media_type::OCI_LAYER, BLOB);
    let server = blob_server(BLOB, vec![Reply::new(429).header("Retry-After", "86400")], true);
    let tuning = Tuning { max_backoff: Duration::from_millis(10), ..impatient() };
    let client = Registries::new(BTreeMap::new(), tuning).client(Arc::new(Anonymous));
    assert_eq!(read(client.fetch_blob(&repository(&server), &descriptor).unwrap()).await.unwrap(), BLOB);
}
