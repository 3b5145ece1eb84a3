//! Devices that this machine offers to steps, by the Container Device Interface
//! (<https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md>): files of vendors that say what a step has to
//! get so that it can use a device.
//!
//! The files are read whenever they are needed: they are few and small, and drivers replace them as they please.

mod edits;
mod file;
mod grant;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use file::{Edits, SpecFile};
pub(super) use grant::{DEVICE, GrantError, Grants};
use solver::op::CdiDevice;

/// Where BuildKit looks, the last first in rank.
const DIRECTORIES: [&str; 3] = ["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"];
/// Devices of one class go by its name.
const CLASS: &str = "org.mobyproject.buildkit.device.class";
/// Every build may use the device.
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";
/// A file larger than this is none.
const LARGEST: u64 = 4 << 20;

/// All devices of this machine.
#[derive(Debug, Default)]
pub(super) struct Devices {
    directories: Vec<PathBuf>,
    /// Kinds and names that every build may use.
    auto_allowed: BTreeSet<String>,
    /// What was warned of already.
    warned: Mutex<BTreeSet<String>>,
}

/// A device.
#[derive(Debug, Clone)]
pub(super) struct Device {
    /// `vendor/class=name`.
    pub name: String,
    /// Those of its file, and its own.
    pub annotations: BTreeMap<String, String>,
    /// Every build may use it.
    pub auto_allowed: bool,
    /// What its file wants for any of its devices.
    common: Arc<Edits>,
    own: Edits,
}

/// A device that nobody offers.
#[derive(Debug, thiserror::Error)]
#[error("required device \"{0}\" is not registered")]
pub(super) struct Unregistered(String);

impl Devices {
    /// Those of the files in `directories`, the last first in rank; of BuildKit's where there are none.
    pub(super) fn new(directories: &[PathBuf], auto_allowed: &[String]) -> Self {
        let directories = match directories {
            [] => DIRECTORIES.map(PathBuf::from).to_vec(),
            given => given.to_vec(),
        };
        Self { directories, auto_allowed: auto_allowed.iter().cloned().collect(), warned: Mutex::default() }
    }

    /// None at all, whatever the machine has.
    pub(super) fn none() -> Self {
        Self::default()
    }

    /// All devices, by name. Blocking.
    pub(super) fn all(&self) -> BTreeMap<String, Device> {
        let mut all = BTreeMap::new();
        for directory in &self.directories {
            all.append(&mut self.of_directory(directory));
        }
        all
    }

    /// The devices of a directory. Two files of one directory cannot both be right about a device, so it is left out.
    fn of_directory(&self, directory: &Path) -> BTreeMap<String, Device> {
        let Ok(entries) = fs_err::read_dir(directory) else { return BTreeMap::new() };
        let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        let (mut found, mut twice) = (BTreeMap::<String, Device>::new(), BTreeSet::new());
        for path in paths {
            match read(&path) {
                None => {}
                Some(Ok(file)) => {
                    for device in self.of_file(file) {
                        if found.contains_key(&device.name) {
                            self.warn(format!(
                                "device `{}` is in two files of {}",
                                device.name,
                                directory.display()
                            ));
                            twice.insert(device.name);
                        } else {
                            found.insert(device.name.clone(), device);
                        }
                    }
                }
                Some(Err(error)) => self.warn(format!("{}: {error}", path.display())),
            }
        }
        found.retain(|name, _| !twice.contains(name));
        found
    }

    fn of_file(&self, file: SpecFile) -> Vec<Device> {
        let SpecFile { kind, annotations, devices, container_edits, .. } = file;
        let common = Arc::new(container_edits);
        let device = |device: file::DeviceEntry| {
            let name = format!("{kind}={}", device.name);
            let mut annotations = annotations.clone();
            annotations.extend(device.annotations);
            let said = annotations.get(AUTO_ALLOW).is_some_and(|value| is_true(value));
            Device {
                auto_allowed: said || self.auto_allowed.contains(&name) || self.auto_allowed.contains(&kind),
                name,
                annotations: annotations.into_iter().collect(),
                common: common.clone(),
                own: device.container_edits,
            }
        };
        devices.into_iter().map(device).collect()
    }

    /// Warns, but not twice of the same.
    fn warn(&self, text: String) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.insert(text.clone()) {
            tracing::warn!("CDI: {text}");
        }
    }
}

