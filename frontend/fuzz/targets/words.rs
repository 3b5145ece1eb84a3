//! Any text as a word, under both escape tokens.

#![no_main]

use std::collections::BTreeMap;

use frontend::words::Lexer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|word: &str| {
    let env = BTreeMap::from([("a".to_owned(), "x/y z".to_owned()), ("b".to_owned(), String::new())]);
    for escape in ['\\', '`'] {
        let lexer = Lexer::new(escape);
        let expanded = lexer.expand(word, &env);
        assert_eq!(expanded.is_ok(), lexer.split(word, &env).is_ok());
    }
});
