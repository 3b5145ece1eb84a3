//! BuildKit's content checksum of what a copy or a mount selects (`cache/contenthash` of its source): the second key of an
//! operation in BuildKit's own caches, so it has to give the same digest for the same files.
//!
//! An object's digest is SHA-256 over a tar header in words (`name`, `mode`, … each followed by its value, without the time),
//! extended attributes and the bytes. A directory's is over its own header's digest, and names and digests below it, each name
//! after a NUL.

use std::io::Read;

use sha2::{Digest as _, Sha256};
use solver::Digest;
use solver::pattern::{ParentMatches, PatternMatcher};

use super::env::FileInput;
use super::error::ActionError;
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
#[derive(Clone, Default)]
struct Above {
    include: ParentMatches,
    exclude: ParentMatches,
    /// Headers of directories that count as soon as something below them does.
    headers: Vec<(String, Digest)>,
    any: bool,
}

struct Walk<'a> {
    hashing: &'a Hashing<'a>,
    /// The selector's path as BuildKit writes it: `/a/b`, or nothing for the root.
    wanted: String,
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
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
                let mut hasher = Sha256::new();
                for one in all {
                    let rest = one.path.strip_prefix(&prefix).unwrap_or(&one.path);
                    hasher.update(if rest.is_empty() { "\0".to_owned() } else { rest.replace('/', "\0") });
                    hasher.update(one.digest.to_string());
                }
                Ok(finish(hasher))
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
        let mut hasher = Sha256::new();
        hasher.update("\0");
        hasher.update(self.header(path, node)?.to_string());
        for entry in self.source.list(path)? {
            let below = path.child(&entry.name);
            hasher.update("\0");
            hasher.update(&entry.name);
            hasher.update(self.whole(&below, &entry.node)?.to_string());
        }
        Ok(finish(hasher))
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
        let mut hasher = Sha256::new();
        let (mode, uid, gid) = (node.mode, node.uid, node.gid);
        hasher.update(format!("namemode{mode}uid{uid}gid{gid}size{size}typeflag{kind}linkname"));
        hasher.update(link);
        hasher.update(format!("unamegnamedevmajor{major}devminor{minor}"));
        for (name, value) in &node.xattrs {
            let counts = &**name == b"security.capability"
                || !name.starts_with(b"security.") && !name.starts_with(b"system.");
            if counts {
                hasher.update(name);
                hasher.update(value);
            }
        }
        if let Kind::File { size: 1.., .. } = node.kind {
            let mut file = self.source.open(path)?;
            let mut buffer = vec![0; 64 << 10];
            let mut read = 0u64;
            loop {
                let failed = |source| ActionError::Source { path: path.clone(), source };
                let n = file.read(&mut buffer).map_err(failed)?;
                if n == 0 {
                    break;
                }
                read += n as u64;
                hasher.update(&buffer[..n]);
            }
            if read != size {
                return Err(self.source.changed(path));
            }
        }
        Ok(finish(hasher))
    }
}

impl<'a> Walk<'a> {
    fn new(hashing: &'a Hashing<'a>, path: &TreePath) -> Result<Self, ActionError> {
        let matcher = |list: &[String], name| match list {
            [] => Ok(None),
            list => PatternMatcher::new(list)
                .map(Some)
                .map_err(|source| ActionError::Pattern { list: name, source }),
        };
        Ok(Self {
            hashing,
            wanted: key(path),
            include: matcher(&hashing.selector.include_patterns, "includepatterns")?,
            exclude: matcher(&hashing.selector.exclude_patterns, "excludepatterns")?,
            included: Vec::new(),
        })
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
            self.visit(&real, &key(&shown), &node, &mut Above::default(), None, wildcard)?;
        }
        Ok(key(&shown))
    }

    /// Looks at the object `real`, shown as `shown`, and at what is below it. `matched` is the path that the wildcard took.
    fn visit(
        &mut self,
        real: &TreePath,
        shown: &str,
        node: &Node,
        above: &mut Above,
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
        let mut below = Above { headers: above.headers.clone(), ..Above::default() };
        if let Some(matched) = &matched {
            let candidate = shown.strip_prefix(matched.as_str()).unwrap_or(shown).trim_start_matches('/');
            let (takes, include, exclude) = self.judge(candidate, above);
            // The header of the directory that a path with a slash at its end names does not count.
            let named_whole = node.is_dir() && self.wanted.is_empty() && shown.is_empty() && !wildcard;
            let header = self.hashing.header(real, node)?;
            (below.include, below.exclude) = (include, exclude);
            if takes && !named_whole {
                for (path, digest) in above.headers.drain(..) {
                    self.included.push(Included { path, digest, follow: false });
                }
                below.headers.clear();
                let link = node.link_target().is_some();
                let follow = link && self.hashing.selector.follow_links && !above.any;
                self.included.push(Included { path: shown.to_owned(), digest: header, follow });
            } else if node.is_dir() && !named_whole {
                below.headers.push((shown.to_owned(), header));
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

    fn judge(&self, candidate: &str, above: &Above) -> (bool, ParentMatches, ParentMatches) {
        let (mut wanted, mut include) = (true, ParentMatches::default());
        if let Some(list) = &self.include {
            (wanted, include) = list.visit(candidate.as_bytes(), &above.include);
        }
        let (mut excluded, mut exclude) = (false, ParentMatches::default());
        if let (Some(list), true) = (&self.exclude, wanted) {
            (excluded, exclude) = list.visit(candidate.as_bytes(), &above.exclude);
        }
        (wanted && !excluded, include, exclude)
    }
}

/// `/a/b`, or nothing for the root.
fn key(path: &TreePath) -> String {
    if path.is_root() { String::new() } else { format!("/{}", String::from_utf8_lossy(path.as_bytes())) }
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn finish(hasher: Sha256) -> Digest {
    Digest::from_bytes(hasher.finalize().into())
}
