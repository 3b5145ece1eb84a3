//! `buildd.toml`: buildkitd.toml's names where the meaning is the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::peer;

/// The whole file. Unknown keys are warned of, wrong types are errors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Config {
    /// Where state is kept; `--root` wins.
    pub root: Option<PathBuf>,
    /// Log more.
    pub debug: bool,
    /// What builds may ask for: `network.host`, `security.insecure`; see [`Self::entitlements`] where it is missing.
    pub insecure_entitlements: Option<Vec<String>>,
    /// Settings by registry host.
    pub registry: BTreeMap<String, Registry>,
    /// Where clients connect.
    pub grpc: Grpc,
    /// Settings of the worker; the table has BuildKit's name.
    pub worker: Workers,
    /// Name servers of sandboxes.
    pub dns: Option<DnsConfig>,
    /// Devices for steps.
    pub cdi: CdiConfig,
    /// The daemon's log.
    pub log: LogConfig,
    /// Settings by frontend, `dockerfile.v0` and `gateway.v0`.
    pub frontend: BTreeMap<String, FrontendConfig>,
    /// Steps reach nothing but what a proxy allows. This daemon has none.
    #[serde(rename = "proxyNetwork")]
    pub proxy_network: bool,
    /// Shared caches.
    pub cache: SharedCacheConfig,
    /// How long builds that run may go on when the daemon is told to leave.
    #[serde(rename = "shutdownGrace")]
    pub shutdown_grace: Option<Period>,
    /// What is kept of past builds.
    pub history: HistoryConfig,
    /// A directory of JSON files, objects that provenance's parameters take in.
    #[serde(rename = "provenanceEnvDir")]
    pub provenance_env_dir: Option<PathBuf>,
}

/// `[cache]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SharedCacheConfig {
    /// Caches at GitHub's service.
    pub gha: ActionsCacheConfig,
}

/// `[cache.gha]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ActionsCacheConfig {
    /// Who has to have signed them.
    pub verify: ActionsVerifyConfig,
}

/// `[cache.gha.verify]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ActionsVerifyConfig {
    /// Only signed caches are read. This daemon reads no signatures.
    pub required: bool,
}

/// `[cdi]`: the Container Device Interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CdiConfig {
    /// No step gets a device.
    pub disabled: bool,
    /// Directories with vendors' files, the last first in rank; `--cdi-spec-dir` wins. Empty: the usual ones.
    pub spec_dirs: Vec<PathBuf>,
    /// Devices that every build may use, by name or kind.
    pub auto_allowed: Vec<String>,
}

/// `[log]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// How lines look; `--log-format` wins.
    pub format: LogFormat,
    /// The least that is logged: `error`, `warn`, `info`, `debug` or `trace`; `--log-level` and `--debug` win.
    pub level: Option<LogLevel>,
}

/// How the log's lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    #[serde(alias = "")]
    Text,
    /// One object a line.
    Json,
}

/// The least that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What failed.
    #[serde(alias = "fatal", alias = "panic")]
    Error,
    /// What may fail.
    #[serde(alias = "warning")]
    Warn,
    /// What happens.
    Info,
    /// Why it does.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The level of a name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace].into_iter().find(|l| l.name() == name)
    }

    /// As filters have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `[frontend."NAME"]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FrontendConfig {
    /// Whether it may be asked; it may where the key is missing.
    pub enabled: Option<bool>,
    /// For `gateway.v0`: repositories whose images may be frontends; empty: all.
    pub allowed_repositories: Vec<String>,
}

/// `[[registry."HOST".keypair]]`: PEM files with which the daemon shows a registry who it is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Keypair {
    /// The key.
    pub key: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
}

/// `[registry."HOST"]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Registry {
    /// Hosts that are asked first; a mirror of `docker.io` answers for `library/X`.
    pub mirrors: Vec<String>,
    /// Plain HTTP.
    pub http: Option<bool>,
    /// TLS without verification.
    pub insecure: Option<bool>,
    /// PEM files of certificate authorities to trust besides the usual ones.
    pub ca: Vec<PathBuf>,
    /// Client certificates.
    pub keypair: Vec<Keypair>,
}

