//! `--check` and `--call`: questions to the frontend (BuildKit's subrequests).

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::Args;
use crate::cli::table::stdout;
use crate::client::ClientError;
use crate::csv::fields;
use crate::errdetails::ALL_ERRORS;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// BuildKit's name of it.
    pub(super) request: &'static str,
    json: bool,
}

impl Args {
    /// What is asked, if anything.
    pub(super) fn call(&self) -> Result<Option<Call>, ClientError> {
        let text = match (&self.call, self.check) {
            (_, true) => "check",
            (None, false) => return Ok(None),
            (Some(text), false) => text,
        };
        let bad = || ClientError::Usage(format!("invalid value `{text}` for `--call`"));
        let mut parts = fields(text)?.into_iter();
        let request = match parts.next().as_deref().map(|name| name.strip_prefix("frontend.").unwrap_or(name))
        {
            Some("build") => return Ok(None),
            Some("check" | "lint") => "frontend.lint",
            Some("outline") => "frontend.outline",
            Some("targets") => "frontend.targets",
            Some("describe" | "subrequests.describe") => "frontend.subrequests.describe",
            _ => return Err(bad()),
        };
        let mut json = false;
        for part in parts {
            json = match part.as_str() {
                "format=json" => true,
                "format=text" | "format=" => false,
                _ => return Err(bad()),
            };
        }
        Ok(Some(Call { request, json }))
    }
}

impl Call {
    /// Prints the answer; the answer also says how to exit.
    pub(super) fn print(&self, response: &BTreeMap<String, String>) -> Result<ExitCode, ClientError> {
        let key = if self.json { "result.json" } else { "result.txt" };
        let text = response.get(key).ok_or_else(|| {
            ClientError::Usage(format!("the daemon's frontend does not answer `{}`", self.request))
        })?;
        let found = response.get("result.statuscode").is_some_and(|code| code != "0");
        let newline = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        stdout(&format!("{text}{newline}"))?;
        if let Some(error) = response.get(ALL_ERRORS).cloned().or_else(|| build_error(response)) {
            eprintln!("{}", error.trim_end());
        }
        Ok(if found { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// The error as BuildKit's own frontend tells it, in its JSON only.
fn build_error(response: &BTreeMap<String, String>) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_str(response.get("result.json")?).ok()?;
    Some(format!("ERROR: {}", answer.get("buildError")?.get("message")?.as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str) -> Result<Option<Call>, ClientError> {
        Args { call: Some(text.to_owned()), ..Args::default() }.call()
    }

    #[test]
    fn errors_that_only_the_json_tells() {
        let response = |json: &str| BTreeMap::from([("result.json".to_owned(), json.to_owned())]);
        let error = build_error(&response(r#"{"buildError":{"message":"unknown instruction: foo"}}"#));
        assert_eq!(error.as_deref(), Some("ERROR: unknown instruction: foo"));
        assert_eq!(build_error(&response(r#"{"warnings":[]}"#)), None);
    }

    #[test]
    fn spellings() {
        assert_eq!(call("check").unwrap(), Some(Call { request: "frontend.lint", json: false }));
        assert_eq!(
            call("frontend.targets,format=json").unwrap(),
            Some(Call { request: "frontend.targets", json: true })
        );
        assert_eq!(call("build").unwrap(), None);
        assert!(call("nonsense").is_err());
        assert!(call("check,format=xml").is_err());
        let check = Args { check: true, ..Args::default() };
        assert_eq!(check.call().unwrap().unwrap().request, "frontend.lint");
    }
}
