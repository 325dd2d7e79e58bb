//! The node itself: kernel, conntrack, sysctls, counters of what is lost now, the resolver's files,
//! the clock, SELinux.

mod clock;
mod counters;
mod kernel;
pub(super) mod resolv;
mod selinux;
mod sysctls;

use super::{Answer, Check, Problem, Root, Seen};

/// What is asked about the node.
pub(super) const CHECKS: &[Check] = &[
    kernel::KERNEL,
    kernel::PROBES,
    sysctls::FORWARDING,
    sysctls::BRIDGE,
    counters::CONNTRACK_TABLE,
    counters::CONNTRACK_DROPS,
    counters::RP_FILTER,
    counters::UDP,
    resolv::RESOLV_CONF,
    clock::CLOCK,
    selinux::SELINUX,
];

/// The kubelet's configuration file: where kubeadm, and most others, put it.
pub(super) const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";

/// The kubelet's configuration; an empty value when there is none.
pub(super) fn kubelet(root: &Root) -> serde_json::Value {
    root.yaml(KUBELET_CONFIG).unwrap_or_default()
}
