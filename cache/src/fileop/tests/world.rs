//! A world for one test: trees in memory, layers and contexts in a temporary directory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use solver::op::{ActionInput, CopyAction, FileAction, FileActionKind, FileOp};
use solver::pattern::PatternMatcher;

use crate::context::{Context, MemoryStatCache, ThreadInit, WalkRequest, walk};
use crate::fileop::{CopyProgress, FileInput, FileOpEnv, FileOpError, FileOutput, execute};
use crate::layer::{Backing, Base, Change, LayerBuilder, Meta, RunWindow, UnpackLimits};
use crate::tree::{Kind, MemoryNodes, Node, NodeId, TreePath, Trees};
use crate::view::{FileType, MergedView};

pub(super) struct World {
    pub(super) dir: tempfile::TempDir,
    pub(super) trees: Arc<Trees>,
    next: std::cell::Cell<usize>,
    pub(super) cancel: AtomicBool,
    pub(super) limits: UnpackLimits,
    pub(super) thread_init: Option<ThreadInit>,
    /// What the next operation may be thin over.
    pub(super) backing: Option<Backing>,
}

/// `None`, and a word about it, where the tests cannot run.
pub(super) fn world() -> Option<World> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: making files of other owners needs root");
        return None;
    }
    Some(World {
        dir: tempfile::tempdir().unwrap(),
        trees: Arc::new(Trees::new(Arc::new(MemoryNodes::default()))),
        next: std::cell::Cell::new(0),
        cancel: AtomicBool::new(false),
        limits: UnpackLimits { bytes: 1 << 30, entries: 1 << 20 },
        thread_init: None,
        backing: None,
    })
}

pub(super) fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

/// A chain and where its layers are.
#[derive(Clone)]
pub(super) struct Chain {
    pub(super) base: Base,
    dirs: Vec<PathBuf>,
}

impl World {
    fn fresh(&self) -> PathBuf {
        self.next.set(self.next.get() + 1);
        self.dir.path().join(self.next.get().to_string())
    }

    pub(super) fn scratch(&self) -> Chain {
        Chain { base: Base::scratch(Arc::clone(&self.trees)), dirs: Vec::new() }
    }

