//! Copying one tree: fsutil's `copy` with its order of checks, include and exclude lists, and hard links.
//!
//! Directories and links are made while the source is walked; the bytes of files follow in batches.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use super::env::FileOpEnv;
use super::error::ActionError;
use super::filters::{Above, Filters, Verdict};
use super::jobs::{self, CopyJob};
use super::mode::ModeChange;
use super::source::Source;
use super::state::{Owner, Target, now_ns};
use crate::layer::{Meta, Special};
use crate::tree::{Kind, Node, TreeEntry, TreePath};

/// Files copied as one batch; bounds the memory that a large directory takes.
const BATCH: usize = 4096;

/// What a copy changes and leaves out.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) owner: Option<Owner>,
    pub(super) mode: ModeRule,
    /// Nanoseconds since 1970; `None` keeps the source's.
    pub(super) mtime: Option<i64>,
    pub(super) filters: Filters,
    pub(super) always_replace: bool,
}

/// The mode of what is copied.
#[derive(Debug)]
pub(super) enum ModeRule {
    Keep,
    Set(u32),
    Change(ModeChange),
}

/// One copy of one source.
pub(super) struct TreeCopy<'a> {
    source: &'a Source<'a>,
    target: &'a Target,
    options: &'a Options,
    env: &'a FileOpEnv<'a>,
    /// Directories on the way to where the walk is.
    frames: Vec<Frame>,
    jobs: Vec<CopyJob>,
    /// The first copy of each file with several names.
    linked: HashMap<Node, TreePath>,
    /// Further names, made when the first has been copied.
    links: Vec<(TreePath, TreePath)>,
}

/// A source directory that is being walked.
struct Frame {
    from: TreePath,
    to: TreePath,
    node: Node,
    /// Relative to the copied tree, which is empty itself.
    relative: TreePath,
    /// Whether it exists at the target: with include patterns that waits until something in it is wanted.
    made: bool,
    /// Made by this copy, so that nothing in it can be in the way.
    fresh: bool,
    above: Above,
    children: std::vec::IntoIter<TreeEntry>,
}

/// Copies a whole file system onto an empty target.
pub(super) fn copy_whole(
    source: Source<'_>,
    target: &Target,
    env: &FileOpEnv<'_>,
) -> Result<(), ActionError> {
    let options = Options {
        owner: None,
        mode: ModeRule::Keep,
        mtime: None,
        filters: Filters::default(),
        always_replace: false,
    };
    TreeCopy::new(&source, target, &options, env).copy(TreePath::root(), Node::plain_dir(), TreePath::root())
}

impl<'a> TreeCopy<'a> {
    pub(super) fn new(
        source: &'a Source<'a>,
        target: &'a Target,
        options: &'a Options,
        env: &'a FileOpEnv<'a>,
    ) -> Self {
        let (linked, links) = (HashMap::new(), Vec::new());
        Self { source, target, options, env, frames: Vec::new(), jobs: Vec::new(), linked, links }
    }

    /// Copies the object `node` at `from` to exactly `to`, whose parent exists.
    pub(super) fn copy(mut self, from: TreePath, node: Node, to: TreePath) -> Result<(), ActionError> {
        self.copy_root(from, node, to)?;
        while let Some(frame) = self.frames.last_mut() {
            match frame.children.next() {
                Some(child) => self.copy_child(child)?,
                None => drop(self.frames.pop()),
            }
        }
        self.flush()
    }

    /// The copied object itself: never subject to the lists; an existing directory keeps its attributes.
    fn copy_root(&mut self, from: TreePath, node: Node, to: TreePath) -> Result<(), ActionError> {
        let existing = self.target.get(&to)?;
        self.replace(&node, existing.as_ref(), &to)?;
        if !node.is_dir() {
            return self.copy_object(from, node, to, existing.is_none());
        }
        let keep = existing.filter(Node::is_dir);
        let fresh = keep.is_none();
        match keep {
            Some(kept) => self.keep_attributes(&from, &node, &to, kept)?,
            None => self.make_dir(&from, &node, &to, false)?,
        }
        let verdict = Verdict { included: true, ..Verdict::default() };
        self.enter(from, node, to, TreePath::root(), verdict, fresh)
    }

