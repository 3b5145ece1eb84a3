//! Containers that a client makes of results, as BuildKit's clients do.

use prost::Message as _;
use proto::control::SolveRequest;
use proto::gateway::{
    InitMessage, NewContainerRequest, ReadDirRequest, ReadFileRequest, ReleaseContainerRequest,
    SolveRequest as SolveOfBridge, StatFileRequest,
};
use proto::pb;
use tests::llb::Llb;
use tests::processes::{Processes, shell};
use tests::{Api, Gateway, Scene, ready};
use tonic::{Code, Status};

/// A client with a build of its own, and what it calls.
struct Client<'a> {
    api: &'a Api,
    gateway: Gateway<'a>,
}

impl<'a> Client<'a> {
    fn new(api: &'a Api, build: &str) -> Self {
        Self { api, gateway: api.gateway(build) }
    }

    /// The base image, as a reference.
    fn base(&self) -> String {
        let mut llb = Llb::new();
        let base = llb.image("docker.io/library/base:latest");
        self.gateway.definition(llb.definition(&base)).unwrap()
    }

    /// Makes a container over the base image.
    fn container(&self, id: &str, change: impl FnOnce(&mut NewContainerRequest)) -> Result<(), Status> {
        let root = pb::Mount { dest: "/".into(), result_id: self.base(), ..pb::Mount::default() };
        let mut request = NewContainerRequest {
            container_id: id.to_owned(),
            mounts: vec![root],
            network: pb::NetMode::None.into(),
            ..NewContainerRequest::default()
        };
        change(&mut request);
        let (mut bridge, request) = (self.api.bridge(), self.gateway.request(request));
        self.api.runtime.block_on(async move { bridge.new_container(request).await }).map(drop)
    }

    fn release(&self, id: &str) -> Result<(), Status> {
        let request = ReleaseContainerRequest { container_id: id.to_owned() };
        let (mut bridge, request) = (self.api.bridge(), self.gateway.request(request));
        self.api.runtime.block_on(async move { bridge.release_container(request).await }).map(drop)
    }

    fn processes(&self) -> Processes<'a> {
        Processes::open(self.api, &self.gateway)
    }

    fn read(&self, id: &str, mount_index: i32, path: &str) -> Result<String, Status> {
        let request = ReadFileRequest {
            r#ref: id.to_owned(),
            file_path: path.to_owned(),
            mount_index,
            ..ReadFileRequest::default()
        };
        let (mut bridge, request) = (self.api.bridge(), self.gateway.request(request));
        let answer = self.api.runtime.block_on(async move { bridge.read_file_container(request).await })?;
        Ok(String::from_utf8_lossy(&answer.into_inner().data).into_owned())
    }

    fn list(&self, id: &str, mount_index: i32, path: &str) -> Result<Vec<String>, Status> {
        let request = ReadDirRequest {
            r#ref: id.to_owned(),
            dir_path: path.to_owned(),
            mount_index,
            ..ReadDirRequest::default()
        };
        let (mut bridge, request) = (self.api.bridge(), self.gateway.request(request));
        let answer = self.api.runtime.block_on(async move { bridge.read_dir_container(request).await })?;
        Ok(answer.into_inner().entries.into_iter().map(|stat| stat.path).collect())
    }

    fn stat(&self, id: &str, path: &str) -> Result<proto::fsutil::Stat, Status> {
        let request = StatFileRequest { r#ref: id.to_owned(), path: path.to_owned(), mount_index: 0 };
        let (mut bridge, request) = (self.api.bridge(), self.gateway.request(request));
        let answer = self.api.runtime.block_on(async move { bridge.stat_file_container(request).await })?;
        Ok(answer.into_inner().stat.unwrap())
    }
}

