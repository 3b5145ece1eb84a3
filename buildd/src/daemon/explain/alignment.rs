//! Which step of the account before each step is.

use super::account::Step;

/// By new step: the old one that it was, if there was one. Each old step is at most one new one.
///
/// What is the same comes first, then what says the same, then what does the same under another text; only then is a step of the same
/// kind in the same stage taken for one that was changed.
pub(super) fn align(old: &[Step], new: &[Step]) -> Vec<Option<usize>> {
    let mut found = vec![None; new.len()];
    let mut taken = vec![false; old.len()];
    let alike: [fn(&Step, &Step) -> bool; 5] = [
        |old, new| old.stage == new.stage && old.op == new.op && old.is_written_as(new),
        |old, new| old.stage == new.stage && old.is_written_as(new) && old.does == new.does,
        |old, new| old.stage == new.stage && old.op == new.op,
        |old, new| old.op == new.op && old.is_written_as(new),
        |old, new| old.stage == new.stage && old.does == new.does && keyword(old) == keyword(new),
    ];
    for alike in alike {
        for (i, new) in new.iter().enumerate().filter(|(i, _)| found[*i].is_none()).collect::<Vec<_>>() {
            let fits = |j: &usize| !taken[*j] && alike(&old[*j], new);
            if let Some(j) = (0..old.len()).find(fits) {
                taken[j] = true;
                found[i] = Some(j);
            }
        }
    }
    found
}

/// The instruction's keyword.
fn keyword(step: &Step) -> String {
    step.text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase()
}
