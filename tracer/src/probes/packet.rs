//! Packet records to facts: byte order is decided here, once.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use tracer_ebpf::{
    config::{ABSENT, Offsets},
    record::{self, BEFORE_TUPLES, CONNTRACK_BYTES, TUPLE_HASH, mark, part, place, tunnel},
};

use super::drop;
use crate::model::{
    CgroupId, Comm, Conntrack, Fact, Flow, Ifindex, KtimeNs, NetnsInode, Packet, Place, Sender,
    SkbId, SockId, Transport,
    fact::{TcpFlags, Tunnel, TunnelKind},
};

/// IANA protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;
/// include/linux/socket.h
const AF_INET6: u8 = 10;

/// Where a tuple's members lie within `struct nf_conntrack_tuple_hash`, from BTF.
#[derive(Clone, Copy, Debug)]
pub struct TupleLayout {
    saddr: usize,
    sport: usize,
    family: usize,
    daddr: usize,
    dport: usize,
    /// Within the bytes before the tuples; beyond them where the kernel knows no zones.
    zone: usize,
}

impl TupleLayout {
    /// From the offsets the programs were loaded with. Where the kernel has no conntrack the
    /// layout is never used, for no packet has an entry.
    pub fn new(offsets: &Offsets) -> Self {
        let within = |member: u16| match (member, offsets.hash_tuple) {
            (ABSENT, _) | (_, ABSENT) => TUPLE_HASH,
            (member, tuple) => usize::from(tuple) + usize::from(member),
        };
        Self {
            saddr: within(offsets.tuple_saddr),
            sport: within(offsets.tuple_sport),
            family: within(offsets.tuple_family),
            daddr: within(offsets.tuple_daddr),
            dport: within(offsets.tuple_dport),
            zone: match offsets.ct_zone {
                ABSENT => BEFORE_TUPLES,
                zone => (usize::from(zone) + BEFORE_TUPLES)
                    .saturating_sub(usize::from(offsets.ct_tuplehash)),
            },
        }
    }

    /// The entry of whose `struct nf_conn` these are the bytes around the tuples.
    pub(super) fn conntrack(self, bytes: &[u8]) -> Option<Conntrack> {
        let (before, hashes) = bytes.split_at_checked(BEFORE_TUPLES)?;
        let (original, reply) = hashes.split_at_checked(TUPLE_HASH)?;
        let zone = before
            .get(self.zone..self.zone + 2)
            .and_then(|zone| zone.try_into().ok());
        Some(Conntrack {
            original: self.flow(original)?,
            reply: self.flow(reply)?,
            zone: zone.map_or(0, u16::from_ne_bytes),
        })
    }

    /// One direction's tuple; `None` when it does not lie within `hash`.
    fn flow(self, hash: &[u8]) -> Option<Flow> {
        let v6 = *hash.get(self.family)? == AF_INET6;
        let end = |address: usize, port: usize| {
            let port: [u8; 2] = hash.get(port..port + 2)?.try_into().ok()?;
            let ip = if v6 {
                let bytes: [u8; 16] = hash.get(address..address + 16)?.try_into().ok()?;
                IpAddr::from(bytes)
            } else {
                let bytes: [u8; 4] = hash.get(address..address + 4)?.try_into().ok()?;
                IpAddr::from(bytes)
            };
            Some(SocketAddr::new(ip, u16::from_be_bytes(port)))
        };
        Some(Flow {
            src: end(self.saddr, self.sport)?,
            dst: end(self.daddr, self.dport)?,
        })
    }
}

/// Address and port from their wire form, a v4-mapped address as the IPv4 address it is.
pub fn socket_addr(address: [u8; 16], port: [u8; 2]) -> SocketAddr {
    let ip = Ipv6Addr::from(address).to_canonical();
    SocketAddr::new(ip, u16::from_be_bytes(port))
}

