//! What this node itself knows, without an API server: names of namespaces, processes and
//! containers. Reads /run/netns, /proc and the cgroup file system; never waits for anybody.

mod cgroup;
mod netns;

use crate::model::{Client, Named};

/// Names, looked up when first needed and remembered.
#[derive(Debug, Default)]
pub struct Node {
    netns: netns::Names,
    cgroups: cgroup::Paths,
}

impl Node {
    /// Whether a namespace is called `name`, or has that inode, now.
    pub fn knows_netns(&mut self, name: &str) -> bool {
        self.netns.knows(name)
    }

    /// What can be said of `client` beyond its address.
    pub fn name(&mut self, client: &Client) -> Named {
        let sender = client.sender;
        let cgroup = sender.and_then(|sender| sender.cgroup);
        Named {
            netns: client.netns.map(|inode| self.netns.name(inode)),
            process: sender.and_then(|sender| Some((sender.pid?, sender.comm))),
            container: cgroup.and_then(|id| self.cgroups.container(id)),
        }
    }
}
