//! Connections to services: TCP handshakes and how they end, and UDP flows of other protocols
//! than DNS by the first packet each way.

mod connection;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use rustc_hash::FxHashMap;

use self::connection::{Opened, State};
use super::{
    Context,
    nat::Ends,
    once::Once,
    quote::Quoted,
    spot::{self, Spot},
};
use crate::model::{
    Client, Connection, Flow, KtimeNs, Packet, Protocol, SockId, Socket, SocketEvent,
    fact::TcpFlags, journey::Leg, prefix::contains,
};

/// Most sockets that have called `connect` and of which no packet was seen yet.
const CONNECTING: usize = 4096;

/// A TCP segment at one place.
pub(super) struct Segment<'a> {
    pub(super) packet: &'a Packet,
    pub(super) flags: TcpFlags,
    pub(super) seq: u32,
    pub(super) ends: Ends,
    /// Only a failure of its connection is worth a row.
    pub(super) quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    protocol: Protocol,
    client: SocketAddr,
    asked: SocketAddr,
}

impl Key {
    fn new(protocol: Protocol, ends: Ends) -> Self {
        Self {
            protocol,
            client: ends.client,
            asked: ends.asked,
        }
    }
}

/// Connections being followed.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: FxHashMap<Key, Opened>,
    /// Connections by client and sequence number of the SYN, which NAT leaves alone: those begun
    /// since the last sweep, and since the one before.
    syns: [FxHashMap<(SocketAddr, u32), Key>; 2],
    /// Sockets that have called `connect`, until their first packet is seen.
    connecting: FxHashMap<SockId, Socket>,
    refused: Once,
    evicted: u64,
    /// Since the last sweep, room was made.
    pressed: bool,
}

impl Connections {
    /// Connections that were not followed, or forgotten early, for want of room.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Connections whose row is still to come, or may be amended by an answer.
    pub(super) fn len(&self) -> usize {
        let is_followed = |opened: &&Opened| opened.state != State::Open;
        self.open.values().filter(is_followed).count()
    }

    /// Who opened the TCP connection between these ends, where that was seen.
    pub(super) fn client(&self, ends: Ends) -> Option<Client> {
        let key = Key::new(Protocol::Tcp, ends);
        self.open.get(&key).map(|opened| opened.client.clone())
    }

    /// Takes a TCP segment at one place.
    pub(super) fn tcp(&mut self, segment: &Segment<'_>, context: &mut Context<'_>) {
        let &Segment { packet, flags, .. } = segment;
        if flags.syn() && !flags.ack() {
            self.syn(segment, context);
            return;
        }
        let Some((opened, ends)) = self.find(Protocol::Tcp, segment.ends) else {
            return;
        };
        opened.passes(ends);
        if packet.payload_len > 0 || flags.syn() {
            opened.passes_by(leg(flags, ends.forward), packet);
        }
        if spot::is_drop(packet) {
            opened.freed(packet, ends.forward, context);
        } else if ends.forward {
            if flags.rst() || flags.fin() {
                opened.close(context);
            }
        } else {
            let home = opened.first.spot.is_reached_by(Spot::of(packet));
            if flags.rst() {
                opened.reset(packet.flow.src.ip(), context);
            } else if flags.syn() {
                opened.answered(packet.ktime, home);
            } else if packet.payload_len > 0 {
                opened.first_byte(packet.ktime, home, context);
            } else if flags.fin() {
                opened.close(context);
            }
        }
    }

    fn syn(&mut self, segment: &Segment<'_>, context: &mut Context<'_>) {
        let &Segment { packet, ends, .. } = segment;
        let key = Key::new(Protocol::Tcp, ends);
        if let Some(opened) = self.of_syn(key, segment) {
            opened.syn_passes(packet, ends, context);
            return;
        }
        if let Some(before) = self.open.remove(&key) {
            before.replaced(context);
        }
        let mut opened = Opened::new(Protocol::Tcp, packet, ends, segment.quiet, context);
        opened.seq = segment.seq;
        opened.passes_by(Leg::Syn, packet);
        let connecting = packet
            .sender
            .and_then(|sender| self.connecting.remove(&sender.sock));
        if let Some(socket) = connecting {
            opened.client.sender = Some(socket.owner);
        }
        if spot::is_drop(packet) {
            opened.freed(packet, true, context);
        }
        let [young, _] = &mut self.syns;
        young.insert((ends.client, segment.seq), key);
        self.insert(key, opened, context);
    }

    /// The connection that this SYN is a further sight of: one between the same ends, or, where it
    /// is not sent here, one that was translated on the way without our seeing how.
    fn of_syn(&mut self, key: Key, segment: &Segment<'_>) -> Option<&mut Opened> {
        let mut key = key;
        let known = self.open.get(&key);
        if known.is_none_or(|opened| opened.seq != segment.seq) {
            if segment.packet.sender.is_some() {
                return None;
            }
            let [young, old] = &self.syns;
            let syn = (segment.ends.client, segment.seq);
            key = *young.get(&syn).or_else(|| old.get(&syn))?;
        }
        let opened = self.open.get_mut(&key)?;
        (opened.seq == segment.seq).then_some(opened)
    }

