//! The suite `build` once more, on daemons that copy the files of each step as if overlays could not be mounted: the
//! harness knows this suite by its name.

#[path = "build.rs"]
mod build;
