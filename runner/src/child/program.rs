//! Finding and becoming the program.

use std::convert::Infallible;
use std::ffi::CString;

use rustix::fs::{AtFlags, CWD, FileType};

use crate::error::RunnerError;
use crate::spec::DEFAULT_PATH;
use crate::sys;

/// Replaces this process. Looks the program up as the user that it will run as.
pub(super) fn execute(args: &[String], env: &[String]) -> Result<Infallible, RunnerError> {
    let program = args.first().ok_or_else(|| RunnerError::invalid("no program to run"))?;
    let is_path = program.contains('/');
    let candidates = if is_path { vec![program.clone()] } else { in_path(program, env) };
    let argv = strings(args, "argument")?;
    let envp = strings(env, "environment variable")?;
    let mut refused = None;
    for candidate in candidates {
        // Of a path the kernel says what is wrong with it.
        if !is_path && !is_file(&candidate) {
            continue;
        }
        let path = CString::new(candidate).map_err(|_| RunnerError::invalid("NUL in the program's name"))?;
        sys::process::reset_signals();
        let Err(errno) = nix::unistd::execve(&path, &argv, &envp);
        // A file that may not be run is passed over, as every shell does; the reason counts if nothing else is found.
        refused.get_or_insert(errno as i32);
        if errno != nix::errno::Errno::EACCES {
            break;
        }
    }
    Err(match refused {
        Some(errno) => RunnerError::ProgramNotRunnable { program: program.clone(), errno },
        None => RunnerError::ProgramNotFound { program: program.clone() },
    })
}

fn in_path(program: &str, env: &[String]) -> Vec<String> {
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    path.split(':')
        .map(|dir| if dir.is_empty() { format!("./{program}") } else { format!("{dir}/{program}") })
        .collect()
}

/// Not a directory, at least; the rest is for the kernel to say.
fn is_file(path: &str) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::empty())
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::Directory)
}

fn strings(values: &[String], what: &str) -> Result<Vec<CString>, RunnerError> {
    values
        .iter()
        .map(|value| {
            CString::new(value.as_str()).map_err(|_| RunnerError::invalid(format!("NUL in an {what}")))
        })
        .collect()
}
