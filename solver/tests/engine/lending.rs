//! Records that others lend to one build.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use solver::*;
use tokio_util::sync::CancellationToken;

use super::chain;
use super::fake::*;

/// Lends what another machine has on record, with its layers.
#[derive(Default)]
struct Lender {
    records: HashMap<Key, Kept>,
    worker: Arc<FakeWorker>,
    /// Cannot give the layers of what has this name.
    refuses: Mutex<HashSet<String>>,
    brought: Mutex<Vec<LayerId>>,
    asked: Mutex<Vec<usize>>,
    made: Mutex<Vec<Made>>,
}

#[async_trait]
impl Elsewhere for Lender {
    async fn find(&self, _: &Question<'_>, _: &VertexContext) -> Option<BTreeMap<u32, Output>> {
        None
    }

    async fn fetch(&self, found: &Output, _: &VertexContext) -> Result<Output, ExecError> {
        Ok(found.clone())
    }

    async fn lend(&self, keys: &[Key], _: &VertexContext) -> Vec<Option<Kept>> {
        self.asked.lock().unwrap().push(keys.len());
        keys.iter().map(|key| self.records.get(key).cloned()).collect()
    }

    async fn offers(&self, record: &Record, _: &VertexContext) -> bool {
        let refused = self.refuses.lock().unwrap();
        !layers(record).iter().any(|layer| refused.contains(&layer.hex()))
    }

    async fn bring(&self, record: &Record, outputs: &BTreeMap<u32, Output>, cx: &VertexContext) -> bool {
        assert_eq!(outputs[&0].chain.last(), layers(record).last());
        if !self.offers(record, cx).await {
            return false;
        }
        self.brought.lock().unwrap().extend(layers(record));
        self.worker.layers.lock().unwrap().extend(layers(record));
        true
    }

    fn made(&self, made: &Made, _: &VertexContext) {
        self.made.lock().unwrap().push(made.clone());
    }
}

fn layers(record: &Record) -> Vec<LayerId> {
    record.outputs.values().filter_map(|output| output.layer).collect()
}

/// A machine that has built `graph`, and a machine that knows nothing, with who lends it what the first one has.
async fn two(graph: &Arc<Graph>) -> (World, World, Arc<Lender>) {
    let (one, two) = (World::new(4), World::new(4));
    one.build(graph).await.0.unwrap();
    let records = one.records.map.lock().unwrap().clone();
    let lender = Arc::new(Lender { records, worker: two.worker.clone(), ..Lender::default() });
    (one, two, lender)
}

async fn build(w: &World, g: &Arc<Graph>, lender: &Arc<Lender>, need: Need) -> Output {
    let told = Arc::<Told>::default();
    let build = w.engine.begin("b", "s", CancellationToken::new(), Some(lender.clone()));
    build.solve(g.clone(), &[g.head.unwrap()], need, told).await.unwrap().remove(0)
}

#[tokio::test]
async fn what_is_lent_is_asked_for_at_once_and_comes_in_when_it_is_needed() {
    let g = chain(&["a", "b", "c"]);
    let (one, two, lender) = two(&g).await;
    let there = one.build(&g).await.0.unwrap();
    let known = build(&two, &g, &lender, Need::Available).await;
    assert_eq!((known.chain, known.content), (there.chain.clone(), there.content));
    assert_eq!(*lender.asked.lock().unwrap(), [3]);
    assert_eq!(*lender.brought.lock().unwrap(), []);
    let present = build(&two, &g, &lender, Need::Present).await;
    assert_eq!(present.chain, there.chain);
    assert_eq!(lender.brought.lock().unwrap().len(), 3);
    assert_eq!(two.worker.runs(), [] as [&str; 0]);
    // Another build, which asks nobody, believes nothing of it.
    two.build(&g).await.0.unwrap();
    assert_eq!(two.worker.runs(), ["a", "b", "c"]);
}

#[tokio::test]
async fn what_stands_on_it_runs_and_is_found_by_content_only() {
    let (_, two, lender) = two(&chain(&["a", "b"])).await;
    let g = chain(&["a", "b", "d"]);
    build(&two, &g, &lender, Need::Available).await;
    assert_eq!(two.worker.runs(), ["d"]);
    let made = lender.made.lock().unwrap().clone();
    assert_eq!(made.len(), 1);
    assert!(made[0].in_result && made[0].content.is_some() && made[0].definition.is_some());
    // The others of this machine have to find out themselves what `d` stands on; here it is the same.
    assert_eq!(two.records.map.lock().unwrap().len(), 1);
    two.build(&g).await.0.unwrap();
    assert_eq!(two.worker.runs(), ["a", "b", "d"]);
}

#[tokio::test]
async fn what_cannot_be_had_is_made() {
    let g = chain(&["a", "random b", "c"]);
    let (one, two, lender) = two(&g).await;
    let there = one.build(&g).await.0.unwrap();
    lender.refuses.lock().unwrap().insert(there.chain[2].hex());
    let here = build(&two, &g, &lender, Need::Present).await;
    assert_eq!(
        two.worker.runs(),
        ["c", "random b"],
        "what `random b` gave is another thing, so `c` runs on that"
    );
    assert_eq!(here.chain[..2], there.chain[..2]);
    assert_ne!(here.content, there.content);
    assert_eq!(lender.made.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn forced_steps_are_not_lent() {
    let mut g = G::default();
    let base = g.source("img://base");
    let a = g.run("a", &[base]);
    let b = g.run_uncached("b", &[a]);
    let g = g.head(b);
    let (_, two, lender) = two(&g).await;
    build(&two, &g, &lender, Need::Available).await;
    assert_eq!(two.worker.runs(), ["b"]);
}

#[tokio::test]
async fn equal_contents_are_found_in_another_way() {
    let (_, two, lender) = two(&chain(&["a out=x", "b"])).await;
    build(&two, &chain(&["a2 out=x", "b"]), &lender, Need::Available).await;
    assert_eq!(two.worker.runs(), ["a2 out=x"]);
}

/// Steps of one definition give different results on different machines: those of one are no good on those of another.
#[tokio::test]
async fn results_of_different_machines_are_not_mixed() {
    let g = chain(&["random a", "b"]);
    let (one, two, lender) = two(&g).await;
    let there = one.build(&g).await.0.unwrap();
    // Of its own this machine has another `a`; so the other one's `b` does not fit.
    two.build(&chain(&["z"])).await.0.unwrap();
    two.build(&chain(&["random a"])).await.0.unwrap();
    let here = build(&two, &g, &lender, Need::Present).await;
    assert_eq!(two.worker.runs(), ["b", "random a", "z"]);
    assert_ne!(here.content, there.content);
    assert_eq!(lender.made.lock().unwrap().len(), 1);
}
