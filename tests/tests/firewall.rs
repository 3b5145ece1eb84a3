//! Steps reach the network on hosts whose firewall drops what nobody accepts, as Docker's and ufw's do.

use std::process::{Child, Command, Stdio};

use tests::{Scene, ready};

/// A machine beyond the host, with a web server.
struct Beyond(Child);

impl Beyond {
    /// Gives this thread, and what it starts from now on, a network of its own with one way out.
    fn new() -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        sh("ip link set lo up && ip link add out0 type veth peer name in0");
        let serve = "until ip addr add 192.0.2.2/24 dev in0 2>/dev/null; do sleep 0.05; done; ip link set in0 up; \
                     cd /etc && exec python3 -m http.server 80";
        let mut server = Command::new("unshare");
        server.args(["-n", "sh", "-c", serve]).stdout(Stdio::null()).stderr(Stdio::null());
        let server = Self(server.spawn().unwrap());
        let ours = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", server.0.id());
        while std::fs::read_link(&theirs).unwrap() == ours {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        sh(&format!("ip link set in0 netns {}", server.0.id()));
        sh("ip addr add 192.0.2.1/24 dev out0 && ip link set out0 up && ip route add default via 192.0.2.2");
        sh("until wget -qO /dev/null http://192.0.2.2/hostname; do sleep 0.1; done");
        server
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

#[track_caller]
fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Builds where `firewall` was set up before, and checks that it is the same afterwards.
fn check(firewall: &str) {
    if !ready() {
        return;
    }
    let _beyond = Beyond::new();
    sh(firewall);
    let before = sh("nft list ruleset; iptables-legacy -S");
    let mut scene = Scene::new();
    scene.dockerfile("FROM base\nRUN timeout 9 wget -qO- http://192.0.2.2/hostname\n", &["-t", "x"]).ok();
    // Refused in so many words by somebody: it stays refused.
    sh("nft add table ip admin; nft add chain ip admin f '{ type filter hook forward priority 5; }'; \
        nft add rule ip admin f ip daddr 192.0.2.2 drop");
    let refused = "FROM base\nRUN timeout 2 wget -qO- http://192.0.2.2/hostname; test $? = 143\n";
    scene.dockerfile(refused, &["-t", "y"]).ok();
    sh("nft delete table ip admin");
    scene.daemon.stop();
    assert_eq!(sh("nft list ruleset; iptables-legacy -S"), before);
}

#[test]
fn of_iptables() {
    check("iptables-nft -P FORWARD DROP && iptables-nft -A FORWARD -i docker0 -j ACCEPT");
}

#[test]
fn of_iptables_older_kind() {
    check("iptables-legacy -P FORWARD DROP");
}

#[test]
fn of_nft() {
    check(
        "nft add table inet fw && nft add chain inet fw forward '{ type filter hook forward priority 0; policy drop; }'",
    );
}
