//! Reading kernel memory: `struct sk_buff` and what hangs off it, IP and transport headers.
//!
//! Members are read at `Offsets`: in BTF tracepoints by plain loads that the verifier checks, else
//! by `bpf_probe_read_kernel`; headers and payload always by the helper. Both fail rather than
//! fault, so nothing here can harm the kernel.

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated};

use crate::{
    config::ABSENT,
    output::offset,
    record::{hook, mark},
};

mod brief;
pub(crate) mod tunnel;

pub(crate) use self::brief::Brief;

/// `ETH_P_*`, include/uapi/linux/if_ether.h, as they stand in memory.
const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
const VLAN: u16 = 0x8100_u16.to_be();
const QINQ: u16 = 0x88a8_u16.to_be();

/// IANA protocol numbers.
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
const SCTP: u8 = 132;
const IP_IN_IP: u8 = 4;
const IPV6_IN_IP: u8 = 41;
const GRE: u8 = 47;

/// include/linux/socket.h
pub(crate) const AF_INET6: u16 = 10;

/// Most IPv6 extension headers followed (RFC 8200, section 4.1 names six).
const EXTENSIONS: u32 = 6;

/// Reads a `T` of kernel memory.
#[inline(always)]
pub(crate) fn read<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}

/// Reads `len` bytes of kernel memory to `to`. The caller has room for them there.
#[inline(always)]
pub(crate) fn copy(to: *mut u8, len: u32, from: u64) -> bool {
    // SAFETY: the verifier proves the room at `to`; the helper checks `from`.
    unsafe { generated::bpf_probe_read_kernel(to.cast(), len, from as *const _) == 0 }
}

/// Reads the member at `offset` of the kernel struct at `base`, zero where it cannot be read.
///
/// `DIRECT` programs are BTF tracepoints: the verifier knows the struct, checks the offset, which
/// it knows as it is a frozen constant, against the kernel's BTF, and makes a plain load of it.
#[inline(always)]
pub(crate) fn load<T: Default, const DIRECT: bool>(base: *const u8, offset: u16) -> T {
    let at = base.wrapping_add(usize::from(offset)).cast::<T>();
    if DIRECT {
        // SAFETY: the verifier proves the access; a fault in it reads as zero.
        unsafe { at.read_volatile() }
    } else {
        read(at as u64).unwrap_or_default()
    }
}

/// A `struct sk_buff`.
#[derive(Clone, Copy)]
pub(crate) struct Skb<const DIRECT: bool>(pub(crate) *const u8);

macro_rules! member {
    ($name:ident: $type:ty = $offset:ident) => {
        #[inline(always)]
        pub(crate) fn $name(self) -> $type {
            load::<$type, DIRECT>(self.0, offset!($offset))
        }
    };
}

impl<const DIRECT: bool> Skb<DIRECT> {
    member!(len: u32 = skb_len);
    member!(data_len: u32 = skb_data_len);
    member!(protocol: u16 = skb_protocol);
    member!(network_offset: u16 = skb_network_header);

    /// The `struct net_device`, null when there is none yet.
    #[inline(always)]
    pub(crate) fn dev(self) -> *const u8 {
        load::<usize, DIRECT>(self.0, offset!(skb_dev)) as *const u8
    }

    /// Its address as a mere number, which the verifier lets be split into bytes.
    #[inline(always)]
    pub(crate) fn dev_address(self) -> u64 {
        read(self.0 as u64 + u64::from(offset!(skb_dev))).unwrap_or(0)
    }

    /// The owning `struct sock`, null when there is none.
    #[inline(always)]
    pub(crate) fn sock(self) -> *const u8 {
        load::<usize, DIRECT>(self.0, offset!(skb_sk)) as *const u8
    }

    /// Address of the packet's `struct nf_conn`, 0 when it has none.
    #[inline(always)]
    pub(crate) fn conntrack(self) -> u64 {
        if offset!(skb_nfct) == ABSENT || offset!(ct_tuplehash) == ABSENT {
            return 0;
        }
        // The low three bits are `enum ip_conntrack_info` (NFCT_INFOMASK, linux/skbuff.h).
        load::<u64, DIRECT>(self.0, offset!(skb_nfct)) & !7
    }

