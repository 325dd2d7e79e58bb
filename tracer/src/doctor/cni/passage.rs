//! Whether this node's own rules let pods' packets through, and the tunnel's between the nodes. The
//! rules are evaluated for one packet of each sort; what lies between the nodes is not seen.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{Answer, Check, Problem, Seen, plugin, plugin::Plugin};
use crate::{
    doctor::{
        passage::{Rules, Way},
        seen::network::{LinkKind, Network},
    },
    model::{Severity, cluster::PortProtocol},
};

pub(super) const FORWARD: Check = Check {
    name: "forward_rules",
    subject: "cni",
    why: "a node whose chain FORWARD drops (Docker sets that policy) drops what its pods send to those of other nodes",
    run: forward,
};

pub(super) const TUNNEL_PORT: Check = Check {
    name: "tunnel_port",
    subject: "cni",
    why: "where a firewall drops the tunnel's packets, pods of other nodes are out of reach, and nobody is told",
    run: tunnel_port,
};

/// Far up in a node's range, where IPAM hands out addresses last.
const LATE_ADDRESS: u32 = 250;

/// An address in a range of pods; `None` of IPv6, whose rules are seldom others.
fn in_range(range: (IpAddr, u8)) -> Option<IpAddr> {
    let (IpAddr::V4(base), bits) = range else {
        return None;
    };
    let room = 1u32.checked_shl(32 - u32::from(bits)).unwrap_or(u32::MAX);
    let offset = LATE_ADDRESS.min(room.checked_sub(2)?);
    Some(Ipv4Addr::from(u32::from(base) + offset).into())
}

