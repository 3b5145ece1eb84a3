//! Dockerfiles that are for another frontend: `# syntax=` and `BUILDKIT_SYNTAX`.

use cache::oci::Reference;
use frontend::ast::Document;
use frontend::diagnostic::{Diagnostic, Phase};
use frontend::options::BuildOptions;
use frontend::span::Lines;

use crate::daemon::failure::Failure;
use crate::daemon::frontends::{Outcome, is_built_in};

/// The build argument that names a frontend's image; it comes before the directive.
const SYNTAX: &str = "BUILDKIT_SYNTAX";

/// What became of a Dockerfile.
#[derive(Debug)]
pub(in crate::daemon) enum Solved {
    /// It was planned, or a question about it answered.
    Outcome(Outcome),
    /// It is for another frontend.
    Elsewhere(Box<Elsewhere>),
}

/// Another frontend.
#[derive(Debug)]
pub(in crate::daemon) struct Elsewhere {
    /// Its image.
    pub source: String,
    /// Image and what follows it.
    pub command_line: String,
    /// What is said of its failures that name no place.
    otherwise: Otherwise,
}

#[derive(Debug)]
enum Otherwise {
    /// That the build argument is to blame.
    Argument,
    /// Where the directive stands.
    Place(Option<proto::errdefs::Source>),
}

/// Whether the Dockerfile is for a labs release of the built-in frontend, which understands more.
pub(super) fn is_labs(options: &BuildOptions, document: &Document) -> bool {
    let argument =
        options.build_args.get(SYNTAX).map(|line| line.trim().split(' ').next().unwrap_or_default());
    let source = argument.or_else(|| document.directives.syntax.as_ref().map(|syntax| syntax.first_word()));
    let image = source.filter(|name| is_built_in(name)).and_then(|name| Reference::parse(name).ok());
    image.is_some_and(|image| image.tag().is_some_and(|tag| tag.ends_with("labs")))
}

impl Elsewhere {
    /// The frontend that is asked for, unless it is the one that is built in, or this is its own call.
    pub(super) fn of(options: &BuildOptions, document: &Document, bytes: &[u8]) -> Option<Self> {
        if options.command_line.is_some() {
            return None;
        }
        if let Some(line) = options.build_args.get(SYNTAX) {
            let source = line.trim().split(' ').next().unwrap_or_default();
            return Self::new(source, line, Otherwise::Argument);
        }
        let directive = document.directives.syntax.as_ref()?;
        let lines = (directive.line > 0).then_some(Lines { start: directive.line, end: directive.line });
        let place = lines.and_then(|lines| {
            let here = Diagnostic::error(Phase::Parser, String::new()).at(lines);
            Failure::of_diagnostics(&document.source, bytes, &[here]).details.sources.pop()
        });
        Self::new(directive.first_word(), &directive.value, Otherwise::Place(place))
    }

    fn new(source: &str, command_line: &str, otherwise: Otherwise) -> Option<Self> {
        let other = !source.is_empty() && !is_built_in(source);
        other.then(|| Self { source: source.to_owned(), command_line: command_line.to_owned(), otherwise })
    }

    /// The same, in a file that is loaded by `definition`.
    pub(super) fn loaded_by(mut self, definition: &proto::pb::Definition) -> Self {
        if let Otherwise::Place(Some(proto::errdefs::Source { info: Some(info), .. })) = &mut self.otherwise {
            info.definition = Some(definition.clone());
        }
        self
    }

    /// Says where a failure comes from that does not say it itself.
    pub(in crate::daemon) fn locate(self, mut failure: Failure) -> Failure {
        if !failure.details.sources.is_empty() {
            return failure;
        }
        match self.otherwise {
            Otherwise::Argument => {
                let line = &self.command_line;
                let message = format!("failed with build-arg:{SYNTAX} = {line}: {}", failure.message);
                Failure { message, ..failure }
            }
            Otherwise::Place(place) => {
                failure.details.sources.extend(place);
                failure
            }
        }
    }
}
