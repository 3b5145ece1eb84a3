//! Whose rights a directory is walked with.

use std::sync::Arc;

use cache::context::ThreadInit;
use nix::unistd::{Gid, Uid, User, getgrouplist, setfsgid, setfsuid};

use crate::daemon::side::Peer;

/// Takes on a client's identity in a thread: file system ids and groups, and with them no capabilities for files.
///
/// `None` for root, which is what the daemon is, and for the daemon's own user.
pub(super) fn of_peer(peer: Peer) -> Option<ThreadInit> {
    let own = Uid::effective().as_raw();
    if peer.uid == own || peer.uid == 0 {
        return None;
    }
    let (uid, gid) = (Uid::from_raw(peer.uid), Gid::from_raw(peer.gid));
    let groups = supplementary(uid, gid);
    Some(Arc::new(move || {
        // Linux keeps groups by thread; glibc's setgroups would change them for the whole daemon.
        if let Err(e) = rustix::thread::set_thread_groups(&groups) {
            tracing::warn!(uid = uid.as_raw(), "cannot take on a client's groups: {e}");
        }
        setfsgid(gid);
        // Leaving fsuid 0 drops CAP_DAC_OVERRIDE and the like from the effective set (capabilities(7)).
        setfsuid(uid);
    }))
}

fn supplementary(uid: Uid, gid: Gid) -> Vec<rustix::thread::Gid> {
    let of = |user: User| {
        let name = std::ffi::CString::new(user.name).ok()?;
        getgrouplist(&name, gid).ok()
    };
    let groups = User::from_uid(uid).ok().flatten().and_then(of).unwrap_or_else(|| vec![gid]);
    groups.into_iter().map(|g| rustix::thread::Gid::from_raw(g.as_raw())).collect()
}
