//! BuildKit's content checksum of what a copy or a mount selects (`cache/contenthash` of its source): the second key of an
//! operation in BuildKit's own caches, so it has to give the same digest for the same files.
//!
//! An object's digest is SHA-256 over a tar header in words (`name`, `mode`, … each followed by its value, without the time),
//! extended attributes and the bytes. A directory's is over its own header's digest, and names and digests below it, each name
//! after a NUL.

use std::io::{self, Write as _};

use solver::Digest;
use solver::pattern::ParentMatches;

use super::env::FileInput;
use super::error::ActionError;
use super::filters::{Above, Filters};
use super::source::Source;
use crate::pattern::{glob_match, has_wildcards, split_at_wildcard};
use crate::tree::{Kind, Node, TreePath};

/// What an operation uses of an input, as BuildKit sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ContentSelector {
    /// Path or pattern; empty is everything.
    pub path: String,
    /// `path` may hold wildcards.
    pub wildcard: bool,
    /// A link at the path is followed.
    pub follow_links: bool,
    /// Only these, relative to the path.
    pub include_patterns: Vec<String>,
    /// Not these, relative to the path.
    pub exclude_patterns: Vec<String>,
}

impl ContentSelector {
    /// Whether it takes less than all that is at one path.
    pub fn is_filtered(&self) -> bool {
        self.wildcard || !self.include_patterns.is_empty() || !self.exclude_patterns.is_empty()
    }
}

/// The checksum of what `selectors` take of `input`; all of it without selectors. Blocking: reads every byte.
///
/// # Errors
/// A selected path that does not exist, malformed patterns, files that cannot be read or have changed.
pub fn content_hash(input: &FileInput, selectors: &[ContentSelector]) -> Result<Digest, ActionError> {
    let source = match input {
        FileInput::Chain(base) => Source::Chain(base),
        FileInput::Context(context) => Source::Context(context),
    };
    let hash = || {
        if let FileInput::Context(context) = input {
            context.init_thread();
        }
        let all = [ContentSelector::default()];
        let selectors = if selectors.is_empty() { &all } else { selectors };
        let digests = selectors.iter().map(|selector| Hashing { source, selector }.digest());
        let digests: Vec<String> = digests.map(|d| d.map(|d| d.to_string())).collect::<Result<_, _>>()?;
        Ok(Digest::of(digests.join("\0").as_bytes()))
    };
    match source.guarded_context() {
        // A thread of its own: it takes on the client's identity.
        Some(_) => std::thread::scope(|scope| {
            scope.spawn(hash).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }),
        None => hash(),
    }
}

/// The checksum of what `selectors` take of nothing, which is no empty directory to BuildKit; `None` where they want more than the root.
pub fn hash_of_nothing(selectors: &[ContentSelector]) -> Option<Digest> {
    let is_root = |selector: &ContentSelector| {
        TreePath::clean(selector.path.as_bytes()).is_ok_and(|path| path.is_root())
    };
    let digests = vec![Digest::of(b"").to_string(); selectors.len().max(1)];
    selectors.iter().all(is_root).then(|| Digest::of(digests.join("\0").as_bytes()))
}

struct Hashing<'a> {
    source: Source<'a>,
    selector: &'a ContentSelector,
}

/// An object that counts, under the path that the selector gives it.
struct Included {
    path: String,
    digest: Digest,
    /// A link that is replaced by what it leads to.
    follow: bool,
}

/// A directory on the way down.
#[derive(Default)]
struct Way {
    matches: Above,
    /// Headers of directories that count as soon as something below them does.
    headers: Vec<(String, Digest)>,
    any: bool,
}

struct Walk<'a> {
    hashing: &'a Hashing<'a>,
    /// The selector's path as BuildKit writes it: `/a/b`, or nothing for the root.
    wanted: String,
    filters: Filters,
    included: Vec<Included>,
}

