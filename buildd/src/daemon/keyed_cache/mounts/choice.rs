//! Which cache mounts: `all`, or some by their ids.

use std::collections::{BTreeMap, BTreeSet};

use frontend::suggest::{did_you_mean, nearest};
use solver::op::{MountKind, Op};

use super::lock;
use crate::daemon::keyed_cache::{KeyedCaches, KeyedTarget};
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
            Self::Only(ids) => ids.iter().any(|named| is_named(named, id)),
        }
    }

    /// Whether it is none.
    pub(in crate::daemon::keyed_cache) fn is_empty(&self) -> bool {
        *self == Self::Only(BTreeSet::new())
    }

    /// The ids that it names.
    fn ids(&self) -> impl Iterator<Item = &str> {
        let ids = match self {
            Self::All => None,
            Self::Only(ids) => Some(ids),
        };
        ids.into_iter().flatten().map(String::as_str)
    }

    /// The ids that it names and `other` does not have.
    pub(in crate::daemon::keyed_cache) fn beyond<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = &'a str> {
        self.ids().filter(move |id| !(other.has(id) || other.ids().any(|named| is_named(id, named))))
    }
}

/// Whether an attribute names a mount so: with the namespace or without it.
fn is_named(named: &str, id: &str) -> bool {
    named == id || id.split_once('/').is_some_and(|(_, plain)| named == plain)
}

/// The mounts that a build's caches name by their ids.
#[derive(Debug, Default)]
pub(in crate::daemon) struct NamedMounts {
    /// The attribute that names each.
    ids: BTreeMap<String, &'static str>,
}

impl NamedMounts {
    fn add(&mut self, attribute: &'static str, choice: &MountChoice) {
        for id in choice.ids() {
            self.ids.entry(id.to_owned()).or_insert(attribute);
        }
    }

    /// Says of each that is none of those in `present` that it has no effect.
    fn unused(&self, present: &BTreeSet<String>) -> Vec<String> {
        let plain: Vec<&str> =
            present.iter().map(|id| id.split_once('/').map_or(&**id, |(_, id)| id)).collect();
        let unused = self.ids.iter().filter(|(id, _)| !present.iter().any(|there| is_named(id, there)));
        let told = |(id, attribute): (&String, &&str)| {
            let meant = did_you_mean(nearest(id, plain.iter().copied()));
            format!("no step of this build has the cache mount `{id}` that `{attribute}=` names{meant}")
        };
        unused.map(told).collect()
    }
}

impl KeyedCaches {
    /// The mounts that those that are looked into so far and `targets` name.
    pub(in crate::daemon) fn named_mounts(&self, targets: &[KeyedTarget]) -> NamedMounts {
        let mut named = NamedMounts::default();
        self.lock().sources.iter().for_each(|source| named.add(MOUNTS, &source.wanted.mounts));
        targets.iter().for_each(|target| named.add(MOUNTS, &target.mounts));
        targets.iter().for_each(|target| named.add(MERGEABLE, &target.mergeable));
        named
    }

    /// What was `named` in vain: no step of the build's results, whether it ran or came from a cache, has such a mount, and none
    /// that ran besides.
    pub(in crate::daemon) fn idle_mounts<'a>(
        &self,
        named: &NamedMounts,
        results: impl Iterator<Item = &'a solver::Graph>,
    ) -> Vec<String> {
        if named.ids.is_empty() {
            return Vec::new();
        }
        let mut present: BTreeSet<String> =
            lock(&self.mounts.0).values().map(|used| used.id.clone()).collect();
        for vertex in results.flat_map(solver::Graph::vertices) {
            let Op::Exec(exec) = &vertex.op else { continue };
            present.extend(exec.mounts.iter().filter_map(|mount| match &mount.kind {
                MountKind::Cache(cache) => Some(cache.id.clone()),
                _ => None,
            }));
        }
        named.unused(&present)
    }
}

/// The attribute that says which mounts travel.
pub(in crate::daemon) const MOUNTS: &str = "cache-mounts";
/// The attribute that says which of them are united with what others write.
pub(in crate::daemon) const MERGEABLE: &str = "mergeable";

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
        let beyond = |mergeable: &str, mounts: &str| -> Vec<String> {
            let (mergeable, mounts) = (read(mergeable).unwrap(), read(mounts).unwrap());
            mergeable.beyond(&mounts).map(str::to_owned).collect()
        };
        assert_eq!(beyond("go;npm", "npm"), ["go"]);
        for (mergeable, mounts) in
            [("all", "npm"), ("go", "all"), ("go", "ns/go"), ("ns/go", "go"), ("/a", "/a")]
        {
            assert_eq!(beyond(mergeable, mounts), [""; 0], "{mergeable} {mounts}");
        }
        for text in ["a;;b", ";"] {
            assert!(read(text).unwrap_err().contains("want `all` or ids"), "{text}");
        }
    }
    #[test]
    fn what_was_named_in_vain() {
        let mut named = NamedMounts::default();
        named.add(MOUNTS, &read("all").unwrap());
        named.add(MOUNTS, &read("go;npmm;/root/.cache;ns/x").unwrap());
        named.add(MERGEABLE, &read("go;ccache").unwrap());
        let present = ["/go", "/npm", "ns//root/.cache", "ns/x"].map(str::to_owned).into();
        assert_eq!(
            named.unused(&present),
            [
                "no step of this build has the cache mount `ccache` that `mergeable=` names",
                "no step of this build has the cache mount `npmm` that `cache-mounts=` names (did you mean npm?)",
            ]
        );
        assert_eq!(NamedMounts::default().unused(&BTreeSet::new()), [""; 0]);
    }
}