/// `[grpc]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Grpc {
    /// `unix://PATH` or `tcp://HOST:PORT`; `--addr` wins.
    pub address: Vec<String>,
    /// Where figures for Prometheus are served, as `address` or `HOST:PORT`; `--debugaddr` wins.
    #[serde(rename = "debugAddress")]
    pub debug_address: Option<String>,
    /// The user that unix sockets belong to; the daemon's own where it is missing.
    pub uid: Option<u32>,
    /// The group whose members may connect to unix sockets; nobody else may where it is missing.
    pub gid: Option<u32>,
    /// What of `insecure-entitlements` single clients may ask for: `uid:N`, `cert:SHA256`, or `*` for all others. Who is not
    /// named may ask for everything.
    pub entitlements: BTreeMap<String, Vec<String>>,
    /// Encryption of tcp addresses.
    pub tls: GrpcTls,
}

/// `[grpc.tls]`: PEM files. `--tlscert` and its like win.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrpcTls {
    /// The daemon's certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Authorities that clients' certificates have to come from.
    pub ca: Option<PathBuf>,
}

/// `[worker]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Workers {
    /// `[worker.oci]`, the only kind there is.
    pub oci: OciWorker,
}

/// `[worker.oci]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OciWorker {
    /// How many steps run at a time, over all builds; 0 is a number fit for the machine.
    #[serde(rename = "max-parallelism")]
    pub max_parallelism: usize,
    /// What the worker says of itself besides, as `key = "value"`.
    pub labels: BTreeMap<String, String>,
    /// Whether garbage is collected.
    pub gc: bool,
    /// Rules of garbage collection in place of the default ones; the bounds below do not count then.
    pub gcpolicy: Vec<GcPolicy>,
    /// The older name of `reservedSpace`, which wins.
    pub gckeepstorage: Option<Size>,
    /// Bytes below which nothing is collected.
    pub reserved_space: Option<Size>,
    /// Bytes that the cache may hold.
    pub max_used_space: Option<Size>,
    /// Bytes that should stay free on the disk.
    pub min_free_space: Option<Size>,
    /// Platforms that clients are told of besides the machine's own.
    pub platforms: Vec<String>,
    /// Whether there is a worker. There is no other, so it cannot be off.
    pub enabled: Option<bool>,
    /// A profile of AppArmor that steps have to run under. They cannot here.
    #[serde(rename = "apparmor-profile")]
    pub apparmor_profile: String,
    /// Steps have to run under SELinux. They cannot here.
    pub selinux: bool,
    /// The cgroup that those of steps lie in which name none themselves, from the tops of the hierarchies on.
    pub default_cgroup_parent: String,
    /// What one step may use.
    pub step: StepConfig,
}

/// `[worker.oci.step]`: what a step may use that asks for nothing else. Where a key is missing the machine decides
/// ([`super::worker::StepLimits`]).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StepConfig {
    /// Processes and threads; 0 is any number.
    pub pids: Option<u64>,
    /// Bytes of memory, or a share of the machine's; 0 is all there is.
    pub memory: Option<Size>,
}

impl Default for OciWorker {
    fn default() -> Self {
        Self {
            max_parallelism: 0,
            labels: BTreeMap::new(),
            gc: true,
            gcpolicy: Vec::new(),
            gckeepstorage: None,
            reserved_space: None,
            max_used_space: None,
            min_free_space: None,
            platforms: Vec::new(),
            enabled: None,
            apparmor_profile: String::new(),
            selinux: false,
            default_cgroup_parent: String::new(),
            step: StepConfig::default(),
        }
    }
}

/// `[[worker.oci.gcpolicy]]`: a rule of garbage collection; they are applied one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GcPolicy {
    /// Internal things too.
    pub all: bool,
    /// Of what to remove things, as `du --filter` has it; empty is of everything.
    pub filters: Vec<String>,
    /// What was used within this time stays.
    pub keep_duration: Period,
    /// The older name of `maxUsedSpace`, which wins.
    pub keep_bytes: Option<Size>,
    /// Bytes below which nothing is removed.
    pub reserved_space: Option<Size>,
    /// Bytes above which things are removed.
    pub max_used_space: Option<Size>,
    /// Bytes of the disk that should be free.
    pub min_free_space: Option<Size>,
}