impl Hashing<'_> {
    fn digest(&self) -> Result<Digest, ActionError> {
        let path = TreePath::clean(self.selector.path.as_bytes())?;
        if !self.selector.is_filtered() {
            return self.at(&path, self.selector.follow_links);
        }
        let mut walk = Walk::new(self, &path)?;
        let prefix = walk.run(&path)?;
        let mut included = walk.included;
        for one in included.iter_mut().filter(|one| one.follow) {
            one.digest = self.at(&TreePath::clean(one.path.as_bytes())?, true)?;
        }
        match included.as_slice() {
            [] => Ok(Digest::of(b"")),
            [only] if base(&only.path) == base(&key(&path)) => Ok(only.digest),
            all => {
                let mut bytes = Vec::new();
                for one in all {
                    let rest = one.path.strip_prefix(&prefix).unwrap_or(&one.path);
                    bytes.extend_from_slice(
                        if rest.is_empty() { "\0" } else { rest }.replace('/', "\0").as_bytes(),
                    );
                    bytes.extend_from_slice(one.digest.to_string().as_bytes());
                }
                Ok(Digest::of(&bytes))
            }
        }
    }

    /// The checksum of everything at a path.
    fn at(&self, path: &TreePath, follow: bool) -> Result<Digest, ActionError> {
        let real = self.source.resolve(path.as_bytes(), follow)?;
        let node = self.source.get(&real)?.ok_or_else(|| ActionError::SourceNotFound {
            path: format!("/{}", String::from_utf8_lossy(path.as_bytes())),
        })?;
        self.whole(&real, &node)
    }

    fn whole(&self, path: &TreePath, node: &Node) -> Result<Digest, ActionError> {
        if !node.is_dir() {
            return self.header(path, node);
        }
        let mut bytes = vec![0];
        bytes.extend_from_slice(self.header(path, node)?.to_string().as_bytes());
        for entry in self.source.list(path)? {
            let below = path.child(&entry.name);
            bytes.push(0);
            bytes.extend_from_slice(&entry.name);
            bytes.extend_from_slice(self.whole(&below, &entry.node)?.to_string().as_bytes());
        }
        Ok(Digest::of(&bytes))
    }

    /// The checksum of an object by itself: of a directory's header, or of a file with its bytes.
    fn header(&self, path: &TreePath, node: &Node) -> Result<Digest, ActionError> {
        if path.is_root() && matches!(self.source, Source::Context(_)) {
            // The directory itself is not sent along.
            return Ok(Digest::of(b""));
        }
        let (kind, size, link, (major, minor)) = match &node.kind {
            Kind::File { size, .. } => ('0', *size, &b""[..], (0, 0)),
            Kind::Socket => ('0', 0, &b""[..], (0, 0)),
            Kind::Dir => ('5', 0, &b""[..], (0, 0)),
            Kind::Symlink { target } => ('2', 0, &target[..], (0, 0)),
            Kind::CharDevice { major, minor } => ('3', 0, &b""[..], (*major, *minor)),
            Kind::BlockDevice { major, minor } => ('4', 0, &b""[..], (*major, *minor)),
            Kind::Fifo => ('6', 0, &b""[..], (0, 0)),
        };
        let (mode, uid, gid) = (node.mode, node.uid, node.gid);
        let mut words =
            format!("namemode{mode}uid{uid}gid{gid}size{size}typeflag{kind}linkname").into_bytes();
        words.extend_from_slice(link);
        words.extend_from_slice(format!("unamegnamedevmajor{major}devminor{minor}").as_bytes());
        for (name, value) in &node.xattrs {
            let counts = &**name == b"security.capability"
                || !name.starts_with(b"security.") && !name.starts_with(b"system.");
            if counts {
                words.extend_from_slice(name);
                words.extend_from_slice(value);
            }
        }
        if !matches!(node.kind, Kind::File { size: 1.., .. }) {
            return Ok(Digest::of(&words));
        }
        let failed = |source| ActionError::Source { path: path.clone(), source };
        let mut hashing = crate::Hashing::new(io::sink());
        hashing.write_all(&words).map_err(failed)?;
        let read = io::copy(&mut self.source.open(path)?, &mut hashing).map_err(failed)?;
        if read != size {
            return Err(self.source.changed(path));
        }
        Ok(hashing.finish().1)
    }
}

