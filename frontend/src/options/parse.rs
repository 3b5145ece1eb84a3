//! From attributes to options.

use std::collections::BTreeMap;
use std::net::IpAddr;

use solver::op::{HostIp, NetMode, Platform};

use super::context::DEFAULT_NAME;
use super::{BuildOptions, CacheImport, ContextSpec, MainContext, NoCache, OptionError, ResolveMode, limits};
use crate::lint::CheckOptions;
use crate::number::boolean;
use crate::parse::csv;
use crate::platform;

type Attrs = BTreeMap<String, String>;

pub(super) fn parse(attrs: &Attrs, build_platform: Platform) -> Result<BuildOptions, OptionError> {
    refuse_removed(attrs)?;
    let get = |key: &str| attrs.get(key).filter(|value| !value.is_empty()).cloned();
    let text = |key: &str| get(key).unwrap_or_default();
    let platforms = platforms(&text("platform"), &build_platform)?;
    let check = attrs.get("build-arg:BUILDKIT_DOCKERFILE_CHECK");
    Ok(BuildOptions {
        target: get("target"),
        build_args: with_prefix(attrs, "build-arg:"),
        labels: with_prefix(attrs, "label:"),
        multi_platform: multi_platform(attrs, platforms.len() > 1)?,
        platforms,
        no_cache: no_cache(attrs.get("no-cache")),
        context: main_context(attrs)?,
        filename: attrs.get("filename").cloned().unwrap_or_else(|| "Dockerfile".to_owned()),
        dockerfile_local: attrs.get("dockerfilekey").cloned().unwrap_or_else(|| "dockerfile".to_owned()),
        dockerfile_is_local: attrs.contains_key("dockerfilekey"),
        named_contexts: with_prefix(attrs, "context:"),
        shared_keys: with_prefix(attrs, "sharedkey:localdir:"),
        input_metadata: with_prefix(attrs, "input-metadata:"),
        session: None,
        local_sessions: with_prefix(attrs, "local-sessionid:"),
        network: network(&text("force-network-mode"))?,
        extra_hosts: list("add-hosts", &text("add-hosts"), extra_host)?,
        hostname: get("build-arg:BUILDKIT_SANDBOX_HOSTNAME").unwrap_or_else(|| text("hostname")),
        shm_size: shm_size(&text("shm-size"))?,
        ulimits: list("ulimit", &text("ulimit"), limits::ulimit)?,
        cgroup_parent: text("cgroup-parent"),
        resources: limits::resources(attrs)?,
        devices: false,
        resolve_mode: resolve_mode(&text("image-resolve-mode"))?,
        cache_mount_namespace: text("build-arg:BUILDKIT_CACHE_MOUNT_NS"),
        cache_imports: cache_imports(attrs)?,
        check: check.map(|text| CheckOptions::parse(text)).transpose()?,
        all_stages: false,
        subrequest: get("requestid"),
        frontend_image: get("source"),
        command_line: get("cmdline"),
        attestations: with_prefix(attrs, "attest:"),
        build_platform,
    })
}

fn refuse_removed(attrs: &Attrs) -> Result<(), OptionError> {
    if attrs.get("override-copy-image").is_some_and(|image| !image.is_empty()) {
        return Err(OptionError::Removed("override-copy-image"));
    }
    let disabled = attrs.get("build-arg:BUILDKIT_DISABLE_FILEOP").and_then(|text| boolean(text));
    if disabled == Some(true) { Err(OptionError::Removed("BUILDKIT_DISABLE_FILEOP")) } else { Ok(()) }
}

fn with_prefix(attrs: &Attrs, prefix: &str) -> Attrs {
    let strip =
        |(key, value): (&String, &String)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone()));
    attrs.iter().filter_map(strip).collect()
}

fn platforms(text: &str, host: &Platform) -> Result<Vec<Platform>, OptionError> {
    let one = |text: &str| {
        let parsed = platform::parse(text, host);
        parsed
            .map(|parsed| platform::normalize(&parsed))
            .map_err(|source| OptionError::Platform { platform: text.to_owned(), source })
    };
    if text.is_empty() { Ok(Vec::new()) } else { text.split(',').map(one).collect() }
}

