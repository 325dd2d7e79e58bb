//! The bed's namespaces: a control plane and two nodes on one link. What joins pods' ranges lays flanneld. Nothing of
//! it is in the machine's own namespace.

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

    /// MAC address of its VXLAN devices; flanneld takes it from the node's annotation, as after a restart.
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
    }
    Ok(())
}

/// Whether flanneld has laid the node's way to pods of the others, in both families.
pub(super) fn is_joined(bed: &str, node: Node) -> bool {
    let name = netns(bed, &node.name());
    [("-4", "flannel.1"), ("-6", "flannel-v6.1")]
        .iter()
        .all(|(family, device)| {
            let mut routes = inside(&name, "ip");
            let routes = sh::output(routes.args([family, "route", "show", "dev", device]));
            routes.is_ok_and(|routes| routes.contains(" via "))
        })
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

fn node_links(node: Node) -> String {
    let (v4, v6) = (node.v4(), node.v6());
    format!(
        "link set lo up
link set eth0 up
address add {v4}/24 dev eth0
address add {v6}/64 dev eth0
route add default via {CONTROL}
route add default via 2001:db8::10
"
    )
}
