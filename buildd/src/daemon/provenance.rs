//! Provenance: what a result was made from and how, as BuildKit tells it (SLSA v1 and v0.2).
//!
//! A frontend's answer remembers the request that asked for it ([`Origin`]). When the result is evaluated the sources of
//! its graph are pinned, so what they are can be told ([`Capture`]), and an exporter writes the statement.

mod attest;
mod capture;
mod origin;
mod predicate;
mod purl;

pub(super) use attest::{
    About, Attestations, Detail, PREDICATE_TYPE, ProvenanceOptions, SbomOptions, Statement,
};
pub(super) use capture::{Capture, Pin, PinnedBlob};
pub(super) use origin::{Made, Origin, Requests};
pub(super) use predicate::{Facts, Provenance};
pub(super) use purl::purl;
