//! Manifests, indexes, image configs, references, platforms and lists of a layer's entries and of a cache mount: what is accepted can be
//! written and is then read as the same.

use cache::layer::Entries;
use cache::mounts::MountList;
use cache::oci::{Document, ImageMetadata, Platform, Reference};

pub(super) fn run(bytes: &[u8]) {
    if let Ok(document) = Document::parse(bytes, None) {
        let written = match &document {
            Document::Index(index) => index.to_json(),
            Document::Manifest(manifest) => manifest.to_json(),
        };
        let again =
            Document::parse(&written, Some(document.media_type())).expect("a document that was accepted");
        assert_eq!(format!("{again:?}"), format!("{document:?}"));
        if let Document::Index(index) = &document {
            index.select(&Platform::host());
            index.platforms();
        }
    }
    if let Ok(config) = ImageMetadata::parse(bytes) {
        let _ = config.platform.clone().normalized();
        let again = ImageMetadata::parse(&config.to_json()).expect("a config that was accepted");
        assert_eq!(format!("{again:?}"), format!("{config:?}"));
    }
    if let Ok(entries) = Entries::decode(bytes) {
        assert_eq!(Entries::decode(&entries.encode()).expect("entries that were accepted"), entries);
    }
    if let Ok(list) = MountList::decode(bytes) {
        let encoded = list.encode().expect("a list that was accepted");
        assert_eq!(MountList::decode(&encoded).expect("a list that was accepted"), list);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(reference) = Reference::parse(text) {
        assert_eq!(
            Reference::parse(&reference.to_string()).expect("a reference that was accepted"),
            reference
        );
        assert_eq!(
            Reference::parse(&reference.familiar()).expect("a reference that was accepted"),
            reference
        );
    }
    if let Ok(platform) = text.parse::<Platform>() {
        let again: Platform = platform.to_string().parse().expect("a platform that was accepted");
        // What is written is without versions and features of the system.
        assert_eq!(again.normalized().to_string(), platform.normalized().to_string());
    }
}
