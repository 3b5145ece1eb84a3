//! Trees against naive models.

mod golden;
mod model;
mod paths;
mod resolving;
