//! `Name`: what a node itself knew of somebody or something. Recorded beside the facts, it names rows
//! again where nobody can be asked. What the API server said is recorded as it said it.

use std::{net::IpAddr, net::SocketAddr, sync::Arc};

use super::{
    ids::{CgroupId, Ifindex, NetnsInode, WallNs},
    pod::PodName,
    row::Row,
};

/// Who or what something was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// The two ends of a row.
    Ends {
        /// By what they are told apart.
        key: EndsKey,
        /// From when on. It holds until another answer's beginning.
        since: WallNs,
        /// Who they are.
        ends: Box<NamedEnds>,
    },
    /// A device of a namespace.
    Device {
        /// Which namespace.
        netns: NetnsInode,
        /// Which device of it.
        ifindex: Ifindex,
        /// The namespace's name, or its inode.
        name: Arc<str>,
        /// The device's name; `None` when it is gone, or its namespace cannot be entered.
        device: Option<Arc<str>>,
    },
}

/// What of a row tells who its ends are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndsKey {
    /// The client's namespace.
    pub netns: Option<NetnsInode>,
    /// The client's cgroup.
    pub cgroup: Option<CgroupId>,
    /// The client's address.
    pub client: IpAddr,
    /// The address asked.
    pub asked: SocketAddr,
    /// The backend it became.
    pub backend: Option<SocketAddr>,
}

impl EndsKey {
    /// That of `row`.
    pub fn of(row: &Row) -> Self {
        let client = row.client();
        Self {
            netns: client.netns,
            cgroup: client.sender.and_then(|sender| sender.cgroup),
            client: client.address.ip(),
            asked: row.asked(),
            backend: row.backend(),
        }
    }
}

/// Who the ends of a row are, as far as the node itself knows; `None` where it knows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedEnds {
    /// The client's network namespace, as `ip netns` or its first process calls it.
    pub netns: Option<Arc<str>>,
    /// The client's container.
    pub container: Option<Arc<str>>,
    /// The uid, or hash, of the client's pod in the path of its cgroup.
    pub pod_uid: Option<Arc<str>>,
    /// The client's pod.
    pub pod: Option<PodName>,
    /// The pod whose own address was asked.
    pub asked: Option<PodName>,
    /// The backend's pod.
    pub backend: Option<PodName>,
    /// The rule that turned the row's packet away.
    pub rule: Option<Arc<str>>,
    /// Which process of the server does not run, and why.
    pub held: Option<Arc<str>>,
}
