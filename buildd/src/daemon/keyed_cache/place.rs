//! What a client says of a keyed cache: `type=keyed,url=…`.

use std::time::Duration;

use cache::keyed::{Scope, Signer, Trust};
use cache::objects::{Objects, Place};
use cache::oci::Reference;
use frontend::number::{boolean, duration};
use solver::VertexContext;

use super::directory::Directory;
use super::home::{FORMAT, Home, HomeError, Repository};
use super::lend::REFRESH;
use super::mounts::{MERGEABLE, MOUNTS, MountChoice};
use crate::daemon::parts::Parts;
use crate::daemon::remote_cache::{
    ActionsCache, ActionsEntries, Attrs, WrongAttr, azure_container, google_bucket, s3_bucket,
};
use crate::session::Session;

/// The shortest time after which something may expire: what is in use is made young less often than that.
pub(super) const MIN_EXPIRE: Duration = REFRESH.saturating_mul(2);

/// A store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct KeyedPlace {
    /// Its URL, as the client has it.
    pub(super) url: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// A bucket or container, and what precedes the names there.
    Objects(Place, String),
    /// GitHub's cache service.
    Actions(ActionsCache),
    /// A repository.
    Registry(Reference),
    /// A directory of the client, by what it calls it.
    Directory(String),
}

/// A store to look into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct KeyedSource {
    pub(super) place: KeyedPlace,
    /// In this order.
    pub(super) scopes: Vec<Scope>,
    pub(super) trust: Trust,
    /// These cache mounts come from it.
    pub(super) mounts: MountChoice,
}

/// A store to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct KeyedTarget {
    pub(super) place: KeyedPlace,
    pub(super) scope: Scope,
    pub(super) signer: Option<Signer>,
    /// Whose records need not be written again.
    pub(super) trust: Trust,
    /// Also the layers of steps that are not part of the result.
    pub(super) all: bool,
    /// These cache mounts go there.
    pub(super) mounts: MountChoice,
    /// Those of them that are united with what others write.
    pub(super) mergeable: MountChoice,
    /// What was not used for so long is removed.
    pub(super) expire: Option<Duration>,
    /// A failure to write it does not fail the build.
    pub(in crate::daemon) ignore_error: bool,
}

/// What a cache of this kind is called.
pub(in crate::daemon) const KEYED: &str = "keyed";

/// What a store's URL may be.
const KNOWN: &str = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, azblob://CONTAINER/PREFIX, gha://, registry://HOST/REPOSITORY, file:///DIR";

fn wrong(error: impl std::fmt::Display) -> WrongAttr {
    WrongAttr(error.to_string())
}

impl KeyedPlace {
    /// The repository that it is, if it is one.
    pub(super) fn repository(&self) -> Option<&Reference> {
        match &self.kind {
            Kind::Registry(reference) => Some(reference),
            Kind::Objects(..) | Kind::Actions(_) | Kind::Directory(_) => None,
        }
    }

    fn read(attrs: &Attrs<'_>) -> Result<Self, WrongAttr> {
        let url = attrs.get("url").ok_or_else(|| WrongAttr("url is missing".to_owned()))?;
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let kind = match scheme {
            "s3" => {
                let (bucket, prefix) = bucket_and_prefix(&url, rest, "bucket")?;
                let mut named = attrs.attrs.clone();
                named.insert("bucket".to_owned(), bucket);
                // What speaks S3's protocol elsewhere has seldom more than one.
                if attrs.or_env("region", "AWS_REGION").is_none() {
                    named.insert("region".to_owned(), "us-east-1".to_owned());
                }
                let bucket = s3_bucket(&Attrs { attrs: &named, env: attrs.env })?;
                Kind::Objects(Place::S3(bucket), prefix)
            }
            "gs" => {
                let (bucket, prefix) = bucket_and_prefix(&url, rest, "bucket")?;
                Kind::Objects(Place::Google(google_bucket(attrs, &bucket)?), prefix)
            }
            "azblob" | "az" => {
                let (container, prefix) = bucket_and_prefix(&url, rest, "container")?;
                let mut named = attrs.attrs.clone();
                named.insert("container".to_owned(), container);
                let container = azure_container(&Attrs { attrs: &named, env: attrs.env })?;
                Kind::Objects(Place::Azure(container), prefix)
            }
            "gha" if rest.is_empty() => {
                let mut named = attrs.attrs.clone();
                // The service's first protocol is under what `type=gha` calls its `url`.
                named.remove("url");
                named.extend(attrs.get("url_v1").map(|url| ("url".to_owned(), url)));
                Kind::Actions(ActionsCache::read(&Attrs { attrs: &named, env: attrs.env })?)
            }
            "registry" => {
                let reference = Reference::parse(rest).map_err(wrong)?;
                if reference.tag().is_some() || reference.digest().is_some() {
                    return Err(WrongAttr(format!("`{url}` has a tag or a digest: name a repository")));
                }
                Kind::Registry(reference)
            }
            "file" if !rest.is_empty() => Kind::Directory(rest.to_owned()),
            _ => return Err(WrongAttr(format!("`{url}` is no store: use one of {KNOWN}"))),
        };
        Ok(Self { url: solver::redacted(&url).into_owned(), kind })
    }

