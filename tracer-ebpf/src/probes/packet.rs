//! One packet at one place: whether it is wanted, and the record of it. Serves the programs
//! in `device` and `drop`; attaches to nothing itself.

mod emit;
pub(super) mod lane;
mod pages;

use core::hint::black_box;

use aya_ebpf::{
    macros::map,
    maps::{LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
};

use self::emit::{Record, emit, emit_paged};
use crate::{
    config::{DNS_PORTS, paged, program},
    output::{self, config, offset},
    probes::unconnected,
    record::{CAPTURE_LIMIT, TUPLE_HASH, mark, place},
    skb::{self, Bounds, First, Headers, ICMP, ICMPV6, Skb, Skip, TCP, UDP, tunnel},
};

/// Where a packet was seen, and by which program.
pub(crate) struct Seen {
    /// Index of the program in the loss counters.
    pub(crate) program: u32,
    /// One of `record::place`.
    pub(crate) place: u8,
    /// As in the record.
    pub(crate) reason: u32,
    /// Drops only.
    pub(crate) location: u64,
}

/// A flow at one device: what is remembered of it is that its first data is still to come
/// (TCP), or has been (UDP).
#[repr(C)]
#[derive(Clone, Copy)]
struct FlowHere {
    addresses: [[u32; 4]; 2],
    ports: [u8; 4],
    dev: [u8; 8],
    place: u32,
}

#[map]
static TCP_SILENT: LruHashMap<FlowHere, u8> = LruHashMap::with_max_entries(16384, 0);

#[map]
static UDP_SEEN: LruHashMap<FlowHere, u8> = LruHashMap::with_max_entries(16384, 0);

/// Prefixes of service addresses, v4-mapped; filled by user space, watched by `Config::vips`.
#[map]
static VIPS: LpmTrie<[u32; 4], u8> = LpmTrie::with_max_entries(65536, 0);

/// Addresses that DNS queries went to, for packets whose ports cannot be read.
#[map]
static DNS_SERVERS: LruHashMap<[u32; 4], u8> = LruHashMap::with_max_entries(4096, 0);

/// A DNS server that this processor's programs met last, of those whose addresses end alike: a query that leaves
/// costs 20 ns less where it is found here.
#[repr(C)]
#[derive(Clone, Copy)]
struct Met {
    address: [u32; 4],
    /// How often it may be found here until it is looked up again, so that [`DNS_SERVERS`] knows that it is in use.
    left: u32,
}

#[map]
static SERVERS_MET: PerCpuArray<Met> = PerCpuArray::with_max_entries(SERVER_ENDINGS, 0);

/// By so many endings servers are told apart; a power of two.
const SERVER_ENDINGS: u32 = 64;

/// Queries to a server between two at which it is looked up.
const LOOK_UP_EVERY: u32 = 256;

/// Memory of one program on one processor. Records are put together here, where the processor
/// has it at hand, and then copied at their exact length.
#[repr(C)]
struct Scratch {
    /// 1 while the program runs: before Linux 6.1 nothing keeps a raw tracepoint's program from
    /// meeting itself on one processor.
    busy: u64,
    first: First,
    headers: Headers,
    record: Record,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(program::COUNT, 0);

/// RFC 9293, section 3.1.
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;

/// How much of a wanted packet's payload is captured.
enum Wanted {
    No,
    Headers,
    Payload,
}

/// Emits the packet whose IP header is at `ip` if it is wanted; of one that carries another, the
/// other.
///
/// The headers go through memory that the verifier does not follow: it would check all that
/// comes after once for every way of parsing them, 300,000 instructions instead of 10,000.
#[inline(always)]
pub(crate) fn observe<const DIRECT: bool>(
    seen: &Seen,
    skb: Skb<DIRECT>,
    ip: u64,
    bounds: Bounds,
) -> Result<(), Skip> {
    let Some(scratch) = SCRATCH.get_ptr_mut(seen.program) else {
        return Ok(());
    };
    // SAFETY: the map hands out this processor's own element, and `busy` this program's turn.
    unsafe {
        if (*scratch).busy != 0 {
            output::nested(seen.program);
            return Ok(());
        }
        (*scratch).busy = 1;
        let parsed = parse(scratch, ip, bounds);
        if parsed.is_ok() {
            let scratch = black_box(scratch);
            let (headers, first) = (&(*scratch).headers, &raw const (*scratch).first);
            judge(seen, skb, headers, first, &raw mut (*scratch).record);
        }
        (*scratch).busy = 0;
        parsed
    }
}

/// Reads the packet's headers, and if it carries another those of that; one level deep, as
/// overlays of clusters are.
///
/// # Safety
/// `scratch` is this program's own until `busy` is cleared.
#[inline(always)]
unsafe fn parse(scratch: *mut Scratch, mut ip: u64, bounds: Bounds) -> Result<(), Skip> {
    let mut marks = 0;
    // SAFETY: the caller's.
    unsafe {
        for _ in 0..2 {
            let first = &raw mut (*scratch).first;
            if !skb::copy(first.cast(), size_of::<First>() as u32, ip) {
                return Err(Skip::Unreadable);
            }
            (*scratch).headers = skb::headers(ip, bounds, &*first)?;
            (*scratch).headers.marks |= marks;
            let headers = &(*black_box(scratch)).headers;
            let Some(inner) = tunnel::inside(headers).filter(|_| marks == 0) else {
                break;
            };
            let outer = &raw mut (*scratch).record.outer;
            skb::copy_addresses(&raw mut (*outer).addresses, &headers.addresses);
            (*outer).network = inner.network;
            (*outer).kind = inner.kind;
            ip = inner.ip;
            marks = mark::TUNNELED | (headers.marks & mark::FIRST_FRAGMENT);
        }
    }
    Ok(())
}

/// Emits what is wanted of the packet.
#[inline(always)]
fn judge<const DIRECT: bool>(
    seen: &Seen,
    skb: Skb<DIRECT>,
    headers: &Headers,
    first: *const First,
    record: *mut Record,
) {
    match wanted(seen, skb, headers) {
        Wanted::No => {}
        _ if !headers.are_linear() => output::unreadable(seen.program),
        Wanted::Headers => emit(seen, skb, headers, record, 0),
        Wanted::Payload => {
            let len = headers.payload_len.min(CAPTURE_LIMIT as u32);
            let start = headers.ip + u64::from(headers.payload_offset);
            let way = config!(paged);
            let reached = (DIRECT && way == paged::PERF) || way == paged::READ;
            if reached && headers.bounds.linear_from(start) < len {
                emit_paged(seen, skb, headers, record);
            } else if headers.marks & mark::PORTS_BEHIND != 0 {
                output::unreadable(seen.program);
            } else if !lane::lays(seen, skb, headers, first) {
                emit(seen, skb, headers, record, len);
            }
        }
    }
}

/// Wanted are, in this order:
/// 1. later fragments of UDP, which have no ports to judge by, as headers
/// 2. UDP whose ports cannot be read, from or to where DNS queries went, with payload
/// 3. anything with data, a handshake or an end on a DNS port, with payload
/// 4. ICMP errors, with the packet they quote
/// 5. of other TCP: handshakes, ends, first data each way, and any drop
/// 6. of other UDP: the first packet of a flow that is translated, goes to a service address, or
///    is leaving its own socket, for that alone tells whose it is
#[inline(always)]
fn wanted<const DIRECT: bool>(seen: &Seen, skb: Skb<DIRECT>, headers: &Headers) -> Wanted {
    let dropped = matches!(seen.place, place::DROPPED | place::REFUSED);
    if headers.marks & mark::LATER_FRAGMENT != 0 {
        return if headers.protocol == UDP {
            Wanted::Headers
        } else {
            Wanted::No
        };
    }
    if headers.marks & mark::PORTS_BEHIND != 0 {
        let [src, dst] = &headers.addresses;
        return if is_dns_server(src) || is_dns_server(dst) {
            Wanted::Payload
        } else {
            Wanted::No
        };
    }
    match headers.protocol {
        UDP if on_dns_port(headers) => {
            if seen.place == place::QUEUED && is_dns_port(headers.dport) {
                remember_server(&headers.addresses[1]);
                // The socket of what is carried by another packet may be that one's.
                if headers.marks & mark::TUNNELED == 0 {
                    unconnected::asks(skb);
                }
            }
            Wanted::Payload
        }
        UDP if config!(connections) != 0 => first_of_udp_flow(seen, skb, headers),
        TCP => {
            let edge = headers.tcp_flags & (SYN | FIN | RST) != 0;
            if on_dns_port(headers) {
                let wanted = edge || headers.payload_len > 0;
                if wanted { Wanted::Payload } else { Wanted::No }
            } else if config!(connections) == 0 {
                Wanted::No
            } else if edge || dropped {
                if headers.tcp_flags & SYN != 0 && !dropped {
                    let _ = TCP_SILENT.insert(flow_here(seen, skb, headers), 1, 0);
                }
                Wanted::Headers
            } else if headers.payload_len > 0
                && TCP_SILENT.remove(flow_here(seen, skb, headers)).is_ok()
            {
                Wanted::Headers
            } else {
                Wanted::No
            }
        }
        // Destination unreachable, time exceeded, parameter problem (RFC 792).
        ICMP if matches!(headers.sport[0], 3 | 11 | 12) => Wanted::Payload,
        // Destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443).
        ICMPV6 if matches!(headers.sport[0], 1..=4) => Wanted::Payload,
        _ => Wanted::No,
    }
}

/// Learns where a query that leaves goes, so that its answer is known by address.
#[inline(always)]
fn remember_server(server: &[u32; 4]) {
    let ending = u32::from_be(server[3]) % SERVER_ENDINGS;
    let Some(met) = SERVERS_MET.get_ptr_mut(ending) else {
        return;
    };
    // SAFETY: the map hands out this processor's own element; a program that another one interrupts may look up, or
    // leave, one address too many.
    unsafe {
        let ([m0, m1, m2, m3], [s0, s1, s2, s3]) = ((*met).address, *server);
        if (m0, m1, m2, m3) == (s0, s1, s2, s3) && (*met).left > 0 {
            (*met).left -= 1;
            return;
        }
        if !is_dns_server(server) {
            let _ = DNS_SERVERS.insert(server, 1, 0);
        }
        (*met).address = [s0, s1, s2, s3];
        (*met).left = LOOK_UP_EVERY;
    }
}

#[inline(always)]
fn is_dns_server(address: &[u32; 4]) -> bool {
    // SAFETY: the value is only tested for presence.
    unsafe { DNS_SERVERS.get(address) }.is_some()
}

#[inline(always)]
fn on_dns_port(headers: &Headers) -> bool {
    is_dns_port(headers.dport) || is_dns_port(headers.sport)
}

/// Ports in use come first. The verifier, which knows these constants, leaves out what follows
/// the last of them.
#[inline(always)]
pub(crate) fn is_dns_port(wanted: [u8; 2]) -> bool {
    let mut index = 0;
    while index < DNS_PORTS {
        let port = config!(dns_ports[index]);
        if port == [0, 0] {
            return false;
        }
        if port == wanted {
            return true;
        }
        index += 1;
    }
    false
}

#[inline(always)]
fn first_of_udp_flow<const DIRECT: bool>(
    seen: &Seen,
    skb: Skb<DIRECT>,
    headers: &Headers,
) -> Wanted {
    let key = flow_here(seen, skb, headers);
    let conntrack = own_conntrack(skb, headers);
    let service = (conntrack != 0 && translated(conntrack))
        || (config!(vips) != 0 && is_vip(&key.addresses[1]))
        || (seen.place == place::QUEUED && !skb.sock().is_null());
    // SAFETY: the value is only tested for presence.
    if !service || unsafe { UDP_SEEN.get(key) }.is_some() {
        return Wanted::No;
    }
    let _ = UDP_SEEN.insert(key, 1, 0);
    Wanted::Headers
}

/// The packet's conntrack entry; that of what carries it is another's.
#[inline(always)]
fn own_conntrack<const DIRECT: bool>(skb: Skb<DIRECT>, headers: &Headers) -> u64 {
    if headers.marks & mark::TUNNELED != 0 {
        return 0;
    }
    skb.conntrack()
}

#[inline(always)]
pub(super) fn is_vip(address: &[u32; 4]) -> bool {
    VIPS.get(Key::new(128, *address)).is_some()
}

/// Original destination ≠ reply source: true in every proxy mode, unlike the status bits,
/// which IPVS does not set.
#[inline(always)]
pub(super) fn translated(conntrack: u64) -> bool {
    let original = conntrack + u64::from(offset!(ct_tuplehash)) + u64::from(offset!(hash_tuple));
    let reply = original + TUPLE_HASH as u64;
    let asked = skb::read::<[u64; 2]>(original + u64::from(offset!(tuple_daddr)));
    let backend = skb::read::<[u64; 2]>(reply + u64::from(offset!(tuple_saddr)));
    let asked_port = skb::read::<u16>(original + u64::from(offset!(tuple_dport)));
    let backend_port = skb::read::<u16>(reply + u64::from(offset!(tuple_sport)));
    asked != backend || asked_port != backend_port
}

#[inline(always)]
fn flow_here<const DIRECT: bool>(seen: &Seen, skb: Skb<DIRECT>, headers: &Headers) -> FlowHere {
    FlowHere {
        addresses: headers.addresses,
        ports: [
            headers.sport[0],
            headers.sport[1],
            headers.dport[0],
            headers.dport[1],
        ],
        dev: skb.dev_address().to_ne_bytes(),
        place: u32::from(seen.place),
    }
}
