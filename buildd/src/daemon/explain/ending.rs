//! How a build ended: what is told of steps besides why they ran.

use std::collections::HashMap;

use solver::{Digest, ExecError, redacted};

use super::account::Course;
use crate::daemon::failure::Failure;
use crate::explanation::Outcome;

/// The failure of a build.
#[derive(Debug)]
pub(super) struct Failed {
    /// The first line of its error.
    pub error: String,
    /// What clients know the vertex by that failed, if it was one.
    vertex: Option<String>,
}

impl Failed {
    pub(super) fn of(failure: &Failure) -> Self {
        Self { error: first_line(&failure.message), vertex: failure.details.vertex.clone() }
    }
}

/// The errors of a build's vertices, by what clients know them by.
#[derive(Debug, Default)]
pub(super) struct Errors(HashMap<Digest, String>);

impl Errors {
    /// Notes that a vertex failed; that it was given up is none of its own failures.
    pub(super) fn add(&mut self, vertex: Digest, error: &str) {
        if error != ExecError::Canceled.to_string() {
            self.0.insert(vertex, first_line(error));
        }
    }

    /// Says of the courses of a build that has ended which of them failed and, if it ended well, that what nobody needed had been made
    /// before.
    pub(super) fn settle(&self, courses: &mut [Course], failed: Option<&Failed>) {
        for course in courses.iter_mut() {
            let blamed = failed.filter(|failed| failed.vertex == Some(course.digest.to_string()));
            let error = blamed.map(|failed| &failed.error).or_else(|| self.0.get(&course.digest));
            match course.outcome {
                Outcome::Failed => course.error = error.cloned(),
                // What failed once and was tried again may have come to a result in other ways.
                Outcome::NotReached | Outcome::Source if failed.is_some() && error.is_some() => {
                    course.outcome = Outcome::Failed;
                    course.error = error.cloned();
                }
                _ => {}
            }
        }
        if failed.is_some() {
            return;
        }
        // A frontend may have gone on without a step that failed.
        let mut broken = vec![false; courses.len()];
        for i in 0..courses.len() {
            let course = &courses[i];
            broken[i] = matches!(course.outcome, Outcome::Failed | Outcome::Canceled)
                || course.inputs.iter().any(|&input| broken[input]);
            if course.outcome == Outcome::NotReached && !broken[i] {
                courses[i].outcome = Outcome::Cached;
            }
        }
    }
}

/// What fits into a line, without credentials.
fn first_line(error: &str) -> String {
    redacted(error.trim_start().lines().next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(text: &str, outcome: Outcome, inputs: &[usize]) -> Course {
        Course {
            name: text.to_owned(),
            digest: Digest::of(text.as_bytes()),
            step: None,
            inputs: inputs.to_vec(),
            outcome,
            seconds: None,
            error: None,
            forced: false,
            key: None,
            definition: None,
            lost: Vec::new(),
            stage: String::new(),
        }
    }

    #[track_caller]
    fn check(failed: Option<&Failed>, expected: &[(Outcome, Option<&str>)]) {
        let mut courses = vec![
            course("source", Outcome::Source, &[]),
            course("run", Outcome::Failed, &[0]),
            course("above", Outcome::NotReached, &[1]),
            course("beside", Outcome::NotReached, &[0]),
        ];
        let mut errors = Errors::default();
        errors.add(Digest::of(b"source"), "http://u:p@h: gone\nand more");
        errors.add(Digest::of(b"run"), "exit code: 1");
        errors.add(Digest::of(b"above"), "context canceled");
        errors.settle(&mut courses, failed);
        let found: Vec<(Outcome, Option<&str>)> =
            courses.iter().map(|course| (course.outcome, course.error.as_deref())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn what_failed_and_what_was_not_needed() {
        use Outcome::{Cached, Failed as Broken, NotReached, Source};
        let run = Some("exit code: 1");
        check(None, &[(Source, None), (Broken, run), (NotReached, None), (Cached, None)]);
        let vertex = Some(Digest::of(b"beside").to_string());
        let failed = Failed { error: "no such file".to_owned(), vertex };
        let source = Some("http://xxxxx:xxxxx@h: gone");
        let beside = (Broken, Some("no such file"));
        check(Some(&failed), &[(Broken, source), (Broken, run), (NotReached, None), beside]);
    }
}
