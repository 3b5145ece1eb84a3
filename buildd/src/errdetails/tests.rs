//! Details, from one end to the other.

use super::*;

#[test]
fn round_trip() {
    let position = |line| Some(proto::pb::Position { line, character: 0 });
    let mut sent = ErrorDetails {
        vertex: Some("sha256:ab".into()),
        sources: vec![proto::errdefs::Source {
            info: Some(proto::pb::SourceInfo {
                filename: "Dockerfile".into(),
                data: "FROM scratch\n".into(),
                definition: Some(Definition {
                    def: vec!["op".into()],
                    metadata: [("sha256:cd".to_owned(), OpMetadata::default())].into(),
                    source: None,
                }),
                language: "Dockerfile".into(),
            }),
            ranges: vec![
                Range { start: position(1), end: position(1) },
                Range { start: position(2), end: position(2) },
                Range { start: position(1), end: Some(Position { line: 1, character: 4 }) },
            ],
        }],
        refusal: Some(Box::new(Refusal::Subrequest("x".into()))),
        messages: ["exit code: 1".into()].into(),
        foreign: Some(Box::new(Foreign(vec![prost_types::Any {
            type_url: "example.com/own".into(),
            value: b"x".to_vec(),
        }]))),
    };
    let solve = proto::errdefs::Solve {
        input_i_ds: vec!["input".into(), String::new()],
        mount_i_ds: vec!["mount".into()],
        op: Some(proto::pb::Op {
            op: Some(proto::pb::op::Op::Exec(proto::pb::ExecOp {
                security: proto::pb::SecurityMode::Insecure.into(),
                ..proto::pb::ExecOp::default()
            })),
            ..proto::pb::Op::default()
        }),
        description: [("llb.customname".to_owned(), "RUN false".to_owned())].into(),
        subject: Some(proto::errdefs::solve::Subject::Cache(proto::errdefs::ContentCache { index: 1 })),
    };
    sent.add_solve(&solve);
    assert_eq!(sent.solve(), Some(solve));
    let denied = ErrorDetails {
        refusal: Some(Box::new(Refusal::Denied(vec!["not that one".into()]))),
        ..ErrorDetails::default()
    };
    assert_eq!(details(&status(Code::Unknown, "x", &denied)), denied);
    let status = status(Code::Unknown, "exit code: 1", &sent);
    assert_eq!(status.message(), "exit code: 1");
    assert_eq!(details(&status), sent);
}

#[test]
fn columns_of_a_client_without_lines() {
    let range = Range { start: Some(Position { line: 3, character: 1 }), end: Some(Position::default()) };
    let source = proto::errdefs::Source { info: Some(Default::default()), ranges: vec![range] };
    let sent = ErrorDetails { sources: vec![source], ..ErrorDetails::default() };
    let status = status(Code::Unknown, "x", &sent);
    assert_eq!(details(&status).sources[0].ranges, [range]);
    let full = proto::rpc::Status::decode(status.details()).unwrap();
    assert_eq!(full.details.len(), 1, "no words");
    let json: serde_json::Value = serde_json::from_slice(&full.details[0].value).unwrap();
    assert_eq!(json["ranges"][0]["start"], serde_json::json!({"line": 3, "character": 1}));
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
fn lines_beyond_any_file_cost_nothing() {
    let line = |line| Some(Position { line, character: 0 });
    let range = Range { start: line(1), end: line(i32::MAX) };
    let source = proto::errdefs::Source { info: Some(Default::default()), ranges: vec![range; 10] };
    let sent = ErrorDetails { sources: vec![source], ..ErrorDetails::default() };
    assert_eq!(details(&status(Code::Unknown, "x", &sent)).sources[0].ranges.len(), MAX_LINES);
}

#[test]
fn no_details_is_fine() {
    assert_eq!(details(&Status::unknown("x")), ErrorDetails::default());
}
