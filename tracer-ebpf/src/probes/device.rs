//! `net:net_dev_queue` and `net:netif_receive_skb`: where on its path a packet was seen, whose
//! it is, and its conntrack tuples.
//!
//! Each comes twice: as a BTF tracepoint, which reads the kernel's structs by plain loads and can
//! have the kernel copy payload out of page fragments, and as a raw tracepoint, which exists
//! everywhere. The loader attaches one.

use aya_ebpf::{
    EbpfContext,
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use aya_log_ebpf::debug;

use crate::{
    config::program,
    output,
    probes::packet::{self, Seen},
    record::place,
    skb::{self, Bounds, Skb, Skip},
};

/// A packet handed to a device. `TP_PROTO(struct sk_buff *skb)`, include/trace/events/net.h.
#[btf_tracepoint(function = "net_dev_queue")]
#[inline(always)]
pub fn net_dev_queue_btf(ctx: BtfTracePointContext) -> i32 {
    queued(&ctx, Skb::<true>(ctx.arg(0)))
}

/// The same without BTF.
#[raw_tracepoint(tracepoint = "net_dev_queue")]
#[inline(always)]
pub fn net_dev_queue(ctx: RawTracePointContext) -> i32 {
    queued(&ctx, Skb::<false>(ctx.arg(0)))
}

/// A packet taken from a device. `TP_PROTO(struct sk_buff *skb)`, include/trace/events/net.h.
#[btf_tracepoint(function = "netif_receive_skb")]
#[inline(always)]
pub fn netif_receive_skb_btf(ctx: BtfTracePointContext) -> i32 {
    received(&ctx, Skb::<true>(ctx.arg(0)))
}

/// The same without BTF.
#[raw_tracepoint(tracepoint = "netif_receive_skb")]
#[inline(always)]
pub fn netif_receive_skb(ctx: RawTracePointContext) -> i32 {
    received(&ctx, Skb::<false>(ctx.arg(0)))
}

#[inline(always)]
fn queued<const DIRECT: bool>(ctx: &impl EbpfContext, skb: Skb<DIRECT>) -> i32 {
    let seen = seen(program::NET_DEV_QUEUE, place::QUEUED);
    if !packet::lane::goes_on(&seen, skb) {
        device(ctx, &seen, skb, |bounds| {
            bounds.head + u64::from(skb.network_offset())
        });
    }
    0
}

/// On reception the network header is set only after this tracepoint; data points to it.
#[inline(always)]
fn received<const DIRECT: bool>(ctx: &impl EbpfContext, skb: Skb<DIRECT>) -> i32 {
    let seen = seen(program::NETIF_RECEIVE_SKB, place::RECEIVED);
    if !packet::lane::goes_on(&seen, skb) {
        device(ctx, &seen, skb, |bounds| bounds.data);
    }
    0
}

#[inline(always)]
fn seen(program: u32, place: u8) -> Seen {
    Seen {
        program,
        place,
        reason: 0,
        location: 0,
    }
}

/// Emits what is wanted of the packet, whose link layer's payload begins where `start` says.
#[inline(always)]
fn device<const DIRECT: bool>(
    ctx: &impl EbpfContext,
    seen: &Seen,
    skb: Skb<DIRECT>,
    start: impl FnOnce(&Bounds) -> u64,
) {
    let protocol = skb.protocol();
    if !skb::may_carry_ip(protocol) {
        return;
    }
    let bounds = skb.bounds();
    let ip = skb::past_vlan(protocol, start(&bounds));
    if let Err(Skip::Unreadable) = packet::observe(seen, skb, ip, bounds) {
        debug!(
            ctx,
            "headers at {:x} cannot be read, program {}", ip, seen.program
        );
        output::unreadable(seen.program);
    }
}
