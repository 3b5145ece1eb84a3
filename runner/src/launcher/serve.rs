//! The launcher process: it hands requests to keepers, makes keepers when none is free, and buries them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, WaitOptions};
use rustix::time::Timespec;

use super::LauncherConfig;
use crate::cgroup;
use crate::keeper;
use crate::network;
use crate::seccomp;
use crate::socket::{self, Received};
use crate::sys;
use crate::sys::process::{Fork, clone3, exit_now, ignore_stop_signals, reset_signals};

/// A message with the descriptors of a job.
pub(super) const JOB: &[u8] = b"job";
/// The same of a job that outlives the launcher: the keeper that takes it becomes its monitor.
pub(super) const MONITORED: &[u8] = keeper::MONITORED;

/// Keepers that wait for work; more than these are dismissed when they are done.
const MAX_IDLE: usize = 8;
/// Those that stay when there has been nothing to do for a while: each is some hundred kilobytes.
const RESTING: usize = 1;
/// How long that while is, seconds.
const PATIENCE_SECONDS: i64 = 10;

/// Goes on as the launcher after an exec: the socket is stdin.
pub(super) fn executed(config: Option<String>) -> ! {
    let config = config.and_then(|text| serde_json::from_str(&text).ok());
    let (Some(config), Ok(daemon)) = (config, std::io::stdin().as_fd().try_clone_to_owned()) else {
        exit_now(1)
    };
    // Keepers would hold the daemon's socket as theirs, and the daemon's caller may have left us more than it knows.
    let null = std::fs::File::open("/dev/null").map(|null| nix::unistd::dup2_stdin(&null));
    if !matches!(null, Ok(Ok(()))) || sys::fds::close_all_but(3, daemon.as_raw_fd() as u32).is_err() {
        exit_now(1);
    }
    serve(&config, daemon)
}

fn serve(config: &LauncherConfig, daemon: OwnedFd) -> ! {
    reset_signals();
    ignore_stop_signals();
    let name = rustix::thread::set_name(c"rbuild-launcher");
    debug_assert!(name.is_ok(), "any name of 15 bytes is taken");
    // Made here once, so that all keepers and sandboxes share its memory.
    seccomp::default_program();
    let mut launcher = Serving { id: config.id.clone(), parent: config.cgroups(), keepers: Vec::new() };
    // What an earlier one left behind, if it was killed.
    cgroup::remove_parent(&launcher.parent);
    launcher.run(&daemon);
    launcher.finish();
    exit_now(0)
}

struct Keeper {
    pid: Pid,
    socket: OwnedFd,
    idle: bool,
    /// It goes on when the launcher ends.
    monitor: bool,
}

struct Serving {
    id: String,
    parent: String,
    keepers: Vec<Keeper>,
}

impl Serving {
    /// Until the daemon closes its end.
    fn run(&mut self, daemon: &OwnedFd) {
        loop {
            let mut polled = vec![PollFd::new(daemon, PollFlags::IN)];
            polled.extend(self.keepers.iter().map(|keeper| PollFd::new(&keeper.socket, PollFlags::IN)));
            let patience = Timespec { tv_sec: PATIENCE_SECONDS, tv_nsec: 0 };
            match rustix::event::poll(&mut polled, (self.idle() > RESTING).then_some(&patience)) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return,
                Ok(0) => {
                    self.dismiss_idle(RESTING);
                    continue;
                }
                Ok(_) => {}
            }
            let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            self.listen(&ready[1..]);
            if ready[0] {
                match socket::receive(daemon.as_fd()) {
                    Ok(Some(job)) => self.hand_over(job),
                    Ok(None) | Err(_) => return,
                }
            }
        }
    }

    /// Hears from keepers: free again, or gone.
    fn listen(&mut self, ready: &[bool]) {
        let mut gone = Vec::new();
        for (index, keeper) in self.keepers.iter_mut().enumerate() {
            if ready.get(index) != Some(&true) {
                continue;
            }
            match socket::receive(keeper.socket.as_fd()) {
                Ok(Some(message)) => keeper.idle = message.bytes == keeper::IDLE,
                Ok(None) | Err(_) => gone.push(index),
            }
        }
        for index in gone.into_iter().rev() {
            self.bury(index);
        }
        self.dismiss_idle(MAX_IDLE);
    }

    fn idle(&self) -> usize {
        self.keepers.iter().filter(|keeper| keeper.idle).count()
    }

    fn dismiss_idle(&mut self, stay: usize) {
        while self.idle() > stay {
            let Some(index) = self.keepers.iter().position(|keeper| keeper.idle) else { return };
            self.bury(index);
        }
    }

    /// Dismisses a keeper (or buries a dead one) and removes its cgroups.
    fn bury(&mut self, index: usize) {
        let keeper = self.keepers.swap_remove(index);
        drop(keeper.socket);
        // Idle or dead: it ends at once.
        let _ended = rustix::process::waitpid(Some(keeper.pid), WaitOptions::empty());
        cgroup::remove_leaf(&self.parent, keeper.pid.as_raw_pid());
    }

    /// Gives a job to a free keeper, or a new one. A job that nobody takes is dropped, which its handle notices.
    fn hand_over(&mut self, job: Received) {
        let fds: Vec<_> = job.fds.iter().map(AsFd::as_fd).collect();
        while let Some(index) =
            self.keepers.iter().rposition(|keeper| keeper.idle).or_else(|| self.add_keeper())
        {
            if socket::send(self.keepers[index].socket.as_fd(), &job.bytes, &fds).is_ok() {
                self.keepers[index].idle = false;
                self.keepers[index].monitor = job.bytes == MONITORED;
                return;
            }
            self.bury(index);
        }
    }

    fn add_keeper(&mut self) -> Option<usize> {
        let (ours, theirs) = socket::pair().ok()?;
        match clone3(0).ok()? {
            Fork::Child => {
                // Sockets of other keepers held open here would keep those from noticing the launcher's end.
                if sys::fds::close_all_but(3, theirs.as_raw_fd() as u32).is_err() {
                    exit_now(1);
                }
                keeper::serve(&theirs)
            }
            Fork::Parent { pid, .. } => {
                self.keepers.push(Keeper { pid, socket: ours, idle: true, monitor: false });
                Some(self.keepers.len() - 1)
            }
        }
    }

    /// Sends all keepers home: a busy one kills its sandbox first. Monitors stay, and clean up by themselves.
    fn finish(&mut self) {
        let mut keepers = std::mem::take(&mut self.keepers);
        keepers.retain(|keeper| !keeper.monitor);
        let pids: Vec<Pid> = keepers.iter().map(|keeper| keeper.pid).collect();
        drop(keepers);
        for pid in pids {
            let _ended = rustix::process::waitpid(Some(pid), WaitOptions::empty());
            cgroup::remove_leaf(&self.parent, pid.as_raw_pid());
        }
        cgroup::remove_parent(&self.parent);
        if let Err(reason) = network::tear_down(&self.id) {
            eprintln!("rbuild-launcher: the firewall table is left behind: {reason}");
        }
    }
}
