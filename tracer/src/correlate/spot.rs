//! A spot: one side of one device in one namespace, where the same packet passes once; and a
//! beginning: the first sight of a packet, by which its further ones are told from another's.

use std::time::Duration;

use crate::model::{Ifindex, KtimeNs, NetnsInode, Packet, Place, SkbId};

/// How long one packet may take between two devices of one namespace, at most, to be taken for
/// the same packet by its skb's address. Stacked devices hand it on at once; the address is used
/// again for another packet as soon as this one is freed.
const SAME_PACKET: Duration = Duration::from_millis(10);

/// How long a packet may wait, in a queue say, until it is dropped and still known by its skb.
const SAME_DROPPED: Duration = Duration::from_secs(1);

/// Where a packet was seen, apart from when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Spot {
    pub(super) netns: NetnsInode,
    pub(super) ifindex: Ifindex,
    /// Taken from the device, as against handed to it.
    pub(super) received: bool,
}

impl Spot {
    pub(super) fn of(packet: &Packet) -> Self {
        Self {
            netns: packet.netns,
            ifindex: packet.ifindex,
            received: packet.place == Place::Received,
        }
    }

    /// The same device, the other way.
    pub(super) fn other_side(self) -> Self {
        Self {
            received: !self.received,
            ..self
        }
    }

    /// Whether an answer at `there` has come back to where the question started from here:
    /// 1. the question was sent in this namespace and the answer is taken from a device in it, or
    /// 2. the question came in by this device and the answer goes out by it.
    pub(super) fn is_reached_by(self, there: Self) -> bool {
        if self.received {
            !there.received && there.netns == self.netns && there.ifindex == self.ifindex
        } else {
            there.received && there.netns == self.netns
        }
    }
}

/// The first sight of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    pub(super) spot: Spot,
    pub(super) ktime: KtimeNs,
    skb: SkbId,
}

impl Beginning {
    pub(super) fn of(packet: &Packet) -> Self {
        Self {
            spot: Spot::of(packet),
            ktime: packet.ktime,
            skb: packet.skb,
        }
    }

    /// Whether `packet` is this very one: at its next device, or freed.
    pub(super) fn is_of(&self, packet: &Packet) -> bool {
        let since = packet.ktime - self.ktime;
        packet.skb == self.skb
            && if is_drop(packet) {
                since < SAME_DROPPED
            } else {
                since < SAME_PACKET && Spot::of(packet) != self.spot
            }
    }
}

/// Whether the packet was freed here, or is about to be.
pub(super) fn is_drop(packet: &Packet) -> bool {
    matches!(packet.place, Place::Dropped { .. } | Place::Refused { .. })
}
