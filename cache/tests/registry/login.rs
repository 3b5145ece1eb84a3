//! Tokens, and where credentials must not go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cache::oci::{Descriptor, Reference, media_type};
use cache::registry::{Client, Error};

use crate::fake::{Fake, Reply, Request};
use crate::{anonymous, logged_in, read};

const BLOB: &[u8] = b"a private blob";
const PASSWORD: &str = "canary-password";

fn descriptor() -> Descriptor {
    Descriptor::of(media_type::OCI_LAYER, BLOB)
}

async fn fetch(client: &Client, host: &str) -> Result<Vec<u8>, Error> {
    let reference = Reference::parse(&format!("{host}/repo")).unwrap();
    read(client.fetch_blob(&reference, &descriptor()).unwrap()).await
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode(format!("me:{PASSWORD}")))
}

/// Whether anything of the password, in any form, was in a request.
fn leaks(request: &Request) -> bool {
    let encoded = STANDARD.encode(format!("me:{PASSWORD}"));
    let text = format!("{request:?} {}", String::from_utf8_lossy(&request.body));
    text.contains(PASSWORD) || text.contains(&encoded)
}

/// A registry that wants `Bearer t1` (a fetched token) and sends to `realm` for it.
fn registry(realm: String) -> Fake {
    Fake::start(move |request| match request.header("authorization") {
        Some("Bearer t1") if request.method == "GET" => Reply::ok(BLOB),
        Some("Bearer t1") if request.method == "HEAD" => Reply::new(404),
        Some("Bearer t1") if request.method == "POST" => Reply::new(202).header("Location", "/upload"),
        Some("Bearer t1") => Reply::new(201),
        _ => Reply::new(401).header(
            "WWW-Authenticate",
            format!(r#"Bearer realm="{realm}",service="the registry",scope="repository:repo:pull""#),
        ),
    })
}

/// A token server that gives `t1` to the right password, or to anybody.
fn token_server(open: bool) -> Fake {
    Fake::start(move |request| match request.header("authorization") {
        Some(header) if header == basic() => Reply::ok(r#"{"token":"t1","expires_in":300}"#),
        None if open => Reply::ok(r#"{"access_token":"t1"}"#),
        _ => Reply::new(401),
    })
}

#[tokio::test]
async fn a_token_is_fetched_once_per_scope() {
    let tokens = token_server(false);
    let server = registry(format!("http://{}/token", tokens.host));
    let client = logged_in("me", PASSWORD);
    for _ in 0..3 {
        assert_eq!(fetch(&client, &server.host).await.unwrap(), BLOB);
    }
    let asked = "GET /token?service=the+registry&scope=repository%3Arepo%3Apull&account=me";
    assert_eq!(tokens.lines(), [asked]);
    assert_eq!(server.requests().iter().filter(|r| r.header("authorization").is_none()).count(), 1);

    let target = Reference::parse(&format!("{}/repo", server.host)).unwrap();
    client.push_blob(&target, &descriptor(), None, Arc::new(Bytes::from_static(BLOB))).await.unwrap();
    let push = "GET /token?service=the+registry&scope=repository%3Arepo%3Apull%2Cpush&account=me";
    assert_eq!(tokens.lines(), [asked, push]);
    assert!(!server.requests().iter().any(leaks), "the registry itself sees tokens only");
}

#[tokio::test]
async fn requests_at_once_share_a_token() {
    let tokens = token_server(false);
    let server = registry(format!("http://{}/token", tokens.host));
    let client = logged_in("me", PASSWORD);
    let fetches = (0..8).map(|_| fetch(&client, &server.host));
    for blob in futures_util::future::join_all(fetches).await {
        assert_eq!(blob.unwrap(), BLOB);
    }
    assert_eq!(tokens.requests().len(), 1);
}

#[tokio::test]
async fn anybody_gets_a_token_of_an_open_server() {
    let tokens = token_server(true);
    let server = registry(format!("http://{}/token", tokens.host));
    assert_eq!(fetch(&anonymous(), &server.host).await.unwrap(), BLOB);
}

#[tokio::test]
async fn identity_tokens_and_passwords_are_posted_where_get_is_unknown() {
    for (username, secret, grant) in [
        ("", "idt", "grant_type=refresh_token&refresh_token=idt&"),
        ("me", PASSWORD, "grant_type=password&username=me&password=canary-password&"),
    ] {
        let tokens = Fake::start(|request| match request.method.as_str() {
            "POST" => Reply::ok(r#"{"access_token":"t1"}"#),
            _ => Reply::new(404),
        });
        let server = registry(format!("http://{}/token", tokens.host));
        assert_eq!(fetch(&logged_in(username, secret), &server.host).await.unwrap(), BLOB);
        let posted = String::from_utf8(tokens.requests().last().unwrap().body.clone()).unwrap();
        let rest = "client_id=rbuild&service=the+registry&scope=repository%3Arepo%3Apull";
        assert_eq!(posted, format!("{grant}{rest}"));
    }
}

#[tokio::test]
async fn refusals_say_why() {
    let tokens = token_server(false);
    let server = registry(format!("http://{}/token", tokens.host));
    for (client, reason) in [
        (logged_in("me", "wrong"), "wrong user name or password"),
        (anonymous(), "authentication required; log in first"),
    ] {
        let error = fetch(&client, &server.host).await.unwrap_err();
        assert_eq!(error.to_string(), format!("registry `{}`: {reason}", server.host));
    }
    // A token that is refused all the same does not make us ask for ever.
    let useless = Fake::start(|_| Reply::ok(r#"{"token":"t2"}"#));
    let server = registry(format!("http://{}/token", useless.host));
    let error = fetch(&logged_in("me", PASSWORD), &server.host).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert_eq!(useless.requests().len(), 1);
}

#[tokio::test]
async fn an_expired_token_is_replaced() {
    // The server forgets each token after one use, as one that has expired since.
    let issued = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&issued);
    let tokens = Fake::start(move |_| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        Reply::ok(format!(r#"{{"token":"n{number}","expires_in":2}}"#))
    });
    let (realm, last) = (format!("http://{}/t", tokens.host), Arc::clone(&issued));
    let server = Fake::start(move |request| {
        let current = format!("Bearer n{}", last.load(Ordering::Relaxed).wrapping_sub(1));
        match request.header("authorization") {
            Some(header) if header == current => Reply::ok(BLOB),
            _ => Reply::new(401).header("WWW-Authenticate", format!(r#"Bearer realm="{realm}""#)),
        }
    });
    let client = anonymous();
    assert_eq!(fetch(&client, &server.host).await.unwrap(), BLOB);
    tokio::time::sleep(std::time::Duration::from_millis(1900)).await;
    assert_eq!(fetch(&client, &server.host).await.unwrap(), BLOB);
    assert_eq!(tokens.requests().len(), 2);
    assert_eq!(server.requests().len(), 3, "the second time the new token is there before it is asked for");
}

#[tokio::test]
async fn a_realm_on_another_host_gets_no_credentials() {
    let tokens = Fake::on("127.0.0.2", |_| Reply::new(401));
    let server = registry(format!("http://{}/token", tokens.host));
    let error = fetch(&logged_in("me", PASSWORD), &server.host).await.unwrap_err();
    assert!(error.to_string().contains("is another host, so it got no credentials"), "{error}");
    assert_eq!(tokens.requests().len(), 1);
    assert!(!tokens.requests().iter().any(leaks));
}

#[tokio::test]
async fn redirects_take_no_credentials_along() {
    let storage = Fake::start(|_| Reply::ok(BLOB));
    let place = format!("http://thief:pw@{}/blob?signature=x", storage.host);
    let server = Fake::start(move |request| match request.header("authorization") {
        Some(header) if header == basic() => Reply::new(307).header("Location", place.clone()),
        _ => Reply::new(401).header("WWW-Authenticate", r#"Basic realm="r""#),
    });
    assert_eq!(fetch(&logged_in("me", PASSWORD), &server.host).await.unwrap(), BLOB);
    let [request] = storage.requests().try_into().unwrap();
    assert_eq!(request.target, "/blob?signature=x");
    assert_eq!(request.header("authorization"), None);
}

#[tokio::test]
async fn uploads_elsewhere_take_no_credentials_along() {
    let storage = Fake::start(|_| Reply::new(201));
    let place = format!("http://{}/upload", storage.host);
    let server =
        Fake::start(move |request| match (request.method.as_str(), request.header("authorization")) {
            (_, None) => Reply::new(401).header("WWW-Authenticate", r#"Basic realm="r""#),
            ("POST", _) => Reply::new(202).header("Location", place.clone()),
            _ => Reply::new(404),
        });
    let target = Reference::parse(&format!("{}/repo", server.host)).unwrap();
    let source = Arc::new(Bytes::from_static(BLOB));
    logged_in("me", PASSWORD).push_blob(&target, &descriptor(), None, source).await.unwrap();
    let [request] = storage.requests().try_into().unwrap();
    assert_eq!((request.header("authorization"), request.body.as_slice()), (None, BLOB));
}

#[tokio::test]
async fn foreign_layers_are_not_fetched_in_the_clear() {
    let elsewhere = Fake::start(|_| Reply::ok(BLOB));
    let server = Fake::start(|_| Reply::new(404));
    let mut foreign = descriptor();
    foreign.media_type = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".to_owned();
    foreign.urls = vec![format!("http://{}/layer", elsewhere.host)];
    let reference = Reference::parse(&format!("{}/repo", server.host)).unwrap();
    let stream = logged_in("me", PASSWORD).fetch_blob(&reference, &foreign).unwrap();
    assert!(read(stream).await.unwrap_err().is_not_found());
    assert!(elsewhere.requests().is_empty());
}
