//! Source policies: what builds may take their sources from, and what takes the place of which.

#[path = "../../cache/tests/registry/fake.rs"]
#[expect(dead_code, reason = "made for the tests of the registry client, which need more of it")]
mod fake;

use fake::{Fake, Reply};
use proto::gateway::{ResolveImageConfigRequest, SolveRequest};
use proto::sourcepolicy::{Policy, PolicyAction, Rule, Selector, Update};
use proto::{control, pb};
use serde_json::{Value, json};
use tests::llb::Llb;
use tests::{Api, Output, Scene, output, ready};
use tonic::Code;

/// Builds under a policy's rules, as buildx is told of them.
fn build(scene: &Scene, rules: &Value, args: &[&str]) -> Output {
    let policy = scene.path("policy.json");
    fs_err::write(&policy, json!({ "version": 1, "rules": rules }).to_string()).unwrap();
    let args = [&["build", "--progress=plain"], args, &["."]].concat();
    output(scene.command(&args).env("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", policy))
}

#[test]
fn sources_of_dockerfiles() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.dockerfile("FROM base\nRUN echo other >/which\n", &["-t", "other:1"]).ok();
    scene.write("Dockerfile", "FROM base AS b\nRUN cat /which >/read\nFROM scratch\nCOPY --from=b /read /\n");
    let to_other = json!([{
        "action": "CONVERT",
        "selector": { "identifier": "docker-image://docker.io/library/base:*" },
        "updates": { "identifier": "docker-image://docker.io/library/other:1" },
    }]);
    build(&scene, &to_other, &["-o", "../out"]).ok();
    assert_eq!(fs_err::read_to_string(scene.path("out/read")).unwrap(), "other\n");

    let none = json!([{ "action": "DENY", "selector": { "identifier": "docker-image://*" } }]);
    let out = build(&scene, &none, &[]).fails();
    let denied = "source \"docker-image://docker.io/library/base:latest\" denied by policy";
    assert!(out.stderr.contains(denied) && out.stderr.contains("Dockerfile:1"), "{}", out.stderr);
    // What a rule puts in a source's place is denied like any other.
    let both = Value::from([to_other.as_array().unwrap().clone(), none.as_array().unwrap().clone()].concat());
    assert!(build(&scene, &both, &[]).fails().stderr.contains("library/other:1\" denied by policy"));
    let no_context =
        json!([{ "action": "DENY", "selector": { "identifier": "local://context", "matchType": "EXACT" } }]);
    scene.write("Dockerfile", "FROM base\nCOPY . /\n");
    assert!(build(&scene, &no_context, &[]).fails().stderr.contains("denied by policy"));

    let elsewhere = json!([{
        "action": "CONVERT",
        "selector": { "identifier": "docker-image://docker.io/library/base:latest" },
        "updates": { "identifier": "local://context" },
    }]);
    let out = build(&scene, &elsewhere, &[]).fails();
    assert!(out.stderr.contains("ref mutated by policy to non-image"), "{}", out.stderr);
    // A named context may be replaced by any source.
    scene.write("Dockerfile", "FROM scratch\nCOPY --from=named /Dockerfile /\n");
    let named = ["--build-context", "named=docker-image://base", "-o", "../named"];
    build(&scene, &elsewhere, &named).ok();
    assert!(scene.path("named/Dockerfile").exists());

    for (rules, says) in [
        (json!([{ "action": "FORBID" }]), "failed to parse source policy"),
        (json!([{ "action": "DENY" }]), "invalid nil selector in policy"),
        (
            json!([{ "action": "DENY", "selector": { "identifier": "(", "match_type": "REGEX" } }]),
            "invalid regex",
        ),
        (json!([{ "action": "CONVERT", "selector": { "identifier": "*" } }]), "missing destination"),
    ] {
        let out = build(&scene, &rules, &[]).fails();
        assert!(out.stderr.contains(says), "{says}: {}", out.stderr);
    }
}

