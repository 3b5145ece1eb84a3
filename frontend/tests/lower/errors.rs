//! What cannot be lowered, and how it is said.

use frontend::diagnostic::{Diagnostic, Phase};
use frontend::lower::{LowerError, ResolvedImage};
use frontend::span::Lines;

use crate::world::{World, lowered_in, options, parse};

/// The message, its lines, the words marked, and the hints.
fn failure(text: &str, attrs: &[(&str, &str)]) -> String {
    let Err(LowerError::Failed(failure)) = lowered_in(&World::new(), text, &options(attrs)) else {
        panic!("this was lowered: {text}")
    };
    let diagnostic = failure.diagnostic();
    let source = parse(text).source;
    let lines = diagnostic.lines.map_or(String::new(), |lines| format!("{}: ", lines.start));
    let words: Vec<String> =
        diagnostic.spans.iter().map(|span| format!(" [{}]", &source.text()[span.start..span.end])).collect();
    let hints: Vec<String> = diagnostic.hints.iter().map(|hint| format!(" ({hint})")).collect();
    format!("{lines}{}{}{}", diagnostic.message, words.concat(), hints.concat())
}

#[test]
fn failures() {
    let cases: &[(&str, &str)] = &[
        ("FROM scratch\nCOPY --from=9 a b\n", "invalid stage index 9 (stages count from 0, in file order)"),
        (
            "FROM $NONE\n",
            "1: base name ($NONE) should not be blank [$NONE] (give the ARG in `$NONE` a default before the first FROM, \
             or pass it with --build-arg)",
        ),
        (
            "FROM scratch AS a\nCOPY --from=b f /\nFROM scratch AS b\nFROM a\n",
            "2: cannot copy from stage \"b\", it needs to be defined before current stage \"a\" [b] \
             (move stage `b` above stage `a`)",
        ),
        (
            "FROM scratch AS a\nCOPY --from=a f /\n",
            "2: circular dependency detected on stage: a (each stage can use only stages that do not use it in turn)",
        ),
        (
            "FROM scratch\nFROM scratch AS a\nCOPY --from=0 f /\nCOPY --from=a f /\n",
            "4: circular dependency detected on stage: a (each stage can use only stages that do not use it in turn)",
        ),
        (
            "FROM scratch\nCOPY https://h.x/f /\n",
            "2: source can't be a URL for COPY [https://h.x/f] (ADD takes URLs and git repositories)",
        ),
        (
            "FROM scratch\nCOPY --chmod=9 a /\n",
            "2: invalid chmod parameter: '9'. it should be octal string and between 0 and 07777 [9]",
        ),
        ("FROM scratch\nEXPOSE 80/x\n", "2: invalid port: \"80/x\": invalid proto: x [80/x]"),
        ("FROM scratch\nSTOPSIGNAL NOPE\n", "2: invalid signal: NOPE"),
        ("FROM scratch\nENV A=${B:?none}\n", "2: failed to process \"${B:?none}\": B: none [${B:?none}]"),
        ("FROM base\nRUN --mount=type=ssh,source=x y\n", "2: ssh does not support source"),
        ("FROM base\nRUN []\n", "2: arguments are required (name a program: an empty array runs nothing)"),
        ("FROM base\nRUN --mount=target=/ y\n", "2: invalid mount target \"/\""),
        ("FROM base\nADD --checksum=sha256:1 f /\n", "2: checksum requires HTTP(S) or Git sources"),
        (
            "FROM --platform=a/b/c/d base\n",
            "1: failed to parse platform a/b/c/d: \"a/b/c/d\": cannot parse platform specifier: invalid argument",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(failure(text, &[]), *expected, "{text}");
    }
}

/// The messages of all errors, with their lines.
fn failures_of(text: &str) -> Vec<String> {
    let Err(LowerError::Failed(failure)) = lowered_in(&World::new(), text, &options(&[])) else {
        panic!("this was lowered: {text}")
    };
    let line = |lines: Option<Lines>| lines.map_or(0, |lines| lines.start);
    failure.diagnostics().iter().map(|d| format!("{}: {}", line(d.lines), d.message)).collect()
}

#[test]
fn all_errors_of_a_pass() {
    let steps = "FROM base AS a\nEXPOSE x\nENV A=${B:?none}\nRUN true\nFROM scratch AS b\nSTOPSIGNAL NOPE\n\
                 FROM a\nCOPY --from=b --chmod=9 x y\nUSER ${C:?no}\n";
    assert_eq!(
        failures_of(steps),
        [
            "2: invalid containerPort: x",
            "3: failed to process \"${B:?none}\": B: none",
            "6: invalid signal: NOPE",
            "8: invalid chmod parameter: '9'. it should be octal string and between 0 and 07777",
            "9: failed to process \"${C:?no}\": C: no",
        ]
    );
    let args = "ARG A=${B:?b}\nARG C=${D:?d}\nFROM $NONE\n";
    assert_eq!(failures_of(args).len(), 2, "the FROM lines are looked at when the ARGs are right");
    assert_eq!(failures_of("FROM $A\nFROM scratch\nFROM $B\n").len(), 2);
    assert_eq!(failures_of("FROM scratch\nCOPY --from=8 a b\nCOPY --from=$X a b\n").len(), 2);
    assert_eq!(failures_of("FROM UPPER\nFROM Case\n").len(), 2);
    assert_eq!(failures_of(&format!("FROM scratch\n{}", "EXPOSE x\n".repeat(1000))).len(), 100);
}

/// All errors that a survey finds, with their lines; no image is known.
fn surveyed(text: &str) -> Vec<String> {
    let (document, errors) = frontend::parse::parse("Dockerfile", text.as_bytes());
    let (world, options) = (World::default(), options(&[]));
    let errors = match frontend::lower::lower(&document, &options, None, &world) {
        _ if !errors.is_empty() => errors,
        Err(LowerError::Failed(failure)) => failure.diagnostics(),
        _ => vec![Diagnostic::error(Phase::Convert, "no image").at(Lines::single(1))],
    };
    let all = frontend::lower::survey(&document, errors, &options, None, &world);
    all.iter().map(|d| format!("{}: {}", d.lines.map_or(0, |l| l.start), d.message)).collect()
}

#[test]
fn errors_of_all_phases() {
    assert_eq!(
        surveyed(
            "FROM base AS builder\nRUN --mount=type=cach,target=/x y\nRUN --mount=type=cache,targt=/x $Y\n\
             FROM base\nCOPY --from=bulder a b\nCOPY --form=builder a b\nEXPOSE x\nCOPPY a b\n"
        ),
        [
            "6: unknown flag: --form (did you mean from?)",
            "2: unsupported mount type \"cach\" (did you mean cache?)",
            "3: unexpected key 'targt' in 'targt=/x' (did you mean target?)",
            "5: bulder is no stage, so it is taken for an image (did you mean builder?)",
            "7: invalid containerPort: x",
            "8: unknown instruction: COPPY (did you mean COPY?)",
        ]
    );
    let image = surveyed("FROM base AS a\nENV A=${B:?b}\nEXPOSE $P\nSTOPSIGNAL $S\nFROM a\nUSER ${C:z}\n");
    assert_eq!(image, ["1: no image"], "what an image may change is not told");
    assert_eq!(surveyed("FROM base AS a\nEXPOSE x\nFORM base AS b\nCOPY --from=a x y\n").len(), 1);
    assert_eq!(surveyed("AGR X=base\nFROM $X\nEXPOSE x\n").len(), 1, "the stages depend on it");
    let from_late = "FROM scratch\nCOPY --from=9 a b\nEXPOSE x\n";
    assert_eq!(surveyed(from_late), ["0: invalid stage index 9", "3: invalid containerPort: x"]);
}

#[test]
fn findings_end_with_the_first_error() {
    let text = "FROM base\nMAINTAINER me\nENV A 1\nEXPOSE x\nENV B 2\n";
    let Err(LowerError::Failed(failure)) = lowered_in(&World::new(), text, &options(&[])) else {
        panic!("x is no port")
    };
    let lines: Vec<u32> = failure.findings.iter().map(|finding| finding.lines.start).collect();
    assert_eq!(lines, [2, 3]);
}

#[test]
fn targets_are_suggested() {
    assert_eq!(
        failure("FROM scratch AS build\n", &[("target", "biuld")]),
        "target stage \"biuld\" could not be found (did you mean build?)"
    );
}

#[test]
fn lint_can_fail_a_build_and_findings_come_with_failures() {
    let text = "# check=error=true\nFROM base\nMAINTAINER me\n";
    assert_eq!(failure(text, &[]), "lint violation found for rules: MaintainerDeprecated");
    let Err(LowerError::Failed(failure)) =
        lowered_in(&World::new(), "FROM base\nMAINTAINER me\nEXPOSE x\n", &options(&[]))
    else {
        panic!("x is no port")
    };
    assert_eq!(failure.findings.len(), 1);
}

#[test]
fn findings_come_also_from_mounts_that_are_wrong() {
    let text = "FROM base\nRUN --mount=source=$NONE,target=/x,sharing=shared,type=$ODD y\n";
    let Err(LowerError::Failed(failure)) = lowered_in(&World::new(), text, &options(&[])) else {
        panic!("there is no such mount type")
    };
    let messages: Vec<&str> = failure.findings.iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(messages, ["Usage of undefined variable '$NONE'", "Usage of undefined variable '$ODD'"]);
}

#[test]
fn triggers_of_images_open_no_stages() {
    let mut world = World::new();
    let config =
        r#"{"config": {"OnBuild": ["FROM base"]}, "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]}}"#;
    let image = ResolvedImage { config: config.into(), ..ResolvedImage::default() };
    world.images.insert("docker.io/library/base:latest", image);
    let Err(LowerError::Failed(failure)) = lowered_in(&world, "FROM base\n", &options(&[])) else {
        panic!("FROM is no trigger")
    };
    assert_eq!(failure.diagnostic().message, "FROM isn't allowed as an ONBUILD trigger");
}
