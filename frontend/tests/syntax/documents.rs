//! What the parser makes of whole files.

use std::fmt::Write as _;

use frontend::ast::{Command, Document};
use frontend::parse::parse;

/// Parses a file without errors.
fn document(text: &str) -> Document {
    let (document, diagnostics) = parse("Dockerfile", text.as_bytes());
    assert_eq!(diagnostics, [], "{text}");
    document
}

/// One line per instruction: lines, keyword, flags, arguments, and what hangs on it.
fn dump(text: &str) -> String {
    let mut out = String::new();
    for instruction in document(text).instructions {
        let (lines, json) = (instruction.lines, if instruction.json { " json" } else { "" });
        write!(out, "{}-{} {}", lines.start, lines.end, instruction.keyword).expect("a string takes it");
        if !instruction.flags.is_empty() {
            write!(out, " {:?}", instruction.flags).expect("a string takes it");
        }
        write!(out, " {:?}{json}", instruction.args).expect("a string takes it");
        for heredoc in &instruction.heredocs {
            write!(out, "\n    {heredoc:?}").expect("a string takes it");
        }
        if !instruction.comments.is_empty() {
            write!(out, "\n    # {:?}", instruction.comments).expect("a string takes it");
        }
        if let Some(trigger) = &instruction.trigger {
            write!(out, "\n    {} {:?} {:?}", trigger.keyword, trigger.flags, trigger.args)
                .expect("a string takes it");
        }
        out.push('\n');
    }
    out
}

