//! `Objects`: the API objects that doctor judges, got once, trimmed to plain values. Each is asked
//! for by itself, so that one that may not be read does not hide the others.

mod policies;
mod pools;
mod read;
mod trim;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

pub use self::read::get;
use crate::model::policy::{Labels, Policy};

/// What was got, or in words why it was not.
pub type Got<T> = Result<T, String>;

/// The objects at one moment.
#[derive(Clone, Debug)]
pub struct Objects {
    /// How far this node's clock is ahead of the API server's, in seconds; negative when behind.
    /// `None` when it did not tell its time.
    pub clock_ahead: Option<i64>,
    /// All Nodes.
    pub nodes: Got<Vec<NodeObject>>,
    /// Pods of kube-system, and those of CNI plugins wherever they run.
    pub pods: Got<Vec<PodObject>>,
    /// DaemonSets and Deployments of the same namespaces.
    pub workloads: Got<Vec<Workload>>,
    /// The Services of kube-system called `kube-dns` or `coredns`.
    pub dns_services: Got<Vec<Service>>,
    /// Addresses of kube-dns's EndpointSlices, and whether each is ready.
    pub dns_endpoints: Got<Vec<(IpAddr, bool)>>,
    /// Ports of those EndpointSlices: the Service port's name, number at the endpoints, protocol.
    pub dns_targets: Got<Vec<(String, u16, String)>>,
    /// ConfigMaps of kube-system by name: the keys and texts of `coredns` and `kube-proxy`.
    pub config_maps: Got<BTreeMap<String, BTreeMap<String, String>>>,
    /// ServiceAccounts of kube-system.
    pub service_accounts: Got<Vec<String>>,
    /// ClusterRoles that are bound to a ServiceAccount of kube-system or of a CNI plugin.
    pub roles: Got<Vec<BoundRole>>,
    /// NetworkPolicies, and what they choose by.
    pub network_policies: Got<Policies>,
    /// Calico's pools of addresses.
    pub address_pools: Got<Vec<AddressPool>>,
    /// How many pods there are in the cluster.
    pub pod_count: Got<u64>,
    /// How many Services there are in the cluster.
    pub service_count: Got<u64>,
}

/// NetworkPolicies.
#[derive(Clone, Debug)]
pub struct Policies {
    /// All of them.
    pub policies: Vec<Policy>,
    /// Namespaces, with their labels; none where there are no policies.
    pub namespaces: Got<BTreeMap<String, Labels>>,
    /// This node's pods, of all namespaces; likewise.
    pub pods: Got<Vec<PodObject>>,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            policies: Vec::new(),
            namespaces: Ok(BTreeMap::new()),
            pods: Ok(Vec::new()),
        }
    }
}

/// A Node.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeObject {
    /// Its name.
    pub name: String,
    /// `status.addresses` of type InternalIP.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`, address and prefix length.
    pub pod_cidrs: Vec<(IpAddr, u8)>,
    /// Annotations of CNI plugins.
    pub annotations: BTreeMap<String, String>,
    /// The condition Ready; `Err` with its message when it does not hold.
    pub ready: Result<(), String>,
    /// Keys of its taints that keep pods away.
    pub taints: Vec<String>,
    /// Its container runtime and the version, as `containerd://2.4.2`; empty where it does not say.
    pub runtime: String,
}

/// A pool that Calico gives pods their addresses from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPool {
    /// Its name.
    pub name: String,
    /// First address and prefix length.
    pub range: (IpAddr, u8),
    /// It gives no more addresses.
    pub disabled: bool,
    /// Blocks of it that nodes have taken.
    pub blocks: u64,
    /// Addresses that are given.
    pub given: u64,
}

/// A Pod of the system, or of this node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodObject {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `spec.nodeName`; `None` when it is not scheduled.
    pub node: Option<String>,
    /// Whether it uses its node's network.
    pub host_network: bool,
    /// `status.podIPs`.
    pub addresses: Vec<IpAddr>,
    /// Ports of its containers that have a name: name, number, protocol.
    pub ports: Vec<(String, u16, String)>,
    /// `status.phase`.
    pub phase: String,
    /// Whether the condition Ready holds.
    pub ready: bool,
    /// Reason and message of the condition PodScheduled where it does not hold.
    pub unscheduled: Option<String>,
    /// Its containers' states.
    pub containers: Vec<Container>,
    /// Events that warn about it, the last one last.
    pub warnings: Vec<String>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// How often it was started again.
    pub restarts: i32,
    /// Reason and message for which it waits, such as `CrashLoopBackOff`; `None` when it runs.
    pub waiting: Option<(String, String)>,
    /// Reason, exit code and message with which it ended last; `None` when it never did.
    pub ended: Option<(String, i32, String)>,
    /// The last lines that it wrote before it ended last, or writes now; empty when nobody asked.
    pub log: Vec<String>,
}

/// A Deployment or a DaemonSet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Workload {
    /// `Deployment` or `DaemonSet`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Pods it is to have.
    pub wanted: i32,
    /// Pods of it that are ready.
    pub ready: i32,
    /// Labels of its pods.
    pub labels: BTreeMap<String, String>,
    /// The ServiceAccount of its pods.
    pub service_account: String,
    /// Its containers.
    pub containers: Vec<ContainerSpec>,
    /// `dnsPolicy` of its pods.
    pub dns_policy: String,
}

/// A container as it is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerSpec {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// Command and arguments.
    pub args: Vec<String>,
    /// Limit on its memory, in bytes; `None` without one.
    pub memory_limit: Option<u64>,
    /// `securityContext.allowPrivilegeEscalation`.
    pub allow_privilege_escalation: Option<bool>,
    /// Ports, by protocol.
    pub ports: Vec<(u16, String)>,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// `spec.clusterIPs`.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.selector`.
    pub selector: BTreeMap<String, String>,
    /// Ports: name, number, protocol.
    pub ports: Vec<(String, u16, String)>,
}

/// A ClusterRole, and to whom it is bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BoundRole {
    /// The ClusterRole; it need not exist.
    pub role: String,
    /// The ClusterRoleBinding.
    pub binding: String,
    /// ServiceAccounts as `namespace/name`.
    pub subjects: Vec<String>,
    /// Its rules; `None` when there is no such ClusterRole.
    pub rules: Option<Vec<Rule>>,
}

/// What a role allows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// API groups.
    pub groups: Vec<String>,
    /// Resources.
    pub resources: Vec<String>,
    /// Verbs.
    pub verbs: Vec<String>,
}

impl Rule {
    /// Whether it allows `verb` on `resource` of `group`; `*` is all.
    pub fn allows(&self, group: &str, resource: &str, verb: &str) -> bool {
        let has = |list: &[String], word: &str| list.iter().any(|item| item == word || item == "*");
        has(&self.groups, group) && has(&self.resources, resource) && has(&self.verbs, verb)
    }
}

/// Longest wait for any one answer of the API server.
pub const PATIENCE: Duration = Duration::from_secs(3);
