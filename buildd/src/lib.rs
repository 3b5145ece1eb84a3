//! The daemon, its sessions, sources, exporters and workers; the rbuild command line
pub mod client;
pub mod errdetails;
pub mod fsutil;
pub mod pipe;
pub mod session;
pub mod sidesocket;
