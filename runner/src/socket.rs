//! Messages with descriptors over the sockets between daemon, launcher, keepers and sandboxes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// More descriptors than any message of ours carries.
const MAX_FDS: usize = 8;

/// Two ends that keep message borders.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// One message as it arrived.
#[derive(Debug)]
pub(crate) struct Received {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

/// Waits for one message; none when the peer has closed its end.
pub(crate) fn receive(socket: BorrowedFd<'_>, limit: usize) -> io::Result<Option<Received>> {
    receive_with(socket, limit, RecvFlags::empty())
}

/// As [`receive`], but WouldBlock when nothing is there yet.
pub(crate) fn receive_now(socket: BorrowedFd<'_>, limit: usize) -> io::Result<Option<Received>> {
    receive_with(socket, limit, RecvFlags::DONTWAIT)
}

fn receive_with(socket: BorrowedFd<'_>, limit: usize, flags: RecvFlags) -> io::Result<Option<Received>> {
    let mut bytes = vec![0; limit];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(socket, &mut buffers, &mut control, flags | RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            // The peer died with unread data: the same as a closed end.
            Err(Errno::CONNRESET) => return Ok(None),
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = item {
            fds.extend(received);
        }
    }
    if message.bytes == 0 && fds.is_empty() {
        return Ok(None);
    }
    bytes.truncate(message.bytes);
    Ok(Some(Received { bytes, fds }))
}

/// Puts a value into a sealed-off piece of memory that a descriptor names: no limit on its size, nothing on disk.
pub(crate) fn to_memory<T: Serialize>(value: &T) -> io::Result<OwnedFd> {
    let bytes = serde_json::to_vec(value)?;
    let fd = rustix::fs::memfd_create("rbuild", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let n = rustix::io::write(&fd, rest)?;
        rest = &rest[n..];
    }
    Ok(fd)
}

/// Reads what [`to_memory`] wrote.
pub(crate) fn from_memory<T: DeserializeOwned>(fd: &OwnedFd) -> io::Result<T> {
    let size = rustix::fs::fstat(fd)?.st_size as usize;
    let mut bytes = vec![0; size];
    let mut done = 0;
    while done < size {
        match rustix::io::pread(fd.as_fd(), &mut bytes[done..], done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(serde_json::from_slice(&bytes[..done])?)
}
