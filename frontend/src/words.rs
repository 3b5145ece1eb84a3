//! Variable expansion, quotes and word splitting, as BuildKit's shell lexer does them.

mod env;
mod lexer;
mod pattern;

pub use env::Env;
pub use lexer::{Expansion, Lexer, WordError};
