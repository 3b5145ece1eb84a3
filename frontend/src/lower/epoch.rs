//! `SOURCE_DATE_EPOCH`: a number of seconds, or the name of what to take the time from.

use solver::op::SourceOp;

use crate::ast::{self, AddCommand, Command};
use crate::lower::build::Context;
use crate::lower::env::EnvList;
use crate::lower::error::{At, Fault, LowerError, Result};
use crate::lower::git_ref::GitSource;
use crate::lower::remote::{self, Remote};
use crate::lower::resolved::{Need, TimeRequest};
use crate::options::ContextSpec;
use crate::words::Env as _;

pub(super) const NAME: &str = "SOURCE_DATE_EPOCH";

/// Resolves the variable, and puts the seconds in its place wherever it is set.
pub(super) fn resolve(context: &mut Context<'_>) -> Result<()> {
    let global = context.global_args.get(NAME).filter(|value| !value.is_empty());
    let given = context.build_args.get(NAME).map(String::as_str).or(global).map(str::to_owned);
    let Some(given) = given else { return Ok(()) };
    context.epoch = value(context, &given)?;
    let seconds = context.epoch.map(|seconds| seconds.to_string());
    if context.build_args.contains_key(NAME) {
        match &seconds {
            Some(seconds) => context.build_args.insert(NAME.to_owned(), seconds.clone()),
            None => context.build_args.remove(NAME),
        };
    }
    if context.global_args.get(NAME).is_some() {
        match seconds {
            Some(seconds) => context.global_args.set(NAME, seconds),
            None => context.global_args.remove(NAME),
        }
    }
    Ok(())
}

fn value(context: &Context<'_>, given: &str) -> Result<Option<i64>> {
    if given.is_empty() {
        return Ok(None);
    }
    if let Ok(seconds) = given.parse() {
        return Ok(Some(seconds));
    }
    let Some(request) = source(context, given)? else { return Ok(None) };
    context.resolved.source_time(&request).ok_or_else(|| LowerError::Needs(vec![Need::SourceTime(request)]))
}

/// The source that a name means; `None` is one without a time.
fn source(context: &Context<'_>, name: &str) -> Result<Option<TimeRequest>> {
    if name == "context" {
        let source = match &context.options.context.spec {
            ContextSpec::Git(git) => git.source(),
            ContextSpec::Http { url, .. } => remote::http_source(url, "context", "")?,
            ContextSpec::Local(_) | ContextSpec::Input => return Ok(None),
        };
        let log_name = "[internal] resolve main build context metadata".to_owned();
        return Ok(Some(TimeRequest { source, log_name }));
    }
    if let Some(spec) = context.options.named_contexts.get(name) {
        let source = match GitSource::parse(spec, false, false)? {
            Some(git) => git.source(),
            None if spec.starts_with("http://") || spec.starts_with("https://") => {
                remote::http_source(spec, "context", "")?
            }
            None => return Ok(None),
        };
        let log_name = format!("[internal] resolve SOURCE_DATE_EPOCH named context {name}");
        return Ok(Some(TimeRequest { source, log_name }));
    }
    let named =
        |stage: &&ast::Stage| stage.name.as_deref().is_some_and(|stage| stage.eq_ignore_ascii_case(name));
    let stage = context.document.stages.iter().find(named).ok_or_else(|| Fault::Epoch(name.to_owned()))?;
    let source = stage_source(context, stage).at(stage.lines)?;
    let stage = stage.name.as_deref().unwrap_or("");
    Ok(Some(TimeRequest {
        source,
        log_name: format!("[internal] resolve SOURCE_DATE_EPOCH source stage {stage}"),
    }))
}

/// The one remote source of a stage that has nothing else.
fn stage_source(context: &Context<'_>, stage: &ast::Stage) -> Result<SourceOp> {
    let mut env = context.global_args.clone();
    env.remove(NAME);
    if context.lexer.expand(&stage.base, &env)?.text != crate::lower::from::SCRATCH {
        return Err(Fault::EpochStage("SOURCE_DATE_EPOCH stage must use FROM scratch").into());
    }
    let one = || Fault::EpochStage("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD");
    let mut source = None;
    for instruction in context.document.commands(stage) {
        match &instruction.command {
            Command::Arg(arg) => define(context, &mut env, arg)?,
            Command::Add(_) if source.is_some() => return Err(one().into()),
            Command::Add(add) => source = Some(add_source(context, &env, add)?),
            _ => return Err(Fault::EpochInstruction(instruction.keyword.clone()).into()),
        }
    }
    source.ok_or_else(|| one().into())
}

fn define(context: &Context<'_>, env: &mut EnvList, arg: &ast::ArgCommand) -> Result<()> {
    for definition in &arg.args {
        if let Some(given) = context.build_args.get(&definition.key) {
            env.set(&definition.key, given.as_str());
        } else if let Some(default) = &definition.value {
            let value = context.lexer.expand(default, env)?.text;
            env.set(&definition.key, value);
        }
    }
    Ok(())
}

fn add_source(context: &Context<'_>, env: &EnvList, add: &AddCommand) -> Result<SourceOp> {
    let [written] = &add.files.paths[..] else {
        return Err(
            Fault::EpochStage("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source").into()
        );
    };
    if !add.files.files.is_empty() {
        return Err(
            Fault::EpochStage("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source").into()
        );
    }
    let expand = |word: &str| context.lexer.expand(word, env).map(|expansion| expansion.text);
    let source = expand(written)?;
    let checksum = add.checksum.as_deref().map_or(Ok(String::new()), expand)?;
    match remote::kind(&source)? {
        Remote::Http => remote::http_source(&source, &remote::http_file_name(&source), &checksum),
        Remote::Git(mut git) => {
            if add.keep_git_dir == Some(true) {
                git.keep_git_dir = Some(true);
            }
            if !checksum.is_empty() {
                git.checksum = checksum;
            }
            git.mtime.clear();
            Ok(git.source())
        }
        Remote::None => {
            Err(Fault::EpochStage("SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD")
                .into())
        }
    }
}

/// Seconds since 1970 as RFC 3339 in UTC, as Go writes a time.
pub(super) fn rfc3339(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// Year, month and day of a day counted from 1970 (Howard Hinnant's `civil_from_days`).
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) =
        (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_234_567_890, "2009-02-13T23:31:30Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(super::rfc3339(seconds), text);
        }
    }
}
