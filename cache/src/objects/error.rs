//! What can go wrong between us and an object store.

use opendal::ErrorKind;

/// A request to an object store that failed. No variant holds a secret or a URL with a query.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// A configuration or a name that no store can have.
    #[error("{store}: {reason}")]
    Config {
        /// Which store: its kind and name.
        store: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no such object.
    #[error("{store} has no object `{object}`")]
    Missing {
        /// Which store.
        store: String,
        /// Which object.
        object: String,
    },
    /// The credentials do not allow this, or there are none.
    #[error("{store} denies access to `{object}`: {reason}")]
    Denied {
        /// Which store.
        store: String,
        /// Which object.
        object: String,
        /// The store's own words.
        reason: String,
    },
    /// Too many requests, even after waiting.
    #[error("{store} limits the rate of requests for `{object}`")]
    RateLimited {
        /// Which store.
        store: String,
        /// Which object.
        object: String,
    },
    /// Any other answer than the expected, or none.
    #[error("{store} failed at `{object}`: {reason}")]
    Failed {
        /// Which store.
        store: String,
        /// Which object.
        object: String,
        /// The store's own words, or why it could not be asked.
        reason: String,
    },
    /// An object is larger than anybody should have written it.
    #[error("object `{object}` of {store} is larger than {limit} bytes")]
    TooLarge {
        /// Which store.
        store: String,
        /// Which object.
        object: String,
        /// What is allowed, in bytes.
        limit: u64,
    },
    /// What is to be stored cannot be read.
    #[error("cannot read what is to become `{object}` of {store}")]
    Source {
        /// Which store.
        store: String,
        /// Which object.
        object: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl ObjectError {
    pub(super) fn of(store: &str, object: &str, error: &opendal::Error) -> Self {
        let (store, object) = (store.to_owned(), object.to_owned());
        match error.kind() {
            ErrorKind::NotFound => Self::Missing { store, object },
            ErrorKind::PermissionDenied => Self::Denied { store, object, reason: reason(error) },
            ErrorKind::RateLimited => Self::RateLimited { store, object },
            _ => Self::Failed { store, object, reason: reason(error) },
        }
    }
}

/// An error in the store's own words where it said some, else its cause. What opendal tells besides (URLs, headers) is left out.
fn reason(error: &opendal::Error) -> String {
    let said = error.message();
    if let Some(code) = field(said, "code").filter(|code| !code.is_empty()) {
        return match field(said, "message").filter(|message| !message.is_empty()) {
            Some(message) => format!("{message} ({code})"),
            None => code,
        };
    }
    // Google's codes are the statuses.
    if let Some(message) = field(said, "message").filter(|message| !message.is_empty()) {
        return message;
    }
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause.and_then(std::error::Error::source) {
        cause = Some(next);
    }
    match (said, cause) {
        (said, Some(cause)) => plain(&format!("{said}: {cause}")),
        // An answer without a body: to HEAD, or from something in between.
        (said, None) if said.is_empty() || said.contains("code: \"\"") => "it does not say why".to_owned(),
        (said, None) => plain(said),
    }
}

/// A field of an answer, which opendal gives as a struct's `Debug` output.
fn field(said: &str, name: &str) -> Option<String> {
    let (_, rest) = said.split_once(&format!("{name}: \""))?;
    let (value, _) = rest.split_once('"')?;
    Some(plain(value))
}

/// Printable, and not long.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MESSAGE_LIMIT).collect()
}

/// The most of a store's own words that is shown, in characters.
const MESSAGE_LIMIT: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_store() {
        let told = |kind, message: &str| {
            let error = opendal::Error::new(kind, message).with_context("url", "https://h/?sig=geheim");
            ObjectError::of("S3 bucket `b`", "k", &error).to_string()
        };
        let answer = r#"S3Error { code: "AccessDenied", message: "no way", resource: "", request_id: "1" }"#;
        for (kind, message, want) in [
            (
                ErrorKind::PermissionDenied,
                answer,
                "S3 bucket `b` denies access to `k`: no way (AccessDenied)",
            ),
            (
                ErrorKind::Unexpected,
                r#"S3Error { code: "X", message: "" }"#,
                "S3 bucket `b` failed at `k`: X",
            ),
            (
                ErrorKind::Unexpected,
                r#"S3Error { code: "", message: "" }"#,
                "S3 bucket `b` failed at `k`: it does not say why",
            ),
            (
                ErrorKind::PermissionDenied,
                r#"GcsErrorResponse { error: GcsError { code: 403, message: "no way", errors: [] } }"#,
                "S3 bucket `b` denies access to `k`: no way",
            ),
            (ErrorKind::Unexpected, "<html>\n", "S3 bucket `b` failed at `k`: <html> "),
            (ErrorKind::NotFound, "", "S3 bucket `b` has no object `k`"),
            (ErrorKind::RateLimited, "", "S3 bucket `b` limits the rate of requests for `k`"),
        ] {
            assert_eq!(told(kind, message), want);
        }
        let broken = opendal::Error::new(ErrorKind::Unexpected, "send http request")
            .set_source(std::io::Error::other("connection refused"));
        let told = ObjectError::of("S3 bucket `b`", "k", &broken).to_string();
        assert_eq!(told, "S3 bucket `b` failed at `k`: send http request: connection refused");
    }
}
