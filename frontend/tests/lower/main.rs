//! Dockerfiles and the graphs that they become, images, needs and errors.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod errors;
mod graphs;
mod images;
mod needs;
mod options;
mod robust;
mod sizes;
mod world;
