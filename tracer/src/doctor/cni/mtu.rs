//! MTU of the pods' network against the device below and what the tunnel adds.

use super::{Answer, Check, Problem, Seen};
use crate::{
    doctor::seen::network::{Link, LinkKind, Network},
    model::Severity,
};

pub(super) const MTU: Check = Check {
    name: "cni_mtu",
    subject: "cni",
    why: "a packet that is too long for the tunnel vanishes: small answers come, large ones and TLS handshakes hang",
    run,
};

/// Bytes that a tunnel adds over IPv4 and over IPv6: outer header, UDP, VXLAN, inner Ethernet
/// (RFC 7348, section 5); outer header alone (RFC 2003); WireGuard's, its longest.
fn overhead(kind: &LinkKind, v6: bool) -> Option<u32> {
    let header = if v6 { 40 } else { 20 };
    match kind {
        LinkKind::Vxlan { .. } => Some(header + 8 + 8 + 14),
        LinkKind::Ipip => Some(20),
        LinkKind::Wireguard => Some(header + 40),
        LinkKind::Bridge | LinkKind::Veth | LinkKind::Other(_) => None,
    }
}

/// The device that a tunnel's packets leave by.
fn below<'a>(network: &'a Network, link: &Link) -> Option<&'a Link> {
    if let LinkKind::Vxlan { below, local, .. } = &link.kind {
        let bound = network.by_index(*below).filter(|_| *below != 0);
        if let Some(found) = bound.or_else(|| network.holder((*local)?)) {
            return Some(found);
        }
    }
    network.by_index(network.default_route()?.device?)
}

fn run(seen: &Seen) -> Answer {
    let network = match &seen.network {
        Ok(network) => network,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let (mut said, mut problems) = (Vec::new(), Vec::new());
    let mut smallest: Option<&Link> = None;
    for link in network.links.iter().filter(|link| link.up) {
        let v6 =
            matches!(&link.kind, LinkKind::Vxlan { local: Some(local), .. } if local.is_ipv6());
        let (Some(adds), Some(under)) = (overhead(&link.kind, v6), below(network, link)) else {
            continue;
        };
        if smallest.is_none_or(|known| link.mtu < known.mtu) {
            smallest = Some(link);
        }
        if link.mtu + adds > under.mtu {
            problems.push(Problem {
                severity: Severity::Broken,
                follows: &[],
                object: format!("device {}", link.name),
                sentence: format!("has an MTU too large for {} below it: full packets are lost", under.name),
                evidence: vec![format!(
                    "MTU {} + {adds} bytes of tunnel > MTU {} of {}",
                    link.mtu, under.mtu, under.name
                )],
                remedy: format!("set the plugin's MTU to {} and start the pods anew; until then ip link set {} mtu {}", under.mtu.saturating_sub(adds), link.name, under.mtu.saturating_sub(adds)),
            });
        } else {
            said.push(format!(
                "{} {} over {} {}",
                link.name, link.mtu, under.name, under.mtu
            ));
        }
    }
    if let (Some(tunnel), Some(bridge)) = (smallest, network.link("cni0"))
        && bridge.mtu > tunnel.mtu
        && !matches!(&tunnel.kind, LinkKind::Vxlan { local: Some(local), .. } if local.is_ipv6())
    {
        problems.push(Problem {
            severity: Severity::Warning,
            follows: &[],
            object: "device cni0".to_owned(),
            sentence: format!("has a larger MTU than {}: pods' full packets depend on ICMP to be made smaller", tunnel.name),
            evidence: vec![format!("cni0 has {}, {} has {}", bridge.mtu, tunnel.name, tunnel.mtu)],
            remedy: format!("set \"mtu\": {} in the CNI configuration, delete the pods of this node, ip link set cni0 mtu {}", tunnel.mtu, tunnel.mtu),
        });
    }
    Answer::of(problems, || match said.len() {
        0 => "no tunnel adds to packets here".to_owned(),
        _ => said.join("; "),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};

    #[test]
    fn an_mtu_must_leave_room_for_the_tunnel() {
        assert_eq!(run(&fixtures::flannel().seen).verdict(), "good");
        let check = |mut node: fixtures::Node, device: &str, mtu| {
            let links = &mut node.network().links;
            links
                .iter_mut()
                .find(|link| link.name == device)
                .unwrap()
                .mtu = mtu;
            run(&node.seen).verdict()
        };
        assert_eq!(check(fixtures::flannel(), "flannel.1", 1500), "broken");
        assert_eq!(check(fixtures::flannel(), "eth0", 1450), "broken");
        assert_eq!(check(fixtures::flannel(), "eth0", 9000), "good");
        assert_eq!(check(fixtures::flannel(), "cni0", 1500), "warning");
        assert_eq!(check(fixtures::calico(), "vxlan.calico", 1480), "broken");
    }
}
