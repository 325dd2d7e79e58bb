//! Original tuple ↔ reply tuple: who really asked whom, and which backend it became.
//!
//! A packet's conntrack entry says so where the packet has one; beyond the namespace that
//! translated it, the reply tuple learnt there says it.

use std::{net::SocketAddr, time::Duration};

use rustc_hash::FxHashMap;

use crate::model::{Conntrack, Flow, KtimeNs, Packet, Place, Protocol};

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

impl Ends {
    /// Whether the client is told by `error` here, as against on its way.
    pub(super) fn is_told(self, error: &Packet) -> bool {
        error.place == Place::Received && error.flow.dst.ip() == self.client.ip()
    }
}

/// What a flow was before it was translated.
#[derive(Clone, Copy, Debug)]
struct Before {
    /// In the namespace that translated it.
    here: Flow,
    /// As the client sent it: another namespace may have translated it on its way here, a node's
    /// say, where one kernel plays several.
    first: Flow,
}

/// Translations seen lately, by protocol and reply tuple; two generations, so that forgetting
/// costs nothing.
#[derive(Debug)]
pub(super) struct Nat {
    young: FxHashMap<(Protocol, Flow), Before>,
    old: FxHashMap<(Protocol, Flow), Before>,
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
    pub(super) fn learn(&mut self, protocol: Protocol, conntrack: &Conntrack) {
        let Conntrack {
            original: here,
            reply,
            ..
        } = conntrack;
        if here.src == reply.dst && here.dst == reply.src {
            return;
        }
        let key = (protocol, *reply);
        let known = self.young.get(&key);
        if known.is_some_and(|before| before.here == *here) {
            return;
        }
        let before = self.first(protocol, here.reversed());
        let (here, first) = (*here, *before.unwrap_or(here));
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, Before { here, first });
    }

    /// Lets old translations go.
    pub(super) fn age(&mut self, now: KtimeNs) {
        if now - self.turned >= SPAN {
            self.turned = now;
            self.old = std::mem::take(&mut self.young);
        }
    }

    /// What the client sent, of what is answered as `reply`; `None` when that is not translated.
    fn first(&self, protocol: Protocol, reply: Flow) -> Option<&Flow> {
        let key = (protocol, reply);
        let before = self.young.get(&key).or_else(|| self.old.get(&key))?;
        Some(&before.first)
    }

    /// Ends of a packet whose direction only its conntrack entry, or a known translation, tells.
    /// Without either it is taken to go from client to server.
    pub(super) fn ends(&self, protocol: Protocol, packet: &Packet) -> Ends {
        let flow = packet.flow;
        match &packet.conntrack {
            Some(conntrack) => self.of_entry(protocol, conntrack, is_forward(conntrack, flow)),
            None => {
                match self.first(protocol, flow) {
                    // An answer, not translated back yet.
                    Some(first) => between(first, &flow, false),
                    None => self.of_flow(protocol, flow, true),
                }
            }
        }
    }

    /// Ends of a packet that says itself whether it goes from client to server: a DNS message,
    /// or a TCP segment with SYN.
    pub(super) fn ends_of_way(&self, protocol: Protocol, packet: &Packet, forward: bool) -> Ends {
        match &packet.conntrack {
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
        match &error.conntrack {
            Some(conntrack) if is_forward(conntrack, quoted) => {
                self.of_entry(protocol, conntrack, true)
            }
            _ => self.of_flow(protocol, quoted, true),
        }
    }

    fn of_entry(&self, protocol: Protocol, conntrack: &Conntrack, forward: bool) -> Ends {
        let Conntrack {
            original, reply, ..
        } = conntrack;
        // Its own translation, and one before it, if there was one. Not what is known of `reply`:
        // an entry that was never inserted may want the tuple that another one has.
        let before = self.first(protocol, original.reversed());
        between(before.unwrap_or(original), reply, forward)
    }

    fn of_flow(&self, protocol: Protocol, flow: Flow, forward: bool) -> Ends {
        let reply = if forward { flow.reversed() } else { flow };
        match self.first(protocol, reply) {
            Some(first) => between(first, &reply, forward),
            None => Ends {
                client: reply.dst,
                asked: reply.src,
                backend: None,
                forward,
            },
        }
    }
}

/// Ends of what the client sent as `first` and the server answers as `reply`.
fn between(first: &Flow, reply: &Flow, forward: bool) -> Ends {
    Ends {
        client: first.src,
        asked: first.dst,
        backend: (first.dst != reply.src).then_some(reply.src),
        forward,
    }
}

/// Whether a packet with this entry goes the way the entry's first one went.
fn is_forward(conntrack: &Conntrack, flow: Flow) -> bool {
    flow.src == conntrack.original.src || flow.src == conntrack.reply.dst
}

#[cfg(test)]
mod tests;