fn multi_platform(attrs: &Attrs, several: bool) -> Result<bool, OptionError> {
    let given = ["build-arg:BUILDKIT_MULTI_PLATFORM", "multi-platform"]
        .into_iter()
        .find_map(|key| attrs.get(key).filter(|value| !value.is_empty()));
    let Some(text) = given else { return Ok(several) };
    match boolean(text) {
        None => Err(OptionError::MultiPlatform(text.clone())),
        Some(false) if several => Err(OptionError::SeveralPlatforms),
        Some(wanted) => Ok(wanted),
    }
}

fn no_cache(attr: Option<&String>) -> NoCache {
    match attr {
        None => NoCache::None,
        Some(names) if names.is_empty() => NoCache::All,
        Some(names) => NoCache::Stages(names.split(',').map(str::to_lowercase).collect()),
    }
}

fn main_context(attrs: &Attrs) -> Result<MainContext, OptionError> {
    let key = attrs.get("contextkey").map_or(DEFAULT_NAME, String::as_str);
    let keep_git_dir = attrs.get("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR").and_then(|text| boolean(text));
    let dated = attrs.get("build-arg:SOURCE_DATE_EPOCH").is_some_and(|epoch| !epoch.is_empty());
    let spec = match attrs.get(key) {
        Some(text) => ContextSpec::parse(text, keep_git_dir == Some(true), dated)?,
        None => ContextSpec::default(),
    };
    Ok(MainContext { spec, subdir: attrs.get("contextsubdir").cloned() })
}

fn network(text: &str) -> Result<NetMode, OptionError> {
    match text {
        "" | "sandbox" => Ok(NetMode::Unset),
        "none" => Ok(NetMode::None),
        "host" => Ok(NetMode::Host),
        other => Err(OptionError::Network(other.to_owned())),
    }
}

fn resolve_mode(text: &str) -> Result<ResolveMode, OptionError> {
    match text {
        "" | "default" => Ok(ResolveMode::Default),
        "pull" => Ok(ResolveMode::ForcePull),
        "local" => Ok(ResolveMode::PreferLocal),
        other => Err(OptionError::ResolveMode(other.to_owned())),
    }
}

fn list<T>(
    key: &'static str,
    text: &str,
    one: fn(&str) -> Result<T, OptionError>,
) -> Result<Vec<T>, OptionError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let fields = csv::fields(text).map_err(|source| OptionError::List { key, source })?;
    fields.iter().map(|field| one(field)).collect()
}

fn extra_host(field: &str) -> Result<HostIp, OptionError> {
    let lower = field.to_lowercase();
    let (host, ip) = lower.split_once('=').ok_or_else(|| OptionError::HostPair(field.to_owned()))?;
    let ip: IpAddr = ip.parse().map_err(|_| OptionError::HostAddress(ip.to_owned()))?;
    Ok(HostIp { host: host.to_owned(), ip: ip.to_canonical().to_string() })
}

fn shm_size(text: &str) -> Result<i64, OptionError> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| OptionError::Number { key: "shm-size", value: text.to_owned(), rule: "" })
}

/// The JSON list of `cache-imports`, and the older list of registry references.
fn cache_imports(attrs: &Attrs) -> Result<Vec<CacheImport>, OptionError> {
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(rename = "Type", alias = "type", default)]
        kind: String,
        #[serde(rename = "Attrs", alias = "attrs", default)]
        attrs: Attrs,
    }
    let mut imports = Vec::new();
    if let Some(json) = attrs.get("cache-imports").filter(|json| !json.is_empty()) {
        let entries: Vec<Entry> =
            serde_json::from_str(json).map_err(|_| OptionError::CacheImports(json.clone()))?;
        imports.extend(entries.into_iter().map(|entry| CacheImport { kind: entry.kind, attrs: entry.attrs }));
    }
    let references = attrs.get("cache-from").filter(|list| !list.is_empty());
    let reference = |reference: &str| CacheImport {
        kind: "registry".to_owned(),
        attrs: [("ref".to_owned(), reference.to_owned())].into(),
    };
    imports.extend(references.into_iter().flat_map(|list| list.split(',')).map(reference));
    Ok(imports)
}
