//! Flags of instructions: `--name`, `--name=value`.

use crate::parse::problem::Problem;
use crate::suggest;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Text,
    /// A text, as often as one likes.
    Texts,
}

/// The flags that were given, with those that could be.
#[derive(Debug)]
pub(super) struct Flags {
    values: Vec<(&'static str, String)>,
}

impl Flags {
    /// Reads flags against those that the instruction knows.
    ///
    /// # Errors
    /// On unknown, repeated and malformed flags: all of them, in order.
    pub(super) fn read(given: &[String], known: &[(&'static str, Kind)]) -> Result<Self, Vec<Problem>> {
        let mut flags = Self { values: Vec::new() };
        let mut problems = Vec::new();
        for flag in given {
            match read_one(flag, known, &flags) {
                Ok(pair) => flags.values.push(pair),
                Err(problem) => problems.push(problem.about(flag.split('=').next().unwrap_or(flag))),
            }
        }
        if problems.is_empty() { Ok(flags) } else { Err(problems) }
    }

    /// The value, when the flag was given.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(flag, _)| *flag == name).map(|(_, value)| value.as_str())
    }

    /// The value, when the flag was given and is not empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.value(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// All values of a flag.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        self.values.iter().filter(|(flag, _)| *flag == name).map(|(_, value)| value.clone()).collect()
    }

    /// The value of a boolean flag, when it was given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.value(name).map(|value| value == "true")
    }

    /// The names of the flags that were given, sorted, each once.
    pub(super) fn used(&self) -> Vec<String> {
        let mut names: Vec<String> = self.values.iter().map(|(name, _)| (*name).to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn read_one(
    flag: &str,
    known: &[(&'static str, Kind)],
    before: &Flags,
) -> Result<(&'static str, String), Problem> {
    let (shown, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    };
    let bare = shown.strip_prefix("--").unwrap_or(shown);
    let Some(&(name, kind)) = known.iter().find(|(name, _)| *name == bare) else {
        return Err(unknown(shown, bare, known));
    };
    if kind != Kind::Texts && before.value(name).is_some() {
        return Err(Problem::new(format!("duplicate flag specified: {shown}")));
    }
    let value = match (kind, value) {
        (Kind::Bool, None) => "true".to_owned(),
        (Kind::Bool, Some(value)) if !value.is_empty() => match value.to_lowercase().as_str() {
            value @ ("true" | "false") => value.to_owned(),
            _ => {
                return Err(Problem::new(format!("expecting boolean value for flag {shown}, not: {value}"))
                    .hint("the value is `true` or `false`"));
            }
        },
        (Kind::Text | Kind::Texts, Some(value)) => value.to_owned(),
        _ => return Err(Problem::new(format!("missing a value on flag: {shown}"))),
    };
    Ok((name, value))
}

fn unknown(shown: &str, bare: &str, known: &[(&'static str, Kind)]) -> Problem {
    let near = suggest::nearest(bare, known.iter().map(|&(name, _)| name));
    let problem = Problem::new(format!("unknown flag: {shown}{}", suggest::did_you_mean(near)));
    if near.is_some() {
        return problem;
    }
    if known.is_empty() {
        return problem.hint("the instruction takes no flags");
    }
    let names: Vec<String> = known.iter().map(|(name, _)| format!("`--{name}`")).collect();
    problem.hint(format!("the instruction takes {}", names.join(", ")))
}
