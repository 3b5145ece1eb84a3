//! Typed details of a failed build, as they cross gRPC.
//!
//! BuildKit puts them into `grpc-status-details-bin` as `google.rpc.Status` with one `Any` per detail; the type URL is
//! `github.com/moby/buildkit/errdefs.Source+json` and the value is what Go's encoding/json makes of the message.

mod solve;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use proto::pb::{Definition, OpMetadata, Position, Range};
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

const SOLVE: &str = "github.com/moby/buildkit/errdefs.Solve+json";
const VERTEX: &str = "github.com/moby/buildkit/errdefs.Vertex+json";
const SOURCE: &str = "github.com/moby/buildkit/errdefs.Source+json";
const FRONTEND_CAP: &str = "github.com/moby/buildkit/errdefs.FrontendCap+json";
const SUBREQUEST: &str = "github.com/moby/buildkit/errdefs.Subrequest+json";
const DECISION: &str = "github.com/moby/buildkit/policysession.DecisionResponse+json";

/// What is known of a failure beyond its message.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ErrorDetails {
    /// The LLB digest of the vertex that failed.
    pub vertex: Option<String>,
    /// Places in source files, the most important first. Ranges with columns are words within the lines of those without.
    pub sources: Vec<proto::errdefs::Source>,
    /// What is wrong at each of the places, where that is more than one thing; part of the message, too.
    pub messages: Box<[String]>,
    /// What is refused, as clients look for it.
    pub refusal: Option<Box<Refusal>>,
    /// Details that only whoever told them knows, such as a frontend.
    pub foreign: Option<Box<Foreign>>,
}

/// Details of unknown types, handed on as they are.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Foreign(Vec<prost_types::Any>);

impl ErrorDetails {
    /// Adds the operation that failed, and what clients may look into. One that is too large is not told.
    pub fn add_solve(&mut self, told: &proto::errdefs::Solve) {
        if let Some(value) = solve::json(told) {
            let any = prost_types::Any { type_url: SOLVE.to_owned(), value };
            self.foreign.get_or_insert_default().0.push(any);
        }
    }

    /// The operation that failed, and what can be looked into.
    pub fn solve(&self) -> Option<proto::errdefs::Solve> {
        let foreign = &self.foreign.as_ref()?.0;
        solve::message(&foreign.iter().find(|any| any.type_url == SOLVE)?.value)
    }
}

/// Something that was asked for and is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A capability that the frontend does not know.
    Cap(String),
    /// A question that the frontend does not know.
    Subrequest(String),
    /// A source that the client's policy forbids, for these reasons in the policy's words.
    Denied(Vec<String>),
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

/// The words within the lines of each source, which is our own: BuildKit's clients take every range for a line.
const WORDS: &str = "rbuild.Words+json";

#[derive(Serialize, Deserialize)]
struct VertexJson {
    #[serde(default)]
    digest: String,
}

#[derive(Serialize, Deserialize)]
struct NameJson {
    #[serde(default)]
    name: String,
}

/// What a policy decided, as Go's encoding/json makes it of the message.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DecisionJson {
    #[serde(default)]
    action: serde_json::Value,
    #[serde(default)]
    deny_messages: Vec<MessageJson>,
}

#[derive(Serialize, Deserialize)]
struct MessageJson {
    #[serde(default)]
    message: String,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    definition: Option<DefinitionJson>,
}

/// How the file is loaded: its operations in base64, and what is said of each, which is nothing.
#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct DefinitionJson {
    def: Vec<String>,
    metadata: BTreeMap<String, serde_json::Map<String, serde_json::Value>>,
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
    let words: Vec<Vec<RangeJson>> = details.sources.iter().map(words_json).collect();
    if words.iter().any(|words| !words.is_empty()) {
        any.push(encode(WORDS, &words));
    }
    if !details.messages.is_empty() {
        any.push(encode(MESSAGES, &details.messages));
    }
    any.extend(details.refusal.iter().map(|refusal| match &**refusal {
        Refusal::Cap(name) => encode(FRONTEND_CAP, &NameJson { name: name.clone() }),
        Refusal::Subrequest(name) => encode(SUBREQUEST, &NameJson { name: name.clone() }),
        Refusal::Denied(messages) => {
            let said = |message: &String| MessageJson { message: message.clone() };
            let deny_messages = messages.iter().map(said).collect();
            encode(DECISION, &DecisionJson { action: "DENY".into(), deny_messages })
        }
    }));
    any.extend(details.foreign.iter().flat_map(|foreign| foreign.0.iter().cloned()));
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
    let (mut found, mut words) = (ErrorDetails::default(), Vec::new());
    let name = |value: &[u8]| serde_json::from_slice::<NameJson>(value).ok().map(|json| json.name);
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
            WORDS => words = serde_json::from_slice::<Vec<Vec<RangeJson>>>(&any.value).unwrap_or_default(),
            DECISION => {
                let decision = serde_json::from_slice::<DecisionJson>(&any.value);
                let messages = decision.map(|decision| decision.deny_messages).unwrap_or_default();
                let messages = messages.into_iter().map(|said| said.message).collect();
                found.refusal = Some(Box::new(Refusal::Denied(messages)));
            }
            FRONTEND_CAP => found.refusal = name(&any.value).map(|name| Box::new(Refusal::Cap(name))),
            SUBREQUEST => found.refusal = name(&any.value).map(|name| Box::new(Refusal::Subrequest(name))),
            _ => found.foreign.get_or_insert_default().0.push(any),
        }
    }
    for (source, words) in found.sources.iter_mut().zip(words) {
        source.ranges.extend(words.into_iter().map(range_message));
    }
    found
}