fn forward(seen: &Seen) -> Answer {
    let rules = match &seen.rules {
        Ok(rules) => rules,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    match plugin::plugin(seen) {
        None => {
            return Answer::Unknown("which plugin lays the pods' network is not known".to_owned());
        }
        // They write rules for each pod by itself, policies among them.
        Some((
            plugin @ (Plugin::Calico | Plugin::Weave | Plugin::Cilium | Plugin::KubeRouter),
            _,
        )) => {
            return Answer::Holds(format!("{plugin} has rules for each pod by itself"));
        }
        Some(_) => {}
    }
    let Some(here) = seen.this_node() else {
        return Answer::Unknown("the range of this node's pods is not known".to_owned());
    };
    let Some(pod) = here.pod_cidrs.iter().copied().find_map(in_range) else {
        return Answer::Unknown(format!("Node {} has no range of pods", here.name));
    };
    let Some(device) = rules.device_of(pod) else {
        return Answer::Unknown(format!("nothing leads to this node's pods, such as {pod}"));
    };
    let others = match seen.other_nodes() {
        Ok(others) => others,
        Err(why) => return Answer::Unknown(why),
    };
    let mut problems = Vec::new();
    let mut said = Vec::new();
    for node in others {
        let Some(there) = node.pod_cidrs.iter().copied().find_map(in_range) else {
            continue;
        };
        let to = SocketAddr::new(there, 53);
        for (from, to, device) in [
            (pod, to, Some(device)),
            (there, SocketAddr::new(pod, 53), rules.device_of(there)),
        ] {
            match rules.way(from, to, PortProtocol::Udp, device) {
                Way::Open(_) => said.push(node.name.as_str()),
                Way::Shut(rule) if rule.contains(": ") => {
                    shut(
                        &mut problems,
                        format!("from {from} to {to} over UDP: {rule}"),
                    );
                }
                // What is not understood, and what has no route, is told by others.
                Way::Unknown(_) | Way::Shut(_) => {}
            }
        }
        // One is enough: such rules are for all.
        if !problems.is_empty() {
            break;
        }
    }
    said.dedup();
    Answer::of(problems, || match said.len() {
        0 => "there is no other node to whose pods they could be asked".to_owned(),
        1..=4 => format!("packets to and from the pods of {} pass", said.join(", ")),
        count => format!("packets to and from the pods of {count} nodes pass"),
    })
}

/// One problem, whichever directions it concerns.
fn shut(problems: &mut Vec<Problem>, evidence: String) {
    if let Some(told) = problems.first_mut() {
        told.evidence.push(evidence);
        return;
    }
    problems.push(Problem {
        severity: Severity::Broken,
        follows: &[],
        object: "FORWARD of this node".to_owned(),
        sentence: "drops packets between pods of this node and of others".to_owned(),
        evidence: vec![evidence],
        remedy: "iptables -P FORWARD ACCEPT, or rules that accept the pods' ranges, as flanneld writes them with -iptables-forward-rules".to_owned(),
    });
}

/// A port at which a tunnel ends here.
struct Port {
    number: u16,
    protocol: PortProtocol,
    whose: String,
    /// The tunnel's own address; `None` where it has none of its own, or more than one.
    local: Option<IpAddr>,
}

/// Ports of the tunnels that end here.
fn ports(seen: &Seen, network: &Network) -> Vec<Port> {
    let vxlan = network.links.iter().filter_map(|link| match link.kind {
        LinkKind::Vxlan { port, local, .. } => Some(Port {
            number: port,
            protocol: PortProtocol::Udp,
            whose: link.name.clone(),
            local,
        }),
        _ => None,
    });
    let mut ports: Vec<_> = vxlan.collect();
    if matches!(plugin::plugin(seen), Some((Plugin::Weave, _))) {
        for (protocol, whose) in [
            (PortProtocol::Tcp, "Weave Net's control"),
            (PortProtocol::Udp, "Weave Net's sleeve"),
        ] {
            ports.push(Port {
                number: 6783,
                protocol,
                whose: whose.to_owned(),
                local: None,
            });
        }
    }
    ports
}

fn tunnel_port(seen: &Seen) -> Answer {
    let (rules, network) = match (&seen.rules, &seen.network) {
        (Ok(rules), Ok(network)) => (rules, network),
        (Err(why), _) | (_, Err(why)) => return Answer::Unknown(why.clone()),
    };
    let ports = ports(seen, network);
    if ports.is_empty() {
        return Answer::Holds("no tunnel over a port ends here".to_owned());
    }
    let others = match seen.other_nodes() {
        Ok(others) => others,
        Err(why) => return Answer::Unknown(why),
    };
    let Some(here) = seen.this_node() else {
        return Answer::Unknown("this node's address is not known".to_owned());
    };
    let mut problems: Vec<Problem> = Vec::new();
    let ways = others.iter().flat_map(|node| {
        let pairs = node.addresses.iter().flat_map(|there| {
            let same = |own: &&IpAddr| own.is_ipv4() == there.is_ipv4();
            here.addresses.iter().filter(same).map(|own| (*own, *there))
        });
        pairs.collect::<Vec<_>>()
    });
    for (own, there) in ways {
        for Port {
            number: port,
            protocol,
            whose,
            local,
        } in &ports
        {
            let object = format!("port {port}/{} of {whose}", protocol.name());
            let other_family = local.is_some_and(|local| local.is_ipv4() != own.is_ipv4());
            if other_family || problems.iter().any(|told| told.object == object) {
                continue;
            }
            let shut = closed(rules, own, there, *port, *protocol);
            problems.extend(shut.map(|evidence| Problem {
                severity: Severity::Broken,
                follows: &[],
                object,
                sentence: "is closed by this node's own rules: no packet of the tunnel passes"
                    .to_owned(),
                evidence: vec![evidence],
                remedy: format!(
                    "open it between the nodes: iptables -I INPUT -p {0} --dport {port} -s NODES -j ACCEPT, and in the cloud's firewall",
                    protocol.name()
                ),
            }));
        }
    }
    Answer::of(problems, || {
        let ports = ports
            .iter()
            .map(|port| format!("{}/{} ({})", port.number, port.protocol.name(), port.whose));
        let ports: Vec<_> = ports.collect();
        format!(
            "{} open to the other nodes by this node's rules",
            ports.join(", ")
        )
    })
}

/// The rule that closes a port for packets between this node and another; `None` when it is open.
fn closed(
    rules: &Rules,
    own: IpAddr,
    there: IpAddr,
    port: u16,
    protocol: PortProtocol,
) -> Option<String> {
    let inward = (there, SocketAddr::new(own, port), rules.device_of(there));
    let outward = (own, SocketAddr::new(there, port), None);
    [inward, outward]
        .into_iter()
        .find_map(
            |(from, to, device)| match rules.way(from, to, protocol, device) {
                Way::Shut(rule) if rule.contains(": ") => {
                    Some(format!("from {from} to {to}: {rule}"))
                }
                _ => None,
            },
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_range_lies_in_it_and_is_none_of_the_first() {
        let check = |base: &str, bits, expected: Option<&str>| {
            let found = in_range((base.parse().unwrap(), bits));
            assert_eq!(found, expected.map(|ip| ip.parse().unwrap()));
        };
        check("10.244.1.0", 24, Some("10.244.1.250"));
        check("10.244.1.64", 26, Some("10.244.1.126"));
        check("10.244.1.1", 32, None);
        check("fd00:10:244:1::", 64, None);
    }
}