    /// Where on IP's path it is, one of `record::hook`, told by its route and devices.
    ///
    /// A packet has no route before routing, and no device while it is sent but not yet at one.
    /// Routed, it keeps the device it came by until it is at the one it leaves by. What is
    /// for this namespace has loopback, index 1, for the route's device.
    #[inline(always)]
    pub(crate) fn hook(self) -> u8 {
        const NOREF: u64 = 1;
        if offset!(skb_dst) == ABSENT || offset!(dst_dev) == ABSENT {
            return hook::UNKNOWN;
        }
        let dev = self.dev_address();
        let dst = read::<u64>(self.0 as u64 + u64::from(offset!(skb_dst))).unwrap_or(0) & !NOREF;
        match (dst, dev) {
            (0, 0) => return hook::UNKNOWN,
            (0, _) => return hook::PREROUTING,
            (_, 0) => return hook::OUTPUT,
            _ => {}
        }
        let ifindex = |dev: u64| read::<u32>(dev + u64::from(offset!(dev_ifindex))).unwrap_or(0);
        let out = read::<u64>(dst + u64::from(offset!(dst_dev))).unwrap_or(0);
        let came_by = load::<u32, DIRECT>(self.0, offset!(skb_iif));
        match (out == dev, ifindex(out)) {
            (_, 0) | (true, 1) => hook::UNKNOWN,
            (false, 1) => hook::INPUT,
            (false, _) => hook::FORWARD,
            (true, left_by) if left_by != came_by => hook::POSTROUTING,
            (true, _) => hook::FORWARD_OR_POSTROUTING,
        }
    }

    /// Whether its buffer is at `head`. A comparison is all that the verifier lets be done with a pointer to bytes.
    #[inline(always)]
    pub(crate) fn has_head(self, head: u64) -> bool {
        load::<u64, DIRECT>(self.0, offset!(skb_head)) == head
    }

    /// Whether its first byte is at `data`.
    #[inline(always)]
    pub(crate) fn has_data(self, data: u64) -> bool {
        // The loader refuses a kernel where `data` does not follow `head`.
        load::<u64, DIRECT>(self.0, offset!(skb_head) + 8) == data
    }

    /// Where the packet's bytes begin and end. Read by the helper in any program: since Linux
    /// 6.16 the verifier would not let these pointers be reckoned with.
    #[inline(always)]
    pub(crate) fn bounds(self) -> Bounds {
        // The loader refuses a kernel where `data` does not follow `head`.
        let [head, data] = read(self.0 as u64 + u64::from(offset!(skb_head))).unwrap_or([0; 2]);
        Bounds {
            head,
            data,
            len: self.len(),
            linear: self.len().saturating_sub(self.data_len()),
        }
    }
}

/// Where the bytes of a packet are.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    /// Address of the buffer.
    pub(crate) head: u64,
    /// Address of the packet's first byte.
    pub(crate) data: u64,
    /// Bytes in the packet.
    pub(crate) len: u32,
    /// How many of them lie in the buffer; the rest is in page fragments.
    pub(crate) linear: u32,
}

impl Bounds {
    /// Bytes from `at` on that lie in the buffer.
    #[inline(always)]
    pub(crate) fn linear_from(&self, at: u64) -> u32 {
        (self.data + u64::from(self.linear)).saturating_sub(at) as u32
    }

    /// Bytes from `at` on, wherever they lie.
    #[inline(always)]
    fn from(&self, at: u64) -> u32 {
        (self.data.wrapping_add(u64::from(self.len))).wrapping_sub(at) as u32
    }
}

/// What the headers of a packet say, and where they are.
#[repr(C)]
pub(crate) struct Headers {
    pub(crate) bounds: Bounds,
    /// Source and destination as they stand, IPv4 ones v4-mapped.
    pub(crate) addresses: [[u32; 4]; 2],
    /// Address of the IP header.
    pub(crate) ip: u64,
    /// Bytes from the IP header to the transport's payload.
    pub(crate) payload_offset: u32,
    /// Bytes of transport payload.
    pub(crate) payload_len: u32,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) sport: [u8; 2],
    pub(crate) dport: [u8; 2],
    pub(crate) protocol: u8,
    pub(crate) tcp_flags: u8,
    pub(crate) marks: u8,
}

impl Headers {
    /// Whether they lie where they were read.
    #[inline(always)]
    pub(crate) fn are_linear(&self) -> bool {
        self.bounds.linear_from(self.ip) >= self.payload_offset
            || self.marks & mark::LATER_FRAGMENT != 0
    }
}

/// Why a packet is not looked at further.
pub(crate) enum Skip {
    /// It is of another protocol.
    NotOurs,
    /// Its headers could not be read.
    Unreadable,
}