/// `[history]`: what is kept of past builds; where a key is missing, 48 hours and 50 builds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HistoryConfig {
    /// Builds older than this go, once there are more than `max_entries`.
    pub max_age: Option<Period>,
    /// How many builds are kept whatever their age.
    pub max_entries: Option<usize>,
}

/// A time: seconds, or a text such as `48h` or `1h30m`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "GivenPeriod")]
pub struct Period(pub Duration);

#[derive(Deserialize)]
#[serde(untagged)]
enum GivenPeriod {
    Seconds(u64),
    Text(String),
}

/// A text that is no time.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no time: want seconds, or a text such as \"48h\" or \"1h30m\"")]
struct NoPeriod(String);

impl TryFrom<GivenPeriod> for Period {
    type Error = NoPeriod;

    fn try_from(given: GivenPeriod) -> Result<Self, NoPeriod> {
        let text = match given {
            GivenPeriod::Seconds(n) => return Ok(Self(Duration::from_secs(n))),
            GivenPeriod::Text(text) => text,
        };
        let seconds = text.parse().ok().map(Duration::from_secs);
        seconds.or_else(|| frontend::number::duration(&text)).map(Self).ok_or(NoPeriod(text))
    }
}

/// `[dns]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DnsConfig {
    /// Addresses.
    pub nameservers: Vec<std::net::IpAddr>,
    /// resolv.conf's `options`.
    pub options: Vec<String>,
    /// resolv.conf's `search`.
    pub search_domains: Vec<String>,
}

/// An amount of disk space or memory: bytes, or a text such as `10GB` or `15%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "GivenSize")]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// A share of the file system, or of the machine's memory.
    Percent(u64),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum GivenSize {
    Number(u64),
    Text(String),
}

/// A text that is no size.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no size: want bytes, or a text such as \"10GB\", \"512MiB\" or \"15%\"")]
struct NoSize(String);

impl TryFrom<GivenSize> for Size {
    type Error = NoSize;

    fn try_from(given: GivenSize) -> Result<Self, NoSize> {
        match given {
            GivenSize::Number(n) => Ok(Self::Bytes(n)),
            GivenSize::Text(text) => Self::read(text.trim()).ok_or(NoSize(text)),
        }
    }
}

impl Size {
    /// The amount in bytes where there are `all` bytes.
    pub fn bytes(self, all: u64) -> u64 {
        match self {
            Self::Bytes(n) => n,
            Self::Percent(n) => u64::try_from(u128::from(all) * u128::from(n) / 100).unwrap_or(u64::MAX),
        }
    }

