//! Original tuple ↔ reply tuple: who really asked whom, and which backend it became.
//!
//! A packet's conntrack entry says so where the packet has one; beyond the namespace that
//! translated it, the reply tuple learnt there says it.

use std::{net::SocketAddr, time::Duration};

use rustc_hash::FxHashMap;

use crate::model::{Conntrack, Flow, KtimeNs, Packet, Protocol};

/// A translation is forgotten between one and two such spans after its last new sight.
const SPAN: Duration = Duration::from_secs(60);

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
            Some(conntrack) => {
                let forward = flow.src == conntrack.original.src || flow.src == conntrack.reply.dst;
                of_conntrack(conntrack, forward)
            }
            None if self.original(protocol, flow).is_some() => self.oriented(protocol, flow, false),
            None => self.oriented(protocol, flow, true),
        }
    }

    /// Ends of a DNS message, which says itself whether it goes from client to server.
    pub(super) fn dns_ends(&self, protocol: Protocol, packet: &Packet, forward: bool) -> Ends {
        let flow = packet.flow;
        if let Some(conntrack) = packet.conntrack {
            let by_entry = flow.src == conntrack.original.src || flow.src == conntrack.reply.dst;
            // An entry first seen by an answer has its directions the wrong way round.
            if by_entry == forward {
                return of_conntrack(conntrack, forward);
            }
        }
        self.oriented(protocol, flow, forward)
    }

    /// Ends of the packet that an ICMP error quotes, taken to go from client to server. The
    /// error itself carries the conntrack entry of what it quotes.
    pub(super) fn quoted_ends(&self, protocol: Protocol, error: &Packet, quoted: Flow) -> Ends {
        match error.conntrack {
            Some(conntrack)
                if conntrack.original.src == quoted.src || conntrack.reply.dst == quoted.src =>
            {
                of_conntrack(conntrack, true)
            }
            _ => self.oriented(protocol, quoted, true),
        }
    }

    fn oriented(&self, protocol: Protocol, flow: Flow, forward: bool) -> Ends {
        let asking = if forward { flow } else { flow.reversed() };
        match self.original(protocol, asking.reversed()) {
            Some(original) => Ends {
                client: original.src,
                asked: original.dst,
                backend: (original.dst != asking.dst).then_some(asking.dst),
                forward,
            },
            None => Ends {
                client: asking.src,
                asked: asking.dst,
                backend: None,
                forward,
            },
        }
    }
}

fn of_conntrack(conntrack: Conntrack, forward: bool) -> Ends {
    Ends {
        client: conntrack.original.src,
        asked: conntrack.original.dst,
        backend: conntrack.is_translated().then_some(conntrack.reply.src),
        forward,
    }
}
