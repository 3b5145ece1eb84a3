//! What a `local://` source asks for.

use std::collections::BTreeMap;

use frontend::number::boolean;
use solver::ExecError;
use solver::op::attr;

use crate::fsutil::Differ;

/// Which part of a local source is wanted, and how: LLB's attributes, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::daemon) struct LocalRequest {
    /// The name that the client gave the directory.
    pub name: String,
    /// The session, where the source names one.
    pub session: Option<String>,
    /// Only these.
    pub include: Vec<String>,
    /// Not these.
    pub exclude: Vec<String>,
    /// Only what these paths need, links followed.
    pub follow: Vec<String>,
    /// Tells directories apart whose session and name are the same.
    pub hint: String,
    /// When a file is sent again.
    pub differ: Differ,
    /// A list of the entries is wanted instead of them, but for what these patterns match.
    pub metadata: Option<Vec<String>>,
}

/// A list attribute that is no JSON list of texts.
#[derive(Debug, thiserror::Error)]
#[error("invalid `{attr}` of local source `{name}`")]
struct BadAttr {
    attr: &'static str,
    name: String,
    #[source]
    source: serde_json::Error,
}

/// A text that should be a truth value.
#[derive(Debug, thiserror::Error)]
#[error("invalid value for {attr} \"{value}\"")]
struct BadBoolean {
    attr: &'static str,
    value: String,
}

impl LocalRequest {
    /// Reads the attributes of a `local://NAME` source.
    ///
    /// # Errors
    /// A pattern list that is no JSON list, or a truth value that is none.
    pub(in crate::daemon) fn new(name: &str, attrs: &BTreeMap<String, String>) -> Result<Self, ExecError> {
        let list = |attr: &'static str| -> Result<Vec<String>, ExecError> {
            let Some(json) = attrs.get(attr) else { return Ok(Vec::new()) };
            let list: Option<Vec<String>> = serde_json::from_str(json)
                .map_err(|source| ExecError::failed(BadAttr { attr, name: name.to_owned(), source }))?;
            Ok(list.unwrap_or_default())
        };
        let none = attrs.get(attr::LOCAL_DIFFER).is_some_and(|differ| differ == "none");
        let metadata = match attrs.get(attr::METADATA_TRANSFER) {
            Some(value) => boolean(value).ok_or_else(|| {
                ExecError::failed(BadBoolean { attr: attr::METADATA_TRANSFER, value: value.clone() })
            })?,
            None => false,
        };
        let exceptions = list(attr::METADATA_TRANSFER_EXCLUDE)?;
        Ok(Self {
            name: name.to_owned(),
            session: attrs.get(attr::LOCAL_SESSION_ID).cloned(),
            include: list(attr::INCLUDE_PATTERNS)?,
            exclude: list(attr::EXCLUDE_PATTERNS)?,
            follow: list(attr::FOLLOW_PATHS)?,
            hint: attrs.get(attr::SHARED_KEY_HINT).cloned().unwrap_or_default(),
            differ: if none { Differ::None } else { Differ::Metadata },
            metadata: metadata.then_some(exceptions),
        })
    }
}