    /// What tells it from others, without what is secret.
    pub(super) fn id(&self) -> String {
        format!("{self:?}")
    }

    /// Gets ready to talk to it.
    pub(super) async fn open(&self, parts: &Parts, cx: &VertexContext) -> Result<Home, HomeError> {
        match &self.kind {
            Kind::Objects(place, prefix) => Ok(Home::Objects(Objects::open(place)?, prefix.clone())),
            Kind::Actions(cache) => Ok(Home::Actions(ActionsEntries::open(cache, FORMAT)?)),
            Kind::Registry(reference) => {
                Ok(Home::Registry(Repository::new(parts.images.client(cx), reference.clone())))
            }
            Kind::Directory(store) => {
                let session = parts.sessions.first(&cx.sessions.ids()).await.ok_or(HomeError::NoClient)?;
                if !session.has_cache_directories() {
                    return Err(HomeError::ForeignClient);
                }
                Ok(Home::Directory(Directory { session, store: store.clone() }))
            }
        }
    }
}

/// The parts of what follows a URL's scheme; a prefix that is not empty has a slash at its end.
fn bucket_and_prefix(url: &str, rest: &str, what: &str) -> Result<(String, String), WrongAttr> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(WrongAttr(format!("`{url}` names no {what}")));
    }
    let prefix = prefix.trim_matches('/');
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Ok((bucket.to_owned(), prefix))
}

/// What keyed caches take. What only counts for writing may be said of one that is read: one text serves for both.
const OF_CACHES: [&str; 10] = [
    "cache-mounts",
    "expire",
    "ignore-error",
    "mergeable",
    "mode",
    "registry.insecure",
    "scope",
    "signing-key",
    "trust",
    "url",
];
/// What the stores take, as BuildKit's caches there do.
const OF_STORES: [&str; 24] = [
    "access_key_id",
    "account_name",
    "account_url",
    "anonymous",
    "credential",
    "credential_path",
    "disable_accept_encoding",
    "endpoint",
    "endpoint_url",
    "ghtoken",
    "region",
    "repository",
    "retry_max_attempts",
    "retry_mode",
    "secret_access_key",
    "session_token",
    "timeout",
    "token",
    "touch_refresh",
    "upload_parallelism",
    "url_v1",
    "url_v2",
    "use_path_style",
    "version",
];

/// A misspelt `trust` must not mean that everything is trusted.
fn check_names(attrs: &Attrs<'_>) -> Result<(), WrongAttr> {
    let known = |name: &str| OF_CACHES.contains(&name) || OF_STORES.contains(&name);
    match attrs.attrs.keys().find(|name| !known(name)) {
        Some(unknown) => Err(WrongAttr(format!("a keyed cache has no attribute `{unknown}`"))),
        None => Ok(()),
    }
}

impl KeyedSource {
    /// # Errors
    /// What is missing, malformed or unknown.
    pub(in crate::daemon) fn read(attrs: &Attrs<'_>) -> Result<Self, WrongAttr> {
        check_names(attrs)?;
        let (place, scopes, trust) = (KeyedPlace::read(attrs)?, scopes(attrs)?, trust(attrs)?);
        Ok(Self { place, scopes, trust, mounts: MountChoice::read(attrs, MOUNTS)? })
    }

    /// What it is called.
    pub(in crate::daemon) fn name(&self) -> String {
        named(&self.place, &self.scopes)
    }
}

impl KeyedTarget {
    /// # Errors
    /// What is missing, malformed or unknown.
    pub(in crate::daemon) fn read(attrs: &Attrs<'_>) -> Result<Self, WrongAttr> {
        check_names(attrs)?;
        let scopes = scopes(attrs)?;
        let [scope] = scopes.as_slice() else {
            return Err(WrongAttr("only one scope can be written".to_owned()));
        };
        not_empty(attrs, "signing-key")?;
        let signer = attrs.get("signing-key").map(|pem| Signer::from_pem(&pem)).transpose();
        let signer = signer.map_err(|e| WrongAttr(format!("signing-key: {e}")))?;
        let expire = match attrs.get("expire") {
            None => None,
            Some(text) => {
                let none = || format!("expire: `{text}` is no span of time such as `14d`, `2w` or `36h`");
                let expire = span(&text).ok_or_else(|| WrongAttr(none()))?;
                if expire < MIN_EXPIRE {
                    return Err(WrongAttr(
                        "expire: less than a day is too short to tell what is in use".to_owned(),
                    ));
                }
                Some(expire)
            }
        };
        let all = match attrs.or("mode", "max").as_str() {
            "max" | "" => true,
            "min" => false,
            other => return Err(WrongAttr(format!("mode must be min or max, not `{other}`"))),
        };
        let ignore = attrs.or("ignore-error", "");
        let ignore_error = ignore.is_empty().then_some(false).or_else(|| boolean(&ignore));
        Ok(Self {
            place: KeyedPlace::read(attrs)?,
            scope: scope.clone(),
            trust: match &signer {
                Some(_) => trust(attrs)?.and(signer.as_ref()),
                None => trust(attrs)?,
            },
            signer,
            all,
            mounts: MountChoice::read(attrs, MOUNTS)?,
            mergeable: MountChoice::read(attrs, MERGEABLE)?,
            expire,
            ignore_error: ignore_error
                .ok_or_else(|| WrongAttr(format!("ignore-error: invalid value `{ignore}`")))?,
        })
    }

