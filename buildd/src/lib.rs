//! The daemon, its sessions, sources, exporters and workers; the rbuild command line

pub mod cli;
pub mod client;
pub mod daemon;
pub mod errdetails;
pub mod fsutil;
pub mod llb;
pub mod pipe;
pub mod progress;
pub mod session;
pub mod sidesocket;
