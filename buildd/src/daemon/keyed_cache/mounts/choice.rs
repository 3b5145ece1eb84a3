//! Which cache mounts: `all`, or some by their ids.

use std::collections::BTreeSet;

use crate::daemon::remote_cache::{Attrs, WrongAttr};

/// Some of the cache mounts of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon::keyed_cache) enum MountChoice {
    All,
    /// These, none of them being a choice as well.
    Only(BTreeSet<String>),
}

impl MountChoice {
    /// Reads `all`, or ids between semicolons or commas; without the attribute it is none.
    pub(in crate::daemon::keyed_cache) fn read(attrs: &Attrs<'_>, name: &str) -> Result<Self, WrongAttr> {
        let Some(text) = attrs.get(name) else { return Ok(Self::Only(BTreeSet::new())) };
        if text == "all" {
            return Ok(Self::All);
        }
        let ids: BTreeSet<String> = text.split([';', ',']).map(|id| id.trim().to_owned()).collect();
        if ids.contains("") {
            return Err(WrongAttr(format!("{name}: want `all` or ids, as in `npm;go`, not `{text}`")));
        }
        Ok(Self::Only(ids))
    }

    /// Whether a mount belongs to it; `id` is a mount's id, a namespace (`BUILDKIT_CACHE_MOUNT_NS`, mostly empty) and a slash before it.
    pub(in crate::daemon::keyed_cache) fn has(&self, id: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(ids) => {
                let plain = id.split_once('/').map(|(_, plain)| plain);
                ids.contains(id) || plain.is_some_and(|plain| ids.contains(plain))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(text: &str) -> Result<MountChoice, String> {
        let attrs = BTreeMap::from([("cache-mounts".to_owned(), text.to_owned())]);
        MountChoice::read(&Attrs { attrs: &attrs, env: &|_| None }, "cache-mounts").map_err(|e| e.to_string())
    }

    #[test]
    fn of_all_and_of_some() {
        assert!(read("all").unwrap().has("/go"));
        let some = read("go;/root/.npm, pip").unwrap();
        for (id, has) in
            [("/go", true), ("//root/.npm", true), ("ns/pip", true), ("/gone", false), ("pip", true)]
        {
            assert_eq!(some.has(id), has, "{id}");
        }
        for text in ["a;;b", ";"] {
            assert!(read(text).unwrap_err().contains("want `all` or ids"), "{text}");
        }
    }
}
