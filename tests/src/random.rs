//! Chance that can be repeated, and how long to try one's luck.

use std::time::{SystemTime, UNIX_EPOCH};

/// xorshift64, begun with `RBUILD_SEED` where that is set.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Begins anew, and says with what.
    ///
    /// # Panics
    /// When `RBUILD_SEED` is no number.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
        let seed = std::env::var("RBUILD_SEED").map_or_else(|_| clock(), |s| s.parse().expect("a number"));
        eprintln!("RBUILD_SEED={seed}");
        Self(seed | 1)
    }

    /// Another one, which follows from this one.
    pub fn split(&mut self) -> Self {
        Self(self.below(u64::MAX) | 1)
    }

    /// From 0 to `end`, which is left out.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end.max(1)
    }
}

/// `short`, or `soak` with `RBUILD_SOAK=1`.
pub fn rounds<T>(short: T, soak: T) -> T {
    if std::env::var_os("RBUILD_SOAK").is_some_and(|v| v == "1") { soak } else { short }
}
