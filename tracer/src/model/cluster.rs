//! `Snapshot`: what the API objects say at one moment, trimmed to what names and rules need.
//! Plain values without any kube type; whoever wants an index builds one.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use super::{change::Object, ids::WallNs, pod::Pod, row::Protocol};

/// The cluster's objects at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// When the last of it was confirmed by the API server.
    pub taken: WallNs,
    /// Pods that have not ended, in no order.
    pub pods: Vec<Arc<PodObject>>,
    /// Services, in no order.
    pub services: Vec<Arc<Service>>,
    /// EndpointSlices, in no order.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// Nodes, in no order.
    pub nodes: Vec<Arc<Node>>,
}

impl Snapshot {
    /// All of them, kind by kind.
    pub fn objects(&self) -> impl Iterator<Item = Object> {
        let pods = self.pods.iter().cloned().map(Object::Pod);
        let services = self.services.iter().cloned().map(Object::Service);
        let slices = self.slices.iter().cloned().map(Object::Slice);
        let nodes = self.nodes.iter().cloned().map(Object::Node);
        pods.chain(services).chain(slices).chain(nodes)
    }
}

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// Its namespace, in Kubernetes' sense.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for ObjectName {
    /// `shop/web`, as kubectl takes it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

/// A Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodObject {
    /// Which.
    pub pod: Arc<Pod>,
    /// `status.podIPs`; empty before the network is set up. Those of the node on `host_network`.
    pub ips: Vec<IpAddr>,
    /// `spec.nodeName`; `None` when it is not scheduled.
    pub node: Option<Arc<str>>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// The workload that it belongs to, followed through ReplicaSets and Jobs; `None` when it has
    /// no owner.
    pub workload: Option<Workload>,
    /// Labels.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// Whether the condition Ready holds.
    pub ready: bool,
    /// `metadata.creationTimestamp`.
    pub created: WallNs,
    /// When it was asked to end; `None` when it was not.
    pub deleted: Option<WallNs>,
    /// `status.startTime`, before which it had no address; `None` when it has not started.
    pub started: Option<WallNs>,
    /// When its last container ended, to the second, once none is to run again; its addresses may
    /// be another's from then on. `None` while it runs.
    pub ended: Option<WallNs>,
    /// The hash by which the kubelet's cgroups name a static pod (annotation
    /// `kubernetes.io/config.hash`); `None` for any other pod.
    pub config_hash: Option<Arc<str>>,
}

/// What a pod belongs to, as `deploy/cart` in its namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload {
    /// `Deployment`, `StatefulSet`, `DaemonSet`, `Job`, `CronJob`, …
    pub kind: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

/// Protocol of a Service's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortProtocol {
    /// RFC 9293
    Tcp,
    /// RFC 768
    Udp,
    /// RFC 9260
    Sctp,
}

impl PortProtocol {
    /// The word for it, as kube-proxy hashes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// Its number (RFC 5237's registry).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The one with this number; `None` for another.
    pub fn of_number(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|protocol| protocol.number() == number)
    }
}

impl From<Protocol> for PortProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Udp => Self::Udp,
            Protocol::Tcp => Self::Tcp,
        }
    }
}

/// `spec.type` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceType {
    /// With or without a cluster IP.
    ClusterIp,
    /// With ports on every node.
    NodePort,
    /// With addresses of a load balancer.
    LoadBalancer,
    /// A name for an outside name; without any address or rule.
    ExternalName,
}

/// `internalTrafficPolicy`, `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    /// Any endpoint.
    #[default]
    Cluster,
    /// Endpoints on the receiving node only.
    Local,
}

/// An address of a load balancer (`status.loadBalancer.ingress`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoadBalancerIp {
    /// The address.
    pub ip: IpAddr,
    /// `ipMode: Proxy`: kube-proxy is to leave the address alone.
    pub proxied: bool,
}

