//! Vectors of GnuPG, OpenSSH and git; `vectors/make` says what each is.

mod git;
mod git_object;
mod pgp;
mod ssh;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A vector, as text.
fn vector(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/signatures/vectors").join(name);
    fs_err::read_to_string(path).unwrap()
}

/// A day of 2020 or later.
fn date(text: &str) -> SystemTime {
    let seconds = format!("{text}T00:00:00Z").parse::<jiff::Timestamp>().unwrap().as_second();
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap())
}

/// The whole of an error.
fn text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
