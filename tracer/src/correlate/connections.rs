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
    spot::{self, Spot},
    words,
};
use crate::model::{
    Client, Flow, KtimeNs, Packet, Place, Protocol, SockId, Socket, SocketEvent, fact::TcpFlags,
};

/// Most sockets that have called `connect` and of which no packet was seen yet.
const CONNECTING: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    protocol: Protocol,
    client: SocketAddr,
    asked: SocketAddr,
}

/// Connections being followed.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: FxHashMap<Key, Opened>,
    /// Sockets that have called `connect`, until their first packet is seen.
    connecting: FxHashMap<SockId, Socket>,
    evicted: u64,
    pressed: bool,
}

impl Connections {
    /// Connections that were not followed for want of room.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Who opened the TCP connection between these ends, where that was seen.
    pub(super) fn client(&self, client: SocketAddr, asked: SocketAddr) -> Option<Client> {
        let key = Key {
            protocol: Protocol::Tcp,
            client,
            asked,
        };
        self.open.get(&key).map(|opened| opened.client.clone())
    }

    /// A TCP segment at one place; `quiet` when only failures are worth a row.
    pub(super) fn tcp(
        &mut self,
        packet: &Packet,
        flags: TcpFlags,
        seq: u32,
        ends: Ends,
        quiet: bool,
        context: &mut Context<'_>,
    ) {
        if flags.syn() && !flags.ack() {
            self.syn(packet, seq, ends, quiet, context);
            return;
        }
        let Some((opened, ends)) = self.find(Protocol::Tcp, ends) else {
            return;
        };
        opened.pass(ends.backend);
        if spot::is_drop(packet) {
            opened.drop(words::dropped(packet, &context.settings.drop_reasons));
        } else if ends.forward {
            if flags.rst() || flags.fin() {
                opened.close(context);
            }
        } else {
            let home = opened.origin.is_reached_by(Spot::of(packet));
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

    fn syn(
        &mut self,
        packet: &Packet,
        seq: u32,
        ends: Ends,
        quiet: bool,
        context: &mut Context<'_>,
    ) {
        let spot = Spot::of(packet);
        let key = Key {
            protocol: Protocol::Tcp,
            client: ends.client,
            asked: ends.asked,
        };
        if let Some(opened) = self.open.get_mut(&key)
            && opened.seq == seq
        {
            opened.pass(ends.backend);
            if spot::is_drop(packet) {
                opened.drop(words::dropped(packet, &context.settings.drop_reasons));
            } else if opened.origin == spot && packet.sender.is_none() {
                // Sent again by a client of another node; a local one's socket tells it itself.
                opened.retransmits += 1;
            }
            return;
        }
        // Beyond the namespace that translated it, and the translation unknown: the same segment.
        if packet.sender.is_none() && self.same_segment(packet, seq, ends) {
            return;
        }
        if let Some(before) = self.open.remove(&key) {
            before.replaced(context);
        }
        let asked_by = packet
            .sender
            .and_then(|sender| self.connecting.remove(&sender.sock));
        let mut opened = Opened::new(Protocol::Tcp, packet, ends, spot, quiet, context);
        opened.seq = seq;
        if let Some(socket) = asked_by {
            opened.client.sender = Some(socket.owner);
        }
        if spot::is_drop(packet) {
            opened.drop(words::dropped(packet, &context.settings.drop_reasons));
        }
        self.insert(key, opened, context);
    }

    /// Whether this is a known connection's first segment, changed on its way unseen.
    fn same_segment(&mut self, packet: &Packet, seq: u32, ends: Ends) -> bool {
        let found = self.open.values_mut().find(|opened| {
            opened.seq == seq
                && opened.skb == packet.skb
                && opened.client.address == ends.client
                && opened.is_young(packet.ktime)
        });
        match found {
            Some(opened) => {
                opened.pass(Some(ends.asked));
                true
            }
            None => false,
        }
    }

    fn insert(&mut self, key: Key, opened: Opened, context: &Context<'_>) {
        if self.open.len() >= context.settings.tracked && !self.pressed {
            self.pressed = true;
            self.open.retain(|_, opened| opened.state == State::Waiting);
        }
        if self.open.len() >= context.settings.tracked {
            self.evicted += 1;
            return;
        }
        self.open.insert(key, opened);
    }

    /// A known connection between `ends`, either way round: without conntrack the direction of a
    /// packet is not known beforehand.
    fn find(&mut self, protocol: Protocol, ends: Ends) -> Option<(&mut Opened, Ends)> {
        let key = Key {
            protocol,
            client: ends.client,
            asked: ends.asked,
        };
        if self.open.contains_key(&key) {
            return self.open.get_mut(&key).map(|opened| (opened, ends));
        }
        let key = Key {
            protocol,
            client: ends.asked,
            asked: ends.client,
        };
        let ends = Ends {
            client: key.client,
            asked: key.asked,
            backend: None,
            forward: false,
        };
        self.open.get_mut(&key).map(|opened| (opened, ends))
    }

    /// A packet of a UDP flow at one place.
    pub(super) fn udp(&mut self, packet: &Packet, ends: Ends, context: &mut Context<'_>) {
        let spot = Spot::of(packet);
        if let Some((opened, ends)) = self.find(Protocol::Udp, ends) {
            opened.pass(ends.backend);
            if spot::is_drop(packet) {
                opened.drop(words::dropped(packet, &context.settings.drop_reasons));
            } else if !ends.forward {
                let home = opened.origin.is_reached_by(spot);
                opened.answered(packet.ktime, home);
            }
            return;
        }
        if ends.forward && !spot::is_drop(packet) {
            let opened = Opened::new(Protocol::Udp, packet, ends, spot, false, context);
            let key = Key {
                protocol: Protocol::Udp,
                client: ends.client,
                asked: ends.asked,
            };
            self.insert(key, opened, context);
        }
    }

    /// Something happened to a TCP socket.
    pub(super) fn socket(&mut self, socket: &Socket) {
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
                    opened.retransmits += 1;
                }
            }
        }
    }

    /// An ICMP error quoted a packet of the connection between `ends`. The packet may never have
    /// reached a device, so the connection need not be known.
    pub(super) fn rejected(
        &mut self,
        protocol: Protocol,
        error: &Packet,
        ends: Ends,
        quiet: bool,
        cause: &str,
        context: &mut Context<'_>,
    ) {
        let key = Key {
            protocol,
            client: ends.client,
            asked: ends.asked,
        };
        if !self.open.contains_key(&key) {
            // Only the one who asked is told; other sights of the error tell nothing new.
            if error.place != Place::Received || error.flow.dst.ip() != ends.client.ip() {
                return;
            }
            let opened = Opened::new(protocol, error, ends, Spot::of(error), quiet, context);
            self.insert(key, opened, context);
        }
        if let Some(opened) = self.open.get_mut(&key) {
            opened.reject(cause, context);
        }
    }

    /// Lets time pass.
    pub(super) fn sweep(&mut self, now: KtimeNs, context: &mut Context<'_>) {
        self.pressed = false;
        self.open.retain(|_, opened| opened.age(now, context));
        let keep = context.settings.keep;
        self.connecting
            .retain(|_, socket| now - socket.ktime < keep);
    }
}

/// Whether `address` lies in one of the prefixes.
fn is_vip(vips: &[(IpAddr, u8)], address: IpAddr) -> bool {
    vips.iter().any(|&(prefix, bits)| match (prefix, address) {
        (IpAddr::V4(prefix), IpAddr::V4(address)) => {
            let differ = u32::from(prefix) ^ u32::from(address);
            differ
                .checked_shr(32 - u32::from(bits.min(32)))
                .unwrap_or(0)
                == 0
        }
        (IpAddr::V6(prefix), IpAddr::V6(address)) => {
            let differ = u128::from(prefix) ^ u128::from(address);
            differ
                .checked_shr(128 - u32::from(bits.min(128)))
                .unwrap_or(0)
                == 0
        }
        _ => false,
    })
}
