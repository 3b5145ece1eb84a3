//! Rules about sources: which are allowed, and what takes the place of which.

use std::collections::BTreeMap;

use proto::sourcepolicy::{AttrMatch, MatchType, Policy, PolicyAction};
use regex_lite::Regex;
use solver::op::SourceOp;

use super::normal::normal;

/// How often rules may put something else in a source's place.
const CONVERSIONS: usize = 20;

/// Policies, one after the other.
#[derive(Debug, Clone, Default)]
pub(in crate::daemon) struct Rules(Vec<Vec<Rule>>);

#[derive(Debug, Clone)]
struct Rule {
    /// By BuildKit's numbers; an unknown one is told when it would be used.
    action: i32,
    /// The selector's own text.
    identifier: String,
    pattern: Pattern,
    constraints: Vec<Constraint>,
    update: Option<Update>,
}

/// What a selector compares identifiers with, besides its own text.
#[derive(Debug, Clone)]
enum Pattern {
    Exact,
    Match(Regex),
    /// What is wrong with it, told when it would be used.
    Invalid(String),
}

#[derive(Debug, Clone)]
struct Constraint {
    key: String,
    value: String,
    condition: i32,
}

#[derive(Debug, Clone)]
struct Update {
    identifier: String,
    attrs: BTreeMap<String, String>,
}

/// A source that rules forbid, or rules that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::daemon) enum RuleError {
    /// It is forbidden. Tools know it by these words.
    #[error("source {0:?} denied by policy: source denied by policy")]
    Denied(String),
    /// Each conversion leads to another.
    #[error("too many mutations on a single source: too many operations")]
    TooMany,
    /// A rule does not say what it is for.
    #[error("invalid nil selector in policy")]
    NoSelector,
    /// A conversion does not say what to convert to.
    #[error("error mutating source policy: missing destination for convert rule")]
    NoDestination,
    /// A rule's pattern or condition.
    #[error("error matching source policy: {0}")]
    Matching(String),
    /// A rule does what nobody knows.
    #[error("source policy: rule {action} {rule}: unknown type {identifier:?}")]
    UnknownAction {
        /// Its number.
        action: i32,
        /// The rule's selector.
        rule: String,
        /// The source.
        identifier: String,
    },
}

impl Rules {
    /// Reads policies.
    ///
    /// # Errors
    /// A rule without a selector.
    pub(in crate::daemon) fn new(policies: &[Policy]) -> Result<Self, RuleError> {
        let read = |policy: &Policy| policy.rules.iter().map(Rule::new).collect();
        policies.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Whether there is no rule at all.
    pub(in crate::daemon) fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    /// These rules, then others.
    pub(super) fn then(&self, others: &Self) -> Self {
        Self(self.0.iter().chain(&others.0).cloned().collect())
    }

    /// What is to be used in place of a source; the same where no rule says otherwise.
    ///
    /// # Errors
    /// A source that is forbidden; rules that cannot be.
    pub(super) fn evaluate(&self, op: &SourceOp) -> Result<SourceOp, RuleError> {
        let mut op = op.clone();
        for _ in 0..=CONVERSIONS {
            match self.converted(&op)? {
                Some(other) => op = other,
                None => return Ok(op),
            }
        }
        Err(RuleError::TooMany)
    }

    /// What the first conversion that applies makes of a source. Of the rules that allow and deny the last one counts.
    fn converted(&self, op: &SourceOp) -> Result<Option<SourceOp>, RuleError> {
        let identifier = normal(op);
        for policy in &self.0 {
            let mut denied = false;
            for rule in policy {
                if !rule.matches(&identifier, &op.attrs)? {
                    continue;
                }
                match PolicyAction::try_from(rule.action) {
                    Ok(PolicyAction::Allow) => denied = false,
                    Ok(PolicyAction::Deny) => denied = true,
                    Ok(PolicyAction::Convert) => {
                        let converted = rule.convert(op, &identifier)?;
                        if converted.is_some() {
                            return Ok(converted);
                        }
                    }
                    Err(_) => {
                        let (action, rule) = (rule.action, rule.identifier.clone());
                        return Err(RuleError::UnknownAction { action, rule, identifier });
                    }
                }
            }
            if denied {
                return Err(RuleError::Denied(identifier));
            }
        }
        Ok(None)
    }
}

impl Rule {
    fn new(rule: &proto::sourcepolicy::Rule) -> Result<Self, RuleError> {
        let selector = rule.selector.as_ref().ok_or(RuleError::NoSelector)?;
        let constraint = |c: &proto::sourcepolicy::AttrConstraint| Constraint {
            key: c.key.clone(),
            value: c.value.clone(),
            condition: c.condition,
        };
        let update = |u: &proto::sourcepolicy::Update| Update {
            identifier: u.identifier.clone(),
            attrs: u.attrs.clone(),
        };
        Ok(Self {
            action: rule.action,
            identifier: selector.identifier.clone(),
            pattern: Pattern::new(selector.match_type, &selector.identifier),
            constraints: selector.constraints.iter().map(constraint).collect(),
            update: rule.updates.as_ref().map(update),
        })
    }