fn encode<T: Serialize>(type_url: &str, value: &T) -> prost_types::Any {
    let value = serde_json::to_vec(value).expect("strings and numbers always serialize");
    prost_types::Any { type_url: type_url.to_owned(), value }
}

/// Whether a range says more than lines; those of BuildKit's own frontends do not.
pub fn has_columns(range: &Range) -> bool {
    [range.start, range.end].iter().flatten().any(|p| p.character > 0)
}

/// Lines of a source that are told one by one: clients may name as many as numbers go.
const MAX_LINES: usize = 1000;

/// Places in a source, the lines first, and the words in them. Where a client names columns for want of lines, its
/// ranges are no words.
pub fn lines_and_words(source: &proto::errdefs::Source) -> (Vec<&Range>, Vec<&Range>) {
    let (words, lines): (Vec<_>, Vec<_>) = source.ranges.iter().partition(|range| has_columns(range));
    if lines.is_empty() { (words, lines) } else { (lines, words) }
}

/// A range for each line, as BuildKit tells them; one with columns as it is.
fn line_ranges(range: &Range) -> impl Iterator<Item = RangeJson> + use<> {
    let line = |p: Option<Position>| p.map_or(0, |p| p.line);
    let (first, last) = (line(range.start), line(range.end));
    let (exact, last) = match has_columns(range) {
        true => (Some(range_json(range)), i32::MIN),
        false => (None, last.max(first)),
    };
    let at = |line| PositionJson { line, character: 0 };
    let lines = (first..=last).map(move |line| RangeJson { start: at(line), end: at(line) });
    exact.into_iter().chain(lines)
}

fn range_json(range: &Range) -> RangeJson {
    let position = |p: Option<Position>| {
        p.map(|p| PositionJson { line: p.line, character: p.character }).unwrap_or_default()
    };
    RangeJson { start: position(range.start), end: position(range.end) }
}

fn words_json(source: &proto::errdefs::Source) -> Vec<RangeJson> {
    lines_and_words(source).1.into_iter().map(range_json).collect()
}

fn range_message(json: RangeJson) -> Range {
    let position = |p: PositionJson| Some(Position { line: p.line, character: p.character });
    Range { start: position(json.start), end: position(json.end) }
}

fn source_json(source: &proto::errdefs::Source) -> SourceJson {
    SourceJson {
        info: source.info.as_ref().map(|info| InfoJson {
            filename: info.filename.clone(),
            data: STANDARD.encode(&info.data),
            language: info.language.clone(),
            definition: info.definition.as_ref().map(|definition| DefinitionJson {
                def: definition.def.iter().map(|op| STANDARD.encode(op)).collect(),
                metadata: definition.metadata.keys().map(|op| (op.clone(), Default::default())).collect(),
            }),
        }),
        ranges: lines_and_words(source).0.into_iter().flat_map(line_ranges).take(MAX_LINES).collect(),
    }
}

/// Operations that are no base64 are left out: nobody has to be able to load the file.
fn definition_message(json: DefinitionJson) -> Definition {
    let def = json.def.iter().filter_map(|op| Some(STANDARD.decode(op).ok()?.into())).collect();
    let metadata = json.metadata.into_keys().map(|op| (op, OpMetadata::default())).collect();
    Definition { def, metadata, source: None }
}

fn source_message(json: SourceJson) -> Option<proto::errdefs::Source> {
    let info = json.info?;
    Some(proto::errdefs::Source {
        info: Some(proto::pb::SourceInfo {
            filename: info.filename,
            data: STANDARD.decode(&info.data).ok()?.into(),
            definition: info.definition.map(definition_message),
            language: info.language,
        }),
        ranges: json.ranges.into_iter().map(range_message).collect(),
    })
}
