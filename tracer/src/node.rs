//! What this node itself knows, without an API server: names of namespaces, processes and
//! containers, and of kernel code. Reads /run/netns, /proc and the cgroup file system; never waits
//! for anybody.

mod cgroup;
mod device;
mod netns;
mod symbols;

use std::sync::Arc;

use crate::model::{Client, Journey, Named, NetnsInode, Site};

/// Names, looked up when first needed and remembered.
#[derive(Debug, Default)]
pub struct Node {
    netns: netns::Names,
    cgroups: cgroup::Paths,
    devices: device::Names,
    symbols: symbols::Symbols,
}

impl Node {
    /// Whether a namespace is called `name`, or has that inode, now.
    pub fn knows_netns(&mut self, name: &str) -> bool {
        self.netns.knows(name)
    }

    /// The name of a namespace, or its inode where nobody has a name for it.
    pub fn netns(&mut self, inode: NetnsInode) -> Arc<str> {
        self.netns.name(inode)
    }

    /// The kernel function that holds the code at `address`, and the offset in it; `None` where
    /// that is hidden.
    pub fn symbol(&mut self, address: u64) -> Option<Arc<str>> {
        self.symbols.name(address)
    }

    /// Whether this process may not see the addresses of kernel functions.
    pub fn symbols_are_hidden(&self) -> bool {
        symbols::are_hidden()
    }

    /// What can be said of `client` beyond its address.
    pub fn name(&mut self, client: &Client) -> Named {
        let sender = client.sender;
        let cgroup = sender.and_then(|sender| sender.cgroup);
        Named {
            netns: client.netns.map(|inode| self.netns.name(inode)),
            process: sender.and_then(|sender| Some((sender.pid?, sender.comm))),
            container: cgroup.and_then(|id| self.cgroups.container(id)),
            sites: Vec::new(),
        }
    }

    /// The names of all that a journey passes, each once.
    pub fn sites(&mut self, journey: &Journey) -> Vec<Site> {
        let mut sites: Vec<Site> = Vec::with_capacity(8);
        for point in journey.points() {
            let (netns, ifindex) = (point.netns, point.ifindex);
            let is_known = |site: &Site| site.netns == netns && site.ifindex == ifindex;
            if !sites.iter().any(is_known) {
                sites.push(Site {
                    netns,
                    ifindex,
                    name: self.netns.name(netns),
                    device: self.devices.name(netns, ifindex, &mut self.netns),
                });
            }
        }
        sites
    }
}
