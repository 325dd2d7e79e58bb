//! The records that the kernel programs emit. Every record begins with its [`kind`], and has its time
//! at [`KTIME_AT`].
//!
//! Addresses and ports are in network byte order as they stood on the wire; IPv4 addresses are
//! v4-mapped (RFC 4291, section 2.5.5.2). Integers otherwise are in the machine's order.

/// What a record is: its first four bytes.
pub mod kind {
    /// A [`Packet`](super::Packet), followed by the parts it names.
    pub const PACKET: u32 = 1;
    /// A [`Socket`](super::Socket).
    pub const SOCKET: u32 = 2;
    /// A [`SocketIo`](super::SocketIo).
    pub const SOCKET_IO: u32 = 3;
    /// A [`Conntrack`](super::Conntrack).
    pub const CONNTRACK: u32 = 4;
}

/// Where a packet was seen: [`Packet::place`].
pub mod place {
    /// Handed to a device for transmission (`net:net_dev_queue`).
    pub const QUEUED: u8 = 1;
    /// Taken from a device (`net:netif_receive_skb`).
    pub const RECEIVED: u8 = 2;
    /// Freed before delivery (`skb:kfree_skb`).
    pub const DROPPED: u8 = 3;
    /// Answered by this namespace with an ICMP error (`icmp:icmp_send`).
    pub const REFUSED: u8 = 4;
}

/// What happened to a socket: [`Socket::event`].
pub mod event {
    /// `connect` was called: the socket entered `TCP_SYN_SENT`.
    pub const CONNECTING: u8 = 1;
    /// The handshake of a connecting socket ended; `state` tells how.
    pub const CONNECTED: u8 = 2;
    /// A segment was sent again (`tcp:tcp_retransmit_skb`).
    pub const RETRANSMITTED: u8 = 3;
}

/// What a UDP socket gave or took: [`SocketIo::event`].
pub mod io {
    /// A datagram was put into its queue (`sock:sk_data_ready`).
    pub const DELIVERED: u8 = 1;
    /// The application took one out (`sock:sock_recv_length`).
    pub const READ: u8 = 2;
    /// The application's call to send one returned (`sock:sock_send_length`).
    pub const SENT: u8 = 3;
    /// The kernel found no room for a datagram and drops it (`udp:udp_fail_queue_rcv_skb`).
    pub const FULL: u8 = 4;
    /// The application is told of an error (`sock:inet_sk_error_report`).
    pub const FAILED: u8 = 5;
}

/// What conntrack did to a packet: [`Conntrack::event`].
pub mod entry {
    /// Another packet's entry was in the way of its own when that was to be inserted; the kernel
    /// found a way for both.
    pub const CLASH_RESOLVED: u8 = 1;
    /// The same, and the kernel found none: it drops the packet.
    pub const CLASH_LOST: u8 = 2;
    /// The table was full and nothing in it could go: it drops the packet.
    pub const TABLE_FULL: u8 = 3;
}

/// Where on IP's path through the kernel a packet was freed, by netfilter's hook there
/// (`enum nf_inet_hooks`): [`Origin::hook`], [`DropGroup::hook`].
pub mod hook {
    /// Not known.
    pub const UNKNOWN: u8 = 0;
    /// Before it was routed.
    pub const PREROUTING: u8 = 1;
    /// On its way to a socket of this namespace.
    pub const INPUT: u8 = 2;
    /// Routed from one device to another.
    pub const FORWARD: u8 = 3;
    /// Sent by this namespace, before it has a device.
    pub const OUTPUT: u8 = 4;
    /// At the device it leaves by.
    pub const POSTROUTING: u8 = 5;
    /// Either, of a packet that leaves by the device it came by.
    pub const FORWARD_OR_POSTROUTING: u8 = 6;
}

