//! The pages for users name what there is.

use std::process::Command;

use tests::{output, program};

/// Each long option of `rbuild build` stands in its page.
#[test]
fn every_option_of_a_build_is_described() {
    let help = output(Command::new(program()).args(["build", "--help"])).ok().stdout;
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/building.md");
    let page = fs_err::read_to_string(page).unwrap();
    let words =
        help.split([' ', ',', '\n', '=', '[', '`']).filter(|word| word.starts_with("--") && word.len() > 2);
    let missing: Vec<_> = words.filter(|option| *option != "--help" && !page.contains(option)).collect();
    assert!(missing.is_empty(), "docs/building.md lacks {missing:?}");
}
