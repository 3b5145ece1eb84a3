//! `RUN --device`: a CDI device.

use thiserror::Error;

use crate::parse::csv;
use crate::suggest;

/// A device that a RUN asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// The CDI name, perhaps with a class or a wildcard.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
}

/// What is wrong with a device.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// A quote that is not where CSV has them.
    #[error("failed to parse csv devices: {0}")]
    Csv(#[from] csv::CsvError),
    /// A second name.
    #[error("device name already set to {0}")]
    NamedTwice(String),
    /// An option without its value.
    #[error("invalid field '{0}' must be a key=value pair")]
    NoValue(String),
    /// A value that is no boolean.
    #[error("invalid value for required: {0}")]
    InvalidValue(String),
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
}

impl Device {
    /// Reads a device.
    ///
    /// # Errors
    /// On malformed values and unknown options.
    pub fn parse(value: &str) -> Result<Self, DeviceError> {
        let mut device = Self::default();
        for field in csv::fields(value)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_lowercase(), Some(value)),
                None => (field.to_lowercase(), None),
            };
            match (key.as_str(), value) {
                ("required", None) => device.required = true,
                ("required", Some(value)) => {
                    device.required = crate::number::boolean(value)
                        .ok_or_else(|| DeviceError::InvalidValue(value.to_owned()))?;
                }
                ("name", Some(_)) if !device.name.is_empty() => {
                    return Err(DeviceError::NamedTwice(device.name));
                }
                ("name", Some(value)) => value.clone_into(&mut device.name),
                _ if device.name.is_empty() => device.name = field,
                (_, None) => return Err(DeviceError::NoValue(field)),
                (_, Some(_)) => {
                    let suggestion = suggest::nearest(&key, ["name", "required"]).map(str::to_owned);
                    return Err(DeviceError::UnknownKey { key, field, suggestion });
                }
            }
        }
        Ok(device)
    }
}
