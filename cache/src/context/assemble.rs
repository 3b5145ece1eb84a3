//! From what the threads found to a content tree, and back to the stat cache.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::error::ContextError;
use super::listing::{Item, ItemKind, Listing};
use super::local::WalkStats;
use super::queue::Found;
use super::stat_cache::{self, DirKey};
use super::walk::WalkRequest;
use crate::tree::codec::{Child, Contents, DirNode};
use crate::tree::{FileDigest, Kind, Node, NodeId, TreePath, Trees};

/// Puts the pieces together, bottom up, and stores what is new.
pub(super) fn assemble(
    found: Vec<Found>,
    request: &WalkRequest<'_>,
) -> Result<(NodeId, WalkStats), ContextError> {
    let (mut listings, values, hashed) = merge(found);
    if !values.is_empty() {
        request.stat_cache.put(values)?;
    }
    let groups = link_groups(&listings);
    let mut stats = WalkStats { hashed, ..WalkStats::default() };
    let mut nodes = Vec::new();
    let mut contents: Vec<Option<(Contents, bool)>> = vec![None; listings.len()];
    // A directory's listing has a lower index than those of its children.
    for index in (0..listings.len()).rev() {
        let Some(listing) = listings[index].take() else { continue };
        let node = dir_node(listing, &contents, &groups, &mut stats);
        let (sealed, bytes) = node.seal();
        contents[index] = Some((sealed, node.children.is_empty()));
        if sealed.id != Trees::empty() {
            nodes.push((sealed.id, bytes));
        }
    }
    let root = contents[0].map_or(Trees::empty(), |(sealed, _)| sealed.id);
    // A stored root stands for all below it: an unchanged context writes nothing. Once a node was missed, storing all
    // again is what heals.
    if !request.trees.trusts_roots() || !request.trees.contains(&root)? {
        request.trees.store(nodes)?;
    }
    Ok((root, stats))
}

type Merged = (Vec<Option<Listing>>, Vec<(DirKey, Bytes)>, u64);

/// Sorts listings by index, fills in digests, and makes new values for the stat cache.
fn merge(found: Vec<Found>) -> Merged {
    let len = found.iter().flat_map(|f| &f.listings).map(|(index, _)| index + 1).max().unwrap_or(0);
    let mut listings: Vec<Option<Listing>> = Vec::new();
    listings.resize_with(len.max(1), || None);
    let (mut results, mut changed) = (Vec::new(), Vec::new());
    for found in found {
        for (index, listing) in found.listings {
            listings[index] = Some(listing);
        }
        results.extend(found.hashed);
    }
    let hashed = results.len() as u64;
    let mut unsettled: HashMap<usize, HashSet<usize>> = HashMap::new();
    for result in results {
        let Some(listing) = &mut listings[result.listing] else { continue };
        let item = &mut listing.items[result.item];
        match result.hashed {
            Some(hashed) => {
                item.kind = ItemKind::File { digest: Some(hashed.digest) };
                item.state = hashed.state;
                if hashed.settled {
                    changed.push(result.listing);
                } else {
                    unsettled.entry(result.listing).or_default().insert(result.item);
                }
            }
            None => item.kind = ItemKind::Gone,
        }
    }
    changed.sort_unstable();
    changed.dedup();
    let none = HashSet::new();
    let value = |index: &usize| {
        let listing = listings[*index].as_ref()?;
        let skip = unsettled.get(index).unwrap_or(&none);
        Some((listing.key, cache_value(listing, skip)))
    };
    let values = changed.iter().filter_map(value).collect();
    (listings, values, hashed)
}

fn cache_value(listing: &Listing, skip: &HashSet<usize>) -> Bytes {
    let keep = |(index, item): (usize, &Item)| match item.kind {
        ItemKind::File { digest: Some(digest) } if !skip.contains(&index) => Some((item.state, digest)),
        _ => None,
    };
    let mut files: Vec<_> = listing.items.iter().enumerate().filter_map(keep).collect();
    let live = files.len();
    stat_cache::encode(&mut files, &listing.known, live)
}

/// By device and inode: the smallest path of each file with several names in the context.
fn link_groups(listings: &[Option<Listing>]) -> HashMap<(u64, u64), TreePath> {
    let mut groups: HashMap<(u64, u64), (TreePath, u32)> = HashMap::new();
    for listing in listings.iter().flatten() {
        for item in &listing.items {
            if item.nlink < 2 || matches!(item.kind, ItemKind::Dir { .. } | ItemKind::Gone) {
                continue;
            }
            let path = listing.path.child(&item.name);
            let group = groups.entry((item.dev, item.state.ino)).or_insert_with(|| (path.clone(), 0));
            group.1 += 1;
            if path < group.0 {
                group.0 = path;
            }
        }
    }
    groups.into_iter().filter(|(_, group)| group.1 > 1).map(|(key, group)| (key, group.0)).collect()
}

fn dir_node(
    listing: Listing,
    contents: &[Option<(Contents, bool)>],
    groups: &HashMap<(u64, u64), TreePath>,
    stats: &mut WalkStats,
) -> DirNode {
    let mut children = Vec::with_capacity(listing.items.len());
    for item in listing.items {
        let (kind, below) = match item.kind {
            ItemKind::Dir { listing, wanted } => match contents.get(listing).copied().flatten() {
                Some((below, empty)) if wanted || !empty => (Kind::Dir, Some(below)),
                _ => continue,
            },
            ItemKind::File { digest } => (file_kind(item.state.size, digest), None),
            ItemKind::Symlink { target } => (Kind::Symlink { target }, None),
            ItemKind::CharDevice(major, minor) => (Kind::CharDevice { major, minor }, None),
            ItemKind::BlockDevice(major, minor) => (Kind::BlockDevice { major, minor }, None),
            ItemKind::Fifo => (Kind::Fifo, None),
            ItemKind::Socket => (file_kind(0, Some(FileDigest::of(b""))), None),
            ItemKind::Gone => continue,
        };
        let link_group =
            groups.get(&(item.dev, item.state.ino)).filter(|_| item.nlink > 1 && below.is_none()).cloned();
        stats.entries += 1;
        // A file with several names is counted at the smallest of them.
        if let Kind::File { size, .. } = kind
            && link_group.as_ref().is_none_or(|first| *first == listing.path.child(&item.name))
        {
            stats.bytes += size;
        }
        let mode = if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { item.mode };
        let node = Node {
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Some(item.state.mtime),
            xattrs: Vec::new(),
            link_group,
        };
        children.push(Child { name: item.name, node, contents: below });
    }
    children.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    DirNode { children }
}

fn file_kind(size: u64, digest: Option<FileDigest>) -> Kind {
    Kind::File { size, content: digest.expect("every file of a finished walk was hashed or known") }
}
