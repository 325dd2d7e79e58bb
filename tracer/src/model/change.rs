//! `ClusterChange`: what the API server says that changed, one object at a time.

use std::sync::Arc;

use super::{
    cluster::{EndpointSlice, Node, ObjectName, PodObject, Service},
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