    /// A chain of one layer. Lines: `d MODE UID:GID PATH`, `f MODE UID:GID PATH TEXT`, `l PATH -> TARGET`.
    pub(super) fn chain(&self, lines: &str) -> Chain {
        let dir = self.fresh();
        let layer = LayerBuilder::create(&dir, self.scratch().base).unwrap();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.splitn(5, ' ').collect();
            if words[0] == "l" {
                layer.symlink(&path(words[1]), words[3].as_bytes(), &Meta::default()).unwrap();
                continue;
            }
            let (uid, gid) = words[2].split_once(':').unwrap();
            let meta = Meta {
                mode: u32::from_str_radix(words[1], 8).unwrap(),
                uid: uid.parse().unwrap(),
                gid: gid.parse().unwrap(),
                mtime: 1_000_000_000,
                xattrs: Vec::new(),
            };
            if words[0] == "d" {
                layer.mkdir(&path(words[3]), &meta).unwrap();
            } else {
                layer.write_file(&path(words[3]), &meta, words[4].as_bytes()).unwrap();
            }
        }
        let done = layer.finish(RunWindow::none()).unwrap();
        self.stack(&self.scratch(), &done.root, vec![dir])
    }

    pub(super) fn stack(&self, below: &Chain, root: &NodeId, layer: Vec<PathBuf>) -> Chain {
        let dirs = [below.dirs.clone(), layer].concat();
        let view = Arc::new(MergedView::open(&dirs).unwrap());
        Chain { base: Base { trees: Arc::clone(&self.trees), root: *root, view }, dirs }
    }

    /// A client's directory of these files; a text is `TEXT`, a name with a slash at its end a directory, `-> X` a link.
    pub(super) fn files(&self, files: &[(&str, &str, u32)]) -> PathBuf {
        let dir = self.fresh();
        fs::create_dir(&dir).unwrap();
        for (name, text, mode) in files {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if let Some(target) = text.strip_prefix("-> ") {
                symlink(target, &path).unwrap();
                continue;
            }
            if name.ends_with('/') {
                fs::create_dir_all(&path).unwrap();
            } else {
                fs::write(&path, text).unwrap();
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        dir
    }

    pub(super) fn walk(&self, dir: &Path) -> Context {
        walk(&WalkRequest {
            dir: Arc::new(OwnedFd::from(File::open(dir).unwrap())),
            ignored: &PatternMatcher::default(),
            include_patterns: &[],
            follow_paths: &[],
            stat_cache: &MemoryStatCache::default(),
            trees: Arc::clone(&self.trees),
            threads: 2,
            thread_init: self.thread_init.clone(),
            cancel: &self.cancel,
        })
        .unwrap()
    }

    pub(super) fn context(&self, files: &[(&str, &str, u32)]) -> FileInput {
        FileInput::Context(self.walk(&self.files(files)))
    }

    pub(super) fn execute(
        &self,
        op: &FileOp,
        inputs: &[FileInput],
    ) -> Result<BTreeMap<usize, FileOutput>, FileOpError> {
        let dir = self.fresh();
        fs::create_dir(&dir).unwrap();
        let progress = CopyProgress::default();
        execute(
            op,
            inputs,
            &FileOpEnv {
                dir: &dir,
                trees: Arc::clone(&self.trees),
                backing: self.backing.clone(),
                threads: 2,
                limits: self.limits,
                now: SystemTime::now(),
                cancel: &self.cancel,
                progress: &progress,
            },
        )
    }

    /// Runs actions one after the other on `base`, copying from `source`; checks the layer against its tree.
    pub(super) fn run(
        &self,
        base: &Chain,
        source: &FileInput,
        actions: Vec<FileActionKind>,
    ) -> Result<Outcome, String> {
        let op = op(actions);
        let inputs = [FileInput::Chain(base.base.clone()), source.clone()];
        let mut outputs = self.execute(&op, &inputs).map_err(|e| e.to_string())?;
        let output = outputs.remove(&0).unwrap();
        assert!(outputs.is_empty());
        let backing = self.backing.iter().filter(|_| output.layer.backing.is_some());
        let dirs = backing.map(|backing| backing.dir.clone()).chain([output.dir.clone()]).collect();
        let chain = self.stack(base, &output.layer.root, dirs);
        let applied = self.trees.apply(base.base.root, &output.layer.entries).unwrap();
        assert_eq!(applied, output.layer.root, "tree and entries");
        assert_eq!(on_disk(&chain.base.view), in_tree(&self.trees, &output.layer.root), "disk and tree");
        Ok(Outcome {
            layer: layer_lines(&output),
            tree: in_tree(&self.trees, &output.layer.root),
            output,
            chain,
        })
    }
}

/// What an operation gave.
pub(super) struct Outcome {
    /// Paths of the layer, whiteouts with `-` before them; directories with a slash.
    pub(super) layer: Vec<String>,
    /// Lines of the whole tree.
    pub(super) tree: String,
    pub(super) output: FileOutput,
    pub(super) chain: Chain,
}

/// One action after the other, the first on vertex input 0, copies from input 1, the last gives output 0.
pub(super) fn op(kinds: Vec<FileActionKind>) -> FileOp {
    let last = kinds.len() - 1;
    let action = |(index, kind): (usize, FileActionKind)| FileAction {
        input: if index == 0 { ActionInput::Vertex(0) } else { ActionInput::Action(index - 1) },
        secondary: match kind {
            FileActionKind::Copy(_) => ActionInput::Vertex(1),
            _ => ActionInput::Scratch,
        },
        output: (index == last).then_some(0),
        kind,
    };
    FileOp { actions: kinds.into_iter().enumerate().map(action).collect() }
}

/// A copy as the Dockerfile frontend lowers COPY.
pub(super) fn copy(src: &str, dest: &str) -> CopyAction {
    CopyAction {
        src: src.to_owned(),
        dest: dest.to_owned(),
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        ..CopyAction::default()
    }
}

pub(super) fn copies(list: &[(&str, &str)]) -> Vec<FileActionKind> {
    list.iter().map(|(src, dest)| kind(copy(src, dest))).collect()
}

pub(super) fn kind(action: CopyAction) -> FileActionKind {
    FileActionKind::Copy(Box::new(action))
}

fn layer_lines(output: &FileOutput) -> Vec<String> {
    let line = |entry: &crate::layer::LayerEntry| {
        let path = String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
        match &entry.change {
            Change::Whiteout => format!("-{path}"),
            Change::Put { node, .. } if node.is_dir() => format!("{path}/"),
            Change::Put { .. } => path,
        }
    };
    output.layer.entries.iter().map(line).collect()
}

/// `PATH KIND MODE UID:GID [-> TARGET | SIZE HASH]`, one per line.
pub(super) fn in_tree(trees: &Trees, root: &NodeId) -> String {
    let mut out = String::new();
    trees
        .walk(root, &TreePath::root(), &mut |path, node: &Node| {
            let rest = match &node.kind {
                Kind::File { size, content } => format!("f {size} {}", &hex::encode(content.as_bytes())[..8]),
                Kind::Dir => "d".to_owned(),
                Kind::Symlink { target } => format!("l -> {}", String::from_utf8_lossy(target)),
                Kind::CharDevice { major, minor } => format!("c {major}:{minor}"),
                Kind::BlockDevice { major, minor } => format!("b {major}:{minor}"),
                Kind::Fifo => "p".to_owned(),
                Kind::Socket => "s".to_owned(),
            };
            let name = String::from_utf8_lossy(path.as_bytes());
            writeln!(out, "{name} {:o} {}:{} {rest}", node.mode, node.uid, node.gid).unwrap();
            true
        })
        .unwrap();
    out
}

/// The same of what is on disk.
fn on_disk(view: &MergedView) -> String {
    let mut out = String::new();
    view.walk::<crate::view::ViewError>(&TreePath::root(), &mut |found| {
        let stat = &found.stat;
        let rest = match stat.file_type {
            FileType::File => {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut view.open_file(found)?, &mut bytes).unwrap();
                format!("f {} {}", stat.size, &blake3::hash(&bytes).to_hex()[..8])
            }
            FileType::Dir => "d".to_owned(),
            FileType::Symlink => format!("l -> {}", String::from_utf8_lossy(&view.read_link(found)?)),
            FileType::CharDevice => format!("c {}:{}", stat.rdev.0, stat.rdev.1),
            FileType::BlockDevice => format!("b {}:{}", stat.rdev.0, stat.rdev.1),
            FileType::Fifo => "p".to_owned(),
            FileType::Socket => "s".to_owned(),
        };
        let name = String::from_utf8_lossy(found.path.as_bytes());
        writeln!(out, "{name} {:o} {}:{} {rest}", stat.mode, stat.uid, stat.gid).unwrap();
        Ok(true)
    })
    .unwrap();
    out
}

/// A tree's lines without sizes and hashes, to be compared with what a case expects.
pub(super) fn short(tree: &str) -> Vec<String> {
    tree.lines()
        .map(|line| match line.rsplit_once(" f ") {
            Some((head, _)) => head.to_owned(),
            None => line.to_owned(),
        })
        .collect()
}

impl World {
    pub(super) fn cancel(&self) {
        self.cancel.store(true, Ordering::Relaxed);
    }
}