/// Whether `protocol` (`skb->protocol`) may carry IP; how many bytes of VLAN tags to pass over
/// is found by [`headers`].
#[inline(always)]
pub(crate) fn may_carry_ip(protocol: u16) -> bool {
    matches!(protocol, IPV4 | IPV6 | VLAN | QINQ)
}

/// Passes over VLAN tags left in the packet: each is a TCI and the next protocol (802.1Q).
#[inline(always)]
pub(crate) fn past_vlan(mut protocol: u16, mut at: u64) -> u64 {
    for _ in 0..2 {
        if protocol != VLAN && protocol != QINQ {
            break;
        }
        protocol = read::<u16>(at + 2).unwrap_or(0);
        at += 4;
    }
    at
}

/// The first bytes of an IP packet: the fixed headers of IPv6 and of TCP, RFC 8200 and 9293.
#[repr(C, align(8))]
pub(crate) struct First(pub(crate) [u8; 60]);

impl First {
    /// The four bytes at `AT`, as they stand.
    #[inline(always)]
    fn word<const AT: usize>(&self) -> u32 {
        u32::from_ne_bytes([self.0[AT], self.0[AT + 1], self.0[AT + 2], self.0[AT + 3]])
    }

    /// Source and destination of an IPv6 header.
    #[inline(always)]
    fn v6_addresses(&self) -> [[u32; 4]; 2] {
        [
            [
                self.word::<8>(),
                self.word::<12>(),
                self.word::<16>(),
                self.word::<20>(),
            ],
            [
                self.word::<24>(),
                self.word::<28>(),
                self.word::<32>(),
                self.word::<36>(),
            ],
        ]
    }
}

/// RFC 4291, section 2.5.5.2.
#[inline(always)]
pub(crate) fn v4_mapped(address: u32) -> [u32; 4] {
    [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), address]
}

/// By words: an assignment becomes a call of `memmove`, which goes byte by byte and
/// needs stack that Linux 5.10 counts also where it is not called.
///
/// # Safety
/// `to` is valid for writes.
#[inline(always)]
pub(crate) unsafe fn copy_addresses(to: *mut [[u32; 4]; 2], from: &[[u32; 4]; 2]) {
    let [[s0, s1, s2, s3], [d0, d1, d2, d3]] = *from;
    // SAFETY: the caller's.
    unsafe { to.write([[s0, s1, s2, s3], [d0, d1, d2, d3]]) }
}

/// Reads the headers of the IP packet at `ip`, which begins with `first`.
#[inline(always)]
pub(crate) fn headers(ip: u64, bounds: Bounds, first: &First) -> Result<Headers, Skip> {
    match first.0[0] >> 4 {
        4 => v4(ip, bounds, first),
        6 => v6(ip, bounds, first),
        _ => Err(Skip::NotOurs),
    }
}

/// Protocols that carry another packet straight after the IP header.
#[inline(always)]
fn is_tunnel(protocol: u8) -> bool {
    matches!(protocol, IP_IN_IP | IPV6_IN_IP | GRE)
}

/// RFC 791, section 3.1.
#[inline(always)]
fn v4(ip: u64, bounds: Bounds, first: &First) -> Result<Headers, Skip> {
    let bytes = &first.0;
    let protocol = bytes[9];
    if !matches!(protocol, UDP | TCP | ICMP) && !is_tunnel(protocol) {
        return Err(Skip::NotOurs);
    }
    let header = u32::from(bytes[0] & 0xf) * 4;
    let total = u32::from(u16::from_be_bytes([bytes[2], bytes[3]]));
    let len = bounds.from(ip);
    // Total length is 0 for a segment larger than 64 KiB (BIG TCP).
    let len = if total == 0 || total > len {
        len
    } else {
        total
    };
    let fragment = u16::from_be_bytes([bytes[6], bytes[7]]);
    let marks = if fragment & 0x1fff != 0 {
        mark::LATER_FRAGMENT
    } else if fragment & 0x2000 != 0 {
        mark::FIRST_FRAGMENT
    } else {
        0
    };
    let mut l4 = [0; 20];
    if header == 20 {
        l4.copy_from_slice(&bytes[20..40]);
    } else {
        l4 = read(ip + u64::from(header)).ok_or(Skip::Unreadable)?;
    }
    let addresses = [v4_mapped(first.word::<12>()), v4_mapped(first.word::<16>())];
    let ip = Ip {
        at: ip,
        header,
        len,
        protocol,
        marks,
        addresses,
    };
    Ok(transport(bounds, &ip, &l4))
}