/// Bits of [`Packet::marks`].
pub mod mark {
    /// A fragment that is not the first: it has no ports.
    pub const LATER_FRAGMENT: u8 = 1;
    /// The first of several fragments: its payload goes on elsewhere.
    pub const FIRST_FRAGMENT: u8 = 2;
    /// Part of the payload lay where the kernel program could not read it.
    pub const UNREADABLE: u8 = 4;
    /// The UDP header, too, lay where the program could not read it: ports are zero, and what
    /// follows `skip` begins with that header.
    pub const PORTS_BEHIND: u8 = 8;
    /// It was within another packet: an [`Outer`](super::Outer) follows. The conntrack entry that
    /// the kernel keeps with it, and the sender, are the other's and left out.
    pub const TUNNELED: u8 = 16;
}

/// What carries a packet in another: [`Outer::kind`].
pub mod tunnel {
    /// RFC 7348, also Weave Net's fast datapath.
    pub const VXLAN: u8 = 1;
    /// RFC 8926.
    pub const GENEVE: u8 = 2;
    /// RFC 2784, RFC 2890.
    pub const GRE: u8 = 3;
    /// RFC 2003, RFC 4213, RFC 2473: either IP in either.
    pub const IPIP: u8 = 4;
    /// Weave Net's router, by itself over UDP; the first frame of each datagram.
    pub const SLEEVE: u8 = 5;
}

/// What follows a [`Packet`], in this order; after it come `captured` bytes.
pub mod part {
    /// [`CONNTRACK_BYTES`](super::CONNTRACK_BYTES) of the `struct nf_conn`: the tuples, and what
    /// lies before them.
    pub const CONNTRACK: u8 = 1;
    /// An [`Origin`](super::Origin).
    pub const ORIGIN: u8 = 2;
    /// An [`Outer`](super::Outer).
    pub const OUTER: u8 = 4;
}

/// Bytes of the kernel's two `struct nf_conntrack_tuple_hash` of a connection, original first
/// (`include/net/netfilter/nf_conntrack_tuple.h`).
pub const TUPLE_HASHES: usize = 2 * TUPLE_HASH;
/// Bytes copied from before the tuples: the conntrack zone lies there.
pub const BEFORE_TUPLES: usize = 8;
/// Bytes of a `struct nf_conn` that are copied.
pub const CONNTRACK_BYTES: usize = BEFORE_TUPLES + TUPLE_HASHES;
/// Bytes of one `struct nf_conntrack_tuple_hash`.
pub const TUPLE_HASH: usize = 56;

/// Most bytes that follow one packet record and its parts; one less than a power of two, for
/// the verifier.
pub const CAPTURE_LIMIT: usize = 4095;

abi! {
    /// One packet seen at one place. Kept small: writing records to memory that another
    /// processor has just read is most of what they cost.
    pub struct Packet {
        /// [`kind::PACKET`].
        pub kind: u32,
        /// Bytes that follow this record and its parts, at most [`CAPTURE_LIMIT`].
        pub captured: u16,
        /// How many of them come before the transport's payload: 0 where the payload alone was
        /// copied, the headers' length where the whole packet was, or headers are wanted; less
        /// UDP's with [`mark::PORTS_BEHIND`].
        pub skip: u16,
        /// Nanoseconds since boot, suspend excluded (`bpf_ktime_get_ns`).
        pub ktime_ns: u64,
        /// Address of the `struct sk_buff`, an identity only.
        pub skb: u64,
        /// Source and destination address, each in words as they stand in memory.
        pub addresses: [[u32; 4]; 2],
        /// Inode of the device's network namespace; 0 when not known.
        pub netns: u32,
        /// Index of the device within that namespace; 0 when not known.
        pub ifindex: u32,
        /// TCP sequence number, host order.
        pub seq: u32,
        /// TCP acknowledgement number, host order.
        pub ack: u32,
        /// Bytes of transport payload in the packet, captured or not.
        pub payload_len: u32,
        /// `enum skb_drop_reason` for [`place::DROPPED`], 0 before Linux 5.17; type and code of
        /// the ICMP error, in the lower two bytes, for [`place::REFUSED`]; 0 elsewhere.
        pub reason: u32,
        /// Source port, network order; for ICMP, type and code.
        pub sport: [u8; 2],
        /// Destination port, network order.
        pub dport: [u8; 2],
        /// IP protocol number of the transport (IANA).
        pub protocol: u8,
        /// TCP flags (RFC 9293, section 3.1).
        pub tcp_flags: u8,
        /// One of [`place`].
        pub place: u8,
        /// Bits of [`mark`].
        pub marks: u8,
        /// Bits of [`part`]: what follows.
        pub parts: u8,
        /// Zero.
        pub pad: [u8; 5],
        /// Where among them the IP header begins; at `skip` where it was not copied.
        pub network: u16,
    }
}

