//! Rendered errors, and which of them BuildKit would report.

use frontend::diagnostic::report;
use frontend::parse::parse;

/// All errors of a file, as a failed build prints them.
fn check(text: &str) -> String {
    let (document, diagnostics) = parse("Dockerfile", text.as_bytes());
    report(&diagnostics, &document.source, 20)
}

/// The first error: its phase, lines and message.
fn first(text: &str) -> String {
    let (_, diagnostics) = parse("Dockerfile", text.as_bytes());
    let Some(first) = diagnostics.first() else { return "none".to_owned() };
    let lines = first.lines.expect("all have lines");
    format!("{} {}-{} {}", first.phase.as_str(), lines.start, lines.end, first.message)
}

#[test]
fn all_errors_of_a_file() {
    insta::assert_snapshot!(check("FROM busybox AS 1st\nCOPPY a b\nRUN --mout=type=cache,target=/x \\\n    --network=hots make\nCMD [\"a\", 1]\n"), @r#"
    Dockerfile:1
    --------------------
       1 | >>> FROM busybox AS 1st
         |                     ^^^
       2 |     COPPY a b
       3 |     RUN --mout=type=cache,target=/x \
    --------------------
    error: invalid name for build stage: "1st", name can't start with a number or contain symbols
    hint: a name starts with a letter and goes on with letters, digits, `-`, `_` and `.`

    Dockerfile:2
    --------------------
       1 |     FROM busybox AS 1st
       2 | >>> COPPY a b
         |     ^^^^^
       3 |     RUN --mout=type=cache,target=/x \
       4 |         --network=hots make
    --------------------
    error: unknown instruction: COPPY (did you mean COPY?)

    Dockerfile:3
    --------------------
       2 |     COPPY a b
       3 | >>> RUN --mout=type=cache,target=/x \
         |         ^^^^^^
       4 | >>>     --network=hots make
       5 |     CMD ["a", 1]
    --------------------
    error: unknown flag: --mout (did you mean mount?)

    Dockerfile:5
    --------------------
       3 |     RUN --mout=type=cache,target=/x \
       4 |         --network=hots make
       5 | >>> CMD ["a", 1]
       6 |     
    --------------------
    error: when using JSON array syntax, arrays must be comprised of strings only
    hint: put each element in double quotes
    "#);
}

#[test]
fn an_error_in_a_continued_line() {
    insta::assert_snapshot!(check("FROM a\nENV A=1 \\\n    # why\n    B\nUSER\n"), @r#"
    Dockerfile:5
    --------------------
       3 |         # why
       4 |         B
       5 | >>> USER
         |     ^^^^
       6 |     
    --------------------
    error: USER requires exactly one argument

    Dockerfile:2
    --------------------
       1 |     FROM a
       2 | >>> ENV A=1 \
       3 | >>>     # why
       4 | >>>     B
         |         ^
       5 |     USER
    --------------------
    error: Syntax error - can't find = in "B". Must be of the form: name=value
    hint: a value with blanks needs quotes around it
    "#);
}

#[test]
fn an_error_that_has_no_line_in_buildkit() {
    insta::assert_snapshot!(check("# escape=x\nFROM a\n"), @r"
    Dockerfile:1
    --------------------
       1 | >>> # escape=x
         |     ^^^^^^^^^^
       2 |     FROM a
       3 |     
    --------------------
    error: invalid escape token 'x' does not match ` or \
    hint: the escape token is a backslash or a backtick
    ");
}

#[test]
fn an_open_here_document() {
    insta::assert_snapshot!(check("FROM a\nRUN <<EOT\ntext\n EOT\n"), @r"
    Dockerfile:2
    --------------------
       1 |     FROM a
       2 | >>> RUN <<EOT
         |           ^^^
       3 | >>> text
       4 | >>>  EOT
       5 |     
    --------------------
    error: unterminated heredoc
    hint: end it with a line that holds only `EOT`
    ");
}

#[test]
fn a_file_without_instructions() {
    insta::assert_snapshot!(check("# nothing\n\n"), @r"
    Dockerfile:2
    --------------------
       1 |     # nothing
       2 | >>> 
       3 |     
    --------------------
    error: file with no instructions
    hint: a Dockerfile starts with `FROM image`
    ");
}

#[test]
fn buildkits_choice() {
    let cases = [
        ("", "parser 0-0 file with no instructions"),
        ("# a\n\n# b\n", "parser 3-3 file with no instructions"),
        ("# escape=`\n# escape=\\\nFROM a", "parser 1-1 only one escape parser directive can be used"),
        ("# escape=ab\nFROM a", "parser 0-0 invalid escape token 'ab' does not match ` or \\"),
        ("BAD\nFROM a\nENV x\n", "parser 3-3 ENV must have two arguments"),
        (
            "FROM a\nENV a=1 \\\n b\n",
            "parser 2-3 Syntax error - can't find = in \"b\". Must be of the form: name=value",
        ),
        (
            "FROM a\nRUN [\"a\", [\"b\"]]",
            "parser 2-2 when using JSON array syntax, arrays must be comprised of strings only",
        ),
        ("FROM a\nRUN <<A <<B\nx\nA\ny", "parser 2-5 unterminated heredoc"),
        ("FROM a\nONBUILD ENV x", "parser 2-2 ENV must have two arguments"),
        ("RUN x\nFROM", "instructions 1-1 no build stage in current context"),
        ("ARG a\nFROM", "instructions 2-2 FROM requires either one or three arguments"),
        ("FROM a B c", "instructions 1-1 FROM requires either one or three arguments"),
        (
            "FROM a AS b_\u{e9}",
            "instructions 1-1 invalid name for build stage: \"b_\u{e9}\", name can't start with a number or contain symbols",
        ),
        ("FROM --platfrom=x a", "instructions 1-1 unknown flag: --platfrom (did you mean platform?)"),
        ("FROM a\nFRMO b", "instructions 2-2 unknown instruction: FRMO (did you mean FROM?)"),
        ("FROM a\nxyz", "instructions 2-2 unknown instruction: xyz"),
        ("FROM a\nCOPY --link --link a b", "instructions 2-2 duplicate flag specified: --link"),
        (
            "FROM a\nCOPY --link=maybe a b",
            "instructions 2-2 expecting boolean value for flag --link, not: maybe",
        ),
        ("FROM a\nCOPY --link= a b", "instructions 2-2 missing a value on flag: --link"),
        ("FROM a\nCOPY --chown a b", "instructions 2-2 missing a value on flag: --chown"),
        (
            "FROM a\nCOPY a",
            "instructions 2-2 COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("FROM a\nCOPY a <<E\nE", "instructions 2-3 COPY cannot accept a heredoc as a destination"),
        (
            "FROM a\nADD",
            "instructions 2-2 ADD requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("FROM a\nENV", "instructions 2-2 ENV requires at least one argument"),
        ("FROM a\nENV =x", "instructions 2-2 ENV names can not be blank"),
        ("FROM a\nARG =x", "instructions 2-2 ARG names can not be blank"),
        ("FROM a\nWORKDIR", "instructions 2-2 WORKDIR requires exactly one argument"),
        ("FROM a\nUSER --x", "instructions 2-2 USER requires exactly one argument"),
        ("FROM a\nUSER --x y", "instructions 2-2 unknown flag: --x"),
        ("FROM a\nVOLUME [\"\"]", "instructions 2-2 VOLUME specified can not be an empty string"),
        ("FROM a\nSHELL sh", "instructions 2-2 SHELL requires the arguments to be in JSON form"),
        ("FROM a\nSHELL []", "instructions 2-2 SHELL requires at least one argument"),
        ("FROM a\nONBUILD", "instructions 2-2 ONBUILD requires at least one argument"),
        (
            "FROM a\nONBUILD ONBUILD RUN x",
            "instructions 2-2 Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        ("FROM a\nONBUILD from x", "instructions 2-2 FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nHEALTHCHECK CMD", "instructions 2-2 Missing command after HEALTHCHECK CMD"),
        ("FROM a\nHEALTHCHECK curl", "instructions 2-2 Unknown type \"CURL\" in HEALTHCHECK (try CMD)"),
        ("FROM a\nHEALTHCHECK NONE x", "instructions 2-2 HEALTHCHECK NONE takes no arguments"),
        (
            "FROM a\nHEALTHCHECK --timeout=1us CMD x",
            "instructions 2-2 Interval \"timeout\" cannot be less than 1ms",
        ),
        (
            "FROM a\nHEALTHCHECK --timeout=-1s CMD x",
            "instructions 2-2 Interval \"timeout\" cannot be less than 1ms",
        ),
        ("FROM a\nHEALTHCHECK --timeout=5 CMD x", "instructions 2-2 time: invalid duration \"5\""),
        ("FROM a\nHEALTHCHECK --retries=-1 CMD x", "instructions 2-2 --retries cannot be negative (-1)"),
        (
            "FROM a\nRUN --network=hosts x",
            "instructions 2-2 invalid network mode \"hosts\" (did you mean host?)",
        ),
        ("FROM a\nRUN --security=none x", "instructions 2-2 security \"none\" is not valid"),
        (
            "FROM a\nRUN --mount=from=$X,target=/x y",
            "instructions 2-2 'from' doesn't support variable expansion, define alias stage instead",
        ),
        ("FROM a\nRUN --device=a,b y", "instructions 2-2 invalid field 'b' must be a key=value pair"),
    ];
    for (text, expected) in cases {
        assert_eq!(first(text), expected, "{text:?}");
    }
}

#[test]
fn what_nobody_looks_at() {
    for text in [
        "FROM a\nARG --x y",
        "FROM a\nSTOPSIGNAL --x 9",
        "FROM a\nHEALTHCHECK --x NONE",
        "FROM a\nCMD",
        "FROM a\nRUN",
        "FROM a\nENTRYPOINT",
        "FROM a\nRUN [\"a\"",
        "FROM a\nRUN [\"a\tb\"]",
        "FROM a\nRUN ['a', [1]]",
        "FROM a\nRUN echo '<<EOT",
        "FROM --platform= a",
        "FROM a\nHEALTHCHECK --interval= --timeout=0 --retries= CMD x",
    ] {
        assert_eq!(first(text), "none", "{text:?}");
    }
}

#[test]
fn long_lines() {
    let line = |len: usize| format!("FROM a\nRUN {}\n", "x".repeat(len - 4));
    assert_eq!(first(&line(65_535)), "none");
    assert_eq!(first(&line(65_536)), "parser 1-1 dockerfile line greater than max allowed size of 65535");
    let joined = format!("FROM a\nRUN {}", format!("{}\\\n", "x".repeat(60_000)).repeat(10));
    assert_eq!(first(&joined), "none");
}

#[test]
fn triggers_of_triggers_take_no_stack() {
    let nested = format!("FROM a\n{}RUN x", "ONBUILD ".repeat(8_000));
    assert_eq!(first(&nested), "instructions 2-2 Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
}

#[test]
fn nested_arrays_take_no_stack() {
    assert_eq!(first(&format!("FROM a\nCMD {}", "[".repeat(60_000))), "none");
    let closed = format!("FROM a\nCMD {}{}", "[".repeat(30_000), "]".repeat(30_000));
    assert!(first(&closed).ends_with("arrays must be comprised of strings only"));
}
