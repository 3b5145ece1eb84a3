//! Registries with token servers: the client fetches tokens, and its password stays with it.

#[path = "../../cache/tests/registry/fake.rs"]
#[expect(dead_code, reason = "made for the tests of the registry client, which need more of it")]
mod fake;

use fake::{Fake, Reply};
use tests::{Output, Scene, output, ready};

/// `user:geheim` and `user:falsch`.
const RIGHT: &str = "dXNlcjpnZWhlaW0=";
const WRONG: &str = "dXNlcjpmYWxzY2g=";

/// A registry that answers only those who have a token, and only that there is no such image.
fn registry(realm: String) -> Fake {
    Fake::start(move |request| match request.header("authorization") {
        Some("Bearer t1") => Reply::new(404),
        _ => Reply::new(401).header(
            "WWW-Authenticate",
            format!(r#"Bearer realm="{realm}",service="tests",scope="repository:x:pull""#),
        ),
    })
}

fn build(scene: &Scene, host: &str, auth: Option<&str>, env: &[(&str, &str)]) -> Output {
    let auths = match auth {
        Some(auth) => serde_json::json!({"auths": {host: {"auth": auth}}}),
        None => serde_json::json!({}),
    };
    fs_err::write(scene.path("config.json"), auths.to_string()).unwrap();
    scene.write("Dockerfile", &format!("FROM {host}/x\n"));
    let mut command = scene.command(&["build", "--progress=plain", "."]);
    output(command.env("DOCKER_CONFIG", scene.path("")).envs(env.iter().copied())).fails()
}

#[test]
fn tokens_come_from_the_client() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let tokens = Fake::start(|request| match request.header("authorization") {
        Some(header) if header == format!("Basic {RIGHT}") => Reply::ok(r#"{"token":"t1","expires_in":300}"#),
        _ => Reply::new(401),
    });
    let server = registry(format!("http://{}/token", tokens.host));
    let host = &server.host;
    for _ in 0..3 {
        let out = build(&scene, host, Some(RIGHT), &[]);
        assert!(out.stderr.contains("/x:latest: not found"), "{}", out.stderr);
    }
    assert_eq!(tokens.requests().len(), 1, "who proves to have the same password shares the token");
    assert!(scene.path(".token_seed").exists());

    // Somebody else does not get it.
    let out = build(&scene, host, Some(WRONG), &[]);
    assert!(out.stderr.contains("wrong user name or password"), "{}", out.stderr);
    assert!(!out.stderr.contains("falsch"), "{}", out.stderr);
    let asked = tokens.requests().len();
    assert!(asked > 1);
    fs_err::remove_file(scene.path(".token_seed")).unwrap();
    let out = build(&scene, host, Some(RIGHT), &[]);
    assert!(out.stderr.contains("/x:latest: not found"), "{}", out.stderr);
    assert_eq!(tokens.requests().len(), asked + 1, "another seed is another client");
    let out = build(&scene, host, None, &[]);
    assert!(out.stderr.contains("authentication required"), "{}", out.stderr);

    // A client that fetches none has its password used.
    let asked = tokens.requests().len();
    let out = build(&scene, host, Some(RIGHT), &[("BUILDKIT_NO_CLIENT_TOKEN", "1")]);
    assert!(out.stderr.contains("/x:latest: not found"), "{}", out.stderr);
    assert!(tokens.requests().len() > asked);

    // A token server elsewhere gets no password.
    let elsewhere = Fake::on("127.0.0.2", |_| Reply::new(401));
    let server = registry(format!("http://{}/token", elsewhere.host));
    let out = build(&scene, &server.host, Some(RIGHT), &[]);
    assert!(out.stderr.contains("is another host, so it got no credentials"), "{}", out.stderr);
    assert!(elsewhere.requests().iter().all(|r| r.header("authorization").is_none()));
    assert!(elsewhere.requests().iter().all(|r| r.body.is_empty()));
}
