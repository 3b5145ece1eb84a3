//! The keywords of instructions.

/// All instructions.
pub(super) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A keyword in whatever case as [`KEYWORDS`] has it; nothing for what is none.
pub(super) fn known(keyword: &str) -> &'static str {
    KEYWORDS.into_iter().find(|known| known.eq_ignore_ascii_case(keyword)).unwrap_or_default()
}
