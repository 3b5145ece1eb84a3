//! Messages with descriptors over the sockets between daemon, launcher, keepers and sandboxes.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

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
    retry(|| rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// One message as it arrived.
#[derive(Debug)]
pub(crate) struct Received {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

/// Waits for one message; none when the peer has closed its end.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Received>> {
    receive_with(socket, RecvFlags::empty())
}

/// As [`receive`], but WouldBlock when nothing is there yet.
pub(crate) fn receive_now(socket: BorrowedFd<'_>) -> io::Result<Option<Received>> {
    receive_with(socket, RecvFlags::DONTWAIT)
}

fn receive_with(socket: BorrowedFd<'_>, flags: RecvFlags) -> io::Result<Option<Received>> {
    let Some(length) = next_length(socket, flags)? else { return Ok(None) };
    let mut bytes = vec![0; length];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = retry(|| rustix::net::recvmsg(socket, &mut buffers, &mut control, flags))?.bytes;
    let mut fds = Vec::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = item {
            fds.extend(received);
        }
    }
    bytes.truncate(received);
    Ok(Some(Received { bytes, fds }))
}

/// The size of the message that comes next. No message of ours is empty, so an empty one is the end.
fn next_length(socket: BorrowedFd<'_>, flags: RecvFlags) -> io::Result<Option<usize>> {
    let flags = flags | RecvFlags::PEEK | RecvFlags::TRUNC;
    match retry(|| rustix::net::recv(socket, &mut [0_u8; 0], flags)) {
        // The peer died with unread data: the same as a closed end.
        Err(Errno::CONNRESET) => Ok(None),
        Err(errno) => Err(errno.into()),
        Ok((_, 0)) => Ok(None),
        Ok((_, length)) => Ok(Some(length)),
    }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
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
pub(crate) fn from_memory<T: DeserializeOwned>(fd: BorrowedFd<'_>) -> io::Result<T> {
    let size = rustix::fs::fstat(fd)?.st_size as usize;
    let mut bytes = vec![0; size];
    let mut done = 0;
    while done < size {
        match rustix::io::pread(fd, &mut bytes[done..], done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(serde_json::from_slice(&bytes[..done])?)
}
