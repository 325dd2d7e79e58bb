//! The plugin's own devices on this node, and the bridge that pods hang on.

use std::net::IpAddr;

use super::{Answer, Check, Problem, Root, Seen, plugin, plugin::Plugin};
use crate::{
    doctor::seen::network::{LinkKind, Network},
    model::Severity,
};

pub(super) const DEVICE: Check = Check {
    name: "cni_device",
    subject: "cni",
    why: "what pods send to other nodes leaves through it, and what they send each other crosses their bridge",
    run,
};

/// A variable of /run/flannel/subnet.env.
pub(super) fn subnet_env(root: &Root, key: &str) -> Option<String> {
    let text = root.read("/run/flannel/subnet.env").ok()?;
    let mut lines = text.lines();
    lines.find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
}

/// Whether this node's Flannel tunnels by VXLAN: the Node says so, or the device is there.
pub(super) fn flannel_has_vxlan(seen: &Seen) -> bool {
    let key = "flannel.alpha.coreos.com/backend-type";
    let told = seen.this_node().and_then(|node| node.annotations.get(key));
    match told {
        Some(backend) => backend == "vxlan",
        None => seen
            .network
            .iter()
            .any(|network| network.link("flannel.1").is_some()),
    }
}

fn run(seen: &Seen) -> Answer {
    let network = match &seen.network {
        Ok(network) => network,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let Some((plugin, _)) = plugin::plugin(seen) else {
        return Answer::Unknown("which plugin it would belong to is not known".to_owned());
    };
    let (wanted, problems) = match plugin {
        Plugin::Flannel => flannel(seen, network),
        Plugin::Calico => calico(seen, network),
        Plugin::Weave => weave(network),
        Plugin::Cilium => must_be(
            network,
            &["cilium_host"],
            "restart the cilium pod of this node",
        ),
        Plugin::KubeRouter => must_be(
            network,
            &["kube-bridge"],
            "restart the kube-router pod of this node",
        ),
        Plugin::Kindnet | Plugin::Bridge => (Vec::new(), Vec::new()),
    };
    Answer::of(problems, || {
        if wanted.is_empty() {
            return format!("{plugin} has none of its own on this node");
        }
        let links = wanted.iter().filter_map(|name| network.link(name));
        let links = links.map(|link| format!("{} is up, MTU {}", link.name, link.mtu));
        links.collect::<Vec<_>>().join("; ")
    })
}

/// Problems of devices that must be there and up.
fn must_be(network: &Network, names: &[&str], remedy: &str) -> (Vec<String>, Vec<Problem>) {
    let problems = names.iter().filter_map(|name| {
        let sentence = match network.link(name) {
            None => "is missing: pods reach nothing beyond this node",
            Some(link) if !link.up => "is down: pods reach nothing beyond this node",
            Some(_) => return None,
        };
        Some(Problem {
            severity: Severity::Broken,
            follows: &[],
            object: format!("device {name}"),
            sentence: sentence.to_owned(),
            evidence: Vec::new(),
            remedy: remedy.to_owned(),
        })
    });
    let problems = problems.collect();
    (
        names.iter().map(|name| (*name).to_owned()).collect(),
        problems,
    )
}

fn flannel(seen: &Seen, network: &Network) -> (Vec<String>, Vec<Problem>) {
    let vxlan: &[&str] = if flannel_has_vxlan(seen) {
        &["flannel.1"]
    } else {
        &[]
    };
    let remedy = "restart this node's flannel pod, which makes it anew; other nodes' routes follow when the Node's annotation changes: kubectl -n kube-flannel delete pod -l app=flannel --field-selector spec.nodeName=NODE";
    let (mut wanted, mut problems) = must_be(network, vxlan, remedy);
    if seen.root.exists("/run/flannel") && subnet_env(&seen.root, "FLANNEL_SUBNET").is_none() {
        problems.push(Problem {
            severity: Severity::Broken,
            follows: &[],
            object: "/run/flannel/subnet.env".to_owned(),
            sentence: "is missing: every new pod fails with `failed to load flannel 'subnet.env' file`".to_owned(),
            evidence: Vec::new(),
            remedy: "restart this node's flannel pod; if it says `pod cidr not assigned`, give the Node a podCIDR (kube-controller-manager --allocate-node-cidrs --cluster-cidr)".to_owned(),
        });
    }
    problems.extend(bridge_address(seen, network));
    if network.link("cni0").is_some() {
        wanted.push("cni0".to_owned());
    }
    (wanted, problems)
}

/// The bridge must have the first address of the node's range, or every new pod fails.
fn bridge_address(seen: &Seen, network: &Network) -> Option<Problem> {
    let subnet = subnet_env(&seen.root, "FLANNEL_SUBNET")?;
    let gateway: IpAddr = subnet.split('/').next()?.parse().ok()?;
    let bridge = network.link("cni0")?;
    let held = network
        .addresses
        .iter()
        .filter(|(index, ..)| *index == bridge.index);
    let held: Vec<_> = held
        .map(|(_, address, _)| *address)
        .filter(IpAddr::is_ipv4)
        .collect();
    if held.is_empty() || held.contains(&gateway) {
        return None;
    }
    let held: Vec<_> = held.iter().map(ToString::to_string).collect();
    Some(Problem {
        severity: Severity::Broken,
        follows: &[],
        object: "device cni0".to_owned(),
        sentence: "has another range's address: new pods fail with `\"cni0\" already has an IP address different from`".to_owned(),
        evidence: vec![format!("cni0 has {}; FLANNEL_SUBNET={subnet}", held.join(", "))],
        remedy: "ip link delete cni0, which is made again for the next pod; then delete this node's pods".to_owned(),
    })
}

fn calico(seen: &Seen, network: &Network) -> (Vec<String>, Vec<Problem>) {
    let has = |key: &str| {
        let node = seen.this_node();
        node.is_some_and(|node| {
            node.annotations
                .contains_key(&format!("projectcalico.org/{key}"))
        })
    };
    let mut names = Vec::new();
    if has("IPv4VXLANTunnelAddr") || network.link("vxlan.calico").is_some() {
        names.push("vxlan.calico");
    }
    if has("IPv4IPIPTunnelAddr") {
        names.push("tunl0");
    }
    let remedy = "restart this node's calico-node pod: Felix makes the device anew within seconds";
    let (wanted, mut problems) = must_be(network, &names, remedy);
    if !seen.root.exists("/var/lib/calico/nodename") {
        problems.push(Problem {
            severity: Severity::Broken,
            follows: &[],
            object: "/var/lib/calico/nodename".to_owned(),
            sentence: "is missing: every new pod fails with `stat /var/lib/calico/nodename: no such file or directory`".to_owned(),
            evidence: Vec::new(),
            remedy: "see that calico-node runs on this node and mounts /var/lib/calico".to_owned(),
        });
    }
    (wanted, problems)
}

fn weave(network: &Network) -> (Vec<String>, Vec<Problem>) {
    let remedy = "restart this node's weave-net pod, which makes it anew";
    let (wanted, mut problems) = must_be(network, &["weave"], remedy);
    // Pods' bridge reaches weaver by one of two ports: fast datapath's, or the one it captures from.
    let reaches = ["vethwe-bridge", "vethwe-datapath"];
    if let Some(bridge) = network.link("weave") {
        let is_port = |name: &&str| {
            let link = network.link(name);
            link.is_some_and(|link| link.master == Some(bridge.index) && link.up)
        };
        let datapath = bridge.kind != LinkKind::Bridge;
        if !datapath && !reaches.iter().any(is_port) {
            problems.push(Problem {
                severity: Severity::Broken,
                follows: &[],
                object: "device vethwe-bridge".to_owned(),
                sentence: "is no port of the bridge `weave`: what pods send to other nodes never comes to weaver".to_owned(),
                evidence: Vec::new(),
                remedy: remedy.to_owned(),
            });
        }
    }
    (wanted, problems)
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};

    fn objects(seen: &Seen) -> Vec<String> {
        match run(seen) {
            Answer::Fails(problems) => problems.into_iter().map(|problem| problem.object).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn healthy_nodes_have_their_devices() {
        for node in [fixtures::flannel(), fixtures::calico(), fixtures::weave()] {
            assert_eq!(run(&node.seen).verdict(), "good");
        }
    }

    #[test]
    fn a_tunnel_that_is_gone_is_named() {
        let check = |mut node: fixtures::Node, gone: &str| {
            node.network().links.retain(|link| link.name != gone);
            assert_eq!(objects(&node.seen), [format!("device {gone}")]);
        };
        check(fixtures::flannel(), "flannel.1");
        check(fixtures::calico(), "vxlan.calico");
        check(fixtures::weave(), "weave");
        check(fixtures::weave(), "vethwe-bridge");
    }

    #[test]
    fn a_bridge_of_another_range_is_named() {
        let node = fixtures::flannel();
        node.write("run/flannel/subnet.env", "FLANNEL_SUBNET=10.244.9.1/24\n");
        assert_eq!(objects(&node.seen), ["device cni0"]);
        node.remove("run/flannel/subnet.env");
        assert_eq!(objects(&node.seen), ["/run/flannel/subnet.env"]);
    }

    #[test]
    fn calicos_nodename_is_missed() {
        let node = fixtures::calico();
        node.remove("var/lib/calico/nodename");
        assert_eq!(objects(&node.seen), ["/var/lib/calico/nodename"]);
    }
}