    fn read(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let n: u64 = text[..digits].parse().ok()?;
        let factor = match text[digits..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" => 1_000,
            "m" | "mb" => 1_000_000,
            "g" | "gb" => 1_000_000_000,
            "t" | "tb" => 1_000_000_000_000,
            "kib" => 1 << 10,
            "mib" => 1 << 20,
            "gib" => 1 << 30,
            "tib" => 1 << 40,
            "%" => return Some(Self::Percent(n)),
            _ => return None,
        };
        n.checked_mul(factor).map(Self::Bytes)
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration `{path}`")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A client's name that is none.
    #[error("`{0}` in `[grpc.entitlements]` names no client: want `uid:N`, `cert:SHA256` or `*`")]
    Client(String),
    /// It asks for protection that there is none of here: to go on without would be a lie.
    #[error("`{0}` cannot be had from this daemon")]
    Unprotected(&'static str),
    /// A file for provenance is no JSON object.
    #[error("`{path}` is no JSON object")]
    Environment {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        #[source]
        source: serde_json::Error,
    },
    /// A file for provenance says what a build says itself.
    #[error("`{path}`: `{key}` is told by the build itself")]
    OwnParameter {
        /// Which file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// The file is no TOML, or a value has the wrong type.
    #[error("invalid configuration `{path}`")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
    },
}

/// What provenance's parameters say anyway, in either version.
const OWN_PARAMETERS: [&str; 4] = ["buildConfig", "builderPlatform", "dockerfileVersion", "platform"];

impl Config {
    /// What builds may ask for.
    ///
    /// A daemon without root serves its own user, and its host network is no more than what that user has anyway: where
    /// the file says nothing, a build may ask for it.
    pub fn entitlements(&self, rootless: bool) -> Vec<String> {
        let own = || if rootless { vec!["network.host".to_owned()] } else { Vec::new() };
        self.insecure_entitlements.clone().unwrap_or_else(own)
    }

    /// What provenance says besides: all that the files of the directory hold, later names over earlier ones.
    ///
    /// # Errors
    /// A file that cannot be read, or holds no JSON object.
    pub(super) fn provenance_environment(
        &self,
    ) -> Result<serde_json::Map<String, serde_json::Value>, ConfigError> {
        let mut all = serde_json::Map::new();
        let Some(dir) = &self.provenance_env_dir else { return Ok(all) };
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |source| ConfigError::Read { path, source }
        };
        let entries = fs_err::read_dir(dir).map_err(unreadable(dir))?;
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        for path in paths {
            let text = fs_err::read(&path).map_err(unreadable(&path))?;
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text)
                .map_err(|source| ConfigError::Environment { path: path.clone(), source })?;
            if let Some(taken) = object.keys().find(|key| OWN_PARAMETERS.contains(&key.as_str())) {
                return Err(ConfigError::OwnParameter { path, key: taken.clone() });
            }
            all.extend(object);
        }
        Ok(all)
    }

    /// Reads the file that was given, or the default one if it exists, and returns the keys that nothing reads.
    ///
    /// # Errors
    /// See [`Self::load`].
    pub fn find(given: Option<&Path>, default: Option<&Path>) -> Result<(Self, Vec<String>), ConfigError> {
        match given.or_else(|| default.filter(|path| path.exists())) {
            Some(path) => Self::load(path),
            None => Ok((Self::default(), Vec::new())),
        }
    }

    /// Reads a file, and returns the keys that nothing reads.
    ///
    /// # Errors
    /// When the file cannot be read, is no TOML, or a value has the wrong type.
    pub fn load(path: &Path) -> Result<(Self, Vec<String>), ConfigError> {
        let text =
            fs_err::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let (config, unknown) = Self::parse(&text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })?;
        Ok((config, unknown))
    }

    /// Looks at it once more, when everything else has been said that is to count.
    ///
    /// # Errors
    /// Wishes that cannot be had and must not be passed over; a client that nobody can be.
    pub fn check(&self) -> Result<(), ConfigError> {
        let worker = &self.worker.oci;
        let wishes = [
            (self.proxy_network, "proxyNetwork"),
            (!worker.apparmor_profile.is_empty(), "worker.oci.apparmor-profile"),
            (worker.selinux, "worker.oci.selinux"),
            (self.cache.gha.verify.required, "cache.gha.verify.required"),
            (worker.enabled == Some(false), "worker.oci.enabled = false"),
        ];
        if let Some(bad) = self.grpc.entitlements.keys().find(|name| !peer::is_name(name)) {
            return Err(ConfigError::Client(bad.clone()));
        }
        match wishes.into_iter().find(|(wanted, _)| *wanted) {
            Some((_, key)) => Err(ConfigError::Unprotected(key)),
            None => Ok(()),
        }
    }

    fn parse(text: &str) -> Result<(Self, Vec<String>), toml::de::Error> {
        let given: toml::Table = toml::from_str(text)?;
        let config = toml::from_str(text)?;
        Ok((config, unknown(&given)))
    }
}

