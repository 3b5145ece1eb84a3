//! File operations over small file systems: what goes in, which actions, what comes out.
//!
//! Making files of other owners needs root; without it these tests say so and pass.

mod actions;
mod copying;
mod differences;
mod link;
mod racing;
mod selecting;
mod thin;
mod unpacking;
mod world;
