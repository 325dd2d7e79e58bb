//! Original tuple ↔ reply tuple: who really asked whom, and which backend it became.
//!
//! A packet's conntrack entry says so where the packet has one; beyond the namespace that
//! translated it, the reply tuple learnt there says it.

use std::{net::SocketAddr, time::Duration};

use rustc_hash::FxHashMap;

use crate::model::{Conntrack, Flow, KtimeNs, Packet, Place, Protocol};

/// A translation is forgotten between one and two such spans after its last new sight.
const SPAN: Duration = Duration::from_secs(60);

/// Most namespaces, one behind the other, that may each translate a packet: a node's and, where
/// one kernel plays several nodes, the next one's.
const NODES: usize = 2;

/// Both ends of an exchange, before NAT, and the backend behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    pub(super) asked: SocketAddr,
    /// `None` when nothing is known to be translated.
    pub(super) backend: Option<SocketAddr>,
    /// The packet goes from client to server.
    pub(super) forward: bool,
}

impl Ends {
    /// Whether the client is told by `error` here, as against on its way.
    pub(super) fn is_told(self, error: &Packet) -> bool {
        error.place == Place::Received && error.flow.dst.ip() == self.client.ip()
    }
}

/// Translations seen lately, by protocol and reply tuple; two generations, so that forgetting
/// costs nothing.
#[derive(Debug)]
pub(super) struct Nat {
    young: FxHashMap<(Protocol, Flow), Flow>,
    old: FxHashMap<(Protocol, Flow), Flow>,
    turned: KtimeNs,
    most: usize,
}

impl Nat {
    /// Remembers at most `most` translations of each generation.
    pub(super) fn new(most: usize) -> Self {
        Self {
            young: FxHashMap::default(),
            old: FxHashMap::default(),
            turned: KtimeNs(0),
            most,
        }
    }

    /// Remembers the entry if it translates anything.
    pub(super) fn learn(&mut self, protocol: Protocol, conntrack: Conntrack) {
        if conntrack.original == conntrack.reply.reversed() {
            return;
        }
        let key = (protocol, conntrack.reply);
        if self.young.get(&key) != Some(&conntrack.original) {
            if self.young.len() >= self.most {
                self.old = std::mem::take(&mut self.young);
            }
            self.young.insert(key, conntrack.original);
        }
    }

    /// Lets old translations go.
    pub(super) fn age(&mut self, now: KtimeNs) {
        if now - self.turned >= SPAN {
            self.turned = now;
            self.old = std::mem::take(&mut self.young);
        }
    }

    /// The original of what answers as `reply`.
    fn original(&self, protocol: Protocol, reply: Flow) -> Option<Flow> {
        let key = (protocol, reply);
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    /// Ends of a packet whose direction only its conntrack entry, or a known translation, tells.
    /// Without either it is taken to go from client to server.
    pub(super) fn ends(&self, protocol: Protocol, packet: &Packet) -> Ends {
        let flow = packet.flow;
        match packet.conntrack {
            Some(conntrack) => self.of_entry(protocol, conntrack, is_forward(conntrack, flow)),
            None => {
                let forward = self.original(protocol, flow).is_none();
                self.of_flow(protocol, flow, forward)
            }
        }
    }

    /// Ends of a packet that says itself whether it goes from client to server: a DNS message,
    /// or a TCP segment with SYN.
    pub(super) fn ends_of_way(&self, protocol: Protocol, packet: &Packet, forward: bool) -> Ends {
        match packet.conntrack {
            // An entry that an answer made has its directions the wrong way round.
            Some(conntrack) if is_forward(conntrack, packet.flow) == forward => {
                self.of_entry(protocol, conntrack, forward)
            }
            // Where it is sent and has no entry nothing was translated yet, whatever an earlier
            // packet with these ports became.
            _ if forward && packet.sender.is_some() => Ends {
                client: packet.flow.src,
                asked: packet.flow.dst,
                backend: None,
                forward,
            },
            _ => self.of_flow(protocol, packet.flow, forward),
        }
    }

    /// Ends of the packet that an ICMP error quotes, taken to go from client to server. The
    /// error itself carries the conntrack entry of what it quotes.
    pub(super) fn ends_of_quoted(&self, protocol: Protocol, error: &Packet, quoted: Flow) -> Ends {
        match error.conntrack {
            Some(conntrack) if is_forward(conntrack, quoted) => {
                self.of_entry(protocol, conntrack, true)
            }
            _ => self.of_flow(protocol, quoted, true),
        }
    }

    fn of_entry(&self, protocol: Protocol, conntrack: Conntrack, forward: bool) -> Ends {
        let backend = conntrack.is_translated().then_some(conntrack.reply.src);
        self.before(protocol, conntrack.original, backend, forward)
    }

    fn of_flow(&self, protocol: Protocol, flow: Flow, forward: bool) -> Ends {
        let asking = if forward { flow } else { flow.reversed() };
        self.before(protocol, asking, None, forward)
    }

    /// Goes back from `asking` through the translations that led to it, to what the client sent.
    fn before(
        &self,
        protocol: Protocol,
        mut asking: Flow,
        mut backend: Option<SocketAddr>,
        forward: bool,
    ) -> Ends {
        for _ in 0..NODES {
            let Some(original) = self.original(protocol, asking.reversed()) else {
                break;
            };
            if backend.is_none() && original.dst != asking.dst {
                backend = Some(asking.dst);
            }
            asking = original;
        }
        Ends {
            client: asking.src,
            asked: asking.dst,
            backend,
            forward,
        }
    }
}

/// Whether a packet with this entry goes the way the entry's first one went.
fn is_forward(conntrack: Conntrack, flow: Flow) -> bool {
    flow.src == conntrack.original.src || flow.src == conntrack.reply.dst
}

#[cfg(test)]
mod tests;