/// Keys that this version reads, dotted; `*` is any name.
const KNOWN: &[&str] = &[
    "root",
    "debug",
    "insecure-entitlements",
    "provenanceEnvDir",
    "shutdownGrace",
    "registry.*.mirrors",
    "registry.*.http",
    "registry.*.insecure",
    "registry.*.ca",
    "registry.*.keypair.key",
    "registry.*.keypair.cert",
    "grpc.address",
    "grpc.debugAddress",
    "grpc.uid",
    "grpc.gid",
    "grpc.entitlements.*",
    "grpc.tls.cert",
    "grpc.tls.key",
    "grpc.tls.ca",
    "worker.oci.max-parallelism",
    "worker.oci.platforms",
    "worker.oci.gc",
    "worker.oci.gckeepstorage",
    "worker.oci.gcpolicy.all",
    "worker.oci.gcpolicy.filters",
    "worker.oci.gcpolicy.keepDuration",
    "worker.oci.gcpolicy.keepBytes",
    "worker.oci.gcpolicy.reservedSpace",
    "worker.oci.gcpolicy.maxUsedSpace",
    "worker.oci.gcpolicy.minFreeSpace",
    "worker.oci.labels.*",
    "worker.oci.reservedSpace",
    "worker.oci.maxUsedSpace",
    "worker.oci.minFreeSpace",
    "worker.oci.defaultCgroupParent",
    "worker.oci.step.pids",
    "worker.oci.step.memory",
    "cdi.disabled",
    "cdi.specDirs",
    "cdi.autoAllowed",
    "log.format",
    "log.level",
    "frontend.*.enabled",
    "frontend.*.allowedRepositories",
    "history.maxAge",
    "history.maxEntries",
    "dns.nameservers",
    "dns.options",
    "dns.searchDomains",
];

/// Keys that say what holds here anyway: the only worker is on, platforms are looked at each time, the default protection
/// is what there is.
const NATURAL: &[&str] = &[
    "proxyNetwork",
    "worker.oci.enabled",
    "worker.oci.apparmor-profile",
    "worker.oci.selinux",
    "cache.gha.verify.required",
    "system.platformsCacheMaxAge",
];

fn unknown(table: &toml::Table) -> Vec<String> {
    let mut found = Vec::new();
    collect(table, &mut Vec::new(), &mut found);
    found
}

fn collect(table: &toml::Table, path: &mut Vec<String>, found: &mut Vec<String>) {
    for (key, value) in table {
        path.push(key.clone());
        match value {
            toml::Value::Table(t) => collect(t, path, found),
            toml::Value::Array(list) if list.iter().any(toml::Value::is_table) => {
                list.iter().filter_map(toml::Value::as_table).for_each(|t| collect(t, path, found));
            }
            _ if KNOWN.iter().chain(NATURAL).any(|k| matches_key(k, path)) => {}
            _ => found.push(path.join(".")),
        }
        path.pop();
    }
}

