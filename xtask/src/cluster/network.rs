//! The bed's namespaces: a control plane and two nodes on one link, pods' ranges joined by VXLAN
//! as Flannel lays it. Nothing of it is in the machine's own namespace.

use std::{fmt::Write as _, net::Ipv4Addr, net::Ipv6Addr, path::Path, process::Command};

use anyhow::{Result, ensure};

use crate::sh;

/// The control plane's address, which the API server is reached at.
pub(super) const CONTROL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// All pods, and all services.
pub(super) const POD_RANGES: &str = "10.244.0.0/16,fd00:10:244::/56";
pub(super) const SERVICE_RANGES: &str = "10.96.0.0/16,fd00:10:96::/112";

/// In every namespace, before it has links: addresses are usable at once.
const SYSCTLS: &str = "net.ipv6.conf.all.accept_dad=0
net.ipv6.conf.default.accept_dad=0
net.ipv6.conf.default.accept_ra=0
net.ipv4.ip_forward=1
net.ipv6.conf.all.forwarding=1
";

/// What kube-proxy asks of a node: pods of one bridge answer each other through its rules.
const NODE_SYSCTLS: &str = "net.bridge.bridge-nf-call-iptables=1
net.bridge.bridge-nf-call-ip6tables=1
";

/// A node, by its number from 1.
#[derive(Clone, Copy)]
pub(super) struct Node(pub(super) u8);

/// Both.
pub(super) const NODES: [Node; 2] = [Node(1), Node(2)];

impl Node {
    /// As Kubernetes knows it.
    pub(super) fn name(self) -> String {
        format!("n{}", self.0)
    }

    pub(super) fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, 10 + self.0)
    }

    pub(super) fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10 + u16::from(self.0))
    }

    /// Its pods' addresses.
    pub(super) fn pods_v4(self) -> String {
        format!("10.244.{}.0/24", self.0)
    }

    pub(super) fn pods_v6(self) -> String {
        format!("fd00:10:244:{}::/64", self.0)
    }

    /// MAC address of its VXLAN device; Flannel publishes it as the node's annotation.
    pub(super) fn vtep(self) -> String {
        format!("5e:00:00:00:00:0{}", self.0)
    }
}

/// Name of a namespace of bed `bed`; `role` is `control` or a node's name.
pub(super) fn netns(bed: &str, role: &str) -> String {
    format!("{bed}-{role}")
}

/// Makes the namespaces, their links and routes.
///
/// # Errors
/// Not root, a namespace of that name exists, or the kernel lacks VXLAN or br_netfilter.
pub(super) fn build(bed: &str) -> Result<()> {
    ensure!(
        Path::new("/proc/sys/net/bridge").exists(),
        "kube-proxy needs br_netfilter on its node: modprobe br_netfilter"
    );
    let control = netns(bed, "control");
    add(&control, SYSCTLS)?;
    batch(&control, &control_links())?;
    for node in NODES {
        let name = netns(bed, &node.name());
        add(&name, &[SYSCTLS, NODE_SYSCTLS].concat())?;
        batch(&control, &port(node, &name))?;
        batch(&name, &node_links(node))?;
        for (device, peer, to) in fdb(node) {
            // By its full path: a CNI plugin has the same name.
            let fdb = ["fdb", "append", &peer, "dev", device, "dst", &to];
            let mut command = inside(&name, "/sbin/bridge");
            sh::run(command.args(fdb).args(["self", "permanent"]))?;
        }
    }
    Ok(())
}

/// Deletes the namespaces with all their links; those that do not exist are passed over.
///
/// # Errors
/// `ip` could not delete one that exists.
pub(super) fn remove(bed: &str) -> Result<()> {
    let nodes = NODES.map(Node::name);
    for role in nodes.iter().map(String::as_str).chain(["control"]) {
        let name = netns(bed, role);
        if Path::new("/run/netns").join(&name).exists() {
            sh::run(Command::new("ip").args(["netns", "delete", &name]))?;
        }
    }
    Ok(())
}

/// `program` inside a namespace; unlike `ip netns exec` it leaves /sys as it is, cgroups and all.
pub(super) fn inside(netns: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}")).arg("--");
    command.arg(program);
    command
}

fn add(netns: &str, sysctls: &str) -> Result<()> {
    sh::run(Command::new("ip").args(["netns", "add", netns]))?;
    let settings = sysctls.lines();
    // Not by `nsenter`: /proc/sys/net is that of whoever opens it, but /sys need not be seen.
    sh::run(
        inside(netns, "sysctl")
            .args(["--quiet", "--write"])
            .args(settings),
    )
}

fn batch(netns: &str, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    sh::feed(command.args(["-netns", netns, "-batch", "-"]), lines)
}

/// A bridge, and the ways back to pods: what leaves a node for the API server is not masqueraded.
fn control_links() -> String {
    let mut lines = format!(
        "link set lo up
link add link0 type bridge
link set link0 up
address add {CONTROL}/24 dev link0
address add 2001:db8::10/64 dev link0
"
    );
    for node in NODES {
        let _ = writeln!(lines, "route add {} via {}", node.pods_v4(), node.v4());
        let _ = writeln!(lines, "route add {} via {}", node.pods_v6(), node.v6());
    }
    lines
}

fn port(node: Node, netns: &str) -> String {
    let name = node.name();
    format!(
        "link add {name} type veth peer name eth0 netns {netns}
link set {name} master link0 up
"
    )
}

/// As flanneld leaves a node: <https://github.com/flannel-io/flannel/blob/v0.28.0/pkg/backend/vxlan/vxlan_network.go>.
/// `cni0` is made by the CNI plugin with the first pod.
fn node_links(node: Node) -> String {
    let (v4, v6, vtep) = (node.v4(), node.v6(), node.vtep());
    let n = node.0;
    let mut lines = format!(
        "link set lo up
link set eth0 up
address add {v4}/24 dev eth0
address add {v6}/64 dev eth0
route add default via {CONTROL}
route add default via 2001:db8::10
link add flannel.1 address {vtep} mtu 1450 type vxlan id 1 local {v4} dev eth0 dstport 8472 nolearning
link add flannel-v6.1 address {vtep} mtu 1430 type vxlan id 1 local {v6} dev eth0 dstport 8472 nolearning
address add 10.244.{n}.0/32 dev flannel.1
address add fd00:10:244:{n}::/128 dev flannel-v6.1
link set flannel.1 up
link set flannel-v6.1 up
"
    );
    for peer in NODES.iter().filter(|peer| peer.0 != n) {
        let (p, mac) = (peer.0, peer.vtep());
        let _ = write!(
            lines,
            "route add 10.244.{p}.0/24 via 10.244.{p}.0 dev flannel.1 onlink
route add fd00:10:244:{p}::/64 via fd00:10:244:{p}:: dev flannel-v6.1 onlink
neighbour add 10.244.{p}.0 lladdr {mac} dev flannel.1 nud permanent
neighbour add fd00:10:244:{p}:: lladdr {mac} dev flannel-v6.1 nud permanent
"
        );
    }
    lines
}

/// Forwarding entries as (device, MAC, node): `ip` has no word for them.
fn fdb(node: Node) -> impl Iterator<Item = (&'static str, String, String)> {
    let peers = NODES.into_iter().filter(move |peer| peer.0 != node.0);
    peers.flat_map(|peer| {
        [
            ("flannel.1", peer.vtep(), peer.v4().to_string()),
            ("flannel-v6.1", peer.vtep(), peer.v6().to_string()),
        ]
    })
}
