//! Writing what a build knows as a cache.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cache::oci::Descriptor;
use cache::remote::{CREATED, CacheResult, Chains, ItemId, UNCOMPRESSED};
use solver::{Digest, Edge, ExecError, LayerId, Op, Output, Survey, VertexContext};

use super::RemoteCaches;
use super::keys::{Keys, local};
use super::request::CacheExport;
use super::target::{self, Prepared};
use crate::daemon::export::{Built, Form, LayerBlob, LayerBlobs, rfc3339};
use crate::daemon::failure::Failure;
use crate::daemon::parts::Parts;
use crate::daemon::run::Run;
use crate::llb::{content_key, output_key};

/// The keys of one result and of all it is made from, with the layers that they stand for.
#[derive(Debug, Default)]
pub(in crate::daemon) struct CacheGraph {
    /// Each after those that it follows from.
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    digest: Digest,
    /// By input: nodes, and which part of them is used.
    inputs: Vec<Vec<(usize, String)>>,
    chain: Option<Arc<[LayerId]>>,
    /// It is the result itself.
    head: bool,
}

/// Puts keys together.
struct Builder<'a> {
    parts: &'a Parts,
    caches: &'a RemoteCaches,
    survey: Survey,
    keys: Keys,
    nodes: Vec<Node>,
    roots: HashMap<Digest, usize>,
    /// By vertex and output.
    places: BTreeMap<Edge, Vec<usize>>,
}

impl CacheGraph {
    /// The keys of a result; `None` where nothing was made for it.
    ///
    /// # Errors
    /// A source that cannot be had any more, a store that cannot be read; cancellation.
    pub(in crate::daemon) async fn of(
        parts: &Parts,
        run: &Run,
        built: &Built,
    ) -> Result<Option<Arc<Self>>, Failure> {
        let Some(made) = &built.made else { return Ok(None) };
        let Some(head) = made.graph.head else { return Ok(None) };
        let survey = run.build.survey(&made.graph, &[head]).await;
        let survey = survey.map_err(|e| Failure::of_export(&e.error))?;
        let (keys, cx) = (Keys::new(&made.graph), run.context(solver::Progress::new(|_| {})));
        let mut builder = Builder {
            parts,
            caches: &run.caches,
            survey,
            keys,
            nodes: Vec::new(),
            roots: HashMap::new(),
            places: BTreeMap::new(),
        };
        builder.build(head, &built.output, &cx).await;
        Ok(Some(Arc::new(Self { nodes: builder.nodes })))
    }

    /// The layers that are part of a cache: those of the result, or of all steps.
    fn chains_of(&self, all: bool) -> BTreeSet<Arc<[LayerId]>> {
        self.nodes.iter().filter(|node| all || node.head).filter_map(|node| node.chain.clone()).collect()
    }

    /// The cache's graph, with results as far as `layers` has them.
    pub(in crate::daemon) fn chains(&self, layers: &HashMap<LayerId, LayerBlob>) -> Chains {
        let mut chains = Chains::default();
        self.add_to(&mut chains, layers);
        chains
    }

    fn add_to(&self, chains: &mut Chains, layers: &HashMap<LayerId, LayerBlob>) {
        let mut ids: Vec<Option<ItemId>> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let input = |links: &Vec<(usize, String)>| {
                links.iter().filter_map(|(at, selector)| Some((ids[*at]?, selector.clone()))).collect()
            };
            let inputs: Vec<Vec<(ItemId, String)>> = node.inputs.iter().map(input).collect();
            let result = node.chain.as_ref().and_then(|chain| result(chain, layers));
            ids.push(chains.add(node.digest, &inputs, result));
        }
    }
}

fn result(chain: &[LayerId], layers: &HashMap<LayerId, LayerBlob>) -> Option<CacheResult> {
    let blobs: Vec<&LayerBlob> = chain.iter().map(|id| layers.get(id)).collect::<Option<_>>()?;
    let created_at = rfc3339(blobs.last()?.created_ms);
    Some(CacheResult { created_at, layers: blobs.into_iter().map(described).collect() })
}

fn described(layer: &LayerBlob) -> Descriptor {
    let mut descriptor = crate::daemon::export::with_types(&layer.descriptor, true);
    descriptor.annotations = BTreeMap::from([
        (UNCOMPRESSED.to_owned(), layer.diff_id.to_string()),
        (CREATED.to_owned(), rfc3339(layer.created_ms)),
    ]);
    descriptor
}

