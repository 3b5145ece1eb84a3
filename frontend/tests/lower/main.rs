//! Dockerfiles and the graphs that they become, images, needs and errors.

mod errors;
mod graphs;
mod images;
mod needs;
mod options;
mod world;
