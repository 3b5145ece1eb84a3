//! The graph of a cache's keys, taken apart for looking up and for writing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use solver::Digest;

use super::config::{
    CacheConfig, ConfigChain, ConfigError, ConfigInput, ConfigLayer, ConfigRecord, ConfigResult,
};
use crate::oci::Descriptor;

/// How many layers a result may have; overlayfs takes no more (kernel, `OVL_MAX_STACK`).
const MAX_LAYERS: usize = 500;

/// A key of one [`Chains`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId(usize);

/// How a key follows from one of its inputs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// Which input of the operation.
    pub input: usize,
    /// Which part of it is used; empty is all.
    pub selector: String,
    /// The operation with its output.
    pub digest: Digest,
}

/// What a key gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheResult {
    /// RFC 3339.
    pub created_at: String,
    /// The whole file system, lowest first; none for an empty one.
    pub layers: Vec<Descriptor>,
}

impl CacheResult {
    /// When it was made; texts of times are written in several ways, whose order is none of time.
    pub fn made(&self) -> Option<jiff::Timestamp> {
        self.created_at.parse().ok()
    }
}

#[derive(Debug)]
struct Item {
    digest: Digest,
    parents: Vec<BTreeSet<(ItemId, String)>>,
    children: HashMap<Link, BTreeSet<ItemId>>,
    results: Vec<CacheResult>,
}

impl Item {
    fn newest(&self) -> Option<&CacheResult> {
        self.results.iter().max_by_key(|result| result.made())
    }
}

/// Keys, how they follow from each other, and what they gave. Free of loops.
#[derive(Debug, Default)]
pub struct Chains {
    items: Vec<Item>,
    roots: HashMap<Digest, ItemId>,
    operations: HashSet<Digest>,
}

impl Chains {
    /// The key of an operation without inputs.
    pub fn root(&self, digest: &Digest) -> Option<ItemId> {
        self.roots.get(digest).copied()
    }