impl Builder<'_> {
    async fn build(&mut self, head: Edge, result: &Output, cx: &VertexContext) {
        let graph = self.keys.graph.clone();
        let reachable = graph.reachable([head]);
        let used = graph.used_outputs([&head]);
        for id in graph.ids().filter(|id| reachable[id.index()]) {
            if matches!(graph.vertex(id).op, Op::Source(_)) {
                let keys = self.keys.of_source(self.parts, id, cx).await;
                let nodes = keys.into_iter().map(|key| self.root(key)).collect();
                self.places.insert(Edge { vertex: id, output: 0 }, nodes);
                continue;
            }
            for &output in &used[id.index()] {
                let edge = Edge { vertex: id, output };
                if let Some(mut node) = self.node(edge).await {
                    node.head = edge == head;
                    if node.head {
                        node.chain = Some(result.chain.clone());
                    }
                    if graph.vertex(id).meta.export_cache == Some(false) {
                        node.chain = None;
                    }
                    let place = self.push(node);
                    self.places.insert(edge, vec![place]);
                }
            }
        }
    }

    async fn node(&mut self, edge: Edge) -> Option<Node> {
        let graph = self.keys.graph.clone();
        let key = self.keys.of_op(edge.vertex)?.clone();
        // A result of another cache is of what that cache says it is of, whatever this build knows of the inputs.
        let found = self.survey.found[edge.vertex.index()];
        let mut inputs = Vec::new();
        for (number, (from, input)) in graph.vertex(edge.vertex).inputs.iter().zip(&key.inputs).enumerate() {
            let known = self.places.get(from).into_iter().flatten();
            let mut links: Vec<(usize, String)> =
                known.map(|place| (*place, input.selector.clone())).collect();
            let output = local(self.survey.sources[from.vertex.index()].as_ref())
                .cloned()
                .or_else(|| self.known(*from).filter(|output| output.content.is_some()).cloned());
            if let (Some(output), true) = (output, input.content.is_some() && !found)
                && let Some(content) = self.keys.of_content(self.parts, edge.vertex, number, &output).await
            {
                links.push((self.root(content_key(&content)), String::new()));
            }
            inputs.push(links);
        }
        let others = if found { self.caches.others(&graph, &edge).await } else { Vec::new() };
        for (input, selector, digest) in others {
            let link = (self.root(digest), selector);
            if let Some(links) = inputs.get_mut(input).filter(|links| !links.contains(&link)) {
                links.push(link);
            }
        }
        if inputs.iter().any(Vec::is_empty) {
            return None;
        }
        let chain =
            self.known(edge).filter(|output| output.local.is_none()).map(|output| output.chain.clone());
        // What stands on nothing is made again as quickly as it is fetched (as in BuildKit).
        let chain = chain.filter(|chain| !chain.is_empty() && !inputs.is_empty());
        Some(Node { digest: output_key(&key.digest, edge.output), inputs, chain, head: false })
    }

    fn known(&self, edge: Edge) -> Option<&Output> {
        self.survey.outputs[edge.vertex.index()].as_ref()?.get(&edge.output)
    }

    fn root(&mut self, digest: Digest) -> usize {
        if let Some(known) = self.roots.get(&digest) {
            return *known;
        }
        let place = self.push(Node { digest, inputs: Vec::new(), chain: None, head: false });
        self.roots.insert(digest, place);
        place
    }

    fn push(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }
}

/// Writes a cache, and gives what the client is told of it.
///
/// # Errors
/// A registry or a client that does not take it, where that is not to be ignored.
pub(in crate::daemon) async fn write(
    parts: &Parts,
    run: &Run,
    graphs: &[Arc<CacheGraph>],
    export: &CacheExport,
    cx: &VertexContext,
) -> Result<BTreeMap<String, String>, ExecError> {
    let Some(name) = target::step_name(&export.place) else { return Ok(BTreeMap::new()) };
    let step = run.teller.step(name);
    let work = async {
        let blobs = parts.exporter.layer_blobs(Form::Anywhere(export.packing), &cx.build);
        let prepare = prepared(&run.caches, &blobs, graphs, export, cx);
        let (chains, layers) = step.part("preparing build cache for export", prepare).await?;
        target::send(parts, &Prepared { chains, layers, blobs }, export, &step, cx).await
    };
    let done = work.await;
    match step.end(done) {
        Err(error) if export.ignore_error && !cx.cancel.is_cancelled() => {
            tracing::warn!(build = cx.build, "cannot write a cache: {error}");
            Ok(BTreeMap::new())
        }
        done => done,
    }
}

async fn prepared(
    caches: &RemoteCaches,
    blobs: &LayerBlobs,
    graphs: &[Arc<CacheGraph>],
    export: &CacheExport,
    cx: &VertexContext,
) -> Result<(Chains, HashMap<Digest, LayerBlob>), ExecError> {
    let mut layers = HashMap::new();
    for chain in graphs.iter().flat_map(|graph| graph.chains_of(export.all)) {
        if chain.iter().all(|id| layers.contains_key(id)) {
            continue;
        }
        // What others lend and cannot be had is as good as pruned.
        let _ = caches.keyed().bring_chain(&chain, cx).await;
        match blobs.of_chain(&chain, cx).await {
            Ok(made) => layers.extend(made.into_iter().map(|layer| (layer.id, layer))),
            // Pruned while the build ran: the cache does without it.
            Err(ExecError::Changed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let mut chains = Chains::default();
    for graph in graphs {
        graph.add_to(&mut chains, &layers);
    }
    let layers = layers.into_values().map(|layer| (layer.descriptor.digest, layer));
    Ok((chains, layers.collect()))
}
