//! `--check` and `--call`: questions about the Dockerfile.

use std::collections::BTreeMap;

use frontend::ast::Document;
use frontend::diagnostic::Diagnostic;
use frontend::lint::{CheckOptions, findings_before};
use frontend::lower::{Checked, check};
use frontend::subrequest::{self, Answer};
use tonic::Code;

use super::Dockerfile;
use super::answers::{Answers, NoAnswer};
use crate::daemon::failure::Failure;
use crate::daemon::frontends::Outcome;

impl Dockerfile<'_> {
    pub(super) async fn subrequest(
        &self,
        request: &str,
        document: &Document,
        bytes: &[u8],
        diagnostics: &[Diagnostic],
        ignore_beside: Option<Vec<u8>>,
    ) -> Result<Outcome, Failure> {
        let broken = || Failure::of_diagnostics(&document.source, bytes, diagnostics);
        let answer = match request {
            "frontend.subrequests.describe" => subrequest::describe(),
            "frontend.lint" => self.lint(document, bytes, diagnostics, ignore_beside).await?,
            "frontend.targets" if diagnostics.is_empty() => subrequest::targets(document),
            "frontend.outline" if diagnostics.is_empty() => {
                let ignore = self.load_ignore(ignore_beside).await?;
                let lowered = self.lower(document, bytes, self.options.platforms.first(), &ignore).await?;
                lowered.outline.answer(&document.source)
            }
            "frontend.targets" | "frontend.outline" => return Err(broken()),
            other => return Err(Failure::new(Code::Unimplemented, format!("unsupported request {other}"))),
        };
        Ok(Outcome::Answer(response(answer)))
    }

    async fn lint(
        &self,
        document: &Document,
        bytes: &[u8],
        diagnostics: &[Diagnostic],
        ignore_beside: Option<Vec<u8>>,
    ) -> Result<Answer, Failure> {
        if let Some(first) = diagnostics.first() {
            let options = match (&self.options.check, &document.directives.check) {
                (Some(options), _) => options.clone(),
                (None, Some(check)) => CheckOptions::parse(check.first_word()).unwrap_or_default(),
                (None, None) => CheckOptions::default(),
            };
            let findings = findings_before(document, options, first);
            return Ok(subrequest::lint(&findings, Some(first), &document.source));
        }
        let ignore = self.load_ignore(ignore_beside).await?;
        let mut answers = Answers::new(ignore, &self.inputs);
        loop {
            match check(document, &self.options, self.options.platforms.first(), &answers) {
                Ok(Checked { findings, failure }) => {
                    let error = failure.map(|f| f.diagnostic());
                    return Ok(subrequest::lint(&findings, error.as_ref(), &document.source));
                }
                Err(needs) => self.answer(&mut answers, needs).await.map_err(|no| match no {
                    NoAnswer::Wrong(error) => Failure::of_diagnostics(&document.source, bytes, &[*error]),
                    NoAnswer::Failed(failure) => failure,
                })?,
            }
        }
    }
}

fn response(answer: Answer) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        ("result.txt".to_owned(), answer.text),
        ("result.json".to_owned(), answer.json),
        ("version".to_owned(), answer.version.to_owned()),
    ]);
    if let Some(status) = answer.status {
        all.insert("result.statuscode".to_owned(), status.to_string());
    }
    all
}
