//! Blobs, records, trees, snapshots, layers, images, garbage collection and the OCI registry client

pub mod context;
mod cores;
pub mod fileop;
mod hashing;
pub mod keyed;
pub mod layer;
pub mod mounts;
pub mod objects;
pub mod oci;
pub mod pattern;
pub mod registry;
pub mod remote;
pub mod store;
pub mod stream;
pub mod tree;
pub mod view;

pub use cores::cores;
pub use hashing::Hashing;
