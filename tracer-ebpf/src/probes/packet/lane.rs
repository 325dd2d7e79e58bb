//! The record of a DNS datagram, laid in its processor's lane. At each place that the datagram passes unchanged until
//! another one comes, a few bytes are added to it: a record of its own would cost four times as much.
//!
//! A lane is written by its processor alone and read from where it lies: no lock, no copy, no line of memory that
//! processors fight for, as with the ring. What finds no room in it goes to the ring.

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
        BEGINNING, CHUNK, CONNTRACK_BYTES, Chunk, LAID_RECORD, LANE_LIMIT, Laid, Lane, PASS_AT,
        PASSES, Packet, Pass, mark, next_at, pass, place,
    },
    skb::{self, First, Headers, Skb, UDP},
};

/// An element for each processor.
#[map]
static LANES: Array<Lane> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// `Config::lane_chunks` elements for each processor.
#[map]
static CHUNKS: Array<Chunk> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// How long after its first place a packet is taken for the same: its memory is used again for others.
const SAME_NS: u64 = 10_000_000;

/// What a packet begins with, in words as they stand in memory.
type Beginning = [u64; BEGINNING / 8];

/// This processor's lane, and which processor it is; `None` while another program, which this one interrupts, has it.
#[inline(always)]
fn own() -> Option<(*mut Lane, u32)> {
    // SAFETY: the helper has no preconditions; `busy` is read as one word.
    unsafe {
        let cpu = bpf_get_smp_processor_id();
        let lane = LANES.get_ptr_mut(cpu)?;
        let busy = (&raw const (*lane).busy).read_volatile();
        (busy == 0).then_some((lane, cpu))
    }
}

/// The memory of `cpu`'s lane at `at`, a multiple of eight.
#[inline(always)]
fn laid(cpu: u32, at: u64) -> Option<*mut Laid> {
    let chunks = config!(lane_chunks);
    let chunk = cpu * chunks + ((at / CHUNK) as u32 & (chunks - 1));
    let chunk = CHUNKS.get_ptr_mut(chunk)?.cast::<u8>();
    // The mask is for the verifier.
    // SAFETY: a chunk has room for a record behind any place that the mask leaves.
    unsafe {
        let at = (black_box(at) & (CHUNK - 8)) as usize;
        Some(black_box(chunk.add(at).cast()))
    }
}

/// Adds this place to the record that was laid last, if that is of this very packet: it has the same memory, and there the
/// same headers and beginning but for what routers and NAT change. One seen again at its first place was sent again.
#[inline(always)]
pub(crate) fn goes_on<const DIRECT: bool>(seen: &Seen, skb: Skb<DIRECT>) -> bool {
    if config!(headers) != 0 {
        return false;
    }
    let Some((lane, cpu)) = own() else {
        return false;
    };
    // SAFETY: the lane is this processor's, and `busy` keeps other programs from it.
    unsafe {
        if (*lane).open != skb.0 as u64 {
            return false;
        }
        (&raw mut (*lane).busy).write_volatile(1);
        let lane = black_box(lane);
        let dev = skb.dev();
        let at = bpf_ktime_get_ns();
        let mut same = false;
        if let Some(laid) = laid(cpu, (*lane).newest) {
            let first = &raw const (*laid).packet;
            let ip = (*lane).ip;
            same = !dev.is_null()
                && begins_at(seen, skb, (*lane).head, ip)
                && skb::copy((&raw mut (*lane).next).cast(), BEGINNING as u32, ip)
                && (*lane).passes < PASSES
                && (*laid).len <= (size_of::<Packet>() + PASS_AT) as u64
                && ((*lane).dev != dev as u64 || (*first).place != seen.place)
                && at - (*first).ktime_ns < SAME_NS
                && pass(lane, laid, seen, skb, dev, at);
        }
        if !same {
            (*lane).open = 0;
        }
        let lane = black_box(lane);
        (&raw mut (*lane).busy).write_volatile(0);
        same
    }
}

/// Whether the link layer's payload begins at `ip`, in the buffer at `head`: not where another packet was put around
/// this one, nor where its bytes were copied elsewhere.
#[inline(always)]
fn begins_at<const DIRECT: bool>(seen: &Seen, skb: Skb<DIRECT>, head: u64, ip: u64) -> bool {
    if seen.place == place::RECEIVED {
        return skb.has_data(ip);
    }
    skb.has_head(head) && head + u64::from(skb.network_offset()) == ip
}

