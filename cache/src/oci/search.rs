//! From a digest to the image for a platform, through indexes; who searches reads the documents.

use solver::Digest;

use super::archive::MAX_INDEX_DEPTH;
use super::{
    CONFIG_LIMIT, Descriptor, Document, Error, MANIFEST_LIMIT, Manifest, Platform, ResolvedImage, media_type,
};

/// A search under way. Each document that it [wants](Self::wanted) is given to it, until it has the image.
#[derive(Debug)]
pub struct Search<'a> {
    target: Digest,
    platform: &'a Platform,
    depth: usize,
    wanted: Wanted,
    /// The manifest with its descriptor and bytes, once it is found.
    manifest: Option<(Descriptor, Vec<u8>, Manifest)>,
}

/// A document that a search needs. Whoever gives it has verified its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its digest.
    pub digest: Digest,
    /// What it was said to be, by an index, a manifest or a registry.
    pub media_type: Option<String>,
    /// Its size in bytes, where that was said.
    pub size: Option<u64>,
    /// What it is.
    pub part: Part,
}

/// What a document is to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Its manifest, or an index that leads there.
    Manifest,
    /// Its config.
    Config,
}

impl Part {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Config => "image config",
        }
    }

    /// The most bytes that it may have.
    pub fn limit(self) -> u64 {
        match self {
            Self::Manifest => MANIFEST_LIMIT,
            Self::Config => CONFIG_LIMIT,
        }
    }
}

impl Wanted {
    fn manifest(digest: Digest, media_type: Option<String>, size: Option<u64>) -> Self {
        Self { digest, media_type, size, part: Part::Manifest }
    }

    fn config(descriptor: &Descriptor) -> Self {
        Self {
            digest: descriptor.digest,
            media_type: Some(descriptor.media_type.clone()),
            size: Some(descriptor.size),
            part: Part::Config,
        }
    }

    /// Its descriptor, if its size was said.
    pub fn descriptor(&self) -> Option<Descriptor> {
        Some(Descriptor::new(self.media_type.clone().unwrap_or_default(), self.digest, self.size?))
    }
}

impl<'a> Search<'a> {
    /// Begins at a manifest or index, which may have been said to be of a media type and size.
    pub fn new(
        target: Digest,
        media_type: Option<String>,
        size: Option<u64>,
        platform: &'a Platform,
    ) -> Self {
        let wanted = Wanted::manifest(target, media_type, size);
        Self { target, platform, depth: 0, wanted, manifest: None }
    }

    /// The document to give next.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Takes the wanted document, which may have come as a media type of its own. Gives the image when it was the last.
    ///
    /// # Errors
    /// [`Error::NoPlatform`], or what is wrong with the document.
    pub fn give(&mut self, bytes: Vec<u8>, came_as: Option<&str>) -> Result<Option<ResolvedImage>, Error> {
        if let Some((descriptor, manifest_bytes, manifest)) = self.manifest.take() {
            return ResolvedImage::new(self.target, descriptor, manifest_bytes, manifest, bytes).map(Some);
        }
        let stated = self.wanted.media_type.as_deref();
        // What an index or a registry said before counts as much as what came with the bytes.
        if let (Some(stated), Some(came)) = (stated, came_as)
            && media_type::is_index(stated) != media_type::is_index(came)
        {
            return Err(Error::MediaTypeMismatch { sent: came.to_owned(), stated: stated.to_owned() });
        }
        match Document::parse(&bytes, came_as.or(stated))? {
            Document::Index(_) if self.depth == MAX_INDEX_DEPTH => {
                let reason = format!("indexes nested deeper than {MAX_INDEX_DEPTH}");
                Err(Error::Unsupported { reason })
            }
            Document::Index(index) => {
                let chosen = index.select(self.platform).ok_or_else(|| Error::NoPlatform {
                    platform: self.platform.to_string(),
                    available: index.platforms(),
                })?;
                self.wanted =
                    Wanted::manifest(chosen.digest, Some(chosen.media_type.clone()), Some(chosen.size));
                self.depth += 1;
                Ok(None)
            }
            document @ Document::Manifest(_) => {
                let kind = document.media_type().to_owned();
                let Document::Manifest(manifest) = document else { return Ok(None) };
                let descriptor = Descriptor::new(kind, self.wanted.digest, bytes.len() as u64);
                self.wanted = Wanted::config(&manifest.config);
                self.manifest = Some((descriptor, bytes, *manifest));
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Index, Manifest};

    fn descriptor(kind: &str, bytes: &[u8], platform: Option<&str>) -> Descriptor {
        let mut descriptor = Descriptor::of(kind, bytes);
        descriptor.platform = platform.map(|text| text.parse().unwrap());
        descriptor
    }

    #[test]
    fn through_indexes_to_the_image() {
        let config = br#"{"architecture":"arm64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let manifest = Manifest::new(descriptor(media_type::OCI_CONFIG, config, None), vec![]).to_json();
        let entry = descriptor(media_type::OCI_MANIFEST, &manifest, Some("linux/arm64"));
        let mut document = Index::new(vec![entry.clone()]).to_json();
        let mut documents = vec![config.to_vec(), manifest, document.clone()];
        for _ in 0..4 {
            document =
                Index::new(vec![descriptor(media_type::OCI_INDEX, &document, Some("linux/arm64"))]).to_json();
            documents.push(document.clone());
        }
        let (arm, amd) = ("linux/arm64".parse().unwrap(), "linux/amd64".parse().unwrap());
        let search = |from: usize, platform: &Platform| {
            let mut search = Search::new(Digest::of(&documents[from]), None, None, platform);
            loop {
                let wanted = search.wanted().digest;
                let bytes = documents.iter().find(|d| Digest::of(d) == wanted).unwrap();
                if let Some(image) = search.give(bytes.clone(), None)? {
                    return Ok::<_, Error>(image);
                }
            }
        };
        for (from, document) in documents.iter().enumerate().take(5).skip(1) {
            let image = search(from, &arm).unwrap();
            assert_eq!((image.digest, image.manifest_digest()), (Digest::of(document), entry.digest));
        }
        assert!(matches!(search(5, &arm), Err(Error::Unsupported { .. })));
        let error = search(2, &amd).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no match for platform in manifest: not found: it has nothing for `linux/amd64`, only for linux/arm64"
        );
        let mut confused = Search::new(entry.digest, Some(media_type::OCI_INDEX.into()), None, &arm);
        let given = confused.give(documents[1].clone(), Some(media_type::OCI_MANIFEST));
        assert!(matches!(given, Err(Error::MediaTypeMismatch { .. })));
    }
}