    /// The keys that follow from `item`.
    pub fn following(&self, item: ItemId, link: &Link) -> impl Iterator<Item = ItemId> + '_ {
        self.items[item.0].children.get(link).into_iter().flatten().copied()
    }

    /// Whether any key is of this operation.
    pub fn knows(&self, digest: &Digest) -> bool {
        self.operations.contains(digest)
    }

    /// What a key gave; the newest that is known.
    pub fn result(&self, item: ItemId) -> Option<&CacheResult> {
        self.items[item.0].newest()
    }

    /// The keys without inputs that `item` follows from: by which input, which part of it, and the key.
    pub fn roots_of(&self, item: ItemId) -> impl Iterator<Item = (usize, &str, &Digest)> {
        let parents = self.items[item.0].parents.iter().enumerate();
        let all = parents.flat_map(move |(i, links)| {
            links.iter().map(move |(id, selector)| (i, selector, &self.items[id.0]))
        });
        all.filter(|(.., parent)| parent.parents.is_empty())
            .map(|(input, selector, parent)| (input, selector.as_str(), &parent.digest))
    }

    /// Adds a key that follows from `inputs`, of which each names at least one key, or more to what is known of it.
    ///
    /// `None` where an input is without keys.
    pub fn add(
        &mut self,
        digest: Digest,
        inputs: &[Vec<(ItemId, String)>],
        result: Option<CacheResult>,
    ) -> Option<ItemId> {
        if inputs.iter().any(Vec::is_empty) {
            return None;
        }
        let known = match inputs {
            [] => self.root(&digest),
            inputs => self.common(&digest, inputs),
        };
        let id = known.unwrap_or_else(|| {
            let id = ItemId(self.items.len());
            let parents = vec![BTreeSet::new(); inputs.len()];
            self.items.push(Item { digest, parents, children: HashMap::new(), results: Vec::new() });
            id
        });
        self.operations.insert(digest);
        if inputs.is_empty() {
            self.roots.insert(digest, id);
        }
        let item = &mut self.items[id.0];
        item.results.extend(result.filter(|r| !item.results.contains(r)));
        let above = if known.is_some() { self.above(id) } else { HashSet::new() };
        for (input, links) in inputs.iter().enumerate() {
            for (source, selector) in links {
                if !above.contains(source) {
                    let link = Link { input, selector: selector.clone(), digest };
                    self.items[source.0].children.entry(link).or_default().insert(id);
                    self.items[id.0].parents[input].insert((*source, selector.clone()));
                }
            }
        }
        Some(id)
    }

    /// The key that follows from one of each input's keys.
    fn common(&self, digest: &Digest, inputs: &[Vec<(ItemId, String)>]) -> Option<ItemId> {
        let mut found: Option<BTreeSet<ItemId>> = None;
        for (input, links) in inputs.iter().enumerate() {
            let mut next = BTreeSet::new();
            for (source, selector) in links {
                let link = Link { input, selector: selector.clone(), digest: *digest };
                next.extend(self.following(*source, &link));
            }
            found = Some(match found {
                Some(found) => found.intersection(&next).copied().collect(),
                None => next,
            });
        }
        found?.into_iter().next()
    }

    /// A key and all that follow from it.
    fn above(&self, id: ItemId) -> HashSet<ItemId> {
        let (mut found, mut todo) = (HashSet::new(), vec![id]);
        while let Some(id) = todo.pop() {
            if found.insert(id) {
                todo.extend(self.items[id.0].children.values().flatten().copied());
            }
        }
        found
    }

    /// The graph that a config describes. Results with layers that `layers` does not describe are left out.
    ///
    /// # Errors
    /// Indexes that lead nowhere, loops.
    pub fn parse(config: &CacheConfig, layers: &BTreeMap<Digest, Descriptor>) -> Result<Self, ConfigError> {
        let mut chains = Self::default();
        let mut made: Vec<Option<ItemId>> = vec![None; config.records.len()];
        for number in in_order(config)? {
            let record = &config.records[number];
            let digest = record.digest.ok_or(ConfigError::Incomplete(number))?;
            let input = |links: &Vec<ConfigInput>| {
                let one = |link: &ConfigInput| Some((made[link.link as usize]?, link.selector.clone()));
                links.iter().filter_map(one).collect()
            };
            let inputs: Vec<Vec<(ItemId, String)>> = record.inputs.iter().map(input).collect();
            let id = chains.add(digest, &inputs, None).ok_or(ConfigError::Incomplete(number))?;
            for result in &record.results {
                let down = down_from(config, result.layer)?;
                chains.note(id, &down, &result.created_at, config, layers);
            }
            for chain in record.chains.iter().filter(|chain| (1..=MAX_LAYERS).contains(&chain.layers.len())) {
                let indexes = chain.layers.iter().map(|i| index("layer", *i, config.layers.len()));
                let indexes = indexes.collect::<Result<Vec<_>, _>>()?;
                chains.note(id, &indexes, &chain.created_at, config, layers);
            }
            made[number] = Some(id);
        }
        Ok(chains)
    }

    fn note(
        &mut self,
        id: ItemId,
        indexes: &[usize],
        created_at: &str,
        config: &CacheConfig,
        layers: &BTreeMap<Digest, Descriptor>,
    ) {
        let described = indexes.iter().map(|i| layers.get(&config.layers[*i].blob).cloned());
        let Some(layers) = described.collect::<Option<Vec<_>>>() else { return };
        let result = CacheResult { created_at: created_at.to_owned(), layers };
        let item = &mut self.items[id.0];
        // Only the newest is ever asked for.
        if item.results.first().is_none_or(|known| known.made() < result.made()) {
            item.results = vec![result];
        }
    }

    /// The config of this graph, the same for the same graph, and its layers in the config's order, each once.
    pub fn marshal(&self) -> (CacheConfig, Vec<Descriptor>) {
        let mut blobs: BTreeMap<Vec<Digest>, &Descriptor> = BTreeMap::new();
        for item in &self.items {
            let Some(result) = item.newest() else { continue };
            let digests: Vec<Digest> = result.layers.iter().map(|layer| layer.digest).collect();
            for (i, layer) in result.layers.iter().enumerate() {
                blobs.insert(digests[..=i].to_vec(), layer);
            }
        }
        let mut sorted: Vec<&Vec<Digest>> = blobs.keys().collect();
        sorted.sort_by(|a, b| (a.last(), a).cmp(&(b.last(), b)));
        let numbers: HashMap<&[Digest], i64> =
            sorted.iter().enumerate().map(|(i, chain)| (chain.as_slice(), i as i64)).collect();
        let layer = |chain: &&Vec<Digest>| {
            let (blob, below) = chain.split_last()?;
            let parent = numbers.get(below).copied().unwrap_or(-1);
            Some(ConfigLayer { blob: *blob, parent, annotations: None })
        };
        let layers = sorted.iter().filter_map(layer).collect();
        let records = self.records(&numbers);
        let (mut descriptors, mut seen) = (Vec::new(), HashSet::new());
        for chain in &sorted {
            if let Some(descriptor) = blobs.get(*chain).filter(|d| seen.insert(d.digest)) {
                descriptors.push((*descriptor).clone());
            }
        }
        (CacheConfig { layers, records }, descriptors)
    }

    fn records(&self, layers: &HashMap<&[Digest], i64>) -> Vec<ConfigRecord> {
        // Items were added after what they follow from, which is an order already; the digests make it independent of who was first.
        let depth = self.depths();
        let mut order: Vec<usize> = (0..self.items.len()).collect();
        order.sort_by_key(|i| (depth[*i], self.items[*i].digest, *i));
        let mut numbers = vec![0; self.items.len()];
        order.iter().enumerate().for_each(|(number, i)| numbers[*i] = number as i64);
        let record = |i: &usize| {
            let item = &self.items[*i];
            let input = |links: &BTreeSet<(ItemId, String)>| {
                let mut links: Vec<ConfigInput> = links
                    .iter()
                    .map(|(source, selector)| ConfigInput {
                        selector: selector.clone(),
                        link: numbers[source.0],
                    })
                    .collect();
                links.sort_by(|a, b| (a.link, &a.selector).cmp(&(b.link, &b.selector)));
                links
            };
            let result = item.newest().and_then(|result| {
                let digests: Vec<Digest> = result.layers.iter().map(|layer| layer.digest).collect();
                let layer = *layers.get(digests.as_slice())?;
                Some(ConfigResult { layer, created_at: result.created_at.clone() })
            });
            ConfigRecord {
                results: result.into_iter().collect(),
                chains: Vec::new(),
                digest: Some(item.digest),
                inputs: item.parents.iter().map(input).collect(),
            }
        };
        order.iter().map(record).collect()
    }

    /// By item: how many keys are below it at most.
    fn depths(&self) -> Vec<usize> {
        let mut depth = vec![0; self.items.len()];
        let mut todo: Vec<usize> = (0..self.items.len()).collect();
        while let Some(i) = todo.pop() {
            for child in self.items[i].children.values().flatten() {
                if depth[child.0] <= depth[i] {
                    depth[child.0] = depth[i] + 1;
                    todo.push(child.0);
                }
            }
        }
        depth
    }
}

