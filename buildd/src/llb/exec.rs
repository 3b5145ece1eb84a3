//! Exec ops.

use std::collections::HashSet;

use proto::pb;
use solver::op::{
    CacheMount, CacheSharing, CdiDevice, ExecMeta, ExecOp, HostIp, Mount, MountContentCache, MountKind,
    NetMode, ProxyEnv, SecretEnv, SecretMount, SecurityMode, SshMount, Ulimit,
};

use super::Invalid;
use super::decode::{bounded, optional_input, output_index, text};
use super::encode::number;

/// Checks an exec op and reads it.
///
/// # Errors
/// What is missing, malformed or unknown.
pub fn decode_exec(exec: &pb::ExecOp, inputs: usize) -> Result<ExecOp, Invalid> {
    let meta = decode_meta(exec.meta.as_ref().ok_or(Invalid::Missing("meta"))?)?;
    bounded("mounts", exec.mounts.len())?;
    let mut outputs = HashSet::new();
    let mounts: Vec<Mount> = exec
        .mounts
        .iter()
        .map(|mount| decode_mount(mount, inputs, &mut outputs, &meta.cwd))
        .collect::<Result<_, _>>()?;
    let root = mounts.iter().find(|mount| mount.dest == "/").ok_or(Invalid::Missing("root mount"))?;
    if matches!(root.kind, MountKind::Secret(_) | MountKind::Ssh(_)) {
        return Err(Invalid::Root);
    }
    let secret = |secret: &pb::SecretEnv| {
        Ok(SecretEnv {
            id: secret.id.clone(),
            name: text("variable name", &secret.name)?,
            optional: secret.optional,
        })
    };
    let device = |device: &pb::CdiDevice| CdiDevice { name: device.name.clone(), optional: device.optional };
    Ok(ExecOp {
        meta,
        mounts,
        network: network(exec.network)?,
        security: security(exec.security)?,
        secret_env: exec.secretenv.iter().map(secret).collect::<Result<_, _>>()?,
        cdi_devices: exec.cdi_devices.iter().map(device).collect(),
    })
}

fn decode_meta(meta: &pb::Meta) -> Result<ExecMeta, Invalid> {
    if meta.args.is_empty() {
        return Err(Invalid::Missing("args"));
    }
    let texts = |what, list: &[String]| list.iter().map(|s| text(what, s)).collect::<Result<Vec<_>, _>>();
    let cwd = match meta.cwd.as_str() {
        "" => "/".to_owned(),
        path if path.starts_with('/') => text("working directory", path)?,
        path => return Err(Invalid::Relative { what: "working directory", path: path.to_owned() }),
    };
    let host = |host: &pb::HostIp| {
        Ok(HostIp { host: text("host name", &host.host)?, ip: text("host address", &host.ip)? })
    };
    Ok(ExecMeta {
        args: texts("argument", &meta.args)?,
        env: texts("variable", &meta.env)?.into_iter().map(Into::into).collect(),
        cwd,
        user: text("user", &meta.user)?,
        proxy_env: meta.proxy_env.as_ref().map(decode_proxy),
        extra_hosts: meta.extra_hosts.iter().map(host).collect::<Result<_, _>>()?,
        hostname: text("host name", &meta.hostname)?,
        ulimits: meta
            .ulimit
            .iter()
            .map(|limit| Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard })
            .collect(),
        cgroup_parent: text("cgroup parent", &meta.cgroup_parent)?,
        remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
        valid_exit_codes: meta.valid_exit_codes.clone(),
    })
}

fn decode_proxy(proxy: &pb::ProxyEnv) -> ProxyEnv {
    ProxyEnv {
        http_proxy: proxy.http_proxy.clone(),
        https_proxy: proxy.https_proxy.clone(),
        ftp_proxy: proxy.ftp_proxy.clone(),
        no_proxy: proxy.no_proxy.clone(),
        all_proxy: proxy.all_proxy.clone(),
    }
}

