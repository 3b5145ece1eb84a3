//! `RUN --mount`: a comma-separated list of options.

use thiserror::Error;

use crate::parse::csv;
use crate::quote::quote;
use crate::suggest;
use crate::words::WordError;

/// All option names, for suggestions; in BuildKit's order, which breaks ties.
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountType {
    /// Files of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory kept between builds.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret, as a file or a variable.
    Secret,
    /// An SSH agent's socket.
    Ssh,
}

impl MountType {
    const ALL: [Self; 5] = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];

    /// The name in `type=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Everyone.
    Shared,
    /// Each user gets a directory of its own.
    Private,
    /// One user at a time.
    Locked,
}

impl Sharing {
    const ALL: [Self; 3] = [Self::Shared, Self::Private, Self::Locked];

    /// The name in `sharing=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Private => "private",
            Self::Locked => "locked",
        }
    }
}

/// A mount of a RUN, with its variables expanded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mount {
    /// `type`
    pub kind: MountType,
    /// `from`: a stage, context or image; empty when not given.
    pub from: String,
    /// `source` or `src`; empty when not given.
    pub source: String,
    /// `target`, `dst` or `destination`; empty when not given.
    pub target: String,
    /// Whether writes are refused; without `ro` or `rw` true for all but caches and tmpfs.
    pub readonly: bool,
    /// `size` of a tmpfs in bytes, 0 when not given.
    pub size: i64,
    /// `id`; empty when not given.
    pub id: String,
    /// `sharing`, when given.
    pub sharing: Option<Sharing>,
    /// `required`
    pub required: bool,
    /// `env`, when given: the variable that a secret goes to; `Some("")` means its default name.
    pub env: Option<String>,
    /// `mode`, when given.
    pub mode: Option<u32>,
    /// `uid`, when given.
    pub uid: Option<u32>,
    /// `gid`, when given.
    pub gid: Option<u32>,
}

