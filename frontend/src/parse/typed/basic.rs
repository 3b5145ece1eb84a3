//! Instructions that are little more than their arguments.

use crate::ast::{
    ArgCommand, ArgDefinition, Command, EnvCommand, ExposeCommand, FromCommand, KeyValue, LabelCommand,
    OnbuildCommand,
};
use crate::parse::flags::Kind;
use crate::parse::problem::Problem;
use crate::parse::typed::{Request, at_least_one, blank_name, exactly_one};
use crate::quote::quote;

/// One argument, no flags.
pub(super) fn single(request: Request<'_>, keyword: &str) -> Result<String, Vec<Problem>> {
    let [argument] = request.args() else { return Err(exactly_one(keyword)) };
    request.no_flags()?;
    Ok(argument.clone())
}

/// STOPSIGNAL, whose flags nobody looks at.
pub(super) fn stop_signal(request: Request<'_>) -> Result<Command, Vec<Problem>> {
    let [signal] = request.args() else { return Err(exactly_one("STOPSIGNAL")) };
    Ok(Command::StopSignal(signal.clone()))
}

pub(super) fn env(request: Request<'_>) -> Result<Command, Vec<Problem>> {
    pairs(request, "ENV").map(|env| Command::Env(EnvCommand { env }))
}

pub(super) fn label(request: Request<'_>) -> Result<Command, Vec<Problem>> {
    pairs(request, "LABEL").map(|labels| Command::Label(LabelCommand { labels }))
}

fn pairs(request: Request<'_>, keyword: &str) -> Result<Vec<KeyValue>, Vec<Problem>> {
    request.no_flags()?;
    if request.args().is_empty() {
        return Err(at_least_one(keyword));
    }
    let pair = |triple: &[String]| match triple {
        [key, value, separator] if !key.is_empty() => {
            Ok(KeyValue { key: key.clone(), value: value.clone(), legacy: separator.is_empty() })
        }
        _ => Err(blank_name(keyword)),
    };
    request.args().chunks(3).map(pair).collect()
}

/// ARG, whose flags nobody looks at.
pub(super) fn arg(request: Request<'_>) -> Result<Command, Vec<Problem>> {
    if request.args().is_empty() {
        return Err(at_least_one("ARG"));
    }
    let definition = |word: &String| {
        let (key, value) = match word.split_once('=') {
            Some(("", _)) => return Err(blank_name("ARG")),
            Some((key, value)) => (key, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        Ok(ArgDefinition { key: key.to_owned(), value, doc: request.doc(key) })
    };
    let args = request.args().iter().map(definition).collect::<Result<_, _>>()?;
    Ok(Command::Arg(ArgCommand { args }))
}

pub(super) fn from(request: Request<'_>) -> Result<Command, Vec<Problem>> {
    let (base, name) = match request.args() {
        [base] => (base, None),
        [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => (base, Some(stage_name(name)?)),
        _ => {
            return Err(vec![
                Problem::new("FROM requires either one or three arguments")
                    .about(&request.statement.keyword)
                    .hint("write `FROM image` or `FROM image AS name`"),
            ]);
        }
    };
    let flags = request.flags(&[("platform", Kind::Text)])?;
    Ok(Command::From(FromCommand { base: base.clone(), name, platform: flags.text("platform") }))
}

/// A stage's name in lower case.
fn stage_name(name: &str) -> Result<String, Vec<Problem>> {
    let lower = name.to_lowercase();
    let symbol = |ch: char| ch.is_ascii_lowercase() || ch.is_ascii_digit() || matches!(ch, '-' | '_' | '.');
    if lower.starts_with(|ch: char| ch.is_ascii_lowercase()) && lower.chars().all(symbol) {
        return Ok(lower);
    }
    Err(vec![
        Problem::new(format!(
            "invalid name for build stage: {}, name can't start with a number or contain symbols",
            quote(name)
        ))
        .about(name)
        .hint("a name starts with a letter and goes on with letters, digits, `-`, `_` and `.`"),
    ])
}

pub(super) fn expose(request: Request<'_>) -> Result<Command, Vec<Problem>> {
    if request.args().is_empty() {
        return Err(at_least_one("EXPOSE"));
    }
    request.no_flags()?;
    let mut ports = request.args().to_vec();
    ports.sort_unstable();
    Ok(Command::Expose(ExposeCommand { ports }))
}

pub(super) fn volume(request: Request<'_>) -> Result<Command, Vec<Problem>> {
    if request.args().is_empty() {
        return Err(at_least_one("VOLUME"));
    }
    request.no_flags()?;
    let volumes: Vec<String> = request.args().iter().map(|path| path.trim().to_owned()).collect();
    if volumes.iter().any(String::is_empty) {
        return Err(vec![Problem::new("VOLUME specified can not be an empty string")]);
    }
    Ok(Command::Volume(volumes))
}

pub(super) fn shell(request: Request<'_>) -> Result<Command, Vec<Problem>> {
    request.no_flags()?;
    match request.args() {
        [] => Err(at_least_one("SHELL")),
        words if request.statement.json => Ok(Command::Shell(words.to_vec())),
        _ => Err(vec![
            Problem::new("SHELL requires the arguments to be in JSON form")
                .hint("write it like `SHELL [\"/bin/bash\", \"-c\"]`"),
        ]),
    }
}

pub(super) fn onbuild(request: Request<'_>) -> Result<Command, Vec<Problem>> {
    let Some((_, trigger)) = &request.statement.trigger else { return Err(at_least_one("ONBUILD")) };
    request.no_flags()?;
    match trigger.keyword.to_uppercase().as_str() {
        "ONBUILD" => {
            return Err(vec![
                Problem::new("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed").about(&trigger.original),
            ]);
        }
        keyword @ ("MAINTAINER" | "FROM") => {
            let message = format!("{keyword} isn't allowed as an ONBUILD trigger");
            return Err(vec![Problem::new(message).about(&trigger.keyword)]);
        }
        _ => {}
    }
    let original = request.statement.original.trim_start();
    let rest = &original["onbuild".len()..];
    let mut expression = rest.trim_start_matches(['\t', '\n', '\x0C', '\r', ' ']).to_owned();
    for heredoc in request.heredocs {
        expression.push('\n');
        expression.push_str(&heredoc.content);
        expression.push_str(&heredoc.name);
    }
    Ok(Command::Onbuild(OnbuildCommand { expression }))
}
