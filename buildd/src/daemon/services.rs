//! rbuild's own services, beside BuildKit's: the image store, containers, the daemon's version, self-checks.

mod containers;
mod debug;
mod image_json;
mod images;
mod load;
mod naming;
mod transfer;
mod version;

pub(crate) use containers::{ContainersService, take_up};
pub(crate) use debug::DebugService;
pub(crate) use images::ImagesService;
pub(crate) use version::VersionService;
