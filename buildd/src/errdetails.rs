//! Typed details of a failed build, as they cross gRPC.
//!
//! BuildKit puts them into `grpc-status-details-bin` as `google.rpc.Status` with one `Any` per detail; the type URL is
//! `github.com/moby/buildkit/errdefs.Source+json` and the value is what Go's encoding/json makes of the message.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

const VERTEX: &str = "github.com/moby/buildkit/errdefs.Vertex+json";
const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";
const FRONTEND_CAP: &str = "github.com/moby/buildkit/errdefs.FrontendCap+json";

/// What is known of a failure beyond its message.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ErrorDetails {
    /// The LLB digest of the vertex that failed.
    pub vertex: Option<String>,
    /// Places in source files, the most important first.
    pub sources: Vec<proto::errdefs::Source>,
    /// What is wrong at each of the places, where that is more than one thing; part of the message, too.
    pub messages: Vec<String>,
    /// What a frontend's image cannot do.
    pub frontend_cap: Option<Box<str>>,
}

/// The field of an answer to `--check` with all errors of the file as text; BuildKit's fields have the first only.
pub const ALL_ERRORS: &str = "rbuild.errors";

/// The type of [`ErrorDetails::messages`], which is our own: other clients show the message as it is.
const MESSAGES: &str = "rbuild.Messages+json";

/// What BuildKit says before the reason why a step's inputs cannot be told apart.
pub const CACHE_KEY: &str = "failed to compute cache key: ";

/// A message about what a step misses in an input, without the words about checksums around it.
pub fn without_checksum(message: &str) -> &str {
    let rest = message.strip_prefix(CACHE_KEY).unwrap_or(message);
    let rest =
        rest.strip_prefix("failed to calculate checksum of ref ").and_then(|rest| rest.split_once(": "));
    rest.map_or(message, |(_, reason)| reason)
}

#[derive(Serialize, Deserialize)]
struct VertexJson {
    #[serde(default)]
    digest: String,
}

#[derive(Serialize, Deserialize)]
struct FrontendCapJson {
    #[serde(default)]
    name: String,
}

