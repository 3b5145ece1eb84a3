//! Typed instructions: what BuildKit's `instructions` package makes of a statement.

mod basic;
mod files;
mod health;
mod run;

use crate::ast::{Command, Heredoc};
use crate::parse::arguments::Statement;
use crate::parse::flags::{Flags, Kind};
use crate::parse::keyword::{KEYWORDS, known};
use crate::parse::problem::Problem;
use crate::suggest;

/// A statement with what stands around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) statement: &'a Statement,
    pub(super) heredocs: &'a [Heredoc],
    pub(super) comments: &'a [String],
}

impl<'a> Request<'a> {
    fn args(self) -> &'a [String] {
        &self.statement.args
    }

    fn flags(self, known: &[(&'static str, Kind)]) -> Result<Flags, Vec<Problem>> {
        Flags::read(&self.statement.flags, known)
    }

    /// Accepts no flags at all.
    fn no_flags(self) -> Result<(), Vec<Problem>> {
        self.flags(&[]).map(drop)
    }

    /// The description in the comments above: the line that starts with the name.
    fn doc(self, name: &str) -> Option<String> {
        if name.is_empty() {
            return None;
        }
        self.comments.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned)
    }
}

/// Types a statement.
///
/// # Errors
/// The first is BuildKit's.
pub(super) fn command(request: Request<'_>) -> Result<Command, Vec<Problem>> {
    match known(&request.statement.keyword) {
        "ADD" => files::add(request),
        "ARG" => basic::arg(request),
        "CMD" => run::cmd(request).map(Command::Cmd),
        "COPY" => files::copy(request),
        "ENTRYPOINT" => run::cmd(request).map(Command::Entrypoint),
        "ENV" => basic::env(request),
        "EXPOSE" => basic::expose(request),
        "FROM" => basic::from(request),
        "HEALTHCHECK" => health::healthcheck(request),
        "LABEL" => basic::label(request),
        "MAINTAINER" => basic::single(request, "MAINTAINER").map(Command::Maintainer),
        "ONBUILD" => basic::onbuild(request),
        "RUN" => run::run(request),
        "SHELL" => basic::shell(request),
        "STOPSIGNAL" => basic::stop_signal(request),
        "USER" => basic::single(request, "USER").map(Command::User),
        "VOLUME" => basic::volume(request),
        "WORKDIR" => basic::single(request, "WORKDIR").map(Command::Workdir),
        _ => Err(vec![unknown(&request.statement.keyword)]),
    }
}

fn unknown(keyword: &str) -> Problem {
    let near = suggest::nearest_ignoring_case(keyword, KEYWORDS);
    let hint = suggest::did_you_mean(near.as_deref());
    Problem::new(format!("unknown instruction: {keyword}{hint}")).about(keyword)
}

fn at_least_one(keyword: &str) -> Vec<Problem> {
    vec![Problem::new(format!("{keyword} requires at least one argument")).about(keyword)]
}

fn exactly_one(keyword: &str) -> Vec<Problem> {
    vec![Problem::new(format!("{keyword} requires exactly one argument")).about(keyword)]
}

fn blank_name(keyword: &str) -> Vec<Problem> {
    vec![Problem::new(format!("{keyword} names can not be blank"))]
}
