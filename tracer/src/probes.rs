//! The probes: what each attaches to, what goes unseen without it, and how its records become
//! facts. With `kernel` the only place that knows records.

pub mod device;
pub mod drop;
pub mod packet;
pub mod socket_io;
pub mod tcp;

use bytes::BytesMut;
use tracer_ebpf::record::kind;

use crate::model::Fact;

/// A kernel program and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Name of the raw tracepoint, and of the program in the object.
    pub name: &'static str,
    /// Name of the program for the same tracepoint by BTF, preferred where the kernel takes it.
    pub btf_program: Option<&'static str>,
    /// Its subsystem, as in /sys/kernel/tracing/events.
    pub subsystem: &'static str,
    /// Index in the loss counters.
    pub program: u32,
    /// What the tracer cannot see without it.
    pub unseen: &'static str,
    /// When it is attached.
    pub wanted: Wanted,
}

/// When a probe is worth what it costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// In every trace.
    Always,
    /// Where paths are asked for.
    ForPaths,
}

/// All probes, in the order in which a packet meets them.
pub const ALL: &[Probe] = &[
    tcp::STATE,
    device::QUEUE,
    device::RECEIVE,
    drop::PROBE,
    drop::REFUSE,
    tcp::RETRANSMIT,
    socket_io::DELIVER,
    socket_io::READ,
    socket_io::SEND,
    socket_io::FULL,
    socket_io::FAIL,
];

/// Makes facts of records.
#[derive(Debug)]
pub struct Decoder {
    tuples: packet::TupleLayout,
    /// Payload is copied here and handed out in slices, one allocation for many packets.
    arena: BytesMut,
}

impl Decoder {
    /// A decoder for records of programs loaded with `offsets`.
    pub fn new(offsets: &tracer_ebpf::config::Offsets) -> Self {
        Self {
            tuples: packet::TupleLayout::new(offsets),
            arena: BytesMut::new(),
        }
    }

    /// The fact that one record tells; `None` when it is no record that this binary knows.
    pub fn decode(&mut self, record: &[u8]) -> Option<Fact> {
        match tracer_ebpf::read::<u32>(record)? {
            kind::PACKET => packet::decode(record, self.tuples, &mut self.arena).map(Fact::Packet),
            kind::SOCKET => tcp::decode(record).map(Fact::Socket),
            kind::SOCKET_IO => socket_io::decode(record).map(Fact::SocketIo),
            _ => None,
        }
    }
}
