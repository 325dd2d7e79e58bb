//! A pod, and how well its name is known.

use std::{fmt, sync::Arc, time::Duration};

use super::cluster::{PodObject, Workload};

/// A pod, by what tells it apart from all others that ever were.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Its namespace, in Kubernetes' sense.
    pub namespace: Arc<str>,
    /// Its name, which another pod may have had before.
    pub name: Arc<str>,
    /// Its uid; a static pod's is the hash that the kubelet gives it. `None` where the source has none.
    pub uid: Option<Arc<str>>,
}

impl fmt::Display for Pod {
    /// `shop/cart-7d9`, as kubectl takes it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

/// Where a name comes from, what is trusted most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The API server.
    Api,
    /// The container runtime's state directory, by container id.
    Runtime,
    /// The kubelet's log directories, by the pod uid in the cgroup's path.
    Kubelet,
    /// What CNI plugins returned when they gave the address.
    Cni,
    /// kube-proxy's rules in the kernel.
    Rules,
    /// What the API server said before this trace, as kept on disk.
    Snapshot,
}

impl Source {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::Api,
        Self::Runtime,
        Self::Kubelet,
        Self::Cni,
        Self::Rules,
        Self::Snapshot,
    ];

    /// The word for it, in text and JSON alike.
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Runtime => "runtime",
            Self::Kubelet => "kubelet",
            Self::Cni => "cni",
            Self::Rules => "rules",
            Self::Snapshot => "snapshot",
        }
    }
}

/// A pod as a row names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    /// Which.
    pub pod: Arc<Pod>,
    /// Who says so.
    pub source: Source,
    /// How long ago it said so.
    pub age: Duration,
    /// What the API server says, or once said, of it; `None` where that is not known.
    pub object: Option<Arc<PodObject>>,
}

impl PodName {
    /// What the pod belongs to; `None` when to nothing, or when that is not known.
    pub fn workload(&self) -> Option<&Workload> {
        self.object.as_ref()?.workload.as_ref()
    }

    /// The node that it runs on; `None` when that is not known.
    pub fn node(&self) -> Option<&Arc<str>> {
        self.object.as_ref()?.node.as_ref()
    }
}
