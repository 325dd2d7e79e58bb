//! kube-proxy on this node: whether it runs, with which mode, name and kubeconfig, and whether it
//! still writes rules.

mod ports;
mod process;
mod rules;
mod sync;
mod verified;

pub(super) use self::process::{kubeconfig_of, server};
use super::{Answer, Check, Problem, Root, Seen};

/// What is asked about kube-proxy.
pub(super) const CHECKS: &[Check] = &[
    process::PROCESS,
    process::MODE,
    process::HOSTNAME,
    process::KUBECONFIG,
    sync::HEALTH,
    sync::SYNC,
    rules::LEFTOVERS,
    rules::DNS_RULES,
    verified::SERVICE_RULES,
    ports::NODE_PORTS,
    sync::LOG,
];

/// Its name as a process, a DaemonSet and a ConfigMap.
const NAME: &str = "kube-proxy";
