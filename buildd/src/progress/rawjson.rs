//! Progress as JSON lines: client.SolveStatus as buildx and buildctl write it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proto::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};
use serde_json::{Map, Value, json};

/// One message as one line, newline included.
pub(super) fn line(message: &StatusResponse) -> String {
    let mut object = Object::default();
    object.list("vertexes", message.vertexes.iter().map(vertex));
    object.list("statuses", message.statuses.iter().map(status));
    object.list("logs", message.logs.iter().map(log));
    object.list("warnings", message.warnings.iter().map(warning));
    format!("{}\n", object.value())
}

/// A JSON object whose empty members may be left out.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn value(self) -> Value {
        Value::Object(self.0)
    }

    fn always(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    fn text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.always(key, text);
        }
    }

    fn number(&mut self, key: &str, number: i64) {
        if number != 0 {
            self.always(key, number);
        }
    }

    fn flag(&mut self, key: &str, flag: bool) {
        if flag {
            self.always(key, true);
        }
    }

    fn time(&mut self, key: &str, time: Option<&prost_types::Timestamp>) {
        if let Some(time) = time {
            self.always(key, rfc3339(time));
        }
    }

    fn list(&mut self, key: &str, values: impl Iterator<Item = Value>) {
        let values: Vec<Value> = values.collect();
        if !values.is_empty() {
            self.always(key, values);
        }
    }
}

fn vertex(vertex: &Vertex) -> Value {
    let mut object = Object::default();
    object.text("digest", &vertex.digest);
    object.list("inputs", vertex.inputs.iter().map(|digest| digest.as_str().into()));
    object.text("name", &vertex.name);
    object.time("started", vertex.started.as_ref());
    object.time("completed", vertex.completed.as_ref());
    object.flag("cached", vertex.cached);
    object.text("error", &vertex.error);
    if let Some(group) = &vertex.progress_group {
        let mut inner = Object::default();
        inner.text("id", &group.id);
        inner.text("name", &group.name);
        inner.flag("weak", group.weak);
        object.always("progressGroup", inner.value());
    }
    object.value()
}

fn status(status: &VertexStatus) -> Value {
    let mut object = Object::default();
    object.always("id", status.id.as_str());
    object.text("vertex", &status.vertex);
    object.text("name", &status.name);
    object.number("total", status.total);
    object.always("current", status.current);
    object.always("timestamp", rfc3339(status.timestamp.as_ref().unwrap_or(&ZERO)));
    object.time("started", status.started.as_ref());
    object.time("completed", status.completed.as_ref());
    object.value()
}

fn log(log: &VertexLog) -> Value {
    let mut object = Object::default();
    object.text("vertex", &log.vertex);
    object.number("stream", log.stream);
    object.always("data", STANDARD.encode(&log.msg));
    object.always("timestamp", rfc3339(log.timestamp.as_ref().unwrap_or(&ZERO)));
    object.value()
}

fn warning(warning: &VertexWarning) -> Value {
    let mut object = Object::default();
    object.text("vertex", &warning.vertex);
    object.number("level", warning.level);
    object.text("short", &STANDARD.encode(&warning.short));
    object.list("detail", warning.detail.iter().map(|line| STANDARD.encode(line).into()));
    object.text("url", &warning.url);
    if let Some(info) = &warning.info {
        let mut inner = Object::default();
        inner.text("filename", &info.filename);
        inner.text("data", &STANDARD.encode(&info.data));
        inner.text("language", &info.language);
        object.always("sourceInfo", inner.value());
    }
    object.list(
        "range",
        warning
            .ranges
            .iter()
            .map(|range| json!({"start": position(range.start), "end": position(range.end)})),
    );
    object.value()
}

fn position(position: Option<proto::pb::Position>) -> Value {
    let position = position.unwrap_or_default();
    let mut object = Object::default();
    object.number("line", position.line.into());
    object.number("character", position.character.into());
    object.value()
}

const ZERO: prost_types::Timestamp = prost_types::Timestamp { seconds: 0, nanos: 0 };

/// RFC 3339 in UTC with as many decimals as it takes.
fn rfc3339(time: &prost_types::Timestamp) -> String {
    jiff::Timestamp::new(time.seconds, time.nanos).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_buildx_writes_it() {
        let time = Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 120_000_000 });
        let message = StatusResponse {
            vertexes: vec![Vertex {
                digest: "sha256:a".into(),
                name: "n".into(),
                started: time,
                cached: true,
                ..Default::default()
            }],
            statuses: vec![VertexStatus {
                id: "t".into(),
                vertex: "sha256:a".into(),
                timestamp: time,
                ..Default::default()
            }],
            logs: vec![VertexLog {
                vertex: "sha256:a".into(),
                stream: 1,
                msg: "hi\n".into(),
                timestamp: time,
            }],
            ..Default::default()
        };
        insta::assert_snapshot!(line(&message), @r#"{"vertexes":[{"digest":"sha256:a","name":"n","started":"2023-11-14T22:13:20.12Z","cached":true}],"statuses":[{"id":"t","vertex":"sha256:a","current":0,"timestamp":"2023-11-14T22:13:20.12Z"}],"logs":[{"vertex":"sha256:a","stream":1,"data":"aGkK","timestamp":"2023-11-14T22:13:20.12Z"}]}"#);
    }
}
