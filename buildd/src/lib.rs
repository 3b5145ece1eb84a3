//! The daemon, its sessions, sources, exporters and workers; the rbuild command line

mod blocking;
pub mod causes;
pub mod cli;
pub mod client;
mod container;
mod csv;
pub mod daemon;
pub mod errdetails;
pub mod explanation;
pub mod fsutil;
pub mod llb;
pub mod pipe;
mod private_dir;
pub mod progress;
mod purl;
pub mod sbom;
pub mod session;
pub mod sidesocket;
pub mod signatures;
mod tls;
mod version;