#[test]
fn several_processes_share_a_container() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let client = Client::new(&api, "several");
    client.container("c", |_| {}).unwrap();
    let mut processes = client.processes();
    processes.start(
        "first",
        shell("c", "trap 'exit 9' TERM; echo mine > /f; echo up; while :; do sleep 0.05; done"),
    );
    processes.until("first", |heard| heard.stdout == "up\n").unwrap();
    let second =
        processes.run("second", shell("c", "cat /f; echo $$ >&2; echo theirs > /g; exit 3")).unwrap();
    assert_eq!(
        (second.code(), second.error().as_str(), second.stdout.as_str()),
        (3, "exit code: 3", "mine\n")
    );
    assert_ne!(second.stderr, "1\n");
    assert_eq!(second.ended.len(), 2);
    // Two at once, each with its own ends.
    for name in ["a", "b"] {
        let init = InitMessage { fds: vec![0, 1], ..shell("c", "read x; echo got $x; cat /g") };
        processes.start(name, init);
    }
    processes.write("b", "B\n");
    processes.write("a", "A\n");
    for (name, text) in [("a", "got A\ntheirs\n"), ("b", "got B\ntheirs\n")] {
        let heard = processes.until(name, |heard| heard.done).unwrap();
        assert_eq!((heard.code(), heard.stdout.as_str()), (0, text));
    }
    // One may read what the other writes: the client is told at once that both have started.
    processes.start("writer", shell("c", "echo early"));
    processes.start("reader", shell("c", "true"));
    processes.until("reader", |heard| heard.started).unwrap();
    assert!(processes.heard.get("writer").is_none_or(|heard| heard.stdout.is_empty()));
    for name in ["writer", "reader"] {
        assert_eq!(processes.until(name, |heard| heard.done).unwrap().code(), 0);
    }
    processes.signal("first", "TERM");
    assert_eq!(processes.until("first", |heard| heard.done).unwrap().code(), 9);
    let late = processes.run("late", shell("c", "true")).unwrap();
    assert_eq!((late.code(), late.error().as_str()), (255, "container c has stopped"));
    client.release("c").unwrap();
    // Another build, another container of that name.
    client.container("c", |_| {}).unwrap();
    assert_eq!(processes.run("fresh", shell("c", "test ! -e /f")).unwrap().code(), 0);
    drop(processes);
    client.gateway.end();
}

#[test]
fn terminals() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let client = Client::new(&api, "terminals");
    client.container("c", |_| {}).unwrap();
    let mut processes = client.processes();
    // The first process and one that joins it.
    for name in ["first", "second"] {
        // The size and the input come in ways of their own, so either may be first. Without a size `stty` prints nothing, and succeeds.
        let script = "stty -echo; echo ready; read x; for n in $(seq 100); do s=$(stty size 2>/dev/null); [ \"$s\" ] && break; \
                      sleep 0.05 || sleep 1; done; echo $s; echo $TERM; tty; [ $$ = 1 ] && read y; exit 4";
        let init = InitMessage { tty: true, fds: vec![0, 1], ..shell("c", script) };
        processes.start(name, init);
        processes.until(name, |heard| heard.stdout.ends_with("ready\r\n")).unwrap();
        processes.resize(name, 41, 97);
        processes.write(name, "go\n");
        let heard = processes.until(name, |heard| heard.stdout.contains("/dev/")).unwrap();
        assert!(heard.stdout.contains("\r\n41 97\r\nxterm\r\n/dev/"), "{heard:?}");
    }
    assert_eq!(processes.until("second", |heard| heard.done).unwrap().code(), 4);
    processes.write("first", "end\n");
    assert_eq!(processes.until("first", |heard| heard.done).unwrap().code(), 4);
    drop(processes);
    client.gateway.end();
}

