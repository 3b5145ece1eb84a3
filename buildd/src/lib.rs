//! The daemon, its sessions, sources, exporters and workers; the rbuild command line
