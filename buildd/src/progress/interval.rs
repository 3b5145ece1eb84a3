//! When a vertex ran: several times, perhaps, and in overlapping pieces.

use std::collections::BTreeMap;
use std::time::Duration;

/// Nanoseconds since 1970.
pub(super) type Nanos = i128;

/// Reads a wire timestamp.
pub(super) fn nanos(time: &prost_types::Timestamp) -> Nanos {
    Nanos::from(time.seconds) * 1_000_000_000 + Nanos::from(time.nanos)
}

/// Pieces by their start; an end replaces the one said before.
#[derive(Debug, Clone, Default)]
pub(super) struct Intervals(BTreeMap<Nanos, Option<Nanos>>);

impl Intervals {
    pub(super) fn set(&mut self, start: Nanos, stop: Option<Nanos>) {
        self.0.insert(start, stop);
    }

    pub(super) fn started(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether the last piece has ended.
    pub(super) fn completed(&self) -> bool {
        self.last().is_some_and(|(_, stop)| stop.is_some())
    }

    /// The start and end of the last piece, overlapping ones counted as one.
    pub(super) fn last(&self) -> Option<(Nanos, Option<Nanos>)> {
        self.merged().last().copied()
    }

    /// Time spent until `now`, overlaps once.
    pub(super) fn spent(&self, now: Nanos) -> Duration {
        let total: Nanos =
            self.merged().iter().map(|&(start, stop)| (stop.unwrap_or(now) - start).max(0)).sum();
        Duration::from_nanos(total.try_into().unwrap_or(u64::MAX))
    }

    fn merged(&self) -> Vec<(Nanos, Option<Nanos>)> {
        let mut merged: Vec<(Nanos, Option<Nanos>)> = Vec::new();
        for (&start, &stop) in &self.0 {
            match merged.last_mut() {
                // One that has not ended covers all that follow.
                Some((_, None)) => {}
                Some((_, end @ Some(_))) if end.is_some_and(|end| start <= end) => {
                    *end = stop.map(|stop| end.unwrap_or(stop).max(stop));
                }
                _ => merged.push((start, stop)),
            }
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[(Nanos, Option<Nanos>)]) -> Intervals {
        let mut all = Intervals::default();
        for &(start, stop) in pieces {
            all.set(start, stop);
        }
        all
    }

    #[test]
    fn overlaps_count_once() {
        let all = of(&[(0, Some(10)), (5, Some(8)), (9, Some(12)), (20, Some(21))]);
        assert_eq!(all.spent(0), Duration::from_nanos(13));
        assert_eq!(all.last(), Some((20, Some(21))));
        assert!(all.completed());
    }

    #[test]
    fn one_without_end_goes_on() {
        let all = of(&[(0, None), (5, Some(8))]);
        assert!(!all.completed());
        assert_eq!(all.spent(100), Duration::from_nanos(100));
        assert!(!of(&[]).started());
    }
}
