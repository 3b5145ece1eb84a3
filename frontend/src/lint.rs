//! BuildKit's lint rules: names, texts, pages, lines.
//!
//! Rules that need only the syntax run in [`check_syntax`]; the others are functions that lowering calls
//! where it has what they need. All report to a [`Linter`].

mod linter;
mod options;
mod rule;

pub use linter::{Finding, Linter};
pub use options::{CheckOptions, CheckOptionsError};
pub use rule::Rule;
