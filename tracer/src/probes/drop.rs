//! Packets freed before delivery, with the kernel's reason.

use tracer_ebpf::config::program;

use super::{Probe, Wanted};

/// Packets freed.
pub const PROBE: Probe = Probe {
    name: "kfree_skb",
    btf_program: Some("kfree_skb_btf"),
    subsystem: "skb",
    program: program::KFREE_SKB,
    unseen: "packets that the kernel drops, and why",
    wanted: Wanted::Always,
};
