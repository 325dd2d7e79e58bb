//! `skb:kfree_skb`: packets freed before delivery, with the kernel's reason and place.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{
    config::program,
    output::config,
    probes::packet::{self, Seen},
    record::place,
    skb::{self, Skb},
};

/// A packet freed. `TP_PROTO(struct sk_buff *skb, void *location, enum skb_drop_reason reason)`,
/// include/trace/events/skb.h; the reason since Linux 5.17.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn kfree_skb(ctx: RawTracePointContext) -> i32 {
    let reason = if config!(drop_reason) == 0 {
        0
    } else {
        ctx.arg::<u64>(2) as u32
    };
    freed(ctx.arg(0), ctx.arg(1), reason);
    0
}

/// What cannot be read here is no loss: many freed buffers never held an IP packet.
#[inline(always)]
fn freed(address: u64, location: u64, reason: u32) {
    let Some(skb) = Skb::read(address) else {
        return;
    };
    // Locally made packets have no protocol before they reach their device.
    if skb.network_offset() == 0 || (skb.protocol() != 0 && !skb::may_carry_ip(skb.protocol())) {
        return;
    }
    let ip = skb.network_header();
    let len = skb.len().wrapping_add(skb.data().wrapping_sub(ip) as u32);
    if let Ok(headers) = skb::headers(ip, len) {
        let program = program::KFREE_SKB;
        let seen = Seen {
            program,
            place: place::DROPPED,
            reason,
            location,
        };
        packet::observe(&seen, &skb, headers, core::ptr::null_mut());
    }
}