#[test]
fn what_a_container_is_made_of() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let client = Client::new(&api, "made");
    let mut llb = Llb::new();
    let files = llb.file(None, "/inner", "from a result\n");
    let files = client.gateway.definition(llb.definition(&files)).unwrap();
    client
        .container("c", |request| {
            let bind = pb::Mount { dest: "/bind".into(), result_id: files.clone(), ..pb::Mount::default() };
            let read_only = pb::Mount { dest: "/ro".into(), readonly: true, ..bind.clone() };
            let scratch = pb::Mount { dest: "/scratch".into(), ..pb::Mount::default() };
            let tmpfs = pb::Mount {
                dest: "/tmpfs".into(),
                mount_type: pb::MountType::Tmpfs.into(),
                ..pb::Mount::default()
            };
            request.mounts.extend([bind, read_only, scratch, tmpfs]);
            request.hostname = "inner".into();
            request.extra_hosts = vec![pb::HostIp { host: "host.example".into(), ip: "192.0.2.7".into() }];
        })
        .unwrap();
    let mut processes = client.processes();
    let mut init = shell(
        "c",
        "hostname; grep -h host.example /etc/hosts; cat /bind/inner; pwd; id -u; echo $A; touch /ro/x 2>/dev/null || echo ro; \
         echo new > /scratch/f; echo more >> /bind/inner; ln -s /etc/passwd /abs; ln -s bind/inner /rel; mkfifo /pipe; rm -r /tmp; \
         echo done; exec sleep 1000",
    );
    let meta = init.meta.as_mut().unwrap();
    (meta.cwd, meta.user, meta.env) = ("/made/here".into(), "0".into(), vec!["A=b".into()]);
    processes.start("p", init);
    let seen = processes.until("p", |heard| heard.stdout.ends_with("done\n")).unwrap();
    assert_eq!(
        seen.stdout.split_whitespace().collect::<Vec<_>>(),
        ["inner", "192.0.2.7", "host.example", "from", "a", "result", "/made/here", "0", "b", "ro", "done"]
    );
    // The mounts as they are now, by their place in the request.
    assert_eq!(client.read("c", 1, "/inner").unwrap(), "from a result\nmore\n");
    assert_eq!(client.read("c", 2, "/inner").unwrap(), "from a result\n");
    assert_eq!(client.read("c", 3, "/f").unwrap(), "new\n");
    let names = client.list("c", 0, "/").unwrap();
    assert!(names.contains(&"made".to_owned()) && !names.contains(&"tmp".to_owned()), "{names:?}");
    assert!(names.is_sorted());
    let link = client.stat("c", "/abs").unwrap();
    assert_eq!((link.linkname.as_str(), link.path.as_str()), ("/etc/passwd", "abs"));
    assert_eq!(client.stat("c", "/made/here").unwrap().path, "here");
    // A link out of the mount's files, a pipe, a mount of no files: nothing is read, nothing waits.
    for (index, path) in [
        (0, "/abs"),
        (0, "/pipe"),
        (0, "relative"),
        (0, "/none"),
        (0, "/../../etc/passwd"),
        (4, "/x"),
        (5, "/"),
        (-1, "/"),
    ] {
        let err = client.read("c", index, path).unwrap_err();
        assert!(![Code::Ok, Code::Internal].contains(&err.code()), "{index} {path}: {err}");
    }
    assert_eq!(client.release("c").unwrap_err().code(), Code::Cancelled, "something ran in it");
    let killed = processes.until("p", |heard| heard.done).unwrap();
    assert_eq!(killed.code(), 255);
    scene.check_sandboxes();
    drop(processes);
    client.gateway.end();
}

#[test]
fn programs_are_looked_for_where_the_platform_has_them() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let client = Client::new(&api, "platforms");
    let of = |os: &str| {
        let platform = pb::Platform { os: os.into(), architecture: "amd64".into(), ..Default::default() };
        client.container("c", |request| request.platform = Some(platform)).unwrap();
        let said = client.processes().run("p", shell("c", "echo $PATH")).unwrap().stdout;
        client.release("c").unwrap();
        said
    };
    assert_eq!(of("linux"), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
    assert!(of("windows").starts_with(r"c:\Windows\System32;"));
    client.gateway.end();
}

