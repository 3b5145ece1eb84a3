//! Looking a graph's vertices up in caches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cache::remote::{ItemId, Link};
use solver::{Digest, Edge, Graph, Op, Output, Question, VertexContext, VertexId};

use super::import::{Import, Results};
use super::keys::{Keys, local};
use crate::daemon::parts::Parts;
use crate::llb::{content_key, output_key};

/// A key in one of the graphs of one of the imports.
type Place = (usize, usize, ItemId);

/// What was found of one graph so far.
#[derive(Debug)]
pub(super) struct Looked {
    keys: Keys,
    /// By vertex and output: its keys in the caches.
    places: BTreeMap<Edge, Vec<Place>>,
    /// Which outputs of each vertex others use.
    used: Vec<BTreeSet<u32>>,
    /// How many imports were looked into.
    imports: usize,
}

impl Looked {
    pub(super) fn new(graph: &Arc<Graph>) -> Self {
        let used = graph.used_outputs([]);
        Self { keys: Keys::new(graph), places: BTreeMap::new(), used, imports: 0 }
    }

    /// The results of the outputs that are asked for, all of them or none.
    pub(super) async fn find(
        &mut self,
        parts: &Parts,
        imports: &[Arc<Import>],
        question: &Question<'_>,
        cx: &VertexContext,
    ) -> Option<Results> {
        if self.imports != imports.len() {
            self.places.clear();
            self.imports = imports.len();
        }
        let id = question.vertex;
        let known = |output: &u32| self.places.contains_key(&Edge { vertex: id, output: *output });
        if question.inputs.is_some() {
            // What stands on the vertex may be found now, too.
            let above = question.graph.standing_on(id);
            self.places.retain(|edge, _| !above[edge.vertex.index()]);
        } else if question.outputs.iter().all(known) {
            return self.results(imports, id, question.outputs);
        }
        for below in self.unknown(question.graph, id) {
            let outputs = match below == id {
                true => question.outputs.clone(),
                false => self.used[below.index()].clone(),
            };
            let inputs = question.inputs.filter(|_| below == id);
            for output in outputs {
                let edge = Edge { vertex: below, output };
                if !self.places.contains_key(&edge) {
                    let places = self.places_of(parts, imports, question, edge, inputs, cx).await;
                    self.places.insert(edge, places);
                }
            }
        }
        self.results(imports, id, question.outputs)
    }

    /// A vertex and what it stands on as far as that was not looked up yet, inputs first: below what was, all was.
    fn unknown(&self, graph: &Graph, id: VertexId) -> BTreeSet<VertexId> {
        let known = |vertex: VertexId| {
            self.used[vertex.index()].iter().all(|&output| self.places.contains_key(&Edge { vertex, output }))
        };
        let (mut todo, mut unknown) = (vec![id], BTreeSet::new());
        while let Some(vertex) = todo.pop() {
            if (vertex == id || !known(vertex)) && unknown.insert(vertex) {
                todo.extend(graph.vertex(vertex).inputs.iter().map(|e| e.vertex));
            }
        }
        unknown
    }

    /// The keys of inputs, by input and the part that is used, under which caches know an output besides its own.
    pub(super) fn others(&self, imports: &[Arc<Import>], edge: &Edge) -> Vec<(usize, String, Digest)> {
        let places = self.places.get(edge).into_iter().flatten();
        let chains = places.filter_map(|(i, j, item)| Some((imports.get(*i)?.chains().get(*j)?, *item)));
        let roots = chains.flat_map(|(chains, item)| chains.roots_of(item));
        roots.map(|(input, selector, digest)| (input, selector.to_owned(), *digest)).collect()
    }

    fn results(&self, imports: &[Arc<Import>], id: VertexId, outputs: &BTreeSet<u32>) -> Option<Results> {
        let result = |output: &u32| {
            let places = self.places.get(&Edge { vertex: id, output: *output })?;
            let results = places.iter().filter_map(|(import, chains, item)| {
                let import = &imports[*import];
                Some((import.clone(), import.chains().get(*chains)?.result(*item)?.clone()))
            });
            let newest = results.max_by_key(|(_, result)| result.made())?;
            Some((*output, newest))
        };
        outputs.iter().map(result).collect()
    }

    async fn places_of(
        &mut self,
        parts: &Parts,
        imports: &[Arc<Import>],
        question: &Question<'_>,
        edge: Edge,
        inputs: Option<&[Output]>,
        cx: &VertexContext,
    ) -> Vec<Place> {
        let graph = self.keys.graph.clone();
        let vertex = graph.vertex(edge.vertex);
        let chains = || {
            let all = imports.iter().enumerate();
            all.flat_map(|(i, import)| import.chains().iter().enumerate().map(move |(j, c)| (i, j, c)))
        };
        if matches!(vertex.op, Op::Source(_)) {
            // Of one that was not needed nothing is known.
            if question.sources[edge.vertex.index()].is_none() {
                return Vec::new();
            }
            let keys = self.keys.of_source(parts, edge.vertex, cx).await;
            let at = |(i, j, c): (usize, usize, &cache::remote::Chains)| {
                keys.iter().filter_map(|key| c.root(key)).map(|item| (i, j, item)).collect::<Vec<_>>()
            };
            return chains().flat_map(at).collect();
        }
        let Some(key) = self.keys.of_op(edge.vertex).cloned() else { return Vec::new() };
        let digest = output_key(&key.digest, edge.output);
        let knowing: Vec<_> = chains().filter(|(.., c)| c.knows(&digest)).collect();
        if knowing.is_empty() {
            return Vec::new();
        }
        if vertex.inputs.is_empty() {
            return knowing.iter().filter_map(|(i, j, c)| Some((*i, *j, c.root(&digest)?))).collect();
        }
        let mut common: Option<BTreeSet<Place>> = None;
        for (number, (from, input)) in vertex.inputs.iter().zip(&key.inputs).enumerate() {
            let by = |selector: &str| Link { input: number, selector: selector.to_owned(), digest };
            let mut found: BTreeSet<Place> = BTreeSet::new();
            for (i, j, item) in self.places.get(from).into_iter().flatten() {
                if let Some((.., c)) = knowing.iter().find(|(a, b, _)| a == i && b == j) {
                    found.extend(c.following(*item, &by(&input.selector)).map(|item| (*i, *j, item)));
                }
            }
            let given = inputs.and_then(|inputs| inputs.get(number));
            let content = given.or_else(|| local(question.sources[from.vertex.index()].as_ref()));
            if let (Some(output), true) = (content, input.content.is_some())
                && let Some(content) = self.keys.of_content(parts, edge.vertex, number, output).await
            {
                for (i, j, c) in &knowing {
                    if let Some(item) = c.root(&content_key(&content)) {
                        found.extend(c.following(item, &by("")).map(|item| (*i, *j, item)));
                    }
                }
            }
            common = Some(match common {
                Some(common) => common.intersection(&found).copied().collect(),
                None => found,
            });
        }
        common.into_iter().flatten().collect()
    }
}
