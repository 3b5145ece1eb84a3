//! Blobs, records, trees, snapshots, layers, images, garbage collection and the OCI registry client

pub mod layer;
pub mod oci;
pub mod registry;
pub mod tree;
pub mod view;
