//! Which line of the Dockerfile a failed RUN stopped at, where its shell tells.
//!
//! Shells name the line of their script: `/bin/sh: 3: make: not found` (dash), `bash: line 3: make: command not found`
//! (bash), `/bin/sh: line 3: make: not found` (busybox). A here-document is such a script, line by line. A chain of
//! commands is one line to the shell, whatever its continuations: there the command's name has to tell. So it has in the
//! trace of `set -x`, whose last line is the command that failed. Where the shell says nothing, the failed command may have
//! spoken under its own name.

use std::ops::RangeInclusive;

use solver::{ExecError, Graph, Op, VertexId};

/// A line of the Dockerfile, and what its shell said of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Blamed {
    /// The line, from 1.
    pub line: u32,
    /// Such as `make: not found`.
    pub message: String,
}

/// What a shell said: the line of its script, where it named one, and the rest.
struct Complaint<'a> {
    line: Option<usize>,
    message: &'a str,
}

/// The line of a RUN of several lines that its shell complained of.
pub(super) fn blamed(graph: &Graph, id: VertexId, error: &ExecError) -> Option<Blamed> {
    let (Op::Exec(exec), ExecError::Exit { code, stderr }) = (&graph.vertex(id).op, error) else {
        return None;
    };
    let location = graph.vertex(id).meta.locations.first()?;
    let range = location.ranges.first().filter(|r| r.start_line < r.end_line)?;
    let text = String::from_utf8_lossy(&graph.sources.get(location.source as usize)?.data);
    failed_line(&exec.meta.args, *code, stderr, &text, range.start_line..=range.end_line)
}

/// Finds the line among `lines` of `text` that the end of a command's error output is about.
///
/// Nothing where no shell speaks, or where it does not tell one line from the others.
fn failed_line(
    args: &[String],
    code: i32,
    stderr: &str,
    text: &str,
    lines: RangeInclusive<u32>,
) -> Option<Blamed> {
    let first = *lines.start();
    let numbered: Vec<(u32, &str)> =
        (first..).zip(text.lines().skip(first.saturating_sub(1) as usize)).take(lines.count()).collect();
    let body = heredoc(args, &numbered);
    let script = body.unwrap_or(&numbered);
    let complaint = stderr.lines().rev().find_map(|line| complaint(args, line));
    if let Some(Complaint { line, message }) = complaint.filter(|c| c.explains(code)) {
        let line = match (body, line) {
            (Some(body), Some(line)) => body.get(line.checked_sub(1)?).map(|(number, _)| *number),
            _ => message.split_once(": ").and_then(|(command, _)| only_line_with(command, script)),
        };
        return Some(Blamed { line: line?, message: message.to_owned() });
    }
    if let Some(traced) = stderr.lines().rev().find_map(traced) {
        let line = traced_line(traced, script)?;
        return Some(Blamed {
            line,
            message: format!("the last command that ran is `{}`", shortened(traced)),
        });
    }
    spoke_last(stderr, script)
}

/// The line of the command whose own message ends the output, such as `cat: can't open 'x'`.
///
/// Only where a command that fails ends the script, so that none ran after it: in a chain of `&&` alone, under `set -e`,
/// or in the last line.
fn spoke_last(stderr: &str, script: &[(u32, &str)]) -> Option<Blamed> {
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty())?;
    let (speaker, _) = last.split_once(": ")?;
    let name = speaker.rsplit('/').next().unwrap_or(speaker);
    let line = only_line_with(name, script)?;
    let text = || script.iter().map(|(_, text)| *text);
    let ends_at_failure = text().any(|text| commands(text).any(sets_errexit)) || {
        let code = || text().map(str::trim).filter(|text| !text.is_empty() && !text.starts_with('#'));
        let joined =
            |text: &str| text.ends_with("&&") || text.trim_end_matches('\\').trim_end().ends_with("&&");
        code().rev().skip(1).all(joined) && !code().any(|text| text.contains("||") || text.contains(';'))
    };
    let is_last = script.iter().rev().find(|(_, text)| commands(text).any(|c| !c.is_empty()))?.0 == line;
    (ends_at_failure || is_last).then(|| Blamed { line, message: shortened(last) })
}

/// Whether a command is `set -e`, with other options or without.
fn sets_errexit(command: &str) -> bool {
    let mut words = command.split_whitespace();
    words.next() == Some("set")
        && words.any(|word| word == "errexit" || word.starts_with('-') && word.contains('e'))
}

impl Complaint<'_> {
    /// Whether such a failure ends a shell with that exit code; a later command may have failed silently.
    fn explains(&self, code: i32) -> bool {
        match self.message {
            m if m.ends_with("not found") => code == 127,
            m if m.ends_with("Permission denied") => code == 126,
            _ => true,
        }
    }
}

