//! Fuzz targets: what reads bytes from outside.
//!
//! A target takes any bytes and panics where something does not hold. `make fuzz-smoke` mutates the seeds with libFuzzer for half
//! a minute, `make fuzz` for as long as is wished; the tests replay `seeds/TARGET/`, where each input that once failed stays.

mod tar_repair;
mod targets;

pub use targets::TARGETS;

/// A function that is given inputs.
pub type Target = fn(&[u8]);
