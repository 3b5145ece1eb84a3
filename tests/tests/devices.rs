//! Devices of the machine in steps (CDI).

use tests::{Scene, ready};

/// A scene whose machine offers devices.
fn scene(more: &str) -> (Scene, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let host = dir.path().join("host");
    fs_err::create_dir(&host).unwrap();
    fs_err::write(host.join("library"), "of the vendor\n").unwrap();
    let text = format!(
        "cdiVersion: '0.6.0'\nkind: vendor.com/device\ncontainerEdits: {{env: [COMMON=1]}}\ndevices:\n\
         - name: foo\n  containerEdits:\n    env: [FOO=injected]\n    deviceNodes:\n    \
         - {{path: /dev/foo, hostPath: /dev/zero}}\n    mounts:\n    \
         - {{hostPath: {}, containerPath: /vendor, options: [ro]}}\n\
         - name: open\n  annotations: {{org.mobyproject.buildkit.device.autoallow: true}}\n  \
         containerEdits: {{env: [OPEN=1]}}\n\
         - name: hooked\n  containerEdits: {{hooks: [{{hookName: createContainer, path: /bin/true}}]}}\n",
        host.display()
    );
    fs_err::write(dir.path().join("vendor.yaml"), text).unwrap();
    (Scene::with(&format!("[cdi]\nspecDirs = [{:?}]\n{more}", dir.path())), dir)
}

#[test]
fn steps_get_the_devices_that_they_may_have() {
    if !ready() {
        return;
    }
    let (scene, _dir) = scene("");
    let text = "# syntax=docker/dockerfile:1-labs\nFROM base\nRUN --device=vendor.com/device=foo,required --device=other.com/x \
                head -c 3 /dev/foo | wc -c && cat /vendor/library && ! touch /vendor/x 2>/dev/null \
                && echo $COMMON $FOO [$OPEN]\n";
    let refused = scene.dockerfile(text, &["-o", "type=cacheonly"]).fails();
    let reason = "device vendor.com/device=foo is requested by the build but not allowed";
    assert!(refused.stderr.contains(reason), "{}", refused.stderr);
    let built = scene.dockerfile(text, &["--allow", "device=vendor.com/device=foo"]).ok();
    for line in [" 3\n", " of the vendor\n", " 1 injected []\n"] {
        assert!(built.stderr.contains(line), "{}", built.stderr);
    }
    let aliased = text.replace("vendor.com/device=foo", "mine");
    let again = scene.dockerfile(&aliased, &["--allow", "device=vendor.com/device=foo,alias=mine"]).ok();
    assert!(again.stderr.contains(" 1 injected []\n") || !again.cached().is_empty(), "{}", again.stderr);
    let open = "# syntax=docker/dockerfile:1-labs\nFROM base\nRUN --device=vendor.com/device=open,required test $OPEN = 1\n";
    scene.dockerfile(open, &[]).ok();
    let stable = scene.dockerfile(&open.replace("-labs", ""), &[]).fails();
    assert!(stable.stderr.contains("device feature is only supported in"), "{}", stable.stderr);
    for (device, allowed, reason) in [
        (
            "vendor.com/device=none,required",
            "device",
            "required device \"vendor.com/device=none\" is not registered",
        ),
        (
            "vendor.com/device=hooked,required",
            "device",
            "CDI device injection failed: `vendor.com/device=hooked` wants",
        ),
        ("vendor.com/device=foo", "device=vendor.com/device=foo,mode=1", "unknown device config key `mode`"),
    ] {
        let text = format!("# syntax=docker/dockerfile:1-labs\nFROM base\nRUN --device={device} true\n");
        let failed = scene.dockerfile(&text, &["--allow", allowed]).fails();
        assert!(failed.stderr.contains(reason), "{device}: {}", failed.stderr);
    }
}

#[test]
fn a_daemon_may_keep_its_devices() {
    if !ready() {
        return;
    }
    let (scene, _dir) = scene("disabled = true\n");
    let text = "# syntax=docker/dockerfile:1-labs\nFROM base\nRUN --device=vendor.com/device=open [ -z \"$OPEN\" ]\n";
    scene.dockerfile(text, &[]).ok();
    let failed = scene.dockerfile(text, &["--allow", "device"]).fails();
    assert!(failed.stderr.contains("granting entitlement device is not allowed"), "{}", failed.stderr);
}