    /// What it is called.
    pub(in crate::daemon) fn name(&self) -> String {
        named(&self.place, std::slice::from_ref(&self.scope))
    }

    /// What was asked of it that has no effect.
    pub(in crate::daemon) fn idle(&self) -> Vec<String> {
        let (mut idle, name) = (Vec::new(), solver::redacted(&self.name()).into_owned());
        let ruled = match self.place.kind {
            Kind::Registry(_) => Some("a registry removes what is old by rules of its own"),
            Kind::Actions(_) => Some("GitHub removes what is old by rules of its own"),
            Kind::Objects(..) | Kind::Directory(_) => None,
        };
        if let Some(ruled) = ruled.filter(|_| self.expire.is_some()) {
            idle.push(format!("`expire=` has no effect on the cache {name}: {ruled}"));
        }
        if self.mounts.is_empty() && !self.mergeable.is_empty() {
            idle.push(format!("`{MERGEABLE}=` has no effect on the cache {name} without `{MOUNTS}=`"));
            return idle;
        }
        for id in self.mergeable.beyond(&self.mounts) {
            idle.push(format!(
                "`{MERGEABLE}={id}` has no effect on the cache {name}: `{MOUNTS}=` does not name it"
            ));
        }
        idle
    }

    /// Whether it is a directory of the client.
    pub(in crate::daemon) fn is_directory(&self) -> bool {
        matches!(self.place.kind, Kind::Directory(_))
    }

    /// Refuses a directory of a client that offers none.
    ///
    /// # Errors
    /// The client is another program, or there is none.
    pub(in crate::daemon) fn check(&self, client: Option<&Session>) -> Result<(), HomeError> {
        let offered = client.is_some_and(Session::has_cache_directories);
        match offered || self.ignore_error || !self.is_directory() {
            true => Ok(()),
            false => Err(HomeError::ForeignClient),
        }
    }
}

fn named(place: &KeyedPlace, scopes: &[Scope]) -> String {
    let scopes: Vec<&str> = scopes.iter().map(Scope::as_str).collect();
    let word = if scopes.len() == 1 { "scope" } else { "scopes" };
    format!("{} ({word} {})", place.url, scopes.join(", "))
}

fn scopes(attrs: &Attrs<'_>) -> Result<Vec<Scope>, WrongAttr> {
    match attrs.get("scope") {
        None => Ok(vec![Scope::default()]),
        Some(names) => names.split(';').map(|name| name.parse().map_err(wrong)).collect(),
    }
}

/// What decides whom to trust must not mean nothing because a variable is not set.
fn not_empty(attrs: &Attrs<'_>, name: &str) -> Result<(), WrongAttr> {
    match attrs.attrs.get(name) {
        Some(value) if value.trim().is_empty() => Err(WrongAttr(format!("{name} is empty"))),
        _ => Ok(()),
    }
}

fn trust(attrs: &Attrs<'_>) -> Result<Trust, WrongAttr> {
    not_empty(attrs, "trust")?;
    match attrs.get("trust") {
        None => Ok(Trust::default()),
        Some(keys) => Trust::only([keys.as_str()]).map_err(|e| WrongAttr(format!("trust: {e}"))),
    }
}

/// A span of time as Go writes it, after weeks and days if there are any: `14d`, `2w`, `1d12h`.
fn span(text: &str) -> Option<Duration> {
    let (mut rest, mut seconds) = (text, 0u64);
    for (unit, length) in [("w", 604_800), ("d", 86_400)] {
        if let Some((count, after)) = rest.split_once(unit) {
            seconds = seconds.checked_add(count.parse::<u64>().ok()?.checked_mul(length)?)?;
            rest = after;
        }
    }
    let span = Duration::from_secs(seconds);
    match rest {
        "" => (rest.len() < text.len()).then_some(span),
        rest => span.checked_add(duration(rest)?),
    }
}

#[cfg(test)]
mod tests;
