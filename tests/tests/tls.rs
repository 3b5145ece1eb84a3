//! Encrypted tcp addresses: who is let in, what the others are told, and certificates that change.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sha2::Digest as _;
use tempfile::TempDir;
use tests::{Authority, Daemon, Output, Valid, base, output, program, ready};

/// A daemon at a tcp address that takes clients of `authority`.
struct Encrypted {
    daemon: Daemon,
    addr: String,
    authority: Authority,
    dir: TempDir,
}

impl Encrypted {
    fn start() -> Self {
        Self::with(|_, _| String::new())
    }

    /// With more in the configuration.
    fn with(more: impl FnOnce(&Authority, &Path) -> String) -> Self {
        let dir = TempDir::new().unwrap();
        let authority = Authority::new("ours");
        let server = authority.issue(&dir.path().join("server"), Valid::Now);
        let of = |name| server.join(name).display().to_string();
        let config = format!(
            "insecure-entitlements = [\"network.host\", \"security.insecure\"]\n[grpc.tls]\ncert = \"{}\"\nkey = \"{}\"\nca = \"{}\"\n",
            of("cert.pem"),
            of("key.pem"),
            of("ca.pem")
        );
        let config = config + &more(&authority, dir.path());
        let mut daemon = Daemon::new(&dir.path().join("d"), &config);
        let addr = daemon.listen_tcp();
        daemon.again();
        Self { daemon, addr, authority, dir }
    }

    fn client(&self, options: &[&str], verb: &[&str]) -> Output {
        client(&self.addr, options, verb)
    }

    /// What a client with the certificates of a directory is told.
    fn with_dir(&self, dir: &Path) -> Output {
        self.client(&["--tlsdir", dir.to_str().unwrap()], &["images"])
    }

    fn log(&self) -> String {
        fs_err::read_to_string(self.daemon.log()).unwrap()
    }

