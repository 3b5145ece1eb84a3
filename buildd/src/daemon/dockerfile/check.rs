//! `--check` and `--call`: questions about the Dockerfile.

use std::collections::BTreeMap;

use frontend::ast::Document;
use frontend::diagnostic::{Diagnostic, report};
use frontend::lint::{CheckOptions, Finding, findings_before};
use frontend::lower::{Checked, check};
use frontend::subrequest::{self, Answer};
use tonic::Code;

use super::Dockerfile;
use super::answers::{Answers, NoAnswer};
use crate::daemon::failure::Failure;
use crate::daemon::frontends::Outcome;
use crate::errdetails::{ALL_ERRORS, Refusal};

/// How many errors are shown in their place.
const SHOWN: usize = 10;

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
            "frontend.lint" => {
                let linted = self.lint(document, diagnostics, ignore_beside).await?;
                return Ok(Outcome::Answer(linted));
            }
            "frontend.targets" if diagnostics.is_empty() => subrequest::targets(document),
            "frontend.outline" if diagnostics.is_empty() => {
                let ignore = self.load_ignore(ignore_beside).await?;
                let mut answers = Answers::new(ignore, &self.inputs);
                let platform = self.options.platforms.first();
                let lowered = self.lower(document, bytes, platform, &mut answers).await?;
                lowered.outline.answer(&document.source)
            }
            "frontend.targets" | "frontend.outline" => return Err(broken()),
            other => {
                let mut failure = Failure::new(Code::Unimplemented, format!("unsupported request {other}"));
                failure.details.refusal = Some(Box::new(Refusal::Subrequest(other.to_owned())));
                return Err(failure);
            }
        };
        Ok(Outcome::Answer(response(answer)))
    }

    async fn lint(
        &self,
        document: &Document,
        diagnostics: &[Diagnostic],
        ignore_beside: Option<Vec<u8>>,
    ) -> Result<BTreeMap<String, String>, Failure> {
        if let Some(first) = diagnostics.first() {
            let findings = self.findings_before(document, first);
            let answers = Answers::new(Vec::new(), &self.inputs);
            return Ok(self.linted(document, &findings, diagnostics.to_vec(), &answers));
        }
        let ignore = self.load_ignore(ignore_beside).await?;
        let mut answers = Answers::new(ignore, &self.inputs);
        loop {
            match check(document, &self.options, self.options.platforms.first(), &answers) {
                Ok(Checked { findings, failure }) => {
                    let errors = failure.map_or(Vec::new(), |failure| failure.diagnostics());
                    return Ok(self.linted(document, &findings, errors, &answers));
                }
                Err((needs, findings)) => match self.answer(document, &mut answers, needs).await {
                    Ok(()) => {}
                    Err(NoAnswer::Wrong(error) | NoAnswer::Denied(error, _)) => {
                        return Ok(self.linted(document, &findings, vec![*error], &answers));
                    }
                    Err(NoAnswer::Failed(failure)) => return Err(failure),
                },
            }
        }
    }

    /// What is found in a file that does not parse, as far as the error.
    pub(super) fn findings_before(&self, document: &Document, error: &Diagnostic) -> Vec<Finding> {
        let options = match (&self.options.check, &document.directives.check) {
            (Some(options), _) => options.clone(),
            (None, Some(check)) => CheckOptions::parse(check.first_word()).unwrap_or_default(),
            (None, None) => CheckOptions::default(),
        };
        findings_before(document, options, error)
    }

    /// The findings, and the errors: BuildKit's answer has only the first of those.
    fn linted(
        &self,
        document: &Document,
        findings: &[Finding],
        errors: Vec<Diagnostic>,
        answers: &Answers<'_>,
    ) -> BTreeMap<String, String> {
        let source = &document.source;
        let mut all = response(subrequest::lint(findings, errors.first(), source));
        let errors = self.survey(document, errors, self.options.platforms.first(), answers);
        if !errors.is_empty() {
            all.insert(ALL_ERRORS.to_owned(), report(&errors, source, SHOWN));
        }
        all
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