/// The bytes of an address that came in words.
pub(super) fn address(words: [u32; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, word) in bytes.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// The packet that `bytes`, a packet record with what follows it, tell of; `None` when they are
/// cut short or contradict themselves. They lie within `batch`, which the packet shares.
///
/// It is a fact at once, for it is large and would be copied to become one.
pub fn decode(bytes: &[u8], batch: &Bytes, tuples: TupleLayout) -> Option<Fact> {
    let mut record: record::Packet = tracer_ebpf::read(bytes)?;
    let mut rest = bytes.get(size_of_val(&record)..)?;
    let mut conntrack = None;
    if record.parts & part::CONNTRACK != 0 {
        let entry;
        (entry, rest) = rest.split_at_checked(CONNTRACK_BYTES)?;
        conntrack = tuples.conntrack(entry);
    }
    let mut origin = None;
    if record.parts & part::ORIGIN != 0 {
        origin = Some(tracer_ebpf::read::<record::Origin>(rest)?);
        rest = rest.get(size_of::<record::Origin>()..)?;
    }
    let mut tunnel = None;
    if record.parts & part::OUTER != 0 {
        tunnel = Some(Box::new(carrier(&tracer_ebpf::read(rest)?)?));
        rest = rest.get(size_of::<record::Outer>()..)?;
    }
    let mut payload = rest.get(usize::from(record.skip)..usize::from(record.captured))?;
    let mut skip = usize::from(record.skip);
    if record.marks & mark::PORTS_BEHIND != 0 {
        // RFC 768: source port, destination port, length, checksum.
        let header: &[u8; 8];
        (header, payload) = payload.split_first_chunk()?;
        skip += header.len();
        record.sport = [header[0], header[1]];
        record.dport = [header[2], header[3]];
        record.payload_len = record.payload_len.saturating_sub(8);
    }
    let headers = rest.get(usize::from(record.network)..skip);
    let (sport, dport, transport) = transport(&record);
    let [src, dst] = record.addresses;
    Some(Fact::Packet(Packet {
        ktime: KtimeNs(record.ktime_ns),
        place: match record.place {
            place::QUEUED => Place::Queued,
            place::RECEIVED => Place::Received,
            place::DROPPED => Place::Dropped {
                reason: record.reason,
                location: origin.map_or(0, |origin| origin.location),
                hook: origin.and_then(|origin| drop::hook(origin.hook)),
            },
            place::REFUSED => {
                let [.., kind, code] = record.reason.to_be_bytes();
                Place::Refused { kind, code }
            }
            _ => return None,
        },
        netns: NetnsInode(record.netns),
        ifindex: Ifindex(record.ifindex),
        skb: SkbId(record.skb),
        flow: Flow {
            src: socket_addr(address(src), sport),
            dst: socket_addr(address(dst), dport),
        },
        transport,
        conntrack,
        sender: origin
            .filter(|origin| origin.sock != 0 && tunnel.is_none())
            .map(|origin| Sender {
                pid: (origin.pid != 0).then_some(origin.pid),
                comm: Comm(origin.comm),
                cgroup: (origin.cgroup != 0).then_some(CgroupId(origin.cgroup)),
                sock: SockId(origin.sock),
            }),
        headers: batch.slice_ref(headers.unwrap_or_default()),
        payload: batch.slice_ref(payload),
        payload_len: record.payload_len,
        unreadable: record.marks & mark::UNREADABLE != 0,
        tunnel,
    }))
}

fn carrier(outer: &record::Outer) -> Option<Tunnel> {
    let [src, dst] = outer
        .addresses
        .map(|words| Ipv6Addr::from(address(words)).to_canonical());
    let kind = match outer.kind {
        tunnel::VXLAN => TunnelKind::Vxlan,
        tunnel::GENEVE => TunnelKind::Geneve,
        tunnel::GRE => TunnelKind::Gre,
        tunnel::IPIP => TunnelKind::IpIp,
        tunnel::SLEEVE => TunnelKind::Sleeve,
        _ => return None,
    };
    Some(Tunnel {
        kind,
        src,
        dst,
        network: outer.network,
    })
}

fn transport(record: &record::Packet) -> ([u8; 2], [u8; 2], Transport) {
    if record.marks & mark::LATER_FRAGMENT != 0 {
        return ([0; 2], [0; 2], Transport::LaterFragment);
    }
    match record.protocol {
        UDP => (record.sport, record.dport, Transport::Udp),
        TCP => {
            let flags = TcpFlags(record.tcp_flags);
            let transport = Transport::Tcp {
                flags,
                seq: record.seq,
                ack: record.ack,
            };
            (record.sport, record.dport, transport)
        }
        // For ICMP the bytes of the source port are type and code.
        _ => {
            let [kind, code] = record.sport;
            ([0; 2], [0; 2], Transport::IcmpError { kind, code })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    fn layout() -> TupleLayout {
        TupleLayout {
            saddr: 16,
            sport: 32,
            family: 34,
            daddr: 36,
            dport: 52,
            zone: 4,
        }
    }

    #[test]
    fn a_tuple_is_read_in_network_order() {
        let mut hash = [0; TUPLE_HASH];
        hash[16..20].copy_from_slice(&[192, 0, 2, 1]);
        hash[32..34].copy_from_slice(&[0x9c, 0x40]);
        hash[34] = 2;
        hash[36..40].copy_from_slice(&[10, 96, 0, 10]);
        hash[52..54].copy_from_slice(&[0, 53]);
        let flow = layout().flow(&hash).unwrap();
        assert_eq!(flow.src, "192.0.2.1:40000".parse().unwrap());
        assert_eq!(flow.dst, "10.96.0.10:53".parse().unwrap());
    }

    #[test]
    fn a_v6_tuple_is_told_by_its_family() {
        let mut hash = [0; TUPLE_HASH];
        hash[16..32].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        hash[34] = AF_INET6;
        let flow = layout().flow(&hash).unwrap();
        assert_eq!(flow.src.ip(), "2001:db8::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_layout_outside_the_record_tells_nothing() {
        let outside = TupleLayout {
            dport: TUPLE_HASH,
            ..layout()
        };
        assert_eq!(outside.flow(&[0; TUPLE_HASH]), None);
    }

    fn of(record: &[u8]) -> Option<Packet> {
        let batch = Bytes::copy_from_slice(record);
        match decode(&batch, &batch, layout())? {
            Fact::Packet(packet) => Some(packet),
            _ => None,
        }
    }

    /// A UDP record with both parts and `captured` bytes of payload.
    fn record(captured: u16) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<record::Packet>()];
        bytes[4..6].copy_from_slice(&captured.to_ne_bytes());
        bytes[offset_of!(record::Packet, protocol)] = UDP;
        bytes[offset_of!(record::Packet, place)] = place::QUEUED;
        bytes[offset_of!(record::Packet, parts)] = part::CONNTRACK | part::ORIGIN;
        bytes.resize(bytes.len() + CONNTRACK_BYTES, 0);
        bytes.resize(bytes.len() + size_of::<record::Origin>(), 7);
        bytes.resize(bytes.len() + usize::from(captured), b'x');
        bytes
    }

    #[test]
    fn what_follows_a_record_is_found_behind_it() {
        let packet = of(&record(3)).unwrap();
        assert_eq!(&packet.payload[..], b"xxx");
        assert!(packet.conntrack.is_some());
        assert_eq!(packet.sender.unwrap().pid, Some(0x0707_0707));
    }

    #[test]
    fn ports_that_the_kernel_could_not_read_are_read_from_what_it_copied() {
        let mut bytes = record(28 + 8 + 3);
        bytes[6..8].copy_from_slice(&28_u16.to_ne_bytes());
        bytes[offset_of!(record::Packet, payload_len)..][..4]
            .copy_from_slice(&11_u32.to_ne_bytes());
        bytes[offset_of!(record::Packet, marks)] = mark::PORTS_BEHIND;
        let udp = bytes.len() - 11;
        bytes[udp..udp + 8].copy_from_slice(&[0, 53, 0x9c, 0x40, 0, 11, 0, 0]);
        let packet = of(&bytes).unwrap();
        assert_eq!(
            (packet.flow.src.port(), packet.flow.dst.port()),
            (53, 40000)
        );
        assert_eq!(&packet.payload[..], b"xxx");
        assert_eq!(packet.payload_len, 3);
        assert_eq!(packet.headers.len(), 28 + 8, "up to the payload");
    }

    #[test]
    fn a_record_cut_short_is_no_fact() {
        let whole = record(3);
        for len in 0..whole.len() {
            assert!(of(&whole[..len]).is_none(), "{len}");
        }
    }
}