/// The config for an image's own config: the records alone, with layers counted as the image has them. Results that are not
/// made of these layers are left out.
pub(super) fn for_layers(config: &CacheConfig, image: &[Digest]) -> Vec<ConfigRecord> {
    let mut records = config.records.clone();
    for record in &mut records {
        for result in std::mem::take(&mut record.results) {
            let Ok(down) = down_from(config, result.layer) else { continue };
            let blobs: Vec<Digest> = down.iter().map(|i| config.layers[*i].blob).collect();
            let at = |blob: &Digest| image.iter().position(|layer| layer == blob).map(|i| i as i64);
            let Some(places) = blobs.iter().map(at).collect::<Option<Vec<_>>>() else { continue };
            if image.starts_with(&blobs) {
                record.results.push(ConfigResult { layer: blobs.len() as i64 - 1, ..result });
            } else {
                record.chains.push(ConfigChain { layers: places, created_at: result.created_at });
            }
        }
    }
    records
}

/// Layer indexes from the lowest one up to `top`.
fn down_from(config: &CacheConfig, top: i64) -> Result<Vec<usize>, ConfigError> {
    let mut down = vec![index("layer", top, config.layers.len())?];
    let mut at = config.layers[down[0]].parent;
    while at != -1 {
        let layer = index("layer", at, config.layers.len())?;
        if down.len() >= config.layers.len().min(MAX_LAYERS) {
            return Err(ConfigError::Loop { what: "layer", index: top });
        }
        down.push(layer);
        at = config.layers[layer].parent;
    }
    down.reverse();
    Ok(down)
}

