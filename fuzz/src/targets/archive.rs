//! An archive of images, OCI's or Docker's, as `rbuild load` is given.

use std::io::{Read as _, Write as _};

use cache::oci::{Decompressor, ImageArchive, Platform};

use crate::tar_repair::{repair, scratch};

pub(super) fn run(bytes: &[u8]) {
    let dir = scratch();
    let path = dir.path().join("archive");
    let written = std::fs::File::create(&path).and_then(|mut file| file.write_all(&repair(bytes)));
    written.expect("a temporary file can be written");
    match ImageArchive::open(&path) {
        Ok(ImageArchive::Layout(layout)) => {
            layout.names();
            for entry in &layout.index().manifests {
                let _ = layout.resolve(entry, &Platform::host());
            }
        }
        Ok(ImageArchive::Docker(archive)) => {
            for layer in archive.images().iter().flat_map(|image| &image.layers) {
                let _ = archive.open_layer(layer).map(drain);
            }
        }
        Err(_) => {}
    }
    drain(bytes);
}

/// Decompresses a little of what is there.
fn drain(input: impl std::io::Read) {
    if let Ok(reader) = Decompressor::new(input) {
        let _ = std::io::copy(&mut reader.take(1 << 20), &mut std::io::sink());
    }
}