fn decode_mount(
    mount: &pb::Mount,
    inputs: usize,
    outputs: &mut HashSet<usize>,
    cwd: &str,
) -> Result<Mount, Invalid> {
    if mount.dest.is_empty() {
        return Err(Invalid::Missing("mount destination"));
    }
    let dest = match mount.dest.starts_with('/') {
        true => text("mount destination", &mount.dest)?,
        false => format!("{}/{}", cwd.trim_end_matches('/'), text("mount destination", &mount.dest)?),
    };
    let kind = decode_kind(mount, &dest)?;
    let output = match kind {
        // Clients leave the number at zero: there are no files of it to pass on.
        MountKind::Secret(_) | MountKind::Ssh(_) => None,
        _ => output_index(mount.output, outputs)?,
    };
    Ok(Mount {
        input: optional_input(mount.input, inputs)?,
        selector: text("mount selector", &mount.selector)?,
        output,
        readonly: mount.readonly,
        kind,
        dest,
        result_id: mount.result_id.clone(),
        content_cache: content_cache(mount.content_cache)?,
    })
}

fn decode_kind(mount: &pb::Mount, dest: &str) -> Result<MountKind, Invalid> {
    let unknown = || Invalid::Enum { what: "mount type", value: mount.mount_type };
    Ok(match pb::MountType::try_from(mount.mount_type).map_err(|_| unknown())? {
        pb::MountType::Bind => MountKind::Bind,
        pb::MountType::Cache => {
            let opt = mount.cache_opt.as_ref().ok_or(Invalid::Missing("cache mount options"))?;
            let unknown = || Invalid::Enum { what: "cache sharing", value: opt.sharing };
            let sharing = match pb::CacheSharingOpt::try_from(opt.sharing).map_err(|_| unknown())? {
                pb::CacheSharingOpt::Shared => CacheSharing::Shared,
                pb::CacheSharingOpt::Private => CacheSharing::Private,
                pb::CacheSharingOpt::Locked => CacheSharing::Locked,
            };
            // A cache without a name is named by its place.
            let id = if opt.id.is_empty() { dest } else { &opt.id };
            MountKind::Cache(CacheMount { id: text("cache id", id)?, sharing })
        }
        pb::MountType::Tmpfs => match mount.tmpfs_opt.as_ref().map_or(0, |opt| opt.size) {
            value if value < 0 => return Err(Invalid::Range { what: "tmpfs size", value }),
            size => MountKind::Tmpfs { size },
        },
        pb::MountType::Secret => {
            let opt = mount.secret_opt.as_ref().ok_or(Invalid::Missing("secret mount options"))?;
            let (id, optional) = (opt.id.clone(), opt.optional);
            MountKind::Secret(SecretMount {
                id,
                uid: opt.uid,
                gid: opt.gid,
                mode: opt.mode & 0o7777,
                optional,
            })
        }
        pb::MountType::Ssh => {
            let opt = mount.ssh_opt.as_ref().ok_or(Invalid::Missing("ssh mount options"))?;
            let (id, optional) = (opt.id.clone(), opt.optional);
            MountKind::Ssh(SshMount { id, uid: opt.uid, gid: opt.gid, mode: opt.mode & 0o7777, optional })
        }
    })
}

fn network(value: i32) -> Result<NetMode, Invalid> {
    match pb::NetMode::try_from(value) {
        Ok(pb::NetMode::Unset) => Ok(NetMode::Unset),
        Ok(pb::NetMode::Host) => Ok(NetMode::Host),
        Ok(pb::NetMode::None) => Ok(NetMode::None),
        Err(_) => Err(Invalid::Enum { what: "network mode", value }),
    }
}

fn security(value: i32) -> Result<SecurityMode, Invalid> {
    match pb::SecurityMode::try_from(value) {
        Ok(pb::SecurityMode::Sandbox) => Ok(SecurityMode::Sandbox),
        Ok(pb::SecurityMode::Insecure) => Ok(SecurityMode::Insecure),
        Err(_) => Err(Invalid::Enum { what: "security mode", value }),
    }
}

fn content_cache(value: i32) -> Result<MountContentCache, Invalid> {
    match pb::MountContentCache::try_from(value) {
        Ok(pb::MountContentCache::Default) => Ok(MountContentCache::Default),
        Ok(pb::MountContentCache::On) => Ok(MountContentCache::On),
        Ok(pb::MountContentCache::Off) => Ok(MountContentCache::Off),
        Err(_) => Err(Invalid::Enum { what: "content cache mode", value }),
    }
}

