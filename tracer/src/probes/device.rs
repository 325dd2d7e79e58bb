//! Where packets cross devices: every hop of a packet within the node.

use tracer_ebpf::config::program;

use super::{Probe, Wanted};

/// Packets handed to a device.
pub const QUEUE: Probe = Probe {
    name: "net_dev_queue",
    ways: tracepoint!("net_dev_queue"),
    program: program::NET_DEV_QUEUE,
    unseen: "packets being sent, who sends them, and NAT",
    wanted: Wanted::Always,
};

/// Packets taken from a device.
pub const RECEIVE: Probe = Probe {
    name: "netif_receive_skb",
    ways: tracepoint!("netif_receive_skb"),
    program: program::NETIF_RECEIVE_SKB,
    unseen: "packets arriving",
    wanted: Wanted::Always,
};
