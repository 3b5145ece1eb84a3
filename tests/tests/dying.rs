//! Clients that are killed: whatever their build was about, it ends, and leaves nothing.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use proto::control::BuildHistoryRequest;
use tests::{Api, Scene, ready};

/// How long a build may outlive its client.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a build in the scene's context.
fn build(scene: &Scene, args: &[&str]) -> Child {
    let mut command = scene.command(&[&["build", "--progress=plain"], args].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a client's progress holds a text.
fn until(client: &mut Child, text: &str) {
    let lines = BufReader::new(client.stderr.as_mut().unwrap()).lines();
    let mut seen = String::new();
    for line in lines {
        let line = line.unwrap();
        if line.contains(text) {
            return;
        }
        seen.push_str(&line);
        seen.push('\n');
    }
    panic!("no `{text}` in {seen}");
}

/// Kills a client, and waits until the daemon runs no build.
fn die(scene: &Scene, api: &Api, mut client: Child) {
    client.kill().unwrap();
    client.wait().unwrap();
    let begun = Instant::now();
    loop {
        let mut control = api.control();
        let request =
            BuildHistoryRequest { active_only: true, early_exit: true, ..BuildHistoryRequest::default() };
        let running = api.runtime.block_on(async move {
            let mut events = control.listen_build_history(request).await.unwrap().into_inner();
            events.message().await.unwrap()
        });
        if running.is_none() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the build goes on: {running:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    scene.check_sandboxes();
}

#[test]
fn a_killed_client_ends_its_build() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let pid = scene.daemon.pid();

    // While it sends its context: an archive that does not end.
    let mut client = build(&scene, &["-"]);
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(1 << 30);
    header.set_cksum();
    tar.append_data(&mut header, "big", &[0; 1 << 20][..]).unwrap();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(tar.get_ref()).unwrap();
    until(&mut client, "load remote build context");
    die(&scene, &api, client);
    drop(stdin);

    // While the daemon waits for a registry.
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    scene.write("Dockerfile", &format!("FROM {}/x\n", registry.local_addr().unwrap()));
    let client = build(&scene, &["."]);
    let connection = registry.accept().unwrap();
    die(&scene, &api, client);
    drop(connection);

    // While a step runs.
    scene.write("Dockerfile", "FROM base\nRUN echo under way; sleep 1000\n");
    let mut client = build(&scene, &["."]);
    until(&mut client, " under way");
    die(&scene, &api, client);

    // While nobody takes the result.
    scene.write("Dockerfile", "FROM base\nRUN head -c 20000000 /dev/urandom > /big\n");
    let mut client = build(&scene, &["-o", "-", "."]);
    until(&mut client, "sending tarball");
    die(&scene, &api, client);

    assert!(scene.daemon.alive() && scene.daemon.pid() == pid);
    scene.dockerfile("FROM base\nRUN true\n", &[]).ok();
}
