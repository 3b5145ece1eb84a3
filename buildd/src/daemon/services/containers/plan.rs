//! What a container is, decided from the image's config and the request. Pure.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cache::oci::ImageConfig;
use proto::rbuild::RunStart;
use runner::NetworkMode;

use crate::daemon::dockerfile::NETWORK_HOST;

/// A request that cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PlanError {
    /// Neither image nor request names a program.
    #[error("no command specified")]
    NoCommand,
    /// `-w` with a relative path.
    #[error("the working directory `{0}` is invalid, it needs to be an absolute path")]
    Workdir(String),
    /// `--network` with an unknown mode.
    #[error("unknown network `{0}`: want default, bridge, none or host")]
    Network(String),
    /// `-v` with something else than `[SOURCE:]TARGET[:ro]`.
    #[error("invalid volume `{0}`: want [SOURCE:]TARGET[:ro] with an absolute target")]
    Volume(String),
    /// Two volumes for one place.
    #[error("two volumes for `{}`", .0.display())]
    SameTarget(PathBuf),
    /// A name that could be taken for something else.
    #[error(
        "invalid {kind} name `{name}`: only letters, digits, `_`, `.` and `-`, a letter or digit first{}",
        if *kind == "volume" { " (a path begins with `/` or `./`)" } else { "" }
    )]
    Name {
        /// `volume` or `container`.
        kind: &'static str,
        /// As it was given.
        name: String,
    },
    /// `-v PATH:…` from a client that is not on this machine.
    #[error("volume `{}`: paths of the daemon's machine are for clients on it", .0.display())]
    FarVolume(PathBuf),
    /// `--network host` from such a client, where the daemon grants that to nobody.
    #[error("network.host is not allowed by the daemon: add it to `insecure-entitlements` in buildd.toml")]
    FarNetwork,
    /// `-e` with a malformed variable.
    #[error("invalid environment variable `{0}`")]
    Env(String),
}

/// A container before it is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) args: Vec<String>,
    pub(super) env: Vec<String>,
    pub(super) cwd: PathBuf,
    /// Docker's USER text.
    pub(super) user: String,
    pub(super) volumes: Vec<Volume>,
    pub(super) network: NetworkMode,
}

impl Plan {
    /// Checks what a client that does not connect through a socket of this machine may have: no files of the machine, and its
    /// network only where the daemon grants it to builds, too.
    pub(super) fn check_from_afar(&self, granted: &[String]) -> Result<(), PlanError> {
        let path = self.volumes.iter().find_map(|volume| match &volume.source {
            VolumeSource::Path(path) => Some(path),
            VolumeSource::Named(_) | VolumeSource::Anonymous => None,
        });
        match path {
            Some(path) => Err(PlanError::FarVolume(path.clone())),
            None if self.network == NetworkMode::Host && !granted.iter().any(|name| name == NETWORK_HOST) => {
                Err(PlanError::FarNetwork)
            }
            None => Ok(()),
        }
    }
}

/// Something of the host shown in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) source: VolumeSource,
    pub(super) target: PathBuf,
    pub(super) read_only: bool,
}

/// What a volume is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum VolumeSource {
    /// A file or directory of the host.
    Path(PathBuf),
    /// A named volume of the daemon.
    Named(String),
    /// A volume that goes with the container.
    Anonymous,
}

/// Puts image and request together as docker does. `host` is the container's host name.
pub(super) fn plan(image: &ImageConfig, start: &RunStart, host: &str) -> Result<Plan, PlanError> {
    let cwd = match (start.workdir.as_str(), image.working_dir.as_str()) {
        ("", "") => "/".to_owned(),
        // An image's relative one counts from the root.
        ("", image) => format!("/{}", image.trim_start_matches('/')),
        (wanted, _) if wanted.starts_with('/') => wanted.to_owned(),
        (wanted, _) => return Err(PlanError::Workdir(wanted.to_owned())),
    };
    Ok(Plan {
        args: args(image, start)?,
        env: env(image, start, host)?,
        cwd: cwd.into(),
        user: if start.user.is_empty() { image.user.clone() } else { start.user.clone() },
        volumes: volumes(&start.volumes)?,
        network: match start.network.as_str() {
            "" | "default" | "bridge" => NetworkMode::Isolated,
            "none" => NetworkMode::None,
            "host" => NetworkMode::Host,
            other => return Err(PlanError::Network(other.to_owned())),
        },
    })
}

/// An entrypoint of the request takes the image's arguments away, too: they were meant for another program.
fn args(image: &ImageConfig, start: &RunStart) -> Result<Vec<String>, PlanError> {
    let (mut args, cmd) = match start.entrypoint.as_deref() {
        None => (image.entrypoint.clone(), image.cmd.as_slice()),
        Some("") => (Vec::new(), [].as_slice()),
        Some(program) => (vec![program.to_owned()], [].as_slice()),
    };
    args.extend_from_slice(if start.args.is_empty() { cmd } else { &start.args });
    match args.first() {
        Some(program) if !program.is_empty() => Ok(args),
        _ => Err(PlanError::NoCommand),
    }
}

