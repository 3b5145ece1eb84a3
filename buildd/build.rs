//! Linker options that make the release binary smaller, in memory above all: most of an idle daemon is its own code.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=hot.ld");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if !is("PROFILE", "release") || !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu")
    {
        return;
    }
    // Relocations take 50 KiB instead of 1.3 MiB, which every start reads. Needs glibc 2.36 (Debian 12).
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        // Equal functions become one. Rust's own linker there is lld, which can do it.
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
        // What ordinary builds run stands together: pages of other code are not touched, and not in memory.
        let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-T{here}/hot.ld");
    }
}
