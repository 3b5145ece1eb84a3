//! What is near a path that a build does not find: names like it, and whether an ignore pattern hides it.

mod rank;

use std::collections::VecDeque;
use std::sync::Arc;

use cache::tree::{NodeId, TreePath, Trees};
use solver::pattern::PatternMatcher;
use solver::{Event, EventSink, Graph, Need, Op, Progress, VertexId};

use self::rank::nearest;
use super::blocking::blocking;
use super::chains::content;
use super::failure::Missing;
use super::locals::{LocalRequest, Locals};
use super::run::Run;

/// Names that are looked at; those near the top come first.
const LIMIT: usize = 50_000;

/// Looks for names.
#[derive(Debug, Clone)]
pub(super) struct Nearby {
    /// Directories of clients.
    pub locals: Arc<Locals>,
    /// All content trees.
    pub trees: Arc<Trees>,
}

impl Nearby {
    /// What to tell about a missing path, if anything is near.
    pub(super) async fn hint(&self, run: &Run, graph: &Arc<Graph>, missing: Missing) -> Option<String> {
        let Missing { path, input } = missing;
        let local = match &graph.vertex(input.vertex).op {
            Op::Source(source) => Some((source, source.scheme_and_ref())),
            _ => None,
        };
        let Some((source, ("local", name))) = local else {
            let heads = [input];
            let solved = run.build.solve(graph.clone(), &heads, Need::Known, Arc::new(Silence)).await;
            let output = solved.ok()?.pop()?;
            let root = content(&output).ok()?;
            let trees = self.trees.clone();
            return blocking(move || suggestion(&nearest(&path, &list(&trees, root)), "/", &[])).await;
        };
        let request = LocalRequest::new(name, &source.attrs).ok()?;
        let names = self.locals.names(&request, &run.context(Progress::new(|_| {})), LIMIT).await;
        let patterns = request.exclude;
        blocking(move || {
            let hidden = hidden_by(&patterns, &path);
            match hidden.filter(|_| names.contains(&path)) {
                Some(pattern) => Some(format!(
                    "`.dockerignore` keeps `{}` out of the context, by its pattern `{pattern}`",
                    String::from_utf8_lossy(path.as_bytes())
                )),
                None => suggestion(&nearest(&path, &names), "", &patterns),
            }
        })
        .await
    }
}

/// What was made already is only looked up: there is nothing to show.
#[derive(Debug)]
struct Silence;

impl EventSink for Silence {
    fn event(&self, _: VertexId, _: Event) {}
}

/// The pattern that leaves a path out.
fn hidden_by<'a>(patterns: &'a [String], path: &TreePath) -> Option<&'a str> {
    let hides = |list: &[String]| PatternMatcher::new(list).is_ok_and(|m| m.matches(path.as_bytes()));
    if !hides(patterns) {
        return None;
    }
    patterns.iter().rfind(|pattern| hides(std::slice::from_ref(pattern))).map(String::as_str)
}

/// A question; `root` stands before the paths.
fn suggestion(near: &[&TreePath], root: &str, patterns: &[String]) -> Option<String> {
    let said = near.iter().map(|path| {
        let shown = format!("`{root}{}`", String::from_utf8_lossy(path.as_bytes()));
        match hidden_by(patterns, path) {
            Some(pattern) => format!("{shown} (which `.dockerignore` keeps out, by its pattern `{pattern}`)"),
            None => shown,
        }
    });
    let said: Vec<String> = said.collect();
    let (last, others) = said.split_last()?;
    Some(match others {
        [] => format!("did you mean {last}?"),
        others => format!("did you mean {} or {last}?", others.join(", ")),
    })
}

/// The paths in a tree, level by level.
fn list(trees: &Trees, root: NodeId) -> Vec<TreePath> {
    let (mut paths, mut dirs) = (Vec::new(), VecDeque::from([TreePath::root()]));
    while let Some(dir) = dirs.pop_front() {
        for entry in trees.list(&root, &dir).unwrap_or_default() {
            let Ok(path) = dir.join(&entry.name) else { continue };
            if paths.len() == LIMIT {
                return paths;
            }
            if entry.node.is_dir() {
                dirs.push_back(path.clone());
            }
            paths.push(path);
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        let path = |text: &str| TreePath::clean(text.as_bytes()).expect("a path");
        let patterns = ["lib", "!lib/b", "*.key"].map(str::to_owned);
        let (a, b) = (path("lib/a"), path("lib/b"));
        assert_eq!(suggestion(&[], "", &patterns), None);
        assert_eq!(suggestion(&[&b], "/", &patterns).as_deref(), Some("did you mean `/lib/b`?"));
        assert_eq!(
            suggestion(&[&b, &a], "", &patterns).as_deref(),
            Some("did you mean `lib/b` or `lib/a` (which `.dockerignore` keeps out, by its pattern `lib`)?")
        );
        assert_eq!(hidden_by(&patterns, &path("x/y.key")), None);
        assert_eq!(hidden_by(&patterns, &path("y.key")), Some("*.key"));
        assert_eq!(hidden_by(&["[".to_owned()], &path("y")), None, "a malformed pattern hides nothing");
    }
}
