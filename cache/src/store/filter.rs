//! Filters of `du` and `prune`: containerd's syntax, over BuildKit's fields.
//!
//! `type==regular,shared` means both; of several filters one has to match; none matches everything. Source:
//! containerd `pkg/filters` (grammar and meaning), BuildKit `cache/manager.go` (field names).

use std::borrow::Cow;

use super::usage::UsageRecord;

/// A filter that does not parse.
#[derive(Debug, thiserror::Error)]
#[error("invalid filter `{filter}`: {reason}")]
pub struct InvalidFilter {
    filter: String,
    reason: &'static str,
}

/// Several filters, of which one has to match.
#[derive(Debug)]
pub(super) struct Filters(Vec<Vec<Selector>>);

#[derive(Debug)]
struct Selector {
    field: Field,
    test: Test,
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Id,
    Description,
    InUse,
    Mutable,
    Immutable,
    Type,
    Shared,
    Private,
    /// Known to BuildKit, never set here: layers have no fixed parents.
    Parents,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(regex_lite::Regex),
}

impl Filters {
    /// Parses each of `filters`.
    pub(super) fn parse(filters: &[String]) -> Result<Self, InvalidFilter> {
        let parse = |filter: &String| {
            parse(filter).map_err(|reason| InvalidFilter { filter: filter.clone(), reason })
        };
        Ok(Self(filters.iter().map(parse).collect::<Result<_, _>>()?))
    }

    /// Whether a record passes.
    pub(super) fn matches(&self, record: &UsageRecord) -> bool {
        self.0.is_empty() || self.0.iter().any(|all| all.iter().all(|one| one.matches(record)))
    }
}

impl Selector {
    fn matches(&self, record: &UsageRecord) -> bool {
        let value = self.field.of(record);
        let text = value.unwrap_or_default();
        match &self.test {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value.is_some() && text == wanted,
            Test::NotEqual(unwanted) => text != unwanted,
            Test::Matches(pattern) => pattern.is_match(text),
        }
    }
}

impl Field {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "description" => Self::Description,
            "inuse" => Self::InUse,
            "mutable" => Self::Mutable,
            "immutable" => Self::Immutable,
            "type" => Self::Type,
            "shared" => Self::Shared,
            "private" => Self::Private,
            "parents" => Self::Parents,
            _ => return None,
        })
    }

    fn of(self, record: &UsageRecord) -> Option<&str> {
        let flag = |set: bool| set.then_some("");
        match self {
            Self::Id => Some(&record.id),
            Self::Description => Some(record.description.as_str()).filter(|text| !text.is_empty()),
            Self::InUse => flag(record.in_use),
            Self::Mutable => flag(record.mutable),
            Self::Immutable => flag(!record.mutable),
            Self::Type => Some(record.kind.as_str()),
            Self::Shared => flag(record.shared),
            Self::Private => flag(!record.shared),
            Self::Parents => None,
        }
    }
}

fn parse(filter: &str) -> Result<Vec<Selector>, &'static str> {
    let mut rest = filter.trim();
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let mut selectors = Vec::new();
    loop {
        selectors.push(selector(&mut rest)?);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Ok(selectors),
            None => return Err("expected `,` or the end after a value"),
        }
    }
}

fn selector(rest: &mut &str) -> Result<Selector, &'static str> {
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"_.-".contains(c)).unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    let field = Field::parse(name.trim()).ok_or("unknown field")?;
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
    Ok(Selector { field, test })
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
        Filters::parse(&filters).map(|f| f.matches(&record)).map_err(|e| e.to_string())
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
