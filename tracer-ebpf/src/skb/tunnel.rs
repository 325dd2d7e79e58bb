//! Packets within packets: where the inner one begins. VXLAN, Geneve, GRE, IP in IP, and the
//! frames that Weave Net's router sends by itself.

use super::{GRE, Headers, IP_IN_IP, IPV4, IPV6, IPV6_IN_IP, UDP, may_carry_ip, past_vlan, read};
use crate::record::{mark, tunnel};

/// VXLAN: Linux and Flannel, IANA and Calico, Weave Net's fast datapath.
const VXLAN_PORTS: [u16; 3] = [8472, 4789, 6784];
/// IANA (RFC 8926, section 3.3).
const GENEVE_PORT: u16 = 6081;
/// Weave Net's sleeve.
const SLEEVE_PORT: u16 = 6783;

/// Ethertype of an Ethernet frame in GRE or Geneve (RFC 1701, RFC 8926 section 3.4).
const ETHERNET: u16 = 0x6558_u16.to_be();
/// Destination, source, ethertype (IEEE 802.3).
const ETHERNET_HEADER: u64 = 14;
/// What may follow: no inner packet is shorter than an IPv4 header.
const SHORTEST: u32 = 20;

/// A packet in another.
pub(crate) struct Inner {
    /// Address of its IP header.
    pub(crate) ip: u64,
    /// One of `record::tunnel`.
    pub(crate) kind: u8,
    /// VXLAN's or Geneve's network identifier, GRE's key; 0 where there is none.
    pub(crate) network: u32,
}

/// The packet that `outer` carries, if it carries one with IP in it and that can be read.
#[inline(always)]
pub(crate) fn inside(outer: &Headers) -> Option<Inner> {
    if outer.marks & (mark::LATER_FRAGMENT | mark::PORTS_BEHIND) != 0 {
        return None;
    }
    let at = outer.ip + u64::from(outer.payload_offset);
    let inner = match outer.protocol {
        UDP => in_udp(u16::from_be_bytes(outer.dport), at)?,
        IP_IN_IP | IPV6_IN_IP => Inner {
            ip: at,
            kind: tunnel::IPIP,
            network: 0,
        },
        GRE => gre(at)?,
        _ => return None,
    };
    (outer.bounds.linear_from(inner.ip) >= SHORTEST).then_some(inner)
}

#[inline(always)]
fn in_udp(port: u16, at: u64) -> Option<Inner> {
    let [a, b, c] = VXLAN_PORTS;
    if port == a || port == b || port == c {
        // RFC 7348, section 5: flags, reserved, network identifier, reserved.
        let header: [u8; 8] = read(at)?;
        let valid = header[0] & 8 != 0;
        return Some(Inner {
            ip: in_ethernet(at + 8).filter(|_| valid)?,
            kind: tunnel::VXLAN,
            network: network(&header),
        });
    }
    if port == GENEVE_PORT {
        // RFC 8926, section 3.4: version and options' length, flags, protocol, identifier.
        let header: [u8; 8] = read(at)?;
        let at = at + 8 + u64::from(header[0] & 0x3f) * 4;
        return Some(Inner {
            ip: of_ethertype(u16::from_ne_bytes([header[2], header[3]]), at)?,
            kind: tunnel::GENEVE,
            network: network(&header),
        });
    }
    if port == SLEEVE_PORT {
        // Sending peer, then for each frame: source peer, destination peer, length.
        return Some(Inner {
            ip: in_ethernet(at + 6 + 14)?,
            kind: tunnel::SLEEVE,
            network: 0,
        });
    }
    None
}

#[inline(always)]
fn network(header: &[u8; 8]) -> u32 {
    u32::from_be_bytes([0, header[4], header[5], header[6]])
}

/// RFC 2784, section 2.1, and RFC 2890, section 2: flags and version, protocol, then checksum,
/// key and sequence number where the flags say so.
#[inline(always)]
fn gre(at: u64) -> Option<Inner> {
    const CHECKSUM: u8 = 0x80;
    const KEY: u8 = 0x20;
    const SEQUENCE: u8 = 0x10;
    let header: [u8; 4] = read(at)?;
    let word = |flag: u8| u64::from(header[0] & flag != 0) * 4;
    let key_at = at + 4 + word(CHECKSUM);
    let network = if header[0] & KEY != 0 {
        u32::from_be(read(key_at)?)
    } else {
        0
    };
    let inner = key_at + word(KEY) + word(SEQUENCE);
    Some(Inner {
        ip: of_ethertype(u16::from_ne_bytes([header[2], header[3]]), inner)?,
        kind: tunnel::GRE,
        network,
    })
}

#[inline(always)]
fn of_ethertype(ethertype: u16, at: u64) -> Option<u64> {
    match ethertype {
        ETHERNET => in_ethernet(at),
        IPV4 | IPV6 => Some(at),
        _ => None,
    }
}

#[inline(always)]
fn in_ethernet(frame: u64) -> Option<u64> {
    let ethertype = read(frame + ETHERNET_HEADER - 2)?;
    may_carry_ip(ethertype).then(|| past_vlan(ethertype, frame + ETHERNET_HEADER))
}