    /// Only the time of a kept directory becomes the source's.
    fn keep_attributes(
        &self,
        from: &TreePath,
        node: &Node,
        to: &TreePath,
        kept: Node,
    ) -> Result<(), ActionError> {
        let mtime = self.options.mtime.or(node.mtime);
        let mtime =
            if from.is_root() { self.options.mtime } else { mtime.or(self.source.disk_mtime(from)?) };
        let (Some(mtime), false) = (mtime, to.is_root()) else { return Ok(()) };
        let meta = Meta { mode: kept.mode, uid: kept.uid, gid: kept.gid, mtime, xattrs: kept.xattrs };
        Ok(self.target.layer.set_meta(to, &meta)?)
    }

    fn copy_child(&mut self, child: TreeEntry) -> Result<(), ActionError> {
        if self.env.cancel.load(Ordering::Relaxed) {
            return Err(ActionError::Cancelled);
        }
        let frame = self.frames.last().expect("children belong to a frame");
        let fresh = frame.fresh && frame.made;
        let from = frame.from.join(&child.name)?;
        let to = frame.to.join(&child.name)?;
        let filters = &self.options.filters;
        let relative =
            if filters.take_all() { TreePath::root() } else { frame.relative.join(&child.name)? };
        let verdict = filters.judge(relative.as_bytes(), &frame.above);
        let node = child.node;
        if !verdict.takes() && (!node.is_dir() || self.is_closed(&relative, &verdict)) {
            return Ok(());
        }
        let mut fresh_child = fresh;
        if verdict.takes() {
            let existing = if fresh { None } else { self.target.get(&to)? };
            fresh_child = existing.is_none();
            self.replace(&node, existing.as_ref(), &to)?;
            self.make_parents()?;
            if !node.is_dir() {
                return self.copy_object(from, node, to, fresh_child);
            }
            self.make_dir(&from, &node, &to, true)?;
        }
        self.enter(from, node, to, relative, verdict, fresh_child)
    }

    /// Whether nothing below an unwanted directory can be wanted.
    fn is_closed(&self, relative: &TreePath, verdict: &Verdict) -> bool {
        let (path, filters) = (relative.as_bytes(), &self.options.filters);
        if verdict.excluded && !filters.may_take_back_below(path) {
            return true;
        }
        // A matched directory's children match too; they may be exceptions of the exclude list.
        let matched = filters.include.as_ref().is_none_or(|list| list.may_match_below(path));
        !matched && !verdict.excluded
    }

    /// With `always_replace`: removes what is of another kind.
    fn replace(&self, node: &Node, existing: Option<&Node>, to: &TreePath) -> Result<(), ActionError> {
        let merges = node.is_dir() && existing.is_some_and(Node::is_dir);
        if self.options.always_replace && existing.is_some() && !merges && !to.is_root() {
            self.target.layer.remove(to)?;
        }
        Ok(())
    }

    /// Makes the directories on the way that waited for something to be wanted.
    fn make_parents(&mut self) -> Result<(), ActionError> {
        for index in 0..self.frames.len() {
            if self.frames[index].made {
                continue;
            }
            let frame = &self.frames[index];
            let (from, to) = (&frame.from, &frame.to);
            // Unlike wanted directories, existing ones on the way keep their attributes.
            match self.target.get(to)? {
                Some(node) if node.is_dir() => {}
                Some(_) => return Err(ActionError::DirOntoFile(to.clone())),
                None => self.target.layer.mkdir(to, &self.meta(from, &frame.node)?)?,
            }
            self.frames[index].made = true;
        }
        Ok(())
    }

    fn make_dir(
        &self,
        from: &TreePath,
        node: &Node,
        to: &TreePath,
        overwrite: bool,
    ) -> Result<(), ActionError> {
        match self.target.get(to)? {
            Some(existing) if !existing.is_dir() => Err(ActionError::DirOntoFile(to.clone())),
            Some(_) if !overwrite => Ok(()),
            _ => Ok(self.target.layer.mkdir(to, &self.meta(from, node)?)?),
        }
    }

