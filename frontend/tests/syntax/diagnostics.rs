//! Excerpts: BuildKit's padding, ours of carets.

use frontend::diagnostic::{Diagnostic, Phase, report};
use frontend::excerpt::excerpt;
use frontend::span::{LineColumn, Lines, SourceFile, Span};

const TEXT: &str = "one\ntwo\n\tthree four\r\nfive\nsix\nseven\n";

fn check(start: u32, end: u32, spans: &[Span]) -> String {
    excerpt(&SourceFile::new("Dockerfile", TEXT.as_bytes()), &[Lines::new(start, end)], spans)
        .unwrap_or_default()
}

#[test]
fn single_lines_have_two_around() {
    insta::assert_snapshot!(check(1, 1, &[]), @r"
    Dockerfile:1
    --------------------
       1 | >>> one
       2 |     two
       3 |     	three four
    --------------------
    ");
    insta::assert_snapshot!(check(4, 4, &[]), @r"
    Dockerfile:4
    --------------------
       2 |     two
       3 |     	three four
       4 | >>> five
       5 |     six
       6 |     seven
    --------------------
    ");
    insta::assert_snapshot!(check(6, 6, &[]), @r"
    Dockerfile:6
    --------------------
       4 |     five
       5 |     six
       6 | >>> seven
       7 |     
    --------------------
    ");
}

#[test]
fn several_lines_have_one_around() {
    insta::assert_snapshot!(check(2, 4, &[]), @r"
    Dockerfile:2
    --------------------
       1 |     one
       2 | >>> two
       3 | >>> 	three four
       4 | >>> five
       5 |     six
    --------------------
    ");
    insta::assert_snapshot!(check(5, 90, &[]), @r"
    Dockerfile:5
    --------------------
       4 |     five
       5 | >>> six
       6 | >>> seven
       7 | >>> 
    --------------------
    ");
}

#[test]
fn lines_that_are_not_there() {
    assert_eq!(check(0, 0, &[]), "");
    assert_eq!(check(8, 8, &[]), "");
}

#[test]
fn carets_keep_tabs() {
    let four = TEXT.find("four").expect("it is there");
    insta::assert_snapshot!(check(3, 3, &[Span::new(four, four + 4), Span::new(0, 2)]), @r"
    Dockerfile:3
    --------------------
       1 |     one
         |     ^^
       2 |     two
       3 | >>> 	three four
         |     	      ^^^^
       4 |     five
       5 |     six
    --------------------
    ");
}

#[test]
fn reports_end_with_the_first() {
    let source = SourceFile::new("Dockerfile", TEXT.as_bytes());
    let error = |line: u32| Diagnostic::error(Phase::Parser, format!("error {line}")).at(Lines::single(line));
    let all = [error(5).hint("try six"), error(1), error(2)];
    insta::assert_snapshot!(report(&all, &source, 2), @r"
    Dockerfile:1
    --------------------
       1 | >>> one
       2 |     two
       3 |     	three four
    --------------------
    error: error 1

    … and 1 more errors

    Dockerfile:5
    --------------------
       3 |     	three four
       4 |     five
       5 | >>> six
       6 |     seven
       7 |     
    --------------------
    error: error 5
    hint: try six
    ");
    assert_eq!(report(&[], &source, 2), "");
}

#[test]
fn carets_stand_below_high_line_numbers_too() {
    let text = format!("{}COPPY a\n", "\n".repeat(9_999));
    let source = SourceFile::new("Dockerfile", text.as_bytes());
    let at = source.line_span(10_000).start;
    let shown =
        excerpt(&source, &[Lines::single(10_000)], &[Span::new(at, at + 5)]).expect("it is in the file");
    assert!(shown.contains("\n 10000 | >>> COPPY a\n       |     ^^^^^\n"), "{shown}");
}

#[test]
fn places() {
    let source = SourceFile::new("Dockerfile", "ä\nbc".as_bytes());
    let at = |offset: usize| {
        let place = source.locate(offset);
        (place.line, place.column)
    };
    assert_eq!([at(0), at(2), at(3), at(4), at(99)], [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]);
    for offset in [0, 2, 3, 4, 5] {
        assert_eq!(source.offset(source.locate(offset)), offset);
    }
    assert_eq!(source.offset(LineColumn { line: 1, column: 9 }), 2);
    assert_eq!(source.offset(LineColumn { line: 9, column: 9 }), 5);
    assert_eq!((source.line_count(), source.line(1), source.line(2), source.line(3)), (2, "ä", "bc", ""));
}
