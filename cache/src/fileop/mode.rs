//! Symbolic modes of `--chmod`, as BSD's `setmode(3)` and `chmod(1)` define them: `u=rw,go=`, `a+X`, `g=u`, `+t`.

/// A compiled mode change, applied clause by clause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeChange(Vec<Clause>);

/// A text that is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid mode `{0}`")]
pub struct InvalidMode(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clause {
    /// Bits that the clause may touch; those of `u`, `g`, `o` with their set-id bits.
    who: u32,
    op: Op,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Bits(u32),
    /// `X`: execute where it is a directory or executable for anyone before the change.
    ExecuteIfAny,
    /// The permissions that the owner (6), group (3) or others (0) have, by their shift.
    Copy(u32),
}

const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHER: u32 = 0o0007;
const STICKY: u32 = 0o1000;
/// Everything a clause without `u`, `g`, `o` may touch.
const ALL: u32 = USER | GROUP | OTHER;

impl ModeChange {
    /// Compiles a symbolic or an octal mode.
    ///
    /// # Errors
    /// When the text is neither.
    pub fn parse(text: &str) -> Result<Self, InvalidMode> {
        let invalid = || InvalidMode(text.to_owned());
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let bits =
                u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o7777).ok_or_else(invalid)?;
            return Ok(Self(vec![Clause { who: ALL | STICKY, op: Op::Set, what: What::Bits(bits) }]));
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            parse_part(part.as_bytes(), &mut clauses).ok_or_else(invalid)?;
        }
        Ok(Self(clauses))
    }

    /// The mode that results from `mode` (permission and special bits).
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let executable = is_dir || mode & 0o111 != 0;
        self.0.iter().fold(mode, |now, clause| clause.apply(now, executable))
    }
}

impl Clause {
    fn apply(&self, now: u32, executable: bool) -> u32 {
        let (bits, cleared_first) = match self.what {
            What::Bits(bits) => (bits & self.who, self.who),
            What::ExecuteIfAny if executable => (0o111 & self.who, self.who),
            What::ExecuteIfAny => (0, self.who),
            // A copy moves the nine permission bits only; set-id bits stay.
            What::Copy(shift) => {
                let from = now >> shift & 0o7;
                ((from << 6 | from << 3 | from) & self.who & 0o777, self.who & 0o777)
            }
        };
        match self.op {
            Op::Add => now | bits,
            Op::Remove => now & !bits,
            Op::Set => now & !cleared_first | bits,
        }
    }
}

/// One part between commas: who, then any number of an operator with its permissions.
fn parse_part(part: &[u8], clauses: &mut Vec<Clause>) -> Option<()> {
    let letters = part.iter().take_while(|b| b"ugoa".contains(b)).count();
    let named = part[..letters].iter().fold(0, |who, letter| {
        who | match letter {
            b'u' => USER,
            b'g' => GROUP,
            b'o' => OTHER,
            _ => ALL,
        }
    });
    let mut rest = &part[letters..];
    if rest.is_empty() {
        return None;
    }
    while let [op, tail @ ..] = rest {
        let op = match op {
            b'+' => Op::Add,
            b'-' => Op::Remove,
            b'=' => Op::Set,
            _ => return None,
        };
        let len = tail.iter().take_while(|b| !b"+-=".contains(b)).count();
        parse_permissions(&tail[..len], named, op, clauses)?;
        rest = &tail[len..];
    }
    Some(())
}

fn parse_permissions(text: &[u8], named: u32, op: Op, clauses: &mut Vec<Clause>) -> Option<()> {
    let mut who = if named == 0 { ALL } else { named };
    // Set-id and sticky mean nothing to others alone.
    let only_others = named != 0 && named & !OTHER == 0;
    let (mut bits, mut conditional, mut copies) = (0, false, Vec::new());
    for letter in text {
        match letter {
            b'r' => bits |= 0o444,
            b'w' => bits |= 0o222,
            b'x' => bits |= 0o111,
            b'X' if op == Op::Remove => bits |= 0o111,
            b'X' => conditional = true,
            b's' if !only_others => bits |= 0o6000,
            b't' if !only_others => (who, bits) = (who | STICKY, bits | STICKY),
            b's' | b't' => {}
            b'u' => copies.push(6),
            b'g' => copies.push(3),
            b'o' => copies.push(0),
            _ => return None,
        }
    }
    // `=` clears once; what follows in the same clause adds.
    let mut op = op;
    let mut push = |what, op: &mut Op| {
        clauses.push(Clause { who, op: *op, what });
        if *op == Op::Set {
            *op = Op::Add;
        }
    };
    if bits != 0 || op == Op::Set && copies.is_empty() {
        push(What::Bits(bits), &mut op);
    }
    for shift in copies {
        push(What::Copy(shift), &mut op);
    }
    if conditional {
        push(What::ExecuteIfAny, &mut op);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes() {
        for (text, before, is_dir, after) in [
            ("u=rw,go=", 0o644, false, 0o600),
            ("+x", 0o644, false, 0o755),
            ("a+X", 0o644, false, 0o644),
            ("a+X", 0o744, false, 0o755),
            ("a+X", 0o600, true, 0o711),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("g=u", 0o640, false, 0o660),
            ("o=g,g=u", 0o750, false, 0o775),
            ("go-w", 0o666, false, 0o644),
            ("u+s,g+s", 0o755, false, 0o6755),
            ("+t", 0o755, true, 0o1755),
            ("o+s", 0o755, false, 0o755),
            ("=", 0o7777, false, 0o1000),
            ("u=", 0o4755, false, 0o055),
            ("a=r", 0o777, false, 0o444),
            ("u+x-w", 0o600, false, 0o500),
            ("4755", 0o644, false, 0o4755),
            ("0", 0o1777, false, 0),
        ] {
            let change = ModeChange::parse(text).unwrap();
            assert_eq!(change.apply(before, is_dir), after, "{text} on {before:o}");
        }
    }

    #[test]
    fn rejects_what_is_no_mode() {
        for text in ["", "u", "rw", "u=q", "u=rw,", "99", "17777", "u*r"] {
            assert!(ModeChange::parse(text).is_err(), "{text}");
        }
    }
}
