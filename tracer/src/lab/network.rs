//! The lab's namespaces and links: pods on a bridge `cni0` in the namespace `node`, as flannel lays them.
//!
//! Every link is created inside a namespace, so the host's own network never has one; every sysctl
//! is written from inside the namespace it belongs to.

use std::path::Path;

use super::Error;
use super::command::{feed_in, ip_batch, output};
use super::rules::{Family, restore_text};
use super::services::{GATEWAY_V4, GATEWAY_V6, PODS, Pod};

/// Where `ip netns` keeps its names, ip-netns(8).
const NETNS_DIR: &str = "/run/netns";

/// In every namespace, before it has links. Duplicate address detection leaves link-local addresses unused
/// for two seconds, and the node resolves its pods' addresses from one: IPv6 would stall that long.
const ALL_SYSCTLS: &str = "net.ipv6.conf.all.accept_dad=0
net.ipv6.conf.default.accept_dad=0
net.ipv6.conf.default.accept_ra=0
net.ipv6.conf.default.accept_redirects=0
net.ipv6.conf.default.router_solicitations=0
";

/// Of the node alone: forwarding, and every REJECT is told. The default, one ICMP error a second to each
/// pod, made most clients of a Service without endpoints wait five seconds instead.
const NODE_SYSCTLS: &str = "net.ipv4.ip_forward=1
net.ipv6.conf.all.forwarding=1
net.ipv4.icmp_ratelimit=0
";

/// How an answer between two pods of one bridge meets the node's conntrack, without which it would keep the
/// backend's address and the client would refuse it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replies {
    /// Through br_netfilter, as on real nodes.
    Bridged,
    /// Over the node's IP layer: pods know no neighbour but the gateway. For hosts that have not loaded
    /// br_netfilter; loading it would put all their own bridges through netfilter.
    Routed,
}

impl Replies {
    fn of_this_host() -> Self {
        if Path::new("/proc/sys/net/bridge").exists() {
            Self::Bridged
        } else {
            Self::Routed
        }
    }

    /// Of the node; redirects would tell the pods of the shorter way.
    fn sysctls(self) -> &'static str {
        match self {
            Self::Bridged => {
                "net.bridge.bridge-nf-call-iptables=1
net.bridge.bridge-nf-call-ip6tables=1
"
            }
            Self::Routed => {
                "net.ipv4.conf.all.send_redirects=0
net.ipv4.conf.default.send_redirects=0
"
            }
        }
    }

    /// Lengths of the pods' prefixes, IPv4 and IPv6.
    fn prefixes(self) -> (u8, u8) {
        match self {
            Self::Bridged => (24, 64),
            Self::Routed => (32, 128),
        }
    }
}

/// The namespaces of one lab. Dropping it removes them.
#[derive(Debug)]
pub(super) struct Network {
    prefix: String,
}

impl Network {
    /// Removes what an earlier lab of this prefix left, then builds namespaces, links and routes.
    pub(super) fn build(prefix: &str) -> Result<Self, Error> {
        let network = Self {
            prefix: checked(prefix)?.to_owned(),
        };
        network.remove()?;
        let add: Vec<String> = network
            .names()
            .map(|name| format!("netns add {name}"))
            .collect();
        ip_batch(&add.join("\n"))?;
        for netns in network.names() {
            sysctl(&netns, ALL_SYSCTLS)?;
        }
        let node = network.node();
        let replies = Replies::of_this_host();
        sysctl(&node, NODE_SYSCTLS)?;
        sysctl(&node, replies.sysctls())?;
        ip_batch_in(&node, &node_links())?;
        for pod in PODS {
            let netns = network.pod(*pod);
            ip_batch_in(&node, &pod_port(*pod, &netns))?;
            ip_batch_in(&netns, &pod_side(*pod, replies))?;
        }
        Ok(network)
    }

    /// Loads all Service rules of one family into the node, in one transaction.
    pub(super) fn load_rules(&self, family: Family) -> Result<(), Error> {
        let text = restore_text(family);
        feed_in(&self.node(), &[family.restore_program(), "--wait"], &text).map(drop)
    }

