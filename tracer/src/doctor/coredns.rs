//! The cluster's DNS: its objects, its Corefile, its pods and why they do not run, its Service, who may ask it.

mod corefile;
mod cpu;
mod file;
mod objects;
mod pods;
mod policies;
mod service;

use super::{Answer, Check, Problem, Seen, node};

/// What is asked about CoreDNS.
pub(super) const CHECKS: &[Check] = &[
    objects::OBJECTS,
    objects::RBAC,
    file::COREFILE,
    pods::PODS,
    pods::MEMORY,
    cpu::CPU,
    service::SERVICE,
    service::CLUSTER_DNS,
    service::METRICS,
    policies::POLICIES,
];

/// What CoreDNS is called: its Deployment, ConfigMap and ServiceAccount.
const NAME: &str = "coredns";

/// The label of its pods, and of its Service, since it took kube-dns's place.
const LABEL: (&str, &str) = ("k8s-app", "kube-dns");
