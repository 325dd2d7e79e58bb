//! When conntrack's own statistics are looked at: with a namespace's first packet that met it, and
//! from then on each time the loss counters are read.

use super::feed::Feed;
use crate::{
    kernel::clock,
    model::{Event, Fact, Place},
    node::Node,
};

/// The node's own table is of interest also before a packet of it is seen.
pub(super) fn watch_own(node: &mut Node) {
    if let Some(netns) = node.own_netns()
        && node.met_conntrack(netns)
    {
        node.look_at_conntrack(clock::ktime());
    }
}

/// Whether the packet's namespace has a conntrack table that nobody has looked at yet.
pub(super) fn is_met(fact: &Fact, node: &mut Node) -> bool {
    let Fact::Packet(packet) = fact else {
        return false;
    };
    let refused = matches!(packet.place, Place::Dropped { hook: Some(_), .. });
    (refused || packet.conntrack.is_some()) && node.met_conntrack(packet.netns)
}

/// Tells what conntrack counted since the last time.
pub(super) fn tell(node: &mut Node, feed: &mut Feed) {
    for change in node.look_at_conntrack(clock::ktime()) {
        feed.apply(Event::Counted(&change));
    }
    if let Some(recorder) = &mut feed.recorder {
        recorder.conntrack(&node.conntrack_totals());
    }
}
