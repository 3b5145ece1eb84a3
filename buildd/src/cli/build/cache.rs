//! `--cache-from` and `--cache-to`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use frontend::number::boolean;
use proto::control::CacheOptionsEntry;
use serde_json::{Value, json};

use super::index::{self, Entry, LATEST};
use super::{Args, warn};
use crate::cli::context::absolute;
use crate::cli::csv::pairs;
use crate::client::ClientError;
use crate::csv::fields;

/// How a key begins that is given as such rather than as a file's name.
const PEM: &str = "-----BEGIN ";
/// The type of caches whose place is a URL.
const KEYED: &str = "keyed";

/// The caches of a build, as the daemon is told of them.
#[derive(Debug, Default)]
pub(super) struct Caches {
    /// To look into.
    pub(super) from: Vec<CacheOptionsEntry>,
    /// To write.
    pub(super) to: Vec<CacheOptionsEntry>,
    /// Directories, and whether they are written.
    pub(super) dirs: BTreeMap<PathBuf, bool>,
    /// Directories of keyed caches, by their names in URLs.
    pub(super) keyed: BTreeMap<String, PathBuf>,
    /// Where the index of a written directory gets which tag.
    tags: Vec<(PathBuf, String)>,
}

impl Args {
    /// The caches that the flags name.
    ///
    /// # Errors
    /// Malformed flags, a directory without the cache that is asked for.
    pub(super) fn caches(&self) -> Result<Caches, ClientError> {
        let mut caches = Caches::default();
        for mut entry in active("--cache-from", &self.cache_from)? {
            if entry.r#type == "local" && !caches.read_from(&mut entry)? {
                continue;
            }
            if entry.r#type == KEYED {
                // One text may serve for both, and what is read is not signed.
                entry.attrs.remove("signing-key");
            }
            // That a cache cannot be read is no reason not to build.
            match caches.keyed("--cache-from", &mut entry, &environment) {
                Ok(()) => caches.from.push(entry),
                Err(error) => warn(&format!("{error}: doing without that cache")),
            }
        }
        for mut entry in active("--cache-to", &self.cache_to)? {
            if entry.r#type == "local" {
                caches.write_to(&mut entry)?;
            }
            caches.keyed("--cache-to", &mut entry, &environment)?;
            caches.to.push(entry);
        }
        let inline =
            |text: &String| text.strip_prefix("BUILDKIT_INLINE_CACHE=").and_then(boolean).unwrap_or(false);
        if self.build_args.iter().any(inline) && !caches.to.iter().any(|entry| entry.r#type == "inline") {
            caches.to.push(CacheOptionsEntry { r#type: "inline".to_owned(), attrs: BTreeMap::new() });
        }
        Ok(caches)
    }
}

