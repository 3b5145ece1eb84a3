//! End-to-end suites: the real program, real sandboxes, a real registry