impl<'a> Walk<'a> {
    fn new(hashing: &'a Hashing<'a>, path: &TreePath) -> Result<Self, ActionError> {
        let ContentSelector { include_patterns, exclude_patterns, .. } = hashing.selector;
        let filters = Filters::new(include_patterns, exclude_patterns)?;
        Ok(Self { hashing, wanted: key(path), filters, included: Vec::new() })
    }

    /// Collects what counts, and gives the part of the paths that does not.
    fn run(&mut self, path: &TreePath) -> Result<String, ActionError> {
        let source = self.hashing.source;
        let wildcard = self.hashing.selector.wildcard && has_wildcards(path.as_bytes());
        let (fixed, follow) = match wildcard {
            true => (split_at_wildcard(path.as_bytes()).0, true),
            false => (path.as_bytes(), false),
        };
        let shown = TreePath::clean(fixed)?;
        let real = match source.resolve(fixed, follow) {
            Ok(real) => real,
            Err(ActionError::NotFound { .. }) => return Ok(key(&shown)),
            Err(e) => return Err(e),
        };
        if let Some(node) = source.get(&real)? {
            self.visit(&real, &key(&shown), &node, &mut Way::default(), None, wildcard)?;
        }
        Ok(key(&shown))
    }

    /// Looks at the object `real`, shown as `shown`, and at what is below it. `matched` is the path that the wildcard took.
    fn visit(
        &mut self,
        real: &TreePath,
        shown: &str,
        node: &Node,
        above: &mut Way,
        matched: Option<&str>,
        wildcard: bool,
    ) -> Result<(), ActionError> {
        let matched = match (wildcard, matched) {
            (false, _) => Some(self.wanted.clone()),
            (true, Some(matched)) => Some(matched.to_owned()),
            (true, None) => {
                let takes = glob_match(self.wanted.as_bytes(), shown.as_bytes())?;
                takes.then(|| shown.to_owned())
            }
        };
        let mut below = Way { headers: above.headers.clone(), ..Way::default() };
        if let Some(matched) = &matched {
            let candidate = shown.strip_prefix(matched.as_str()).unwrap_or(shown).trim_start_matches('/');
            let verdict = self.filters.judge(candidate.as_bytes(), &above.matches);
            let takes = verdict.takes();
            // The header of the directory that a path with a slash at its end names does not count.
            let named_whole = node.is_dir() && self.wanted.is_empty() && shown.is_empty() && !wildcard;
            below.matches = verdict.below;
            if !verdict.included {
                below.matches.exclude = ParentMatches::default();
            }
            if takes && !named_whole {
                let digest = self.hashing.header(real, node)?;
                for (path, digest) in above.headers.drain(..) {
                    self.included.push(Included { path, digest, follow: false });
                }
                below.headers.clear();
                let link = node.link_target().is_some();
                let follow = link && self.hashing.selector.follow_links && !above.any;
                self.included.push(Included { path: shown.to_owned(), digest, follow });
            } else if node.is_dir() && !named_whole {
                below.headers.push((shown.to_owned(), self.hashing.header(real, node)?));
            }
            below.any = above.any || node.is_dir() && !named_whole;
        }
        if node.is_dir() {
            for entry in self.hashing.source.list(real)? {
                let name = String::from_utf8_lossy(&entry.name);
                let (path, shown) = (real.child(&entry.name), format!("{shown}/{name}"));
                let before = below.headers.len();
                self.visit(&path, &shown, &entry.node, &mut below, matched.as_deref(), wildcard)?;
                if below.headers.len() < before {
                    above.headers.clear();
                }
            }
        }
        Ok(())
    }
}

/// `/a/b`, or nothing for the root.
fn key(path: &TreePath) -> String {
    if path.is_root() { String::new() } else { format!("/{}", String::from_utf8_lossy(path.as_bytes())) }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
