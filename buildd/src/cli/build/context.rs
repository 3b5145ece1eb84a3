//! Where the files of a build come from.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use cache::fileop::{ARCHIVE_HEAD, is_archive};
use cache::oci::Layout;
use frontend::lower::GitSource;
use tempfile::TempDir;

use super::Args;
use super::layout::LayoutName;
use crate::cli::context::absolute;
use crate::client::{ClientError, LocalDir, UploadSource, random_id};
use crate::session::{FROM_STDIN, UPLOAD};

/// The local source with the Dockerfile, and the setting that says that the Dockerfile is not in a remote context.
const DOCKERFILE: &str = "dockerfile";

/// Local sources, and the settings that name them.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) dirs: Vec<LocalDir>,
    pub(super) attrs: BTreeMap<String, String>,
    pub(super) layouts: BTreeMap<String, PathBuf>,
    pub(super) uploads: BTreeMap<String, UploadSource>,
    /// What the frontend has to be able to do.
    pub(super) caps: BTreeSet<&'static str>,
    /// Holds what came on stdin, until the build is over.
    pub(super) stdin: Option<TempDir>,
}

impl Args {
    /// # Errors
    /// A path that is not there, stdin asked for twice, a malformed value.
    pub(super) fn sources(&self, stdin: impl Read + Send + 'static) -> Result<Sources, ClientError> {
        let mut sources = Sources::default();
        let file = self.file.as_deref();
        let file_on_stdin = file.is_some_and(|file| file.as_os_str() == "-");
        if self.context == "-" {
            if file_on_stdin {
                return Err(ClientError::Usage(
                    "can't use stdin for both build context and dockerfile".to_owned(),
                ));
            }
            sources.context_on_stdin(stdin, file)?;
        } else if is_remote(&self.context) {
            sources.set("context", &self.context);
            sources.note_query(&self.context, "moby.buildkit.frontend.gitquerystring");
            match file {
                _ if file_on_stdin => sources.dockerfile_on_stdin(stdin)?,
                Some(path) if path.is_absolute() => {
                    sources.set("dockerfilekey", DOCKERFILE);
                    sources.dockerfile(path)?;
                }
                Some(path) => sources.set("filename", &path.to_string_lossy()),
                None => {}
            }
        } else {
            let dir = absolute(Path::new(&self.context))?;
            check_dir(&dir)?;
            sources.dir("context", dir.clone());
            match file {
                _ if file_on_stdin => sources.dockerfile_on_stdin(stdin)?,
                Some(path) => sources.dockerfile(&absolute(path)?)?,
                None => sources.dockerfile(&dir.join("Dockerfile"))?,
            }
        }
        for named in &self.build_contexts {
            sources.named(named)?;
        }
        Ok(sources)
    }
}

impl Sources {
    fn set(&mut self, key: &str, value: &str) {
        self.attrs.insert(key.to_owned(), value.to_owned());
    }

    fn dir(&mut self, name: &str, path: PathBuf) {
        self.dirs.push(LocalDir { name: name.to_owned(), path });
    }

