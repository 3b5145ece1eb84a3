//! The one place where graphs become LLB and LLB becomes graphs.
//!
//! LLB (`proto/buildkit/ops.proto`) names an op by the SHA-256 of its marshalled form, which holds the names of its inputs.
//! What comes from outside is checked completely before anything is made of it: [`from_definition`] returns a graph whose
//! indexes all exist and whose texts hold no NUL, or an [`LlbError`]; it never panics and its work is linear in its input.

mod cachekey;
mod decode;
mod definition;
mod digests;
mod encode;
mod error;
mod exec;
mod file;
mod json;
mod name;
#[cfg(test)]
mod tests;

pub use cachekey::{InputKey, OpKey, content_key, go_json, image_key, op_key, output_key, source_key};
pub use decode::platform as from_platform;
pub use definition::{from_definition, loaded_by, to_definition, to_op, without_empty_locations};
pub use digests::vertex_digests;
pub use encode::platform as to_platform;
pub use error::{Invalid, LlbError};
pub use exec::decode_exec as exec_op;
pub use json::{Steps, steps};
pub use name::{progress_group, vertex_name};
