//! Where the files of a build come from.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::Args;
use crate::cli::context::absolute;
use crate::client::{ClientError, LocalDir};

/// Local sources, and the settings that name them.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) dirs: Vec<LocalDir>,
    pub(super) attrs: BTreeMap<String, String>,
    /// Holds a Dockerfile that came on stdin, until the build is over.
    pub(super) stdin: Option<TempDir>,
}

impl Args {
    pub(super) fn sources(&self) -> Result<Sources, ClientError> {
        let mut sources = Sources::default();
        if is_remote(&self.context) {
            sources.set("context", &self.context);
            if let Some(file) = &self.file {
                sources.set("filename", &file.to_string_lossy());
            }
        } else {
            let dir = absolute(Path::new(&self.context))?;
            check_dir(&dir)?;
            sources.dir("context", dir.clone());
            self.dockerfile(&dir, &mut sources)?;
        }
        for named in &self.build_contexts {
            sources.named(named)?;
        }
        Ok(sources)
    }

    fn dockerfile(&self, context: &Path, sources: &mut Sources) -> Result<(), ClientError> {
        let path = match &self.file {
            None => context.join("Dockerfile"),
            Some(path) if path.as_os_str() == "-" => sources.read_stdin()?,
            Some(path) => absolute(path)?,
        };
        let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(ClientError::Usage(format!("invalid value `{}` for `--file`", path.display())));
        };
        check_dir(dir)?;
        sources.set("filename", name);
        sources.dir("dockerfile", dir.to_owned());
        Ok(())
    }
}

impl Sources {
    fn set(&mut self, key: &str, value: &str) {
        self.attrs.insert(key.to_owned(), value.to_owned());
    }

    fn dir(&mut self, name: &str, path: PathBuf) {
        self.dirs.push(LocalDir { name: name.to_owned(), path });
    }

    /// Puts stdin into a directory of its own.
    fn read_stdin(&mut self) -> Result<PathBuf, ClientError> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("Dockerfile");
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).map_err(|e| ClientError::io("-", e))?;
        fs_err::write(&path, text)?;
        self.stdin = Some(dir);
        Ok(path)
    }

    /// A named context: a directory, or something with a scheme.
    fn named(&mut self, text: &str) -> Result<(), ClientError> {
        let bad =
            || ClientError::Usage(format!("invalid value `{text}` for `--build-context`: want NAME=VALUE"));
        let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(bad)?;
        // Names are looked up in the form that references have.
        let name = name.to_lowercase();
        let key = format!("context:{name}");
        if is_remote(value) || value.contains("://") || value.starts_with("target:") {
            self.set(&key, value);
            return Ok(());
        }
        let dir = absolute(Path::new(value))?;
        check_dir(&dir)?;
        self.set(&key, &format!("local:{name}"));
        self.dir(&name, dir);
        Ok(())
    }
}

/// Whether the daemon fetches a context itself (docker's rules for URLs).
fn is_remote(context: &str) -> bool {
    ["http://", "https://", "git://", "git@", "ssh://", "github.com/"].iter().any(|p| context.starts_with(p))
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
        args.sources().unwrap()
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
            build_contexts: vec![format!("Other={}", sub.display()), "img=docker-image://x".into()],
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
        let err = Args { context: "/nonexistent".into(), ..Args::default() }.sources().unwrap_err();
        assert!(err.to_string().starts_with("`/nonexistent`: "), "{err}");
    }
}
