//! Where the packets of one exchange were seen, in bounded memory, and the stages told from it.
//!
//! A packet is followed by leg and spot: the first sight at each spot counts, so copies and
//! clones that come later do not disturb it. Between spots stages are told by what is seen alone:
//! whether the namespace changes, and whether the packet was received or queued.

mod sockets;
mod stages;
mod upstream;

#[cfg(test)]
pub(super) mod tests;

use std::net::IpAddr;

use smallvec::SmallVec;

pub(super) use self::upstream::split;
use super::spot::Spot;
use crate::model::{
    Flow, Ifindex, KtimeNs, NetnsInode, Outcome, Packet, SocketEnds,
    journey::{Flows, Journey, Leg, Point, Side, Stages, Unseen},
};

/// Most sights kept of one exchange. Through a bridge and a VIP there are 12, and 24 for a TCP
/// handshake with the first data each way.
const SIGHTS: usize = 32;

/// Sights that need no memory of their own.
const USUAL: usize = 12;

/// Most different addresses of its packets that are told apart; NAT on the way makes two or three.
const FLOWS: usize = 8;

/// One packet at one spot.
#[derive(Clone, Copy, Debug)]
struct Sight {
    ktime: KtimeNs,
    netns: NetnsInode,
    ifindex: Ifindex,
    received: bool,
    flow: u8,
    leg: Leg,
    /// A socket of this namespace sends it.
    sent: bool,
}

impl Sight {
    fn spot(&self) -> Spot {
        Spot {
            netns: self.netns,
            ifindex: self.ifindex,
            received: self.received,
        }
    }

    fn point(&self) -> Point {
        let Self {
            ktime,
            netns,
            ifindex,
            received,
            flow,
            ..
        } = *self;
        Point {
            ktime,
            netns,
            ifindex,
            side: if received {
                Side::Received
            } else {
                Side::Queued
            },
            flow,
        }
    }
}

/// A packet at one place, on this side of its device.
pub(super) fn point(packet: &Packet, side: Side) -> Point {
    Point {
        ktime: packet.ktime,
        netns: packet.netns,
        ifindex: packet.ifindex,
        side,
        flow: 0,
    }
}

/// The way of one exchange's packets, where paths are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Trail(Option<Box<Way>>);

impl Trail {
    /// Nothing was seen yet.
    pub(super) fn new(wanted: bool) -> Self {
        Self(wanted.then(Box::default))
    }

    /// Takes one packet at one place; drops are not part of its way.
    pub(super) fn note(&mut self, leg: Leg, packet: &Packet) {
        if let Some(sights) = &mut self.0
            && packet.place.is_device()
        {
            sights.note(leg, packet);
        }
    }

    /// An error of `from` tells that it went no further.
    pub(super) fn turned_away(&mut self, from: IpAddr) {
        if let Some(sights) = &mut self.0 {
            sights.turned_away = Some(from);
        }
    }

    /// What the sights so far tell of an exchange that ended so; `None` when there are none.
    pub(super) fn journey(self, outcome: Outcome) -> Option<Box<Journey>> {
        self.0.and_then(|sights| sights.journey(outcome))
    }

    /// The same of an exchange over UDP, into its sockets.
    pub(super) fn journey_to(self, ends: &SocketEnds, outcome: Outcome) -> Option<Box<Journey>> {
        let from_here = self.is_from_here();
        let mut journey = self.journey(outcome)?;
        sockets::extend(&mut journey, ends, outcome, from_here);
        Some(journey)
    }

    /// Whether the first packet was sent by a socket of this node.
    fn is_from_here(&self) -> bool {
        let first = self
            .0
            .as_ref()
            .and_then(|way| way.sights.iter().min_by_key(|sight| sight.leg));
        first.is_some_and(|sight| sight.sent)
    }
}

/// The sights of one exchange.
#[derive(Clone, Debug, Default)]
struct Way {
    /// As they came.
    sights: SmallVec<[Sight; USUAL]>,
    /// From client to server.
    flows: Flows,
    /// Where a packet that was sent again was seen last.
    lost: Option<Point>,
    /// Who sent an error about it.
    turned_away: Option<IpAddr>,
    left_out: u32,
}

impl Way {
    /// A packet seen again where its leg began was sent again, if that leg has not been followed
    /// by another: what was seen of the first one is given up but for its beginning.
    // Apart, so that a trace without paths calls nothing for a packet.
    #[inline(never)]
    fn note(&mut self, leg: Leg, packet: &Packet) {
        let spot = Spot::of(packet);
        if let Some(known) = self
            .sights
            .iter()
            .position(|sight| sight.leg == leg && sight.spot() == spot)
        {
            let begins = self.sights.iter().position(|sight| sight.leg == leg) == Some(known);
            let is_latest = self.sights.iter().all(|sight| sight.leg <= leg);
            if !begins || !is_latest {
                self.left_out = self.left_out.saturating_add(1);
                return;
            }
            self.give_up(leg, known);
        } else if self.sights.len() >= SIGHTS {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        let flow = self.flow(if leg.is_forward() {
            packet.flow
        } else {
            packet.flow.reversed()
        });
        self.sights.push(Sight {
            ktime: packet.ktime,
            netns: spot.netns,
            ifindex: spot.ifindex,
            received: spot.received,
            flow,
            leg,
            sent: packet.sender.is_some(),
        });
    }

    /// Keeps of `leg`, which began at `first`, only the beginning.
    fn give_up(&mut self, leg: Leg, first: usize) {
        let last = self.sights.iter().rfind(|sight| sight.leg == leg);
        self.lost = last.map(Sight::point);
        let mut index = 0;
        self.sights.retain(|sight| {
            let keep = sight.leg != leg || index == first;
            index += 1;
            keep
        });
    }

    /// Index of `flow`; addresses beyond the bound are taken for the last ones known.
    fn flow(&mut self, flow: Flow) -> u8 {
        let known = self.flows.iter().rposition(|known| *known == flow);
        let index = known.unwrap_or_else(|| {
            if self.flows.len() < FLOWS {
                self.flows.push(flow);
            }
            self.flows.len() - 1
        });
        u8::try_from(index).unwrap_or(u8::MAX)
    }

    fn journey(self, outcome: Outcome) -> Option<Box<Journey>> {
        let arrived = self.arrived(outcome);
        let mut path = self.sights;
        // Records of two processors may change places by microseconds.
        path.sort_by_key(|sight| (sight.leg, sight.ktime));
        let strays = stages::prune(&mut path);
        let mut journey = Box::new(Journey {
            start: path.first()?.point(),
            stages: Stages::new(),
            unseen: Unseen::new(),
            flows: self.flows,
            lost: self.lost,
            left_out: self.left_out + strays,
        });
        stages::tell(&mut path, outcome.is_good(), arrived, &mut journey);
        Some(journey)
    }

    /// Whether the last sight, if the packet was received there, is where it was sent to: the
    /// kernel neither drops nor forwards what it delivers.
    /// 1. What was dropped did not arrive.
    /// 2. What an error is about arrived where the error comes from the address it was sent to.
    /// 3. All else did.
    fn arrived(&self, outcome: Outcome) -> bool {
        let last = self
            .sights
            .iter()
            .max_by_key(|sight| (sight.leg, sight.ktime));
        let flow = last.and_then(|last| self.flows.get(usize::from(last.flow)));
        match (outcome, self.turned_away, flow) {
            (Outcome::Dropped, _, _) => false,
            (Outcome::Rejected | Outcome::Reset, Some(by), Some(flow)) => flow.dst.ip() == by,
            _ => true,
        }
    }
}
