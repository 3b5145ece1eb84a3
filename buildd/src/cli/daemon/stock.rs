//! buildkitd's own flags, so that a command line written for it starts this daemon.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, Error, FromArgMatches};

/// What buildkitd's flags ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StockFlags {
    /// `--allow-insecure-entitlement`: granted besides what the configuration grants.
    pub entitlements: Vec<String>,
    /// `--oci-worker-labels`.
    pub labels: BTreeMap<String, String>,
    /// `--oci-worker-gc`.
    pub gc: Option<bool>,
    /// `--oci-max-parallelism`: steps at a time; 0 is a number fit for the machine.
    pub max_parallelism: Option<usize>,
    /// `--debugaddr`: where figures for Prometheus are served.
    pub debug_address: Option<String>,
    /// `--log-format`: `json` or `text`.
    pub log_format: Option<String>,
    /// `--log-level`: `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: Option<String>,
    /// `--cdi-disabled`.
    pub cdi_disabled: Option<bool>,
    /// `--cdi-spec-dir`: in place of the configuration's.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// `--group`: who may use unix sockets, a number.
    pub group: Option<u32>,
    /// `--oci-worker-platform`: that clients are told of.
    pub platforms: Vec<String>,
    /// `--oci-worker-gc-keepstorage`: bytes that stay, that should be free, and that may be used.
    pub keep_storage: [Option<u64>; 3],
    /// `--proxy-network`.
    pub proxy_network: Option<bool>,
    /// `--oci-worker-apparmor-profile`.
    pub apparmor_profile: Option<String>,
    /// `--oci-worker-selinux`.
    pub selinux: Option<bool>,
    /// Flags that were given and mean nothing here, without their dashes.
    pub without_effect: Vec<&'static str>,
}

const ENTITLEMENT: &str = "allow-insecure-entitlement";
const LABELS: &str = "oci-worker-labels";
const GC: &str = "oci-worker-gc";
const DEBUG_ADDRESS: &str = "debugaddr";
const CDI_DISABLED: &str = "cdi-disabled";
const CDI_SPEC_DIR: &str = "cdi-spec-dir";
const LOG_FORMAT: &str = "log-format";
const LOG_LEVEL: &str = "log-level";
const PARALLELISM: &str = "oci-max-parallelism";
const GROUP: &str = "group";
const PLATFORM: &str = "oci-worker-platform";
const KEEP_STORAGE: &str = "oci-worker-gc-keepstorage";
const PROXY_NETWORK: &str = "proxy-network";
const APPARMOR: &str = "oci-worker-apparmor-profile";
const SELINUX: &str = "oci-worker-selinux";

/// A megabyte, in which `--oci-worker-gc-keepstorage` counts.
const MEGABYTE: u64 = 1_000_000;

/// Texts that mean nothing here: other engines' workers, and what this one decides itself.
///
/// Flags that make a build safer (`--proxy-network`) are in none of these lists: to ignore them would be a lie. They are refused
/// with the configuration.
const TEXTS: &[&str] = &[
    "containerd-cni-binary-dir",
    "containerd-cni-config-path",
    "containerd-cni-pool-size",
    "containerd-max-parallelism",
    "containerd-worker",
    "containerd-worker-addr",
    "containerd-worker-gc-keepstorage",
    "containerd-worker-apparmor-profile",
    "containerd-worker-labels",
    "containerd-worker-namespace",
    "containerd-worker-net",
    "containerd-worker-platform",
    "containerd-worker-runtime",
    "containerd-worker-snapshotter",
    "oci-cni-binary-dir",
    "oci-cni-config-path",
    "oci-cni-pool-size",
    "oci-worker",
    "oci-worker-binary",
    "oci-worker-net",
    "oci-worker-proxy-snapshotter-path",
    "oci-worker-snapshotter",
    "otel-socket-path",
];

/// Switches that mean nothing here.
const SWITCHES: &[&str] = &[
    "containerd-worker-gc",
    "containerd-worker-rootless",
    "containerd-worker-selinux",
    "oci-worker-no-process-sandbox",
    "oci-worker-rootless",
    "rootless",
    "save-cache-debug",
    "trace",
];

