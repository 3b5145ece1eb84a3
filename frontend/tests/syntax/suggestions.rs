//! "Did you mean", and Go's quoting.

use frontend::quote::quote;
use frontend::suggest::{nearest, nearest_ignoring_case};

#[test]
fn the_nearest_within_two_edits() {
    let names = ["build", "builder", "test"];
    let cases = [
        ("biuld", Some("build")),
        ("buildr", Some("build")),
        ("tset", Some("test")),
        ("t", None),
        ("build", None),
        ("", None),
        ("bu\u{ef}ld", Some("build")),
    ];
    for (value, expected) in cases {
        assert_eq!(nearest(value, names), expected, "{value}");
    }
}

#[test]
fn an_empty_name_is_no_suggestion() {
    assert_eq!(nearest("A", ["", "AB"]), None);
}

#[test]
fn the_answer_takes_the_case_of_the_question() {
    let find = |value: &str| nearest_ignoring_case(value, ["COPY", "CMD"]);
    assert_eq!(find("COPPY").as_deref(), Some("COPY"));
    assert_eq!(find("coppy").as_deref(), Some("copy"));
    assert_eq!(find("copy"), None);
}

#[test]
fn quoting() {
    assert_eq!(
        quote("a\"b\\c'd\n\t\r\u{7}\u{1}\u{7f}é\u{200b}"),
        "\"a\\\"b\\\\c'd\\n\\t\\r\\a\\x01\\x7fé\\u200b\""
    );
}
