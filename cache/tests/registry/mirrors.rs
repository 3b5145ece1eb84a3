//! Mirrors before a registry: they answer first, and the registry when they fail or lie.

use cache::oci::{Platform, Reference};
use cache::registry::{Client, Error, HostConfig, NoCache};
use solver::Digest;
use tokio::io::AsyncReadExt;

use crate::fake::{Fake, Reply};
use crate::{configured, image, image_server, read};

/// A client that asks `mirrors` before `origin`.
fn mirrored(origin: &Fake, mirrors: &[&Fake]) -> Client {
    let mirrors = mirrors.iter().map(|mirror| mirror.host.clone()).collect();
    configured(&[(&origin.host, HostConfig { mirrors, ..HostConfig::default() })])
}

fn repository(server: &Fake) -> Reference {
    Reference::parse(&format!("{}/repo:tag", server.host)).unwrap()
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

/// Serves the image, with `edit` applied to answers for blobs.
fn with_blobs(edit: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> Fake {
    image_server(move |request, reply| match request.target.contains("/blobs/") {
        true => edit(reply),
        false => reply,
    })
}

/// What mirrors do wrong with a blob of five bytes.
fn faulty() -> Vec<(&'static str, Fake)> {
    vec![
        ("absent", with_blobs(|_| Reply::new(404))),
        ("broken", with_blobs(|_| Reply::new(500))),
        ("refused", with_blobs(|_| Reply::new(403))),
        ("closed", with_blobs(|_| Reply::new(401))),
        ("cut", with_blobs(|reply| reply.cut(3))),
        ("silent", with_blobs(|reply| reply.cut(2).hang())),
        ("wrong", with_blobs(|reply| reply.body("LAYER"))),
        ("wrong and cut", with_blobs(|reply| reply.body("LAYER").cut(3))),
        ("longer", with_blobs(|reply| reply.body("layer and more"))),
        ("shorter", with_blobs(|reply| reply.body("lay"))),
        (
            "strange range",
            with_blobs(|_| Reply::new(206).header("Content-Range", "bytes 7-9/10").body("xyz")),
        ),
    ]
}

#[tokio::test]
async fn mirrors_answer_first_and_the_registry_when_they_fail() {
    let origin = image_server(|_, reply| reply);
    let (reference, platform) = (repository(&origin), amd64());

    let mirror = image_server(|_, reply| reply);
    let config = HostConfig { mirrors: vec![format!("{}/cache", mirror.host)], ..HostConfig::default() };
    configured(&[(&origin.host, config)]).resolve(&reference, &platform, &NoCache).await.unwrap();
    assert!(origin.requests().is_empty(), "the mirror has it all");
    assert_eq!(
        mirror.lines()[0],
        format!("HEAD /v2/cache/repo/manifests/tag?ns={}", origin.host.replace(':', "%3A"))
    );

    let empty = Fake::start(|_| Reply::new(404));
    mirrored(&origin, &[&empty]).resolve(&reference, &platform, &NoCache).await.unwrap();
    assert_eq!(origin.requests().len(), 3, "tag, manifest and config");

    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = HostConfig { mirrors: vec![format!("127.0.0.1:{port}")], ..HostConfig::default() };
    configured(&[(&origin.host, config)]).resolve(&reference, &platform, &NoCache).await.unwrap();
    assert_eq!(origin.requests().len(), 6);
}

#[tokio::test]
async fn a_layer_comes_from_the_next_place() {
    let layer = image(b"layer")[1].0.clone();
    for (name, mirror) in faulty() {
        let origin = image_server(|_, reply| reply);
        let client = mirrored(&origin, &[&mirror]);
        let mut tries = 0;
        let bytes = loop {
            tries += 1;
            let (mut reader, fault) = client.fetch_blob(&repository(&origin), &layer).unwrap().into_reader();
            let mut bytes = Vec::new();
            let read = reader.read_to_end(&mut bytes).await;
            match fault.take() {
                None => break bytes,
                Some((error, again)) => assert!(again && read.is_err() && tries == 1, "{name}: {error}"),
            }
        };
        assert_eq!(bytes, b"layer", "{name}");
        assert_eq!(tries == 2, ["wrong", "wrong and cut", "longer"].contains(&name), "{name}");
        let asked = mirror.requests().len();
        if tries == 2 {
            read(client.fetch_blob(&repository(&origin), &layer).unwrap()).await.unwrap();
            assert_eq!(mirror.requests().len(), asked, "{name}: a mirror that lied is not asked again");
        }
    }
}

#[tokio::test]
async fn a_mirror_after_a_bad_mirror() {
    let layer = image(b"layer")[1].0.clone();
    for (name, bad) in faulty() {
        let (good, origin) = (image_server(|_, reply| reply), Fake::start(|_| Reply::new(500)));
        let client = mirrored(&origin, &[&bad, &good]);
        let reference = repository(&origin);
        let mut result = read(client.fetch_blob(&reference, &layer).unwrap()).await;
        if matches!(result, Err(Error::DigestMismatch { .. } | Error::SizeMismatch { .. })) {
            result = read(client.fetch_blob(&reference, &layer).unwrap()).await;
        }
        assert_eq!(result.unwrap(), b"layer", "{name}");
        assert!(origin.requests().is_empty(), "{name}: {:?}", origin.lines());
    }
}

#[tokio::test]
async fn an_image_is_looked_up_whatever_its_mirror_does() {
    let image_digest = image(b"layer")[2].0.digest;
    let other = image(b"another layer");
    let manifests = |edit: fn(&str, Reply) -> Reply| {
        image_server(move |request, reply| match request.target.contains("/manifests/") {
            true => edit(&request.method, reply),
            false => reply,
        })
    };
    let mut mirrors = faulty();
    mirrors.extend([
        ("manifest absent", manifests(|method, reply| if method == "GET" { Reply::new(404) } else { reply })),
        ("manifest wrong", manifests(|method, reply| if method == "GET" { reply.body("{}") } else { reply })),
        ("manifest broken", manifests(|method, reply| if method == "GET" { Reply::new(500) } else { reply })),
        ("everything broken", Fake::start(|_| Reply::new(500))),
        ("everything refused", Fake::start(|_| Reply::new(401))),
        ("not a registry", Fake::start(|_| Reply::ok("<html>"))),
        (
            "a tag of something that nobody has",
            image_server(move |request, reply| match request.target.contains("/manifests/tag") {
                true => Reply::ok(other[2].1.clone())
                    .header("Content-Type", other[2].0.media_type.clone())
                    .header("Docker-Content-Digest", other[2].0.digest.to_string()),
                false => reply,
            }),
        ),
    ]);
    for (name, mirror) in mirrors {
        let origin = image_server(|_, reply| reply);
        let client = mirrored(&origin, &[&mirror]);
        let found = client.resolve(&repository(&origin), &amd64(), &NoCache).await;
        assert_eq!(found.unwrap_or_else(|e| panic!("{name}: {e}")).digest, image_digest, "{name}");
        let by_digest = repository(&origin).with_digest(image_digest);
        let found = client.resolve(&by_digest, &amd64(), &NoCache).await;
        assert_eq!(found.unwrap_or_else(|e| panic!("{name}: {e}")).digest, image_digest, "{name}");
    }
}

#[tokio::test]
async fn what_a_mirror_said_is_told_when_the_registry_cannot_be_reached() {
    let mirror = Fake::start(|_| Reply::new(404));
    let config = HostConfig { mirrors: vec![mirror.host.clone()], ..HostConfig::default() };
    let client = configured(&[("127.0.0.1:1", config)]);
    let reference = Reference::parse("127.0.0.1:1/repo:tag").unwrap();
    let error = client.resolve(&reference, &amd64(), &NoCache).await.unwrap_err();
    assert!(matches!(error, Error::ImageNotFound { .. }), "{error}");

    // So with an image that the mirror has, but not for this platform.
    let index =
        br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
    let mirror = Fake::start(move |_| {
        let kind = "application/vnd.oci.image.index.v1+json";
        Reply::ok(index)
            .header("Content-Type", kind)
            .header("Docker-Content-Digest", Digest::of(index).to_string())
    });
    let config = HostConfig { mirrors: vec![mirror.host.clone()], ..HostConfig::default() };
    let client = configured(&[("127.0.0.1:1", config)]);
    let error = client.resolve(&reference, &amd64(), &NoCache).await.unwrap_err();
    assert!(matches!(error, Error::Document { .. }), "{error}");
}

#[tokio::test]
async fn when_all_lie_it_is_said() {
    let layer = image(b"layer")[1].0.clone();
    let liar = || with_blobs(|reply| reply.body("LAYER"));
    let (mirror, origin) = (liar(), liar());
    let client = mirrored(&origin, &[&mirror]);
    let fetch = || async {
        let mut stream = client.fetch_blob(&repository(&origin), &layer).unwrap();
        let error = loop {
            match stream.next_chunk().await {
                Ok(chunk) => assert!(chunk.is_some(), "wrong bytes are never good"),
                Err(error) => break error,
            }
        };
        (error, stream.is_misled())
    };
    for (host, misled) in [(&mirror.host, true), (&origin.host, false), (&origin.host, false)] {
        let (error, again) = fetch().await;
        assert!(
            matches!(&error, Error::DigestMismatch { host: h, actual, .. } if h == host && *actual == Digest::of(b"LAYER")),
            "{error}"
        );
        assert_eq!(again, misled);
    }
    let error = client.resolve(&repository(&origin), &amd64(), &NoCache).await.unwrap_err();
    assert!(matches!(&error, Error::SizeMismatch { host, .. } if *host == origin.host), "{error}");
}
