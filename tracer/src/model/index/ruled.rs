//! What kube-proxy's rules name, as they were read last. Without history: they are read where no API
//! server is heard, and then they do not change.

use std::{net::SocketAddr, sync::Arc};

use rustc_hash::FxHashMap;

use super::services::Spot;
use crate::model::{asked::ServicePortName, change::RuleNames, ids::WallNs, row::Protocol};

#[derive(Debug, Default)]
pub(super) struct Ruled {
    /// `None` before they were read.
    read: Option<(WallNs, Arc<RuleNames>)>,
    spots: FxHashMap<Spot, Arc<ServicePortName>>,
}

impl Ruled {
    pub(super) fn new(at: WallNs, names: Arc<RuleNames>) -> Self {
        let spots = names.claims.iter().map(|claim| {
            let spot = Spot {
                ip: claim.address,
                protocol: claim.protocol,
                port: claim.port,
            };
            (spot, Arc::clone(&claim.name))
        });
        Self {
            spots: spots.collect(),
            read: Some((at, names)),
        }
    }

    /// The port that rules translate `address` for.
    pub(super) fn at(
        &self,
        address: SocketAddr,
        protocol: Protocol,
    ) -> Option<&Arc<ServicePortName>> {
        let (_, names) = self.read.as_ref()?;
        let spot = Spot::of(address, protocol);
        self.spots.get(&spot).or_else(|| {
            let node_port = Spot { ip: None, ..spot };
            let found = self.spots.get(&node_port)?;
            names.own.contains(&address.ip()).then_some(found)
        })
    }

    /// When they were read, and what they name.
    pub(super) fn names(&self) -> Option<(WallNs, &Arc<RuleNames>)> {
        let (at, names) = self.read.as_ref()?;
        Some((*at, names))
    }

    pub(super) fn read_at(&self) -> WallNs {
        self.read.as_ref().map_or(WallNs(0), |(at, _)| *at)
    }
}
