//! Blobs, records, trees, snapshots, layers, images, garbage collection and the OCI registry client
