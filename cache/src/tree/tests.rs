//! Trees against naive models.

mod bundle;
mod golden;
mod model;
mod paths;
mod resolving;
