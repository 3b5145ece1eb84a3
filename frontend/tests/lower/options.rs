//! Frontend attributes become options.

use frontend::options::{BuildOptions, ContextSpec, NoCache, ResolveMode};
use solver::op::NetMode;

use crate::world::{amd64, options};

#[test]
fn attributes_are_read() {
    let options = options(&[
        ("target", ""),
        ("platform", "linux/arm64/v8,linux/386"),
        ("no-cache", "A,b"),
        ("add-hosts", "H=1.2.3.4,\"v6=::ffff:9.9.9.9\""),
        ("ulimit", "nofile=10:20,nproc=-1"),
        ("memory", "100"),
        ("cpusetcpus", "0-2,5"),
        ("force-network-mode", "host"),
        ("image-resolve-mode", "pull"),
        ("hostname", "a"),
        ("build-arg:BUILDKIT_SANDBOX_HOSTNAME", "b"),
        ("cache-imports", r#"[{"Type":"local","Attrs":{"src":"x"}}]"#),
        ("cache-from", "r/a,r/b"),
        ("filename", "sub/Dockerfile"),
        ("contextkey", "elsewhere"),
        ("elsewhere", "https://h.x/c.tar"),
        ("future", "thing"),
    ]);
    assert_eq!(options.target, None);
    let platforms: Vec<String> = options.platforms.iter().map(frontend::platform::format_all).collect();
    assert_eq!(platforms, ["linux/arm64", "linux/386"]);
    assert!(options.multi_platform);
    assert!(options.no_cache.covers("a") && options.no_cache.covers("B") && !options.no_cache.covers(""));
    assert_eq!(options.extra_hosts[1].ip, "9.9.9.9");
    assert_eq!((options.ulimits[0].soft, options.ulimits[0].hard, options.ulimits[1].soft), (10, 20, -1));
    let resources = options.resources.unwrap();
    assert_eq!((resources.memory, resources.cpuset_cpus.as_str()), (100, "0-2,5"));
    assert_eq!((options.network, options.resolve_mode), (NetMode::Host, ResolveMode::ForcePull));
    assert_eq!(options.hostname, "b");
    assert_eq!(options.cache_imports.len(), 3);
    assert_eq!(options.context.spec, ContextSpec::Http { url: "https://h.x/c.tar".into(), archive: false });
}

#[test]
fn defaults() {
    assert_eq!(options(&[]), BuildOptions::new(amd64()));
    assert_eq!(options(&[("no-cache", "")]).no_cache, NoCache::All);
}

#[test]
fn bad_values_are_refused() {
    for (key, value, message) in [
        (
            "platform",
            "wat",
            "failed to parse target platform wat: \"wat\": unknown operating system or architecture: invalid argument",
        ),
        ("image-resolve-mode", "x", "invalid image-resolve-mode: x"),
        ("add-hosts", "a", "failed to parse additional hosts: invalid key-value pair a"),
        ("add-hosts", "a=b", "failed to parse additional hosts: failed to parse IP b"),
        ("ulimit", "x=1", "failed to parse ulimit: invalid ulimit type: x"),
        (
            "ulimit",
            "nofile=2:1",
            "failed to parse ulimit: ulimit soft limit must be less than or equal to hard limit: 2 > 1",
        ),
        ("shm-size", "1k", "invalid shm-size value: 1k"),
        ("memory", "0", "invalid memory value: 0: must be > 0"),
        ("cpusetcpus", "2-1", "invalid cpusetcpus value: 2-1"),
        ("force-network-mode", "lan", "invalid netmode lan"),
        ("multi-platform", "so", "invalid boolean value for multi-platform: so"),
        ("cache-imports", "[", "failed to unmarshal cache-imports (\"[\")"),
        (
            "build-arg:BUILDKIT_DISABLE_FILEOP",
            "1",
            "support for \"BUILDKIT_DISABLE_FILEOP\" was removed in BuildKit 0.11",
        ),
    ] {
        let attrs = [(key.to_owned(), value.to_owned())].into();
        let error = BuildOptions::from_attrs(&attrs, amd64()).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}
