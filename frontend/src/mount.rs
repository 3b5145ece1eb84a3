//! The values of `RUN --mount` and `RUN --device`.

mod device;
mod options;

pub use device::{Device, DeviceError};
pub use options::{Mount, MountError, MountType, Sharing};
