//! Spans as BuildKit keeps them with a build (`application/vnd.buildkit.otlp.json.v0`): one JSON object after the other, each
//! what Go's `tracetest.SpanStub` is. `docker buildx history trace` reads them.

use proto::otlp::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value as Any};
use proto::otlp::trace::v1::status::StatusCode;
use proto::otlp::trace::v1::{ResourceSpans, Span};
use serde_json::{Value, json};

/// All spans.
pub(super) fn text(spans: &[ResourceSpans]) -> String {
    let mut text = String::new();
    for resource in spans {
        let attributes =
            attributes(resource.resource.as_ref().map_or(&[], |resource| &resource.attributes[..]));
        for scope in &resource.scope_spans {
            for span in &scope.spans {
                let scope = library(scope.scope.as_ref(), &scope.schema_url);
                text.push_str(&format!("{:#}\n", stub(span, &attributes, &scope)));
            }
        }
    }
    text
}

fn stub(span: &Span, resource: &Value, scope: &Value) -> Value {
    let context = |trace: &[u8], span: &[u8], state: &str| {
        json!({
            "TraceID": format!("{:0>32}", hex::encode(trace)),
            "SpanID": format!("{:0>16}", hex::encode(span)),
            "TraceFlags": "01",
            "TraceState": state,
            "Remote": false,
        })
    };
    let parent = match span.parent_span_id.is_empty() {
        true => context(&[], &[], ""),
        false => context(&span.trace_id, &span.parent_span_id, ""),
    };
    let events = span.events.iter().map(|event| {
        json!({
            "Name": event.name,
            "Attributes": attributes(&event.attributes),
            "DroppedAttributeCount": event.dropped_attributes_count,
            "Time": time(event.time_unix_nano),
        })
    });
    let links = span.links.iter().map(|link| {
        json!({
            "SpanContext": context(&link.trace_id, &link.span_id, &link.trace_state),
            "Attributes": attributes(&link.attributes),
            "DroppedAttributeCount": link.dropped_attributes_count,
        })
    });
    let status = span.status.clone().unwrap_or_default();
    let code = match status.code() {
        StatusCode::Unset => "Unset",
        StatusCode::Ok => "Ok",
        StatusCode::Error => "Error",
    };
    json!({
        "Name": span.name,
        "SpanContext": context(&span.trace_id, &span.span_id, &span.trace_state),
        "Parent": parent,
        "SpanKind": span.kind,
        "StartTime": time(span.start_time_unix_nano),
        "EndTime": time(span.end_time_unix_nano),
        "Attributes": attributes(&span.attributes),
        "Events": list(events),
        "Links": list(links),
        "Status": { "Code": code, "Description": status.message },
        "DroppedAttributes": span.dropped_attributes_count,
        "DroppedEvents": span.dropped_events_count,
        "DroppedLinks": span.dropped_links_count,
        "ChildSpanCount": 0,
        "Resource": resource,
        "InstrumentationScope": scope,
        "InstrumentationLibrary": scope,
    })
}

fn library(scope: Option<&InstrumentationScope>, schema: &str) -> Value {
    let scope = scope.cloned().unwrap_or_default();
    json!({
        "Name": scope.name,
        "Version": scope.version,
        "SchemaURL": schema,
        "Attributes": attributes(&scope.attributes),
    })
}

/// Go writes an empty list as null.
fn list(values: impl Iterator<Item = Value>) -> Value {
    let values: Vec<Value> = values.collect();
    if values.is_empty() { Value::Null } else { values.into() }
}

/// Those that have a value that Go's library knows; maps and bytes are none.
fn attributes(attributes: &[KeyValue]) -> Value {
    list(attributes.iter().filter_map(|KeyValue { key, value }| {
        let (kind, value) = typed(value.as_ref()?)?;
        Some(json!({ "Key": key, "Value": { "Type": kind, "Value": value } }))
    }))
}

fn typed(value: &AnyValue) -> Option<(String, Value)> {
    let (kind, value) = match value.value.as_ref()? {
        Any::StringValue(text) => ("STRING", json!(text)),
        Any::BoolValue(yes) => ("BOOL", json!(yes)),
        Any::IntValue(number) => ("INT64", json!(number)),
        Any::DoubleValue(number) => ("FLOAT64", json!(number)),
        Any::ArrayValue(array) => {
            let all: Vec<_> = array.values.iter().filter_map(typed).collect();
            let kind = all.first().map_or("STRING", |(kind, _)| kind).to_owned();
            let values: Vec<Value> =
                all.into_iter().filter(|(other, _)| *other == kind).map(|(_, value)| value).collect();
            // A list of lists is not known either.
            return (!kind.ends_with("SLICE")).then(|| (format!("{kind}SLICE"), values.into()));
        }
        Any::KvlistValue(_) | Any::BytesValue(_) => return None,
    };
    Some((kind.to_owned(), value))
}

/// RFC 3339, from nanoseconds since 1970.
fn time(nanos: u64) -> String {
    jiff::Timestamp::from_nanosecond(nanos.into()).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use proto::otlp::common::v1::ArrayValue;
    use proto::otlp::trace::v1::ScopeSpans;

    use super::*;

    #[test]
    fn spans_in_gos_words() {
        let of = |value| Some(AnyValue { value: Some(value) });
        let array = ArrayValue { values: vec![of(Any::IntValue(1)).unwrap(), of(Any::IntValue(2)).unwrap()] };
        let attributes = [
            ("text", of(Any::StringValue("v".into()))),
            ("list", of(Any::ArrayValue(array))),
            ("bytes", of(Any::BytesValue(vec![1].into()))),
            ("nothing", None),
        ]
        .map(|(key, value)| KeyValue { key: key.to_owned(), value });
        let span = Span {
            trace_id: vec![0xab; 16].into(),
            span_id: vec![1; 8].into(),
            name: "n".into(),
            start_time_unix_nano: 1_795_180_220_000_000_001,
            attributes: attributes.to_vec(),
            ..Span::default()
        };
        let scope_spans = vec![ScopeSpans { spans: vec![span.clone(), span], ..ScopeSpans::default() }];
        let text = text(&[ResourceSpans { scope_spans, ..ResourceSpans::default() }]);
        let all: Vec<Value> =
            serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>().unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0]["SpanContext"]["TraceID"], "ab".repeat(16));
        assert_eq!(all[0]["Parent"]["SpanID"], "0".repeat(16));
        assert_eq!(all[0]["StartTime"], "2026-11-20T13:10:20.000000001Z");
        assert_eq!(all[0]["Status"]["Code"], "Unset");
        assert_eq!(all[0]["Events"], Value::Null);
        assert_eq!(
            all[0]["Attributes"],
            json!([
                { "Key": "text", "Value": { "Type": "STRING", "Value": "v" } },
                { "Key": "list", "Value": { "Type": "INT64SLICE", "Value": [1, 2] } },
            ])
        );
    }
}
