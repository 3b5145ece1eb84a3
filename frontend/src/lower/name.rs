//! The names of steps: `[PLATFORM STAGE i/n] TEXT`. Tools parse them.

use std::fmt::Write as _;

use solver::op::Platform;

use crate::lower::env::EnvList;
use crate::lower::stage::Stage;
use crate::platform;
use crate::words::{Env, Lexer};

/// Numbers the next step of a stage and names it.
///
/// `platform` is given when several platforms are built; `env` then tells where it is a cross build.
pub(crate) fn next_step(
    stage: &mut Stage<'_>,
    text: &str,
    platform: Option<&Platform>,
    env: &EnvList,
) -> String {
    if stage.steps_total == 0 {
        return text.to_owned();
    }
    stage.step += 1;
    let mut name = String::from("[");
    if let Some(platform) = platform {
        name += &platform::format_all(platform);
        name += &cross_target(platform, env);
        name.push(' ');
    }
    if !stage.label.is_empty() {
        name += &stage.label;
        name.push(' ');
    }
    let total = stage.steps_total;
    let onbuild = if stage.in_onbuild { "ONBUILD " } else { "" };
    let width = total.to_string().len();
    name.reserve(2 * width + 3 + onbuild.len() + text.len());
    write!(name, "{:>width$}/{total}] {onbuild}", stage.step).expect("a string takes what is written");
    name + text
}

/// An instruction's text with variables expanded as far as that works, and the keyword in upper case.
pub(crate) fn step_text(lexer: &Lexer, code: &str, env: &(impl Env + ?Sized)) -> String {
    let mut text = lexer.expand(code, env).map_or_else(|_| code.to_owned(), |expansion| expansion.text);
    let keyword = text.find(' ').unwrap_or(text.len());
    if text.as_bytes()[..keyword].iter().any(|b| !b.is_ascii_uppercase()) {
        text.replace_range(..keyword, &text[..keyword].to_uppercase());
    }
    text
}

/// `->arm64` where the stage's ARGs say that it builds for another platform.
fn cross_target(base: &Platform, env: &EnvList) -> String {
    let Some(mut target) = target_from_env(base, env) else { return String::new() };
    if target.os.is_empty() {
        target.os.clone_from(&base.os);
    }
    if target.architecture.is_empty() {
        target.architecture.clone_from(&base.architecture);
    }
    let target = platform::normalize(&target);
    if target.os != base.os {
        return format!("->{}", platform::format_all(&target));
    }
    if target.architecture == base.architecture {
        return String::new();
    }
    let variant = if target.variant.is_empty() { String::new() } else { format!("/{}", target.variant) };
    format!("->{}{variant}", target.architecture)
}

fn target_from_env(host: &Platform, env: &EnvList) -> Option<Platform> {
    let mut target = None::<Platform>;
    for key in env.keys() {
        let value = env.get(key).unwrap_or("").to_owned();
        match key {
            "TARGETPLATFORM" => match platform::parse(&value, host) {
                Ok(parsed) => return Some(parsed),
                Err(_) => continue,
            },
            "TARGETOS" => target.get_or_insert_default().os = value,
            "TARGETARCH" => target.get_or_insert_default().architecture = value,
            "TARGETVARIANT" => target.get_or_insert_default().variant = value,
            _ => {}
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(label: &str, total: usize) -> Stage<'static> {
        Stage { label: label.to_owned(), steps_total: total, ..Stage::default() }
    }

    #[test]
    fn numbers_are_as_wide_as_the_total() {
        let env = EnvList::default();
        let mut named = stage("build", 12);
        assert_eq!(next_step(&mut named, "RUN x", None, &env), "[build  1/12] RUN x");
        named.in_onbuild = true;
        assert_eq!(next_step(&mut named, "RUN y", None, &env), "[build  2/12] ONBUILD RUN y");
        assert_eq!(next_step(&mut stage("", 1), "FROM x", None, &env), "[1/1] FROM x");
        assert_eq!(next_step(&mut stage("a", 0), "FROM x", None, &env), "FROM x");
    }

    #[test]
    fn cross_builds_name_both() {
        let host = platform::parse("linux/amd64", &Platform::default()).unwrap();
        let mut env = EnvList::default();
        env.set("TARGETARCH", "arm64");
        assert_eq!(
            next_step(&mut stage("", 1), "RUN x", Some(&host), &env),
            "[linux/amd64->arm64 1/1] RUN x"
        );
        env.set("TARGETPLATFORM", "linux/amd64");
        assert_eq!(next_step(&mut stage("", 1), "RUN x", Some(&host), &env), "[linux/amd64 1/1] RUN x");
    }
}
