//! The counted fields of an op, each for itself: what tells two ops apart.

use std::collections::BTreeMap;

use crate::digest::{Digest, Hasher};

/// What an op is written to: the hash of all of it, or of each field. The name of a field never enters a hash.
#[derive(Debug)]
pub(super) struct Writer {
    whole: Hasher,
    fields: Option<Fields>,
}

#[derive(Debug, Default)]
struct Fields {
    /// The field that is being written; none is what only gives the others their places.
    at: Option<String>,
    all: BTreeMap<String, Hasher>,
}

const FIELD_DOMAIN: &str = "rbuild.field.v1";

impl Writer {
    /// Hashes the op as a whole in `domain`.
    pub(super) fn whole(domain: &str) -> Self {
        Self { whole: Hasher::new(domain), fields: None }
    }

    /// Hashes its fields, too.
    pub(super) fn by_field(domain: &str) -> Self {
        Self { fields: Some(Fields::default()), ..Self::whole(domain) }
    }

    /// What follows belongs to the field that `name` gives, or to none.
    pub(super) fn field<N: Into<String>>(&mut self, name: impl FnOnce() -> Option<N>) -> &mut Self {
        if let Some(fields) = &mut self.fields {
            fields.at = name().map(Into::into);
            if let Some(name) = &fields.at {
                fields.all.entry(name.clone()).or_insert_with(|| Hasher::new(FIELD_DOMAIN));
            }
        }
        self
    }

    /// As [`Self::field`], for a name that is known.
    pub(super) fn named(&mut self, name: &'static str) -> &mut Self {
        self.field(|| Some(name))
    }

    /// What follows belongs to no field.
    pub(super) fn between(&mut self) -> &mut Self {
        self.field(|| None::<String>)
    }

    fn each(&mut self, write: impl Fn(&mut Hasher)) -> &mut Self {
        write(&mut self.whole);
        if let Some(Fields { at: Some(name), all }) = &mut self.fields
            && let Some(hasher) = all.get_mut(name)
        {
            write(hasher);
        }
        self
    }

    pub(super) fn bytes(&mut self, b: &[u8]) -> &mut Self {
        self.each(|h| {
            h.bytes(b);
        })
    }

    pub(super) fn str(&mut self, s: &str) -> &mut Self {
        self.bytes(s.as_bytes())
    }

    pub(super) fn u64(&mut self, n: u64) -> &mut Self {
        self.each(|h| {
            h.u64(n);
        })
    }

    pub(super) fn i64(&mut self, n: i64) -> &mut Self {
        self.each(|h| {
            h.i64(n);
        })
    }

    pub(super) fn bool(&mut self, b: bool) -> &mut Self {
        self.u64(b.into())
    }

    pub(super) fn digest(&mut self, d: &Digest) -> &mut Self {
        self.each(|h| {
            h.digest(d);
        })
    }

    pub(super) fn strs<S: AsRef<str>>(&mut self, list: &[S]) -> &mut Self {
        self.each(|h| {
            h.strs(list);
        })
    }

    /// The hash of all of it.
    pub(super) fn finish(self) -> Digest {
        self.whole.finish()
    }

    /// The digest of each field.
    pub(super) fn finish_fields(self) -> BTreeMap<String, Digest> {
        let all = self.fields.map(|fields| fields.all).unwrap_or_default();
        all.into_iter().map(|(name, hasher)| (name, hasher.finish())).collect()
    }
}
