//! Where packets cross devices: every hop of a packet within the node.

use tracer_ebpf::config::program;

use super::{Probe, Wanted};

/// Packets handed to a device.
pub const QUEUE: Probe = Probe {
    name: "net_dev_queue",
    btf_program: Some("net_dev_queue_btf"),
    subsystem: "net",
    program: program::NET_DEV_QUEUE,
    unseen: "packets being sent, who sends them, and NAT",
    wanted: Wanted::Always,
};

/// Packets taken from a device.
pub const RECEIVE: Probe = Probe {
    name: "netif_receive_skb",
    btf_program: Some("netif_receive_skb_btf"),
    subsystem: "net",
    program: program::NETIF_RECEIVE_SKB,
    unseen: "packets arriving",
    wanted: Wanted::Always,
};
