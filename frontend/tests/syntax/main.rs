//! The syntax half of the frontend: parser, words, mounts, ignore patterns, lint, diagnostics.

mod diagnostics;
mod documents;
mod errors;
mod ignore;
mod lint;
mod mounts;
mod properties;
mod subrequests;
mod suggestions;
mod words;
