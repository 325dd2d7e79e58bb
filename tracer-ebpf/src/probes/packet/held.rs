//! The record of a DNS datagram, held on its processor until another one comes. At each place that the datagram
//! passes unchanged meanwhile, a few bytes are added to it: a record of its own would cost four times as much.
//!
//! The last record of a processor stays where it is until user space, which can see it there, has waited long enough.

use core::hint::black_box;

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::Array,
};

use super::{Seen, emit, is_dns_port, remember_server};
use crate::{
    output::{self, config, offset},
    record::{
        BEGINNING, CONNTRACK_BYTES, HELD_LIMIT, HELD_RECORD, Held, PASS_AT, PASSES, Packet, Pass,
        mark, pass, place,
    },
    skb::{self, First, Headers, Skb, UDP},
};

/// An element for each processor.
#[map]
static HELD: Array<Held> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// How long after its first place a packet is taken for the same: its memory is used again for others.
const SAME_NS: u64 = 10_000_000;

/// What a packet begins with, in words as they stand in memory.
type Beginning = [u64; BEGINNING / 8];

/// This processor's element, and the version that makes it this program's own; `None` while another program, which
/// this one interrupts, has it.
#[inline(always)]
fn own() -> Option<(*mut Held, u64)> {
    // SAFETY: the helper has no preconditions; the version is read as one word.
    unsafe {
        let held = HELD.get_ptr_mut(bpf_get_smp_processor_id())?;
        let version = (&raw const (*held).version).read_volatile();
        (version & 1 == 0).then_some((held, version + 1))
    }
}

/// Adds this place to the record that is held, if that is of this very packet: it has the same memory, and the same
/// headers and beginning but for what routers and NAT change. One seen again at its first place was sent again.
#[inline(always)]
pub(crate) fn goes_on<const DIRECT: bool>(seen: &Seen, skb: Skb<DIRECT>, ip: u64) -> bool {
    let Some((held, version)) = own() else {
        return false;
    };
    // SAFETY: the element is this processor's, and its odd version keeps other programs from it.
    unsafe {
        if (*held).open != skb.0 as u64 {
            return false;
        }
        (&raw mut (*held).version).write_volatile(version);
        let held = black_box(held);
        let dev = skb.dev();
        let at = bpf_ktime_get_ns();
        let same = !dev.is_null()
            && skb::copy((&raw mut (*held).next).cast(), BEGINNING as u32, ip)
            && (*held).packet.passes < PASSES
            && (*held).len <= (size_of::<Packet>() + PASS_AT) as u32
            && ((*held).dev != dev as u64 || (*held).packet.place != seen.place)
            && at - (*held).packet.ktime_ns < SAME_NS
            && pass(held, seen, skb, dev, at);
        if !same {
            (*held).open = 0;
        }
        let held = black_box(held);
        (&raw mut (*held).version).write_volatile(version + 1);
        same
    }
}

/// Adds a place to the record; false where the packet is another.
///
/// # Safety
/// `held` is this program's own.
#[inline(always)]
unsafe fn pass<const DIRECT: bool>(
    held: *mut Held,
    seen: &Seen,
    skb: Skb<DIRECT>,
    dev: *const u8,
    ktime_ns: u64,
) -> bool {
    let (net, netns) = skb::netns::<DIRECT>(dev, offset!(dev_net));
    let ifindex = skb::load::<u32, DIRECT>(dev, offset!(dev_ifindex));
    let conntrack = skb.conntrack();
    // SAFETY: the caller's.
    unsafe {
        let mut parts = match is_same(held) {
            Same::Whole => 0,
            // NAT is done by the namespace that forwards it, and to nothing that a socket sends here.
            Same::Payload
                if seen.place == place::QUEUED
                    && (*held).within == net as u64
                    && conntrack != 0
                    && skb.sock().is_null()
                    && is_of_dns(&raw const (*held).next) =>
            {
                pass::TURNED
            }
            _ => return false,
        };
        let len = (*held).len;
        let at = black_box(len - size_of::<Packet>() as u32) as usize & PASS_AT;
        let to = (&raw mut (*held).rest).cast::<u8>().add(at);
        let mut more = 0;
        if conntrack != 0 && conntrack == (*held).conntrack {
            parts |= pass::SAME_CONNTRACK;
        } else if conntrack != 0 {
            if emit::fill_conntrack(to.add(size_of::<Pass>()), conntrack) == 0 {
                return false;
            }
            (*held).conntrack = conntrack;
            parts |= pass::CONNTRACK;
            more = CONNTRACK_BYTES;
        }
        if parts & pass::TURNED != 0 {
            #[expect(
                clippy::cast_ptr_alignment,
                reason = "a multiple of eight, by the mask"
            )]
            let beginning = if more == 0 {
                to.add(size_of::<Pass>())
            } else {
                to.add(size_of::<Pass>() + CONNTRACK_BYTES)
            }
            .cast::<Beginning>();
            copy_beginning(beginning, &raw const (*held).next);
            copy_beginning(&raw mut (*held).first, &raw const (*held).next);
            more += BEGINNING;
        }
        #[expect(
            clippy::cast_ptr_alignment,
            reason = "a multiple of eight, by the mask"
        )]
        let to = to.cast::<Pass>();
        to.write(Pass {
            ktime_ns,
            netns,
            ifindex,
            place: seen.place,
            parts,
            pad: [0; 6],
        });
        (*held).within = if seen.place == place::RECEIVED {
            net as u64
        } else {
            0
        };
        (*held).len = len + (size_of::<Pass>() + more) as u32;
        (*held).packet.passes += 1;
    }
    true
}

