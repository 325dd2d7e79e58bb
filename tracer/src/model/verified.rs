//! `Verified`: what came of judging a node's rules by what the API objects ask for.

use std::time::Duration;

use super::{finding::Finding, ids::WallNs};

/// What rules were judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objects {
    /// What the API server says.
    Api,
    /// What files say.
    Files,
    /// What the API server said so long ago, as it was kept on disk.
    Kept(Duration),
    /// Nothing but the rules themselves.
    None,
}

impl Objects {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Files => "files",
            Self::Kept(_) => "kept",
            Self::None => "none",
        }
    }
}

/// A judgement of all rules that serve Services on one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// The Node.
    pub node: String,
    /// How Services are served here: `iptables`, `nftables`, `ipvs`; empty when nothing does.
    pub modes: Vec<&'static str>,
    /// By what they were judged.
    pub objects: Objects,
    /// When the objects were true; 0 without objects.
    pub taken: WallNs,
    /// Services that kube-proxy is to serve.
    pub services: usize,
    /// Their ports, in each IP family.
    pub ports: usize,
    /// Of these, ports of whose Services nothing is said, since their objects changed a moment ago.
    pub changing: usize,
    /// Packets that were walked through the rules.
    pub packets: u64,
    /// Rules that the kernel holds.
    pub rules: usize,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
    /// What NetworkPolicies keep away, which is not judged.
    pub kept_away: Vec<KeptAway>,
}

/// Packets to Services that the rules of one engine of NetworkPolicies keep away from endpoints. Which pods policies
/// select is not known here, so whether they are to be kept away is not judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAway {
    /// Who wrote the rules, as `Calico`.
    pub engine: &'static str,
    /// Of how many Service ports.
    pub ports: usize,
    /// How many packets, each by one source to one address.
    pub packets: usize,
    /// The first of them in words, as `Service shop/web, port http: cluster IP 10.96.0.10:80 from a pod (10.244.1.9)`.
    pub first: Vec<String>,
}
