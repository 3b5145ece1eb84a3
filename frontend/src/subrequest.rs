//! What `--call` asks of a Dockerfile instead of building it: text and JSON as BuildKit's frontend gives them.
//!
//! The results are plain data; [`Answer`] is what goes back: `result.txt`, `result.json`, `version`, and for lint
//! `result.statuscode`.

mod answer;
mod describe;
mod lint;
mod location;
mod outline;
mod table;
mod targets;

pub use answer::Answer;
pub use describe::describe;
pub use lint::lint;
pub use location::Location;
pub use outline::{Outline, OutlineArg, OutlineMount};
pub use targets::targets;
