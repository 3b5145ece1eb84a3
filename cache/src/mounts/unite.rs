//! One list of several.

use std::collections::{BTreeMap, HashMap};

use solver::Digest;

use super::list::MountList;
use crate::layer::{Change, Entries, LayerEntry};
use crate::tree::{Kind, Node, TreePath};

/// Unites lists by path: the newest file counts, of equally old ones that of the earlier list, and so do the first list's top and
/// the attributes of directories. What is below something that is no directory any more goes.
pub fn unite(lists: Vec<MountList>) -> Option<MountList> {
    let mut lists = lists;
    match lists.len() {
        0 | 1 => return lists.pop(),
        _ => {}
    }
    let mut winners: BTreeMap<TreePath, (usize, Node, i64)> = BTreeMap::new();
    for (number, list) in lists.iter().enumerate() {
        for entry in list.entries.iter() {
            let Change::Put { node, mtime } = &entry.change else { continue };
            let wins = winners.get(&entry.path).is_none_or(|(_, won, at)| {
                let both_dirs = won.kind == Kind::Dir && node.kind == Kind::Dir;
                !both_dirs && mtime > at
            });
            if wins {
                winners.insert(entry.path.clone(), (number, node.clone(), *mtime));
            }
        }
    }
    drop_orphans(&mut winners);
    part_groups(&mut winners);
    let entries = winners
        .into_iter()
        .map(|(path, (_, node, mtime))| LayerEntry { path, change: Change::Put { node, mtime } });
    let entries = Entries::new(entries.collect());
    let mut first = lists.remove(0);
    for list in lists {
        first.learn(list);
    }
    first.entries = entries;
    Some(first)
}

/// Drops what has no directory to lie in.
fn drop_orphans(winners: &mut BTreeMap<TreePath, (usize, Node, i64)>) {
    let mut dirs: Vec<TreePath> = Vec::new();
    winners.retain(|path, (_, node, _)| {
        while dirs.last().is_some_and(|dir| !path.starts_with(dir)) {
            dirs.pop();
        }
        let parent = path.parent().unwrap_or_default();
        let kept = dirs.last().map_or(parent.is_root(), |dir| *dir == parent);
        if kept && node.kind == Kind::Dir {
            dirs.push(path.clone());
        }
        kept
    });
}

/// Names of one file that come from several lists are files of their own from now on.
fn part_groups(winners: &mut BTreeMap<TreePath, (usize, Node, i64)>) {
    let mut groups: HashMap<TreePath, Option<usize>> = HashMap::new();
    for (number, node, _) in winners.values() {
        let Some(group) = &node.link_group else { continue };
        let of = groups.entry(group.clone()).or_insert(Some(*number));
        *of = of.filter(|of| of == number);
    }
    for (_, node, _) in winners.values_mut() {
        if node.link_group.as_ref().is_some_and(|group| groups[group].is_none()) {
            node.link_group = None;
        }
    }
}

impl MountList {
    /// Learns what another list knows of where the bytes of files are.
    pub fn learn(&mut self, from: Self) {
        let mut known: HashMap<Digest, u32> = self.packs.iter().map(|pack| pack.digest).zip(0..).collect();
        let mut numbers = Vec::with_capacity(from.packs.len());
        for pack in from.packs {
            let next = self.packs.len() as u32;
            let number = *known.entry(pack.digest).or_insert(next);
            numbers.push(number);
            if number == next {
                self.packs.push(pack);
            }
        }
        let chunks = from.contents.chunks();
        for chunk in chunks {
            self.contents.add(super::Chunk { pack: numbers[chunk.pack as usize], ..*chunk });
        }
        for (content, of) in from.contents.files() {
            if self.contents.of(content).is_none() {
                self.contents.join(*content, of.iter().map(|number| chunks[*number as usize].digest));
            }
        }
    }
}