#[derive(Serialize, Deserialize)]
struct SourceJson {
    info: Option<InfoJson>,
    #[serde(default)]
    ranges: Vec<RangeJson>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct InfoJson {
    filename: String,
    /// Base64.
    data: String,
    language: String,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct RangeJson {
    start: PositionJson,
    end: PositionJson,
}

#[derive(Serialize, Deserialize, Default, Clone, Copy)]
#[serde(default)]
struct PositionJson {
    line: i32,
    character: i32,
}

/// A status with typed details.
pub fn status(code: Code, message: impl Into<String>, details: &ErrorDetails) -> Status {
    let message = message.into();
    let mut any = Vec::new();
    if let Some(digest) = &details.vertex {
        any.push(encode(VERTEX, &VertexJson { digest: digest.clone() }));
    }
    any.extend(details.sources.iter().map(|source| encode(SOURCE, &source_json(source))));
    if !details.messages.is_empty() {
        any.push(encode(MESSAGES, &details.messages));
    }
    let cap = details.frontend_cap.iter();
    any.extend(cap.map(|name| encode(FRONTEND_CAP, &FrontendCapJson { name: name.to_string() })));
    if any.is_empty() {
        return Status::new(code, message);
    }
    let full = proto::rpc::Status { code: code as i32, message: message.clone(), details: any };
    Status::with_details(code, message, full.encode_to_vec().into())
}

/// A status as a message, with all details that it came with.
pub fn full(status: &Status) -> proto::rpc::Status {
    match proto::rpc::Status::decode(status.details()) {
        Ok(full) if full.code != 0 => full,
        _ => proto::rpc::Status {
            code: status.code() as i32,
            message: status.message().to_owned(),
            details: Vec::new(),
        },
    }
}

/// The typed details of a status; what is unknown or malformed is left out.
pub fn details(status: &Status) -> ErrorDetails {
    let mut found = ErrorDetails::default();
    let Ok(full) = proto::rpc::Status::decode(status.details()) else { return found };
    for any in full.details {
        match any.type_url.as_str() {
            VERTEX => {
                found.vertex = serde_json::from_slice::<VertexJson>(&any.value).ok().map(|v| v.digest);
            }
            SOURCE => {
                found.sources.extend(serde_json::from_slice(&any.value).ok().and_then(source_message));
            }
            MESSAGES => found.messages = serde_json::from_slice(&any.value).unwrap_or_default(),
            FRONTEND_CAP => {
                let cap = serde_json::from_slice::<FrontendCapJson>(&any.value);
                found.frontend_cap = cap.ok().map(|cap| cap.name.into());
            }
            _ => {}
        }
    }
    found
}

fn encode<T: Serialize>(type_url: &str, value: &T) -> prost_types::Any {
    let value = serde_json::to_vec(value).expect("strings and numbers always serialize");
    prost_types::Any { type_url: type_url.to_owned(), value }
}

fn source_json(source: &proto::errdefs::Source) -> SourceJson {
    let position = |p: Option<proto::pb::Position>| {
        p.map(|p| PositionJson { line: p.line, character: p.character }).unwrap_or_default()
    };
    SourceJson {
        info: source.info.as_ref().map(|info| InfoJson {
            filename: info.filename.clone(),
            data: STANDARD.encode(&info.data),
            language: info.language.clone(),
        }),
        ranges: source
            .ranges
            .iter()
            .map(|r| RangeJson { start: position(r.start), end: position(r.end) })
            .collect(),
    }
}

fn source_message(json: SourceJson) -> Option<proto::errdefs::Source> {
    let position = |p: PositionJson| Some(proto::pb::Position { line: p.line, character: p.character });
    let info = json.info?;
    Some(proto::errdefs::Source {
        info: Some(proto::pb::SourceInfo {
            filename: info.filename,
            data: STANDARD.decode(&info.data).ok()?.into(),
            definition: None,
            language: info.language,
        }),
        ranges: json
            .ranges
            .into_iter()
            .map(|r| proto::pb::Range { start: position(r.start), end: position(r.end) })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let position = |line| Some(proto::pb::Position { line, character: 0 });
        let sent = ErrorDetails {
            vertex: Some("sha256:ab".into()),
            sources: vec![proto::errdefs::Source {
                info: Some(proto::pb::SourceInfo {
                    filename: "Dockerfile".into(),
                    data: "FROM scratch\n".into(),
                    definition: None,
                    language: "Dockerfile".into(),
                }),
                ranges: vec![proto::pb::Range { start: position(1), end: position(2) }],
            }],
            messages: vec!["exit code: 1".into()],
            ..ErrorDetails::default()
        };
        let status = status(Code::Unknown, "exit code: 1", &sent);
        assert_eq!(status.message(), "exit code: 1");
        assert_eq!(details(&status), sent);
    }

    #[test]
    fn what_buildkit_sends() {
        let any = prost_types::Any {
            type_url: "github.com/moby/buildkit/errdefs.Source+json".into(),
            value: br#"{"info":{"filename":"Dockerfile","data":"UlVOIGE=","language":"Dockerfile"},"ranges":[{"start":{"line":1},"end":{"line":1}}]}"#.to_vec(),
        };
        let junk = prost_types::Any { type_url: "x/stack.Stack+json".into(), value: b"{".to_vec() };
        let full = proto::rpc::Status { code: 2, message: "m".into(), details: vec![junk, any] };
        let status = Status::with_details(Code::Unknown, "m", full.encode_to_vec().into());
        let found = details(&status);
        assert_eq!(found.sources[0].info.as_ref().unwrap().data, "RUN a");
        assert_eq!(found.sources[0].ranges[0].start.unwrap().line, 1);
        assert_eq!(found.vertex, None);
    }

    #[test]
    fn no_details_is_fine() {
        assert_eq!(details(&Status::unknown("x")), ErrorDetails::default());
    }
}
