//! What an address asked is called: a Service's port, and by which of its addresses.

use std::{fmt, sync::Arc, time::Duration};

use super::{cluster::ObjectName, pod::Source};

/// By which address a Service was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Via {
    /// `spec.clusterIPs`
    ClusterIp,
    /// `spec.externalIPs`
    ExternalIp,
    /// `status.loadBalancer.ingress`
    LoadBalancer,
    /// A node's address and `nodePort`.
    NodePort,
    /// A pod's own address, of a Service that has none.
    Headless,
}

impl Via {
    /// The word for it, in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "cluster_ip",
            Self::ExternalIp => "external_ip",
            Self::LoadBalancer => "load_balancer",
            Self::NodePort => "node_port",
            Self::Headless => "headless",
        }
    }
}

/// A port of a Service, as it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePortName {
    /// The Service.
    pub service: ObjectName,
    /// The port's name; its number where it has none.
    pub port: Arc<str>,
    /// By which address.
    pub via: Via,
}

impl fmt::Display for ServicePortName {
    /// `shop/web:http`
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.service, self.port)
    }
}

/// A Service as a row names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// Which port of which.
    pub port: Arc<ServicePortName>,
    /// Who says so.
    pub source: Source,
    /// How long ago it said so.
    pub age: Duration,
}