    /// A Dockerfile of this machine.
    fn dockerfile(&mut self, path: &Path) -> Result<(), ClientError> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(ClientError::Usage(format!("invalid value `{}` for `--file`", path.display())));
        };
        check_dir(dir)?;
        self.set("filename", name);
        self.dir(DOCKERFILE, dir.to_owned());
        Ok(())
    }

    /// Puts stdin into a directory of its own.
    fn dockerfile_on_stdin(&mut self, stdin: impl Read) -> Result<(), ClientError> {
        let path = self.temporary(DOCKERFILE)?.join("Dockerfile");
        let mut file = fs_err::File::create(&path)?;
        std::io::copy(&mut { stdin }, &mut file).map_err(|e| ClientError::io("-", e))?;
        self.set("dockerfilekey", DOCKERFILE);
        self.dockerfile(&path)
    }

    /// A context on stdin: an archive, which the daemon takes as it comes, or nothing but a Dockerfile.
    fn context_on_stdin(
        &mut self,
        mut stdin: impl Read + Send + 'static,
        file: Option<&Path>,
    ) -> Result<(), ClientError> {
        let mut head = Vec::new();
        stdin.by_ref().take(ARCHIVE_HEAD).read_to_end(&mut head).map_err(|e| ClientError::io("-", e))?;
        let is_archive = is_archive(&head);
        let whole = std::io::Cursor::new(head).chain(stdin);
        if is_archive {
            let name = random_id()?;
            self.set("context", &format!("{UPLOAD}{name}"));
            self.uploads.insert(name, UploadSource(Box::new(whole)));
            if let Some(file) = file {
                self.set("filename", &file.to_string_lossy());
            }
            return Ok(());
        }
        if file.is_some() {
            return Err(ClientError::Usage(
                "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles".to_owned(),
            ));
        }
        let empty = self.temporary(FROM_STDIN)?;
        self.dir("context", empty);
        self.dockerfile_on_stdin(whole)
    }

    /// A new directory below the temporary one.
    fn temporary(&mut self, name: &str) -> Result<PathBuf, ClientError> {
        let top = match self.stdin.take() {
            Some(top) => top,
            None => tempfile::tempdir()?,
        };
        let path = top.path().join(name);
        self.stdin = Some(top);
        fs_err::create_dir(&path)?;
        Ok(path)
    }

    /// A git repository that is named with queries needs a frontend that knows them.
    fn note_query(&mut self, url: &str, cap: &'static str) {
        if url.contains('?') && is_git(url) {
            self.caps.insert(cap);
        }
    }

    /// A named context: a directory, or something with a scheme.
    fn named(&mut self, text: &str) -> Result<(), ClientError> {
        let bad =
            || ClientError::Usage(format!("invalid value `{text}` for `--build-context`: want NAME=VALUE"));
        let (given, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(bad)?;
        // The frontend looks names up in the form that references have; stages have theirs in lower case.
        let reference = frontend::reference::Reference::parse(given)
            .map_err(|e| ClientError::Usage(format!("invalid context name {given}: {e}")))?;
        let familiar = reference.familiar();
        let name = familiar.strip_suffix(":latest").unwrap_or(&familiar);
        let key = format!("context:{name}");
        self.caps.insert("moby.buildkit.frontend.contexts+forward");
        if is_remote(value) || value.starts_with("docker-image://") || value.starts_with("target:") {
            self.note_query(value, "moby.buildkit.frontend.gitquerystring+forward");
            self.set(&key, value);
            return Ok(());
        }
        if let Some(layout) = LayoutName::parse(value) {
            return self.layout(&key, layout);
        }
        let dir = absolute(Path::new(value))?;
        check_dir(&dir)?;
        // The two that every build may have stay what they are.
        let local = if matches!(name, "context" | DOCKERFILE) { format!("_{name}") } else { name.to_owned() };
        self.set(&key, &format!("local:{local}"));
        if let Some(base) = dir.file_name() {
            self.set(&format!("sharedkey:localdir:{name}"), &base.to_string_lossy());
        }
        self.dir(&local, dir);
        Ok(())
    }

    /// Offers an OCI layout to the daemon and names one image of it.
    fn layout(&mut self, key: &str, mut layout: LayoutName) -> Result<(), ClientError> {
        let dir = absolute(Path::new(&layout.path))?;
        check_dir(&dir)?;
        if layout.digest.is_none() {
            let opened = Layout::open(&dir)?;
            // Like buildx: a layout with one image needs no name for it.
            let found = opened.find(layout.tag.as_deref());
            layout.digest = Some(found.or_else(|e| opened.find(None).map_err(|_| e))?.digest);
        }
        let store = random_id()?;
        layout.path.clone_from(&store);
        self.set(key, &layout.to_string());
        self.layouts.insert(store, dir);
        Ok(())
    }
}

/// Whether the daemon fetches a context itself.
fn is_remote(context: &str) -> bool {
    context.starts_with("http://") || context.starts_with("https://") || is_git(context)
}

/// Whether it means a git repository, even if its query is wrong: the frontend says what is.
fn is_git(context: &str) -> bool {
    !matches!(GitSource::parse(context, false, false), Ok(None))
}

