//! Packet records to facts: byte order is decided here, once.

mod passes;

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::Range,
};

use bytes::Bytes;
use tracer_ebpf::{
    config::{ABSENT, Offsets},
    record::{self, BEFORE_TUPLES, CONNTRACK_BYTES, TUPLE_HASH, mark, part, pass, place, tunnel},
};

pub(super) use self::passes::times;
use self::passes::{Passed, Passes, flow};
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
    #[inline]
    pub(super) fn conntrack(self, bytes: &[u8]) -> Option<Conntrack> {
        let original = bytes.get(BEFORE_TUPLES..BEFORE_TUPLES + TUPLE_HASH)?;
        if *original.get(self.family)? == AF_INET6 {
            self.entry::<16>(bytes)
        } else {
            self.entry::<4>(bytes)
        }
    }

    /// The same, of addresses of so many bytes.
    #[inline]
    fn entry<const ADDRESS: usize>(self, bytes: &[u8]) -> Option<Conntrack>
    where
        IpAddr: From<[u8; ADDRESS]>,
    {
        let (before, hashes) = bytes.split_at_checked(BEFORE_TUPLES)?;
        let (original, reply) = hashes.split_at_checked(TUPLE_HASH)?;
        let zone = before.get(self.zone..).and_then(|zone| zone.first_chunk());
        Some(Conntrack {
            original: self.flow::<ADDRESS>(original)?,
            reply: self.flow::<ADDRESS>(reply)?,
            zone: zone.copied().map_or(0, u16::from_ne_bytes),
        })
    }

    /// One direction's tuple; `None` when it does not lie within `hash`.
    #[inline]
    fn flow<const ADDRESS: usize>(self, hash: &[u8]) -> Option<Flow>
    where
        IpAddr: From<[u8; ADDRESS]>,
    {
        let end = |address: usize, port: usize| {
            let address: [u8; ADDRESS] = *hash.get(address..)?.first_chunk()?;
            let port = u16::from_be_bytes(*hash.get(port..)?.first_chunk()?);
            Some(SocketAddr::new(IpAddr::from(address), port))
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

/// Hands `take` the packet that `bytes`, a packet record with what follows it, tell of, at those `sights` of its places,
/// the first being 0; `None` when they are cut short or contradict themselves. They lie within `batch`, which the
/// packet shares.
pub fn decode(
    bytes: &[u8],
    sights: Range<usize>,
    batch: &Bytes,
    tuples: TupleLayout,
    take: &mut impl FnMut(&Fact),
) -> Option<()> {
    first(bytes, batch, tuples, |fact, entry| {
        if sights.start == 0 {
            take(fact);
        }
        if sights.end > 1 {
            further(fact, entry, bytes, sights, tuples, take)?;
        }
        Some(())
    })
}

/// Hands `take` the packet at its further places; at the first its conntrack entry was in the bytes `entry`.
fn further<'a>(
    fact: &mut Fact,
    mut entry: Option<&'a [u8]>,
    bytes: &'a [u8],
    sights: Range<usize>,
    tuples: TupleLayout,
    take: &mut impl FnMut(&Fact),
) -> Option<()> {
    let mut passes = Passes::of(bytes)?;
    let Fact::Packet(packet) = fact else {
        return None;
    };
    let (began_in, sender) = (packet.netns, packet.sender);
    for sight in 1..sights.end {
        let Fact::Packet(packet) = fact else {
            return None;
        };
        let Passed {
            pass,
            conntrack,
            turned,
        } = passes.next()?;
        // Only what changed is written: these are large.
        if let Some(turned) = turned {
            packet.flow = flow(turned)?;
        }
        entry = conntrack.or(entry);
        if pass.parts & (pass::CONNTRACK | pass::SAME_CONNTRACK) == 0 {
            packet.conntrack = None;
        } else if let Some(entry) = entry
            && (conntrack.is_some() || packet.conntrack.is_none())
        {
            packet.conntrack = tuples.conntrack(entry);
        }
        packet.ktime = KtimeNs(pass.ktime_ns);
        packet.netns = NetnsInode(pass.netns);
        packet.ifindex = Ifindex(pass.ifindex);
        packet.place = match pass.place {
            place::QUEUED => Place::Queued,
            place::RECEIVED => Place::Received,
            _ => return None,
        };
        // The sender is known where the packet leaves a device of the sender's namespace.
        let leaves = packet.netns == began_in && packet.place == Place::Queued;
        packet.sender = sender.filter(|_| leaves);
        packet.again = sight > sights.start;
        if sight >= sights.start {
            take(fact);
        }
    }
    Some(())
}

/// Hands `then` the packet at its first place, and the bytes of its conntrack entry there. It is not returned, for it is
/// large and would be copied.
#[inline]
fn first<'a>(
    bytes: &'a [u8],
    batch: &Bytes,
    tuples: TupleLayout,
    then: impl FnOnce(&mut Fact, Option<&'a [u8]>) -> Option<()>,
) -> Option<()> {
    let mut record: record::Packet = tracer_ebpf::read(bytes)?;
    let mut rest = bytes.get(size_of_val(&record)..)?;
    let mut entry = None;
    if record.parts & part::CONNTRACK != 0 {
        let bytes;
        (bytes, rest) = rest.split_at_checked(CONNTRACK_BYTES)?;
        entry = Some(bytes);
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
    let mut fact = Fact::Packet(Packet {
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
        conntrack: entry.and_then(|entry| tuples.conntrack(entry)),
        sender: origin
            .filter(|origin| origin.sock != 0 && tunnel.is_none())
            .map(|origin| Sender {
                pid: (origin.pid != 0).then_some(origin.pid),
                comm: Comm::of_task(origin.comm),
                cgroup: (origin.cgroup != 0).then_some(CgroupId(origin.cgroup)),
                sock: SockId(origin.sock),
            }),
        headers: batch.slice_ref(headers.unwrap_or_default()),
        payload: batch.slice_ref(payload),
        payload_len: record.payload_len,
        again: false,
        unreadable: record.marks & mark::UNREADABLE != 0,
        tunnel,
    });
    then(&mut fact, entry)
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

    use tracer_ebpf::record::{BEGINNING, kind};

    use super::*;
    use crate::probes::Decoder;

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
        let flow = layout().flow::<4>(&hash).unwrap();
        assert_eq!(flow.src, "192.0.2.1:40000".parse().unwrap());
        assert_eq!(flow.dst, "10.96.0.10:53".parse().unwrap());
    }

    #[test]
    fn an_entry_of_v6_is_told_by_its_family() {
        let mut entry = [0; CONNTRACK_BYTES];
        for at in [BEFORE_TUPLES, BEFORE_TUPLES + TUPLE_HASH] {
            entry[at + 16..at + 32]
                .copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
            entry[at + 34] = AF_INET6;
        }
        let Conntrack {
            original, reply, ..
        } = layout().conntrack(&entry).unwrap();
        let expected: IpAddr = "2001:db8::1".parse().unwrap();
        assert_eq!([original.src.ip(), reply.src.ip()], [expected; 2]);
        assert_eq!(
            layout().conntrack(&entry[..CONNTRACK_BYTES - 8]),
            None,
            "cut short"
        );
    }

    #[test]
    fn a_layout_outside_the_record_tells_nothing() {
        let outside = TupleLayout {
            dport: TUPLE_HASH,
            ..layout()
        };
        assert_eq!(outside.flow::<4>(&[0; TUPLE_HASH]), None);
        let no_family = TupleLayout {
            family: TUPLE_HASH,
            ..layout()
        };
        assert_eq!(no_family.conntrack(&[0; CONNTRACK_BYTES]), None);
    }

    fn of(record: &[u8]) -> Option<Packet> {
        at(record, 0)
    }

    fn at(record: &[u8], sight: usize) -> Option<Packet> {
        let batch = Bytes::copy_from_slice(record);
        let mut packets = Vec::new();
        let mut take = |fact: &Fact| {
            if let Fact::Packet(packet) = fact {
                packets.push(packet.clone());
            }
        };
        decode(&batch, sight..sight + 1, &batch, layout(), &mut take)?;
        packets.pop()
    }

    /// A UDP record with both parts and `captured` bytes of payload.
    fn record(captured: u16) -> Vec<u8> {
        let mut bytes = vec![0; size_of::<record::Packet>()];
        bytes[..4].copy_from_slice(&kind::PACKET.to_ne_bytes());
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

    /// The same record with places that the packet passed after: `netns`, side, parts and what they are.
    fn passing(places: &[(u32, u8, u8, &[u8])]) -> Vec<u8> {
        let mut bytes = record(3);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        for (index, (netns, place, parts, more)) in places.iter().enumerate() {
            bytes.extend((77 + index as u64).to_ne_bytes());
            bytes.extend(netns.to_ne_bytes());
            bytes.extend(5_u32.to_ne_bytes());
            bytes.extend([*place, *parts, 0, 0, 0, 0, 0, 0]);
            bytes.extend(*more);
        }
        bytes
    }

    #[test]
    fn at_a_further_place_a_packet_has_what_it_had_but_place_and_time() {
        let bytes = passing(&[(9, place::RECEIVED, 0, &[])]);
        assert_eq!(Decoder::times(&bytes)[..], [KtimeNs(0), KtimeNs(77)]);
        let (first, further) = (at(&bytes, 0).unwrap(), at(&bytes, 1).unwrap());
        assert_eq!((first.ktime, first.netns), (KtimeNs(0), NetnsInode(0)));
        assert_eq!((further.ktime, further.netns), (KtimeNs(77), NetnsInode(9)));
        assert_eq!(
            (further.place, further.ifindex),
            (Place::Received, Ifindex(5))
        );
        assert_eq!(
            (further.flow, &further.payload[..]),
            (first.flow, &b"xxx"[..])
        );
        assert!(first.sender.is_some() && further.sender.is_none());
        assert!(first.conntrack.is_some() && further.conntrack.is_none());
        assert!(at(&bytes, 2).is_none(), "there is no third");
    }

    #[test]
    fn a_packet_leaving_by_a_second_device_of_its_senders_namespace_has_its_sender_there_too() {
        let leaving = |netns| {
            let place: (_, _, _, &[u8]) = (netns, place::QUEUED, pass::SAME_CONNTRACK, &[]);
            at(&passing(&[place]), 1).unwrap()
        };
        assert!(leaving(0).sender.is_some() && leaving(0).conntrack.is_some());
        assert!(leaving(9).sender.is_none() && leaving(9).conntrack.is_some());
    }

    #[test]
    fn a_translated_packet_has_its_new_addresses_and_its_entry_from_there_on() {
        let mut entry = [0; CONNTRACK_BYTES];
        let reply = BEFORE_TUPLES + TUPLE_HASH;
        entry[reply + 16..reply + 20].copy_from_slice(&[10, 244, 0, 21]);
        let mut v4 = [0; BEGINNING];
        v4[0] = 0x45;
        v4[12..24].copy_from_slice(&[10, 244, 0, 11, 10, 244, 0, 21, 0x9c, 0x40, 0, 53]);
        let turned = [&entry[..], &v4].concat();
        let places = [
            (9, place::RECEIVED, 0, &[][..]),
            (9, place::QUEUED, pass::CONNTRACK | pass::TURNED, &turned),
            (8, place::RECEIVED, 0, &[]),
        ];
        let bytes = passing(&places);
        let [received, queued, there] = [1, 2, 3].map(|sight| at(&bytes, sight).unwrap());
        assert_eq!(received.conntrack, None);
        let conntrack = queued.conntrack.unwrap();
        assert_eq!(conntrack.reply.src.ip(), IpAddr::from([10, 244, 0, 21]));
        assert_eq!(queued.flow.src, "10.244.0.11:40000".parse().unwrap());
        assert_eq!(queued.flow.dst, "10.244.0.21:53".parse().unwrap());
        assert_eq!((there.flow, there.conntrack), (queued.flow, None));
        assert_eq!(Decoder::times(&bytes)[3], KtimeNs(79));
        for len in 0..bytes.len() {
            // Where a place ends, and in the word after it, the record was not longer then; elsewhere it is cut short.
            let whole = (0..4).find(|&further| {
                let padded = passing(&places[..further]).len();
                let end = if further == 0 {
                    record(3).len()
                } else {
                    padded
                };
                (end..padded + 8).contains(&len)
            });
            assert_eq!(
                Decoder::times(&bytes[..len]).len(),
                whole.map_or(0, |further| further + 1),
                "cut short at {len}"
            );
            assert!(at(&bytes[..len], 3).is_none(), "cut short at {len}");
        }
    }

    #[test]
    fn a_record_cut_short_is_no_fact() {
        let whole = record(3);
        for len in 0..whole.len() {
            assert!(of(&whole[..len]).is_none(), "{len}");
        }
    }
}
