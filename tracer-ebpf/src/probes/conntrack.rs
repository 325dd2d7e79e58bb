//! Conntrack's rare moments: the entry of a packet that another packet's is in the way of, and a full
//! table. By kprobe, for conntrack is a module mostly; only functions that are not on the way of
//! packets all is well with, so that they cost nothing otherwise.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::{kprobe, kretprobe, map},
    maps::{LruHashMap, PerCpuArray},
    programs::{ProbeContext, RetProbeContext},
};

use crate::{
    config::{ABSENT, program},
    output::{self, offset},
    record::{BEFORE_TUPLES, CONNTRACK_BYTES, Conntrack, TUPLE_HASH, entry, kind},
    skb::{self, Skb},
};

/// What is known at the beginning of `nf_ct_resolve_clash`, until its end. Its caller keeps
/// softirqs away (`__nf_conntrack_confirm`), so no other comes between on one processor.
#[map]
static CLASH: PerCpuArray<Conntrack> = PerCpuArray::with_max_entries(1, 0);

/// Namespaces whose table is full, by the thread that found it so, until `early_drop` ends.
#[map]
static CROWDED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(1024, 0);

/// `int nf_ct_resolve_clash(struct sk_buff *skb, struct nf_conntrack_tuple_hash *h, u32
/// reply_hash)`, net/netfilter/nf_conntrack_core.c, since Linux 5.7. `h` is one half of the entry
/// in the way. The packet's own entry is copied now: a clash that is resolved ends it.
#[kprobe]
pub fn nf_ct_resolve_clash(ctx: ProbeContext) -> u32 {
    if offset!(ct_tuplehash) == ABSENT || offset!(tuple_dir) == ABSENT {
        return 0;
    }
    let (Some(skb), Some(hash)) = (ctx.arg::<*const u8>(0), ctx.arg::<u64>(1)) else {
        return 0;
    };
    let Some(clash) = CLASH.get_ptr_mut(0) else {
        return 0;
    };
    let skb = Skb::<false>(skb);
    let own = skb.conntrack() + u64::from(offset!(ct_tuplehash));
    // Of the two halves, which lie side by side, the reply's says that it is the second.
    let direction = hash + u64::from(offset!(hash_tuple)) + u64::from(offset!(tuple_dir));
    let second = skb::read::<u8>(direction) == Some(1);
    let other = hash - if second { TUPLE_HASH as u64 } else { 0 };
    let dev = skb.dev();
    let netns = if dev.is_null() {
        0
    } else {
        skb::netns::<false>(dev, offset!(dev_net)).1
    };
    // SAFETY: the map hands out this processor's own element.
    unsafe {
        (*clash).kind = kind::CONNTRACK;
        (*clash).skb = skb.0 as u64;
        (*clash).netns = netns;
        let (to, len) = ((&raw mut (*clash).own).cast(), CONNTRACK_BYTES as u32);
        skb::copy(to, len, own - BEFORE_TUPLES as u64);
        let to = (&raw mut (*clash).other).cast();
        skb::copy(to, len, other - BEFORE_TUPLES as u64);
    }
    0
}

/// And its end: the packet's verdict.
#[kretprobe]
pub fn nf_ct_resolve_clash_ends(ctx: RetProbeContext) -> u32 {
    /// include/uapi/linux/netfilter.h
    const NF_DROP: u32 = 0;
    let Some(clash) = CLASH.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: as above.
    unsafe {
        if (*clash).skb == 0 {
            return 0;
        }
        (*clash).event = if ctx.ret::<u64>() as u32 == NF_DROP {
            entry::CLASH_LOST
        } else {
            entry::CLASH_RESOLVED
        };
        (*clash).ktime_ns = bpf_ktime_get_ns();
        let len = size_of::<Conntrack>() as u64;
        output::output(clash.cast(), len, program::CONNTRACK_CLASH, false);
        (*clash).skb = 0;
    }
    0
}

/// `bool early_drop(struct net *net, unsigned int hash)`, same file: called when there are more
/// entries than there may be.
#[kprobe]
pub fn early_drop(ctx: ProbeContext) -> u32 {
    let net = ctx.arg::<u64>(0).unwrap_or(0);
    if let Some(netns) = skb::read::<u32>(net + u64::from(offset!(net_inum))) {
        let _ = CROWDED.insert(bpf_get_current_pid_tgid(), netns, 0);
    }
    0
}

/// And its end: whether an entry could go. If none could, the packet is dropped next.
#[kretprobe]
pub fn early_drop_ends(ctx: RetProbeContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: no other thread writes this one's element.
    let Some(netns) = unsafe { CROWDED.get(thread) }.copied() else {
        return 0;
    };
    let _ = CROWDED.remove(thread);
    if ctx.ret::<u64>() as u8 != 0 {
        return 0;
    }
    if let Some(mut record) = output::reserve::<Conntrack>(program::CONNTRACK_FULL) {
        record.write(Conntrack {
            kind: kind::CONNTRACK,
            netns,
            // SAFETY: the helper has no preconditions.
            ktime_ns: unsafe { bpf_ktime_get_ns() },
            skb: 0,
            own: [0; CONNTRACK_BYTES],
            other: [0; CONNTRACK_BYTES],
            event: entry::TABLE_FULL,
            pad: [0; 7],
        });
        output::submit(record);
    }
    0
}