#[test]
fn privileges_are_asked_for() {
    if !ready() {
        return;
    }
    let scene = Scene::with("insecure-entitlements = [\"network.host\", \"security.insecure\"]\n");
    let api = Api::connect(&scene.daemon);
    let client = Client::new(&api, "sandboxed");
    let refused = client.container("host", |request| request.network = pb::NetMode::Host.into()).unwrap_err();
    assert_eq!(
        (refused.code(), refused.message().contains("network.host is not allowed")),
        (Code::PermissionDenied, true)
    );
    assert_eq!(
        client.container("odd", |request| request.network = 7).unwrap_err().code(),
        Code::InvalidArgument
    );
    client.container("c", |_| {}).unwrap();
    let mut processes = client.processes();
    let look = "grep -E '^(CapEff|Seccomp:)' /proc/self/status; sleep 0";
    for (turn, security) in [1, 2, -1].into_iter().enumerate() {
        let heard =
            processes.run(&format!("insecure{turn}"), InitMessage { security, ..shell("c", look) }).unwrap();
        assert_eq!((heard.code(), heard.stdout.as_str()), (255, ""), "{heard:?}");
        let named = if security == 1 { "security.insecure is not allowed" } else { "security mode" };
        assert!(heard.error().contains(named), "{heard:?}");
    }
    processes.start("first", shell("c", "echo up; exec sleep 1000"));
    processes.until("first", |heard| heard.stdout == "up\n").unwrap();
    let heard = processes.run("joined", InitMessage { security: 1, ..shell("c", look) }).unwrap();
    assert_eq!(heard.code(), 255);
    let heard = processes.run("plain", shell("c", look)).unwrap();
    assert_eq!(heard.stdout, "CapEff:\t00000000a80425fb\nSeccomp:\t2\n");
    drop(processes);
    client.gateway.end();

    let entitled = SolveRequest {
        r#ref: "entitled".into(),
        entitlements: vec!["network.host".into(), "security.insecure".into()],
        ..SolveRequest::default()
    };
    let client = Client { api: &api, gateway: api.gateway_for(entitled) };
    client.container("host", |request| request.network = pb::NetMode::Host.into()).unwrap();
    let mut processes = client.processes();
    let script = "readlink /proc/self/ns/net; grep Seccomp: /proc/self/status";
    let heard = processes.run("p", InitMessage { security: 1, ..shell("host", script) }).unwrap();
    let own = fs_err::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(heard.stdout, format!("{}\nSeccomp:\t0\n", own.display()));
    drop(processes);
    client.gateway.end();
}

/// What the daemon says of a step that failed, for whoever wants to look into it.
struct Broken {
    message: String,
    solve: serde_json::Value,
}

impl Broken {
    fn of(status: &Status) -> Self {
        let full = proto::rpc::Status::decode(status.details()).unwrap();
        let solve = full.details.iter().find(|any| any.type_url.ends_with("errdefs.Solve+json"));
        let message = status.message().to_owned();
        Self { message, solve: serde_json::from_slice(&solve.expect("what failed").value).unwrap() }
    }

    fn ids(&self, what: &str) -> Vec<String> {
        let ids = self.solve[what].as_array().into_iter().flatten();
        ids.map(|id| id.as_str().unwrap().to_owned()).collect()
    }
}

impl Client<'_> {
    fn breaks(&self, definition: pb::Definition) -> Broken {
        let definition = Some(definition);
        let request = SolveOfBridge { definition, evaluate: true, ..SolveOfBridge::default() };
        Broken::of(&self.gateway.solve(request).unwrap_err())
    }

    /// What a shell prints in a container with these results besides the base image.
    fn prints(&self, mounts: &[(&str, &str)], script: &str) -> String {
        let mount = |(dest, id): &(&str, &str)| pb::Mount {
            dest: (*dest).to_owned(),
            result_id: (*id).to_owned(),
            ..pb::Mount::default()
        };
        self.container("look", |request| {
            request.mounts.retain(|root| !mounts.iter().any(|(dest, _)| *dest == root.dest));
            request.mounts.extend(mounts.iter().map(mount));
        })
        .unwrap();
        let mut processes = self.processes();
        let heard = processes.run("look", shell("look", script)).unwrap();
        assert_eq!(heard.code(), 0, "{}", heard.stderr);
        drop(processes);
        self.release("look").unwrap();
        heard.stdout
    }
}

