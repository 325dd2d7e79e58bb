//! A spot: one side of one device in one namespace, where the same packet passes once.

use crate::model::{Ifindex, NetnsInode, Packet, Place};

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

/// Whether the packet was freed here.
pub(super) fn is_drop(packet: &Packet) -> bool {
    matches!(packet.place, Place::Dropped { .. })
}