    fn enter(
        &mut self,
        from: TreePath,
        node: Node,
        to: TreePath,
        relative: TreePath,
        verdict: Verdict,
        fresh: bool,
    ) -> Result<(), ActionError> {
        let children = self.source.list(&from)?.into_iter();
        let (made, above) = (verdict.takes(), verdict.below);
        self.frames.push(Frame { from, to, node, relative, made, fresh, above, children });
        Ok(())
    }

    /// Anything but a directory.
    fn copy_object(
        &mut self,
        from: TreePath,
        node: Node,
        to: TreePath,
        fresh: bool,
    ) -> Result<(), ActionError> {
        if !fresh && self.target.get(&to)?.is_some_and(|existing| existing.is_dir()) {
            return Err(ActionError::FileOntoDir(to));
        }
        let layer = &self.target.layer;
        match &node.kind {
            Kind::File { size, content } => {
                if node.link_group.is_some() {
                    if let Some(first) = self.linked.get(&node) {
                        self.links.push((first.clone(), to));
                        return Ok(());
                    }
                    self.linked.insert(node.clone(), to.clone());
                }
                let disk_time = self.options.mtime.or(node.mtime).is_none();
                let (size, content) = (*size, *content);
                let meta = self.attributes(&node);
                if !disk_time
                    && node.link_group.is_none()
                    && layer.take_from_backing(&to, &meta, size, content)?
                {
                    return Ok(());
                }
                self.jobs.push(CopyJob { from, to, meta, size, content, disk_time });
                if self.jobs.len() >= BATCH { self.flush_jobs() } else { Ok(()) }
            }
            Kind::Symlink { target } => Ok(layer.symlink(&to, target, &self.meta(&from, &node)?)?),
            Kind::CharDevice { major, minor } => {
                let special = Special::CharDevice { major: *major, minor: *minor };
                Ok(layer.special(&to, special, &self.meta(&from, &node)?)?)
            }
            Kind::BlockDevice { major, minor } => {
                let special = Special::BlockDevice { major: *major, minor: *minor };
                Ok(layer.special(&to, special, &self.meta(&from, &node)?)?)
            }
            Kind::Fifo => Ok(layer.special(&to, Special::Fifo, &self.meta(&from, &node)?)?),
            // A socket is copied as a stub.
            Kind::Socket => {
                layer.write_file(&to, &self.meta(&from, &node)?, b"").map(drop).map_err(Into::into)
            }
            Kind::Dir => unreachable!("directories are entered"),
        }
    }

    /// Attributes with the real time of the source.
    fn meta(&self, from: &TreePath, node: &Node) -> Result<Meta, ActionError> {
        let mut meta = self.attributes(node);
        if self.options.mtime.or(node.mtime).is_none()
            && let Some(mtime) = self.source.disk_mtime(from)?
        {
            meta.mtime = mtime;
        }
        Ok(meta)
    }

    fn attributes(&self, node: &Node) -> Meta {
        let mode = match &self.options.mode {
            ModeRule::Keep => node.mode,
            ModeRule::Set(mode) => *mode,
            ModeRule::Change(change) => change.apply(node.mode, node.is_dir()),
        };
        let (uid, gid) = self.options.owner.unwrap_or((node.uid, node.gid));
        let mtime = self.options.mtime.or(node.mtime).unwrap_or_else(|| now_ns(self.env));
        Meta { mode, uid, gid, mtime, xattrs: node.xattrs.clone() }
    }

    fn flush_jobs(&mut self) -> Result<(), ActionError> {
        let jobs = std::mem::take(&mut self.jobs);
        jobs::run(&jobs, self.source, self.target, self.env)
    }

    fn flush(mut self) -> Result<(), ActionError> {
        self.flush_jobs()?;
        for (first, name) in &self.links {
            self.target.layer.hardlink(first, name)?;
        }
        Ok(())
    }
}