#[test]
fn a_failed_command_can_be_looked_into() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let client = Client::new(&api, "failed-command");
    let mut llb = Llb::new();
    let base = llb.image("docker.io/library/base:latest");
    let below = llb.file(None, "/below", "below\n");
    let script = "echo root > /f; rm -r /tmp; echo rw > /rw/f; echo keep > /keep/f; exit 7";
    let failing = llb.run_with(&[&base, &below], script, |exec| {
        let mount =
            |dest: &str| pb::Mount { dest: dest.into(), input: 1, output: -1, ..pb::Mount::default() };
        let cache = pb::CacheOpt { id: "c".into(), ..pb::CacheOpt::default() };
        exec.mounts.extend([
            mount("/rw"),
            pb::Mount { output: 1, input: -1, ..mount("/keep") },
            pb::Mount { readonly: true, ..mount("/ro") },
            pb::Mount {
                mount_type: pb::MountType::Cache.into(),
                cache_opt: Some(cache),
                input: -1,
                ..mount("/cache")
            },
        ]);
    });
    let broken = client.breaks(llb.definition(&failing));
    assert_eq!(broken.solve["op"]["exec"]["mounts"][1]["dest"], "/rw");
    let (inputs, mounts) = (broken.ids("inputIDs"), broken.ids("mountIDs"));
    assert_eq!((inputs.len(), mounts.len()), (5, 5));
    assert_eq!((inputs[2].as_str(), mounts[4].as_str()), ("", ""), "scratch and a cache are no results");
    let look = "cat /f /rw/f /rw/below /keep/f /ro/below; ls -d /tmp 2>/dev/null || echo gone";
    let all: Vec<(&str, &str)> =
        ["/", "/rw", "/keep", "/ro"].into_iter().zip(mounts.iter().map(String::as_str)).collect();
    for _ in 0..2 {
        // Each container begins with what was left, whatever the one before did to it.
        assert_eq!(
            client.prints(&all, &format!("{look}; rm /f /rw/below")),
            "root\nrw\nbelow\nkeep\nbelow\ngone\n"
        );
    }
    let before = [("/", inputs[0].as_str()), ("/rw", inputs[1].as_str())];
    assert_eq!(
        client.prints(&before, "ls -d /tmp; ls /rw; ls /f 2>/dev/null || echo none"),
        "/tmp\nbelow\nnone\n"
    );
    // A program that is not there: all is as it was before.
    let missing = llb.run(&base, "", |exec| exec.meta.as_mut().unwrap().args = vec!["nosuch".into()]);
    let broken = client.breaks(llb.definition(&missing));
    assert!(
        broken.message.starts_with("process \"nosuch\" did not complete successfully: executable file"),
        "{}",
        broken.message
    );
    assert_eq!(client.prints(&[("/", &broken.ids("mountIDs")[0])], "ls -d /tmp"), "/tmp\n");
    // An unknown id, one of a mount that nothing was left of, and those of a build that has ended.
    let gone = |client: &Client<'_>, id: &str| {
        client.container("none", |request| request.mounts[0].result_id = id.to_owned()).unwrap_err().code()
    };
    assert_eq!(gone(&client, "failed-command-failed-999"), Code::NotFound);
    client.gateway.end();
    let other = Client::new(&api, "another");
    assert_eq!(gone(&other, &mounts[0]), Code::NotFound);
    other.gateway.end();
}

