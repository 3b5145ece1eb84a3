//! Which files say what is installed, and how each is read.

use super::package::{Ecosystem, Package};
use super::{HeaderError, SqliteError, apk, cargo, dpkg, golang, npm, php, pnpm, python, rpm, ruby, yarn};

/// A file that says what is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// dpkg's list, or one package of it.
    Dpkg,
    /// apk's database.
    Apk,
    /// rpm's database in SQLite.
    Rpm,
    /// rpm's database in an older form (Berkeley DB, ndb), which is not read.
    OldRpm,
    /// `Cargo.lock`.
    CargoLock,
    /// `package-lock.json`.
    NpmLock,
    /// The `package.json` of an installed package.
    NpmPackage,
    /// `yarn.lock`.
    YarnLock,
    /// `pnpm-lock.yaml`.
    PnpmLock,
    /// The metadata of an installed distribution of Python.
    PythonMetadata,
    /// `requirements.txt`.
    Requirements,
    /// `poetry.lock`, `uv.lock` or `pdm.lock`.
    PythonLock,
    /// `go.mod`.
    GoMod,
    /// `go.sum`.
    GoSum,
    /// `Gemfile.lock`.
    GemLock,
    /// The specification of an installed gem.
    GemSpecification,
    /// `composer.lock`.
    ComposerLock,
    /// `vendor/composer/installed.json`.
    ComposerInstalled,
}

/// A file is not what its name says.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is no UTF-8.
    #[error("it is no text")]
    Text(#[source] std::str::Utf8Error),
    /// It is no JSON, or not of that shape.
    #[error("it is malformed")]
    Json(#[source] serde_json::Error),
    /// It is no TOML, or not of that shape.
    #[error("it is malformed")]
    Toml(#[source] Box<toml::de::Error>),
    /// It is no database.
    #[error(transparent)]
    Sqlite(#[from] SqliteError),
    /// A package's header in a database.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The form of the database is not known here.
    #[error("databases of Berkeley DB and ndb are not read")]
    OldRpm,
}

impl FileKind {
    /// What a path says that the file there is; `None` for most files.
    pub fn of(path: &[u8]) -> Option<Self> {
        let path = std::str::from_utf8(path).ok()?.trim_start_matches('/');
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        let below = |end: &str| dir == end || dir.strip_suffix(end).is_some_and(|above| above.ends_with('/'));
        let below_any = |ends: &[&str]| ends.iter().any(|end| below(end));
        let rpm = ["var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"];
        let kind = match name {
            "status" if below("var/lib/dpkg") => Self::Dpkg,
            _ if below("var/lib/dpkg/status.d") && !name.ends_with(".md5sums") => Self::Dpkg,
            "installed" if below("lib/apk/db") => Self::Apk,
            "rpmdb.sqlite" if below_any(&rpm) => Self::Rpm,
            "Packages" | "Packages.db" if below_any(&rpm) => Self::OldRpm,
            "Cargo.lock" => Self::CargoLock,
            "package-lock.json" | "npm-shrinkwrap.json" => Self::NpmLock,
            ".package-lock.json" if below("node_modules") => Self::NpmLock,
            "package.json" if is_installed(dir) => Self::NpmPackage,
            "yarn.lock" => Self::YarnLock,
            "pnpm-lock.yaml" => Self::PnpmLock,
            "METADATA" if dir.ends_with(".dist-info") => Self::PythonMetadata,
            "PKG-INFO" if dir.ends_with(".egg-info") => Self::PythonMetadata,
            "poetry.lock" | "uv.lock" | "pdm.lock" => Self::PythonLock,
            "go.mod" => Self::GoMod,
            "go.sum" => Self::GoSum,
            "Gemfile.lock" => Self::GemLock,
            "composer.lock" => Self::ComposerLock,
            "installed.json" if below("vendor/composer") => Self::ComposerInstalled,
            _ if name.ends_with(".egg-info") => Self::PythonMetadata,
            _ if name.ends_with(".gemspec") && dir.contains("specifications") => Self::GemSpecification,
            _ if name.ends_with(".txt") && name.contains("requirements") => Self::Requirements,
            _ => return None,
        };
        Some(kind)
    }

    /// A larger file is not read, in bytes.
    pub fn limit(self) -> u64 {
        match self {
            Self::Rpm => 256 << 20,
            Self::Dpkg | Self::Apk => 64 << 20,
            Self::NpmPackage | Self::GemSpecification | Self::OldRpm => 1 << 20,
            Self::PythonMetadata | Self::Requirements => 4 << 20,
            _ => 32 << 20,
        }
    }

    /// What the file is, for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Dpkg => "dpkg's database",
            Self::Apk => "apk's database",
            Self::Rpm | Self::OldRpm => "rpm's database",
            Self::NpmPackage | Self::PythonMetadata | Self::GemSpecification | Self::ComposerInstalled => {
                "the metadata of an installed package"
            }
            Self::Requirements | Self::GoMod => "a list of requirements",
            _ => "a lock file",
        }
    }

    /// The packages that a file tells of.
    ///
    /// # Errors
    /// A file that is not what its name says.
    pub fn packages(self, bytes: &[u8]) -> Result<Vec<Package>, ReadError> {
        Ok(match self {
            Self::Dpkg => dpkg::packages(bytes),
            Self::Apk => apk::packages(bytes),
            Self::Rpm => rpm::packages(bytes)?,
            Self::OldRpm => return Err(ReadError::OldRpm),
            Self::CargoLock => cargo::packages(Ecosystem::Cargo, bytes)?,
            Self::NpmLock => npm::locked(bytes)?,
            Self::NpmPackage => npm::installed(bytes)?,
            Self::YarnLock => yarn::packages(bytes),
            Self::PnpmLock => pnpm::packages(bytes),
            Self::PythonMetadata => python::installed(bytes),
            Self::Requirements => python::pinned(bytes),
            Self::PythonLock => cargo::packages(Ecosystem::Pypi, bytes)?,
            Self::GoMod => golang::required(bytes),
            Self::GoSum => golang::summed(bytes),
            Self::GemLock => ruby::locked(bytes),
            Self::GemSpecification => ruby::installed(bytes),
            Self::ComposerLock | Self::ComposerInstalled => php::packages(bytes)?,
        })
    }

    /// A file beside it that makes it superfluous.
    pub fn better(self) -> Option<&'static str> {
        (self == Self::GoSum).then_some("go.mod")
    }
}

/// Whether a directory is that of a package in `node_modules`, with or without a scope.
fn is_installed(dir: &str) -> bool {
    let mut above = dir.rsplit('/').skip(1);
    match above.next() {
        Some("node_modules") => true,
        Some(scope) => scope.starts_with('@') && above.next() == Some("node_modules"),
        None => false,
    }
}
