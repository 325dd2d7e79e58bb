//! `Fact`: what one kernel record says, in model types; `Event`: the one stream the correlator eats.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;

use super::{
    conntrack::ConntrackChange,
    drops::Hook,
    ids::{CgroupId, Ifindex, KtimeNs, NetnsInode, SkbId, SockId, WallNs},
    insert::Insert,
};

/// What the correlator is given, in order of time.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Something seen in the kernel.
    Fact(&'a Fact),
    /// Time passes, also where nothing is seen: both clocks at one moment.
    Tick {
        /// Kernel time.
        ktime: KtimeNs,
        /// Wall-clock time at the same moment.
        wall: WallNs,
    },
    /// What conntrack counted in one namespace.
    Counted(&'a ConntrackChange),
    /// What the kernel side has lost since the last such event.
    Loss(Losses),
    /// The name of kernel code, such as `nf_hook_slow+0x9c`, told before the first fact of a drop
    /// there.
    Symbol {
        /// Its address.
        location: u64,
        /// Symbol and offset.
        name: &'a str,
    },
}

/// What was lost before it could become a fact, by cause; counts of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// The ring buffer, or a processor's buffer for paged payload, had no room.
    pub ring_full: u64,
    /// Packets passed over because a program met itself on one processor: by the kernel
    /// (`recursion_misses`) or by the program.
    pub skipped: u64,
    /// Packets whose headers lay where a kernel program could not read them.
    pub unreadable: u64,
    /// Records user space could not make sense of.
    pub undecodable: u64,
    /// Events missing in a recording: its writer had no room for them, or what held them cannot
    /// be read.
    pub unrecorded: u64,
}

impl Losses {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.ring_full + self.skipped + self.unreadable + self.undecodable + self.unrecorded
    }

    /// Adds `more`.
    pub fn add(&mut self, more: &Self) {
        self.ring_full += more.ring_full;
        self.skipped += more.skipped;
        self.unreadable += more.unreadable;
        self.undecodable += more.undecodable;
        self.unrecorded += more.unrecorded;
    }
}

/// One thing seen in the kernel.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all facts are packets; a box for each would cost more than the room"
)]
#[derive(Clone, Debug)]
pub enum Fact {
    /// A packet at one place.
    Packet(Packet),
    /// Something that happened to a TCP socket.
    Socket(Socket),
    /// What passed between a UDP socket and its application.
    SocketIo(SocketIo),
    /// What went wrong, or nearly so, when a packet was to have its conntrack entry.
    Insert(Insert),
}

impl Fact {
    /// When it was seen.
    pub fn ktime(&self) -> KtimeNs {
        match self {
            Self::Packet(packet) => packet.ktime,
            Self::Socket(socket) => socket.ktime,
            Self::SocketIo(io) => io.ktime,
            Self::Insert(insert) => insert.ktime,
        }
    }
}

/// Source and destination of a packet, as they stood in its headers at that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source address and port.
    pub src: SocketAddr,
    /// Destination address and port.
    pub dst: SocketAddr,
}

impl Flow {
    /// The same flow, the other way.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
        }
    }
}

/// A packet's conntrack entry: the two tuples that NAT lies between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// As the first packet was sent: client to what it asked.
    pub original: Flow,
    /// As answers arrive: backend to whom it answers.
    pub reply: Flow,
    /// Conntrack zone of the original direction.
    pub zone: u16,
}

impl Conntrack {
    /// Whether the destination was changed (DNAT, or a virtual server of IPVS).
    pub fn is_translated(&self) -> bool {
        self.original.dst != self.reply.src
    }
}

/// Where a packet was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Handed to a device for transmission.
    Queued,
    /// Taken from a device.
    Received,
    /// Freed before delivery.
    Dropped {
        /// `enum skb_drop_reason` of the running kernel; 0 when it gives none.
        reason: u32,
        /// Kernel address of the code that freed it.
        location: u64,
        /// Where on IP's path; `None` where that cannot be told.
        hook: Option<Hook>,
    },
    /// Answered by this namespace with an ICMP error, about to be freed.
    Refused {
        /// Type (RFC 792).
        kind: u8,
        /// Code.
        code: u8,
    },
}