#[test]
fn failed_file_actions_and_missing_sources_can_be_looked_into() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let client = Client::new(&api, "failed-action");
    let mut llb = Llb::new();
    let base = llb.image("docker.io/library/base:latest");
    let mkfile = |path: &str| {
        let file = pb::FileActionMkFile { path: path.into(), data: "made".into(), ..Default::default() };
        pb::file_action::Action::Mkfile(file)
    };
    let failing = llb.actions(Some(&base), vec![mkfile("/one"), mkfile("/two"), mkfile("/no/where")]);
    let broken = client.breaks(llb.definition(&failing));
    assert_eq!(broken.solve["file"]["index"], "2");
    let made = broken.ids("mountIDs");
    assert_eq!((broken.ids("inputIDs").len(), made.len()), (1, 3));
    assert_eq!(
        client.prints(&[("/m", &made[2])], "cd /m; cat one two; ls -d no 2>/dev/null || echo none"),
        "mademadenone\n"
    );
    // The first action fails: what it was to change is its input.
    let failing = llb.actions(Some(&base), vec![mkfile("/no/where"), mkfile("/one")]);
    let made = client.breaks(llb.definition(&failing)).ids("mountIDs");
    assert_eq!(client.prints(&[("/m", &made[0])], "ls -d /m/tmp"), "/m/tmp\n");

    let below = llb.file(None, "/below", "below\n");
    let missing = llb.run_with(&[&base, &below], "true", |exec| {
        let selector = "/missing".to_owned();
        let dest = "/ro".to_owned();
        exec.mounts.push(pb::Mount {
            dest,
            selector,
            input: 1,
            output: -1,
            readonly: true,
            ..Default::default()
        });
    });
    let broken = client.breaks(llb.definition(&missing));
    assert_eq!(broken.solve["cache"]["index"], "1");
    assert_eq!(broken.ids("mountIDs").len(), 0);
    assert_eq!(client.prints(&[("/m", &broken.ids("inputIDs")[0])], "cat /m/below"), "below\n");
    client.gateway.end();
}

#[test]
fn mistakes_and_clients_that_leave() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let api = Api::connect(&scene.daemon);
    let client = Client::new(&api, "mistakes");
    client.container("c", |_| {}).unwrap();
    assert_eq!(client.container("c", |_| {}).unwrap_err().code(), Code::AlreadyExists);
    let no_root = client.container("d", |request| request.mounts[0].dest = "/elsewhere".into());
    assert_eq!(no_root.unwrap_err().code(), Code::InvalidArgument);
    let foreign = client.container("e", |request| request.mounts[0].result_id = "nonsense".into());
    assert_eq!(foreign.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.release("nope").unwrap_err().code(), Code::NotFound);
    assert_eq!(client.read("nope", 0, "/x").unwrap_err().code(), Code::NotFound);

    let says = |process: &str, init: InitMessage| {
        let mut processes = client.processes();
        processes.run(process, init).unwrap_err().code()
    };
    assert_eq!(says("p", shell("nope", "true")), Code::NotFound);
    assert_eq!(says("", shell("c", "true")), Code::InvalidArgument);
    let mut processes = client.processes();
    processes.signal("unknown", "TERM");
    assert_eq!(processes.until("unknown", |heard| heard.done).unwrap_err().code(), Code::NotFound);
    // What cannot be started is the end of that process only.
    let mut processes = client.processes();
    let mut missing = shell("c", "");
    missing.meta.as_mut().unwrap().args = vec!["/no/such/program".into()];
    let heard = processes.run("missing", missing).unwrap();
    assert_eq!((heard.code(), heard.started), (127, true));
    client.release("c").unwrap();
    client.container("c", |_| {}).unwrap();
    let nothing = InitMessage { meta: None, ..shell("c", "") };
    assert_eq!(processes.run("nothing", nothing).unwrap().code(), 255);
    let joined = processes.run("next", shell("c", "echo alive")).unwrap();
    assert_eq!((joined.code(), joined.stdout.as_str()), (0, "alive\n"));
    client.release("c").unwrap();
    client.container("c", |_| {}).unwrap();
    processes.start("p", shell("c", "echo up; exec sleep 1000"));
    processes.until("p", |heard| heard.stdout == "up\n").unwrap();
    processes.signal("p", "NOSUCH");
    assert_eq!(processes.until("p", |heard| heard.done).unwrap_err().code(), Code::InvalidArgument);
    drop(processes);
    // The stream ended, and so did the process: the leak check at the end would find it.
    client.container("left", |_| {}).unwrap();
    let mut processes = client.processes();
    processes.start("q", shell("left", "echo up; exec sleep 1000"));
    processes.until("q", |heard| heard.stdout == "up\n").unwrap();
    // The client vanishes without a word.
    drop(processes);
    drop(client);
}
