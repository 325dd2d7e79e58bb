//! Conntrack's rare moments: clashes at confirm, and a full table.

use tracer_ebpf::{
    config::program,
    record::{self, entry},
};

use super::{
    Attach,
    AttachKind::{Kprobe, Kretprobe},
    Probe, Wanted,
    packet::TupleLayout,
};
use crate::model::{
    KtimeNs, NetnsInode, SkbId,
    insert::{Clash, Insert, InsertEvent},
};

/// Packets whose entry another packet's is in the way of. Conntrack is a module mostly, where no
/// fentry reaches (aya 0.14 knows the kernel's own functions alone).
pub const CLASH: Probe = Probe {
    name: "nf_ct_resolve_clash",
    ways: &[&[
        Attach::new(Kprobe, "nf_ct_resolve_clash", "nf_ct_resolve_clash"),
        Attach::new(Kretprobe, "nf_ct_resolve_clash", "nf_ct_resolve_clash_ends"),
    ]],
    program: program::CONNTRACK_CLASH,
    unseen: "which packets race for one conntrack entry",
    wanted: Wanted::Always,
};

/// Packets for which the table had no room.
pub const FULL: Probe = Probe {
    name: "early_drop",
    ways: &[&[
        Attach::new(Kprobe, "early_drop", "early_drop"),
        Attach::new(Kretprobe, "early_drop", "early_drop_ends"),
    ]],
    program: program::CONNTRACK_FULL,
    unseen: "which packets find conntrack's table full",
    wanted: Wanted::Always,
};

/// What such a record tells; `None` when it is cut short or unknown.
pub fn decode(bytes: &[u8], tuples: TupleLayout) -> Option<Insert> {
    let record: record::Conntrack = tracer_ebpf::read(bytes)?;
    let clash = |resolved| {
        Some(InsertEvent::Clash(Box::new(Clash {
            skb: SkbId(record.skb),
            own: tuples.conntrack(&record.own)?,
            other: tuples.conntrack(&record.other)?,
            resolved,
        })))
    };
    Some(Insert {
        ktime: KtimeNs(record.ktime_ns),
        netns: NetnsInode(record.netns),
        event: match record.event {
            entry::CLASH_RESOLVED => clash(true)?,
            entry::CLASH_LOST => clash(false)?,
            entry::TABLE_FULL => InsertEvent::Full,
            _ => return None,
        },
    })
}