/// Adds a place to the record; false where the packet is another.
///
/// # Safety
/// `lane` is this program's own, and `laid` its newest record.
#[inline(always)]
unsafe fn pass<const DIRECT: bool>(
    lane: *mut Lane,
    laid: *mut Laid,
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
        let mut parts = match is_same(lane) {
            Same::Whole => 0,
            // NAT is done by the namespace that forwards it, and to nothing that a socket sends here.
            Same::Payload
                if seen.place == place::QUEUED
                    && (*lane).within == net as u64
                    && conntrack != 0
                    && skb.sock().is_null()
                    && is_of_dns(&raw const (*lane).next) =>
            {
                pass::TURNED
            }
            _ => return false,
        };
        let len = (*laid).len;
        let at = black_box(len - size_of::<Packet>() as u64) as usize & PASS_AT;
        let to = (&raw mut (*laid).rest).cast::<u8>().add(at);
        let mut more = 0;
        if conntrack != 0 && conntrack == (*lane).conntrack {
            parts |= pass::SAME_CONNTRACK;
        } else if conntrack != 0 {
            if emit::fill_conntrack(to.add(size_of::<Pass>()), conntrack) == 0 {
                return false;
            }
            (*lane).conntrack = conntrack;
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
            copy_beginning(beginning, &raw const (*lane).next);
            copy_beginning(&raw mut (*lane).first, &raw const (*lane).next);
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
        (*lane).within = if seen.place == place::RECEIVED {
            net as u64
        } else {
            0
        };
        (*lane).passes += 1;
        let more = (size_of::<Pass>() + more) as u64;
        (*lane).end += more;
        // Last, for it tells the reader what it may read.
        let laid = black_box(laid);
        (&raw mut (*laid).len).write_volatile(len + more);
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

/// How far what was just read is what the newest record's packet begins with.
///
/// # Safety
/// `lane` is this program's own.
#[inline(always)]
unsafe fn is_same(lane: *const Lane) -> Same {
    // Bytes of each word that count: 8 to 15 of IPv4 are time to live, protocol, checksum, source; 0 to 7 of IPv6 end
    // with the hop limit. UDP's header is ports, length, checksum (RFC 768).
    const V4_ROUTED: u64 = bytes(0b1111_0010);
    const V4_NAT: u64 = bytes(0b0000_0010);
    const V6_ROUTED: u64 = bytes(0b0111_1111);
    // SAFETY: the caller's.
    unsafe {
        let [a0, a1, a2, a3, a4, a5, a6] = (*lane).first;
        let [b0, b1, b2, b3, b4, b5, b6] = (*lane).next;
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

/// Lays the packet's record, which begins with `first`, if it can.
///
/// It cannot where its headers are wanted as they stand, for routers change them, or where its beginning does not
/// tell it from others; nor where the reader has left no room.
#[inline(always)]
pub(super) fn lays<const DIRECT: bool>(
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
        || len > LANE_LIMIT as u32
        || headers.bounds.linear_from(start) < len
    {
        return false;
    }
    let Some((lane, cpu)) = own() else {
        return false;
    };
    let dev = skb.dev();
    let mut within = 0;
    if seen.place == place::RECEIVED && !dev.is_null() {
        within = skb::netns::<DIRECT>(dev, offset!(dev_net)).0 as u64;
    }
    // SAFETY: the lane is this processor's, and `busy` keeps other programs from it. `first` is the calling program's
    // own, and longer.
    unsafe {
        (&raw mut (*lane).busy).write_volatile(1);
        let lane = black_box(lane);
        (*lane).open = 0;
        let at = free(lane);
        let mut is_laid = false;
        if at != 0
            && let Some(laid) = laid(cpu, at)
        {
            let conntrack = skb.conntrack();
            let packet = &raw mut (*laid).packet;
            let rest = (&raw mut (*laid).rest).cast::<u8>();
            let parts = emit::fill(packet, rest, seen, skb, headers, conntrack);
            let mut captured = black_box(len) & LANE_LIMIT as u32;
            let mut marks = 0;
            if captured > 0 && !skb::copy(rest.add(parts), captured, start) {
                captured = 0;
                marks = mark::UNREADABLE;
            }
            (*packet).captured = captured as u16;
            (*packet).skip = 0;
            (*packet).network = 0;
            (*packet).marks = marks;
            let len = (size_of::<Packet>() as u64 + parts as u64 + u64::from(captured) + 7) & !7;
            (*laid).len = len;
            (*lane).end = at + LAID_RECORD as u64 + len;
            (*lane).open = skb.0 as u64;
            (*lane).head = headers.bounds.head;
            (*lane).ip = headers.ip;
            (*lane).dev = dev as u64;
            (*lane).within = within;
            (*lane).conntrack = conntrack;
            (*lane).passes = 0;
            copy_beginning(&raw mut (*lane).first, first.cast());
            // Last, for it tells the reader that there is a record.
            let lane = black_box(lane);
            (&raw mut (*lane).newest).write_volatile(at);
            is_laid = true;
        }
        let lane = black_box(lane);
        (&raw mut (*lane).busy).write_volatile(0);
        is_laid
    }
}

/// Where the next record begins; 0 when there is no room. The reader is woken while half the lane is to be read.
///
/// # Safety
/// `lane` is this program's own.
#[inline(always)]
unsafe fn free(lane: *mut Lane) -> u64 {
    let chunks = u64::from(config!(lane_chunks));
    // SAFETY: the caller's; what user space writes is read as one word.
    unsafe {
        let newest = (*lane).newest;
        let mut at = CHUNK;
        if newest != 0 {
            at = next_at(newest, (*lane).end);
        }
        if at / CHUNK != newest / CHUNK {
            let unread = at / CHUNK - (&raw const (*lane).read).read_volatile() / CHUNK;
            if unread >= chunks {
                return 0;
            }
            if unread * 2 >= chunks {
                output::wake_reader();
            }
        }
        at
    }
}