/// A checksum that a policy adds is checked, and it is part of what the source is.
#[test]
fn checksums_are_pinned() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let server = Fake::start(|_| Reply::ok(b"text".to_vec()));
    let url = format!("http://{}/f", server.host);
    scene.write("Dockerfile", &format!("FROM scratch\nADD {url} /f\n"));
    scene.build(&["-o", "../plain"]).ok();
    let pinned = |sum: &str| {
        json!([{
            "action": "CONVERT",
            "selector": { "identifier": url },
            "updates": { "attrs": { "http.checksum": sum } },
        }])
    };
    let right = "sha256:982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1";
    build(&scene, &pinned(right), &["-o", "../out"]).ok();
    let wrong = format!("sha256:{}", "b".repeat(64));
    let out = build(&scene, &pinned(&wrong), &["-o", "../out"]).fails();
    assert!(out.stderr.contains("digest mismatch"), "{}", out.stderr);
}

/// What clients bring that are their own frontends, and what they ask about images.
#[test]
fn policies_of_frontends() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.dockerfile("FROM base\nENV which=other\n", &["-t", "other:1"]).ok();
    let api = Api::connect(&scene.daemon);
    let rule = |action: PolicyAction, from: &str, to: &str| Rule {
        action: action.into(),
        selector: Some(Selector { identifier: from.to_owned(), ..Selector::default() }),
        updates: Some(Update { identifier: to.to_owned(), ..Update::default() }),
    };
    let to_other = rule(
        PolicyAction::Convert,
        "docker-image://docker.io/library/base:latest",
        "docker-image://docker.io/library/other:1",
    );
    let deny_other = rule(PolicyAction::Deny, "docker-image://docker.io/library/other:*", "");
    let policy = |rules: &[&Rule]| Policy { version: 1, rules: rules.iter().map(|&r| r.clone()).collect() };
    let mut llb = Llb::new();
    let base = llb.image("docker.io/library/base:latest");
    let ran = llb.run(&base, "true", |_| {});
    let definition = llb.definition(&ran);

    let gateway = api.gateway("policies");
    let solve = |policies: Vec<Policy>| {
        gateway.solve(SolveRequest {
            definition: Some(definition.clone()),
            evaluate: true,
            source_policies: policies,
            ..SolveRequest::default()
        })
    };
    solve(vec![policy(&[&to_other])]).unwrap();
    let denied = solve(vec![policy(&[&to_other]), policy(&[&deny_other])]).unwrap_err();
    assert!(denied.message().contains("error evaluating the source policy: source"), "{denied}");
    assert_eq!(solve(vec![policy(&[&Rule::default()])]).unwrap_err().code(), Code::InvalidArgument);
    let config = |policies: Vec<Policy>| {
        let request = gateway.request(ResolveImageConfigRequest {
            r#ref: "docker.io/library/base:latest".to_owned(),
            source_policies: policies,
            ..ResolveImageConfigRequest::default()
        });
        let mut bridge = api.bridge();
        api.runtime.block_on(async move { bridge.resolve_image_config(request).await })
    };
    let other = config(vec![policy(&[&to_other])]).unwrap().into_inner();
    assert_eq!(other.r#ref, "docker.io/library/other:1");
    assert!(String::from_utf8_lossy(&other.config).contains("which=other"));
    let denied = config(vec![policy(&[&to_other, &deny_other])]).unwrap_err();
    assert!(denied.message().contains("could not resolve image due to policy"), "{denied}");
    gateway.end();

    // The build's own rules come first, and hold for what frontends say, too.
    let request = control::SolveRequest {
        r#ref: "own".to_owned(),
        source_policy: Some(policy(&[&deny_other])),
        ..control::SolveRequest::default()
    };
    let gateway = api.gateway_for(request.clone());
    let more = SolveRequest {
        definition: Some(definition.clone()),
        evaluate: true,
        source_policies: vec![policy(&[&to_other])],
        ..SolveRequest::default()
    };
    assert!(gateway.solve(more).unwrap_err().message().contains("denied by policy"));
    gateway.end();
    // A client that is to decide and is not there: nothing is built without it.
    let absent = control::SolveRequest {
        r#ref: "absent".to_owned(),
        definition: Some(pb::Definition { ..definition }),
        source_policy_session: "nobody".to_owned(),
        ..control::SolveRequest::default()
    };
    assert!(api.solve(absent).unwrap_err().message().contains("no active session"));
}