/// `*` stands for any number of names, as a registry's host may hold dots.
fn matches_key(known: &str, path: &[String]) -> bool {
    let parts: Vec<&str> = known.split('.').collect();
    parts.len() == path.len() && parts.iter().zip(path).all(|(k, p)| *k == "*" || k == p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_harness_writes() {
        let text = "insecure-entitlements = [\"network.host\", \"security.insecure\"]\n\
                    [registry.\"docker.io\"]\n  mirrors = [\"127.0.0.1:5000\"]\n[registry.\"127.0.0.1:5000\"]\n  http = true\n";
        let (c, unknown) = Config::parse(text).unwrap();
        assert_eq!(c.entitlements(false), ["network.host", "security.insecure"]);
        assert_eq!(c.registry["docker.io"].mirrors, ["127.0.0.1:5000"]);
        assert_eq!(c.registry["127.0.0.1:5000"].http, Some(true));
        assert!(unknown.is_empty());
    }

    #[test]
    fn what_a_stock_file_says() {
        let text = "proxyNetwork = false\n[log]\nformat = \"json\"\nlevel = \"warning\"\n\
                    [worker.oci]\nenabled = true\nplatforms = [\"linux/arm64\"]\napparmor-profile = \"\"\n\
                    [frontend.\"gateway.v0\"]\nenabled = true\nallowedRepositories = [\"h/r\"]\n\
                    [system]\nplatformsCacheMaxAge = \"1h\"\n\
                    [[registry.\"docker.io\".keypair]]\nkey = \"/k\"\ncert = \"/c\"\n";
        let (c, unknown) = Config::parse(text).unwrap();
        assert_eq!(unknown, [""; 0]);
        assert_eq!((c.log.format, c.log.level.map(LogLevel::name)), (LogFormat::Json, Some("warn")));
        assert_eq!(c.frontend["gateway.v0"].allowed_repositories, ["h/r"]);
        assert_eq!(c.registry["docker.io"].keypair[0].cert, Path::new("/c"));
        assert!(c.check().is_ok());
        for wish in [
            "proxyNetwork = true",
            "[worker.oci]\napparmor-profile = \"p\"",
            "[worker.oci]\nselinux = true",
            "[cache.gha.verify]\nrequired = true",
            "[worker.oci]\nenabled = false",
        ] {
            let error = Config::parse(wish).unwrap().0.check().unwrap_err().to_string();
            assert!(error.ends_with("cannot be had from this daemon"), "{wish}: {error}");
        }
        let error =
            Config::parse("[grpc.entitlements]\nroot = []\n").unwrap().0.check().unwrap_err().to_string();
        assert!(error.contains("`root` in `[grpc.entitlements]` names no client"), "{error}");
        assert!(Config::parse("[log]\nformat = \"xml\"\n").is_err());
    }

    #[test]
    fn the_manual_shows_every_key() {
        let manual = include_str!("../../../docs/buildd.md");
        let sample = manual.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let (_, unknown) = Config::parse(sample).unwrap();
        assert_eq!(unknown, [""; 0]);
        for key in KNOWN {
            let (table, name) = (key.trim_end_matches(".*"), key.trim_end_matches(".*").rsplit('.').next());
            let shows = |l: &str| l.starts_with(&format!("[{table}]")) || l.split(['=', ' ']).next() == name;
            assert!(sample.lines().any(shows), "{key}");
        }
    }

    #[test]
    fn unknown_keys_are_named_and_wrong_types_are_errors() {
        let (_, unknown) = Config::parse("trace = true\n[worker.oci]\ngc = false\nrootles = 1\n").unwrap();
        assert_eq!(unknown, ["trace", "worker.oci.rootles"]);
        let err = Config::parse("debug = \"yes\"\n").unwrap_err();
        assert!(err.to_string().contains("boolean"), "{err}");
    }

    #[test]
    fn what_provenance_says_besides() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { provenance_env_dir: Some(dir.path().into()), ..Config::default() };
        std::fs::write(dir.path().join("a.json"), r#"{"x": 1, "y": [2]}"#).unwrap();
        std::fs::write(dir.path().join("b.json"), r#"{"x": 3}"#).unwrap();
        std::fs::write(dir.path().join("c.txt"), "no JSON").unwrap();
        let all = config.provenance_environment().unwrap();
        assert_eq!(serde_json::Value::from(all), serde_json::json!({ "x": 3, "y": [2] }));
        for bad in ["[]", "{", r#"{"buildConfig": 1}"#] {
            std::fs::write(dir.path().join("d.json"), bad).unwrap();
            assert!(config.provenance_environment().is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        let of = |value: &str| {
            let text = format!("[worker.oci]\nmaxUsedSpace = {value}\n");
            Config::parse(&text).map(|(c, _)| c.worker.oci.max_used_space.map(|size| size.bytes(1000)))
        };
        for (value, bytes) in
            [("\"10GB\"", 10_000_000_000), ("\"512MiB\"", 536_870_912), ("\"15%\"", 150), ("7", 7)]
        {
            assert_eq!(of(value).unwrap(), Some(bytes), "{value}");
        }
        for value in ["\"10 apples\"", "\"x\"", "-1", "true"] {
            assert!(of(value).is_err(), "{value}");
        }
    }

    #[test]
    fn host_networking_is_the_users_own_to_give() {
        let granted = |text: &str, rootless| Config::parse(text).unwrap().0.entitlements(rootless);
        assert_eq!(granted("", false), [""; 0]);
        assert_eq!(granted("", true), ["network.host"]);
        assert_eq!(granted("insecure-entitlements = []\n", true), [""; 0]);
        assert_eq!(
            granted("insecure-entitlements = [\"security.insecure\"]\n", false),
            ["security.insecure"]
        );
    }
}
