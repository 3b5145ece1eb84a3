//! An error in one line, with all that led to it.

use std::error::Error;

/// An error and its causes, each said once. An error that says its innermost cause itself says enough.
pub fn causes(error: &dyn Error) -> String {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let boxed = cause.downcast_ref::<Box<tonic::Status>>().map(AsRef::as_ref);
        causes.push(match boxed.or_else(|| cause.downcast_ref::<tonic::Status>()) {
            // Its own text repeats what the error above it says, and adds the class that a client is told anyway.
            Some(status) => status.message().to_owned(),
            None => cause.to_string(),
        });
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

    #[test]
    fn a_status_is_its_message() {
        #[derive(Debug, thiserror::Error)]
        #[error("{}", .0.message())]
        struct Told(#[source] Box<tonic::Status>);
        let told = Told(tonic::Status::not_found("no such thing").into());
        assert_eq!(causes(&told), "no such thing");
    }
}