abi! {
    /// A further place that a packet passed. The parts that it names follow.
    pub struct Pass {
        /// Nanoseconds since boot (`bpf_ktime_get_ns`).
        pub ktime_ns: u64,
        /// As [`Packet::netns`].
        pub netns: u32,
        /// As [`Packet::ifindex`].
        pub ifindex: u32,
        /// [`place::QUEUED`] or [`place::RECEIVED`].
        pub place: u8,
        /// Bits of [`pass`].
        pub parts: u8,
        /// Zero.
        pub pad: [u8; 6],
    }
}

/// Bits of [`Pass::parts`], in the order in which what they name follows.
pub mod pass {
    /// [`CONNTRACK_BYTES`](super::CONNTRACK_BYTES) of its conntrack entry, first seen here.
    pub const CONNTRACK: u8 = 1;
    /// [`BEGINNING`](super::BEGINNING) bytes that it begins with, from its IP header on: it was translated.
    pub const TURNED: u8 = 2;
    /// Nothing follows: it has the conntrack entry that was seen last.
    pub const SAME_CONNTRACK: u8 = 4;
}

/// Most bytes of payload of a packet whose record is laid in a [`Lane`]; one less than a power of two, for the verifier.
pub const LANE_LIMIT: usize = 511;
/// Most [`Pass`] of one record.
pub const PASSES: u32 = 8;
/// Bytes by which a packet is known again: the IP header, and UDP's and DNS's as far as they follow.
pub const BEGINNING: usize = 56;
/// Most bytes from where parts begin to where a pass does; all bits but the lowest three, for the verifier.
pub const PASS_AT: usize = 0x7f8;
/// Most bytes of a pass.
const PASS: usize = size_of::<Pass>() + CONNTRACK_BYTES + BEGINNING;

abi! {
    /// A processor's own buffer of records, which it writes and user space reads without either waiting for the other:
    /// an element of the map `LANES`. Its memory is [`Chunk`]s, used in turn; a place in it is told in bytes since the
    /// beginning, `at`, from [`CHUNK`] on.
    ///
    /// Records follow each other as [`Laid`], each from a multiple of eight on. One whose predecessor reaches beyond
    /// its chunk begins the next.
    pub struct Lane {
        /// 1 while a program has it: another that interrupts that one is to leave it.
        pub busy: u64,
        /// Where the record that was laid last begins; 0 before the first.
        pub newest: u64,
        /// Where it ends so far.
        pub end: u64,
        /// Address of its packet's `struct sk_buff`; 0 when that will pass no further place.
        pub open: u64,
        /// Address of its buffer (`sk_buff.head`).
        pub head: u64,
        /// Address of its IP header.
        pub ip: u64,
        /// Address of the packet's device (`struct net_device`) at its first place.
        pub dev: u64,
        /// Address of the network namespace (`struct net`) where it was received last; 0 where it has left since.
        pub within: u64,
        /// Address of the conntrack entry that was seen last; 0 when there was none.
        pub conntrack: u64,
        /// Further places that it passed so far.
        pub passes: u32,
        /// Zero.
        pub pad: u32,
        /// What it begins with, from the IP header on.
        pub first: [u64; BEGINNING / 8],
        /// The same of the packet that was looked at last.
        pub next: [u64; BEGINNING / 8],
        /// All before is read, and its room free: written by user space.
        pub read: u64,
    }
}

