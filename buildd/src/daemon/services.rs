//! rbuild's own services, beside BuildKit's: the image store, containers, the daemon's version, self-checks; and the
//! content store, which is containerd's.

mod containers;
mod content;
mod debug;
mod explain;
mod image_json;
mod images;
mod load;
mod naming;
mod statements;
mod traces;
mod transfer;
mod version;

pub(crate) use containers::{ContainersService, take_up};
pub(crate) use content::ContentService;
pub(crate) use debug::DebugService;
pub(crate) use explain::ExplainService;
pub(crate) use images::ImagesService;
pub(crate) use traces::TracesService;
pub(crate) use version::VersionService;
