//! The probes: what each attaches to, what goes unseen without it, and how its records become
//! facts. With `kernel` the only place that knows records.

/// The ways to attach to a tracepoint: by BTF the program whose name ends so, as a raw tracepoint
/// the one of the tracepoint's own name. Further ways come after, for kernels without it.
macro_rules! tracepoint {
    ($name:literal $(, $way:expr)*) => {
        &[
            &[$crate::probes::Attach::new(
                $crate::probes::AttachKind::BtfTracepoint,
                $name,
                concat!($name, "_btf"),
            )],
            &[$crate::probes::Attach::new(
                $crate::probes::AttachKind::RawTracepoint,
                $name,
                $name,
            )],
            $($way,)*
        ]
    };
}

pub mod conntrack;
pub mod device;
pub mod drop;
pub mod packet;
pub mod socket_io;
pub mod tcp;

use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;
use tracer_ebpf::record::{KTIME_AT, PASSES, kind};

use crate::model::{Fact, KtimeNs};

/// Something to be seen in the kernel, and the ways to see it.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Name of the tracepoint that shows it; of the function, where there is none.
    pub name: &'static str,
    /// The ways to attach, the best first: the first that the kernel takes is used.
    pub ways: &'static [Way],
    /// Index in the loss counters.
    pub program: u32,
    /// What the tracer cannot see without it.
    pub unseen: &'static str,
    /// When it is attached.
    pub wanted: Wanted,
}

/// Programs that show a thing together: all of them attach, or the next way is tried.
pub type Way = &'static [Attach];

/// One program and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Attach {
    /// How it attaches.
    pub kind: AttachKind,
    /// Name of the tracepoint or kernel function.
    pub target: &'static str,
    /// Name of the program in the object.
    pub program: &'static str,
}

impl Attach {
    const fn new(kind: AttachKind, target: &'static str, program: &'static str) -> Self {
        Self {
            kind,
            target,
            program,
        }
    }
}

/// How a program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachKind {
    /// To a tracepoint whose arguments the verifier knows.
    BtfTracepoint,
    /// To a tracepoint, its arguments being mere numbers.
    RawTracepoint,
    /// To the beginning of a function of the kernel itself, not of a module.
    Fentry,
    /// To its end, with its arguments.
    Fexit,
    /// To the beginning of any function.
    Kprobe,
    /// To its end, without its arguments.
    Kretprobe,
}

impl AttachKind {
    /// The word for it, in text and JSON alike.
    pub fn name(self) -> &'static str {
        match self {
            Self::BtfTracepoint => "btf_tracepoint",
            Self::RawTracepoint => "raw_tracepoint",
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
            Self::Kprobe => "kprobe",
            Self::Kretprobe => "kretprobe",
        }
    }

    /// Whether it attaches to a tracepoint, not to a function.
    pub fn is_tracepoint(self) -> bool {
        matches!(self, Self::BtfTracepoint | Self::RawTracepoint)
    }
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
    conntrack::CLASH,
    conntrack::FULL,
];

/// When the facts that a record tells were seen, in turn.
pub type Times = SmallVec<[KtimeNs; 1 + PASSES as usize]>;

/// Makes facts of records.
#[derive(Debug)]
pub struct Decoder {
    tuples: packet::TupleLayout,
}

impl Decoder {
    /// A decoder for records of programs loaded with `offsets`.
    pub fn new(offsets: &tracer_ebpf::config::Offsets) -> Self {
        Self {
            tuples: packet::TupleLayout::new(offsets),
        }
    }

    /// When a record's first fact was seen; `None` when the record is cut short.
    fn ktime(record: &[u8]) -> Option<KtimeNs> {
        tracer_ebpf::read(record.get(KTIME_AT..)?).map(KtimeNs)
    }

    /// When each of a record's facts was seen: a packet's at each place that it passed. Empty when the record is
    /// cut short.
    pub fn times(record: &[u8]) -> Times {
        let mut times = Times::new();
        times.extend(Self::ktime(record));
        let is_packet = tracer_ebpf::read::<u32>(record) == Some(kind::PACKET);
        if is_packet && packet::times(record, &mut times).is_none() {
            times.clear();
        }
        times
    }

    /// Hands `take` those `sights` of the facts that a record tells; `None` when it is no record that this binary knows.
    /// It lies within `batch`, which holds many: payload is not copied but shared with it.
    ///
    /// # Panics
    /// When it does not.
    pub fn decode(
        &self,
        record: &[u8],
        sights: Range<usize>,
        batch: &Bytes,
        take: &mut impl FnMut(&Fact),
    ) -> Option<()> {
        let fact = match tracer_ebpf::read::<u32>(record)? {
            kind::PACKET => return packet::decode(record, sights, batch, self.tuples, take),
            kind::SOCKET => tcp::decode(record).map(Fact::Socket),
            kind::SOCKET_IO => socket_io::decode(record).map(Fact::SocketIo),
            kind::CONNTRACK => conntrack::decode(record, self.tuples).map(Fact::Insert),
            _ => None,
        };
        fact.as_ref().map(take)
    }
}
