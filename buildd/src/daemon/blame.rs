//! Which line of the Dockerfile a failed RUN stopped at, where its shell tells.
//!
//! Shells name the line of their script: `/bin/sh: 3: make: not found` (dash), `bash: line 3: make: command not found`
//! (bash), `/bin/sh: line 3: make: not found` (busybox). A here-document is such a script, line by line. A chain of
//! commands is one line to the shell, whatever its continuations: there the command's name has to tell.

use std::ops::RangeInclusive;

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

/// Finds the line among `lines` of `text` that the end of a command's error output is about.
///
/// Nothing where no shell speaks, or where it does not tell one line from the others.
pub(super) fn failed_line(
    args: &[String],
    stderr: &str,
    text: &str,
    lines: RangeInclusive<u32>,
) -> Option<Blamed> {
    let complaint = stderr.lines().rev().find_map(|line| complaint(args, line))?;
    let first = *lines.start();
    let numbered: Vec<(u32, &str)> =
        (first..).zip(text.lines().skip(first.saturating_sub(1) as usize)).take(lines.count()).collect();
    let line = match (heredoc(args, &numbered), complaint.line) {
        (Some(body), Some(line)) => body.get(line.checked_sub(1)?).map(|(number, _)| *number),
        (Some(_), None) => None,
        (None, _) => by_command(complaint.message, &numbered),
    }?;
    Some(Blamed { line, message: complaint.message.to_owned() })
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
    let body = &numbered[marker + 1..];
    let first = body.first()?.1.trim_start_matches('\t');
    let is_body = script.starts_with("/dev/pipes/")
        || script.lines().next().is_some_and(|line| line.trim_start_matches('\t') == first);
    is_body.then_some(body)
}

/// The only line with a command of the name that a message like `make: not found` begins with.
fn by_command(message: &str, numbered: &[(u32, &str)]) -> Option<u32> {
    let (command, _) = message.split_once(": ")?;
    let has = |line: &str| {
        let commands = line.split(['&', '|', ';', '(', ')']).map(|part| {
            let mut words = part.split_whitespace();
            let is_head = |word: &&str| word.eq_ignore_ascii_case("run") || word.starts_with("--");
            words.find(|word| !is_head(word))
        });
        commands.flatten().any(|word| word == command)
    };
    let mut found = numbered.iter().filter(|(_, line)| has(line));
    match (found.next(), found.next()) {
        (Some((number, _)), None) => Some(*number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blamed(args: &[&str], stderr: &str, text: &str) -> Option<(u32, String)> {
        let args: Vec<String> = args.iter().map(|&a| a.to_owned()).collect();
        let last = text.lines().count() as u32;
        failed_line(&args, stderr, text, 2..=last).map(|b| (b.line, b.message))
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
            assert_eq!(blamed(&["/bin/sh", "-c", script], said, file), want, "{said}");
        }
        assert_eq!(blamed(&["/bin/sh", "-c", script], "/bin/sh: 9: x: not found", file), None);
        assert_eq!(blamed(&["/bin/sh", "-c", script], "make: 2: no rule", file), None);
    }

    #[test]
    fn a_line_of_a_script_with_an_interpreter() {
        let file = "FROM x\nRUN <<E\n#!/bin/bash\nset -e\nfalse | mkae\nE\n";
        let said = "/dev/pipes/E: line 3: mkae: command not found";
        let want = Some((5, "mkae: command not found".to_owned()));
        assert_eq!(blamed(&["/bin/sh", "-c", "/dev/pipes/E"], said, file), want);
    }

    #[test]
    fn a_command_of_a_chain() {
        let file = "FROM x\nRUN --network=none true && \\\n    mkdir /a && \\\n    mkae all\n";
        let args = ["/bin/sh", "-c", "true &&     mkdir /a &&     mkae all"];
        let want = Some((4, "mkae: not found".to_owned()));
        assert_eq!(blamed(&args, "/bin/sh: 1: mkae: not found\n", file), want);
        assert_eq!(blamed(&args, "/bin/sh: mkae: not found", file), want);
        assert_eq!(blamed(&args, "/bin/sh: 1: other: not found", file), None, "it stands nowhere");
        let twice = file.replace("mkdir /a", "mkae a");
        assert_eq!(blamed(&args, "/bin/sh: 1: mkae: not found", &twice), None, "it stands twice");
    }

    #[test]
    fn nothing_to_tell() {
        for said in
            ["", "\n", ": ", "/bin/sh", "/bin/sh: ", "/bin/sh: x", "/bin/sh: 0: x: y", "\u{fffd}: 1: x"]
        {
            assert_eq!(blamed(&["/bin/sh", "-c", "x"], said, "FROM x\nRUN <<E\nx\nE"), None, "{said:?}");
        }
        assert_eq!(blamed(&[], "/bin/sh: 1: x: y", "FROM x\nRUN x"), None);
    }
}
