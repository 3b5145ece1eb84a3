//! The few rtnetlink requests that links, addresses and routes need.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const ERROR: u16 = 2;

const UP: u32 = 1;
/// Nested attributes carry this bit.
const NESTED: u16 = 0x8000;

/// A connection to the network namespace that this process was in when it was opened.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
}

/// A pair of links to make.
pub(super) struct Pair<'a> {
    /// In the connection's namespace.
    pub host_name: &'a str,
    /// In `namespace`.
    pub inner_name: &'a str,
    pub namespace: BorrowedFd<'a>,
    /// Of both, bytes.
    pub mtu: u32,
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        // Protocol 0 is rtnetlink.
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket })
    }

    /// Makes a veth pair; both ends are down.
    pub(super) fn make_pair(&self, pair: &Pair<'_>) -> io::Result<()> {
        let mut message = Message::new(NEW_LINK, CREATE | EXCLUSIVE);
        message.link(0, 0);
        message.text(3, pair.host_name);
        message.number(4, pair.mtu);
        message.nest(18, |info| {
            info.text(1, "veth");
            info.nest(2, |data| {
                data.nest(1, |peer| {
                    peer.link(0, 0);
                    peer.text(3, pair.inner_name);
                    peer.number(4, pair.mtu);
                    peer.number(28, pair.namespace.as_raw_fd() as u32);
                });
            });
        });
        self.ask(message).map(drop)
    }

    /// Keeps the kernel from giving a link an IPv6 address of its own: only what was planned reaches host or sandbox.
    pub(super) fn no_link_local(&self, index: u32) -> io::Result<()> {
        const NONE: u8 = 1;
        let mut message = Message::new(NEW_LINK, 0);
        message.link(index, 0);
        message.nest(26, |families| families.nest(libc::AF_INET6 as u16, |ipv6| ipv6.attribute(8, &[NONE])));
        match self.ask(message) {
            // A host without IPv6.
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Brings a link up.
    pub(super) fn set_up(&self, index: u32) -> io::Result<()> {
        let mut message = Message::new(NEW_LINK, 0);
        message.link(index, UP);
        self.ask(message).map(drop)
    }

    /// The index of a link.
    pub(super) fn index_of(&self, name: &str) -> io::Result<u32> {
        let mut message = Message::new(GET_LINK, 0);
        message.link(0, 0);
        message.text(3, name);
        let answer = self.ask(message)?;
        // Header of 16 bytes, then family, padding, type, index.
        let bytes = answer.get(20..24).ok_or_else(|| io::Error::from_raw_os_error(libc::EPROTO))?;
        Ok(u32::from_ne_bytes(bytes.try_into().expect("four bytes were asked for")))
    }

    /// Gives a link an address.
    pub(super) fn add_address(&self, index: u32, address: Ipv4Addr, prefix_length: u8) -> io::Result<()> {
        let mut message = Message::new(NEW_ADDRESS, CREATE | EXCLUSIVE);
        message.bytes.extend([libc::AF_INET as u8, prefix_length, 0, 0]);
        message.bytes.extend(index.to_ne_bytes());
        message.attribute(1, &address.octets());
        message.attribute(2, &address.octets());
        self.ask(message).map(drop)
    }

    /// Adds a route: to one host over a link, or with a gateway the default route.
    pub(super) fn add_route(
        &self,
        to: Option<Ipv4Addr>,
        gateway: Option<Ipv4Addr>,
        index: u32,
    ) -> io::Result<()> {
        const MAIN_TABLE: u8 = 254;
        const BOOT: u8 = 3;
        const UNICAST: u8 = 1;
        const ON_LINK: u32 = 4;
        let (length, scope) = if to.is_some() { (32, 253) } else { (0, 0) };
        let mut message = Message::new(NEW_ROUTE, CREATE | EXCLUSIVE);
        message.bytes.extend([libc::AF_INET as u8, length, 0, 0, MAIN_TABLE, BOOT, scope, UNICAST]);
        let flags = if gateway.is_some() { ON_LINK } else { 0 };
        message.bytes.extend(flags.to_ne_bytes());
        if let Some(to) = to {
            message.attribute(1, &to.octets());
        }
        if let Some(gateway) = gateway {
            message.attribute(5, &gateway.octets());
        }
        message.number(4, index);
        self.ask(message).map(drop)
    }

    fn ask(&self, message: Message) -> io::Result<Vec<u8>> {
        rustix::net::send(&self.socket, &message.finish(), SendFlags::empty())?;
        let mut answer = vec![0; 8192];
        let (length, _) = rustix::net::recv(&self.socket, &mut *answer, RecvFlags::empty())?;
        answer.truncate(length);
        let kind = answer.get(4..6).map(|b| u16::from_ne_bytes([b[0], b[1]]));
        if kind == Some(ERROR) {
            let code =
                answer.get(16..20).map_or(-libc::EPROTO, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
            if code != 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
        }
        Ok(answer)
    }
}

/// A request under construction.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | REQUEST | if kind == GET_LINK { 0 } else { ACK }).to_ne_bytes());
        bytes.extend([0; 8]);
        Self { bytes }
    }

    /// `struct ifinfomsg`: which link, and flags to set.
    fn link(&mut self, index: u32, flags: u32) {
        self.bytes.extend([0; 4]);
        self.bytes.extend(index.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.align();
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}