impl Place {
    /// Whether the packet was on its way, at a device.
    pub fn is_device(self) -> bool {
        matches!(self, Self::Queued | Self::Received)
    }
}

/// Name of a thread, NUL-padded (`TASK_COMM_LEN`, include/linux/sched.h).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Comm(pub [u8; 16]);

impl Comm {
    /// The name at the front of `bytes`. Behind its NUL, kernels before Linux 5.17 keep the end of a longer name that
    /// the thread had before (`__set_task_comm`, fs/exec.c); it is left out, so that equal names are equal.
    pub fn of_task(bytes: [u8; 16]) -> Self {
        const ONES: u128 = u128::MAX / 0xff;
        let name = u128::from_le_bytes(bytes);
        // The lowest bit of it that is set is the highest of the first byte that is zero.
        let zeros = name.wrapping_sub(ONES) & !name & (ONES << 7);
        let before = zeros.wrapping_sub(1) & !zeros;
        Self((name & before).to_le_bytes())
    }
}

impl fmt::Display for Comm {
    /// Bytes that are no UTF-8 become U+FFFD; a thread may call itself anything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.split(|&byte| byte == 0).next().unwrap_or_default();
        name.utf8_chunks().try_for_each(|chunk| {
            f.write_str(chunk.valid())?;
            if chunk.invalid().is_empty() {
                Ok(())
            } else {
                f.write_str("\u{fffd}")
            }
        })
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Who sent a packet; known only where the sender's own context was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Process id (tgid) in the initial pid namespace; `None` where the socket is no full socket.
    pub pid: Option<u32>,
    /// Name of the sending thread; void without `pid`.
    pub comm: Comm,
    /// Cgroup of the socket.
    pub cgroup: Option<CgroupId>,
    /// The socket.
    pub sock: SockId,
}

/// What the packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A UDP datagram, or the first fragment of one.
    Udp,
    /// A TCP segment.
    Tcp {
        /// Flags (RFC 9293, section 3.1).
        flags: TcpFlags,
        /// Sequence number.
        seq: u32,
        /// Acknowledgement number.
        ack: u32,
    },
    /// An ICMP or ICMPv6 error; the payload is the packet it quotes.
    IcmpError {
        /// Type (RFC 792, RFC 4443).
        kind: u8,
        /// Code.
        code: u8,
    },
    /// A fragment that is not the first.
    LaterFragment,
}

impl Transport {
    /// Whether it is a packet of an exchange, rather than one that tells of another.
    pub fn is_data(self) -> bool {
        matches!(self, Self::Udp | Self::Tcp { .. })
    }
}

/// TCP flags of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// RFC 9293, section 3.1.
    pub fn fin(self) -> bool {
        self.0 & 1 != 0
    }
    /// RFC 9293, section 3.1.
    pub fn syn(self) -> bool {
        self.0 & 2 != 0
    }
    /// RFC 9293, section 3.1.
    pub fn rst(self) -> bool {
        self.0 & 4 != 0
    }
    /// RFC 9293, section 3.1.
    pub fn ack(self) -> bool {
        self.0 & 16 != 0
    }
}

/// What carries a packet from node to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// How.
    pub kind: TunnelKind,
    /// The node that sends.
    pub src: IpAddr,
    /// The node it is for.
    pub dst: IpAddr,
    /// VXLAN's or Geneve's network identifier, GRE's key; 0 where there is none.
    pub network: u32,
}

/// How a packet is carried in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TunnelKind {
    /// RFC 7348, on UDP ports 8472 (Flannel), 4789 (Calico) and 6784 (Weave Net's fast datapath).
    Vxlan,
    /// RFC 8926, on UDP port 6081.
    Geneve,
    /// RFC 2784, RFC 2890.
    Gre,
    /// RFC 2003, RFC 4213, RFC 2473: either IP in either.
    IpIp,
    /// Weave Net's router by itself, on UDP port 6783.
    Sleeve,
}

