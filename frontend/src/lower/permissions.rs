//! `--chown` and `--chmod`.

use solver::op::{ActionInput, ChownOpt, UserOpt};

use crate::lower::error::Fault;

/// `USER[:GROUP]`; names are looked up in `base`.
pub(super) fn owner(text: &str, base: ActionInput) -> ChownOpt {
    let one = |name: &str| match name {
        "" | "root" => UserOpt::Id(0),
        // BuildKit reads 32 bits with a sign and keeps the bits.
        _ => match name.parse::<i32>() {
            Ok(id) => UserOpt::Id(id as u32),
            Err(_) => UserOpt::Name { name: name.to_owned(), input: base },
        },
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    ChownOpt { user: Some(one(user)), group: group.map(one) }
}

/// Octal digits up to 07777, or a symbolic mode.
pub(super) fn parse_chmod(text: &str) -> std::result::Result<(Option<u32>, String), Fault> {
    if let Some(mode) = crate::number::unsigned(text, 8) {
        return if mode <= 0o7777 {
            Ok((Some(mode), String::new()))
        } else {
            Err(Fault::Chmod(text.to_owned()))
        };
    }
    if text.starts_with(|ch: char| ch.is_ascii_digit()) {
        return Err(Fault::Chmod(text.to_owned()));
    }
    let clause = |clause: &str| {
        let operators = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        let known = operators.bytes().all(|b| b"+-=rwxXstugo".contains(&b));
        operators.starts_with(['+', '-', '=']) && known
    };
    if text.split(',').all(clause) {
        Ok((None, text.to_owned()))
    } else {
        Err(Fault::SymbolicChmod(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (text, mode) in
            [("0755", Some(0o755)), ("7777", Some(0o7777)), ("u+x", None), ("a=rX,go-w", None)]
        {
            assert_eq!(parse_chmod(text).unwrap().0, mode, "{text}");
        }
        for text in ["9", "10000", "rwx", "-1", "u+q", "u+x,", "u"] {
            assert!(parse_chmod(text).is_err(), "{text}");
        }
    }

    #[test]
    fn owners() {
        let named = |name: &str| UserOpt::Name { name: name.to_owned(), input: ActionInput::Vertex(0) };
        for (text, user, group) in [
            ("root", UserOpt::Id(0), None),
            ("5:staff", UserOpt::Id(5), Some(named("staff"))),
            (":7", UserOpt::Id(0), Some(UserOpt::Id(7))),
            ("app:", named("app"), Some(UserOpt::Id(0))),
            ("4294967295", named("4294967295"), None),
        ] {
            assert_eq!(owner(text, ActionInput::Vertex(0)), ChownOpt { user: Some(user), group }, "{text}");
        }
    }
}