    fn insert(&mut self, key: Key, opened: Opened, context: &Context<'_>) {
        let tracked = context.settings.tracked;
        if self.open.len() >= tracked && !self.pressed {
            self.pressed = true;
            // What is only followed on has had its row.
            self.open
                .retain(|_, opened| !matches!(opened.state, State::Done | State::Open));
            let before = self.open.len();
            if before > tracked - tracked / 8 {
                self.open.retain(|_, opened| opened.state == State::Waiting);
                self.evicted += (before - self.open.len()) as u64;
            }
        }
        if self.open.len() < tracked {
            self.open.insert(key, opened);
        } else {
            self.evicted += u64::from(self.refused.is_first(key));
        }
    }

    /// A known connection between `ends`, either way round: without conntrack the direction of a
    /// packet is only guessed, and an entry that an answer made has it wrong.
    fn find(&mut self, protocol: Protocol, ends: Ends) -> Option<(&mut Opened, Ends)> {
        let turned = Ends {
            client: ends.asked,
            asked: ends.client,
            backend: None,
            forward: !ends.forward,
        };
        let straight = self.open.contains_key(&Key::new(protocol, ends));
        let ends = if straight { ends } else { turned };
        let opened = self.open.get_mut(&Key::new(protocol, ends))?;
        Some((opened, ends))
    }

    /// Takes a packet of a UDP flow at one place.
    pub(super) fn udp(&mut self, packet: &Packet, ends: Ends, context: &mut Context<'_>) {
        let freed = spot::is_drop(packet);
        if let Some((opened, ends)) = self.find(Protocol::Udp, ends) {
            opened.passes(ends);
            opened.passes_by(way(ends.forward), packet);
            if freed {
                opened.freed(packet, ends.forward, context);
            } else if !ends.forward {
                let home = opened.first.spot.is_reached_by(Spot::of(packet));
                opened.answered(packet.ktime, home);
            }
            return;
        }
        // Freed before it reached any device, if freed and sent here.
        if ends.forward && (!freed || packet.sender.is_some()) {
            let mut opened = Opened::new(Protocol::Udp, packet, ends, false, context);
            opened.passes_by(Leg::Request, packet);
            if freed {
                opened.freed(packet, true, context);
            }
            self.insert(Key::new(Protocol::Udp, ends), opened, context);
        }
    }

    /// Something happened to a TCP socket.
    pub(super) fn socket(&mut self, socket: &Socket, context: &mut Context<'_>) {
        match socket.event {
            SocketEvent::Connecting => {
                if self.connecting.len() < CONNECTING {
                    self.connecting.insert(socket.owner.sock, *socket);
                }
            }
            SocketEvent::Established | SocketEvent::Failed => {
                self.connecting.remove(&socket.owner.sock);
            }
            SocketEvent::Retransmitted => {
                let Flow { src, dst } = socket.flow;
                let ends = Ends {
                    client: src,
                    asked: dst,
                    backend: None,
                    forward: true,
                };
                if let Some((opened, _)) = self.find(Protocol::Tcp, ends) {
                    opened.sent_again(socket.ktime, context);
                }
            }
        }
    }

    /// An ICMP error quoted a packet of the connection between `ends`. The packet may never have
    /// reached a device, so the connection need not be known yet.
    pub(super) fn rejected(
        &mut self,
        quoted: &Quoted<'_>,
        error: &Packet,
        ends: Ends,
        quiet: bool,
        cause: &str,
        context: &mut Context<'_>,
    ) {
        let key = Key::new(quoted.protocol, ends);
        if let Some(opened) = self.open.get_mut(&key) {
            // The error may be all that tells of the backend.
            opened.passes(ends);
            opened.reject(error.flow.src.ip(), cause, context);
            return;
        }
        // A connection is made up for it when, and only when,
        // 1. the one who asked is told: other sights of the error tell nothing new;
        // 2. a first packet is quoted: an established connection outlives an error.
        let is_first = quoted.protocol == Protocol::Udp || quoted.syn.is_some();
        if ends.is_told(error) && is_first {
            let mut opened = Opened::new(quoted.protocol, error, ends, quiet, context);
            opened.seq = quoted.syn.unwrap_or_default();
            // Who asked is told by the packet's drop, which may come after the error.
            opened.rejected = Some(cause.to_owned());
            self.insert(key, opened, context);
        }
    }

    /// Lets time pass.
    pub(super) fn sweep(&mut self, now: KtimeNs, context: &mut Context<'_>) {
        self.pressed = false;
        self.refused.turn();
        let [young, old] = &mut self.syns;
        std::mem::swap(young, old);
        young.clear();
        self.open.retain(|_, opened| opened.age(now, context));
        let keep = context.settings.keep;
        self.connecting
            .retain(|_, socket| now - socket.ktime < keep);
    }
}

/// Which packet of a connection a segment of the server's side with SYN, or with data, is.
fn leg(flags: TcpFlags, forward: bool) -> Leg {
    if flags.syn() {
        Leg::SynAck
    } else {
        way(forward)
    }
}

/// The first data one way.
fn way(forward: bool) -> Leg {
    if forward { Leg::Request } else { Leg::Response }
}

/// Whether a connection is worth a row whoever else knows of it: where it went to a service, and where no
/// `vips` are known, when it failed from the first.
pub fn is_asked_for(connection: &Connection, vips: &[(IpAddr, u8)]) -> bool {
    let is_service = connection.backend.is_some() || is_vip(vips, connection.asked.ip());
    let has_failed = connection.amends.is_none() && !connection.outcome.is_good();
    is_service || vips.is_empty() && has_failed
}

/// Whether `address` lies in one of the prefixes.
fn is_vip(vips: &[(IpAddr, u8)], address: IpAddr) -> bool {
    vips.iter().any(|vip| contains(*vip, address))
}
