//! Why a COPY does not find its source.

use solver::op::attr;
use solver::pattern::PatternMatcher;
use solver::{Graph, Op, VertexId};

/// Says whether an ignore file keeps `path` out of the context that a copy takes it from.
pub(super) fn ignored(graph: &Graph, id: VertexId, path: &str) -> Option<String> {
    let lists = graph.vertex(id).inputs.iter().filter_map(|e| match &graph.vertex(e.vertex).op {
        Op::Source(source) => source.attrs.get(attr::EXCLUDE_PATTERNS),
        _ => None,
    });
    let path = path.trim_start_matches('/');
    let ignores =
        |patterns: &[String]| PatternMatcher::new(patterns).is_ok_and(|m| m.matches(path.as_bytes()));
    lists.filter_map(|json| serde_json::from_str::<Vec<String>>(json).ok()).find_map(|patterns| {
        if !ignores(&patterns) {
            return None;
        }
        let pattern = patterns.iter().rfind(|p| ignores(std::slice::from_ref(p)))?;
        Some(format!("`.dockerignore` keeps `{path}` out of the context, by its pattern `{pattern}`"))
    })
}
