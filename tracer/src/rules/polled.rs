//! `Polled`: where Services lead to, looked at again and again where the kernel tells nobody of what is written: real
//! servers of IPVS, and iptables' own tables. Of IPVS only what is asked for is read, of the others a table whole.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{Error, ipvs::Servers, legacy, services::destinations_of};
use crate::model::cluster::PortProtocol;

/// kube-proxy's chains that translate.
const ENDPOINT: &str = "KUBE-SEP-";

/// What is looked at.
#[derive(Debug)]
pub struct Polled {
    servers: Option<Servers>,
    legacy: bool,
}

impl Polled {
    /// What kube-proxy has written there already; `None` where that is nothing.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn open() -> Result<Option<Self>, Error> {
        let servers = Servers::open()?;
        let legacy = legacy::nat()?.iter().any(|table| {
            let mut chains = table.chains.iter();
            chains.any(|chain| chain.name.starts_with(ENDPOINT))
        });
        let any = servers.is_some() || legacy;
        Ok(any.then_some(Self { servers, legacy }))
    }

    /// Endpoints to which packets to these addresses are led. Of iptables' tables those of all Services.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn endpoints(
        &mut self,
        fronts: &[(PortProtocol, SocketAddr)],
    ) -> Result<BTreeSet<SocketAddr>, Error> {
        let mut found = BTreeSet::new();
        if let Some(servers) = &mut self.servers {
            for (protocol, at) in fronts {
                let real = servers.real(*protocol, *at)?;
                found.extend(real.iter().filter(|one| one.weight > 0).map(|one| one.at));
            }
        }
        if self.legacy {
            for table in &legacy::nat()? {
                let chains = table.chains.iter();
                let of_endpoints = chains.filter(|chain| chain.name.starts_with(ENDPOINT));
                found.extend(of_endpoints.flat_map(|chain| destinations_of(table, chain)));
            }
        }
        Ok(found)
    }
}