/// Later settings replace earlier ones in their place; a name alone removes.
fn env(image: &ImageConfig, start: &RunStart, host: &str) -> Result<Vec<String>, PlanError> {
    let mut all = vec![format!("PATH={}", runner::DEFAULT_PATH), format!("HOSTNAME={host}")];
    if start.tty {
        all.push("TERM=xterm".to_owned());
    }
    for entry in image.env.iter().chain(&start.env) {
        let (name, value) = entry.split_once('=').map_or((entry.as_str(), None), |(n, v)| (n, Some(v)));
        if name.is_empty() || entry.contains('\0') {
            return Err(PlanError::Env(entry.clone()));
        }
        let known = all.iter().position(|e| e.split_once('=').is_some_and(|(n, _)| n == name));
        match (known, value) {
            (Some(at), Some(_)) => all[at].clone_from(entry),
            (Some(at), None) => drop(all.remove(at)),
            (None, Some(_)) => all.push(entry.clone()),
            (None, None) => {}
        }
    }
    Ok(all)
}

fn volumes(texts: &[String]) -> Result<Vec<Volume>, PlanError> {
    let volumes = texts.iter().map(|text| volume(text)).collect::<Result<Vec<_>, _>>()?;
    let mut seen = BTreeSet::new();
    match volumes.iter().find(|v| !seen.insert(v.target.components().collect::<PathBuf>())) {
        Some(twice) => Err(PlanError::SameTarget(twice.target.clone())),
        None => Ok(volumes),
    }
}

fn volume(text: &str) -> Result<Volume, PlanError> {
    let bad = || PlanError::Volume(text.to_owned());
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(bad()),
    };
    let mut read_only = false;
    for option in options.split(',').filter(|_| parts.len() > 2) {
        match option {
            "ro" => read_only = true,
            // The others are about SELinux, which no sandbox uses, and about file systems of other hosts.
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            _ => return Err(bad()),
        }
    }
    let target = Path::new(target);
    // The root itself is no place to mount on.
    let is_place = target.components().any(|c| matches!(c, std::path::Component::Normal(_)));
    if source.is_some_and(str::is_empty) || !target.is_absolute() || !is_place {
        return Err(bad());
    }
    let source = match source {
        None => VolumeSource::Anonymous,
        Some(path) if path.starts_with('/') => VolumeSource::Path(path.into()),
        Some(name) => VolumeSource::Named(checked("volume", name)?),
    };
    Ok(Volume { source, target: target.to_owned(), read_only })
}