    /// Ends every process still in the namespaces, by pid, and deletes them with all their links.
    /// Does nothing for a namespace that does not exist.
    ///
    /// # Errors
    /// The first failure; the other namespaces are removed all the same.
    pub(super) fn remove(&self) -> Result<(), Error> {
        let mut first = Ok(());
        for netns in self
            .names()
            .filter(|netns| Path::new(NETNS_DIR).join(netns).exists())
        {
            let ended = end_processes(&netns);
            let deleted = output("ip", &["netns", "delete", &netns]);
            first = first.and(ended).and(deleted.map(drop));
        }
        first
    }

    /// Name of the node's namespace.
    pub(super) fn node(&self) -> String {
        format!("{}node", self.prefix)
    }

    /// Name of a pod's namespace.
    pub(super) fn pod(&self, pod: Pod) -> String {
        format!("{}{}", self.prefix, pod.name)
    }

    fn names(&self) -> impl Iterator<Item = String> {
        PODS.iter().map(|pod| self.pod(*pod)).chain([self.node()])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Nobody is left to tell; the next lab of this prefix removes the rest.
        drop(self.remove());
    }
}

/// Names of namespaces are file names and words of an `ip` batch; an empty prefix could meet another's `node`.
fn checked(prefix: &str) -> Result<&str, Error> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let starts = prefix.starts_with(|first: char| first.is_ascii_alphanumeric());
    if starts && prefix.len() <= 32 && prefix.bytes().all(allowed) {
        return Ok(prefix);
    }
    Err(Error::Prefix {
        prefix: prefix.to_owned(),
    })
}

fn end_processes(netns: &str) -> Result<(), Error> {
    let pids = output("ip", &["netns", "pids", netns])?;
    for pid in pids.split_whitespace() {
        // A process that has ended since makes `kill` fail: it is gone, as wanted.
        drop(output("kill", &["-KILL", pid]));
    }
    Ok(())
}

fn sysctl(netns: &str, settings: &str) -> Result<(), Error> {
    feed_in(netns, &["sysctl", "--quiet", "--load=-"], settings).map(drop)
}

fn ip_batch_in(netns: &str, batch: &str) -> Result<(), Error> {
    feed_in(netns, &["ip", "-batch", "-"], batch).map(drop)
}

/// Loopback, bridge, and an uplink: packets to a VIP without endpoints need a route to reach FORWARD,
/// where they are rejected. The uplink leads nowhere (both ends are here). The bridge's MAC is fixed, as the
/// CNI plugin `bridge` derives it from the address: else it changes with the ports.
fn node_links() -> String {
    format!(
        "link set lo up
link add cni0 address 0a:58:0a:f4:00:01 type bridge mcast_snooping 0
link set cni0 up
address add {GATEWAY_V4}/24 dev cni0
address add {GATEWAY_V6}/64 dev cni0 nodad
link add eth0 type veth peer name uplink
link set eth0 up
link set uplink up
address add 192.0.2.2/24 dev eth0
address add 2001:db8::2/64 dev eth0 nodad
route add default via 192.0.2.1
route add default via 2001:db8::1
"
    )
}

/// The pod's port on the bridge; hairpin as flannel's `hairpinMode`, for a pod that reaches itself by VIP.
fn pod_port(pod: Pod, netns: &str) -> String {
    let name = pod.name;
    format!(
        "link add veth-{name} type veth peer name eth0 netns {netns}
link set veth-{name} master cni0 up
link set veth-{name} type bridge_slave hairpin on
"
    )
}

fn pod_side(pod: Pod, replies: Replies) -> String {
    let (v4, v6) = (pod.v4(), pod.v6());
    let (v4_prefix, v6_prefix) = replies.prefixes();
    format!(
        "link set lo up
link set eth0 up
address add {v4}/{v4_prefix} dev eth0
address add {v6}/{v6_prefix} dev eth0 nodad
route replace {GATEWAY_V4} dev eth0
route replace {GATEWAY_V6} dev eth0
route add default via {GATEWAY_V4}
route add default via {GATEWAY_V6}
"
    )
}
