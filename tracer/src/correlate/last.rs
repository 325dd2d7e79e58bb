//! Where a packet was seen last, also where no paths are wanted.

use super::journey::point;
use crate::model::{
    Journey, Outcome, Packet, Place,
    journey::{Leg, Point, Side},
    stopped::Stopped,
};

/// The last sight of an exchange's packets at a device; `None` before the first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Last(Option<(Leg, Point)>);

impl Last {
    /// Takes one packet at one place.
    pub(super) fn note(&mut self, leg: Leg, packet: &Packet) {
        let side = match packet.place {
            Place::Queued => Side::Queued,
            Place::Received => Side::Received,
            Place::Dropped { .. } | Place::Refused { .. } => return,
        };
        self.0 = Some((leg, point(packet, side)));
    }

    /// Whether the last sight is of `leg`, leaving a device.
    pub(super) fn leaves(self, leg: Leg) -> bool {
        self.0
            .is_some_and(|(of, at)| of == leg && at.side == Side::Queued)
    }

    /// The packet that was seen last; `None` before the first.
    pub(super) fn leg(self) -> Option<Leg> {
        self.0.map(|(leg, _)| leg)
    }

    /// Whether nothing was seen to be taken from a device yet: the first packet is where it was
    /// sent still.
    pub(super) fn is_before(self, leg: Leg) -> bool {
        self.0.is_none() || self.leaves(leg)
    }

    /// Where an exchange stopped that ended so: where it was dropped, or else where it was seen
    /// last, in a socket if need be.
    pub(super) fn stopped(
        self,
        outcome: Outcome,
        journey: Option<&Journey>,
        dropped: Option<(Leg, Point)>,
    ) -> Option<Stopped> {
        if outcome.is_good() {
            return None;
        }
        let passed = journey.and_then(|journey| journey.stages.last());
        let seen = match passed {
            Some(passed) => Some((passed.step.leg, passed.end)),
            None => self.0,
        };
        let (leg, at) = dropped.or(seen)?;
        Some(Stopped {
            leg,
            stage: passed
                .filter(|passed| passed.step.leg == leg)
                .map(|passed| passed.step.stage),
            at,
        })
    }
}