abi! {
    /// A record in a [`Lane`]: the packet, its parts and captured bytes; then, from a multiple of eight on, each
    /// [`Pass`] with its parts. It only grows.
    pub struct Laid {
        /// Bytes of it so far, from the packet on.
        pub len: u64,
        /// The packet.
        pub packet: Packet,
        /// What follows it.
        pub rest: [u8; PASS_AT + PASS],
    }
}

/// Where in a [`Laid`] the record begins.
pub const LAID_RECORD: usize = core::mem::offset_of!(Laid, packet);

/// Bytes of a [`Chunk`] where records begin; a power of two.
pub const CHUNK: u64 = CHUNK_BYTES as u64;
const CHUNK_BYTES: usize = 16_384;

abi! {
    /// A piece of a [`Lane`]'s memory, with room for a record that begins at its end: an element of the map `CHUNKS`.
    pub struct Chunk {
        /// Words, for records are aligned so.
        pub words: [u64; (CHUNK_BYTES + size_of::<Laid>()) / 8],
    }
}

/// Where the record after one begins, which begins at `at` and ends at `end`.
pub const fn next_at(at: u64, end: u64) -> u64 {
    if at / CHUNK == end / CHUNK {
        end
    } else {
        end & !(CHUNK - 1)
    }
}

abi! {
    /// Where a packet comes from, or where it ended.
    pub struct Origin {
        /// Address of the sending `struct sock`; 0 where no local socket owns the packet here.
        pub sock: u64,
        /// Cgroup v2 id of that process; 0 when not known.
        pub cgroup: u64,
        /// Address of the code that freed the packet; 0 elsewhere than [`place::DROPPED`].
        pub location: u64,
        /// Name of the sending thread; void when `pid` is 0.
        pub comm: [u8; 16],
        /// Process that is sending the packet (tgid); 0 where the current task is not the sender.
        pub pid: u32,
        /// One of [`hook`]; [`hook::UNKNOWN`] elsewhere than [`place::DROPPED`].
        pub hook: u8,
        /// Zero.
        pub pad: [u8; 3],
    }
}

abi! {
    /// The packet that carries another.
    pub struct Outer {
        /// Its source and destination address.
        pub addresses: [[u32; 4]; 2],
        /// VXLAN's or Geneve's network identifier, GRE's key; 0 where there is none.
        pub network: u32,
        /// One of [`tunnel`].
        pub kind: u8,
        /// Zero.
        pub pad: [u8; 3],
    }
}

abi! {
    /// Something that happened to a TCP socket.
    pub struct Socket {
        /// [`kind::SOCKET`].
        pub kind: u32,
        /// Inode of the socket's network namespace.
        pub netns: u32,
        /// Nanoseconds since boot (`bpf_ktime_get_ns`).
        pub ktime_ns: u64,
        /// Address of the `struct sock`, an identity only.
        pub sock: u64,
        /// Cgroup v2 id of the socket; 0 when not known.
        pub cgroup: u64,
        /// Name of the current thread; the connecting one for [`event::CONNECTING`] only.
        pub comm: [u8; 16],
        /// Local address.
        pub saddr: [u8; 16],
        /// Remote address.
        pub daddr: [u8; 16],
        /// Process (tgid) for [`event::CONNECTING`]; 0 otherwise.
        pub pid: u32,
        /// Local port, network order; 0 before it is chosen.
        pub sport: [u8; 2],
        /// Remote port, network order.
        pub dport: [u8; 2],
        /// One of [`event`].
        pub event: u8,
        /// `enum tcp_state` entered (include/net/tcp_states.h); 0 for [`event::RETRANSMITTED`].
        pub state: u8,
        /// Zero.
        pub pad: [u8; 6],
    }
}

