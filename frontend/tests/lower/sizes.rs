//! Large files: what has to stay linear.

use crate::world::lowered;

/// A chain of stages keeps one history, not one per stage; a wide file asks for each image once.
#[test]
fn ten_thousand_stages_and_instructions() {
    let mut chain = String::from("FROM base AS s0\n");
    for stage in 1..10_000 {
        chain += &format!("FROM s{} AS s{stage}\nENV A{}=1\n", stage - 1, stage % 50);
    }
    assert_eq!(lowered(&chain, &[]).image.history.len(), 9_999);

    let mut wide = String::from("FROM scratch AS all\n");
    for stage in 0..5_000 {
        wide += &format!("COPY --from=base /f{stage} /\nRUN true {stage}\n");
    }
    assert_eq!(lowered(&wide, &[]).graph.vertices().len(), 10_001);
}

/// Equal commands that differ in their environment only are told apart without comparing each with each; so are the
/// stages that one stage copies from.
#[test]
fn stages_side_by_side() {
    let mut text = String::new();
    for stage in 0..3_000 {
        text += &format!("FROM base AS s{stage}\nENV X={stage}\nRUN make\n");
    }
    text += "FROM base\n";
    for stage in 0..3_000 {
        text += &format!("COPY --from=s{stage} /o /o{stage}\n");
    }
    assert_eq!(lowered(&text, &[]).graph.vertices().len(), 6_001);
}

#[test]
fn ten_megabytes() {
    let comments = format!("FROM base\n{}RUN true\n", "# one of many = comments\n".repeat(420_000));
    assert!(comments.len() > 10 << 20);
    assert_eq!(lowered(&comments, &[]).graph.vertices().len(), 2);
    let line = format!("FROM base\nRUN {}true\n", "a word && \\\n".repeat(100_000));
    assert_eq!(lowered(&line, &[]).graph.vertices().len(), 2);
    let script = format!("FROM base\nRUN <<E\n{}E\n", "echo $LINE\n".repeat(500_000));
    assert_eq!(lowered(&script, &[]).graph.vertices().len(), 2);
}

/// Whatever nests is refused or taken, on the stack of a test's thread.
#[test]
fn nesting_of_every_kind() {
    const DEPTH: usize = 100_000;
    // A line is at most 64 KiB long, what continues it is not.
    let broken = |line: String| {
        let pieces: Vec<String> =
            line.as_bytes().chunks(50_000).map(|piece| String::from_utf8_lossy(piece).into_owned()).collect();
        format!("FROM base\n{}\n", pieces.join("\\\n"))
    };
    let lowers = |text: &str| {
        let record = frontend::inspect::inspect("f", text.as_bytes());
        assert_ne!(record["convert_error"].is_null(), record["llb"].is_null());
        record["convert_error"].is_null()
    };
    let nested = |open: &str, inner: &str, close: &str, depth: usize| {
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    assert!(lowers(&broken(format!("ENV A={}", nested("${B:-", "x", "}", 100)))));
    assert!(!lowers(&broken(format!("ENV A={}", nested("${B:-", "x", "}", DEPTH)))));
    assert!(!lowers(&broken(format!("ENV A={}", nested("${B/", "x", "/y}", DEPTH)))));
    assert!(!lowers(&broken(format!("COPY a {}", nested("\"${B:+", "x", "}\"", DEPTH)))));
    assert!(lowers(&broken(format!("RUN {}", nested("(", "true", ")", DEPTH)))));
    assert!(!lowers(&broken(format!("RUN {}", nested("[", "", "]", 100)))));
    lowers(&broken(format!("RUN {}", nested("[", "", "]", DEPTH))));
    assert!(lowers(&broken(format!("CMD [{}\"x\"]", "\"x\",".repeat(DEPTH)))));
    assert!(!lowers(&broken(format!("{}RUN x", "ONBUILD ".repeat(DEPTH)))));
    lowers(&broken(format!("RUN --mount=type=cache{}", ",target=/x".repeat(DEPTH))));
    let markers: String = (0..2_000).map(|i| format!(" <<E{i}")).collect();
    let bodies: String = (0..2_000).map(|i| format!("<<E{}\nE{i}\n", i + 1)).collect();
    assert!(lowers(&format!("FROM base\nRUN cat{markers}\n{bodies}")));
    assert!(lowers(&format!("FROM base\nRUN true{}\n", " \\\n# no\n\n".repeat(DEPTH))));
}
