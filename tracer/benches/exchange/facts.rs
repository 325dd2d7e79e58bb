//! The facts of exchanges that never happened: each through a service address, seen at eight places.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use tracer::model::{
    Comm, Conntrack, Fact, Flow, Ifindex, KtimeNs, NetnsInode, Packet, Place, Sender, SkbId,
    SockId, Transport,
};

/// Places at which an exchange is seen.
pub(crate) const HOPS: usize = 8;

/// Both ends of an exchange, before and after NAT.
struct Ends {
    client: SocketAddr,
    vip: SocketAddr,
    backend: SocketAddr,
}

impl Ends {
    fn new(port: u16) -> Self {
        Self {
            client: ([192, 0, 2, 1], port).into(),
            vip: ([10, 96, 0, 10], 53).into(),
            backend: ([192, 0, 2, 53], 53).into(),
        }
    }

    /// Flow, conntrack entry and place of each sight, in order.
    fn sights(&self) -> [(Flow, bool, Place, u32); HOPS] {
        let Self {
            client,
            vip,
            backend,
        } = *self;
        let flow = |src, dst| Flow { src, dst };
        [
            (flow(client, vip), false, Place::Queued, 1),
            (flow(client, vip), false, Place::Received, 2),
            (flow(client, backend), true, Place::Queued, 2),
            (flow(client, backend), false, Place::Received, 3),
            (flow(backend, client), false, Place::Queued, 3),
            (flow(backend, client), false, Place::Received, 2),
            (flow(vip, client), true, Place::Queued, 2),
            (flow(vip, client), false, Place::Received, 1),
        ]
    }

    fn entry(&self) -> Conntrack {
        Conntrack {
            original: Flow {
                src: self.client,
                dst: self.vip,
            },
            reply: Flow {
                src: self.backend,
                dst: self.client,
            },
            zone: 0,
        }
    }
}

/// A DNS message about the address of `name`.
pub(crate) fn message(id: u16, flags: u16, name: &str) -> Bytes {
    let mut wire: Vec<u8> = [id, flags, 1, 0, 0, 0]
        .into_iter()
        .flat_map(u16::to_be_bytes)
        .collect();
    for label in name.split('.') {
        wire.extend(u8::try_from(label.len()));
        wire.extend_from_slice(label.as_bytes());
    }
    wire.extend_from_slice(&[0, 0, 1, 0, 1]);
    wire.into()
}

/// The facts of exchange `number`, which begins at `ktime` and asks for `name`, from one of `ports` ports.
pub(crate) fn exchange(number: u64, ktime: KtimeNs, ports: u16, name: &str) -> [Fact; HOPS] {
    let low = u16::try_from(number & 0xffff).unwrap_or_default();
    let ends = Ends::new(40_000 + low % ports);
    let messages = [message(low, 0x0100, name), message(low, 0x8180, name)];
    let mut at = 0;
    ends.sights().map(|(flow, has_entry, place, netns)| {
        at += 1;
        let [query, answer] = &messages;
        let payload = if at <= HOPS / 2 { query } else { answer };
        let sends = place == Place::Queued && netns != 2;
        Fact::Packet(Packet {
            ktime: ktime.plus(Duration::from_micros(5 * at as u64)),
            place,
            netns: NetnsInode(netns),
            ifindex: Ifindex(u32::try_from(at).unwrap_or_default()),
            skb: SkbId(0x1000 + (number % 7) * 256 + u64::from(at > HOPS / 2)),
            flow,
            transport: Transport::Udp,
            conntrack: has_entry.then(|| ends.entry()),
            sender: sends.then_some(Sender {
                pid: Some(netns),
                comm: Comm(*b"bench\0\0\0\0\0\0\0\0\0\0\0"),
                cgroup: None,
                sock: SockId(u64::from(netns)),
            }),
            headers: Bytes::new(),
            payload: payload.clone(),
            payload_len: u32::try_from(payload.len()).unwrap_or_default(),
            unreadable: false,
            tunnel: None,
        })
    })
}
