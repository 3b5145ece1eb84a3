//! The isolated network.

use runner::{Launcher, NetworkMode};

use crate::support::{Bench, Ran, run, skip};

fn isolated(bench: &Bench, script: &str) -> Option<Ran> {
    if std::process::Command::new("nft").arg("--version").output().is_err() {
        skip("probe nft: package nftables is missing");
        return None;
    }
    let mut spec = bench.spec(script);
    spec.network = NetworkMode::Isolated;
    Some(run(&bench.launcher, &spec))
}

#[test]
fn isolated_sandboxes_have_a_link_and_a_way_to_the_host() {
    let Some(bench) = Bench::new() else { return };
    let script = "ip -o -4 addr show eth0 | wc -l; ip route | grep -c default; gw=$(ip route | grep default | cut -d' ' -f3); \
                  ping -c1 -W2 $gw >/dev/null && echo host; ip -6 addr show eth0 | wc -l";
    let Some(ran) = isolated(&bench, script) else { return };
    assert_eq!(ran.text(), "1\n1\nhost\n0\n");
}

/// What the host itself can resolve and reach, a sandbox can as well.
#[test]
fn names_resolve_and_packets_leave() {
    let Some(bench) = Bench::new() else { return };
    let url = "http://deb.debian.org/debian/dists/bookworm/InRelease";
    let reaches =
        std::process::Command::new("busybox").args(["wget", "-q", "-T5", "-O", "/dev/null", url]).status();
    if !reaches.is_ok_and(|status| status.success()) {
        skip("probe uplink: the host does not reach deb.debian.org");
        return;
    }
    let Some(ran) = isolated(&bench, &format!("wget -q -T5 -O - {url} | head -1")) else { return };
    assert!(ran.text().contains("BEGIN PGP"), "{ran:?}");
}

#[test]
fn sandboxes_do_not_reach_each_other() {
    let Some(bench) = Bench::new() else { return };
    let script = "ip -o -4 addr show eth0 | tr -s ' ' | cut -d' ' -f4 | cut -d/ -f1; sleep 3";
    let mut spec = bench.spec(script);
    spec.network = NetworkMode::Isolated;
    let (mut reader, writer) = std::io::pipe().unwrap();
    let stdio = runner::Stdio { stdout: Some(writer.into()), ..Default::default() };
    let Ok(first) = bench.launcher.spawn(&spec, stdio) else { return };
    let mut buffer = [0; 64];
    let n = std::io::Read::read(&mut reader, &mut buffer).unwrap();
    let address = String::from_utf8_lossy(&buffer[..n]).trim().to_owned();
    assert!(address.starts_with("10."), "{address}");
    let Some(ran) = isolated(&bench, &format!("ping -c1 -W1 {address} >/dev/null || echo unreachable"))
    else {
        return;
    };
    assert_eq!(ran.text(), "unreachable\n");
    first.kill();
    first.wait().unwrap();
}

#[test]
fn host_network_is_the_hosts() {
    let Some(bench) = Bench::new() else { return };
    let mut spec = bench.spec("readlink /proc/self/ns/net");
    spec.network = NetworkMode::Host;
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(bench.run_spec(&spec).text().trim(), own.to_string_lossy());
}

#[test]
fn nothing_of_the_network_stays() {
    let id = format!("n{}", std::process::id() % 1_000_000);
    let Some(bench) = Bench::with_id(&id) else { return };
    let Some(ran) = isolated(&bench, "true") else { return };
    ran.text();
    let links = || {
        std::fs::read_dir("/sys/class/net").unwrap().flatten().map(|e| e.file_name().into_string().unwrap())
    };
    assert!(links().any(|name| name.starts_with(&format!("rb{id}-"))));
    let Bench { launcher, dir, .. } = bench;
    drop::<Launcher>(launcher);
    // The kernel removes a namespace's links in the background.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while links().any(|name| name.starts_with(&format!("rb{id}-"))) {
        assert!(std::time::Instant::now() < deadline, "the link is left");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let tables = std::process::Command::new("nft").args(["list", "tables"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&tables.stdout).contains(&format!("rbuild_{id}")));
    let marker = format!("/run/rbuild-{id}.nft");
    assert!(!std::path::Path::new(&marker).exists());
    drop(dir);
}

/// A launcher that was killed cannot clean up; the next one of the same daemon does.
#[test]
fn the_next_launcher_removes_what_a_killed_one_left() {
    let id = format!("k{}", std::process::id() % 1_000_000);
    let Some(bench) = Bench::with_id(&id) else { return };
    let Some(ran) = isolated(&bench, "true") else { return };
    ran.text();
    crate::lifecycle::kill(crate::lifecycle::launcher_pid(&bench));
    let has_table = || {
        let tables = std::process::Command::new("nft").args(["list", "tables"]).output().unwrap();
        String::from_utf8_lossy(&tables.stdout).contains(&format!("rbuild_{id}"))
    };
    drop(bench);
    assert!(has_table());
    drop(crate::support::launcher(&id));
    assert!(!has_table());
}

/// The launcher of a daemon that was killed may live a little longer than its daemon, and the next one starts meanwhile:
/// neither touches what the other still needs.
#[test]
fn a_table_stays_as_long_as_somebody_uses_it() {
    let id = format!("d{}", std::process::id() % 1_000_000);
    let Some(bench) = Bench::with_id(&id) else { return };
    let Some(ran) = isolated(&bench, "true") else { return };
    ran.text();
    let tables = || {
        let out = std::process::Command::new("nft").args(["list", "tables"]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).matches(&format!("rbuild_{id}")).count()
    };
    drop(crate::support::launcher(&format!("{id}x")));
    assert_eq!(tables(), 1, "another id's launcher removed it");
    let next = crate::support::launcher(&id);
    assert_eq!(tables(), 1, "the next one removed it at its start");
    drop(next);
    assert_eq!(tables(), 1, "the next one removed it at its end");
    drop(bench);
    assert_eq!(tables(), 0);
}
