//! What holds for any input.

use std::collections::BTreeMap;

use frontend::ast::Command;
use frontend::lint::{Linter, check_syntax};
use frontend::parse::parse;
use frontend::words::Lexer;
use proptest::prelude::*;

/// Text that looks like a Dockerfile from afar.
fn dockerfile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("FROM a\n"),
        Just("FROM b AS c\n"),
        Just("RUN "),
        Just("COPY "),
        Just("ONBUILD "),
        Just("ENV "),
        Just("LABEL "),
        Just("HEALTHCHECK CMD "),
        Just("\\\n"),
        Just("\n"),
        Just("\r\n"),
        Just("# c\n"),
        Just("# escape=`\n"),
        Just("<<E "),
        Just("<<-'E'\n"),
        Just("\nE\n"),
        Just("\t"),
        Just("--mount=type=x,"),
        Just("--"),
        Just("\""),
        Just("'"),
        Just("`"),
        Just("[\"a\", "),
        Just("]"),
        Just("${x:-"),
        Just("}"),
        Just("k=v "),
        Just("ä\u{a0}"),
    ];
    let piece = prop_oneof![8 => piece.prop_map(str::to_owned), 1 => "\\PC{0,6}"];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn parsing_never_panics_and_accounts_for_lines(text in dockerfile()) {
        let (document, diagnostics) = parse("Dockerfile", text.as_bytes());
        let count = document.source.line_count();
        let mut last = 0;
        for instruction in &document.instructions {
            prop_assert!(instruction.lines.start > last && instruction.lines.start <= instruction.lines.end);
            prop_assert!(instruction.lines.end <= count);
            last = instruction.lines.end;
            prop_assert!(instruction.span.end <= text.len());
            prop_assert!(text.get(instruction.span.start..instruction.span.end).is_some());
            let word = instruction.find(&instruction.keyword);
            prop_assert!(text.is_char_boundary(word.start) && text.is_char_boundary(word.end));
        }
        let invalid = document.instructions.iter().any(|instruction| instruction.command == Command::Invalid);
        prop_assert!(!invalid || !diagnostics.is_empty());
        for diagnostic in &diagnostics {
            diagnostic.render(&document.source);
        }
        check_syntax(&document, &mut Linter::default());
    }

    #[test]
    fn bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        parse("Dockerfile", &bytes);
    }

    #[test]
    fn joined_text_is_in_the_file(text in dockerfile()) {
        let (document, _) = parse("Dockerfile", text.as_bytes());
        for instruction in &document.instructions {
            for (at, ch) in instruction.original.char_indices() {
                let offset = instruction.map.offset(at);
                prop_assert_eq!(text.get(offset..).and_then(|rest| rest.chars().next()), Some(ch));
            }
        }
    }

    #[test]
    fn expansion_never_panics(word in "[$a{}:+?#%/*'\"\\\\<\\- -]{0,24}|\\PC{0,24}") {
        let env = BTreeMap::from([("a".to_owned(), "a/b a".to_owned())]);
        for escape in ['\\', '`'] {
            let lexer = Lexer::new(escape);
            if let (Ok(_), Err(error)) = (lexer.expand(&word, &env), lexer.split(&word, &env)) {
                prop_assert!(false, "{error}");
            }
        }
    }

    #[test]
    fn words_without_signs_stay(word in "[a-z0-9 .,;/]{0,30}") {
        prop_assert_eq!(Lexer::new('\\').expand(&word, &()).expect("nothing is special").text, word);
    }

    #[test]
    fn quoted_text_comes_back(text in "[^']{0,30}") {
        let quoted = format!("'{text}'");
        prop_assert_eq!(Lexer::new('\\').expand(&quoted, &()).expect("the quotes close").text, text);
    }
}