    fn matches(&self, identifier: &str, attrs: &BTreeMap<String, String>) -> Result<bool, RuleError> {
        for constraint in &self.constraints {
            if !constraint.holds(attrs)? {
                return Ok(false);
            }
        }
        match &self.pattern {
            _ if self.identifier == identifier => Ok(true),
            Pattern::Exact => Ok(false),
            Pattern::Match(regex) => Ok(regex.is_match(identifier)),
            Pattern::Invalid(why) => Err(RuleError::Matching(why.clone())),
        }
    }

    /// The source with the rule's changes; `None` where there are none.
    fn convert(&self, op: &SourceOp, identifier: &str) -> Result<Option<SourceOp>, RuleError> {
        let update = self.update.as_ref().ok_or(RuleError::NoDestination)?;
        let wanted = if update.identifier.is_empty() { &self.identifier } else { &update.identifier };
        let wanted = match &self.pattern {
            Pattern::Exact => wanted.clone(),
            Pattern::Match(regex) => regex.replace_all(identifier, wanted.as_str()).into_owned(),
            Pattern::Invalid(why) => return Err(RuleError::Matching(why.clone())),
        };
        let mut converted = op.clone();
        if wanted != identifier && !wanted.is_empty() {
            converted.identifier = wanted;
        }
        converted.attrs.extend(update.attrs.clone());
        Ok((converted != *op).then_some(converted))
    }
}

impl Pattern {
    fn new(kind: i32, text: &str) -> Self {
        let (pattern, anchored) = match MatchType::try_from(kind) {
            Ok(MatchType::Exact) => return Self::Exact,
            Ok(MatchType::Regex) => (text.to_owned(), false),
            Ok(MatchType::Wildcard) if text.contains("**") => {
                return Self::Invalid(format!(
                    "failed to translate wildcard {text:?} to regexp: invalid wildcard: \"**\""
                ));
            }
            Ok(MatchType::Wildcard) => (regex_lite::escape(text).replace("\\*", "(.*)"), true),
            Err(_) => return Self::Invalid(format!("unknown match type: {kind}")),
        };
        let pattern = if anchored { format!("^{pattern}$") } else { pattern };
        match Regex::new(&pattern) {
            Ok(regex) => Self::Match(regex),
            Err(e) => Self::Invalid(format!("invalid regex {text:?}: {e}")),
        }
    }
}

impl Constraint {
    fn holds(&self, attrs: &BTreeMap<String, String>) -> Result<bool, RuleError> {
        let value = attrs.get(&self.key).map_or("", String::as_str);
        match AttrMatch::try_from(self.condition) {
            Ok(AttrMatch::Equal) => Ok(value == self.value),
            Ok(AttrMatch::Notequal) => Ok(value != self.value),
            Ok(AttrMatch::Matches) => match Regex::new(&self.value) {
                Ok(regex) => Ok(regex.is_match(value)),
                Err(e) => Err(RuleError::Matching(format!("invalid regex {:?}: {e}", self.value))),
            },
            Err(_) => Err(RuleError::Matching(format!("unknown attr condition: {}", self.condition))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::sourcepolicy::{AttrConstraint, Rule, Selector, Update};

    use super::*;

    fn rule(action: PolicyAction, kind: MatchType, from: &str, to: &str) -> Rule {
        let selector =
            Selector { identifier: from.to_owned(), match_type: kind.into(), constraints: Vec::new() };
        let updates = Some(Update { identifier: to.to_owned(), ..Update::default() });
        Rule { action: action.into(), selector: Some(selector), updates }
    }

    fn source(identifier: &str) -> SourceOp {
        SourceOp { identifier: identifier.to_owned(), attrs: BTreeMap::new() }
    }

    fn evaluate(rules: &[Rule], op: &SourceOp) -> Result<SourceOp, RuleError> {
        Rules::new(&[Policy { version: 1, rules: rules.to_vec() }]).unwrap().evaluate(op)
    }

    const ALPINE: &str = "docker-image://docker.io/library/alpine:latest";

    #[test]
    fn the_last_word_counts() {
        use MatchType::Wildcard;
        use PolicyAction::{Allow, Deny};
        let alpine = source("docker-image://alpine");
        let (none, this) = (rule(Deny, Wildcard, "*", ""), rule(Allow, Wildcard, ALPINE, ""));
        assert_eq!(evaluate(&[none.clone(), this.clone()], &alpine), Ok(alpine.clone()));
        let denied = evaluate(&[this, none.clone()], &alpine).unwrap_err();
        let text = format!("source {ALPINE:?} denied by policy: source denied by policy");
        assert_eq!(denied.to_string(), text);
        assert_eq!(
            evaluate(&[none], &source("local://context")).unwrap_err(),
            RuleError::Denied("local://context".into())
        );
        assert_eq!(Rules::default().evaluate(&alpine), Ok(alpine));
    }

    #[test]
    fn all_policies_have_to_agree() {
        let deny = Policy { version: 1, rules: vec![rule(PolicyAction::Deny, MatchType::Exact, ALPINE, "")] };
        let allow =
            Policy { version: 1, rules: vec![rule(PolicyAction::Allow, MatchType::Exact, ALPINE, "")] };
        for policies in [[deny.clone(), allow.clone()], [allow, deny]] {
            assert!(Rules::new(&policies).unwrap().evaluate(&source(ALPINE)).is_err());
        }
    }

    #[test]
    fn conversions() {
        use MatchType::{Exact, Regex, Wildcard};
        for (kind, from, to, want) in [
            (Exact, ALPINE, "docker-image://x/y:1", "docker-image://x/y:1"),
            (
                Wildcard,
                "docker-image://docker.io/library/*:*",
                "docker-image://m/$1:${2}-s",
                "docker-image://m/alpine:latest-s",
            ),
            (Regex, r"docker\.io/library/([a-z]+)", "mirror/$1", "docker-image://mirror/alpine:latest"),
            (Exact, "other", "docker-image://x", ALPINE),
        ] {
            let rules = [rule(PolicyAction::Convert, kind, from, to)];
            assert_eq!(evaluate(&rules, &source(ALPINE)).unwrap().identifier, want, "{from}");
        }
        // What a conversion leads to is looked at again.
        let to_other = rule(PolicyAction::Convert, Exact, ALPINE, "docker-image://x/y:1");
        let not_other = rule(PolicyAction::Deny, Wildcard, "docker-image://docker.io/x/*", "");
        assert!(matches!(evaluate(&[to_other, not_other], &source(ALPINE)), Err(RuleError::Denied(_))));
        let endless = rule(PolicyAction::Convert, Wildcard, "*", "${1}x");
        assert_eq!(evaluate(&[endless], &source("https://h/x")), Err(RuleError::TooMany));
    }

    #[test]
    fn attributes() {
        let mut checksum = rule(PolicyAction::Convert, MatchType::Exact, "https://h/f", "");
        checksum.updates.as_mut().unwrap().attrs.insert("http.checksum".into(), "sha256:1".into());
        let pinned = evaluate(&[checksum], &source("https://h/f")).unwrap();
        assert_eq!((&pinned.identifier[..], &pinned.attrs["http.checksum"][..]), ("https://h/f", "sha256:1"));
        for (condition, value, denied) in [
            (AttrMatch::Equal, "sha256:1", true),
            (AttrMatch::Equal, "", false),
            (AttrMatch::Notequal, "sha256:2", true),
            (AttrMatch::Matches, "^sha256:", true),
            (AttrMatch::Matches, "^sha512:", false),
        ] {
            let mut rule = rule(PolicyAction::Deny, MatchType::Wildcard, "*", "");
            let constraint = AttrConstraint {
                key: "http.checksum".into(),
                value: value.into(),
                condition: condition.into(),
            };
            rule.selector.as_mut().unwrap().constraints.push(constraint);
            assert_eq!(evaluate(&[rule], &pinned).is_err(), denied, "{condition:?} {value}");
        }
    }

    #[test]
    fn rules_that_cannot_be() {
        let says = |rule: Rule| evaluate(&[rule], &source(ALPINE)).unwrap_err().to_string();
        let mut unknown = rule(PolicyAction::Allow, MatchType::Exact, ALPINE, "");
        unknown.action = 9000;
        assert!(says(unknown).contains("unknown type"));
        let mut nowhere = rule(PolicyAction::Convert, MatchType::Exact, ALPINE, "");
        nowhere.updates = None;
        assert!(says(nowhere).contains("missing destination for convert rule"));
        assert!(says(rule(PolicyAction::Deny, MatchType::Regex, "(", "")).contains("invalid regex \"(\""));
        assert!(says(rule(PolicyAction::Deny, MatchType::Wildcard, "a**", "")).contains("invalid wildcard"));
        let nothing = Rule { action: 1, selector: None, updates: None };
        let policy = Policy { version: 1, rules: vec![nothing] };
        assert_eq!(Rules::new(&[policy]).unwrap_err(), RuleError::NoSelector);
    }
}
