//! What lowering asks its caller for.

use frontend::lower::{LowerError, Need, check, unused_args};

use crate::world::{World, lowered, lowered_in, options, parse};

fn needs(text: &str, attrs: &[(&str, &str)]) -> Vec<String> {
    match lowered_in(&World::new(), text, &options(attrs)) {
        Err(LowerError::Needs(needs)) => needs.iter().map(show).collect(),
        other => panic!("{other:?}"),
    }
}

fn show(need: &Need) -> String {
    match need {
        Need::Image(image) => {
            format!("{} on {}: {}", image.reference, image.platform.architecture, image.log_name)
        }
        Need::ContextIgnore(local) => format!("{}: {}", local.local, local.log_name),
        Need::SourceTime(time) => format!("{}: {}", time.source.identifier, time.log_name),
    }
}

#[test]
fn all_missing_images_at_once_but_only_those_that_are_used() {
    let text = "FROM one AS a\nFROM unused AS b\nFROM two:2 AS c\nFROM one\nCOPY --from=a /x /\nCOPY --from=c /x /\n\
                RUN --mount=from=three,target=/t x\n";
    assert_eq!(
        needs(text, &[]),
        [
            "docker.io/library/one:latest on amd64: [internal] load metadata for docker.io/library/one:latest",
            "docker.io/library/two:2 on amd64: [internal] load metadata for docker.io/library/two:2",
            "docker.io/library/three:latest on amd64: [internal] load metadata for docker.io/library/three:latest",
        ]
    );
}

#[test]
fn platforms_are_asked_for_and_named() {
    assert_eq!(
        needs("FROM one\n", &[("platform", "linux/arm64"), ("multi-platform", "1")]),
        [
            "docker.io/library/one:latest on arm64: [linux/arm64 internal] load metadata for docker.io/library/one:latest",
        ]
    );
}

#[test]
fn near_names_are_suggested() {
    let world = World::new();
    let text = "FROM base AS build\nFROM biuld\n";
    let Err(LowerError::Needs(needs)) = lowered_in(&world, text, &options(&[])) else {
        panic!("the image is not known")
    };
    let [Need::Image(image)] = &needs[..] else { panic!("{needs:?}") };
    assert_eq!(image.suggestion.as_deref(), Some("build"));
    let failure = image.failure(&parse(text), "not found");
    assert_eq!(failure.message, "biuld: not found (did you mean build?)");
    assert_eq!(failure.lines.map(|lines| lines.start), Some(2));
    let words: Vec<&str> = failure.spans.iter().map(|span| &text[span.start..span.end]).collect();
    assert_eq!(words, ["biuld"]);
}

#[test]
fn contexts_layouts_and_times() {
    assert_eq!(
        needs("FROM x\n", &[("context:x", "local:unread")]),
        ["unread: [context x] load .dockerignore"]
    );
    let digest = format!("sha256:{}", "a".repeat(64));
    let layout = format!("oci-layout://store@{digest}");
    assert_eq!(
        needs("FROM x\n", &[("context:x", &layout)]),
        [format!(
            "docker.io/library/x@{digest} on amd64: [context x] load metadata for docker.io/library/x@{digest}"
        )]
    );
    let attrs = [("build-arg:SOURCE_DATE_EPOCH", "context"), ("context", "https://h.x/r.git")];
    assert_eq!(
        needs("FROM base\n", &attrs),
        ["git://h.x/r.git: [internal] resolve main build context metadata"]
    );
}

#[test]
fn build_arguments_that_no_arg_declares() {
    let text = "ARG VERSION\nFROM triggers\nONBUILD ARG LATER\nRUN x\n";
    let told = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("build-arg:{name}")).collect();
        let attrs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        unused_args(&parse(text), &options(&attrs), &[lowered(text, &attrs)])
    };
    assert_eq!(
        told(&["VERSOIN", "FOO"]),
        [
            "no ARG declares the build argument FOO",
            "no ARG declares the build argument VERSOIN (did you mean VERSION?)"
        ]
    );
    let builtin = ["http_proxy", "NO_PROXY", "BUILDKIT_INLINE_CACHE", "SOURCE_DATE_EPOCH", "TARGETARCH"];
    assert_eq!(told(&builtin), [""; 0]);
    assert_eq!(told(&["VERSION", "LATER"]), [""; 0]);
}

#[test]
fn a_check_looks_at_every_stage() {
    let document = parse("FROM base AS a\nWORKDIR rel\nFROM base\nMAINTAINER me\n");
    let rules = |attrs: &[(&str, &str)]| -> Vec<&'static str> {
        let checked = check(&document, &options(attrs), None, &World::new()).unwrap();
        assert_eq!(checked.failure, None);
        checked.findings.iter().map(|finding| finding.rule.name()).collect()
    };
    assert_eq!(rules(&[]), ["MaintainerDeprecated", "WorkdirRelativePath"]);
    assert_eq!(rules(&[("target", "a")]), ["MaintainerDeprecated", "WorkdirRelativePath"]);
}
