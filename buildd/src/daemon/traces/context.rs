//! Where a build belongs: the trace, and the client's span that asked for it (W3C Trace Context, `traceparent`).

use ring::rand::{SecureRandom as _, SystemRandom};
use tonic::metadata::MetadataMap;

/// A trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::daemon) struct TraceId(pub [u8; 16]);

/// The place of one build's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The client's span; `None` where the trace begins here.
    pub parent: Option<[u8; 8]>,
    /// The build's own span.
    pub call: [u8; 8],
    /// Whether spans are wanted.
    pub sampled: bool,
}

impl TraceContext {
    /// As the client says. Without a word from it, or with one that makes no sense, a trace begins.
    pub(in crate::daemon) fn of(metadata: &MetadataMap) -> Self {
        let said = metadata.get("traceparent").and_then(|value| parse(value.to_str().ok()?));
        said.unwrap_or_else(|| Self { trace: TraceId(random()), parent: None, call: random(), sampled: true })
    }

    /// The place of what is below the build's span, as `traceparent` says it.
    pub(super) fn header(&self) -> String {
        let flags = u8::from(self.sampled);
        format!("00-{}-{}-{flags:02x}", hex::encode(self.trace.0), hex::encode(self.call))
    }
}

/// A fresh id. Where the system has no randomness it is made of ones, which is no worse than no trace.
pub(in crate::daemon) fn random<const N: usize>() -> [u8; N] {
    let mut id = [1; N];
    let _ = SystemRandom::new().fill(&mut id);
    id
}

/// `00-TRACE-PARENT-FLAGS`; a later version may have more fields.
fn parse(text: &str) -> Option<TraceContext> {
    let mut fields = text.split('-');
    let (version, trace, parent, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let [version] = bytes::<1>(version)?;
    if version == 0xff || version == 0 && fields.next().is_some() {
        return None;
    }
    let (trace, parent, [flags]) = (bytes::<16>(trace)?, bytes::<8>(parent)?, bytes::<1>(flags)?);
    let valid = trace != [0; 16] && parent != [0; 8];
    let (trace, parent, call) = (TraceId(trace), Some(parent), random());
    valid.then_some(TraceContext { trace, parent, call, sampled: flags & 1 == 1 })
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents() {
        let of = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("traceparent", text.parse().unwrap());
            TraceContext::of(&metadata)
        };
        let (trace, parent) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let found = of(&format!("00-{trace}-{parent}-01"));
        assert_eq!((hex::encode(found.trace.0), found.sampled), (trace.to_owned(), true));
        assert_eq!(found.parent.map(hex::encode), Some(parent.to_owned()));
        let below = of(&found.header());
        assert_eq!((below.trace, below.parent, below.sampled), (found.trace, Some(found.call), true));
        assert!(!of(&format!("00-{trace}-{parent}-00")).sampled);
        assert!(of(&format!("01-{trace}-{parent}-01-more")).parent.is_some());
        for bad in [
            "",
            &format!("00-{trace}-{parent}"),
            &format!("00-{trace}-{parent}-01-more"),
            &format!("ff-{trace}-{parent}-01"),
            &format!("00-{}-{parent}-01", "0".repeat(32)),
            &format!("00-{trace}-{}-01", "0".repeat(16)),
            &format!("00-{}-{parent}-01", "x".repeat(32)),
        ] {
            let found = of(bad);
            assert!(found.parent.is_none() && found.sampled, "{bad}");
        }
        assert_ne!(of("").trace, of("").trace);
    }
}