#[test]
fn continuations() {
    insta::assert_snapshot!(dump("\u{feff}FROM a\r\n\nRUN one \\\r\n  # between\n  two\\  \n\n three \\\\\nRUN x\\\n# to the end"), @r#"
    1-1 FROM ["a"]
    3-7 RUN ["one   two three \\\\"]
    8-9 RUN ["x"]
    "#);
    insta::assert_snapshot!(dump("# escape=`\nFROM a\nRUN dir C:\\ `\n  b ``\n"), @r#"
    2-2 FROM ["a"]
    3-4 RUN ["dir C:\\   b ``"]
    "#);
    assert_eq!(document("FROM a\nRUN x \\\n\n\n y\n").empty_continuations, [5]);
}

#[test]
fn comments_above() {
    insta::assert_snapshot!(dump("# syntax=x\n# base is it\n\n  # indented\nFROM a AS base\n# lost\n#\n# kept\nRUN x\n"), @r##"
    5-5 FROM ["a", "AS", "base"]
        # ["base is it", "# indented"]
    9-9 RUN ["x"]
        # ["kept"]
    "##);
    let document = document("# base is it\nFROM a AS base\n# K the key\nARG J K=1\n");
    assert_eq!(document.stages[0].doc.as_deref(), Some("is it"));
    let Command::Arg(arg) = &document.instructions[1].command else { panic!("it is an ARG") };
    assert_eq!(arg.args.iter().map(|arg| arg.doc.as_deref()).collect::<Vec<_>>(), [None, Some("the key")]);
}

#[test]
fn flags() {
    insta::assert_snapshot!(dump("FROM --platform=$P a\nRUN --mount=type=bind,target=/x  --network=none ls --all\nCOPY --chown='a b' --exclude=\"x y\" --exclude=z\\ z  -- --from=x /y\nRUN --\nRUN -- --x\n"), @r#"
    1-1 FROM ["--platform=$P"] ["a"]
    2-2 RUN ["--mount=type=bind,target=/x", "--network=none"] ["ls --all"]
    3-3 COPY ["--chown=a b", "--exclude=x y", "--exclude=z z"] ["--from=x", "/y"]
    4-4 RUN []
    5-5 RUN ["--x"]
    "#);
}

#[test]
fn words_and_json() {
    insta::assert_snapshot!(dump("FROM a\nENV A=1 B=\"x y\" C=a\\ b D='\\' E=\nENV old  form here\nLABEL \"k k\"=v\nARG x y=1 'z z'\nCMD [\"a\", \"\\u00e9\\ud83d\\ude00\\n\"]\nCMD []\nCMD ['a']\nENTRYPOINT [\"a\",]\nVOLUME /a /b\nEXPOSE 80/tcp  90\nSHELL [\"sh\"]\nHEALTHCHECK --retries=3 CMD [\"x\"]\nHEALTHCHECK NONE\n"), @r#"
    1-1 FROM ["a"]
    2-2 ENV ["A", "1", "=", "B", "\"x y\"", "=", "C", "a\\ b", "=", "D", "'\\'", "=", "E", "", "="]
    3-3 ENV ["old", "form here", ""]
    4-4 LABEL ["\"k k\"", "v", "="]
    5-5 ARG ["x", "y=1", "'z z'"]
    6-6 CMD ["a", "é😀\n"] json
    7-7 CMD [] json
    8-8 CMD ["['a']"]
    9-9 ENTRYPOINT ["[\"a\",]"]
    10-10 VOLUME ["/a", "/b"]
    11-11 EXPOSE ["80/tcp", "90"]
    12-12 SHELL ["sh"] json
    13-13 HEALTHCHECK ["--retries=3"] ["CMD", "x"] json
    14-14 HEALTHCHECK ["NONE"]
    "#);
}

#[test]
fn here_documents() {
    insta::assert_snapshot!(dump("FROM a\nRUN 3<<-EOT cat <<'RAW'\n\tone\n\tEOT\n$two\nRAW\nCOPY <<a.txt <<\"b b\" /d/\nx\r\na.txt\ny\nb b\nRUN [\"x\", \"<<EOT\"]\nRUN echo \"<<no\" '<<no' 1<<<x\nONBUILD RUN <<E\nz\nE\n"), @r#"
    1-1 FROM ["a"]
    2-6 RUN ["3<<-EOT cat <<'RAW'"]
        Heredoc { name: "EOT", fd: 3, expand: true, chomp: true, content: "\tone\n" }
        Heredoc { name: "RAW", fd: 0, expand: false, chomp: false, content: "$two\n" }
    7-11 COPY ["<<a.txt", "<<\"b", "b\"", "/d/"]
        Heredoc { name: "a.txt", fd: 0, expand: true, chomp: false, content: "x\r\n" }
        Heredoc { name: "b b", fd: 0, expand: false, chomp: false, content: "y\n" }
    12-12 RUN ["x", "<<EOT"] json
    13-13 RUN ["echo \"<<no\" '<<no' 1<<<x"]
    14-16 ONBUILD []
        Heredoc { name: "E", fd: 0, expand: true, chomp: false, content: "z\n" }
        RUN [] ["<<E"]
    "#);
}

#[test]
fn directives() {
    let read = |text: &str| {
        let (document, _) = parse("Dockerfile", text.as_bytes());
        let directives = document.directives;
        let value =
            |directive: Option<frontend::ast::Directive>| directive.map(|found| (found.value, found.line));
        (directives.escape, value(directives.syntax), value(directives.check), directives.list.len())
    };
    let some = |value: &str, line| Some((value.to_owned(), line));
    assert_eq!(
        read("#syntax = a b \n#  CHECK=skip=X\n# other=1\n# escape=`\nFROM a"),
        ('\\', some("a b", 1), some("skip=X", 2), 2)
    );
    assert_eq!(read("#!/bin/sh\n# check=skip=all\n# escape=`\nFROM a"), ('\\', None, some("skip=all", 2), 0));
    assert_eq!(read("// syntax=x\nFROM a"), ('\\', some("x", 1), None, 0));
    assert_eq!(read("{\"syntax\": \"x\"}"), ('\\', some("x", 0), None, 0));
    assert_eq!(read("\n# escape=`\nFROM a"), ('\\', None, None, 0));
    assert_eq!(read("# escape=`\nFROM a").0, '`');
}

#[test]
fn what_ends_the_directives_is_recorded() {
    let directives = |text: &str| frontend::inspect::inspect("f", text.as_bytes())["directives"].clone();
    let twice = directives("# escape=`\n# escape=`\nFROM a\n");
    assert_eq!(twice["error"], "only one escape parser directive can be used");
    assert_eq!((&twice["escape"], twice["list"].as_array().map(Vec::len)), (&"\\".into(), Some(1)));
    let broken = directives("# escape=`\nFROM a\nENV A\n");
    assert_eq!((&broken["escape"], &broken["error"]), (&"\\".into(), &serde_json::Value::Null));
    assert_eq!(directives("# escape=`\nFROM a\nCOPPY a\n")["escape"], "`", "the lines were taken apart");
    assert_eq!(directives(" # escape=`\nFROM a\n")["list"], serde_json::json!([]));
    assert_eq!(directives("# escape=x\nFROM a\n")["list"][0]["value"], "x");
}

#[test]
fn what_is_told_before_a_file_is_parsed() {
    let error = |text: &str| {
        let record = frontend::inspect::inspect("f", text.as_bytes());
        let error = &record["convert_error"];
        (error["message"].as_str().unwrap_or("").to_owned(), error["lines"].clone())
    };
    assert_eq!(error(""), ("the Dockerfile cannot be empty".to_owned(), serde_json::json!([])));
    let options =
        ("failed to parse check options: invalid check option \"\"".to_owned(), serde_json::json!([]));
    assert_eq!(error("# check=skip=all; error=true\nFROM a\nCOPPY b\n"), options);
    assert_eq!(error("# check=skip=all\nFROM a\nCOPPY b\n").1, serde_json::json!([3]));
}

#[test]
fn stages() {
    let document = document(
        "ARG V=1\nARG W\nFROM a:$V AS One\nRUN x\nRUN y\nFROM --platform= one\nfrom b as two\nRUN z\n",
    );
    assert_eq!(document.global_args().count(), 2);
    let stage = |index: usize| {
        let stage = &document.stages[index];
        let commands = document.commands(stage).len();
        (stage.name.as_deref(), stage.base.as_str(), stage.platform.as_deref(), stage.lines.start, commands)
    };
    assert_eq!(stage(0), (Some("one"), "a:$V", None, 3, 2));
    assert_eq!(stage(1), (None, "one", None, 6, 0));
    assert_eq!(stage(2), (Some("two"), "b", None, 7, 1));
    assert_eq!(document.from(&document.stages[2]).keyword, "from");
}

#[test]
fn spans_reach_over_continuations() {
    let text = "FROM a\nRUN one \\\n # no\n  two\n";
    let document = document(text);
    let run = &document.instructions[1];
    let at = |span: frontend::span::Span| &text[span.start..span.end];
    assert_eq!(at(run.span), "RUN one \\\n # no\n  two");
    assert_eq!(at(run.find("two")), "two");
    assert_eq!(at(run.find("one   two")), "one \\\n # no\n  two");
    assert_eq!(at(run.find("absent")), at(run.span));
}

#[test]
fn copied_here_documents_lose_tabs_and_quotes() {
    let document = document("FROM a\nCOPY <<-'x' y /d/\n\t\ttext \\$\n\tx\n");
    let Command::Copy(copy) = &document.instructions[1].command else { panic!("it is a COPY") };
    assert_eq!(copy.files.paths, ["y"]);
    let file = &copy.files.files[0];
    assert_eq!((file.name.as_str(), file.data.as_str(), file.expand), ("x", "text \\$\n", false));
}

#[test]
fn triggers_keep_their_text() {
    let document = document("FROM a\nonbuild  COPY <<E \\\n  /x\ny\nE\n");
    let Command::Onbuild(onbuild) = &document.instructions[1].command else { panic!("it is an ONBUILD") };
    assert_eq!(onbuild.expression, "COPY <<E   /x\ny\nE");
    let lines = frontend::span::Lines::single(7);
    let trigger = frontend::parse::parse_trigger(&onbuild.expression, lines).expect("it was parsed before");
    assert_eq!((trigger.keyword.as_str(), trigger.lines), ("COPY", lines));
    let error = frontend::parse::parse_trigger("COPPY a b", lines).expect_err("it is no instruction");
    assert_eq!(
        (error.message.as_str(), error.lines),
        ("unknown instruction: COPPY (did you mean COPY?)", Some(lines))
    );
}

#[test]
fn bytes_that_are_no_text_become_marks() {
    let (document, diagnostics) = parse("Dockerfile", b"FROM a\nRUN x\xff\xfey\n");
    assert_eq!(diagnostics, []);
    assert_eq!(document.instructions[1].args, ["x\u{fffd}\u{fffd}y"]);
}

#[test]
fn triggers_lose_only_ascii_blanks_before_them() {
    let (document, _) = parse("Dockerfile", "FROM a\nONBUILD \t\u{2003}x\n".as_bytes());
    let Command::Onbuild(onbuild) = &document.instructions[1].command else { panic!("an ONBUILD") };
    assert_eq!(onbuild.expression, "\u{2003}x");
}
