//! The pods' network: which plugin lays it, from evidence; its configuration, daemon, devices, and
//! the way to each other node.

mod addresses;
mod config;
mod daemon;
mod device;
#[cfg(test)]
pub(super) mod fixtures;
mod mtu;
mod passage;
mod peers;
mod plugin;
mod policy;

pub(super) use self::policy::{Enforced, enforced};
use super::{Answer, Check, Problem, Root, Seen};

/// What is asked about the pods' network.
pub(super) const CHECKS: &[Check] = &[
    plugin::PLUGIN,
    config::CONFIG,
    config::BINARIES,
    daemon::DAEMON,
    device::DEVICE,
    peers::PEERS,
    addresses::ADDRESSES,
    mtu::MTU,
    passage::FORWARD,
    passage::TUNNEL_PORT,
    policy::POLICIES,
];
