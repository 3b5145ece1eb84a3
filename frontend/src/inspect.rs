//! What `rbuild dockerfile inspect --json` prints: one record per file, as `shared/corpus/README.md` describes it.

mod operations;
mod parse;
mod record;

pub use parse::{
    DirectiveRecord, DirectivesRecord, ErrorRecord, HeredocRecord, InstructionRecord, ParseRecord,
    StageRecord,
};
pub use record::inspect;