/// A Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Which.
    pub name: ObjectName,
    /// Its uid.
    pub uid: Arc<str>,
    /// `spec.type`.
    pub r#type: ServiceType,
    /// `spec.clusterIPs`; empty for a headless Service and for ExternalName.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.clusterIP` is `None`, or the label `service.kubernetes.io/headless` is there.
    pub headless: bool,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip`.
    pub load_balancer_ips: Vec<LoadBalancerIp>,
    /// `spec.loadBalancerSourceRanges`, address and prefix length; empty when all may come.
    pub source_ranges: Vec<(IpAddr, u8)>,
    /// In the object's order.
    pub ports: Vec<ServicePort>,
    /// `spec.internalTrafficPolicy`.
    pub internal_policy: TrafficPolicy,
    /// `spec.externalTrafficPolicy`.
    pub external_policy: TrafficPolicy,
    /// `spec.healthCheckNodePort`; `None` when it has none.
    pub health_check_node_port: Option<u16>,
    /// `sessionAffinity: ClientIP`, with its timeout; `None` without affinity.
    pub affinity: Option<Duration>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// `spec.trafficDistribution`; `None` when it is not set.
    pub traffic_distribution: Option<Arc<str>>,
    /// The label `service.kubernetes.io/service-proxy-name`, with which kube-proxy is to leave
    /// the Service alone; `None` without it.
    pub proxy_name: Option<Arc<str>>,
    /// `spec.selector`; empty when it has none.
    pub selector: Vec<(Arc<str>, Arc<str>)>,
    /// `metadata.creationTimestamp`.
    pub created: WallNs,
}

impl Service {
    /// It has addresses of its own that are kube-proxy's to serve, not another program's
    /// (`service.kubernetes.io/service-proxy-name`).
    pub fn is_addressed(&self) -> bool {
        self.r#type != ServiceType::ExternalName
            && !self.cluster_ips.is_empty()
            && self.proxy_name.is_none()
    }
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty when it has none.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: PortProtocol,
    /// The port at the cluster IP.
    pub port: u16,
    /// The port on every node; `None` when it has none.
    pub node_port: Option<u16>,
}

/// An EndpointSlice of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Which.
    pub name: ObjectName,
    /// The Service in the same namespace (label `kubernetes.io/service-name`).
    pub service: Arc<str>,
    /// The label `service.kubernetes.io/headless` is there: the Service has no address of its own.
    pub headless: bool,
    /// Its endpoints, in the object's order.
    pub endpoints: Vec<Endpoint>,
    /// Its ports; each endpoint has all of them.
    pub ports: Vec<EndpointPort>,
}

/// One endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses, of the slice's family.
    pub addresses: Vec<IpAddr>,
    /// `conditions.ready`; absent means true.
    pub ready: bool,
    /// `conditions.serving`; absent means as `ready`.
    pub serving: bool,
    /// `conditions.terminating`; absent means false.
    pub terminating: bool,
    /// `nodeName`; `None` when it has none.
    pub node: Option<Arc<str>>,
    /// `zone`; `None` when it has none.
    pub zone: Option<Arc<str>>,
    /// `hints.forZones`.
    pub zone_hints: Vec<Arc<str>>,
    /// `hints.forNodes`.
    pub node_hints: Vec<Arc<str>>,
    /// The pod behind it (`targetRef`); `None` when it is none.
    pub pod: Option<ObjectName>,
}

/// One port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// The Service port's name; empty when it has none.
    pub name: Arc<str>,
    /// Its protocol.
    pub protocol: PortProtocol,
    /// The port at the endpoint; `None` means all ports.
    pub port: Option<u16>,
}

/// A Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// `status.addresses` of types InternalIP and ExternalIP, in that order.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`, address and prefix length.
    pub pod_cidrs: Vec<(IpAddr, u8)>,
    /// The label `topology.kubernetes.io/zone`; `None` without it.
    pub zone: Option<Arc<str>>,
    /// Whether the condition Ready holds.
    pub ready: bool,
    /// Annotations of CNI plugins (`flannel.alpha.coreos.com/`, `projectcalico.org/`).
    pub annotations: Vec<(Arc<str>, Arc<str>)>,
}