/// Reads a line of output as a message of the command's own shell.
fn complaint<'a>(args: &[String], line: &'a str) -> Option<Complaint<'a>> {
    let (speaker, rest) = line.split_once(": ")?;
    let shell = args.first()?;
    // A script that runs by its `#!` speaks under its own name or its interpreter's.
    let own = speaker == shell
        || shell.rsplit('/').next() == Some(speaker)
        || args.last().is_some_and(|script| script == speaker && script.starts_with("/dev/pipes/"));
    if !own {
        return None;
    }
    let (head, message) = rest.split_once(": ")?;
    match head.strip_prefix("line ").unwrap_or(head).parse() {
        Ok(line) => Some(Complaint { line: Some(line), message }),
        Err(_) => Some(Complaint { line: None, message: rest }),
    }
}

/// The lines of the here-document that is the whole script, if that is what ran.
fn heredoc<'a>(args: &[String], numbered: &'a [(u32, &'a str)]) -> Option<&'a [(u32, &'a str)]> {
    let script = args.last()?;
    let marker = numbered.iter().position(|(_, line)| line.contains("<<"))?;
    let (_terminator, body) = numbered[marker + 1..].split_last()?;
    let first = body.first()?.1.trim_start_matches('\t');
    let is_body = script.starts_with("/dev/pipes/")
        || script.lines().next().is_some_and(|line| line.trim_start_matches('\t') == first);
    is_body.then_some(body)
}

/// A command in the trace of `set -x`, without the signs that say how deep its shell is.
fn traced(line: &str) -> Option<&str> {
    let command = line.strip_prefix('+')?.trim_start_matches('+').strip_prefix(' ')?.trim();
    (!command.is_empty()).then_some(command)
}

/// The line of a traced command: by its name, and where several lines have that, by all of its words.
fn traced_line(command: &str, script: &[(u32, &str)]) -> Option<u32> {
    let name = command.split_whitespace().next()?;
    let words = |text: &str| -> Vec<String> {
        text.split_whitespace().map(|word| word.replace(['\'', '"'], "")).collect()
    };
    let same = |line: &str| commands(line).any(|part| words(part) == words(command));
    only_line_with(name, script).or_else(|| only(script.iter().filter(|(_, line)| same(line))))
}

/// The only line with a command of a name.
fn only_line_with(name: &str, script: &[(u32, &str)]) -> Option<u32> {
    only(script.iter().filter(|(_, line)| commands(line).any(|c| c.split_whitespace().next() == Some(name))))
}

fn only<'a>(mut lines: impl Iterator<Item = &'a (u32, &'a str)>) -> Option<u32> {
    match (lines.next(), lines.next()) {
        (Some((number, _)), None) => Some(*number),
        _ => None,
    }
}

/// The commands of a line, without what may stand before them and the backslash that ends it.
fn commands(line: &str) -> impl Iterator<Item = &str> {
    line.split(['&', '|', ';', '(', ')']).map(|part| {
        let mut rest = part.trim().trim_end_matches('\\').trim_end();
        while let Some((word, after)) = rest.split_once(char::is_whitespace) {
            if !(word.eq_ignore_ascii_case("run") || word.starts_with("--") || LEADING.contains(&word)) {
                break;
            }
            rest = after.trim_start();
        }
        rest
    })
}

/// The shell's own words before a command.
const LEADING: [&str; 9] = ["if", "then", "elif", "else", "while", "until", "do", "{", "!"];

/// The beginning of a long command.
fn shortened(command: &str) -> String {
    match command.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &command[..end]),
        None => command.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(args: &[&str], stderr: &str, text: &str) -> Option<(u32, String)> {
        ended(args, 127, stderr, text)
    }

    fn ended(args: &[&str], code: i32, stderr: &str, text: &str) -> Option<(u32, String)> {
        let args: Vec<String> = args.iter().map(|&a| a.to_owned()).collect();
        let last = text.lines().count() as u32;
        failed_line(&args, code, stderr, text, 2..=last).map(|b| (b.line, b.message))
    }

    #[test]
    fn a_line_of_a_here_document() {
        let file = "FROM x\nRUN <<-E\n\ttrue\n\tmkae all\nE\n";
        let script = "true\nmkae all\n";
        for said in [
            "/bin/sh: 2: mkae: not found",
            "/bin/sh: line 2: mkae: not found",
            "x\nsh: line 2: mkae: not found\n",
        ] {
            let want = Some((4, "mkae: not found".to_owned()));
            assert_eq!(told(&["/bin/sh", "-c", script], said, file), want, "{said}");
        }
        assert_eq!(told(&["/bin/sh", "-c", script], "/bin/sh: 9: x: not found", file), None);
        assert_eq!(told(&["/bin/sh", "-c", script], "make: 2: no rule", file), None);
    }

    #[test]
    fn a_line_of_a_script_with_an_interpreter() {
        let file = "FROM x\nRUN <<E\n#!/bin/bash\nset -e\nfalse | mkae\nE\n";
        let said = "/dev/pipes/E: line 3: mkae: command not found";
        let want = Some((5, "mkae: command not found".to_owned()));
        assert_eq!(told(&["/bin/sh", "-c", "/dev/pipes/E"], said, file), want);
    }

    #[test]
    fn a_command_of_a_chain() {
        let file = "FROM x\nRUN --network=none true && \\\n    mkdir /a && \\\n    mkae all\n";
        let args = ["/bin/sh", "-c", "true &&     mkdir /a &&     mkae all"];
        let want = Some((4, "mkae: not found".to_owned()));
        assert_eq!(told(&args, "/bin/sh: 1: mkae: not found\n", file), want);
        assert_eq!(told(&args, "/bin/sh: mkae: not found", file), want);
        assert_eq!(told(&args, "/bin/sh: 1: other: not found", file), None, "it stands nowhere");
        let twice = file.replace("mkdir /a", "mkae a");
        assert_eq!(told(&args, "/bin/sh: 1: mkae: not found", &twice), None, "it stands twice");
    }

    #[test]
    fn a_script_whose_shell_names_no_line() {
        let file = "FROM x\nRUN <<E\ntrue\nmkae all\nE\n";
        let args = ["/bin/sh", "-c", "true\nmkae all\n"];
        let said = "/bin/sh: mkae: not found";
        assert_eq!(told(&args, said, file), Some((4, "mkae: not found".to_owned())));
        assert_eq!(ended(&args, 1, said, file), None, "something else failed later");
    }

    #[test]
    fn a_trace() {
        let file =
            "FROM x\nRUN set -eux; \\\n  apk add 'a b'; \\\n  apk add c; \\\n  if true; then make -C d; fi\n";
        let args = ["/bin/sh", "-c", "set -eux;   apk add 'a b';   apk add c;   if true; then make -C d; fi"];
        let line = |said: &str| ended(&args, 1, said, file).map(|(line, _)| line);
        assert_eq!(line("+ apk add 'a b'\nno such package\n"), Some(3));
        assert_eq!(line("+ apk add 'a b'\n+ apk add c\nno such package\n"), Some(4));
        assert_eq!(line("+ apk add c\n+ true\n+ make -C d\nmake: no makefile\n"), Some(5));
        assert_eq!(line("+ apk add $other\n"), None, "two lines have it, neither so");
        assert_eq!(line("+\n+ \n++ \n-x\n"), None);
        let said = ended(&args, 1, "++ make -C d", file).expect("the last line").1;
        assert_eq!(said, "the last command that ran is `make -C d`");
        let long = format!("+ make {}", "ä".repeat(200));
        assert!(ended(&args, 1, &long, file).is_some_and(|(_, said)| said.chars().count() < 140));
    }

    #[test]
    fn a_command_that_speaks_for_itself() {
        let chain = "FROM x\nRUN echo a && \\\n    ls / && \\\n    cat /none && \\\n    echo b\n";
        let args = ["/bin/sh", "-c", "echo a &&     ls / &&     cat /none &&     echo b"];
        let said = "cat: can't open '/none': No such file or directory\n";
        assert_eq!(ended(&args, 1, said, chain), Some((4, said.trim_end().to_owned())));
        assert_eq!(ended(&args, 1, "/bin/cat: x\n", chain).map(|(line, _)| line), Some(4));
        assert_eq!(ended(&args, 1, "dog: x\n", chain), None);
        assert_eq!(ended(&args, 1, said, &chain.replace("ls /", "cat a")), None, "two of that name");
        assert_eq!(
            ended(&args, 1, said, &chain.replace("/none &&", "/none ;")),
            None,
            "another may have failed"
        );
        assert_eq!(ended(&args, 1, said, &chain.replace("ls / &&", "ls / ||")), None);
        let script = |first: &str| format!("FROM x\nRUN <<E\n{first}\ncat /none\necho b\nE\n");
        let run = |first: &str| {
            let body = format!("{first}\ncat /none\necho b\n");
            ended(&["/bin/sh", "-c", &body], 1, said, &script(first)).map(|(line, _)| line)
        };
        assert_eq!(run("set -eu"), Some(4));
        assert_eq!(run("set -o errexit"), Some(4));
        assert_eq!(run("true"), None, "the script went on");
    }

    #[test]
    fn nothing_to_tell() {
        for said in
            ["", "\n", ": ", "/bin/sh", "/bin/sh: ", "/bin/sh: x", "/bin/sh: 0: x: y", "\u{fffd}: 1: x"]
        {
            assert_eq!(told(&["/bin/sh", "-c", "x"], said, "FROM x\nRUN <<E\nx\nE"), None, "{said:?}");
        }
        assert_eq!(told(&[], "/bin/sh: 1: x: y", "FROM x\nRUN x"), None);
    }
}
