//! Registries that answer, but not with the image: a clear error; and mirrors that fail, which do not matter.

#[path = "../../cache/tests/registry/fake.rs"]
#[expect(dead_code, reason = "made for the tests of the registry client, which need more of it")]
mod fake;

use std::io::{Read, Write};
use std::net::TcpStream;

use fake::{Fake, Reply, Request};
use serde_json::json;
use tests::archive::Image;
use tests::{Auth, Registry, Scene, ready};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const NONE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// A document, served under any tag.
fn document(kind: &'static str, body: serde_json::Value) -> Fake {
    let body = body.to_string();
    Fake::start(move |_| Reply::ok(body.clone()).header("Content-Type", kind))
}

/// An index that has an image for another platform only.
fn index(architecture: &str) -> serde_json::Value {
    let platform = json!({"os": "linux", "architecture": architecture});
    let manifest = json!({"mediaType": MANIFEST, "digest": NONE, "size": 7, "platform": platform});
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]})
}

/// A registry that sends everybody to a token server, which answers as `tokens` does.
fn with_tokens(tokens: &Fake) -> Fake {
    let realm = format!("http://{}/token", tokens.host);
    Fake::start(move |_| {
        Reply::new(401).header("WWW-Authenticate", format!(r#"Bearer realm="{realm}",service="tests""#))
    })
}

#[test]
fn the_image_is_not_there() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let pid = scene.daemon.pid();
    let real = scene.registry(Auth::Open);
    let there = format!("{}/there:1", real.host());
    scene.dockerfile("FROM scratch\nCOPY Dockerfile /d\n", &["-t", &there, "--push"]).ok();
    scene.run(&["rmi", &there]).ok();

    let absent = Fake::start(|_| {
        let body =
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#;
        Reply::new(404).header("Content-Type", "application/json").body(body)
    });
    let (closed, open) = (Fake::start(|_| Reply::new(401)), Fake::start(|_| Reply::ok(r#"{"token":"t"}"#)));
    let (challenged, refused) = (with_tokens(&closed), with_tokens(&open));
    let basic = Fake::start(|_| Reply::new(401).header("WWW-Authenticate", r#"Basic realm="tests""#));
    let denied = Fake::start(|_| Reply::new(403));
    let unknown = document("application/vnd.example.thing+json", json!({"schemaVersion": 2}));
    let schema1 = document(
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        json!({"schemaVersion": 1, "name": "x", "tag": "latest", "fsLayers": []}),
    );
    let both = document(MANIFEST, json!({"schemaVersion": 2, "layers": [], "config": {}, "manifests": []}));
    let foreign = document(INDEX, index("s390x"));
    let page = Fake::start(|_| Reply::ok("<html>hello</html>").header("Content-Type", "text/html"));
    let gone = document(
        MANIFEST,
        json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": NONE, "size": 9}}),
    );

    // Host, what follows it in FROM, and what the error holds.
    let cases: [(&str, &str, &[&str]); 14] = [
        (&absent.host, "/x", &["/x:latest: not found"]),
        (real.host(), "/nothere", &["/nothere:latest: not found"]),
        (real.host(), "/there:2", &["/there:2: not found"]),
        (real.host(), &format!("/there@{NONE}"), &["/there@sha256:0", ": not found"]),
        (&closed.host, "/x", &["refuses access", "names no way to get it"]),
        (&challenged.host, "/x", &["authentication required", "log in first"]),
        (&refused.host, "/x", &["authentication required, or the repository does not exist"]),
        (&basic.host, "/x", &["authentication required", "log in first"]),
        (&denied.host, "/x", &["denies access to `x`"]),
        (&unknown.host, "/x", &["neither `manifests` nor `config` and `layers`"]),
        (&schema1.host, "/x", &["schema 1"]),
        (&both.host, "/x", &["manifests", "layers"]),
        (&foreign.host, "/x", &["no match for platform in manifest: not found", "linux/s390x"]),
        (&page.host, "/x", &["/x:latest"]),
    ];
    for (host, name, expected) in cases {
        let out = scene.dockerfile(&format!("FROM {host}{name}\nRUN true\n"), &["-t", "x"]).fails();
        let last = out.stderr.lines().last().unwrap_or_default();
        let always = [host, "failed to resolve source metadata for"];
        let said = expected.iter().chain(&always).all(|e| last.contains(*e));
        assert!(said, "{host}{name} wants {expected:?}:\n{}", out.stderr);
        assert!(out.stderr.contains(&format!("1 | >>> FROM {host}{name}")), "{}", out.stderr);
        assert!(scene.run(&["pull", &format!("{host}{name}")]).fails().stderr.contains(expected[0]));
    }
    let out = scene.dockerfile(&format!("FROM {}/x\n", gone.host), &["-t", "x"]).fails();
    assert!(out.stderr.contains("sha256:0"), "the config is not what the manifest says:\n{}", out.stderr);
    let out = scene.dockerfile(&format!("FROM scratch\nCOPY --from={}/x / /\n", absent.host), &[]).fails();
    assert!(out.stderr.contains("/x:latest: not found"), "{}", out.stderr);
    let named = format!("docker-image://{}/x", absent.host);
    let out = scene.dockerfile("FROM n\n", &["--build-context", &format!("n={named}")]).fails();
    assert!(out.stderr.contains("/x:latest: not found"), "{}", out.stderr);
    scene.dockerfile(&format!("FROM {there}\nCOPY Dockerfile /e\n"), &["-t", "x"]).ok();
    assert!(scene.daemon.alive() && scene.daemon.pid() == pid);
}

/// What a registry answers to a request that reached a mirror of it.
fn forward(host: &str, request: &Request) -> Reply {
    let mut stream = TcpStream::connect(host).unwrap();
    let target = request.target.split('?').next().unwrap_or_default();
    let mut text = format!("{} {target} HTTP/1.0\r\nHost: {host}\r\n", request.method);
    for name in ["accept", "range"] {
        if let Some(value) = request.header(name) {
            text += &format!("{name}: {value}\r\n");
        }
    }
    stream.write_all(format!("{text}\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok()).unwrap();
    let mut reply = Reply::new(status).body(&answer[end + 4..]);
    for (name, value) in lines.filter_map(|l| l.split_once(": ")) {
        let own = name.eq_ignore_ascii_case("content-length") && request.method != "HEAD";
        if !own && !name.eq_ignore_ascii_case("connection") {
            reply = reply.header(name, value);
        }
    }
    reply
}

/// What a mirror makes of an answer about a blob.
type Fault = fn(Reply) -> Reply;

#[test]
fn mirrors_that_fail() {
    if !ready() {
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let registry = Registry::start(dir.path());
    let faults: [(&str, Fault); 5] = [
        ("absent", |_| Reply::new(404)),
        ("broken", |_| Reply::new(500)),
        ("cut", |reply| reply.cut(20)),
        ("wrong", |reply| reply.body([7; 300])),
        ("refused", |_| Reply::new(401)),
    ];
    let push = |scene: &Scene| {
        let name = format!("{}/there:1", registry.host());
        scene.write("f", &"some content\n".repeat(1000));
        scene.dockerfile("FROM scratch\nCOPY f /f\n", &["-t", &name, "--push"]).ok();
        name
    };
    let name = push(&Scene::new());
    for (what, fault) in faults {
        let host = registry.host().to_owned();
        let mirror = Fake::start(move |request| {
            let reply = forward(&host, request);
            if request.target.contains("/blobs/") { fault(reply) } else { reply }
        });
        let config = format!("[registry.\"{}\"]\nmirrors = [\"http://{}\"]\n", registry.host(), mirror.host);
        let scene = Scene::with(&config);
        let text = format!("FROM base\nCOPY --from={name} /f /f\nRUN wc -c f\n");
        let out = scene.dockerfile(&text, &["-o", "type=oci,dest=../o.tar"]).ok();
        assert!(out.stderr.contains("13000 f"), "{what}:\n{}", out.stderr);
        assert_eq!(Image::open(&scene.path("o.tar")).file("f").map(<[u8]>::len), Some(13000), "{what}");
        assert!(mirror.lines().iter().any(|l| l.contains("/blobs/")), "{what}: {:?}", mirror.lines());
        // The layers of a base image that nothing unpacked are fetched by the exporter.
        scene.run(&["prune", "--all", "--force"]).ok();
        let text = format!("FROM {name}\nLABEL a=b\n");
        scene.dockerfile(&text, &["-o", "type=oci,dest=../p.tar"]).ok();
        assert_eq!(Image::open(&scene.path("p.tar")).file("f").map(<[u8]>::len), Some(13000), "{what}");
    }
}
