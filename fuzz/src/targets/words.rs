//! Any text as a word, under both escape tokens: `split` succeeds when `expand` does.

use std::collections::BTreeMap;

use frontend::words::Lexer;

pub(super) fn run(bytes: &[u8]) {
    let Ok(word) = std::str::from_utf8(bytes) else { return };
    let env = BTreeMap::from([("a".to_owned(), "x/y z".to_owned()), ("b".to_owned(), String::new())]);
    for escape in ['\\', '`'] {
        let lexer = Lexer::new(escape);
        let expanded = lexer.expand(word, &env);
        assert_eq!(expanded.is_ok(), lexer.split(word, &env).is_ok());
    }
}