fn check_dir(dir: &Path) -> Result<(), ClientError> {
    let meta = std::fs::metadata(dir).map_err(|e| ClientError::io(dir, e))?;
    match meta.is_dir() {
        true => Ok(()),
        false => Err(ClientError::io(dir, std::io::ErrorKind::NotADirectory.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &Args) -> Sources {
        args.sources(std::io::empty()).unwrap()
    }

    #[test]
    fn local_directories() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("sub");
        std::fs::create_dir(&sub).unwrap();
        let context = dir.path().to_str().unwrap().to_owned();
        let args = Args {
            context: context.clone(),
            file: Some(sub.join("My.Dockerfile")),
            build_contexts: vec![format!("other={}", sub.display()), "img=docker-image://x".into()],
            ..Args::default()
        };
        let sources = of(&args);
        let dirs: Vec<_> = sources.dirs.iter().map(|d| (d.name.as_str(), d.path.as_path())).collect();
        assert_eq!(dirs, [("context", dir.path()), ("dockerfile", sub.as_path()), ("other", sub.as_path())]);
        assert_eq!(sources.attrs["filename"], "My.Dockerfile");
        assert_eq!(sources.attrs["context:other"], "local:other");
        assert_eq!(sources.attrs["context:img"], "docker-image://x");
        assert_eq!(of(&Args { context, ..Args::default() }).attrs["filename"], "Dockerfile");
    }

    #[test]
    fn remote_contexts_are_left_to_the_daemon() {
        let context = "https://example.com/repo.git#main:dir".to_owned();
        let sources = of(&Args { context: context.clone(), ..Args::default() });
        assert!(sources.dirs.is_empty());
        assert_eq!(sources.attrs["context"], context);
    }

    #[test]
    fn what_is_missing_is_said() {
        let err =
            Args { context: "/nonexistent".into(), ..Args::default() }.sources(std::io::empty()).unwrap_err();
        assert!(err.to_string().starts_with("`/nonexistent`: "), "{err}");
    }

    fn on_stdin(context: &str, file: Option<&str>, text: &'static [u8]) -> Result<Sources, ClientError> {
        let args = Args { context: context.into(), file: file.map(Into::into), ..Args::default() };
        args.sources(text)
    }

    #[test]
    fn what_comes_on_stdin() {
        let dockerfile = |sources: &Sources| {
            let dir = sources.dirs.iter().find(|d| d.name == "dockerfile").unwrap();
            std::fs::read_to_string(dir.path.join(&sources.attrs["filename"])).unwrap()
        };
        let here = on_stdin(".", Some("-"), b"FROM a").unwrap();
        assert_eq!((dockerfile(&here).as_str(), here.dirs.len()), ("FROM a", 2));

        let alone = on_stdin("-", None, b"FROM b").unwrap();
        assert_eq!(dockerfile(&alone), "FROM b");
        let context = alone.dirs.iter().find(|d| d.name == "context").unwrap();
        assert_eq!(std::fs::read_dir(&context.path).unwrap().count(), 0);

        let remote = on_stdin("https://example.com/x.tar", Some("-"), b"FROM c").unwrap();
        assert_eq!(dockerfile(&remote), "FROM c");
        assert_eq!(remote.attrs["dockerfilekey"], "dockerfile");

        let mut archive = on_stdin("-", Some("sub/D"), b"\x1f\x8b\x08 and so on").unwrap();
        let name = archive.attrs["context"].strip_prefix(UPLOAD).unwrap().to_owned();
        let mut all = Vec::new();
        archive.uploads.remove(&name).unwrap().0.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"\x1f\x8b\x08 and so on");
        assert_eq!((archive.attrs["filename"].as_str(), archive.dirs.len()), ("sub/D", 0));

        for (file, text) in [(Some("-"), &b"FROM a"[..]), (Some("x"), b"FROM a")] {
            let error = on_stdin("-", file, text).unwrap_err().to_string();
            assert!(error.contains("stdin"), "{error}");
        }
    }

    #[test]
    fn named_contexts_of_every_kind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display();
        let digest = format!("sha256:{}", "ab".repeat(32));
        let args = Args {
            context: dir.path().to_str().unwrap().into(),
            build_contexts: vec![
                format!("docker.io/library/base:latest={path}"),
                format!("context={path}"),
                "repo=https://h/x.git?ref=main".into(),
                "page=https://h/x.tar.gz".into(),
                format!("laid=oci-layout://{path}:v1@{digest}"),
            ],
            ..Args::default()
        };
        let sources = of(&args);
        let names: Vec<_> = sources.dirs.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(names, ["context", "dockerfile", "base", "_context"]);
        assert_eq!(sources.attrs["context:base"], "local:base");
        assert_eq!(sources.attrs["context:context"], "local:_context");
        assert_eq!(sources.attrs["context:repo"], "https://h/x.git?ref=main");
        assert_eq!(sources.attrs["context:page"], "https://h/x.tar.gz");
        let (store, at) = sources.layouts.first_key_value().unwrap();
        assert_eq!(sources.attrs["context:laid"], format!("oci-layout://{store}:v1@{digest}"));
        assert_eq!(at, dir.path());
        assert_eq!(
            Vec::from_iter(sources.caps),
            ["moby.buildkit.frontend.contexts+forward", "moby.buildkit.frontend.gitquerystring+forward"]
        );
        for bad in ["x", "=y", "a b=.", "Name=.", "x=/nonexistent", "x=oci-layout:///nonexistent"] {
            let args = Args { context: ".".into(), build_contexts: vec![bad.into()], ..Args::default() };
            assert!(args.sources(std::io::empty()).is_err(), "{bad}");
        }
    }
}
