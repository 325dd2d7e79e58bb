//! What carried a packet off this node, where that was the last that was seen of it.

use std::net::IpAddr;

use super::{spot::is_drop, words};
use crate::model::{Packet, Place, fact::Tunnel};

/// Of the last sight of a packet: the tunnel it was sent through.
#[derive(Debug, Default)]
pub(super) struct Carried(Option<Box<Tunnel>>);

impl Carried {
    /// From the first sight.
    pub(super) fn new(packet: &Packet) -> Self {
        let mut carried = Self::default();
        carried.note(packet);
        carried
    }

    /// Takes a further sight.
    pub(super) fn note(&mut self, packet: &Packet) {
        let sent = packet.place == Place::Queued;
        // A drop says all there is to say; and a clone of it may have been dropped elsewhere.
        if !is_drop(packet) && (self.0.is_some() || packet.tunnel.is_some()) {
            self.0 = packet.tunnel.clone().filter(|_| sent);
        }
    }

    /// Nothing came, as `unanswered` says; the packet was seen last when it left for `left`.
    pub(super) fn explain(&self, unanswered: String, left: Option<IpAddr>) -> String {
        match (&self.0, left) {
            (Some(tunnel), _) => words::sent_through(&unanswered, tunnel),
            (None, Some(to)) => words::sent_out(&unanswered, to),
            (None, None) => unanswered,
        }
    }
}
