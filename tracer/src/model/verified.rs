//! `Verified`: what came of judging a node's rules by what the API objects ask for.

use super::{finding::Finding, ids::WallNs};

/// A judgement of all rules that serve Services on one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// The Node.
    pub node: String,
    /// How Services are served here: `iptables`, `nftables`, `ipvs`; empty when nothing does.
    pub modes: Vec<&'static str>,
    /// When the objects were true.
    pub taken: WallNs,
    /// Services that kube-proxy is to serve.
    pub services: usize,
    /// Their ports, in each IP family.
    pub ports: usize,
    /// Packets that were walked through the rules.
    pub packets: u64,
    /// Rules that the kernel holds.
    pub rules: usize,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
}
