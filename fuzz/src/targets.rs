//! The targets, by name.

mod archive;
mod bundle;
mod dockerignore;
mod documents;
mod grammar;
mod layer;
mod llb;
mod lowering;
mod patterns;
mod sbom;
mod signatures;
mod survey;
mod words;

use crate::Target;

/// Every target; its seeds lie in `seeds/NAME/`.
pub const TARGETS: [(&str, Target); 13] = [
    ("archive", archive::run),
    ("bundle", bundle::run),
    ("dockerignore", dockerignore::run),
    ("documents", documents::run),
    ("grammar", grammar::run),
    ("layer", layer::run),
    ("llb", llb::run),
    ("lowering", lowering::run),
    ("patterns", patterns::run),
    ("sbom", sbom::run),
    ("signatures", signatures::run),
    ("survey", survey::run),
    ("words", words::run),
];