/// A name that is safe as a file name and in messages.
pub(super) fn checked(kind: &'static str, name: &str) -> Result<String, PlanError> {
    let good = name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if good { Ok(name.to_owned()) } else { Err(PlanError::Name { kind, name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entrypoint and arguments of the image, `--entrypoint`, arguments of the request; the result.
    type Command<'a> = (&'a [&'a str], &'a [&'a str], Option<&'a str>, &'a [&'a str], Option<&'a [&'a str]>);
    /// Variables of the image and of the request, whether there is a terminal; the result.
    type Environment<'a> = (&'a [&'a str], &'a [&'a str], bool, &'a [&'a str]);

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn commands_are_put_together_as_docker_does() {
        #[rustfmt::skip]
        let cases: &[Command<'_>] = &[
            (&[],        &["sh"],  None,       &[],      Some(&["sh"])),
            (&[],        &["sh"],  None,       &["ls"],  Some(&["ls"])),
            (&["a"],     &["b"],   None,       &[],      Some(&["a", "b"])),
            (&["a", "x"], &["b"],  None,       &["c"],   Some(&["a", "x", "c"])),
            (&["a"],     &["b"],   Some("e"),  &[],      Some(&["e"])),
            (&["a"],     &["b"],   Some("e"),  &["c"],   Some(&["e", "c"])),
            (&["a"],     &["b"],   Some(""),   &["c"],   Some(&["c"])),
            (&["a"],     &["b"],   Some(""),   &[],      None),
            (&[],        &[],      None,       &[],      None),
            (&[],        &[],      None,       &[""],    None),
        ];
        for (entrypoint, cmd, replaced, given, expected) in cases {
            let image =
                ImageConfig { entrypoint: list(entrypoint), cmd: list(cmd), ..ImageConfig::default() };
            let start = RunStart {
                args: list(given),
                entrypoint: replaced.map(str::to_owned),
                ..RunStart::default()
            };
            let got = args(&image, &start);
            assert_eq!(got.ok(), expected.map(list), "{entrypoint:?} {cmd:?} {replaced:?} {given:?}");
        }
    }

    #[test]
    fn environments_are_merged() {
        let path = format!("PATH={}", runner::DEFAULT_PATH);
        #[rustfmt::skip]
        let cases: &[Environment<'_>] = &[
            (&[],                 &[],              false, &[&path, "HOSTNAME=h"]),
            (&["PATH=/x", "A=1"], &["B=2"],         false, &["PATH=/x", "HOSTNAME=h", "A=1", "B=2"]),
            (&["A=1", "C="],      &["A=2=3", "C"],  false, &[&path, "HOSTNAME=h", "A=2=3"]),
            (&[],                 &["TERM=vt100"],  true,  &[&path, "HOSTNAME=h", "TERM=vt100"]),
            (&[],                 &["NONE"],        true,  &[&path, "HOSTNAME=h", "TERM=xterm"]),
        ];
        for (of_image, given, tty, expected) in cases {
            let image = ImageConfig { env: list(of_image), ..ImageConfig::default() };
            let start = RunStart { env: list(given), tty: *tty, ..RunStart::default() };
            assert_eq!(env(&image, &start, "h").unwrap(), list(expected));
        }
        for bad in ["", "=x", "A=\0"] {
            let start = RunStart { env: list(&[bad]), ..RunStart::default() };
            assert_eq!(env(&ImageConfig::default(), &start, "h"), Err(PlanError::Env(bad.to_owned())));
        }
    }

    #[test]
    fn volumes() {
        let show = |text: &str| match volume(text) {
            Ok(v) => format!("{:?} {} {}", v.source, v.target.display(), v.read_only),
            Err(e) => e.to_string(),
        };
        insta::assert_snapshot!(
            [
                "/a:/b", "/a:/b:ro", "data:/b:rw", "/a", "/a:/b:z,ro", "/a:b", ":/b", "/a:/", "/", "", "a", "/a:/b:",
                "/a:/b:x", "/a:/b:ro:x", "..:/b", "../x:/b", "a/b:/c",
            ]
            .map(show)
            .join("\n"),
            @r#"
        Path("/a") /b false
        Path("/a") /b true
        Named("data") /b false
        Anonymous /a false
        Path("/a") /b true
        invalid volume `/a:b`: want [SOURCE:]TARGET[:ro] with an absolute target
        invalid volume `:/b`: want [SOURCE:]TARGET[:ro] with an absolute target
        invalid volume `/a:/`: want [SOURCE:]TARGET[:ro] with an absolute target
        invalid volume `/`: want [SOURCE:]TARGET[:ro] with an absolute target
        invalid volume ``: want [SOURCE:]TARGET[:ro] with an absolute target
        invalid volume `a`: want [SOURCE:]TARGET[:ro] with an absolute target
        invalid volume `/a:/b:`: want [SOURCE:]TARGET[:ro] with an absolute target
        invalid volume `/a:/b:x`: want [SOURCE:]TARGET[:ro] with an absolute target
        invalid volume `/a:/b:ro:x`: want [SOURCE:]TARGET[:ro] with an absolute target
        invalid volume name `..`: only letters, digits, `_`, `.` and `-`, a letter or digit first (a path begins with `/` or `./`)
        invalid volume name `../x`: only letters, digits, `_`, `.` and `-`, a letter or digit first (a path begins with `/` or `./`)
        invalid volume name `a/b`: only letters, digits, `_`, `.` and `-`, a letter or digit first (a path begins with `/` or `./`)
        "#
        );
    }

    #[test]
    fn the_rest() {
        let image = ImageConfig {
            user: "web".into(),
            working_dir: "srv".into(),
            cmd: list(&["x"]),
            ..Default::default()
        };
        let of = |workdir: &str, user: &str, network: &str| {
            let start = RunStart {
                workdir: workdir.into(),
                user: user.into(),
                network: network.into(),
                ..RunStart::default()
            };
            plan(&image, &start, "h").map(|p| (p.cwd.display().to_string(), p.user, p.network))
        };
        assert_eq!(of("", "", ""), Ok(("/srv".into(), "web".into(), NetworkMode::Isolated)));
        assert_eq!(of("/w", "0", "host"), Ok(("/w".into(), "0".into(), NetworkMode::Host)));
        assert_eq!(of("", "", "none").map(|p| p.2), Ok(NetworkMode::None));
        assert_eq!(of("w", "", ""), Err(PlanError::Workdir("w".into())));
        assert_eq!(of("", "", "bridge").map(|p| p.2), Ok(NetworkMode::Isolated));
        assert_eq!(of("", "", "mine"), Err(PlanError::Network("mine".into())));
        let twice = list(&["a:/x", "/b:/x/"]);
        assert_eq!(super::volumes(&twice), Err(PlanError::SameTarget("/x/".into())));
    }
}
