//! Places in the form of BuildKit's `pb.Location`.

use serde::Serialize;

use crate::span::Lines;

/// A list of lines; zeros are left out, as Go's `omitempty` does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Default)]
pub struct Location {
    #[serde(rename = "sourceIndex", skip_serializing_if = "is_zero")]
    source_index: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Range {
    start: Position,
    end: Position,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Position {
    #[serde(skip_serializing_if = "is_zero")]
    line: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl Location {
    /// One range per line, as BuildKit has them.
    pub fn new(lines: Lines) -> Self {
        let range = |line| Range { start: Position { line }, end: Position { line } };
        Self { source_index: 0, ranges: lines.iter().map(range).collect() }
    }
}