/// Flags that say what holds here anyway, so that nothing has to be told of them.
const NATURAL: &[(&str, &str)] =
    &[("oci-worker", "true"), ("oci-worker", "auto"), ("containerd-worker", "false")];

fn text(name: &'static str) -> Arg {
    Arg::new(name).long(name).hide(true).action(ArgAction::Append).allow_hyphen_values(true)
}

/// `--name` or `--name=false`, as Go's flags are.
fn switch(name: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).hide(true).action(ArgAction::Append);
    arg.num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .value_parser(clap::value_parser!(bool))
}

impl clap::Args for StockFlags {
    fn augment_args(cmd: Command) -> Command {
        let read = [
            text(ENTITLEMENT),
            text(LABELS),
            text(DEBUG_ADDRESS),
            text(CDI_SPEC_DIR),
            text(GROUP),
            text(PLATFORM),
            text(KEEP_STORAGE),
            text(APPARMOR),
            switch(CDI_DISABLED),
            switch(GC),
            switch(PROXY_NETWORK),
            switch(SELINUX),
        ];
        let parallelism = text(PARALLELISM).value_parser(clap::value_parser!(usize));
        let format = text(LOG_FORMAT).value_parser(["json", "text"]);
        let level = text(LOG_LEVEL).value_parser(["error", "warn", "info", "debug", "trace"]);
        let ignored = TEXTS.iter().map(|name| text(name)).chain(SWITCHES.iter().map(|name| switch(name)));
        cmd.args(read).args([parallelism, format, level]).args(ignored)
    }

    fn augment_args_for_update(cmd: Command) -> Command {
        Self::augment_args(cmd)
    }
}

impl FromArgMatches for StockFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        let all = |name| matches.get_many::<String>(name).into_iter().flatten().map(String::as_str);
        // BuildKit takes several of them in one flag.
        let listed = |name| all(name).flat_map(|text| text.split(',')).filter(|item| !item.is_empty());
        self.entitlements.extend(listed(ENTITLEMENT).map(str::to_owned));
        for label in listed(LABELS) {
            let Some((key, value)) = label.split_once('=') else {
                return Err(invalid(label, LABELS, "KEY=VALUE"));
            };
            self.labels.insert(key.to_owned(), value.to_owned());
        }
        self.log_format = all(LOG_FORMAT).next_back().map(str::to_owned);
        self.log_level = all(LOG_LEVEL).next_back().map(str::to_owned);
        let last = |name| matches.get_many::<bool>(name).into_iter().flatten().last().copied();
        self.cdi_disabled = last(CDI_DISABLED);
        self.proxy_network = last(PROXY_NETWORK);
        self.selinux = last(SELINUX);
        self.apparmor_profile = all(APPARMOR).next_back().map(str::to_owned);
        self.platforms.extend(listed(PLATFORM).map(str::to_owned));
        if let Some(name) = all(GROUP).next_back().filter(|name| !name.is_empty()) {
            self.group =
                Some(group(name).ok_or_else(|| invalid(name, GROUP, "the name or number of a group"))?);
        }
        if let Some(given) = all(KEEP_STORAGE).next_back().filter(|given| !given.is_empty()) {
            self.keep_storage = megabytes(given)
                .ok_or_else(|| invalid(given, KEEP_STORAGE, "RESERVED[,FREE[,MAXIMUM]] in megabytes"))?;
        }
        self.cdi_spec_dirs.extend(listed(CDI_SPEC_DIR).map(PathBuf::from));
        self.gc = last(GC);
        self.debug_address = all(DEBUG_ADDRESS).next_back().map(str::to_owned);
        self.max_parallelism = matches.get_many::<usize>(PARALLELISM).into_iter().flatten().last().copied();
        let natural = |name, value| NATURAL.contains(&(name, value));
        let told = |name: &&'static str| all(name).any(|value| !natural(*name, value));
        self.without_effect.extend(TEXTS.iter().filter(|name| told(name)));
        let on = |name: &&'static str| matches.get_many::<bool>(name).into_iter().flatten().any(|&on| on);
        self.without_effect.extend(SWITCHES.iter().filter(|name| on(name)));
        Ok(())
    }
}

