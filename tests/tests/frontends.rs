//! Frontends in images: a program of our own that speaks LLBBridge over its stdin and stdout.

use std::path::Path;
use std::process::Command;

use proto::control::SolveRequest;
use tests::{Api, Scene, base, ready};
use tonic::Code;

const PROGRAM: &str = env!("CARGO_BIN_EXE_test-frontend");

/// Makes the image `frontend`, with the libraries that its program needs.
fn image(scene: &Scene, labels: &str) {
    let context = scene.path("frontend");
    let root = context.join("root");
    fs_err::create_dir_all(&root).unwrap();
    fs_err::copy(PROGRAM, root.join("frontend")).unwrap();
    let needed = Command::new("ldd").arg(PROGRAM).output().unwrap();
    for word in String::from_utf8(needed.stdout).unwrap().split_whitespace().filter(|w| w.starts_with('/')) {
        let to = root.join(word.trim_start_matches('/'));
        fs_err::create_dir_all(to.parent().unwrap()).unwrap();
        fs_err::copy(word, to).unwrap();
    }
    let dockerfile = format!(
        "FROM scratch\nCOPY root /\nWORKDIR /work\nENV OF_IMAGE=yes\n{labels}\nENTRYPOINT [\"/frontend\"]\n"
    );
    base::context(&context, &[("Dockerfile", &dockerfile)]);
    scene.daemon.build(&context, &["-t", "frontend"]).ok();
}

const NO_NETWORK: &str = "LABEL moby.buildkit.frontend.network.none=true moby.buildkit.frontend.caps=moby.buildkit.frontend.inputs,x+y";

fn read(path: &Path) -> String {
    fs_err::read_to_string(path).unwrap()
}

#[test]
fn a_frontend_of_an_image_builds() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    image(&scene, NO_NETWORK);
    let out = scene.path("out");
    let dest = format!("type=local,dest={}", out.display());
    scene
        .dockerfile("# syntax=frontend extra words\nnot a Dockerfile\n", &["--build-arg", "A=b", "-o", &dest])
        .ok();
    let seen = read(&out.join("seen"));
    for line in [
        "build-arg:A=b",
        "cmdline=frontend extra words",
        "source=frontend",
        "OF_IMAGE=yes",
        "cwd=/work",
        "own=2",
        "inputs=[]",
        "links=[\"lo\"]",
        "BUILDKIT_EXPORTEDPRODUCT=buildkit",
    ] {
        assert!(seen.lines().any(|l| l == line), "{line}: {seen}");
    }
    assert!(seen.contains("BUILDKIT_WORKERS=[{\"id\":\"") && seen.contains("\"architecture\":"), "{seen}");
    assert!(!seen.contains("BUILDKIT_SESSION_ID=\n"), "{seen}");
    // What it made depends on its image.
    scene.dockerfile("# syntax=frontend\n", &["-t", "told", "--provenance=mode=max"]).ok();
    let told = scene.run(&["inspect", "--provenance", "told"]).ok().stdout;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let materials = told["predicate"]["buildDefinition"]["resolvedDependencies"].to_string();
    assert!(materials.contains("pkg:docker/frontend@"), "{materials}");
    // The argument comes before the directive; what another frontend built is handed on, config and all.
    let forward =
        ["--build-arg", "MODE=forward", "--build-arg", "BUILDKIT_SYNTAX=frontend", "-t", "forwarded"];
    scene.dockerfile("FROM base\nRUN echo hi > /f\nENV KEY=value\n", &forward).ok();
    let ran = scene.run(&["run", "--rm", "--network=none", "forwarded", "sh", "-c", "cat /f; echo $KEY"]);
    assert_eq!(ran.ok().stdout, "hi\nvalue\n");
    // The built-in frontend goes by its images' names.
    scene.dockerfile("# syntax=docker/dockerfile:1\nFROM base\n", &[]).ok();
}

#[test]
fn its_failures_are_told() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    image(&scene, NO_NETWORK);
    let fails = |mode: &str, dockerfile: &str| {
        let mode = format!("MODE={mode}");
        let failed = scene.dockerfile(dockerfile, &["--build-arg", &mode]);
        assert_ne!(failed.code, 0, "{}", failed.stderr);
        failed.stderr
    };
    let syntax = "# syntax=frontend\nFROM base\n";
    let said = fails("fail", syntax);
    assert!(said.contains("it did not please") && said.contains(">>> # syntax=frontend"), "{said}");
    let said = fails("die", syntax);
    assert!(said.contains("exit code: 3: the last words"), "{said}");
    let said = fails("silent", syntax);
    assert!(said.contains("frontend did not return a result"), "{said}");
    // What it forwards keeps its own place.
    let said = fails("forward", "# syntax=frontend\nFROM base\nRUN exit 9\n");
    assert!(said.contains("exit code: 9") && said.contains(">>> RUN exit 9"), "{said}");
    let said = fails("", "# syntax=no-such-image.example/x\nFROM base\n");
    assert!(said.contains("no-such-image.example/x"), "{said}");
    // An image that holds no frontend.
    let said = fails("", "# syntax=base\nFROM base\n");
    assert!(said.contains("/run"), "{said}");
    scene.check_sandboxes();
}

#[test]
fn through_the_api() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    image(&scene, NO_NETWORK);
    let api = Api::connect(&scene.daemon);
    let solve = |name: &str, attrs: &[(&str, &str)], inputs: &[&str]| {
        let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let input = |name: &&str| ((*name).to_owned(), proto::pb::Definition::default());
        api.solve(SolveRequest {
            r#ref: name.to_owned(),
            frontend: "gateway.v0".to_owned(),
            frontend_attrs: attrs.collect(),
            frontend_inputs: inputs.iter().map(input).collect(),
            ..SolveRequest::default()
        })
    };
    let text = solve("text", &[("source", "frontend"), ("build-arg:MODE", "text")], &[]).unwrap();
    assert_eq!(text.exporter_response["result.txt"], "an answer\n");
    solve("inputs", &[("source", "frontend")], &["one", "two"]).unwrap();
    let missing = solve("caps", &[("source", "frontend"), ("frontend.caps", "x,flying")], &[]).unwrap_err();
    assert_eq!(
        (missing.code(), missing.message()),
        (Code::Unimplemented, "unsupported frontend capability flying")
    );
    assert!(String::from_utf8_lossy(missing.details()).contains("errdefs.FrontendCap+json"));
    // A protection that is not there is not left out without a word.
    let proxied =
        SolveRequest { r#ref: "proxied".to_owned(), proxy_network: true, ..SolveRequest::default() };
    let refused = api.solve(proxied).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("proxy network"), "{refused}");
    let none = solve("none", &[], &[]).unwrap_err();
    assert_eq!((none.code(), none.message()), (Code::InvalidArgument, "no source specified for gateway"));
    let bad = solve("bad", &[("source", "A B")], &[]).unwrap_err();
    assert_ne!(bad.code(), Code::Internal, "{bad}");
}