/// By words, as `skb::copy_addresses`.
///
/// # Safety
/// `from` is valid for reads, `to` for writes.
#[inline(always)]
unsafe fn copy_beginning(to: *mut Beginning, from: *const Beginning) {
    // SAFETY: the caller's.
    unsafe {
        let [w0, w1, w2, w3, w4, w5, w6] = from.read();
        to.write([w0, w1, w2, w3, w4, w5, w6]);
    }
}

/// Whether a datagram that was translated, and begins so now, is from or to a port of DNS still; of one that is not any
/// longer it is decided anew whether it is wanted. Where a query goes now is learnt.
///
/// # Safety
/// `beginning` is this program's own.
#[inline(always)]
unsafe fn is_of_dns(beginning: *const Beginning) -> bool {
    // SAFETY: the caller's.
    let [first, _, w2, w3, w4, w5, _] = unsafe { beginning.read() };
    let (ports, server) = if first.to_ne_bytes()[0] >> 4 == 4 {
        let [address, ports] = halves(w2);
        (ports, skb::v4_mapped(address))
    } else {
        let ([a, b], [c, d]) = (halves(w3), halves(w4));
        (halves(w5)[0], [a, b, c, d])
    };
    let [a, b, c, d] = ports.to_ne_bytes();
    let is_query = is_dns_port([c, d]);
    if is_query {
        remember_server(&server);
    }
    is_query || is_dns_port([a, b])
}

/// The two halves of a word, as they follow each other in memory.
#[inline(always)]
fn halves(word: u64) -> [u32; 2] {
    let bytes = word.to_ne_bytes();
    [
        u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    ]
}

/// How far two packets begin alike.
#[derive(Clone, Copy)]
enum Same {
    /// Not even their payloads do.
    Not,
    /// But for addresses, ports and checksums.
    Payload,
    /// But for what a router changes: time to live and checksum (RFC 791, section 3.1), hop limit (RFC 8200,
    /// section 3).
    Whole,
}

/// How far what was just read is what the held packet begins with.
///
/// # Safety
/// `held` is this program's own.
#[inline(always)]
unsafe fn is_same(held: *const Held) -> Same {
    // Bytes of each word that count: 8 to 15 of IPv4 are time to live, protocol, checksum, source; 0 to 7 of IPv6 end
    // with the hop limit. UDP's header is ports, length, checksum (RFC 768).
    const V4_ROUTED: u64 = bytes(0b1111_0010);
    const V4_NAT: u64 = bytes(0b0000_0010);
    const V6_ROUTED: u64 = bytes(0b0111_1111);
    // SAFETY: the caller's.
    unsafe {
        let [a0, a1, a2, a3, a4, a5, a6] = (*held).first;
        let [b0, b1, b2, b3, b4, b5, b6] = (*held).next;
        if a0.to_ne_bytes()[0] >> 4 == 4 {
            // Words: 2 is destination and ports; 3 UDP's length and checksum, then payload.
            let payload = a0 == b0
                && (a1 ^ b1) & V4_NAT == 0
                && (a3 ^ b3) & bytes(0b1111_0011) == 0
                && a4 == b4
                && a5 == b5
                && a6 == b6;
            if !payload {
                Same::Not
            } else if (a1 ^ b1) & V4_ROUTED == 0 && a2 == b2 && a3 == b3 {
                Same::Whole
            } else {
                Same::Payload
            }
        } else {
            // Words: 1 to 4 are addresses, 5 UDP's header, 6 payload.
            let payload =
                (a0 ^ b0) & V6_ROUTED == 0 && (a5 ^ b5) & bytes(0b0011_0000) == 0 && a6 == b6;
            if !payload {
                Same::Not
            } else if a1 == b1 && a2 == b2 && a3 == b3 && a4 == b4 && a5 == b5 {
                Same::Whole
            } else {
                Same::Payload
            }
        }
    }
}

