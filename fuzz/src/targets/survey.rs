//! Any bytes as a Dockerfile of whose images nothing is known: all its errors at once.

use frontend::lower::{ImageRequest, LocalRequest, Resolved, ResolvedImage, TimeRequest, survey};
use frontend::options::BuildOptions;
use solver::Graph;
use solver::op::Platform;

/// Nothing but an empty context.
struct Nothing;

impl Resolved for Nothing {
    fn image(&self, _: &ImageRequest) -> Option<&ResolvedImage> {
        None
    }

    fn dockerignore(&self) -> &[u8] {
        b""
    }

    fn context_dockerignore(&self, _: &LocalRequest) -> Option<&[u8]> {
        Some(b"")
    }

    fn input(&self, _: &str) -> Option<&Graph> {
        None
    }

    fn source_time(&self, _: &TimeRequest) -> Option<Option<i64>> {
        Some(None)
    }
}

pub(super) fn run(bytes: &[u8]) {
    // Without an error there is nothing to add to.
    let file = [bytes, b"\nNO\n"].concat();
    let (document, errors) = frontend::parse::parse("Dockerfile", &file);
    let platform = Platform { os: "linux".into(), architecture: "amd64".into(), ..Platform::default() };
    let first = errors.first().map(ToString::to_string);
    let all = survey(&document, errors, &BuildOptions::new(platform), None, &Nothing);
    assert_eq!(all.first().map(ToString::to_string), first, "the first error stays the first");
    let mut last = None;
    for error in all.iter().skip(1) {
        let line = error.line(&document.source);
        assert!(line >= last, "errors are sorted by line");
        last = line;
        error.render(&document.source);
    }
}