    #[track_caller]
    fn until_logged(&self, text: &str) {
        let begun = Instant::now();
        while !self.log().contains(text) {
            assert!(begun.elapsed() < Duration::from_secs(10), "no `{text}` in\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn client(addr: &str, options: &[&str], verb: &[&str]) -> Output {
    output(Command::new(program()).args(["--addr", addr]).args(options).args(verb))
}

#[track_caller]
fn told(out: Output, text: &str) {
    let out = out.fails();
    assert!(out.stderr.contains(text), "no `{text}` in: {}", out.stderr);
}

#[test]
fn only_clients_with_a_certificate_build() {
    if !ready() {
        return;
    }
    let scene = Encrypted::start();
    let path = |name: &str| scene.dir.path().join(name);
    let good = scene.authority.issue(&path("client"), Valid::Now);
    let (context, out) = (path("context"), path("out"));
    base::context(&context, &[("Dockerfile", "FROM scratch\nCOPY file /\n"), ("file", "secretly")]);
    let export = format!("type=local,dest={}", out.display());
    let build = ["build", "-o", &export, context.to_str().unwrap()];
    scene.client(&["--tlsdir", good.to_str().unwrap()], &build).ok();
    assert_eq!(fs_err::read_to_string(out.join("file")).unwrap(), "secretly");
    // By its other name, file by file, from the environment.
    let mut command = Command::new(program());
    for (variable, file) in
        [("RBUILD_TLSCACERT", "ca.pem"), ("RBUILD_TLSCERT", "cert.pem"), ("RBUILD_TLSKEY", "key.pem")]
    {
        command.env(variable, good.join(file));
    }
    command.env("RBUILD_TLSSERVERNAME", "daemon.test").env("RBUILD_HOST", &scene.addr);
    output(command.arg("images")).ok();

    let other = Authority::new("others");
    let stranger = other.issue(&path("stranger"), Valid::Now);
    told(scene.with_dir(&stranger), "its certificate comes from none of the authorities of `--tlscacert`");
    scene.authority.write(&stranger.join("ca.pem"));
    told(scene.with_dir(&stranger), "it does not know the authority of the certificate of `--tlscert`");
    // Two authorities of one name differ by their keys only.
    let impostor = Authority::new("ours").issue(&path("impostor"), Valid::Now);
    told(scene.with_dir(&impostor), "its certificate comes from none of the authorities of `--tlscacert`");
    scene.authority.write(&impostor.join("ca.pem"));
    told(scene.with_dir(&impostor), "certificate of `--tlscert`");
    for (name, valid) in [("expired", Valid::Past), ("early", Valid::Later)] {
        let dir = scene.authority.issue(&path(name), valid);
        told(scene.with_dir(&dir), "the certificate of `--tlscert` has expired or is not valid yet");
    }
    let ca = good.join("ca.pem");
    let ca = ["--tlscacert", ca.to_str().unwrap()];
    told(scene.client(&ca, &["images"]), "it wants a certificate: see `--tlscert` and `--tlskey`");
    let named = ["--tlsdir", good.to_str().unwrap(), "--tlsservername", "elsewhere.test"];
    told(scene.client(&named, &["images"]), "its certificate is not for `elsewhere.test`");
    told(scene.client(&[], &["images"]), &format!("the connection to the daemon at `{}` broke", scene.addr));
    told(scene.client(&[], &build), "hint: a daemon that wants TLS is reached with `--tlscacert`");
    scene.until_logged("no TLS with `127.0.0.1:");

    // What is no TLS at all, and who says nothing, disturbs nobody.
    let at = scene.addr.strip_prefix("tcp://").unwrap();
    TcpStream::connect(at).unwrap().write_all(&[0x16, 3, 1, 0xff, 0xff, 1, 2, 3]).unwrap();
    let silent: Vec<_> = (0..8).map(|_| TcpStream::connect(at).unwrap()).collect();
    scene.with_dir(&good).ok();
    drop(silent);
}

#[test]
fn each_client_may_ask_for_its_own() {
    if !ready() {
        return;
    }
    let scene = Encrypted::with(|authority, dir| {
        let first = authority.issue(&dir.join("first"), Valid::Now);
        authority.issue(&dir.join("second"), Valid::Now);
        let pem = fs_err::read_to_string(first.join("cert.pem")).unwrap();
        let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        let digits = hex::encode(sha2::Sha256::digest(der));
        let me = nix::unistd::getuid();
        format!(
            "[grpc.entitlements]\n\"cert:{digits}\" = [\"network.host\"]\n\"*\" = []\n\"uid:{me}\" = [\"security.insecure\"]\n"
        )
    });
    let context = scene.dir.path().join("context");
    base::context(&context, &[("Dockerfile", "FROM scratch\nCOPY file /\n"), ("file", "x")]);
    let far = |client: &str| {
        let certificates = scene.dir.path().join(client).display().to_string();
        let build = ["build", "--allow", "network.host", context.to_str().unwrap()];
        scene.client(&["--tlsdir", &certificates], &build)
    };
    far("first").ok();
    let reason = "granting entitlement network.host is not allowed by build daemon configuration: see `[grpc.entitlements]`";
    told(far("second"), reason);
    told(scene.daemon.build(&context, &["--allow", "network.host"]), reason);
    scene.daemon.build(&context, &["--allow", "security.insecure"]).ok();
}

#[test]
fn certificates_that_change() {
    if !ready() {
        return;
    }
    let scene = Encrypted::start();
    let path = |name: &str| scene.dir.path().join(name);
    let good = scene.authority.issue(&path("client"), Valid::Now);
    let server = path("server");
    scene.with_dir(&good).ok();
    scene.authority.issue(&server, Valid::Past);
    told(scene.with_dir(&good), "its certificate has expired");
    scene.authority.issue(&server, Valid::Now);
    scene.with_dir(&good).ok();
    // Half of a change: what was read before holds, and the log says why.
    fs_err::write(server.join("cert.pem"), "nothing").unwrap();
    scene.with_dir(&good).ok();
    scene.until_logged("cert.pem`: it holds no certificate in PEM");
    // Another authority: those of the old one are out. A signal is enough, without any client.
    let other = Authority::new("others");
    other.issue(&server, Valid::Now);
    let before = scene.log().matches("were read again").count();
    kill(Pid::from_raw(scene.daemon.pid()), Signal::SIGHUP).unwrap();
    let begun = Instant::now();
    while scene.log().matches("were read again").count() == before {
        assert!(begun.elapsed() < Duration::from_secs(10), "{}", scene.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    told(scene.with_dir(&good), "none of the authorities");
    scene.with_dir(&other.issue(&path("new-client"), Valid::Now)).ok();
}

#[test]
fn certificates_that_cannot_be_used() {
    if !ready() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let authority = Authority::new("ours");
    for name in ["a", "b"] {
        authority.issue(&dir.path().join(name), Valid::Now);
    }
    fs_err::write(dir.path().join("text"), "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n")
        .unwrap();
    let (cert, key) = (&path("a/cert.pem"), &path("a/key.pem"));
    let (missing, text, another, root) = (&path("missing"), &path("text"), &path("b/key.pem"), &path("root"));
    for (options, what) in [
        (vec!["--tlscert", cert], "`--tlskey` is missing".to_owned()),
        (vec!["--tlskey", key], "`--tlscert` is missing".to_owned()),
        (vec!["--tlscacert", cert], "`--tlscert` is missing".to_owned()),
        (vec!["--tlscert", missing, "--tlskey", key], format!("cannot read `{missing}`")),
        (vec!["--tlscert", text, "--tlskey", key], format!("cannot read `{text}`")),
        (vec!["--tlscert", cert, "--tlskey", cert], format!("cannot read `{cert}`: it holds no private key")),
        (vec!["--tlscert", cert, "--tlskey", another], format!("cannot use the TLS certificate `{cert}`")),
        (vec!["--tlscert", cert, "--tlskey", key, "--tlscacert", key], format!("cannot read `{key}`")),
    ] {
        let daemon = ["daemon", "--root", root, "--addr", "tcp://127.0.0.1:0"];
        told(output(Command::new(program()).args(daemon).args(&options)), &what);
        if !options.contains(&"--tlscacert") {
            let all = [&["--tlscacert", cert.as_str()], &options[..]].concat();
            told(client("tcp://127.0.0.1:1", &all, &["images"]), &what);
        }
    }
    told(
        client("tcp://127.0.0.1:1", &["--tlscert", cert, "--tlskey", key], &["images"]),
        "`--tlscacert` is missing",
    );
}

/// As a unit file written for buildkitd starts it, with TLS but no authority for clients.
#[test]
fn under_the_name_of_buildkitd() {
    if !ready() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let authority = Authority::new("ours");
    let server = authority.issue(&path("server"), Valid::Now);
    std::os::unix::fs::symlink(program(), path("buildkitd")).unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let log = fs_err::File::create(path("log")).unwrap().into_parts().0;
    let mut child = Command::new(path("buildkitd"))
        .args(["--oci-worker=true", "--containerd-worker=false", "--oci-worker-snapshotter", "native"])
        .arg("--root")
        .arg(path("root"))
        .arg(format!("--addr=tcp://{free}"))
        .arg("--tlscert")
        .arg(server.join("cert.pem"))
        .arg("--tlskey")
        .arg(server.join("key.pem"))
        .stderr(log)
        .spawn()
        .unwrap();
    let ca = server.join("ca.pem");
    let (addr, begun) = (format!("tcp://{free}"), Instant::now());
    let answered = loop {
        let out = client(&addr, &["--tlscacert", ca.to_str().unwrap()], &["version", "--daemon"]);
        if out.code == 0 || begun.elapsed() > Duration::from_secs(20) {
            break out;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    let left = child.wait().unwrap();
    let log = fs_err::read_to_string(path("log")).unwrap();
    assert!(answered.ok().stdout.contains("daemon: rbuild"), "{log}");
    assert!(left.success());
    for line in ["`--oci-worker-snapshotter` has no effect here", "need no certificates"] {
        assert!(log.contains(line), "no `{line}` in\n{log}");
    }
    assert!(!log.contains("--oci-worker`"), "{log}");
}

#[test]
fn a_daemon_without_tls() {
    if !ready() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let mut daemon = Daemon::new(&dir.path().join("d"), "");
    let addr = daemon.listen_tcp();
    daemon.again();
    let certs = Authority::new("ours").issue(&dir.path().join("client"), Valid::Now);
    told(client(&addr, &["--tlsdir", certs.to_str().unwrap()], &["images"]), "it does not speak TLS");
    client(&addr, &[], &["images"]).ok();
}
