//! Commands: what they are told, and what they see.

use proto::pb;
use proto::pb::MountType::{Bind, Cache, Secret, Ssh, Tmpfs};

use super::{Places, Results, tree, users};
use crate::llb::Edge;

/// What differs from `true` over the base image.
type Change = fn(&mut pb::ExecOp, &mut pb::Meta);

const META: &[Change] = &[
    |_, meta| meta.env = vec!["A=b".to_owned(), "Z=<&>".to_owned()],
    |_, meta| meta.cwd = "/made".to_owned(),
    |_, meta| meta.user = "1:2".to_owned(),
    |_, meta| meta.hostname = "host".to_owned(),
    |_, meta| meta.ulimit = vec![pb::Ulimit { name: "nofile".to_owned(), soft: 99, hard: 100 }],
    |_, meta| {
        meta.extra_hosts = vec![pb::HostIp { host: "h.example".to_owned(), ip: "192.0.2.1".to_owned() }]
    },
    |_, meta| meta.proxy_env = Some(pb::ProxyEnv { http_proxy: "http://p".to_owned(), ..Default::default() }),
    |_, meta| meta.remove_mount_stubs_recursive = true,
    |_, meta| meta.valid_exit_codes = vec![0, 3],
    |exec, _| exec.network = pb::NetMode::Unset.into(),
    |exec, _| {
        exec.secretenv = vec![pb::SecretEnv { id: "no".to_owned(), name: "NO".to_owned(), optional: true }]
    },
    |exec, _| {
        exec.cdi_devices = vec![pb::CdiDevice { name: "vendor.example/d=1".to_owned(), optional: true }]
    },
];

pub(super) fn meta(results: &mut Results, places: &Places<'_>) {
    let base = results.llb.image(places.base);
    for change in META {
        let made = results.llb.run(&base, "true", |exec| {
            let mut meta = exec.meta.take().unwrap_or_default();
            change(exec, &mut meta);
            exec.meta = Some(meta);
        });
        results.add_own(made);
    }
    // The platform is that of the operation.
    let (architecture, os, variant) = ("amd64".to_owned(), "linux".to_owned(), "v2".to_owned());
    let platform = pb::Platform { architecture, os, variant, ..pb::Platform::default() };
    let made = results.llb.run(&base, "true", |_| ());
    let made = results.llb.on(&made, platform);
    results.add_own(made);
}

/// What can be written in more ways than one, in those that BuildKit's own client does not use.
pub(super) fn other_forms(results: &mut Results, places: &Places<'_>) {
    let tree = tree(&mut results.llb);
    // An action without a second input names one.
    let made =
        super::actions(&mut results.llb, &[&tree], vec![([0, 0, 0], super::file("/one", "1", |_| ()))]);
    results.add(&made);
    let base = results.llb.image(places.base);
    for added in [
        mount(-1, "/t", Tmpfs, |_| ()),
        mount(-1, "/c", Cache, kept("", pb::CacheSharingOpt::Shared)),
        mount(-1, "rel", Tmpfs, |m| m.tmpfs_opt = Some(pb::TmpfsOpt { size: 0 })),
        mount(-1, "/s/", Tmpfs, |m| m.tmpfs_opt = Some(pb::TmpfsOpt { size: 0 })),
    ] {
        let made = results.llb.run(&base, "true", |exec| exec.mounts.push(added));
        results.add_own(made);
    }
    let made = results.llb.run(&base, "true", |exec| {
        exec.meta.as_mut().expect("it has one").env = vec!["NOEQ".to_owned(), "B=".to_owned()];
    });
    results.add_own(made);
    let platform = pb::Platform {
        architecture: "amd64".to_owned(),
        os: "linux".to_owned(),
        os_version: "1.2".to_owned(),
        os_features: vec!["feature".to_owned()],
        ..pb::Platform::default()
    };
    let made = results.llb.run(&base, "true", |_| ());
    let made = results.llb.on(&made, platform);
    results.add_own(made);
}

fn mount(input: i64, dest: &str, kind: pb::MountType, change: impl FnOnce(&mut pb::Mount)) -> pb::Mount {
    let mut mount = pb::Mount {
        input,
        output: -1,
        dest: dest.to_owned(),
        mount_type: kind.into(),
        ..pb::Mount::default()
    };
    change(&mut mount);
    mount
}

fn bind(dest: &str, change: impl FnOnce(&mut pb::Mount)) -> pb::Mount {
    mount(1, dest, Bind, change)
}

fn at(path: &str) -> impl FnOnce(&mut pb::Mount) {
    move |mount| mount.selector = path.to_owned()
}

