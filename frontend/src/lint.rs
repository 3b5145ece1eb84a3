//! BuildKit's lint rules: names, texts, pages, lines.
//!
//! Rules that need only the syntax run in [`check_syntax`]; the others are functions that lowering calls
//! where it has what they need. All report to a [`Linter`].

mod linter;
mod options;
mod rule;
mod stage;
mod syntax;
mod variables;

pub use linter::{Finding, Linter};
pub use options::{CheckOptions, CheckOptionsError};
pub use rule::Rule;
pub use stage::{
    UsedOnce, expose_invalid_format, expose_proto_casing, ignored_source, legacy_key_value, relative_workdir,
    secret_key, shell_form,
};
pub use syntax::{check_syntax, findings_before};
pub use variables::{
    base_image_platform, constant_platform, invalid_default_base, redundant_target_platform,
    undefined_from_args, undefined_variables,
};
