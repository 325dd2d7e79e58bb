//! `net:net_dev_queue` and `net:netif_receive_skb`: where on its path a packet was seen, whose
//! it is, and its conntrack tuples.
//!
//! Each comes twice: as a BTF tracepoint, which can have the kernel copy payload out of page
//! fragments, and as a raw tracepoint, which exists everywhere. The loader attaches one.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};

use crate::{
    config::program,
    output,
    probes::packet::{self, Seen},
    record::place,
    skb::{self, Skb, Skip},
};

/// A packet handed to a device. `TP_PROTO(struct sk_buff *skb)`, include/trace/events/net.h.
#[btf_tracepoint(function = "net_dev_queue")]
pub fn net_dev_queue_btf(ctx: BtfTracePointContext) -> i32 {
    queued(ctx.arg(0), ctx.arg(0))
}

/// The same without BTF.
#[raw_tracepoint(tracepoint = "net_dev_queue")]
pub fn net_dev_queue(ctx: RawTracePointContext) -> i32 {
    queued(ctx.arg(0), ptr::null_mut())
}

/// A packet taken from a device. `TP_PROTO(struct sk_buff *skb)`, include/trace/events/net.h.
#[btf_tracepoint(function = "netif_receive_skb")]
pub fn netif_receive_skb_btf(ctx: BtfTracePointContext) -> i32 {
    received(ctx.arg(0), ctx.arg(0))
}

/// The same without BTF.
#[raw_tracepoint(tracepoint = "netif_receive_skb")]
pub fn netif_receive_skb(ctx: RawTracePointContext) -> i32 {
    received(ctx.arg(0), ptr::null_mut())
}

#[inline(always)]
fn queued(address: u64, argument: *mut c_void) -> i32 {
    device(address, program::NET_DEV_QUEUE, place::QUEUED, argument);
    0
}

#[inline(always)]
fn received(address: u64, argument: *mut c_void) -> i32 {
    device(
        address,
        program::NETIF_RECEIVE_SKB,
        place::RECEIVED,
        argument,
    );
    0
}

#[inline(always)]
fn device(address: u64, program: u32, place: u8, argument: *mut c_void) {
    let Some(skb) = Skb::read(address) else {
        output::unreadable(program);
        return;
    };
    if !skb::may_carry_ip(skb.protocol()) {
        return;
    }
    // On reception the network header is set only after this tracepoint; data points to it.
    let start = if place == place::RECEIVED {
        skb.data()
    } else {
        skb.network_header()
    };
    let ip = skb::past_vlan(skb.protocol(), start);
    let len = skb.len().wrapping_sub(ip.wrapping_sub(skb.data()) as u32);
    match skb::headers(ip, len) {
        Ok(headers) => {
            let seen = Seen {
                program,
                place,
                reason: 0,
                location: 0,
            };
            packet::observe(&seen, &skb, headers, argument);
        }
        Err(Skip::NotOurs) => {}
        Err(Skip::Unreadable) => output::unreadable(program),
    }
}