fn kept(id: &str, sharing: pb::CacheSharingOpt) -> impl FnOnce(&mut pb::Mount) {
    move |mount| mount.cache_opt = Some(pb::CacheOpt { id: id.to_owned(), sharing: sharing.into() })
}

pub(super) fn mounts(results: &mut Results, places: &Places<'_>) {
    use pb::CacheSharingOpt::{Locked, Private, Shared};
    use pb::MountContentCache::{Off, On};
    let (tree, users) = (tree(&mut results.llb), users(&mut results.llb));
    let base = results.llb.image(places.base);
    let run = |results: &mut Results, inputs: &[&Edge], mounts: Vec<pb::Mount>| {
        let inputs = [&[&base], inputs].concat();
        results.llb.run_with(&inputs, "true", |exec| exec.mounts.extend(mounts))
    };
    // What is made beside the root.
    for (inputs, made) in [
        (vec![], mount(-1, "/o", Bind, |m| m.output = 1)),
        (vec![&tree], bind("/o", |m| m.output = 1)),
        (vec![&tree], bind("/o", |m| (m.output, m.selector) = (1, "/d".to_owned()))),
    ] {
        let made = run(results, &inputs, vec![made]);
        results.add(&made.output(1));
    }
    let secret = pb::SecretOpt { id: "no".to_owned(), uid: 1, gid: 2, mode: 0o400, optional: true };
    let agent = pb::SshOpt { id: "no".to_owned(), uid: 1, gid: 2, mode: 0o600, optional: true };
    let of_tree = vec![
        vec![bind("/a", at("d"))],
        vec![bind("/a", |m| (m.selector, m.readonly) = ("/d".to_owned(), true))],
        vec![bind("/a", |m| (m.selector, m.output) = ("/d".to_owned(), 1))],
        vec![bind("/a", |m| m.output = 1)],
        vec![
            bind("/a", at("/d/sub")),
            bind("/b", |m| (m.selector, m.readonly) = ("d/a.txt".to_owned(), true)),
        ],
        vec![bind("/a", |m| m.content_cache = On.into())],
        vec![bind("/a", |m| m.content_cache = Off.into())],
        vec![bind("/a", |_| ()), bind("/b", at("/d"))],
        vec![bind("/a", |m| m.output = 1), bind("/b", at("/d/sub"))],
        vec![bind("/a", at("/dl"))],
        vec![bind("/a", at("/d/../top"))],
        vec![mount(1, "/c", Cache, kept("id2", Shared))],
        vec![mount(1, "/c", Cache, |m| {
            m.selector = "/d".to_owned();
            kept("id3", Shared)(m);
        })],
    ];
    let of_none = vec![
        mount(0, "/again", Bind, |m| (m.selector, m.readonly) = ("/etc".to_owned(), true)),
        mount(-1, "/t", Tmpfs, |m| m.tmpfs_opt = Some(pb::TmpfsOpt { size: 1 << 20 })),
        mount(-1, "/t", Tmpfs, |m| m.tmpfs_opt = Some(pb::TmpfsOpt { size: 0 })),
        mount(-1, "/c", Cache, kept("/c", Shared)),
        mount(-1, "/c", Cache, kept("ns//c", Shared)),
        mount(-1, "/c", Cache, kept("id", Locked)),
        mount(-1, "/c", Cache, kept("/c", Private)),
        mount(-1, "/s", Secret, |m| (m.secret_opt, m.output) = (Some(secret), 0)),
        mount(-1, "/a", Ssh, |m| (m.ssh_opt, m.output) = (Some(agent), 0)),
    ];
    for (inputs, mounts) in of_tree
        .into_iter()
        .map(|mounts| (vec![&tree], mounts))
        .chain(of_none.into_iter().map(|mount| (vec![], vec![mount])))
    {
        let made = run(results, &inputs, mounts);
        results.add_own(made);
    }
    let two = vec![
        bind("/a", |m| (m.selector, m.content_cache) = ("/d".to_owned(), Off.into())),
        mount(2, "/b", Bind, |_| ()),
    ];
    let made = run(results, &[&tree, &users], two);
    results.add_own(made);
    let read_only = results.llb.run(&base, "true", |exec| {
        (exec.mounts[0].readonly, exec.mounts[0].output) = (true, -1);
        exec.mounts.push(mount(-1, "/o", Bind, |m| m.output = 0));
    });
    results.add_own(read_only);
    let root_last =
        results.llb.run_with(&[&base, &tree], "true", |exec| exec.mounts.insert(0, bind("/m", |_| ())));
    results.add_own(root_last);
}
