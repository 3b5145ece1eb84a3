//! Rendering of a build's progress, on stderr.
//!
//! [`Trace`] keeps what Status messages said of each vertex; the displays draw from it: [`plain`] in BuildKit's line format,
//! which tools parse, [`tty`] as a live picture, [`rawjson`] as JSON lines in the form that buildx writes.

mod bytes;
mod display;
mod interval;
mod plain;
mod plural;
mod rawjson;
mod trace;
mod tty;
mod vertex;

pub(crate) use bytes::bytes;
pub use display::{Display, Mode, show_on, spawn};
pub(crate) use plural::plural;
pub use trace::Trace;
pub(crate) use tty::{cut, printable, size};
