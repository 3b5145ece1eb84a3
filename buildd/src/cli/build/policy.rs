//! The source policy of a build, from the file that buildx names it by.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message as _;
use proto::sourcepolicy::{
    AttrConstraint, AttrMatch, MatchType, Policy, PolicyAction, Rule, Selector, Update,
};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::client::ClientError;

/// The variable that names the file.
const VARIABLE: &str = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY";

#[derive(Deserialize, Default)]
#[serde(default)]
struct PolicyJson {
    version: i64,
    rules: Vec<RuleJson>,
}

#[derive(Deserialize)]
struct RuleJson {
    #[serde(default, deserialize_with = "action")]
    action: i32,
    selector: Option<SelectorJson>,
    updates: Option<UpdateJson>,
}

#[derive(Deserialize)]
struct SelectorJson {
    #[serde(default)]
    identifier: String,
    #[serde(default, alias = "matchType", deserialize_with = "kind")]
    match_type: i32,
    #[serde(default)]
    constraints: Vec<ConstraintJson>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct UpdateJson {
    identifier: String,
    attrs: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct ConstraintJson {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default, deserialize_with = "condition")]
    condition: i32,
}

/// The policy that the environment names, if it does.
///
/// # Errors
/// A file that cannot be read, or holds none.
pub(super) fn from_environment() -> Result<Option<Policy>, ClientError> {
    match std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        None => Ok(None),
        Some(path) => {
            let path = Path::new(&path);
            let bytes = fs_err::read(path).map_err(|e| ClientError::io(path, e))?;
            read(&bytes).map(Some).map_err(|e| {
                ClientError::Usage(format!("failed to parse source policy `{}`: {e}", path.display()))
            })
        }
    }
}

/// A policy as JSON, or as a protobuf message.
fn read(bytes: &[u8]) -> Result<Policy, serde_json::Error> {
    match serde_json::from_slice::<PolicyJson>(bytes) {
        Ok(json) => Ok(Policy { version: json.version, rules: json.rules.into_iter().map(rule).collect() }),
        Err(e) => Policy::decode(bytes).map_err(|_| e),
    }
}

fn rule(json: RuleJson) -> Rule {
    let selector = |s: SelectorJson| Selector {
        identifier: s.identifier,
        match_type: s.match_type,
        constraints: s.constraints.into_iter().map(constraint).collect(),
    };
    let update = |u: UpdateJson| Update { identifier: u.identifier, attrs: u.attrs };
    Rule { action: json.action, selector: json.selector.map(selector), updates: json.updates.map(update) }
}

fn constraint(json: ConstraintJson) -> AttrConstraint {
    AttrConstraint { key: json.key, value: json.value, condition: json.condition }
}

fn action<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    named(from, |name| PolicyAction::from_str_name(name).map(Into::into))
}

fn kind<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    named(from, |name| MatchType::from_str_name(name).map(Into::into))
}

fn condition<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
    named(from, |name| AttrMatch::from_str_name(name).map(Into::into))
}

/// An enum's value by its name or its number.
fn named<'de, D: Deserializer<'de>>(from: D, of: fn(&str) -> Option<i32>) -> Result<i32, D::Error> {
    let value = Value::deserialize(from)?;
    let found = match &value {
        Value::String(name) => of(name),
        number => number.as_i64().and_then(|number| i32::try_from(number).ok()),
    };
    found.ok_or_else(|| serde::de::Error::custom(format!("unrecognized enum value {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let text = r#"{"rules":[{"action":"CONVERT","selector":{"identifier":"a*","matchType":"REGEX",
            "constraints":[{"key":"k","value":"v","condition":"NOTEQUAL"}]},"updates":{"attrs":{"x":"y"}}},
            {"action":1,"selector":{"identifier":"b","match_type":1}}]}"#;
        let policy = read(text.as_bytes()).unwrap();
        let [convert, deny] = &policy.rules[..] else { panic!("{policy:?}") };
        assert_eq!((convert.action(), deny.action()), (PolicyAction::Convert, PolicyAction::Deny));
        let selector = convert.selector.as_ref().unwrap();
        assert_eq!(selector.match_type(), MatchType::Regex);
        assert_eq!(selector.constraints[0].condition(), AttrMatch::Notequal);
        assert_eq!(convert.updates.as_ref().unwrap().attrs["x"], "y");
        assert_eq!(deny.selector.as_ref().unwrap().match_type(), MatchType::Exact);
        assert_eq!(read(&policy.encode_to_vec()).unwrap(), policy);
        for bad in ["{", r#"{"rules":[{"action":"FORBID"}]}"#, r#"{"rules":{}}"#] {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
