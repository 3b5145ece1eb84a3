//! Sandboxes and containers: launcher, mounts, namespaces, cgroups, seccomp, capabilities, network