abi! {
    /// What passed between a UDP socket and its application. One cache line, without addresses:
    /// packets tell those, and are tied to the socket by `skb`, or by [`Origin::sock`].
    pub struct SocketIo {
        /// [`kind::SOCKET_IO`].
        pub kind: u32,
        /// Inode of the socket's network namespace.
        pub netns: u32,
        /// Nanoseconds since boot (`bpf_ktime_get_ns`).
        pub ktime_ns: u64,
        /// Address of the `struct sock`, an identity only.
        pub sock: u64,
        /// Address of the last `struct sk_buff` in its queue for [`io::DELIVERED`], 0 when a
        /// reader has emptied it meanwhile; 0 otherwise.
        pub skb: u64,
        /// Name of the current thread, for [`io::READ`] and [`io::SENT`]; void otherwise.
        pub comm: [u8; 16],
        /// Its process (tgid), and the thread itself; 0 otherwise.
        pub pid: u32,
        /// See `pid`.
        pub tid: u32,
        /// Bytes read or sent; for [`io::FULL`] and [`io::FAILED`] the error
        /// (include/uapi/asm-generic/errno.h).
        pub amount: u32,
        /// Datagrams in its queue afterwards, at most 65,535; 0 for [`io::SENT`] and
        /// [`io::FAILED`].
        pub queued: u16,
        /// Local port, network order.
        pub sport: [u8; 2],
        /// Remote port, network order; 0 when the socket is not connected.
        pub dport: [u8; 2],
        /// One of [`io`].
        pub event: u8,
        /// Zero.
        pub pad: [u8; 5],
    }
}

abi! {
    /// What conntrack did to a packet that was to have an entry.
    pub struct Conntrack {
        /// [`kind::CONNTRACK`].
        pub kind: u32,
        /// Inode of the network namespace; 0 when not known.
        pub netns: u32,
        /// Nanoseconds since boot (`bpf_ktime_get_ns`).
        pub ktime_ns: u64,
        /// Address of the packet's `struct sk_buff`; 0 for [`entry::TABLE_FULL`].
        pub skb: u64,
        /// Of its own `struct nf_conn`, as [`part::CONNTRACK`]; zero for [`entry::TABLE_FULL`].
        pub own: [u8; CONNTRACK_BYTES],
        /// Of the one that was in the way.
        pub other: [u8; CONNTRACK_BYTES],
        /// One of [`entry`].
        pub event: u8,
        /// Zero.
        pub pad: [u8; 7],
    }
}

/// Where in a record its time lies, which decides in what order they are read.
pub const KTIME_AT: usize = 8;

const _: () = assert!(
    core::mem::offset_of!(Packet, ktime_ns) == KTIME_AT
        && core::mem::offset_of!(Socket, ktime_ns) == KTIME_AT
        && core::mem::offset_of!(SocketIo, ktime_ns) == KTIME_AT
        && core::mem::offset_of!(Conntrack, ktime_ns) == KTIME_AT
);

/// Most groups of drops that are told apart between two looks at them.
pub const DROP_GROUPS: u32 = 2048;

abi! {
    /// What counted drops are grouped by: the key of their tables.
    pub struct DropGroup {
        /// Address of the code that freed the packets.
        pub location: u64,
        /// `enum skb_drop_reason`; 0 before Linux 5.17.
        pub reason: u32,
        /// Inode of the network namespace; 0 when not known.
        pub netns: u32,
        /// Service address asked, in words as they stand in memory; zero when none is known.
        pub service: [u32; 4],
        /// Its port, network order.
        pub port: [u8; 2],
        /// Protocol of the link layer's payload, network order (`ETH_P_*`,
        /// include/uapi/linux/if_ether.h).
        pub ethertype: [u8; 2],
        /// IP protocol number (IANA); 255 where there is none or it cannot be read.
        pub protocol: u8,
        /// One of [`hook`].
        pub hook: u8,
        /// Zero.
        pub pad: [u8; 2],
    }
}

abi! {
    /// How many drops a group has, and the last of them.
    pub struct DropCount {
        /// Packets.
        pub packets: u64,
        /// Their bytes, from the network header where it is known.
        pub bytes: u64,
        /// When the last one was freed (`bpf_ktime_get_ns`).
        pub ktime_ns: u64,
        /// Its source and destination address, in words; zero where they cannot be read.
        pub addresses: [[u32; 4]; 2],
        /// Its source port, network order; 0 where it has none.
        pub sport: [u8; 2],
        /// Its destination port.
        pub dport: [u8; 2],
        /// Zero.
        pub pad: [u8; 4],
    }
}
