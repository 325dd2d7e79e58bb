//! `ClusterChange`: what the API server says that changed, one object at a time; and what is known
//! without it.

use std::{net::IpAddr, sync::Arc};

use super::{
    asked::ServicePortName,
    cluster::{EndpointSlice, Node, ObjectName, PodObject, PortProtocol, Service},
    ids::WallNs,
};

/// A kind of object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Pods.
    Pods,
    /// Services.
    Services,
    /// EndpointSlices.
    Slices,
    /// Nodes.
    Nodes,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pods, Self::Services, Self::Slices, Self::Nodes];

    /// As kubectl calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Services => "services",
            Self::Slices => "endpointslices",
            Self::Nodes => "nodes",
        }
    }
}

/// One change, and when this node learnt of it.
#[derive(Clone, Debug)]
pub struct ClusterChange {
    /// When it was learnt.
    pub at: WallNs,
    /// What it is.
    pub what: Change,
}

/// What changed.
#[derive(Clone, Debug)]
pub enum Change {
    /// A list of all objects of a kind begins; what is not in it has gone.
    Listing {
        /// Which kind.
        kind: Kind,
        /// Only what concerns this node is listed, and watched.
        own: bool,
    },
    /// The list is through: from here on only what changes is told.
    Listed(Kind),
    /// An object is there, or is different.
    Set(Object),
    /// An object is gone.
    Gone(Key),
    /// Nothing of a kind is heard any more; what was known may be out of date.
    Lost {
        /// Which kind.
        kind: Kind,
        /// Why, in words.
        why: Arc<str>,
    },
    /// The kind is heard again, from where it was lost.
    Heard(Kind),
    /// An object as it was kept on disk, and when that was true; what the API server says outdoes it.
    Kept(Object),
    /// kube-proxy's rules were read, and name these; nothing else any more.
    Rules(Arc<RuleNames>),
}

/// What kube-proxy's rules in the kernel name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleNames {
    /// Ports of Services, each by what it is asked by.
    pub claims: Vec<RuleClaim>,
    /// Addresses of this node, at which node ports are asked.
    pub own: Vec<IpAddr>,
}

/// One address, or port of this node, that rules translate for a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleClaim {
    /// `None` for a port of this node's addresses.
    pub address: Option<IpAddr>,
    /// The protocol.
    pub protocol: PortProtocol,
    /// The port.
    pub port: u16,
    /// Whose it is.
    pub name: Arc<ServicePortName>,
}

impl Object {
    /// Of which kind it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pod(_) => Kind::Pods,
            Self::Service(_) => Kind::Services,
            Self::Slice(_) => Kind::Slices,
            Self::Node(_) => Kind::Nodes,
        }
    }
}

/// An object of any kind.
#[derive(Clone, Debug)]
pub enum Object {
    /// A Pod.
    Pod(Arc<PodObject>),
    /// A Service.
    Service(Arc<Service>),
    /// An EndpointSlice.
    Slice(Arc<EndpointSlice>),
    /// A Node.
    Node(Arc<Node>),
}

/// What tells an object of a kind from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A Pod, by its uid.
    Pod(Arc<str>),
    /// A Service, by its name.
    Service(ObjectName),
    /// An EndpointSlice, by its name, and its Service's.
    Slice {
        /// Its name.
        name: ObjectName,
        /// The name of its Service, in the same namespace.
        service: Arc<str>,
    },
    /// A Node, by its name.
    Node(Arc<str>),
}
