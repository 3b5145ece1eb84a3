//! What is wrong with a cache that is read, for people.

/// What was found since it was last told.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// So many records are not as they were written.
    pub(super) damaged: usize,
    /// So many are signed by nobody who is trusted.
    pub(super) untrusted: usize,
    /// So many could not be read, and why the first could not.
    unread: (usize, String),
    /// So many layers could not be had, and why the first could not.
    lost: (usize, String),
}

impl Faults {
    /// A record could not be read.
    pub(super) fn unread(&mut self, why: &str) {
        count(&mut self.unread, why);
    }

    /// A layer could not be had.
    pub(super) fn lost(&mut self, why: &str) {
        count(&mut self.lost, why);
    }

    /// All that was found; from here on it is told.
    pub(super) fn take(&mut self) -> Vec<String> {
        let Self { damaged, untrusted, unread, lost } = std::mem::take(self);
        let lines = [
            told(damaged, "record is", "records are", "damaged", ""),
            told(untrusted, "record is", "records are", "not signed by anybody who is trusted", ""),
            told(unread.0, "record", "records", "cannot be read", &unread.1),
            told(lost.0, "layer", "layers", "cannot be had", &lost.1),
        ];
        lines.into_iter().flatten().collect()
    }
}

fn count((count, first): &mut (usize, String), why: &str) {
    *count += 1;
    if first.is_empty() {
        *first = solver::redacted(why).into_owned();
    }
}

fn told(count: usize, one: &str, several: &str, what: &str, why: &str) -> Option<String> {
    let (who, them) = match count {
        0 => return None,
        1 => (one, "it"),
        _ => (several, "them"),
    };
    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
    Some(format!("{count} {who} {what}: doing without {them}{why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_once() {
        let mut faults = Faults { damaged: 1, untrusted: 2, ..Faults::default() };
        faults.unread("denied");
        faults.unread("other");
        faults.lost("gone");
        let lines = [
            "1 record is damaged: doing without it",
            "2 records are not signed by anybody who is trusted: doing without them",
            "2 records cannot be read: doing without them (denied)",
            "1 layer cannot be had: doing without it (gone)",
        ];
        assert_eq!(faults.take(), lines);
        assert!(faults.take().is_empty());
    }
}
