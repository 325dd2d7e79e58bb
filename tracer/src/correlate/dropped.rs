//! The drop that explains why nothing came.

use super::inserts::{Counted, Suspect};
use super::journey::point;
use crate::model::{
    Packet,
    journey::{Leg, Point, Side},
};

/// Of the drops seen of one packet and its clones, the first of the packet itself, else the first:
/// a clone flooded to the wrong port is freed there, and nothing is lost.
#[derive(Debug, Default)]
pub(super) struct Dropped(Option<Box<Drop>>);

#[derive(Debug)]
struct Drop {
    same: bool,
    cause: String,
    suspect: Option<Suspect>,
    leg: Leg,
    at: Point,
}

impl Dropped {
    /// Takes a further drop, of `packet`; `same` where it is of the packet itself.
    pub(super) fn note(
        &mut self,
        same: bool,
        leg: Leg,
        packet: &Packet,
        cause: String,
        suspect: Option<Suspect>,
    ) {
        if self.0.as_ref().is_none_or(|drop| same && !drop.same) {
            self.0 = Some(Box::new(Drop {
                same,
                cause,
                suspect,
                leg,
                at: point(packet, Side::Dropped),
            }));
        }
    }

    /// The cause in words.
    pub(super) fn cause(&self) -> Option<&str> {
        self.0.as_ref().map(|drop| &*drop.cause)
    }

    /// The same with what conntrack counted meanwhile.
    pub(super) fn explained(&self, counted: &Counted) -> Option<String> {
        let drop = self.0.as_ref()?;
        let mut cause = drop.cause.clone();
        counted.add_to(&mut cause, drop.suspect);
        Some(cause)
    }

    /// Whether what conntrack counted then is still to be heard.
    pub(super) fn awaits(&self, counted: &Counted) -> bool {
        let drop = self.0.as_ref();
        drop.is_some_and(|drop| counted.awaits(drop.suspect))
    }

    /// Where, and of which packet.
    pub(super) fn place(&self) -> Option<(Leg, Point)> {
        self.0.as_ref().map(|drop| (drop.leg, drop.at))
    }
}