pub(super) fn encode_exec(exec: &ExecOp) -> pb::ExecOp {
    let network = match exec.network {
        NetMode::Unset => pb::NetMode::Unset,
        NetMode::Host => pb::NetMode::Host,
        NetMode::None => pb::NetMode::None,
    };
    let security = match exec.security {
        SecurityMode::Sandbox => pb::SecurityMode::Sandbox,
        SecurityMode::Insecure => pb::SecurityMode::Insecure,
    };
    let secret =
        |s: &SecretEnv| pb::SecretEnv { id: s.id.clone(), name: s.name.clone(), optional: s.optional };
    pb::ExecOp {
        meta: Some(encode_meta(&exec.meta)),
        mounts: exec.mounts.iter().map(encode_mount).collect(),
        network: network.into(),
        security: security.into(),
        secretenv: exec.secret_env.iter().map(secret).collect(),
        cdi_devices: exec
            .cdi_devices
            .iter()
            .map(|d| pb::CdiDevice { name: d.name.clone(), optional: d.optional })
            .collect(),
    }
}

fn encode_meta(meta: &ExecMeta) -> pb::Meta {
    let host = |h: &HostIp| pb::HostIp { host: h.host.clone(), ip: h.ip.clone() };
    let limit = |u: &Ulimit| pb::Ulimit { name: u.name.clone(), soft: u.soft, hard: u.hard };
    pb::Meta {
        args: meta.args.clone(),
        env: meta.env.iter().map(ToString::to_string).collect(),
        cwd: meta.cwd.clone(),
        user: meta.user.clone(),
        proxy_env: meta.proxy_env.as_ref().map(|p| pb::ProxyEnv {
            http_proxy: p.http_proxy.clone(),
            https_proxy: p.https_proxy.clone(),
            ftp_proxy: p.ftp_proxy.clone(),
            no_proxy: p.no_proxy.clone(),
            all_proxy: p.all_proxy.clone(),
        }),
        extra_hosts: meta.extra_hosts.iter().map(host).collect(),
        hostname: meta.hostname.clone(),
        ulimit: meta.ulimits.iter().map(limit).collect(),
        cgroup_parent: meta.cgroup_parent.clone(),
        remove_mount_stubs_recursive: meta.remove_mount_stubs_recursive,
        valid_exit_codes: meta.valid_exit_codes.clone(),
    }
}

fn encode_mount(mount: &Mount) -> pb::Mount {
    let content_cache = match mount.content_cache {
        MountContentCache::Default => pb::MountContentCache::Default,
        MountContentCache::On => pb::MountContentCache::On,
        MountContentCache::Off => pb::MountContentCache::Off,
    };
    let mut wire = pb::Mount {
        input: number(mount.input),
        selector: mount.selector.clone(),
        dest: mount.dest.clone(),
        output: number(mount.output),
        readonly: mount.readonly,
        result_id: mount.result_id.clone(),
        content_cache: content_cache.into(),
        ..pb::Mount::default()
    };
    match &mount.kind {
        MountKind::Bind => wire.mount_type = pb::MountType::Bind.into(),
        MountKind::Cache(cache) => {
            let sharing = match cache.sharing {
                CacheSharing::Shared => pb::CacheSharingOpt::Shared,
                CacheSharing::Private => pb::CacheSharingOpt::Private,
                CacheSharing::Locked => pb::CacheSharingOpt::Locked,
            };
            wire.mount_type = pb::MountType::Cache.into();
            wire.cache_opt = Some(pb::CacheOpt { id: cache.id.clone(), sharing: sharing.into() });
        }
        MountKind::Tmpfs { size } => {
            wire.mount_type = pb::MountType::Tmpfs.into();
            wire.tmpfs_opt = Some(pb::TmpfsOpt { size: *size });
        }
        MountKind::Secret(s) => {
            let (id, optional) = (s.id.clone(), s.optional);
            // BuildKit's clients leave the output out here, which shows in cache keys.
            wire.output = 0;
            wire.mount_type = pb::MountType::Secret.into();
            wire.secret_opt = Some(pb::SecretOpt { id, uid: s.uid, gid: s.gid, mode: s.mode, optional });
        }
        MountKind::Ssh(s) => {
            let (id, optional) = (s.id.clone(), s.optional);
            wire.output = 0;
            wire.mount_type = pb::MountType::Ssh.into();
            wire.ssh_opt = Some(pb::SshOpt { id, uid: s.uid, gid: s.gid, mode: s.mode, optional });
        }
    }
    wire
}