/// RFC 8200, sections 3 and 4.
#[inline(always)]
fn v6(ip: u64, bounds: Bounds, first: &First) -> Result<Headers, Skip> {
    let bytes = &first.0;
    let mut next = bytes[6];
    let payload = u32::from(u16::from_be_bytes([bytes[4], bytes[5]]));
    let len = bounds.from(ip);
    let len = if payload == 0 || payload + 40 > len {
        len
    } else {
        payload + 40
    };
    let addresses = first.v6_addresses();
    if matches!(next, UDP | TCP | ICMPV6) || is_tunnel(next) {
        let mut l4 = [0; 20];
        l4.copy_from_slice(&bytes[40..60]);
        let ip = Ip {
            at: ip,
            header: 40,
            len,
            protocol: next,
            marks: 0,
            addresses,
        };
        return Ok(transport(bounds, &ip, &l4));
    }
    let mut header = 40;
    let mut marks = 0;
    for _ in 0..EXTENSIONS {
        let extension: [u8; 8] = match next {
            // hop-by-hop, routing, fragment, authentication, destination options
            0 | 43 | 44 | 51 | 60 => read(ip + u64::from(header)).ok_or(Skip::Unreadable)?,
            _ => break,
        };
        header += match next {
            44 => {
                let fragment = u16::from_be_bytes([extension[2], extension[3]]);
                if fragment & 0xfff8 != 0 {
                    marks |= mark::LATER_FRAGMENT;
                } else if fragment & 1 != 0 {
                    marks |= mark::FIRST_FRAGMENT;
                }
                8
            }
            51 => (u32::from(extension[1]) + 2) * 4,
            _ => (u32::from(extension[1]) + 1) * 8,
        };
        next = extension[0];
    }
    if !matches!(next, UDP | TCP | ICMPV6) && !is_tunnel(next) {
        return Err(Skip::NotOurs);
    }
    let l4 = read(ip + u64::from(header)).ok_or(Skip::Unreadable)?;
    let ip = Ip {
        at: ip,
        header,
        len,
        protocol: next,
        marks,
        addresses,
    };
    Ok(transport(bounds, &ip, &l4))
}

/// What an IP header says.
struct Ip {
    /// Address of the header.
    at: u64,
    /// Bytes from there to the transport header.
    header: u32,
    /// Bytes from there to the packet's end.
    len: u32,
    protocol: u8,
    marks: u8,
    addresses: [[u32; 4]; 2],
}

/// RFC 768, RFC 9293 section 3.1, RFC 792, RFC 4443 section 2.1.
///
/// A network card's driver may leave all but the Ethernet header in page fragments; receive
/// offload then pulls in the IP and TCP headers, but not UDP's (`dev_gro_receive`,
/// net/core/gro.c), and `l4` holds no header.
#[inline(always)]
fn transport(bounds: Bounds, ip: &Ip, l4: &[u8; 20]) -> Headers {
    let tcp = ip.protocol == TCP;
    let first = ip.marks & mark::LATER_FRAGMENT == 0;
    let behind = ip.protocol == UDP && first && bounds.linear_from(ip.at) < ip.header + 8;
    let header = match (tcp, behind) {
        (true, _) => u32::from(l4[12] >> 4) * 4,
        (_, true) => 0,
        _ if is_tunnel(ip.protocol) => 0,
        _ => 8,
    };
    let payload_offset = ip.header + header;
    let ports = if behind {
        [0; 4]
    } else {
        [l4[0], l4[1], l4[2], l4[3]]
    };
    Headers {
        bounds,
        addresses: ip.addresses,
        ip: ip.at,
        payload_offset,
        payload_len: ip.len.saturating_sub(payload_offset),
        seq: if tcp {
            u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]])
        } else {
            0
        },
        ack: if tcp {
            u32::from_be_bytes([l4[8], l4[9], l4[10], l4[11]])
        } else {
            0
        },
        sport: [ports[0], ports[1]],
        dport: [ports[2], ports[3]],
        protocol: ip.protocol,
        tcp_flags: if tcp { l4[13] } else { 0 },
        marks: ip.marks | if behind { mark::PORTS_BEHIND } else { 0 },
    }
}

/// The `struct net` that the `possible_net_t` at `offset` of `base` points to, and its inode.
#[inline(always)]
pub(crate) fn netns<const DIRECT: bool>(base: *const u8, offset: u16) -> (*const u8, u32) {
    let net = load::<usize, DIRECT>(base, offset) as *const u8;
    (net, load::<u32, DIRECT>(net, offset!(net_inum)))
}