impl Caches {
    /// What the frontend is told of caches to look into.
    pub(super) fn attr(&self) -> Option<String> {
        let entry = |entry: &CacheOptionsEntry| json!({ "Type": entry.r#type, "Attrs": entry.attrs });
        let all: Vec<Value> = self.from.iter().map(entry).collect();
        (!all.is_empty()).then(|| Value::from(all).to_string())
    }

    /// Finds the cache in a directory; whether there is one.
    fn read_from(&mut self, entry: &mut CacheOptionsEntry) -> Result<bool, ClientError> {
        let src = required(entry, "--cache-from", "src")?;
        let dir = absolute(Path::new(&src))?;
        if !entry.attrs.contains_key("digest") {
            let tag = entry.attrs.get("tag").cloned().unwrap_or_else(|| LATEST.to_owned());
            match index::digest_of(&dir, &tag) {
                Some(digest) => drop(entry.attrs.insert("digest".to_owned(), digest)),
                None => {
                    // The first build of all has none to begin with.
                    warn(&format!(
                        "`{}` holds no cache with the tag `{tag}`: doing without it",
                        dir.display()
                    ));
                    return Ok(false);
                }
            }
        }
        entry.attrs.insert("src".to_owned(), dir.display().to_string());
        self.dirs.entry(dir).or_default();
        Ok(true)
    }

    fn write_to(&mut self, entry: &mut CacheOptionsEntry) -> Result<(), ClientError> {
        let dest = required(entry, "--cache-to", "dest")?;
        let dir = absolute(Path::new(&dest))?;
        fs_err::create_dir_all(&dir).map_err(|e| ClientError::io(&dir, e))?;
        entry.attrs.insert("dest".to_owned(), dir.display().to_string());
        let tag = entry.attrs.get("tag").cloned().unwrap_or_else(|| LATEST.to_owned());
        self.tags.push((dir.clone(), tag));
        self.dirs.insert(dir, true);
        Ok(())
    }

    /// Makes ready what only the client has of a keyed cache: its directory, and the keys in files.
    fn keyed(
        &mut self,
        flag: &str,
        entry: &mut CacheOptionsEntry,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), ClientError> {
        if entry.r#type != KEYED {
            return Ok(());
        }
        if keyed_at(entry) == "gs" {
            let is_told =
                ["anonymous", "token", "credential"].iter().any(|name| entry.attrs.contains_key(*name));
            let path = entry.attrs.remove("credential_path");
            let known = || environment("GOOGLE_APPLICATION_CREDENTIALS").filter(|_| !is_told);
            if let Some(path) = path.or_else(known) {
                let text = fs_err::read_to_string(&path).map_err(|e| ClientError::io(Path::new(&path), e))?;
                entry.attrs.insert("credential".to_owned(), text);
            }
        }
        if let Some(path) = entry.attrs.get("url").and_then(|url| url.strip_prefix("file://")) {
            let dir = absolute(Path::new(path))?;
            let name = dir.display().to_string();
            entry.attrs.insert("url".to_owned(), format!("file://{name}"));
            self.keyed.insert(name, dir);
        }
        for name in ["signing-key", "trust"] {
            let Some(files) = entry.attrs.get(name).filter(|value| !value.starts_with(PEM)) else { continue };
            let wrong = |why: &str| ClientError::Usage(format!("{flag}: `{name}` of a keyed cache: {why}"));
            if files.trim().is_empty() {
                return Err(wrong("it is empty"));
            }
            let mut text = String::new();
            for file in files.split(';') {
                text += &fs_err::read_to_string(file).map_err(|e| wrong(&e.to_string()))?;
                text.push('\n');
            }
            entry.attrs.insert(name.to_owned(), text);
        }
        Ok(())
    }

    /// Names what was written in the directories' indexes.
    ///
    /// # Errors
    /// A directory that cannot be written.
    pub(super) fn finish(&self, response: &BTreeMap<String, String>) -> Result<(), ClientError> {
        let Some(manifest) = response.get("cache.manifest") else { return Ok(()) };
        let Ok(manifest) = serde_json::from_str::<Value>(manifest) else { return Ok(()) };
        for (dir, tag) in &self.tags {
            if let Some(digest) = manifest["digest"].as_str().and_then(|d| d.strip_prefix("sha256:"))
                && dir.join("blobs/sha256").join(digest).exists()
            {
                index::put(dir, &Entry::tag(tag), manifest.clone())?;
            }
        }
        Ok(())
    }
}

/// The scheme of a keyed cache's URL.
fn keyed_at(entry: &CacheOptionsEntry) -> &str {
    let url = entry.attrs.get("url").filter(|_| entry.r#type == KEYED);
    url.and_then(|url| url.split_once("://")).map_or("", |(scheme, _)| scheme)
}

/// One `--cache-from` or `--cache-to`; mere names are caches at registries, and nothing is none: so that a variable may be empty.
fn entries(flag: &str, text: &str) -> Result<Vec<CacheOptionsEntry>, ClientError> {
    let names = fields(text)?;
    if !names.iter().any(|name| name.contains('=')) {
        let at_registry = |name: String| CacheOptionsEntry {
            r#type: "registry".to_owned(),
            attrs: BTreeMap::from([("ref".to_owned(), name)]),
        };
        return Ok(names.into_iter().filter(|name| !name.is_empty()).map(at_registry).collect());
    }
    let mut attrs: BTreeMap<String, String> = pairs(flag, text)?.into_iter().collect();
    let kind = attrs.remove("type").filter(|kind| !kind.is_empty());
    let r#type =
        kind.ok_or_else(|| ClientError::Usage(format!("invalid value `{text}` for `{flag}`: no type")))?;
    Ok(vec![CacheOptionsEntry { r#type, attrs }])
}

/// A variable of the client's environment that says something.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Entries with all that the environment says of them. GitHub's cache outside of its jobs is nothing, without a word, so that
/// the same command works on a laptop (as in buildx).
fn active(flag: &str, texts: &[String]) -> Result<Vec<CacheOptionsEntry>, ClientError> {
    let mut active = Vec::new();
    for text in texts {
        active.extend(entries(flag, text)?);
    }
    for entry in active.iter().filter(|entry| entry.r#type == "registry") {
        required(entry, flag, "ref")?;
    }
    active.iter_mut().for_each(|entry| complete(entry, &environment));
    active.retain(|entry| {
        let has = |name: &str| entry.attrs.get(name).is_some_and(|value| !value.is_empty());
        match (entry.r#type.as_str(), keyed_at(entry)) {
            ("gha", _) => has("token") && (has("url") || has("url_v2")),
            (_, "gha") => has("token") && (has("url_v1") || has("url_v2")),
            _ => true,
        }
    });
    Ok(active)
}

/// Adds what the client's environment says of a service, as buildx does.
fn complete(entry: &mut CacheOptionsEntry, environment: &dyn Fn(&str) -> Option<String>) {
    let told = match (entry.r#type.as_str(), keyed_at(entry)) {
        ("s3", _) | (_, "s3") => of_amazon(entry, environment),
        ("gha", _) => of_github(entry, environment),
        // The cache's own URL has that name already.
        (_, "gha") => {
            let first = |(name, value)| (if name == "url" { "url_v1" } else { name }, value);
            of_github(entry, environment).into_iter().map(first).collect()
        }
        _ => return,
    };
    for (name, value) in told {
        if let Some(value) = value {
            entry.attrs.entry(name.to_owned()).or_insert(value);
        }
    }
}

type Told = Vec<(&'static str, Option<String>)>;

fn of_amazon(entry: &CacheOptionsEntry, environment: &dyn Fn(&str) -> Option<String>) -> Told {
    // A session's token belongs to its key.
    if ["access_key_id", "secret_access_key"].iter().all(|name| entry.attrs.contains_key(*name)) {
        return Vec::new();
    }
    vec![
        ("access_key_id", environment("AWS_ACCESS_KEY_ID")),
        ("secret_access_key", environment("AWS_SECRET_ACCESS_KEY")),
        ("session_token", environment("AWS_SESSION_TOKEN")),
    ]
}

/// What GitHub tells its jobs.
fn of_github(entry: &CacheOptionsEntry, environment: &dyn Fn(&str) -> Option<String>) -> Told {
    let second = match entry.attrs.get("version") {
        Some(version) => version == "2",
        None => environment("ACTIONS_CACHE_SERVICE_V2").as_deref().and_then(boolean).unwrap_or(false),
    };
    let results = environment("ACTIONS_RESULTS_URL");
    vec![
        ("token", environment("ACTIONS_RUNTIME_TOKEN")),
        ("url_v2", results.clone().filter(|_| second)),
        ("url", environment("ACTIONS_CACHE_URL").or(results)),
    ]
}

fn required(entry: &CacheOptionsEntry, flag: &str, name: &str) -> Result<String, ClientError> {
    let given = entry.attrs.get(name).filter(|value| !value.is_empty()).cloned();
    let what = if name == "ref" { "NAME" } else { "DIR" };
    given.ok_or_else(|| ClientError::Usage(format!("`{flag} type={}` needs `{name}={what}`", entry.r#type)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_alone() {
        let refs = |text: &str| {
            let all = entries("--cache-from", text).unwrap().into_iter();
            let name = |entry: CacheOptionsEntry| format!("{} {}", entry.r#type, entry.attrs["ref"]);
            all.map(name).collect::<Vec<_>>()
        };
        assert_eq!(refs(""), [""; 0]);
        assert_eq!(refs("a:1"), ["registry a:1"]);
        assert_eq!(refs("a:1,b:1"), ["registry a:1", "registry b:1"]);
        assert_eq!(refs("type=registry,ref=a"), ["registry a"]);
        for bad in ["a,type=registry", "ref=a", "type=,ref=a"] {
            assert!(entries("--cache-from", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_the_environment_adds() {
        let completed = |text: &str, known: &[(&str, &str)]| {
            let mut entry = entries("--cache-to", text).unwrap().remove(0);
            complete(&mut entry, &|name| {
                known.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned())
            });
            let attrs: Vec<String> = entry.attrs.iter().map(|(k, v)| format!("{k}={v}")).collect();
            attrs.join(" ")
        };
        let key = [
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_SESSION_TOKEN", "session"),
        ];
        assert_eq!(
            completed("type=s3,bucket=b", &key),
            "access_key_id=id bucket=b secret_access_key=secret session_token=session"
        );
        let own = "type=s3,access_key_id=i,secret_access_key=s";
        assert_eq!(completed(own, &key), "access_key_id=i secret_access_key=s");
        assert_eq!(completed("type=s3,bucket=b", &[]), "bucket=b");
        let job = [
            ("ACTIONS_CACHE_SERVICE_V2", "true"),
            ("ACTIONS_RUNTIME_TOKEN", "t"),
            ("ACTIONS_RESULTS_URL", "https://r"),
            ("ACTIONS_CACHE_URL", "https://c"),
        ];
        assert_eq!(completed("type=gha", &job), "token=t url=https://c url_v2=https://r");
        assert_eq!(completed("type=gha,token=x", &job[1..]), "token=x url=https://c");
        assert_eq!(completed("type=gha", &job[1..3]), "token=t url=https://r");
        assert_eq!(completed("type=gha,version=1", &job), "token=t url=https://c version=1");
        assert_eq!(completed("type=registry,ref=r", &key), "ref=r");
        assert_eq!(
            completed("type=keyed,url=s3://b", &key[..2]),
            "access_key_id=id secret_access_key=secret url=s3://b"
        );
        assert_eq!(completed("type=keyed,url=file:///b", &key), "url=file:///b");
        assert_eq!(
            completed("type=keyed,url=gha://", &job),
            "token=t url=gha:// url_v1=https://c url_v2=https://r"
        );
    }

    #[test]
    fn who_we_are_at_google() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{}").unwrap();
        let path = file.path().display().to_string();
        let told = |text: &str, known: Option<&str>| {
            let mut entry = entries("--cache-to", text).unwrap().remove(0);
            let environment = |name: &str| known.filter(|_| name.starts_with("GOOGLE")).map(str::to_owned);
            Caches::default().keyed("--cache-to", &mut entry, &environment).map_err(|e| e.to_string())?;
            entry.attrs.remove("url");
            Ok::<_, String>(entry.attrs.into_iter().collect::<Vec<_>>())
        };
        let credential = vec![("credential".to_owned(), "{}".to_owned())];
        assert_eq!(told("type=keyed,url=gs://b", Some(&path)).unwrap(), credential);
        assert_eq!(told(&format!("type=keyed,url=gs://b,credential_path={path}"), None).unwrap(), credential);
        let token = vec![("token".to_owned(), "t".to_owned())];
        assert_eq!(told("type=keyed,url=gs://b,token=t", Some(&path)).unwrap(), token);
        assert_eq!(told("type=keyed,url=s3://b", Some(&path)).unwrap(), []);
        assert!(told("type=keyed,url=gs://b", Some("/nowhere")).unwrap_err().contains("/nowhere"));
    }

    #[test]
    fn keys_that_are_not_there() {
        let caches = |from: &str, to: &str| {
            let args = Args {
                cache_from: (!from.is_empty()).then(|| from.to_owned()).into_iter().collect(),
                cache_to: (!to.is_empty()).then(|| to.to_owned()).into_iter().collect(),
                ..Args::default()
            };
            args.caches().map(|caches| caches.from.len()).map_err(|e| e.to_string())
        };
        // What cannot be read is done without, what cannot be written as it should be is not.
        for keys in ["trust=", "trust=/nowhere"] {
            let text = format!("type=keyed,url=s3://b,{keys}");
            assert_eq!(caches(&text, ""), Ok(0), "{keys}");
            let error = caches("", &text).unwrap_err();
            assert!(error.starts_with("--cache-to: `trust` of a keyed cache: "), "{error}");
        }
        assert_eq!(caches("type=keyed,url=s3://b,signing-key=/nowhere", ""), Ok(1));
        assert!(caches("", "type=keyed,url=s3://b,signing-key=/nowhere").unwrap_err().contains("/nowhere"));
    }

    #[test]
    fn flags() {
        let args = Args { cache_from: vec!["host/a:1".into()], ..Args::default() };
        let caches = args.caches().unwrap();
        assert_eq!(caches.attr().unwrap(), r#"[{"Type":"registry","Attrs":{"ref":"host/a:1"}}]"#);
        for (text, want) in [
            ("type=local", "needs `src=DIR`"),
            ("ref=x", "no type"),
            ("type=registry,reff=x", "`--cache-from type=registry` needs `ref=NAME`"),
            ("type=registry,x", "`x` is no KEY=VALUE"),
        ] {
            let error = Args { cache_from: vec![text.into()], ..Args::default() }.caches().unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
        }
        let inline = Args { build_args: vec!["BUILDKIT_INLINE_CACHE=1".into()], ..Args::default() };
        assert_eq!(inline.caches().unwrap().to[0].r#type, "inline");
    }
}