impl TunnelKind {
    /// The word for it, in text and JSON alike.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gre => "gre",
            Self::IpIp => "ipip",
            Self::Sleeve => "sleeve",
        }
    }
}

/// One packet at one place.
#[derive(Clone, Debug)]
pub struct Packet {
    /// When.
    pub ktime: KtimeNs,
    /// Where on its path.
    pub place: Place,
    /// In which network namespace; inode 0 when not known.
    pub netns: NetnsInode,
    /// At which device; 0 when not known.
    pub ifindex: Ifindex,
    /// Which packet.
    pub skb: SkbId,
    /// Source and destination; ports are 0 for ICMP and later fragments.
    pub flow: Flow,
    /// What it carries.
    pub transport: Transport,
    /// Its conntrack entry, where it has one at this place.
    pub conntrack: Option<Conntrack>,
    /// Who sent it, where that is known at this place.
    pub sender: Option<Sender>,
    /// Captured bytes from the network header to the payload; empty where they were not asked for.
    pub headers: Bytes,
    /// Captured bytes of transport payload.
    pub payload: Bytes,
    /// Bytes of transport payload the packet really has.
    pub payload_len: u32,
    /// It is the packet of the fact before this one, at its next place: its payload is the same.
    pub again: bool,
    /// Part of the payload lay where it could not be read.
    pub unreadable: bool,
    /// What carries it at this place. Neither its conntrack entry nor its sender is known there.
    pub tunnel: Option<Box<Tunnel>>,
}

/// Something that happened to a TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// When.
    pub ktime: KtimeNs,
    /// In which network namespace.
    pub netns: NetnsInode,
    /// Local to remote; the local port is 0 before it is chosen.
    pub flow: Flow,
    /// Who owns it; the process is known for `Connecting` only.
    pub owner: Sender,
    /// What happened.
    pub event: SocketEvent,
}

/// What can happen to a TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketEvent {
    /// The application called `connect`.
    Connecting,
    /// The handshake succeeded.
    Established,
    /// The handshake failed or was given up.
    Failed,
    /// A segment was sent again.
    Retransmitted,
}

/// What passed between a UDP socket and its application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketIo {
    /// When.
    pub ktime: KtimeNs,
    /// In which network namespace.
    pub netns: NetnsInode,
    /// Which socket.
    pub sock: SockId,
    /// Its port.
    pub local: u16,
    /// The port it is connected to; `None` when it is not connected.
    pub remote: Option<u16>,
    /// What.
    pub event: IoEvent,
}

/// What can pass between a UDP socket and its application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoEvent {
    /// A datagram was put into the socket's queue.
    Delivered {
        /// The last one in it; `None` when a reader has emptied it meanwhile.
        last: Option<SkbId>,
        /// How many are in it now.
        queued: usize,
    },
    /// The application has read one.
    Read {
        /// Who.
        by: Task,
        /// Bytes it got, of the datagram's maybe more.
        bytes: u32,
        /// How many are in the queue now.
        queued: usize,
    },
    /// The application's call to send has returned.
    Sent {
        /// Who.
        by: Task,
        /// Bytes sent.
        bytes: u32,
    },
    /// There was no room for a datagram; its drop comes next.
    Full,
    /// The application is told of an error.
    Failed {
        /// Which (include/uapi/asm-generic/errno.h).
        errno: u32,
    },
}

/// A thread, as the initial pid namespace numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Process id (tgid).
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The thread's name.
    pub comm: Comm,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_name_ends_at_its_first_nul() {
        let of = |bytes: &[u8; 16]| Comm::of_task(*bytes);
        assert_eq!(
            of(b"dig\0resolved\0\0\0\0"),
            Comm(*b"dig\0\0\0\0\0\0\0\0\0\0\0\0\0")
        );
        assert_eq!(
            of(b"\x01\x80\0\x01\0gone\0\0\0\0\0\0\0").0[..5],
            *b"\x01\x80\0\0\0"
        );
        assert_eq!(of(b"\0gone\0\0\0\0\0\0\0\0\0\0\0"), Comm([0; 16]));
        assert_eq!(of(b"sixteen-letters!"), Comm(*b"sixteen-letters!"));
    }
}