/// The names of the devices among `all` that are asked for, each once. `vendor/class` is the first of them, `vendor/class=*`
/// all; a class of BuildKit's annotation goes by its name alone.
///
/// # Errors
/// One that is not there and is not optional.
pub(super) fn find<'a>(
    all: &BTreeMap<String, Device>,
    wanted: impl IntoIterator<Item = &'a CdiDevice>,
) -> Result<Vec<String>, Unregistered> {
    let mut found: Vec<String> = Vec::new();
    for device in wanted {
        let names = named(all, &device.name);
        if names.is_empty() && !device.optional {
            return Err(Unregistered(device.name.clone()));
        }
        for name in names {
            if !found.contains(&name) {
                found.push(name);
            }
        }
    }
    Ok(found)
}

fn named(all: &BTreeMap<String, Device>, wanted: &str) -> Vec<String> {
    let (kind, name) = wanted.split_once('=').unwrap_or((wanted, ""));
    let mut found = Vec::new();
    if file::is_kind(kind) {
        let prefix = format!("{kind}=");
        let of_kind = all.keys().filter(|known| known.starts_with(&prefix));
        found = match name {
            "" => of_kind.take(1).cloned().collect(),
            "*" => of_kind.cloned().collect(),
            _ => of_kind.filter(|known| *known == wanted).cloned().collect(),
        };
    }
    if found.is_empty() {
        let of_class =
            all.values().filter(|device| device.annotations.get(CLASS).is_some_and(|c| c == wanted));
        found = of_class.map(|device| device.name.clone()).collect();
    }
    found
}

/// What Go takes for true.
fn is_true(text: &str) -> bool {
    ["1", "t", "T", "true", "TRUE", "True"].contains(&text)
}

/// Reads a file; `None` for one that is not meant.
fn read(path: &Path) -> Option<Result<SpecFile, file::FileError>> {
    let kind = path.extension()?.to_str()?;
    if !["json", "yaml"].contains(&kind) || !path.is_file() {
        return None;
    }
    Some(file::parse(path, LARGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VENDOR: &str = r#"
cdiVersion: "0.6.0"
kind: "vendor1.com/device"
annotations:
  org.mobyproject.buildkit.device.autoallow: true
containerEdits:
  env: ["COMMON=1"]
devices:
- name: foo
  annotations: {org.mobyproject.buildkit.device.class: class1}
  containerEdits: {env: ["FOO=injected"]}
- name: bar
  containerEdits: {env: ["BAR=injected"]}
"#;

    fn wanted(name: &str, optional: bool) -> CdiDevice {
        CdiDevice { name: name.to_owned(), optional }
    }

    #[test]
    fn devices_are_found_by_name_kind_and_class() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(dir.path().join("v.yaml"), VENDOR).unwrap();
        fs_err::write(dir.path().join("other.txt"), "not meant").unwrap();
        fs_err::write(dir.path().join("bad.json"), "{").unwrap();
        let devices = Devices::new(&[dir.path().to_owned()], &[]);
        let all = devices.all();
        assert!(all.values().all(|device| device.auto_allowed));
        let (foo, bar) = ("vendor1.com/device=foo".to_owned(), "vendor1.com/device=bar".to_owned());
        for (name, found) in [
            ("vendor1.com/device=foo", vec![foo.clone()]),
            ("vendor1.com/device", vec![bar.clone()]),
            ("vendor1.com/device=*", vec![bar, foo.clone()]),
            ("class1", vec![foo]),
            ("vendor2.com/device=x", vec![]),
        ] {
            assert_eq!(find(&all, &[wanted(name, true)]).unwrap(), found, "{name}");
        }
        let error = find(&all, &[wanted("vendor2.com/device=x", false)]).unwrap_err();
        assert_eq!(error.to_string(), "required device \"vendor2.com/device=x\" is not registered");
    }

    #[test]
    fn later_directories_count_more_and_files_of_one_do_not_agree() {
        let (low, high) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs_err::write(low.path().join("a.yaml"), VENDOR).unwrap();
        let json = r#"{"cdiVersion":"0.5.0","kind":"vendor1.com/device","devices":[{"name":"foo","containerEdits":{}}]}"#;
        fs_err::write(high.path().join("a.json"), json).unwrap();
        let directories = [low.path().to_owned(), high.path().to_owned()];
        let devices = Devices::new(&directories, &["vendor9.com/x".to_owned()]);
        let all = devices.all();
        assert!(!all["vendor1.com/device=foo"].auto_allowed && all["vendor1.com/device=bar"].auto_allowed);
        assert!(
            Devices::new(&directories, &["vendor1.com/device".to_owned()]).all()["vendor1.com/device=foo"]
                .auto_allowed
        );
        fs_err::write(high.path().join("b.json"), json).unwrap();
        assert!(devices.all()["vendor1.com/device=foo"].auto_allowed, "the lower directory's");
        assert!(Devices::none().all().is_empty());
    }
}
