//! Annotations that a client asks for, by where they go (`exporter/containerimage/exptypes/annotations.go`).

use std::collections::BTreeMap;

use cache::oci::Platform;

use super::attrs::AttrError;

/// What is annotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The index.
    Index,
    /// What names the index.
    IndexDescriptor,
    /// A platform's manifest.
    Manifest,
    /// What names it in the index.
    ManifestDescriptor,
}

/// Annotations by place and platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Annotations(Vec<Annotation>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Annotation {
    place: Place,
    /// As [`Platform::full`]; without it all of them.
    platform: Option<String>,
    key: String,
    value: String,
}

impl Annotations {
    /// Reads the attributes `annotation[-PLACE][[PLATFORM]].KEY`.
    ///
    /// # Errors
    /// A place or a platform that is none.
    pub(super) fn new(attrs: &BTreeMap<String, String>) -> Result<Self, AttrError> {
        let mut found = Vec::new();
        for (name, value) in attrs {
            let Some(rest) = name.strip_prefix("annotation") else { continue };
            let bad = || AttrError::Annotation(name.clone());
            // A key may hold dots, a platform's version too, but that stands in brackets.
            let (target, key) = match rest.split_once("].") {
                Some((target, key)) => (target, key),
                None => rest.split_once('.').ok_or_else(bad)?,
            };
            let (place, platform) = target.split_once('[').map_or((target, None), |(p, f)| (p, Some(f)));
            let place = match place {
                "" | "-manifest" => Place::Manifest,
                "-manifest-descriptor" => Place::ManifestDescriptor,
                "-index" => Place::Index,
                "-index-descriptor" => Place::IndexDescriptor,
                _ => return Err(bad()),
            };
            let platform = platform.map(str::parse::<Platform>).transpose().map_err(|_| bad())?;
            if key.is_empty() {
                return Err(bad());
            }
            let (platform, key, value) = (platform.map(|p| p.full()), key.to_owned(), value.clone());
            found.push(Annotation { place, platform, key, value });
        }
        Ok(Self(found))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These and others, which win.
    pub(super) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Those of one place; of a platform, those of all platforms first.
    pub(super) fn of(&self, place: Place, platform: Option<&str>) -> BTreeMap<String, String> {
        let here = |annotation: &&Annotation| annotation.place == place;
        let general = self.0.iter().filter(here).filter(|a| a.platform.is_none());
        let own =
            self.0.iter().filter(here).filter(|a| a.platform.is_some() && a.platform.as_deref() == platform);
        general.chain(own).map(|a| (a.key.clone(), a.value.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(attrs: &[(&str, &str)]) -> Result<Annotations, AttrError> {
        Annotations::new(&attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn places_and_platforms() {
        let found = read(&[
            ("name", "x"),
            ("annotation.a.b", "1"),
            ("annotation-manifest[linux/arm64].a.b", "2"),
            ("annotation-index.i", "3"),
            ("annotation-index-descriptor.j", "4"),
            ("annotation-manifest-descriptor[linux/amd64].k", "5"),
        ])
        .unwrap();
        let of = |place, platform| {
            let found = found.of(place, platform);
            found.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
        };
        assert_eq!(of(Place::Manifest, Some("linux/amd64")), "a.b=1");
        assert_eq!(of(Place::Manifest, Some("linux/arm64")), "a.b=2");
        assert_eq!(of(Place::ManifestDescriptor, Some("linux/amd64")), "k=5");
        assert_eq!(of(Place::ManifestDescriptor, Some("linux/arm64")), "");
        assert_eq!((of(Place::Index, None), of(Place::IndexDescriptor, None)), ("i=3".into(), "j=4".into()));
        for bad in ["annotation", "annotation.", "annotation-blob.x", "annotation-manifest[?].x"] {
            assert!(read(&[(bad, "1")]).is_err(), "{bad}");
        }
    }
}
