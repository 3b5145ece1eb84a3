//! How a container's end is told.

use runner::{Exit, RunnerError};

/// The exit code and what to say on stderr; a program that cannot be run counts as one that failed, as in a shell.
///
/// # Errors
/// The container failed, rather than its program.
pub(crate) fn report(outcome: Result<Exit, RunnerError>) -> Result<(i32, Vec<String>), RunnerError> {
    match outcome {
        Ok(exit) => Ok((exit.status.code(), exit.warnings)),
        Err(e) => match failed_start(&e) {
            Some(code) => Ok((code, vec![format!("rbuild: {e}")])),
            None => Err(e),
        },
    }
}

/// A shell's exit codes: 127 for what is not there, 126 for what cannot be run.
fn failed_start(e: &RunnerError) -> Option<i32> {
    let missing = rustix::io::Errno::NOENT.raw_os_error();
    match e {
        RunnerError::ProgramNotFound { .. } => Some(127),
        RunnerError::ProgramNotRunnable { errno, .. } if *errno == missing => Some(127),
        RunnerError::ProgramNotRunnable { .. } | RunnerError::WorkingDirectory { .. } => Some(126),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use runner::{ExitStatus, Usage};

    use super::*;

    #[test]
    fn codes_as_in_a_shell() {
        let exit = |status| {
            Ok(Exit {
                status,
                oom_killed: false,
                forks_refused: false,
                usage: Usage::default(),
                warnings: vec!["w".into()],
            })
        };
        let of = |outcome| report(outcome).map(|(code, lines)| (code, lines.join("|")));
        assert_eq!(of(exit(ExitStatus::Code(3))), Ok((3, "w".into())));
        assert_eq!(of(exit(ExitStatus::Signal(9))), Ok((137, "w".into())));
        let program = || "x".to_owned();
        let cannot = |errno| Err(RunnerError::ProgramNotRunnable { program: program(), errno });
        for (outcome, code) in [
            (Err(RunnerError::ProgramNotFound { program: program() }), 127),
            (cannot(2), 127),
            (cannot(13), 126),
            (cannot(8), 126),
            (Err(RunnerError::WorkingDirectory { path: "/w".into(), errno: 20 }), 126),
        ] {
            let text = format!("rbuild: {}", Result::<Exit, RunnerError>::clone(&outcome).unwrap_err());
            assert_eq!(of(outcome), Ok((code, text)));
        }
        assert_eq!(of(Err(RunnerError::KeeperGone)), Err(RunnerError::KeeperGone));
    }
}
