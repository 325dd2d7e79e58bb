//! Drops counted by group in the kernel, so that a node that drops much pays a look-up for each
//! and no record. Serves the programs in `drop`.
//!
//! There are two tables. While user space reads and clears one, the other fills, so that no drop
//! falls between reading and clearing.

use aya_ebpf::{
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{Array, PerCpuHashMap},
};

use crate::{
    config::program,
    output::{self, config, offset},
    probes::packet,
    record::{DROP_GROUPS, DropCount, DropGroup},
    skb::{self, Brief, Skb},
};

#[map]
static DROPS_EVEN: PerCpuHashMap<DropGroup, DropCount> =
    PerCpuHashMap::with_max_entries(DROP_GROUPS, 0);
#[map]
static DROPS_ODD: PerCpuHashMap<DropGroup, DropCount> =
    PerCpuHashMap::with_max_entries(DROP_GROUPS, 0);

/// Which of the two tables fills: the even one while this is even.
#[map]
static DROPS_TURN: Array<u32> = Array::with_max_entries(1, 0);

/// Counts one freed packet. A buffer that never was a packet, as sockets of netlink and of the
/// Unix domain have them, is passed over: it has no protocol and no network header.
#[inline(always)]
pub(super) fn count<const DIRECT: bool>(skb: Skb<DIRECT>, location: u64, reason: u32) {
    let network_offset = skb.network_offset();
    if skb.protocol() == 0 && network_offset == 0 {
        return;
    }
    let brief = if network_offset == 0 {
        Brief::NONE
    } else {
        skb.brief(network_offset)
    };
    let ethertype = match skb.protocol() {
        0 => brief.ethertype,
        protocol => protocol,
    };
    let (service, port) = service(skb, &brief);
    let group = DropGroup {
        location,
        reason,
        netns: netns(skb),
        service,
        port,
        ethertype: ethertype.to_ne_bytes(),
        protocol: brief.protocol,
        hook: skb.hook(),
        pad: [0; 2],
    };
    let one = DropCount {
        packets: 1,
        bytes: u64::from(brief.len),
        // SAFETY: the helper has no preconditions.
        ktime_ns: unsafe { bpf_ktime_get_ns() },
        addresses: brief.addresses,
        sport: brief.sport,
        dport: brief.dport,
        pad: [0; 4],
    };
    if DROPS_TURN.get(0).is_some_and(|turn| turn & 1 == 0) {
        add(&DROPS_EVEN, &group, &one);
    } else {
        add(&DROPS_ODD, &group, &one);
    }
}

/// Adds to what this processor has counted. Kernels keep a BTF tracepoint's program from meeting
/// itself on one processor; where a raw one's does, before Linux 6.1, one of the two may go
/// uncounted.
#[inline(always)]
fn add(table: &PerCpuHashMap<DropGroup, DropCount>, group: &DropGroup, one: &DropCount) {
    let Some(count) = table.get_ptr_mut(group) else {
        if table.insert(group, one, 0).is_err() {
            output::ring_full(program::KFREE_SKB);
        }
        return;
    };
    // SAFETY: the map hands out this processor's own element.
    unsafe {
        (*count).packets += one.packets;
        (*count).bytes += one.bytes;
        (*count).ktime_ns = one.ktime_ns;
        skb::copy_addresses(&raw mut (*count).addresses, &one.addresses);
        (*count).sport = one.sport;
        (*count).dport = one.dport;
    }
}

/// The address and port asked: from the conntrack entry where it translates, else where the
/// packet goes if that is known to be a service.
#[inline(always)]
fn service<const DIRECT: bool>(skb: Skb<DIRECT>, brief: &Brief) -> ([u32; 4], [u8; 2]) {
    let conntrack = skb.conntrack();
    if conntrack != 0 && packet::translated(conntrack) {
        let tuple = conntrack + u64::from(offset!(ct_tuplehash)) + u64::from(offset!(hash_tuple));
        let asked = skb::read(tuple + u64::from(offset!(tuple_daddr))).unwrap_or([0_u32; 4]);
        let port = skb::read(tuple + u64::from(offset!(tuple_dport))).unwrap_or([0; 2]);
        let family = skb::read::<u16>(tuple + u64::from(offset!(tuple_family))).unwrap_or(0);
        let asked = if family == skb::AF_INET6 {
            asked
        } else {
            skb::v4_mapped(asked[0])
        };
        return (asked, port);
    }
    let [_, asked] = brief.addresses;
    if config!(vips) != 0 && packet::is_vip(&asked) {
        return (asked, brief.dport);
    }
    ([0; 4], [0; 2])
}

/// The device's namespace, or where there is no device the socket's.
#[inline(always)]
fn netns<const DIRECT: bool>(skb: Skb<DIRECT>) -> u32 {
    let dev = skb.dev();
    if !dev.is_null() {
        return skb::netns::<DIRECT>(dev, offset!(dev_net)).1;
    }
    let sock = skb.sock();
    if sock.is_null() {
        return 0;
    }
    skb::netns::<DIRECT>(sock, offset!(sk_net)).1
}
