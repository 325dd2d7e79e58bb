//! `skb:kfree_skb` and `icmp:icmp_send`: packets freed before delivery, with the kernel's reason and
//! place, recorded one by one or counted by `drops`; and packets answered with an ICMP error. Twice,
//! as in `device`.

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::{
    config::program,
    output::config,
    probes::{
        drops,
        packet::{self, Seen},
    },
    record::place,
    skb::{self, Skb},
};

/// A packet freed. `TP_PROTO(struct sk_buff *skb, void *location, enum skb_drop_reason reason)`,
/// include/trace/events/skb.h; the reason since Linux 5.17.
#[btf_tracepoint(function = "kfree_skb")]
pub fn kfree_skb_btf(ctx: BtfTracePointContext) -> i32 {
    let reason = if config!(drop_reason) == 0 {
        0
    } else {
        ctx.arg::<u64>(2) as u32
    };
    freed(Skb::<true>(ctx.arg(0)), ctx.arg(1), reason);
    0
}

/// The same without BTF.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn kfree_skb(ctx: RawTracePointContext) -> i32 {
    let reason = if config!(drop_reason) == 0 {
        0
    } else {
        ctx.arg::<u64>(2) as u32
    };
    freed(Skb::<false>(ctx.arg(0)), ctx.arg(1), reason);
    0
}

/// An ICMP error is sent about a packet, which is dropped next. IPv4 only.
/// `TP_PROTO(const struct sk_buff *skb, int type, int code)`, include/trace/events/icmp.h.
#[btf_tracepoint(function = "icmp_send")]
pub fn icmp_send_btf(ctx: BtfTracePointContext) -> i32 {
    refused(Skb::<true>(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    0
}

/// The same without BTF.
#[raw_tracepoint(tracepoint = "icmp_send")]
pub fn icmp_send(ctx: RawTracePointContext) -> i32 {
    refused(Skb::<false>(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    0
}

#[inline(always)]
fn freed<const DIRECT: bool>(skb: Skb<DIRECT>, location: u64, reason: u32) {
    if config!(drops) != 0 {
        drops::count(skb, location, reason);
        return;
    }
    let seen = Seen {
        program: program::KFREE_SKB,
        place: place::DROPPED,
        reason,
        location,
    };
    ended(skb, &seen);
}

#[inline(always)]
fn refused<const DIRECT: bool>(skb: Skb<DIRECT>, kind: u64, code: u64) {
    let seen = Seen {
        program: program::ICMP_SEND,
        place: place::REFUSED,
        reason: (kind as u32 & 0xff) << 8 | code as u32 & 0xff,
        location: 0,
    };
    ended(skb, &seen);
}

/// What cannot be read here is no loss: many freed buffers never held an IP packet.
#[inline(always)]
fn ended<const DIRECT: bool>(skb: Skb<DIRECT>, seen: &Seen) {
    // Locally made packets have no protocol before they reach their device.
    let protocol = skb.protocol();
    if skb.network_offset() == 0 || (protocol != 0 && !skb::may_carry_ip(protocol)) {
        return;
    }
    let bounds = skb.bounds();
    let ip = bounds.head + u64::from(skb.network_offset());
    let _ = packet::observe(seen, skb, ip, bounds);
}
