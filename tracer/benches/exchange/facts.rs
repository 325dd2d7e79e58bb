//! The facts of exchanges that never happened: each through a service address, seen at eight places.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use tracer::model::{
    Comm, Conntrack, Fact, Flow, Ifindex, KtimeNs, NetnsInode, Packet, Place, Sender, SkbId,
    SockId, Transport,
};

/// Places at which an exchange is seen.
pub(crate) const HOPS: usize = 8;

/// One exchange: who asks, who answers, and how fast.
#[derive(Clone, Copy)]
pub(crate) struct Exchange<'a> {
    pub(crate) client: SocketAddr,
    pub(crate) vip: SocketAddr,
    pub(crate) backend: SocketAddr,
    /// DNS id, which tells the skb's address too.
    pub(crate) id: u16,
    pub(crate) name: &'a str,
    /// Type asked for.
    pub(crate) qtype: u8,
    /// Flags of the answer.
    pub(crate) answer: u16,
    /// From one sight to the next.
    pub(crate) hop: Duration,
    /// What the server needs besides.
    pub(crate) server: Duration,
}

impl Exchange<'_> {
    /// Flow, conntrack entry and place of each sight, in order.
    fn sights(&self) -> [(Flow, bool, Place, u32); HOPS] {
        let Self {
            client,
            vip,
            backend,
            ..
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

    /// Its query and its answer.
    pub(crate) fn messages(&self) -> [Bytes; 2] {
        [0x0100, self.answer].map(|flags| {
            let mut wire: Vec<u8> = [self.id, flags, 1, 0, 0, 0]
                .into_iter()
                .flat_map(u16::to_be_bytes)
                .collect();
            for label in self.name.split('.') {
                wire.extend(u8::try_from(label.len()));
                wire.extend_from_slice(label.as_bytes());
            }
            wire.extend_from_slice(&[0, 0, self.qtype, 0, 1]);
            wire.into()
        })
    }

    /// Its facts; it begins at `ktime`.
    pub(crate) fn facts(&self, ktime: KtimeNs) -> [Fact; HOPS] {
        let messages = self.messages();
        let mut at = 0;
        self.sights().map(|(flow, has_entry, place, netns)| {
            at += 1;
            let [query, answer] = &messages;
            let is_answer = at > HOPS / 2;
            let payload = if is_answer { answer } else { query };
            let sends = place == Place::Queued && netns != 2;
            let server = if is_answer {
                self.server
            } else {
                Duration::ZERO
            };
            Fact::Packet(Packet {
                ktime: ktime.plus(self.hop * u32::try_from(at).unwrap_or_default() + server),
                place,
                netns: NetnsInode(netns),
                ifindex: Ifindex(u32::try_from(at).unwrap_or_default()),
                skb: SkbId(0x1000 + u64::from(self.id % 7) * 256 + u64::from(is_answer)),
                flow,
                transport: Transport::Udp,
                conntrack: has_entry.then(|| self.entry()),
                sender: sends.then_some(Sender {
                    pid: Some(netns),
                    comm: Comm(*b"bench\0\0\0\0\0\0\0\0\0\0\0"),
                    cgroup: None,
                    sock: SockId(u64::from(netns)),
                }),
                headers: Bytes::new(),
                payload: payload.clone(),
                payload_len: u32::try_from(payload.len()).unwrap_or_default(),
                again: false,
                unreadable: false,
                tunnel: None,
            })
        })
    }
}
