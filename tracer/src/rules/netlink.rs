//! Netlink, as far as dumps need it: a socket, requests, messages, attributes. Knows no family's
//! meaning. Only asks; nothing here changes the kernel.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::SocketAddrNetlink,
        recv, send, socket_with,
        sockopt::{self, Timeout},
    },
};

// include/uapi/linux/netlink.h
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 16;

/// The most that a dump puts into one datagram is 32 KiB (`netlink_recvmsg`).
const BUFFER: usize = 64 << 10;

/// A socket of one netlink family.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// How a dump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dumped {
    /// All of one state.
    Whole,
    /// What is dumped changed meanwhile.
    Interrupted,
}

impl Netlink {
    /// Opens a socket of `protocol`, such as `netlink::NETFILTER`; `None` is routing, whose number is 0.
    pub(super) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Opens a socket that hears what is told to `groups`, a bit for each.
    pub(super) fn listen(protocol: Protocol, groups: u32) -> io::Result<Self> {
        /// A large cluster's rules are written in one go.
        const ROOM: usize = 16 << 20;
        let netlink = Self::open(Some(protocol))?;
        // Without the right to more room it is the usual.
        let _ = sockopt::set_socket_recv_buffer_size_force(&netlink.socket, ROOM);
        bind(&netlink.socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(netlink)
    }

    /// Waits for what is told, no longer than `patience`; `each` gets type and body of every message of one
    /// datagram.
    pub(super) fn receive(
        &mut self,
        patience: Duration,
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        sockopt::set_socket_timeout(&self.socket, Timeout::Recv, Some(patience))?;
        let length = match recv(&self.socket, &mut self.buffer[..], RecvFlags::empty()) {
            Ok((_, length)) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for message in Messages(&self.buffer[..length.min(BUFFER)]) {
            each(message.kind, message.body);
        }
        Ok(())
    }

    /// Asks for a dump of `kind`; `body` is the family's header and attributes. `each` gets type
    /// and body of every message.
    pub(super) fn dump(
        &mut self,
        kind: u16,
        body: &[u8],
        each: impl FnMut(u16, &[u8]),
    ) -> io::Result<Dumped> {
        self.ask(kind, NLM_F_REQUEST | NLM_F_DUMP, body, each)
    }

    /// Asks for one answer of `kind`.
    pub(super) fn get(
        &mut self,
        kind: u16,
        body: &[u8],
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<()> {
        self.request(kind, NLM_F_REQUEST, body)?;
        loop {
            let (_, length) = recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())?;
            for message in Messages(&self.buffer[..length.min(BUFFER)]) {
                if message.sequence == self.sequence {
                    if message.kind == NLMSG_ERROR {
                        return Err(error_of(message.body));
                    }
                    each(message.kind, message.body);
                    return Ok(());
                }
            }
        }
    }

    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<Dumped> {
        self.request(kind, flags, body)?;
        let mut dumped = Dumped::Whole;
        loop {
            let (_, length) = recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())?;
            for message in Messages(&self.buffer[..length.min(BUFFER)]) {
                if message.sequence != self.sequence {
                    continue;
                }
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    dumped = Dumped::Interrupted;
                }
                match message.kind {
                    NLMSG_DONE => return Ok(dumped),
                    NLMSG_ERROR => return Err(error_of(message.body)),
                    kind => each(kind, message.body),
                }
            }
        }
    }