/// What is wrong with a mount.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MountError {
    /// A quote that is not where CSV has them.
    #[error("failed to parse csv mounts: {0}")]
    Csv(#[from] csv::CsvError),
    /// A value that could not be expanded.
    #[error(transparent)]
    Word(#[from] WordError),
    /// An option that is none.
    #[error("unexpected key '{key}' in '{field}'{}", suggest::did_you_mean(.suggestion.as_deref()))]
    UnknownKey {
        /// The option.
        key: String,
        /// The option with its value.
        field: String,
        /// What may have been meant.
        suggestion: Option<String>,
    },
    /// An option that another mount type has.
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    KeyForType {
        /// The option.
        key: String,
        /// The mount's type.
        kind: &'static str,
    },
    /// An option without its value.
    #[error("invalid field '{0}' must be a key=value pair")]
    NoValue(String),
    /// A value that is none of those allowed.
    #[error("unsupported {what} {}{}", quote(.value), suggest::did_you_mean(.suggestion.as_deref()))]
    Unsupported {
        /// `mount type` or `sharing value`.
        what: &'static str,
        /// The value.
        value: String,
        /// What may have been meant.
        suggestion: Option<String>,
    },
    /// A value that is no boolean or size.
    #[error("invalid value for {key}: {value}")]
    InvalidValue {
        /// The option.
        key: String,
        /// The value.
        value: String,
    },
    /// A value that is no number of the option's kind.
    #[error("invalid value {value} for {key}")]
    InvalidNumber {
        /// The option.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// `from` takes no variables.
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    FromVariable,
    /// `mode`, `uid` or `gid` where files are not the mount's own.
    #[error("{key} not allowed for {} type mounts", quote(.kind))]
    NotAllowed {
        /// The option.
        key: &'static str,
        /// The mount's type.
        kind: &'static str,
    },
    /// A secret with `from`.
    #[error("secret mount should not have a from")]
    SecretFrom,
    /// A secret with `sharing`.
    #[error("secret mount should not define sharing")]
    SecretSharing,
    /// A secret without a name.
    #[error("invalid secret mount. one of source, target required")]
    SecretUnnamed,
    /// A secret with two names.
    #[error("both source and id can't be set")]
    SecretNamedTwice,
    /// `sharing` where nothing is shared.
    #[error("invalid cache sharing set for {0} mount")]
    Sharing(&'static str),
}

impl MountError {
    /// What it is about, as written or expanded; `None` is the whole mount.
    pub fn word(&self) -> Option<&str> {
        let word: &str = match self {
            Self::Word(error) => &error.word,
            Self::UnknownKey { field, .. } | Self::NoValue(field) => field,
            Self::KeyForType { key, .. } => key,
            Self::InvalidNumber { key, .. } | Self::NotAllowed { key, .. } => key,
            Self::Unsupported { value, .. } | Self::InvalidValue { value, .. } => value,
            _ => return None,
        };
        Some(word).filter(|word| !word.is_empty())
    }
}

impl Mount {
    /// Checks what can be checked before variables are known: the commas and `from`.
    ///
    /// # Errors
    /// Those that BuildKit reports while it parses.
    pub fn check(value: &str) -> Result<(), MountError> {
        for field in csv::fields(value)? {
            if let Some((key, value)) = field.split_once('=')
                && key.eq_ignore_ascii_case("from")
                && value.find('$').is_some_and(|at| at + 1 != value.len())
            {
                return Err(MountError::FromVariable);
            }
        }
        Ok(())
    }

    /// Reads a mount, expanding each option's value.
    ///
    /// # Errors
    /// Those that BuildKit reports while it lowers.
    pub fn parse(
        value: &str,
        expand: &mut dyn FnMut(&str) -> Result<String, WordError>,
    ) -> Result<Self, MountError> {
        let mut mount = Self::default();
        let mut readonly = None;
        for field in csv::fields(value)? {
            match field.split_once('=') {
                None => mount.bare(&field, &mut readonly)?,
                Some((key, value)) => {
                    mount.option(&key.to_lowercase(), expand(value)?, &field, &mut readonly)?
                }
            }
        }
        mount.readonly = readonly.unwrap_or(!matches!(mount.kind, MountType::Cache | MountType::Tmpfs));
        mount.validate()?;
        Ok(mount)
    }

    /// An option without a value.
    fn bare(&mut self, field: &str, readonly: &mut Option<bool>) -> Result<(), MountError> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => *readonly = Some(true),
            "readwrite" | "rw" => *readonly = Some(false),
            "required" => {
                self.only_for("required", &[MountType::Secret, MountType::Ssh])?;
                self.required = true;
            }
            _ => return Err(MountError::NoValue(field.to_owned())),
        }
        Ok(())
    }

    fn option(
        &mut self,
        key: &str,
        value: String,
        field: &str,
        readonly: &mut Option<bool>,
    ) -> Result<(), MountError> {
        match key {
            "type" => self.kind = choose("mount type", value, &MountType::ALL, MountType::as_str)?,
            "from" => self.from = value,
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "readonly" | "ro" => *readonly = Some(boolean(key, value)?),
            "readwrite" | "rw" => *readonly = Some(!boolean(key, value)?),
            "required" => {
                self.only_for(key, &[MountType::Secret, MountType::Ssh])?;
                self.required = boolean(key, value)?;
            }
            "size" => {
                self.only_for(key, &[MountType::Tmpfs])?;
                self.size = crate::number::bytes(&value)
                    .ok_or_else(|| MountError::InvalidValue { key: key.to_owned(), value })?;
            }
            "id" => self.id = value,
            "sharing" => self.sharing = Some(choose("sharing value", value, &Sharing::ALL, Sharing::as_str)?),
            "mode" => self.mode = Some(number("mode", value, 8)?),
            "uid" => self.uid = Some(number("uid", value, 10)?),
            "gid" => self.gid = Some(number("gid", value, 10)?),
            "env" => self.env = Some(value),
            _ => {
                return Err(MountError::UnknownKey {
                    key: key.to_owned(),
                    field: field.to_owned(),
                    suggestion: suggest::nearest(key, KEYS).map(str::to_owned),
                });
            }
        }
        Ok(())
    }

    fn only_for(&self, key: &str, kinds: &[MountType]) -> Result<(), MountError> {
        if kinds.contains(&self.kind) {
            return Ok(());
        }
        Err(MountError::KeyForType { key: key.to_owned(), kind: self.kind.as_str() })
    }

    fn validate(&self) -> Result<(), MountError> {
        let kind = self.kind.as_str();
        if matches!(self.kind, MountType::Bind | MountType::Tmpfs) {
            for (key, given) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
                if given.is_some() {
                    return Err(MountError::NotAllowed { key, kind });
                }
            }
        }
        if self.kind == MountType::Secret {
            if !self.from.is_empty() {
                return Err(MountError::SecretFrom);
            }
            if self.sharing.is_some() {
                return Err(MountError::SecretSharing);
            }
            if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                return Err(MountError::SecretUnnamed);
            }
            if !self.source.is_empty() && !self.id.is_empty() {
                return Err(MountError::SecretNamedTwice);
            }
        }
        if self.sharing.is_some() && self.kind != MountType::Cache {
            return Err(MountError::Sharing(kind));
        }
        Ok(())
    }
}

/// The choice that a value names, whatever its case.
fn choose<T: Copy>(
    what: &'static str,
    value: String,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, MountError> {
    let lower = value.to_lowercase();
    all.iter().copied().find(|&choice| name(choice) == lower).ok_or_else(|| {
        let suggestion = suggest::nearest(&value, all.iter().map(|&choice| name(choice))).map(str::to_owned);
        MountError::Unsupported { what, value, suggestion }
    })
}

fn boolean(key: &str, value: String) -> Result<bool, MountError> {
    crate::number::boolean(&value).ok_or_else(|| MountError::InvalidValue { key: key.to_owned(), value })
}

fn number(key: &'static str, value: String, radix: u32) -> Result<u32, MountError> {
    crate::number::unsigned(&value, radix).ok_or(MountError::InvalidNumber { key, value })
}