/// The records' numbers, inputs before what follows from them.
fn in_order(config: &CacheConfig) -> Result<Vec<usize>, ConfigError> {
    let count = config.records.len();
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut open = vec![0usize; count];
    for (number, record) in config.records.iter().enumerate() {
        for link in record.inputs.iter().flatten() {
            users[index("record", link.link, count)?].push(number);
            open[number] += 1;
        }
    }
    let mut order: Vec<usize> = (0..count).filter(|i| open[*i] == 0).collect();
    let mut done = 0;
    while let Some(&number) = order.get(done) {
        done += 1;
        for user in &users[number] {
            open[*user] -= 1;
            if open[*user] == 0 {
                order.push(*user);
            }
        }
    }
    match open.iter().position(|left| *left > 0) {
        Some(number) => Err(ConfigError::Loop { what: "record", index: number as i64 }),
        None => Ok(order),
    }
}

fn index(what: &'static str, index: i64, count: usize) -> Result<usize, ConfigError> {
    usize::try_from(index).ok().filter(|i| *i < count).ok_or(ConfigError::Index { what, index })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(name: &str) -> Descriptor {
        Descriptor::of("application/vnd.oci.image.layer.v1.tar+gzip", name.as_bytes())
    }

    fn result(layers: &[&str]) -> Option<CacheResult> {
        let layers = layers.iter().map(|name| blob(name)).collect();
        Some(CacheResult { created_at: "2026-01-02T03:04:05Z".into(), layers })
    }

    fn op(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn plain(id: ItemId) -> (ItemId, String) {
        (id, String::new())
    }

    /// base → run → copy, and copy again by what its second input contains.
    fn sample() -> Chains {
        let mut chains = Chains::default();
        let base = chains.add(op("base"), &[], None).unwrap();
        let run = chains.add(op("run"), &[vec![plain(base)]], result(&["b", "r"])).unwrap();
        let content = chains.add(op("content"), &[], None).unwrap();
        chains.add(op("copy"), &[vec![plain(run)], vec![plain(content)]], result(&["b", "r", "c"])).unwrap();
        chains
    }

    fn described(layers: Vec<Descriptor>) -> BTreeMap<Digest, Descriptor> {
        layers.into_iter().map(|layer| (layer.digest, layer)).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let (config, layers) = sample().marshal();
        assert_eq!((config.records.len(), layers.len()), (4, 3));
        let json = serde_json::to_string(&config).unwrap();
        assert!(json.contains(r#""parent":-1"#) && !json.contains(r#""parent":0"#), "{json}");
        let config: CacheConfig = serde_json::from_str(&json).unwrap();
        let read = Chains::parse(&config, &described(layers)).unwrap();
        assert_eq!(read.marshal().0, config);
        let base = read.root(&op("base")).unwrap();
        let link = |name, input| Link { input, selector: String::new(), digest: op(name) };
        let run = read.following(base, &link("run", 0)).next().unwrap();
        assert_eq!(read.result(run).unwrap().layers, [blob("b"), blob("r")]);
        let content = read.root(&op("content")).unwrap();
        let copy = read.following(content, &link("copy", 1)).next().unwrap();
        assert_eq!(read.following(run, &link("copy", 0)).next(), Some(copy));
        assert_eq!(read.result(copy).unwrap().layers.len(), 3);
    }

    #[test]
    fn times_are_compared_as_times() {
        let made = |text: &str| CacheResult { created_at: text.to_owned(), layers: Vec::new() }.made();
        let order = [
            "no time",
            "0001-01-01T00:00:00Z",
            "2026-01-02T03:04:05.12Z",
            "2026-01-02T03:04:05.123Z",
            "2026-01-02T04:04:06+01:00",
            "2026-01-02T03:04:07Z",
        ];
        assert!(order.is_sorted_by_key(|text| made(text)), "{:?}", order.map(made));
        assert_eq!(made(order[4]), made("2026-01-02T03:04:06Z"));
    }

    #[test]
    fn the_order_of_adding_does_not_show() {
        let mut chains = Chains::default();
        let content = chains.add(op("content"), &[], None).unwrap();
        let base = chains.add(op("base"), &[], None).unwrap();
        let run = chains.add(op("run"), &[vec![plain(base)]], result(&["b", "r"])).unwrap();
        let copied = result(&["b", "r", "c"]);
        chains.add(op("copy"), &[vec![plain(run)], vec![plain(content)]], copied).unwrap();
        assert_eq!(chains.marshal(), sample().marshal());
    }

    #[test]
    fn a_key_is_united_with_itself() {
        let mut chains = sample();
        let base = chains.root(&op("base")).unwrap();
        let before = chains.items.len();
        let again = chains.add(op("run"), &[vec![plain(base)]], result(&["b", "x"])).unwrap();
        assert_eq!(chains.items.len(), before);
        assert_eq!(chains.items[again.0].results.len(), 2);
        // What follows from a key is none of its inputs, whatever is said.
        let copy = chains.add(op("copy"), &[vec![plain(again)], vec![plain(base)]], None);
        assert!(copy.is_some());
        assert!(chains.add(op("nothing"), &[vec![]], None).is_none());
    }

    #[test]
    fn bad_configs_are_refused() {
        let parse = |json: &str| {
            let config = serde_json::from_str(json).map_err(ConfigError::from)?;
            Chains::parse(&config, &BTreeMap::new())
        };
        let d = Digest::of(b"x");
        for (config, want) in [
            ("7".to_owned(), "malformed cache config"),
            (r#"{"records":[{}]}"#.to_owned(), "record 0 of the cache config is incomplete"),
            (
                format!(r#"{{"records":[{{"digest":"{d}","inputs":[[]]}}]}}"#),
                "record 0 of the cache config is incomplete",
            ),
            (
                format!(r#"{{"records":[{{"digest":"{d}","inputs":[[{{"link":7}}]]}}]}}"#),
                "the cache config has no record 7",
            ),
            (
                format!(r#"{{"records":[{{"digest":"{d}","inputs":[[{{"link":0}}]]}}]}}"#),
                "record 0 of the cache config leads to itself",
            ),
            (
                format!(r#"{{"records":[{{"digest":"{d}","layers":[{{"layer":3}}]}}]}}"#),
                "the cache config has no layer 3",
            ),
            (
                format!(
                    r#"{{"layers":[{{"blob":"{d}"}}],"records":[{{"digest":"{d}","layers":[{{"layer":0}}]}}]}}"#
                ),
                "layer 0 of the cache config leads to itself",
            ),
        ] {
            assert_eq!(parse(&config).unwrap_err().to_string(), want, "{config}");
        }
    }
}
