//! Filters of `du`, `prune` and the history: containerd's syntax, over BuildKit's fields.
//!
//! `type==regular,shared` means both; of several filters one has to match; none matches everything. Source:
//! containerd `pkg/filters` (grammar and meaning), BuildKit `cache/manager.go` and `llbsolver/history/filter.go` (fields).

use std::borrow::Cow;

use super::usage::UsageRecord;

/// A filter that does not parse.
#[derive(Debug, thiserror::Error)]
#[error("invalid filter `{filter}`: {reason}")]
pub struct InvalidFilter {
    filter: String,
    reason: &'static str,
}

/// What filters are asked about.
pub trait Filtered {
    /// The fields that there are; a filter that names another is invalid.
    const FIELDS: &'static [&'static str];

    /// The value of a field; `None` where it is absent, as a flag that is not set.
    fn field(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// Several filters, of which one has to match.
#[derive(Debug)]
pub struct Filters(Vec<Vec<Selector>>);

#[derive(Debug)]
struct Selector {
    field: String,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(regex_lite::Regex),
}

impl Filters {
    /// Parses each of `filters`, which are about the fields of `T`.
    ///
    /// # Errors
    /// The first one that does not parse, or names a field that there is not.
    pub fn parse<T: Filtered>(filters: &[String]) -> Result<Self, InvalidFilter> {
        let parse = |filter: &String| {
            parse(filter, T::FIELDS).map_err(|reason| InvalidFilter { filter: filter.clone(), reason })
        };
        Ok(Self(filters.iter().map(parse).collect::<Result<_, _>>()?))
    }

    /// Whether a record passes.
    pub fn matches<T: Filtered>(&self, record: &T) -> bool {
        self.0.is_empty() || self.0.iter().any(|all| all.iter().all(|one| one.matches(record)))
    }
}

impl Selector {
    fn matches<T: Filtered>(&self, record: &T) -> bool {
        let value = record.field(&self.field);
        let text = value.as_deref().unwrap_or_default();
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value.is_some() && text == wanted,
            Test::NotEqual(unwanted) => text != unwanted,
            Test::Matches(pattern) => pattern.is_match(text),
        }
    }
}

impl Filtered for UsageRecord {
    /// `parents` is known to BuildKit and never set here: layers have no fixed parents.
    const FIELDS: &'static [&'static str] =
        &["id", "description", "inuse", "mutable", "immutable", "type", "shared", "private", "parents"];

    fn field(&self, name: &str) -> Option<Cow<'_, str>> {
        let flag = |set: bool| set.then_some(Cow::Borrowed(""));
        match name {
            "id" => Some(Cow::Borrowed(&self.id)),
            "description" => Some(Cow::Borrowed(self.description.as_str())).filter(|text| !text.is_empty()),
            "inuse" => flag(self.in_use),
            "mutable" => flag(self.mutable),
            "immutable" => flag(!self.mutable),
            "type" => Some(Cow::Borrowed(self.kind.as_str())),
            "shared" => flag(self.shared),
            "private" => flag(!self.shared),
            _ => None,
        }
    }
}

fn parse(filter: &str, fields: &[&str]) -> Result<Vec<Selector>, &'static str> {
    let mut rest = filter.trim();
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let mut selectors = Vec::new();
    loop {
        selectors.push(selector(&mut rest, fields)?);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Ok(selectors),
            None => return Err("expected `,` or the end after a value"),
        }
    }
}

fn selector(rest: &mut &str, fields: &[&str]) -> Result<Selector, &'static str> {
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_.-".contains(c)).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    let field = fields.iter().find(|known| **known == name).ok_or("unknown field")?;
    *rest = after;
    let test = match () {
        () if take(rest, "==") => Test::Equal(value(rest)?.into_owned()),
        () if take(rest, "!=") => Test::NotEqual(value(rest)?.into_owned()),
        () if take(rest, "~=") => {
            let pattern = regex_lite::Regex::new(&value(rest)?);
            Test::Matches(pattern.map_err(|_| "invalid regular expression")?)
        }
        () => Test::Present,
    };
    Ok(Selector { field: (*field).to_owned(), test })
}

fn take(rest: &mut &str, token: &str) -> bool {
    let after = rest.strip_prefix(token);
    *rest = after.unwrap_or(rest);
    after.is_some()
}

/// A plain value up to the next comma, or a quoted one with backslash escapes.
fn value<'a>(rest: &mut &'a str) -> Result<Cow<'a, str>, &'static str> {
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find(',').unwrap_or(rest.len());
        let (value, after) = rest.split_at(end);
        *rest = after;
        return if value.is_empty() { Err("a value is missing") } else { Ok(Cow::Borrowed(value)) };
    };
    let mut out = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                *rest = &quoted[at + 1..];
                return Ok(Cow::Owned(out));
            }
            '\\' => out.push(chars.next().ok_or("a quoted value does not end")?.1),
            c => out.push(c),
        }
    }
    Err("a quoted value does not end")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::UsageKind;

    fn matches(filters: &[&str]) -> Result<bool, String> {
        let record = UsageRecord {
            id: "abc".into(),
            kind: UsageKind::CacheMount,
            description: "mount / from exec a,b".into(),
            size: 1,
            created_ms: 0,
            last_used_ms: 0,
            usage_count: 0,
            in_use: false,
            shared: true,
            mutable: true,
        };
        let filters: Vec<String> = filters.iter().map(|&f| f.to_owned()).collect();
        Filters::parse::<UsageRecord>(&filters).map(|f| f.matches(&record)).map_err(|e| e.to_string())
    }

    #[test]
    fn matching() {
        for (filters, expected) in [
            (&[][..], true),
            (&["type==exec.cachemount"], true),
            (&["type==regular"], false),
            (&["type==regular", "id==abc"], true),
            (&["type==exec.cachemount,shared"], true),
            (&["type==exec.cachemount,private"], false),
            (&["inuse"], false),
            (&["mutable"], true),
            (&["immutable"], false),
            (&["type!=regular"], true),
            (&["id~=^a.c$"], true),
            (&["description==\"mount / from exec a,b\",shared"], true),
            (&["parents"], false),
        ] {
            assert_eq!(matches(filters), Ok(expected), "{filters:?}");
        }
    }

    #[test]
    fn errors() {
        for (filter, expected) in [
            ("color==red", "invalid filter `color==red`: unknown field"),
            ("type==", "invalid filter `type==`: a value is missing"),
            ("id==\"a", "invalid filter `id==\"a`: a quoted value does not end"),
            ("id==\"a\"b", "invalid filter `id==\"a\"b`: expected `,` or the end after a value"),
            ("id~=(", "invalid filter `id~=(`: invalid regular expression"),
        ] {
            assert_eq!(matches(&[filter]), Err(expected.to_owned()));
        }
    }
}
