//! The record of a wanted packet: put together in the program's own memory, then copied out at
//! its exact length. Decides nothing.

use core::{hint::black_box, ptr};

use aya_ebpf::{
    bindings::BPF_F_CURRENT_CPU,
    helpers::{bpf_ktime_get_ns, generated},
    macros::map,
    maps::PerfEventByteArray,
};

use super::{Seen, own_conntrack, pages};
use crate::{
    config::paged,
    output::{self, config, offset},
    record::{
        BEFORE_TUPLES, CAPTURE_LIMIT, CONNTRACK_BYTES, Origin, Outer, Packet, hook, kind, mark,
        part, place,
    },
    skb::{self, Headers, Skb},
    task,
};

/// Packets whose payload lies in page fragments; the ring buffer has no helper for those.
#[map]
static PAGED: PerfEventByteArray = PerfEventByteArray::new(0);

/// Bytes of a record before its payload, at most.
const HEAD: usize =
    size_of::<Packet>() + CONNTRACK_BYTES + size_of::<Origin>() + size_of::<Outer>();

/// A record being put together.
#[repr(C)]
pub(super) struct Record {
    packet: Packet,
    /// Parts, then payload; of that as much again, where `pages` may begin to write at any byte of it.
    rest: [u8; HEAD + 2 * (CAPTURE_LIMIT + 1)],
    /// Records put together here so far.
    count: u64,
    /// What carries the packet, if it is marked so.
    pub(super) outer: Outer,
    /// For reading page fragments.
    pages: pages::Scratch,
}

/// Emits the packet with up to `len` bytes of its payload, and before them its headers where those are
/// wanted.
#[inline(always)]
pub(super) fn emit<const DIRECT: bool>(
    seen: &Seen,
    skb: Skb<DIRECT>,
    headers: &Headers,
    record: *mut Record,
    len: u32,
) {
    let parts = fill_record(record, seen, skb, headers);
    let mut from = headers.ip;
    let mut before = 0;
    if config!(headers) == 0 {
        from += u64::from(headers.payload_offset);
    } else {
        before = headers.payload_offset;
    }
    let len = (before + len).min(CAPTURE_LIMIT as u32);
    // The mask is for the verifier, which does not know what the compiler does.
    let mut captured = black_box(len.min(headers.bounds.linear_from(from))) & CAPTURE_LIMIT as u32;
    // SAFETY: `record` is this program's own until `busy` is cleared; `rest` has room for all
    // parts and the payload after them.
    unsafe {
        let rest = (&raw mut (*record).rest).cast::<u8>().add(parts);
        if captured > 0 && !skb::copy(rest, captured, from) {
            captured = 0;
        }
        (*record).packet.captured = captured as u16;
        (*record).packet.skip = before.min(captured) as u16;
        (*record).packet.network = 0;
        let unreadable = if captured < len { mark::UNREADABLE } else { 0 };
        (*record).packet.marks = headers.marks | unreadable;
        (*record).count += 1;
        let look = (*record).count.is_multiple_of(output::LOOK_EVERY);
        let len = size_of::<Packet>() + parts + captured as usize;
        output::output(record.cast(), len as u64, seen.program, look);
    }
}

/// Emits the packet with its payload where that lies, wholly or in part, in page fragments, from the packet's
/// first byte on: copied by the kernel itself (`bpf_skb_output`, Linux 5.5), or where no perf buffer may be
/// opened read page by page.
#[inline(always)]
pub(super) fn emit_paged<const DIRECT: bool>(
    seen: &Seen,
    skb: Skb<DIRECT>,
    headers: &Headers,
    record: *mut Record,
) {
    let parts = fill_record(record, seen, skb, headers);
    let start = headers.ip + u64::from(headers.payload_offset);
    let skip = start.wrapping_sub(headers.bounds.data) as u32;
    let wanted = skip + headers.payload_len;
    let len = wanted.min(headers.bounds.len).min(CAPTURE_LIMIT as u32);
    let head = (size_of::<Packet>() + parts) as u64;
    let read = config!(paged) == paged::READ;
    // SAFETY: `record` is this program's own until `busy` is cleared. The map is a static. `rest` has room for
    // what `pages::copy` may write.
    unsafe {
        (*record).packet.captured = len as u16;
        (*record).packet.skip = skip as u16;
        (*record).packet.network = headers.ip.wrapping_sub(headers.bounds.data) as u16;
        (*record).packet.marks = headers.marks;
        if read {
            let rest = (&raw mut (*record).rest).cast::<u8>().add(parts);
            let scratch = &raw mut (*record).pages;
            let captured = pages::copy(rest, scratch, skb.0, &headers.bounds, len);
            (*record).packet.captured = captured as u16;
            if captured < len {
                (*record).packet.marks = headers.marks | mark::UNREADABLE;
            }
            output::output(
                record.cast(),
                head + u64::from(captured),
                seen.program,
                true,
            );
        } else if DIRECT {
            let result = generated::bpf_skb_output(
                skb.0.cast_mut().cast(),
                (&raw const PAGED).cast_mut().cast(),
                u64::from(len) << 32 | BPF_F_CURRENT_CPU,
                record.cast(),
                head,
            );
            if result != 0 {
                output::ring_full(seen.program);
            }
        }
    }
}

/// Fills in all but what concerns the payload; returns the bytes that the parts take.
#[inline(always)]
fn fill_record<const DIRECT: bool>(
    record: *mut Record,
    seen: &Seen,
    skb: Skb<DIRECT>,
    headers: &Headers,
) -> usize {
    let conntrack = own_conntrack(skb, headers);
    // SAFETY: `record` is this program's own until `busy` is cleared; `rest` has room for all parts.
    unsafe {
        let (packet, rest) = (&raw mut (*record).packet, (&raw mut (*record).rest).cast());
        let parts = fill(packet, rest, seen, skb, headers, conntrack);
        parts + fill_outer(record, parts, headers)
    }
}

