//! `Seen`: all that doctor looks at, looked at once. What can be read from files alone is read by
//! the check that wants it; here is what takes time, or the kernel, or somebody's answer.

mod counters;
pub(super) mod network;

use std::time::{Duration, Instant};

pub(super) use self::counters::Counters;
use self::network::Network;
use super::Root;
use crate::kernel::{Kernel, Options, Status};

/// Shortest time between the two looks at counters.
const APART: Duration = Duration::from_secs(1);

/// All that was looked at.
#[derive(Debug)]
pub struct Seen {
    /// The node's files.
    pub root: Root,
    /// What the kernel has counted since it started, as first looked at.
    pub before: Counters,
    /// The same at least a second later.
    pub after: Counters,
    /// Devices, routes, neighbours; or why they could not be read.
    pub network: Result<Network, String>,
    /// Probes that the kernel does not take, each with what goes unseen without it; or why none
    /// could be tried.
    pub unseen: Result<Vec<String>, String>,
}

impl Seen {
    /// The files of `root` alone: nothing else has been looked at.
    pub fn of(root: Root) -> Self {
        let counters = Counters::read(&root);
        let elsewhere = || "this is a directory, not the node".to_owned();
        Self {
            before: counters,
            after: counters,
            network: Err(elsewhere()),
            unseen: Err(elsewhere()),
            root,
        }
    }

    /// Looks, for a few seconds at most.
    pub async fn look(root: Root) -> Self {
        let start = Instant::now();
        let mut seen = Self::of(root);
        if !seen.root.is_live() {
            return seen;
        }
        seen.network = Network::read().await;
        seen.unseen = unseen();
        tokio::time::sleep(APART.saturating_sub(start.elapsed())).await;
        seen.after = Counters::read(&seen.root);
        seen
    }
}

/// Tries every probe.
fn unseen() -> Result<Vec<String>, String> {
    let options = Options {
        dns_ports: vec![53],
        connections: true,
        paths: true,
        vips: Vec::new(),
        ring_bytes: 4096,
        log: false,
    };
    let (kernel, _stream) = Kernel::load(&options).map_err(|error| error.to_string())?;
    let probes = kernel.probes().iter().filter_map(|state| {
        let why = match &state.status {
            Status::Attached { .. } => return None,
            Status::NotInKernel => "not in this kernel",
            Status::Refused(why) => why,
        };
        Some(format!(
            "{} ({why}): without it go unseen {}",
            state.probe.name, state.probe.unseen
        ))
    });
    let spots = kernel.blind_spots().into_iter().map(str::to_owned);
    Ok(probes.chain(spots).collect())
}
