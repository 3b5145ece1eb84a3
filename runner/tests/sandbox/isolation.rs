//! What a sandbox may see and do: classes T2, T9 and T17.

use runner::{NetworkMode, RootFs, SandboxSpec, SecurityMode, User};

use crate::support::Bench;

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line =
        status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {status}"));
    line[name.len()..].trim_start_matches(':').trim()
}

#[test]
fn root_has_the_fourteen_capabilities_and_a_filter() {
    let Some(bench) = Bench::new() else { return };
    let status = bench.run("cat /proc/self/status").text();
    for (name, expected) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", "00000000a80425fb"),
        ("CapEff", "00000000a80425fb"),
        ("CapBnd", "00000000a80425fb"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "0"),
        ("Seccomp", "2"),
        ("Groups", ""),
    ] {
        assert_eq!(field(&status, name), expected, "{name}");
    }
}

#[test]
fn a_user_has_exactly_the_groups_asked_for_and_nothing_in_effect() {
    let Some(bench) = Bench::new() else { return };
    let mut spec =
        bench.spec("cat /proc/self/status; echo x > /dev/stdout; touch /bin/x 2>/dev/null || echo refused");
    spec.user = User { uid: 1000, gid: 1001, groups: vec![2000, 3000] };
    let status = bench.run_spec(&spec).text();
    for (name, expected) in [
        ("Uid", "1000\t1000\t1000\t1000"),
        ("Gid", "1001\t1001\t1001\t1001"),
        ("Groups", "2000 3000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapInh", "0000000000000000"),
        ("CapBnd", "00000000a80425fb"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(field(&status, name), expected, "{name}");
    }
    assert!(status.ends_with("x\nrefused\n"), "{status}");
}

#[test]
fn insecure_mode_has_everything_the_daemon_has() {
    let Some(bench) = Bench::new() else { return };
    let mut spec = bench.spec("cat /proc/self/status; mount -t tmpfs t /tmp && echo mounted; test ! -e /dev/loop-control || echo devices");
    spec.security = SecurityMode::Insecure;
    let status = bench.run_spec(&spec).text();
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(field(&status, "CapEff"), field(&own, "CapBnd"));
    assert_eq!(field(&status, "Seccomp"), "0");
    assert!(status.contains("mounted\n"), "{status}");
    assert_eq!(status.contains("devices\n"), std::path::Path::new("/dev/loop-control").exists());
}

#[test]
fn refuses_what_the_profile_refuses() {
    let Some(bench) = Bench::new() else { return };
    for script in [
        "mount -t tmpfs t /tmp",
        "unshare -m true",
        "echo 1 > /proc/sys/kernel/printk",
        "echo b > /proc/sysrq-trigger",
        "mkdir /sys/fs/cgroup/x",
        "mkdir /sys/fs/cgroup/memory/x",
        "mknod /tmp/m b 7 0 && head -c1 /tmp/m",
        "hostname other",
        "chroot / mount -o remount,rw /sys",
        "umount /proc/interrupts",
        "ip link add x type dummy",
    ] {
        let ran = bench.run(script);
        assert_ne!(ran.code(), 0, "{script}: {ran:?}");
    }
}

#[test]
fn masks_and_usual_mounts() {
    let Some(bench) = Bench::new() else { return };
    let script = "wc -c < /proc/interrupts; wc -c < /proc/timer_list; ls -A /sys/firmware | wc -l; ls -A /proc/scsi 2>/dev/null| wc -l; \
                  ls /dev | tr '\\n' ' '; stat -c '%a' /dev/shm /dev/null /dev; stat -f -c %T /dev/shm /dev/mqueue; \
                  df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2; umask; ls /proc/self/fd | wc -l";
    let text = bench.run(script).text();
    let expected = "0\n0\n0\n0\nfd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \
                    1777\n666\n755\ntmpfs\nUNKNOWN\n65536\n0022\n4\n";
    assert_eq!(text, expected);
}

/// T9: an image that tries to redirect the masks or to leak descriptors.
#[test]
fn links_in_the_image_do_not_lift_masks() {
    let Some(bench) = Bench::new() else { return };
    for (link, target) in [("proc", "/etc"), ("dev", "/tmp"), ("proc", "../../../.."), ("sys", "/root")] {
        let base = bench.path(&format!("evil-{link}-{}", target.len()));
        crate::support::busybox_root(&base);
        std::os::unix::fs::symlink(target, base.join(link)).unwrap();
        let mut overlay = bench.overlay(&format!("up-{link}-{}", target.len()));
        overlay.lower = vec![base];
        let script = "cat /proc/interrupts | wc -c; cat /proc/sysrq-trigger; echo x > /proc/sys/kernel/hostname; cat /proc/1/root/canary";
        let ran = bench.run_spec(&bench.spec_over(RootFs::Overlay(overlay), script));
        let text = String::from_utf8_lossy(&ran.output);
        assert!(
            text.starts_with("0\n") || ran.outcome.is_err() || text.contains("No such"),
            "{link} {target}: {ran:?}"
        );
        assert!(!text.contains("canary-content"), "{text}");
    }
    // A regular file posing as the node that covers files.
    let base = bench.path("evil-null");
    crate::support::busybox_root(&base);
    std::fs::create_dir(base.join("dev")).unwrap();
    std::fs::write(base.join("dev/null"), "open").unwrap();
    let mut overlay = bench.overlay("up-null");
    overlay.lower = vec![base];
    let text = bench.run_spec(&bench.spec_over(RootFs::Overlay(overlay), "wc -c < /proc/interrupts")).text();
    assert_eq!(text, "0\n");
}

/// CVE-2024-21626.
#[test]
fn no_working_directory_through_descriptors() {
    let Some(bench) = Bench::new() else { return };
    for n in 0..24 {
        let mut spec = bench.spec("pwd; cat ../../../../etc/hostname");
        spec.cwd = format!("/proc/self/fd/{n}").into();
        let error = bench.run_spec(&spec).outcome.unwrap_err();
        assert!(error.to_string().contains("working directory"), "{error}");
    }
}

#[test]
fn names_what_cannot_be_run_or_entered() {
    let Some(bench) = Bench::new() else { return };
    let error = |change: &dyn Fn(&mut SandboxSpec)| {
        let mut spec = bench.spec("true");
        change(&mut spec);
        bench.run_spec(&spec).outcome.unwrap_err().to_string()
    };
    assert_eq!(error(&|s| s.args = vec!["nope".into()]), "executable file `nope` not found in $PATH");
    assert_eq!(
        error(&|s| s.args = vec!["/nope".into()]),
        "cannot run `/nope`: No such file or directory (os error 2)"
    );
    assert_eq!(
        error(&|s| s.args = vec!["/etc/passwd".into()]),
        "cannot run `/etc/passwd`: Permission denied (os error 13)"
    );
    assert_eq!(
        error(&|s| s.cwd = "/nowhere".into()),
        "cannot enter the working directory `/nowhere`: No such file or directory (os error 2)"
    );
    assert_eq!(error(&|s| s.args.clear()), "invalid sandbox request: no program to run");
}

#[test]
fn network_none_has_loopback_only() {
    let Some(bench) = Bench::new() else { return };
    let mut spec = bench.spec("ip -o addr; ping -c1 -W2 127.0.0.1 >/dev/null && echo up; ip route | wc -l");
    spec.network = NetworkMode::None;
    let text = bench.run_spec(&spec).text();
    assert!(text.contains("127.0.0.1/8") && text.ends_with("up\n0\n"), "{text}");
    assert!(!text.contains("eth0"), "{text}");
}

/// A command that is the launcher's own program, whose interpreter is the image's: it must not change the host's file.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_hosts_program_cannot_be_changed_from_within() {
    use std::os::unix::fs::MetadataExt as _;

    const INTERPRETER: &str = r#"
        static long call(long n, long a, long b, long c) {
            long r;
            __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
            return r;
        }
        void _start(void) {
            const char *self = "/proc/self/exe";
            long changed = call(90, (long)self, 0777, 0);
            long given = call(92, (long)self, 1, 1);
            long opened = call(2, (long)self, 1, 0);
            call(231, changed == -30 && given == -30 && opened < 0 ? 30 : 1, 0, 0);
        }
    "#;
    let Some(bench) = Bench::new() else { return };
    let lib = bench.path("base/lib64");
    std::fs::create_dir_all(&lib).unwrap();
    let source = bench.path("interpreter.c");
    std::fs::write(&source, INTERPRETER).unwrap();
    let compiled = std::process::Command::new("cc")
        .args(["-O1", "-static", "-nostdlib", "-fno-stack-protector", "-o"])
        .arg(lib.join("ld-linux-x86-64.so.2"))
        .arg(&source)
        .status();
    if !compiled.is_ok_and(|status| status.success()) {
        return crate::support::skip("probe cc: no C compiler");
    }
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_runner-launcher"));
    let before = std::fs::metadata(program).unwrap();
    let spec = SandboxSpec { args: vec!["/proc/self/exe".to_owned()], ..bench.spec("") };
    let ran = bench.run_spec(&spec);
    let after = std::fs::metadata(program).unwrap();
    assert_eq!((after.mode(), after.uid()), (before.mode(), before.uid()));
    assert_eq!(ran.code(), 30, "read-only: {}", String::from_utf8_lossy(&ran.output));
}

#[test]
fn ids_that_mean_none_are_refused() {
    let Some(bench) = Bench::new() else { return };
    for user in [
        User { uid: u32::MAX, gid: 0, groups: vec![] },
        User { uid: 1, gid: u32::MAX, groups: vec![] },
        User { uid: 1, gid: 1, groups: vec![u32::MAX] },
    ] {
        let spec = SandboxSpec { user, ..bench.spec("id") };
        assert!(bench.run_spec(&spec).outcome.is_err(), "{:?}", spec.user);
    }
}
