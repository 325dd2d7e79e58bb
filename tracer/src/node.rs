//! What this node itself knows, without an API server: names of namespaces, processes, containers,
//! pods and kernel code. Reads /run/netns, /proc, the cgroup file system and the files of container
//! runtime, kubelet and CNI; never waits for anybody.

mod cgroup;
mod cni;
mod conntrack;
mod device;
mod held;
mod netns;
mod runtime;
#[cfg(test)]
pub(crate) mod scratch;
mod sockets;
mod symbols;
mod throttled;
mod within;

use std::{net::IpAddr, path::Path, sync::Arc};

pub use self::{
    sockets::{Waiting, has_one_of},
    throttled::Throttled,
};
use crate::model::{
    Asked, Ifindex, KtimeNs, Named, NetnsInode, PodName, Row, Site, WallNs,
    conntrack::{ConntrackChange, ConntrackTotals},
};

/// Names, looked up when first needed and remembered.
#[derive(Debug)]
pub struct Node {
    netns: netns::Names,
    cgroups: cgroup::Paths,
    devices: device::Names,
    symbols: symbols::Symbols,
    containers: runtime::Containers,
    addresses: cni::Addresses,
    conntrack: conntrack::Watch,
    held: held::Held,
}

impl Default for Node {
    fn default() -> Self {
        let root = Path::new("/");
        Self {
            netns: netns::Names::default(),
            cgroups: cgroup::Paths::default(),
            devices: device::Names::default(),
            symbols: symbols::Symbols::default(),
            containers: runtime::Containers::of(root),
            addresses: cni::Addresses::of(root),
            conntrack: conntrack::Watch::default(),
            held: held::Held::begin(root),
        }
    }
}

impl Node {
    /// Time passes: who has which address may have changed.
    pub fn tick(&mut self) {
        self.addresses.tick();
    }

    /// Whether a namespace is called `name`, or has that inode, now.
    pub fn knows_netns(&mut self, name: &str) -> bool {
        self.netns.knows(name)
    }

    /// Processes on this node in containers of the pod called `name`, as `shop/cart-7d9`.
    pub fn processes_of(&mut self, name: &str) -> Vec<u32> {
        within::processes(name, &mut self.containers)
    }

    /// The name of a namespace, or its inode where nobody has a name for it.
    pub fn netns(&mut self, inode: NetnsInode) -> Arc<str> {
        self.netns.name(inode)
    }

    /// The pod on this node that had `address` at `at`.
    pub fn pod_at(&self, address: IpAddr, at: WallNs) -> Option<PodName> {
        self.addresses.pod(address, at)
    }

    /// The kernel function that holds the code at `address`, and the offset in it; `None` where
    /// that is hidden.
    pub fn symbol(&mut self, address: u64) -> Option<Arc<str>> {
        self.symbols.name(address)
    }

    /// A packet of `netns` met conntrack. Whether that is news, so that its table is worth a look
    /// at once.
    pub fn met_conntrack(&mut self, netns: NetnsInode) -> bool {
        self.conntrack.note(netns)
    }

    /// The namespace this process is in.
    pub fn own_netns(&self) -> Option<NetnsInode> {
        conntrack::own()
    }

    /// Looks at the conntrack tables of namespaces whose packets met it since the last look, and
    /// tells what was counted there meanwhile.
    pub fn look_at_conntrack(&mut self, now: KtimeNs) -> Vec<ConntrackChange> {
        self.conntrack.look(now, &mut self.netns)
    }

    /// The conntrack tables that were looked at, by their namespaces' names.
    pub fn conntrack_totals(&mut self) -> Vec<ConntrackTotals> {
        self.conntrack.totals(&mut self.netns)
    }

    /// Whether this process may not see the addresses of kernel functions.
    pub fn symbols_are_hidden(&self) -> bool {
        symbols::are_hidden()
    }

    /// What this node can say of those a row names by address. The client's container says best which pod
    /// it is: pods in the host's network share its addresses.
    pub fn name(&mut self, row: &Row) -> Named {
        let held = self.held(row);
        let client = row.client();
        let sender = client.sender;
        let cgroup = sender.and_then(|sender| sender.cgroup);
        let container = cgroup.and_then(|id| self.cgroups.container(id));
        let pod = container.and_then(|container| self.containers.pod(container));
        let at = |address| self.addresses.pod(address, row.wall());
        Named {
            netns: client.netns.map(|inode| self.netns.name(inode)),
            process: sender.and_then(|sender| Some((sender.pid?, sender.comm))),
            container: container.map(|container| container.id.clone()),
            pod_uid: container.and_then(|container| container.pod_uid.clone()),
            pod: pod.or_else(|| at(client.address.ip())),
            backend: row.backend().and_then(|backend| at(backend.ip())),
            asked: Asked {
                pod: at(row.asked().ip()),
                ..Asked::default()
            },
            held,
            ..Named::default()
        }
    }

    /// What keeps the process that `row` asked from answering at once: what was sent there came into its namespace,
    /// and no further, or it took more than a second there.
    fn held(&mut self, row: &Row) -> Option<Arc<str>> {
        let server = row.backend().unwrap_or(row.asked());
        let netns = if row.outcome().is_good() {
            row.slow_server()?
        } else {
            let stopped = row.stopped()?;
            let is_there = Some(stopped.at.netns) != row.client().netns;
            (stopped.leg.is_forward() && is_there).then_some(stopped.at.netns)?
        };
        self.held.at(netns, server.port())
    }

    /// The names of a device.
    pub fn site(&mut self, netns: NetnsInode, ifindex: Ifindex) -> Site {
        Site {
            netns,
            ifindex,
            name: self.netns.name(netns),
            device: self.devices.name(netns, ifindex, &mut self.netns),
        }
    }
}
