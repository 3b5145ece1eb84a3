//! Expansion and splitting, as tables of word and result.

use std::collections::BTreeMap;

use frontend::words::Lexer;

fn env() -> BTreeMap<String, String> {
    let pairs = [
        ("A", "one"),
        ("EMPTY", ""),
        ("BLANKS", "  two  words "),
        ("DIR", "/usr/local/bin"),
        ("DOTS", "a.b.c"),
        ("ODD", "()[]{}^$.*?|\\x"),
        ("LINES", "first\nsecond"),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn expanded(lexer: Lexer, word: &str) -> String {
    match lexer.expand(word, &env()) {
        Ok(expansion) => expansion.text,
        Err(error) => format!("! {}", error.reason),
    }
}

fn check(cases: &[(&str, &str)]) {
    for (word, expected) in cases {
        assert_eq!(expanded(Lexer::new('\\'), word), *expected, "{word}");
    }
}

#[test]
fn names() {
    check(&[
        ("plain", "plain"),
        ("$A", "one"),
        ("x${A}y", "xoney"),
        ("$A.$A", "one.one"),
        ("$NOT-$A", "-one"),
        ("$12ab", "ab"),
        ("$@x", "x"),
        ("$", "$"),
        ("$.", "$."),
        ("a$", "a$"),
        ("${A", "! unsupported modifier (\u{fffd}) in substitution"),
        ("${", "! syntax error: missing '}'"),
        ("${}", "! syntax error: bad substitution"),
        ("${:}", "! syntax error: bad substitution"),
        ("${{A}}", "! syntax error: bad substitution"),
        ("${A!}", "! unsupported modifier (!) in substitution"),
        ("${A:x}", "! unsupported modifier (:x) in substitution"),
        ("${A:#x}", "! unsupported modifier (:#) in substitution"),
    ]);
}

#[test]
fn quotes_and_escapes() {
    check(&[
        ("'$A'", "$A"),
        ("\"$A\"", "one"),
        ("a'b'c", "abc"),
        ("\\$A", "$A"),
        ("\\\\$A", "\\one"),
        ("\"\\a\\\"\\$\"", "\\a\"$"),
        ("'it\\'s", "it\\s"),
        ("end\\", "end"),
        ("'open", "! unexpected end of statement while looking for matching single-quote"),
        ("\"open", "! unexpected end of statement while looking for matching double-quote"),
        ("\u{feff}mark", "mark"),
    ]);
    assert_eq!(expanded(Lexer::new('`'), "C:\\dir`$A$A"), "C:\\dir$Aone");
    assert_eq!(expanded(Lexer { raw_quotes: true, ..Lexer::new('\\') }, "'a'\"b\""), "'a'\"b\"");
    assert_eq!(expanded(Lexer { raw_escapes: true, ..Lexer::new('\\') }, "\\a\"\\$\""), "\\a\\$");
    assert_eq!(expanded(Lexer { skip_quotes: true, ..Lexer::new('\\') }, "it's $A"), "it's one");
    let skip_unset = Lexer { skip_unset: true, ..Lexer::new('\\') };
    assert_eq!(expanded(skip_unset, "$NO ${NO} ${NO:-x} ${NO/a/b} $A"), "$NO ${NO} ${NO:-x} ${NO/a/b} one");
}

#[test]
fn defaults() {
    check(&[
        ("${A:-x}", "one"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("${NO-x}", "x"),
        ("${NO:-a b}", "a b"),
        ("${NO:-${A}}", "one"),
        ("${NO:-'$A'}", "$A"),
        ("\"${NO:-'$A'}\"", "$A"),
        ("${NO:-a\\}b}", "a}b"),
        ("${A:+x}", "x"),
        ("${A+x}${EMPTY+y}${EMPTY:+z}", "xy"),
        ("${A:?gone}", "one"),
        ("${NO:?gone}", "! NO: gone"),
        ("${NO?}", "! NO: is not allowed to be unset"),
        ("${EMPTY:?}", "! EMPTY: is not allowed to be empty"),
        ("${NO:-x", "! syntax error: missing '}'"),
    ]);
}

#[test]
fn patterns() {
    check(&[
        ("${DIR#/*/}", "local/bin"),
        ("${DIR##/*/}", "bin"),
        ("${DIR%/*}", "/usr/local"),
        ("${DIR%%/*}", ""),
        ("${DOTS%.*}-${DOTS%%.*}-${DOTS#*.}-${DOTS##*.}", "a.b-a-b.c-c"),
        ("${A#?}", "ne"),
        ("${A#x}", "one"),
        ("${DOTS/./-}", "a-b.c"),
        ("${DOTS//./-}", "a-b-c"),
        ("${DOTS//./}", "abc"),
        ("${DIR//\\//-}", "-usr-local-bin"),
        ("${A//?/[$0]}", "[][][]"),
        ("${A//?/[\\$0]}", "[\\o][\\n][\\e]"),
        ("${A//*/x}", "x"),
        ("${A///-}", "-o-n-e-"),
        ("${LINES%%*}", "first\n"),
        ("${ODD#()[]{\\}^$.\\*\\?|\\\\}", "x"),
        ("${A#\\x}", "! invalid pattern (\\x) in substitution: invalid escape '\\x'"),
        ("${A/x", "! syntax error: missing '/' in ${}"),
    ]);
}

#[test]
fn unset_variables_are_told() {
    let expansion = Lexer::new('\\').expand("$A ${NO:-$ALSO} '$QUOTED'", &env()).expect("it is well-formed");
    assert_eq!(expansion.matched.into_iter().collect::<Vec<_>>(), ["A"]);
    assert_eq!(expansion.unmatched.into_iter().collect::<Vec<_>>(), ["ALSO", "NO"]);
}

#[test]
fn splitting() {
    let split = |word: &str| Lexer::new('\\').split(word, &env()).expect("it is well-formed");
    assert_eq!(split("a  b\tc"), ["a", "b", "c"]);
    assert_eq!(split("x$BLANKS"), ["x", "two", "words"]);
    assert_eq!(split("x\"$BLANKS\"y"), ["x  two  words y"]);
    assert_eq!(split("a\\ b 'c d'"), ["a b", "c d"]);
    assert_eq!(split("cat << EOF"), ["cat", "<< EOF"]);
    assert!(split("'' \"\"").is_empty());
    // The nested word empties the one that it stands in: BuildKit's lexer shares one buffer.
    assert_eq!(split("80${NO:-81}"), ["81"]);
}

#[test]
fn deep_nesting_is_refused_not_run_into() {
    let word = format!("{}x{}", "${A:+".repeat(5000), "}".repeat(5000));
    let error = Lexer::new('\\').expand(&word, &env()).expect_err("it nests too deep");
    assert!(error.reason.starts_with("substitutions nest deeper"), "{}", error.reason);
}

#[test]
fn results_have_a_bound() {
    let env = BTreeMap::from([("A".to_owned(), "x".repeat(600_000))]);
    let long = |word: &str| Lexer::new('\\').expand(word, &env).map(|expansion| expansion.text.len());
    assert_eq!(long("$A"), Ok(600_000));
    for word in ["$A$A", "\"$A$A\"", "${A//x/xx}", "${A:+$A$A}"] {
        assert!(long(word).is_err_and(|error| error.reason.contains("longer than")), "{word}");
    }
}