/// Fills in all but what concerns the payload and the packet that carries this one; returns the bytes that the
/// parts take, which begin at `rest`.
///
/// # Safety
/// `packet` is this program's own, and so is `rest`, where there is room for all parts.
#[inline(always)]
pub(super) unsafe fn fill<const DIRECT: bool>(
    packet: *mut Packet,
    rest: *mut u8,
    seen: &Seen,
    skb: Skb<DIRECT>,
    headers: &Headers,
    conntrack: u64,
) -> usize {
    // SAFETY: the caller's.
    unsafe {
        (*packet).kind = kind::PACKET;
        (*packet).ktime_ns = bpf_ktime_get_ns();
        (*packet).skb = skb.0 as u64;
        (*packet).reason = seen.reason;
        (*packet).place = seen.place;
        (*packet).seq = headers.seq;
        (*packet).ack = headers.ack;
        (*packet).payload_len = headers.payload_len;
        (*packet).sport = headers.sport;
        (*packet).dport = headers.dport;
        (*packet).protocol = headers.protocol;
        (*packet).tcp_flags = headers.tcp_flags;
        skb::copy_addresses(&raw mut (*packet).addresses, &headers.addresses);
        let conntrack = fill_conntrack(rest, conntrack);
        let origin = fill_place(packet, rest, conntrack, seen, skb);
        (*packet).parts =
            (conntrack * part::CONNTRACK as usize + origin * part::ORIGIN as usize) as u8;
        conntrack * CONNTRACK_BYTES + origin * size_of::<Origin>()
    }
}

/// Copies what carries the packet, if something does, behind `parts` bytes of other parts; returns the bytes
/// that it takes.
///
/// # Safety
/// `record` is this program's own until `busy` is cleared.
#[inline(always)]
unsafe fn fill_outer(record: *mut Record, parts: usize, headers: &Headers) -> usize {
    if headers.marks & mark::TUNNELED == 0 {
        return 0;
    }
    // SAFETY: the caller's; parts end on a multiple of eight.
    unsafe {
        let from = &raw const (*record).outer;
        let to = (&raw mut (*record).rest).cast::<u8>().add(parts);
        #[expect(clippy::cast_ptr_alignment, reason = "aligned, as said above")]
        let to = to.cast::<Outer>();
        skb::copy_addresses(&raw mut (*to).addresses, &(*from).addresses);
        (*to).network = (*from).network;
        (*to).kind = (*from).kind;
        (*record).packet.parts |= part::OUTER;
    }
    size_of::<Outer>()
}

/// Copies the tuples, if there are any, to where the parts begin; returns 1 if it did.
///
/// # Safety
/// As [`fill`].
#[inline(always)]
pub(super) unsafe fn fill_conntrack(rest: *mut u8, conntrack: u64) -> usize {
    if conntrack == 0 {
        return 0;
    }
    let from = conntrack + u64::from(offset!(ct_tuplehash)) - BEFORE_TUPLES as u64;
    usize::from(skb::copy(rest, CONNTRACK_BYTES as u32, from))
}

/// Device and namespace; and where they are known, the sender or the place of the drop, as a
/// part behind `before` others, of which there is none or the tuples. Returns 1 if there is one.
///
/// While a packet is in its socket's own namespace and on its way out, the current task is the
/// sender. A request or time-wait socket is not a full socket (`sk_fullsock`, include/net/sock.h):
/// nobody in particular sends its packets.
///
/// # Safety
/// As [`fill`].
#[inline(always)]
unsafe fn fill_place<const DIRECT: bool>(
    packet: *mut Packet,
    rest: *mut u8,
    before: usize,
    seen: &Seen,
    skb: Skb<DIRECT>,
) -> usize {
    const TIME_WAIT: u8 = 6;
    const NEW_SYN_RECV: u8 = 12;
    let dev = skb.dev();
    let mut netns = (ptr::null(), 0);
    let mut ifindex = 0;
    if !dev.is_null() {
        netns = skb::netns::<DIRECT>(dev, offset!(dev_net));
        ifindex = skb::load::<u32, DIRECT>(dev, offset!(dev_ifindex));
    }
    let mut owner = 0;
    let mut full = false;
    if seen.place != place::RECEIVED {
        let sock = skb.sock();
        if !sock.is_null() {
            let home = skb::netns::<DIRECT>(sock, offset!(sk_net));
            if dev.is_null() {
                netns = home;
            }
            if home.0 as u64 == netns.0 as u64 {
                owner = sock as u64;
                let state = skb::load::<u8, DIRECT>(sock, offset!(sk_state));
                full = !matches!(state, TIME_WAIT | NEW_SYN_RECV);
            }
        }
    }
    // SAFETY: the caller's; `rest` begins and the tuples end on a multiple of eight.
    unsafe {
        (*packet).netns = netns.1;
        (*packet).ifindex = ifindex;
        if owner == 0 && seen.place != place::DROPPED {
            return 0;
        }
        let origin = rest.add(before * CONNTRACK_BYTES);
        #[expect(clippy::cast_ptr_alignment, reason = "aligned, as said above")]
        let origin = origin.cast::<Origin>();
        (*origin).sock = owner;
        (*origin).location = seen.location;
        (*origin).hook = if seen.place == place::DROPPED {
            skb.hook()
        } else {
            hook::UNKNOWN
        };
        if full {
            task::fill_current::<DIRECT>(origin);
        } else {
            (*origin).cgroup = 0;
            (*origin).pid = 0;
        }
    }
    1
}