fn invalid(value: &str, flag: &str, wanted: &str) -> Error {
    let message = format!("invalid value `{value}` for `--{flag}`: want {wanted}\n");
    Error::raw(clap::error::ErrorKind::ValueValidation, message)
}

/// A group of this machine, or any by its number.
fn group(name: &str) -> Option<u32> {
    let known = || nix::unistd::Group::from_name(name).ok().flatten();
    name.parse().ok().or_else(|| Some(known()?.gid.as_raw()))
}

fn megabytes(given: &str) -> Option<[Option<u64>; 3]> {
    let mut bytes = [None; 3];
    for (at, part) in given.split(',').enumerate() {
        *bytes.get_mut(at)? = Some(part.parse::<u64>().ok()?.checked_mul(MEGABYTE)?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::DaemonArgs;
    use super::*;

    fn parse(args: &[&str]) -> Result<DaemonArgs, Error> {
        let command = <DaemonArgs as clap::Args>::augment_args(Command::new("buildkitd"));
        DaemonArgs::from_arg_matches(&command.try_get_matches_from([&["buildkitd"], args].concat())?)
    }

    #[test]
    fn a_stock_command_line() {
        let args = parse(&[
            "--oci-worker=true",
            "--containerd-worker=false",
            "--oci-worker-gc=false",
            "--oci-worker-labels=a.b=c=d,e=f",
            "--config=/x/buildkitd.toml",
            "--root",
            "/x",
            "--addr",
            "unix:///x/s",
            "--addr=tcp://127.0.0.1:1",
            "--debug",
            "--allow-insecure-entitlement",
            "network.host,security.insecure",
            "--oci-max-parallelism",
            "3",
            "--debugaddr=127.0.0.1:6060",
            "--log-format=json",
            "--log-level=warn",
            "--cdi-disabled=false",
            "--cdi-spec-dir=/a,/b",
            "--group=root",
            "--oci-worker-platform=linux/arm64",
            "--oci-worker-gc-keepstorage=1000,20",
            "--proxy-network=false",
            "--oci-worker-selinux",
            "--oci-worker-apparmor-profile=strict",
        ]);
        let args = args.unwrap();
        assert_eq!(args.addr, ["unix:///x/s", "tcp://127.0.0.1:1"]);
        assert_eq!(args.root, Some("/x".into()));
        assert!(args.debug);
        let labels = [("a.b", "c=d"), ("e", "f")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let want = StockFlags {
            entitlements: vec!["network.host".to_owned(), "security.insecure".to_owned()],
            labels: labels.into(),
            gc: Some(false),
            max_parallelism: Some(3),
            debug_address: Some("127.0.0.1:6060".to_owned()),
            log_format: Some("json".to_owned()),
            log_level: Some("warn".to_owned()),
            cdi_disabled: Some(false),
            cdi_spec_dirs: vec!["/a".into(), "/b".into()],
            group: Some(0),
            platforms: vec!["linux/arm64".to_owned()],
            keep_storage: [Some(1_000_000_000), Some(20_000_000), None],
            proxy_network: Some(false),
            selinux: Some(true),
            apparmor_profile: Some("strict".to_owned()),
            without_effect: Vec::new(),
        };
        assert_eq!(args.stock, want);
    }

    #[test]
    fn what_means_nothing_here_is_named() {
        let args =
            parse(&["--oci-worker-snapshotter=native", "--rootless", "--save-cache-debug=false"]).unwrap();
        assert_eq!(args.stock.without_effect, ["oci-worker-snapshotter", "rootless"]);
    }

    #[test]
    fn bad_flags() {
        for bad in [
            &["--oci-worker-gc=maybe"][..],
            &["--oci-worker-labels=a"],
            &["--oci-max-parallelism=-1"],
            &["--proxy-network=maybe"],
            &["--group=no such group"],
            &["--oci-worker-gc-keepstorage=1,2,3,4"],
            &["--oci-worker-gc-keepstorage=lots"],
            &["--log-format=xml"],
            &["--log-level=loud"],
            &["--addr"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
