//! The counted fields of an exec.

use super::fields::Writer;
use super::index;
use super::uses::{Use, hash_selection, selection_of_mount};
use crate::op::{
    CacheMount, CdiDevice, ExecMeta, ExecOp, HostIp, Mount, MountKind, NetMode, SecretEnv, SecretMount,
    SecurityMode, SshMount, Ulimit,
};

pub(super) fn hash(h: &mut Writer, op: &ExecOp, uses: &[Use]) {
    let ExecOp { meta: m, mounts: _sorted_below, network, security, secret_env, cdi_devices } = op;
    meta(h, m);
    let sorted = op.mounts_by_dest();
    h.between().u64(sorted.len() as u64);
    for m in sorted {
        mount(h, m, uses);
    }
    h.named("network").u64(match network {
        NetMode::Unset => 0,
        NetMode::Host => 1,
        NetMode::None => 2,
    });
    h.named("security").u64(match security {
        SecurityMode::Sandbox => 0,
        SecurityMode::Insecure => 1,
    });
    h.named("secret env").u64(secret_env.len() as u64);
    for SecretEnv { id, name, optional } in secret_env {
        h.str(id).str(name).bool(*optional);
    }
    h.named("device").u64(cdi_devices.len() as u64);
    for CdiDevice { name, optional } in cdi_devices {
        h.str(name).bool(*optional);
    }
}

fn meta(h: &mut Writer, meta: &ExecMeta) {
    let ExecMeta {
        args,
        env,
        cwd,
        user,
        proxy_env: _how_the_network_is_reached_not_what_is_built,
        extra_hosts,
        hostname,
        ulimits,
        cgroup_parent: _where_it_is_accounted_not_what_it_sees,
        remove_mount_stubs_recursive,
        valid_exit_codes,
    } = meta;
    h.named("command").strs(args).between().u64(env.len() as u64);
    for entry in env.iter() {
        h.field(|| Some(format!("env.{}", entry.split_once('=').map_or(&**entry, |(name, _)| name))))
            .str(entry);
    }
    h.named("workdir").str(cwd).named("user").str(user);
    h.named("add-host").u64(extra_hosts.len() as u64);
    for HostIp { host, ip: _an_address_may_move } in extra_hosts {
        h.str(host);
    }
    h.named("hostname").str(hostname).named("ulimit").u64(ulimits.len() as u64);
    for Ulimit { name, soft, hard } in ulimits {
        h.str(name).i64(*soft).i64(*hard);
    }
    h.between().bool(*remove_mount_stubs_recursive).named("exit codes").u64(valid_exit_codes.len() as u64);
    for c in valid_exit_codes {
        h.i64((*c).into());
    }
}

fn mount(h: &mut Writer, m: &Mount, uses: &[Use]) {
    let Mount {
        input,
        selector: _hashed_below_as_what_it_is_of_the_input,
        dest,
        output,
        readonly,
        kind,
        result_id: _only_another_name_for_the_result,
        content_cache: _says_how_to_key_not_what_to_do,
    } = m;
    // Where it stands among the inputs follows from the others.
    h.between();
    index(h, *input);
    h.field(|| Some(format!("mount.{dest}")));
    if let Some(i) = *input {
        hash_selection(h, uses.get(i), &selection_of_mount(m));
    }
    h.str(dest);
    index(h, *output);
    h.bool(*readonly);
    match kind {
        MountKind::Bind => {
            h.str("bind");
        }
        MountKind::Cache(CacheMount { id: _a_cache_must_not_change_results, sharing: _likewise }) => {
            h.str("cache");
        }
        MountKind::Tmpfs { size } => {
            h.str("tmpfs").i64(*size);
        }
        MountKind::Secret(SecretMount { id, uid, gid, mode, optional }) => {
            h.str("secret").str(id).u64((*uid).into()).u64((*gid).into()).u64((*mode).into()).bool(*optional);
        }
        MountKind::Ssh(SshMount { id, uid, gid, mode, optional }) => {
            h.str("ssh").str(id).u64((*uid).into()).u64((*gid).into()).u64((*mode).into()).bool(*optional);
        }
    }
}
