//! An error in one line, with all that led to it.

use std::error::Error;

/// An error and its causes, each said once. An error that says its innermost cause itself says enough.
pub fn causes(error: &dyn Error) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    let mut text = error.to_string();
    let innermost = causes.last().cloned().unwrap_or_default();
    for said in causes {
        if text.ends_with(&innermost) {
            break;
        }
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Self>>);

    fn said(texts: &[&'static str]) -> String {
        let nest = |below, text: &&'static str| Some(Box::new(Layer(text, below)));
        texts.iter().rev().fold(None, nest).map(|outermost| causes(&*outermost)).unwrap_or_default()
    }

    #[test]
    fn causes_are_said_once() {
        assert_eq!(said(&["a"]), "a");
        assert_eq!(said(&["a", "b", "c"]), "a: b: c");
        assert_eq!(said(&["a: b", "b", "c"]), "a: b: c");
        assert_eq!(
            said(&["`x` cannot be reached: refused", "sending", "tcp connect", "refused"]),
            "`x` cannot be reached: refused"
        );
        assert_eq!(said(&["a", "b: c", "between", "c"]), "a: b: c");
    }
}
