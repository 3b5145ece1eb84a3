//! One package, whatever installed it.

use std::collections::BTreeMap;

use crate::purl::{escape, qualify};

/// Longer names and versions, in bytes, are no names and versions.
const LONGEST: usize = 512;

/// Who names a package, as the types of package URLs have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ecosystem {
    /// Alpine.
    Apk,
    /// crates.io.
    Cargo,
    /// Packagist.
    Composer,
    /// Debian and Ubuntu.
    Deb,
    /// RubyGems.
    Gem,
    /// Go modules.
    Golang,
    /// npm.
    Npm,
    /// PyPI.
    Pypi,
    /// Fedora, Red Hat and SUSE.
    Rpm,
}

impl Ecosystem {
    /// The type in package URLs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Apk => "apk",
            Self::Cargo => "cargo",
            Self::Composer => "composer",
            Self::Deb => "deb",
            Self::Gem => "gem",
            Self::Golang => "golang",
            Self::Npm => "npm",
            Self::Pypi => "pypi",
            Self::Rpm => "rpm",
        }
    }

    /// Whether packages are a distribution's.
    pub fn is_of_distribution(self) -> bool {
        matches!(self, Self::Apk | Self::Deb | Self::Rpm)
    }
}

/// A package of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Who names it.
    pub ecosystem: Ecosystem,
    /// What stands before the name in a package URL: a distribution, a scope, a vendor, the path of a module. May be empty.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What tells it from others besides, as package URLs have it.
    pub qualifiers: BTreeMap<&'static str, String>,
    /// What its metadata say of its license.
    pub license: Option<String>,
}

impl Package {
    /// A package; `None` where the name or the version cannot be one. Where names have slashes, what comes before the last one
    /// is the namespace.
    pub fn new(ecosystem: Ecosystem, name: &str, version: &str) -> Option<Self> {
        let good = |text: &str| {
            !text.is_empty() && text.len() <= LONGEST && !text.contains(|c: char| c.is_control() || c == ' ')
        };
        if !good(name) || !good(version) {
            return None;
        }
        let (namespace, name) = match ecosystem {
            Ecosystem::Composer | Ecosystem::Golang | Ecosystem::Npm => {
                name.rsplit_once('/').unwrap_or(("", name))
            }
            _ => ("", name),
        };
        (!name.is_empty()).then(|| Self {
            ecosystem,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
            qualifiers: BTreeMap::new(),
            license: None,
        })
    }

    /// The same under a license.
    #[must_use]
    pub fn licensed(mut self, license: Option<&str>) -> Self {
        self.license = license.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
        self
    }

    /// The same with a qualifier, unless that is empty.
    #[must_use]
    pub fn qualified(mut self, name: &'static str, value: &str) -> Self {
        if !value.is_empty() && value.len() <= LONGEST {
            self.qualifiers.insert(name, value.to_owned());
        }
        self
    }

    /// The name as its own tools show it.
    pub fn full_name(&self) -> String {
        match self.namespace.is_empty() || self.ecosystem.is_of_distribution() {
            true => self.name.clone(),
            false => format!("{}/{}", self.namespace, self.name),
        }
    }

    /// The package URL.
    pub fn purl(&self) -> String {
        let (namespace, name) = match self.ecosystem {
            Ecosystem::Pypi => (self.namespace.clone(), self.name.to_lowercase().replace('_', "-")),
            Ecosystem::Apk | Ecosystem::Composer | Ecosystem::Deb | Ecosystem::Golang => {
                (self.namespace.to_lowercase(), self.name.to_lowercase())
            }
            _ => (self.namespace.clone(), self.name.clone()),
        };
        let mut url = format!("pkg:{}/", self.ecosystem.name());
        if !namespace.is_empty() {
            escape(&mut url, namespace.trim_matches('/'), |byte| byte == b'/');
            url.push('/');
        }
        escape(&mut url, &name, |_| false);
        url.push('@');
        escape(&mut url, &self.version, |byte| byte == b':');
        for (name, value) in &self.qualifiers {
            qualify(&mut url, name, value);
        }
        url
    }
}
