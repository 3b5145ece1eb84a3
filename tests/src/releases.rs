//! Successive releases of a real package, and what a CI job makes of each: ESPHome, from PyPI, with uv.
//!
//! Nothing of it is kept here but what `tests/releases/` has: Debian comes from the mirror of this machine, the sources and what
//! they depend on from the package registry, when they are asked for.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::daemon::{Daemon, Output, output};
use crate::ready::program;

const PACKAGE: &str = "esphome";

/// Where the certificates are that this machine trusts.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Lists all files of the image but byte code and what tells of times, with what is in them.
const FILES: &str = "find /venv -type f ! -name '*.pyc' ! -name RECORD ! -name 'uv_cache.json' -exec sha256sum {} + | sort -k 2";

/// The sources of some releases, and the base that their images stand on.
#[derive(Debug)]
pub struct Releases {
    sources: PathBuf,
    proxies: Vec<String>,
}

/// Whether Debian's mirror and the package registry can be reached; says when they cannot.
pub fn releases_ready() -> bool {
    if let Some(missing) = ["mmdebstrap", "curl"].into_iter().find(|name| program(name).is_none()) {
        eprintln!("SKIPPED: needs {missing}");
        return false;
    }
    let registry = format!("https://pypi.org/simple/{PACKAGE}/");
    let Some(mirror) = mirror() else {
        eprintln!("SKIPPED: no Debian mirror in {}", sources_list().display());
        return false;
    };
    let unreachable = [registry, mirror].into_iter().find(|url| !reaches(url));
    if let Some(url) = &unreachable {
        eprintln!("SKIPPED: {url} cannot be reached");
    }
    unreachable.is_none()
}

/// Twenty releases, one after the other. Seven of them changed what the package depends on.
pub fn versions() -> Vec<&'static str> {
    include_str!("../releases/versions").lines().collect()
}

impl Releases {
    /// Makes the base, pushes it to registries as `python:1`, and gets the sources of these versions, through a daemon that has
    /// nothing to do with them afterwards. `dir` takes it all.
    ///
    /// # Panics
    /// When any of it fails.
    pub fn prepare(daemon: &Daemon, dir: &Path, registries: &[&str], versions: &[&str]) -> Self {
        let base_dir = dir.join("base");
        fs_err::create_dir_all(&base_dir).expect("a directory");
        debian(&base_dir.join("rootfs.tar"));
        let certificates = base_dir.join("ca-certificates.crt");
        fs_err::copy(CERTIFICATES, certificates).expect("this machine's certificates");
        let proxies = proxies();
        let build = |context: &Path, file: &str, args: &[&str]| {
            let file = recipe(file);
            let proxies = proxies.iter().map(String::as_str);
            let args: Vec<&str> = args.iter().copied().chain(["-f", &file]).chain(proxies).collect();
            daemon.build(context, &args).ok();
        };
        for host in registries {
            build(&base_dir, "base.Dockerfile", &["-t", &base(host), "--push"]);
        }
        let releases = Self { sources: dir.join("sources"), proxies: proxies.clone() };
        let (to, versions) = (releases.sources.display(), versions.join(" "));
        build(
            dir,
            "sources.Dockerfile",
            &[
                "-o",
                &format!("type=local,dest={to}"),
                "--build-arg",
                &format!("BASE={}", base(registries[0])),
                "--build-arg",
                &format!("PACKAGE={PACKAGE}"),
                "--build-arg",
                &format!("VERSIONS={versions}"),
            ],
        );
        releases
    }

    /// The sources of a release.
    pub fn context(&self, version: &str) -> PathBuf {
        self.sources.join(version)
    }

    /// What a release depends on.
    ///
    /// # Panics
    /// When the release is not there.
    pub fn requirements(&self, version: &str) -> String {
        fs_err::read_to_string(self.context(version).join("requirements.txt")).expect("requirements")
    }

    /// Builds a release with a recipe of `tests/releases/`, over the base at this registry.
    pub fn build(&self, daemon: &Daemon, host: &str, file: &str, version: &str, args: &[&str]) -> Output {
        let (file, base) = (recipe(file), format!("BASE={}", base(host)));
        let proxies = self.proxies.iter().map(String::as_str);
        let args: Vec<&str> =
            args.iter().copied().chain(["-f", &file, "--build-arg", &base]).chain(proxies).collect();
        daemon.build(&self.context(version), &args)
    }

    /// What is in an image of a release, by digests.
    pub fn files(&self, daemon: &Daemon, image: &str) -> String {
        let args = ["run", "--rm", "--entrypoint", "sh", image, "-c", FILES];
        daemon.run(&self.sources, &args).ok().stdout
    }
}

/// What the base is called at a registry.
pub fn base(host: &str) -> String {
    format!("{host}/python:1")
}

/// A file of `tests/releases/`.
pub fn recipe(name: &str) -> String {
    format!("{}/releases/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Steps reach the network as this machine does. Such arguments are no part of keys.
fn proxies() -> Vec<String> {
    let names = ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
    let set = names.into_iter().filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)));
    set.flat_map(|arg| ["--build-arg".to_owned(), arg]).collect()
}

fn reaches(url: &str) -> bool {
    let mut curl = Command::new("curl");
    curl.args(["-sfI", "-o", "/dev/null", "--max-time", "15", url]).stdin(Stdio::null());
    output(&mut curl).code == 0
}

/// The machine's own package sources.
fn sources_list() -> PathBuf {
    let new = Path::new("/etc/apt/sources.list.d/debian.sources");
    if new.exists() { new.to_owned() } else { "/etc/apt/sources.list".into() }
}

/// The release file of this Debian at the first mirror that the machine asks.
fn mirror() -> Option<String> {
    let text = fs_err::read_to_string(sources_list()).ok()?;
    let line = text.lines().find(|line| line.starts_with("URIs:") || line.starts_with("deb "))?;
    let url = line.split(' ').find(|word| word.starts_with("http"))?.trim_end_matches('/');
    Some(format!("{url}/dists/{}/Release", suite()?))
}

fn suite() -> Option<String> {
    let text = fs_err::read_to_string("/etc/os-release").ok()?;
    Some(text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?.to_owned())
}

/// What apt was told about the way to its mirrors, as lines of apt.conf.
fn apt_options() -> Vec<String> {
    let mut config = Command::new("apt-config");
    config.args(["dump", "Acquire"]).stdin(Stdio::null());
    let wanted = ["Acquire::http::Proxy ", "Acquire::https::Proxy ", "Acquire::Check-"];
    let lines = output(&mut config).stdout;
    lines.lines().filter(|line| wanted.iter().any(|name| line.starts_with(name))).map(str::to_owned).collect()
}

/// Debian with Python, as a tar.
fn debian(tar: &Path) {
    let mut made = Command::new("mmdebstrap");
    made.args(["--quiet", "--variant=minbase", "--include=python3,python3-pip,ca-certificates"])
        .args(["doc", "locale", "man"].map(|part| format!("--dpkgopt=path-exclude=/usr/share/{part}/*")))
        .args(apt_options().iter().map(|line| format!("--aptopt={line}")))
        .arg(suite().expect("checked before"))
        .arg(tar)
        .arg(sources_list())
        .stdin(Stdio::null());
    output(&mut made).ok();
}