    fn request(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        self.sequence += 1;
        let length = u32::try_from(HEADER + body.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend(self.sequence.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes());
        message.extend(body);
        send(&self.socket, &message, SendFlags::empty())?;
        Ok(())
    }
}

/// Whether `module` is in the kernel, loaded or built in, where `symbol` ends a line of its own symbols: a
/// question to it would otherwise load the module.
pub(super) fn is_in_kernel(module: &str, symbol: &'static str) -> bool {
    // Without modules nothing can be loaded.
    let Ok(modules) = std::fs::read_to_string("/proc/modules") else {
        return true;
    };
    let mut modules = modules.lines();
    modules.any(|line| line.split(' ').next() == Some(module)) || is_built_in(symbol)
}

/// Whether the kernel's own symbols have one whose line ends so. What is built in stays so, and there are a
/// quarter of a million lines: each is looked for once.
fn is_built_in(symbol: &'static str) -> bool {
    static KNOWN: Mutex<BTreeMap<&str, bool>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    *known.entry(symbol).or_insert_with(|| {
        let symbols = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
        symbols.lines().any(|line| line.ends_with(symbol))
    })
}

/// What an `nlmsgerr` says.
fn error_of(body: &[u8]) -> io::Error {
    let code = body
        .first_chunk()
        .map_or(0, |code| i32::from_ne_bytes(*code));
    io::Error::from_raw_os_error(-code)
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The messages of one datagram.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = self.0.first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes(*header.first_chunk()?) as usize;
        let body = self.0.get(HEADER..length)?;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body,
        };
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some(message)
    }
}

/// Attributes, in order: type without its flags, and value.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

#[expect(
    clippy::copy_iterator,
    reason = "a slice's reference, searched again and again"
)]
impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> Attributes<'a> {
    /// The attribute `kind`.
    pub(super) fn find(self, kind: u16) -> Option<&'a [u8]> {
        let mut all = self;
        all.find_map(|(found, value)| (found == kind).then_some(value))
    }

    /// A byte.
    pub(super) fn u8(self, kind: u16) -> Option<u8> {
        self.find(kind)?.first().copied()
    }

    /// A short number in this machine's order.
    pub(super) fn u16(self, kind: u16) -> Option<u16> {
        Some(u16::from_ne_bytes(*self.find(kind)?.first_chunk()?))
    }

    /// A number in this machine's order.
    pub(super) fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.find(kind)?.first_chunk()?))
    }

    /// A long number in this machine's order.
    pub(super) fn u64(self, kind: u16) -> Option<u64> {
        Some(u64::from_ne_bytes(*self.find(kind)?.first_chunk()?))
    }

    /// A short number in network order, such as a port.
    pub(super) fn be16(self, kind: u16) -> Option<u16> {
        Some(u16::from_be_bytes(*self.find(kind)?.first_chunk()?))
    }

    /// A number in network order, as nf_tables has them.
    pub(super) fn be32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(*self.find(kind)?.first_chunk()?))
    }

    /// A long number in network order.
    pub(super) fn be64(self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(*self.find(kind)?.first_chunk()?))
    }

    /// An address, where IPv4 has one number and IPv6 another.
    pub(super) fn address(self, v4: u16, v6: u16) -> Option<IpAddr> {
        let four = self.find(v4).and_then(|bytes| bytes.first_chunk::<4>());
        let six = || self.find(v6).and_then(|bytes| bytes.first_chunk::<16>());
        four.map(|bytes| IpAddr::from(*bytes))
            .or_else(|| six().map(|bytes| IpAddr::from(*bytes)))
    }

    /// A string, without its final zero.
    pub(super) fn text(self, kind: u16) -> Option<&'a str> {
        text_of(self.find(kind)?)
    }

    /// Nested attributes.
    pub(super) fn nested(self, kind: u16) -> Option<Attributes<'a>> {
        self.find(kind).map(Attributes)
    }
}

/// The string in `bytes` up to its first zero.
pub(super) fn text_of(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0);
    std::str::from_utf8(&bytes[..end.unwrap_or(bytes.len())]).ok()
}

/// Appends an attribute to a request's body.
pub(super) fn push(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(aligned(body.len()), 0);
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let mut body = Vec::new();
        push(&mut body, 1, b"nat\0");
        push(&mut body, 0x8002, &7_u32.to_be_bytes());
        let attributes = Attributes(&body);
        assert_eq!(attributes.text(1), Some("nat"));
        assert_eq!(attributes.be32(2), Some(7));
        assert_eq!(attributes.find(3), None);
    }

    #[test]
    fn a_cut_attribute_ends_the_list() {
        let mut body = Vec::new();
        push(&mut body, 1, &[0; 8]);
        assert_eq!(Attributes(&body[..9]).count(), 0);
    }
}
