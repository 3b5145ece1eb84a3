//! Caches that builds share in BuildKit's formats: looked into during a build, written at its end.
//!
//! Keys are BuildKit's own ([`crate::llb::op_key`]). What an import has for a vertex is a chain of layers, taken like an image that
//! was not pulled: nothing comes in before a step or an export needs it.

mod export;
mod find;
mod import;
mod keys;
mod request;
mod service;
mod target;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use solver::{Elsewhere, ExecError, Kept, Key, LayerId, Made, Output, Question, Record, VertexContext};

pub(super) use export::{CacheGraph, write};
pub(super) use import::CacheHome;
pub(super) use request::{CachePlace, exports, idle_attributes, imports_of, told_imports};
pub(super) use service::{
    ActionsCache, ActionsEntries, ActionsError, Attrs, Blob, ServiceStore, WrongAttr, azure_container,
    google_bucket, s3_bucket,
};

use super::explain::Asked;
use super::keyed_cache::KeyedCaches;
use super::parts::Parts;
use super::progress::Teller;
use find::Looked;
use import::Import;
use request::Wanted;

/// The caches that one build may look into.
pub(super) struct RemoteCaches {
    parts: Arc<Parts>,
    teller: Teller,
    /// Those that are keyed as the solver keys.
    keyed: Arc<KeyedCaches>,
    imports: Mutex<Vec<Arc<Import>>>,
    /// By the graph's address, which its own reference keeps valid.
    looked: Mutex<HashMap<usize, Arc<tokio::sync::Mutex<Looked>>>>,
    /// Results that could not be had.
    refused: Mutex<HashSet<Arc<[LayerId]>>>,
}

impl RemoteCaches {
    /// No caches yet.
    pub(super) fn new(parts: &Arc<Parts>, teller: Teller) -> Self {
        Self {
            parts: parts.clone(),
            keyed: Arc::new(KeyedCaches::new(parts, teller.clone())),
            teller,
            imports: Mutex::default(),
            looked: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// Looks into these, too, from now on.
    pub(super) fn add(&self, wanted: Vec<Wanted>) {
        let mut imports = lock(&self.imports);
        for wanted in wanted {
            match wanted {
                Wanted::Keyed(source) => self.keyed.add(source),
                Wanted::Graph(wanted) if imports.iter().any(|known| known.wanted == wanted) => {}
                Wanted::Graph(wanted) => imports.push(Arc::new(Import::new(wanted))),
            }
        }
    }

    /// Those that are keyed as the solver keys.
    pub(super) fn keyed(&self) -> &Arc<KeyedCaches> {
        &self.keyed
    }

    /// All of them, as explanations tell of them.
    pub(super) fn asked(&self) -> Vec<Asked> {
        let graphs = self.imports().into_iter().map(|import| Asked {
            name: import.name(),
            error: import.failed(),
            ..Asked::default()
        });
        self.keyed.asked().into_iter().chain(graphs).collect()
    }

    fn imports(&self) -> Vec<Arc<Import>> {
        lock(&self.imports).clone()
    }

    /// The keys of an output's inputs that caches tell besides those that this build knows.
    async fn others(
        &self,
        graph: &Arc<solver::Graph>,
        edge: &solver::Edge,
    ) -> Vec<(usize, String, solver::Digest)> {
        let imports = self.imports();
        if imports.is_empty() {
            return Vec::new();
        }
        self.looked(graph).lock().await.others(&imports, edge)
    }

    fn looked(&self, graph: &Arc<solver::Graph>) -> Arc<tokio::sync::Mutex<Looked>> {
        let key = Arc::as_ptr(graph).addr();
        let mut all = lock(&self.looked);
        all.entry(key).or_insert_with(|| Arc::new(tokio::sync::Mutex::new(Looked::new(graph)))).clone()
    }
}

impl std::fmt::Debug for RemoteCaches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteCaches").field("imports", &self.imports).finish_non_exhaustive()
    }
}

#[async_trait]
impl Elsewhere for RemoteCaches {
    async fn find(&self, question: &Question<'_>, cx: &VertexContext) -> Option<BTreeMap<u32, Output>> {
        let imports = self.imports();
        if imports.is_empty() {
            return None;
        }
        futures_util::future::join_all(imports.iter().map(|i| i.load(&self.parts, &self.teller, cx))).await;
        let looked = self.looked(question.graph);
        let results = looked.lock().await.find(&self.parts, &imports, question, cx).await?;
        let mut outputs = BTreeMap::new();
        for (output, (import, result)) in results {
            let found = import.adopt(&self.parts, &result, cx).await?;
            if lock(&self.refused).contains(&found.chain) {
                return None;
            }
            outputs.insert(output, found);
        }
        Some(outputs)
    }

    async fn fetch(&self, found: &Output, cx: &VertexContext) -> Result<Output, ExecError> {
        if found.content.is_some() && found.chain.is_empty() {
            return Ok(found.clone());
        }
        let fetched = self.parts.images.fetch_chain(&found.chain, cx).await;
        let refuse = |error| {
            lock(&self.refused).insert(found.chain.clone());
            error
        };
        let content = fetched.map_err(refuse)?.ok_or_else(|| refuse(ExecError::failed(Lost)))?;
        Ok(Output { content: Some(content), ..found.clone() })
    }

    async fn lend(&self, keys: &[Key], cx: &VertexContext) -> Vec<Option<Kept>> {
        self.keyed.lend(keys, cx).await
    }

    async fn offers(&self, record: &Record, cx: &VertexContext) -> bool {
        self.keyed.offers(record, cx)
    }

    async fn bring(&self, record: &Record, outputs: &BTreeMap<u32, Output>, cx: &VertexContext) -> bool {
        self.keyed.bring(record, outputs, cx).await
    }

    fn made(&self, made: &Made, cx: &VertexContext) {
        self.keyed.made(made, cx);
    }
}

/// A result whose layers nobody remembers.
#[derive(Debug, thiserror::Error)]
#[error("internal error: the layers of a cached result are not known any more")]
struct Lost;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