/// A word of which the bytes count whose bits are set, the first in memory being the lowest bit.
const fn bytes(which: u8) -> u64 {
    let mut word = [0; 8];
    let mut index = 0;
    while index < 8 {
        if which >> index & 1 != 0 {
            word[index] = 0xff;
        }
        index += 1;
    }
    u64::from_ne_bytes(word)
}

/// Whether its IP header has no options and no extensions, so that all that tells it from others stands where it does
/// in all packets.
#[inline(always)]
fn is_plain(payload_offset: u32, first: *const First) -> bool {
    // SAFETY: the calling program's own.
    let version = unsafe { (*first).0[0] } >> 4;
    matches!((version, payload_offset), (4, 28) | (6, 48))
}

/// Takes the packet, which begins with `first`, in place of the one that is held, if it can.
///
/// It cannot where its headers are wanted as they stand, for routers change them, or where its beginning does not
/// tell it from others.
#[inline(always)]
pub(super) fn takes<const DIRECT: bool>(
    seen: &Seen,
    skb: Skb<DIRECT>,
    headers: &Headers,
    first: *const First,
) -> bool {
    let start = headers.ip + u64::from(headers.payload_offset);
    let len = headers.payload_len;
    if config!(headers) != 0
        || headers.protocol != UDP
        || headers.marks != 0
        || !is_plain(headers.payload_offset, first)
        || !matches!(seen.place, place::QUEUED | place::RECEIVED)
        || len > HELD_LIMIT as u32
        || headers.bounds.linear_from(start) < len
    {
        return false;
    }
    let Some((held, version)) = own() else {
        return false;
    };
    let dev = skb.dev();
    let mut within = 0;
    if seen.place == place::RECEIVED && !dev.is_null() {
        within = skb::netns::<DIRECT>(dev, offset!(dev_net)).0 as u64;
    }
    // SAFETY: the element is this processor's, and its odd version keeps other programs from it. `first` is the calling
    // program's own, and longer.
    unsafe {
        (&raw mut (*held).version).write_volatile(version);
        let held = black_box(held);
        release(held, seen.program);
        let conntrack = skb.conntrack();
        let packet = &raw mut (*held).packet;
        let rest = (&raw mut (*held).rest).cast::<u8>();
        let parts = emit::fill(packet, rest, seen, skb, headers, conntrack);
        let mut captured = black_box(len) & HELD_LIMIT as u32;
        let mut marks = 0;
        if captured > 0 && !skb::copy(rest.add(parts), captured, start) {
            captured = 0;
            marks = mark::UNREADABLE;
        }
        (*packet).captured = captured as u16;
        (*packet).skip = 0;
        (*packet).network = 0;
        (*packet).marks = marks;
        (*held).len = (size_of::<Packet>() as u32 + parts as u32 + captured + 7) & !7;
        (*held).open = skb.0 as u64;
        (*held).dev = dev as u64;
        (*held).within = within;
        (*held).conntrack = conntrack;
        copy_beginning(&raw mut (*held).first, first.cast());
        let held = black_box(held);
        (&raw mut (*held).version).write_volatile(version + 1);
    }
    true
}

/// Hands over the record that is held, if there is one.
///
/// # Safety
/// `held` is this program's own.
#[inline(always)]
unsafe fn release(held: *mut Held, program: u32) {
    // SAFETY: the caller's.
    unsafe {
        let len = u64::from((*held).len);
        if len == 0 || len > (size_of::<Held>() - HELD_RECORD) as u64 {
            return;
        }
        (*held).count = (*held).count.wrapping_add(1);
        let look = (*held).count.is_multiple_of(output::LOOK_EVERY as u32);
        output::output((&raw mut (*held).packet).cast(), len, program, look);
    }
}
