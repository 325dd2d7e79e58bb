//! The way to each other node: route, neighbour, forwarding entry, against the Node objects; and
//! without an API server at least against each other.

use std::{fmt::Write as _, net::IpAddr};

use super::{Answer, Check, Problem, Seen, device::flannel_has_vxlan, plugin, plugin::Plugin};
use crate::{
    cluster::objects::NodeObject,
    doctor::seen::network::{LinkKind, Mac, Network, Route},
    model::Severity,
};

pub(super) const PEERS: Check = Check {
    name: "cni_peers",
    subject: "cni",
    why: "where one of route, neighbour and forwarding entry is missing, packets to that node's pods vanish without a trace",
    run,
};

fn run(seen: &Seen) -> Answer {
    let network = match &seen.network {
        Ok(network) => network,
        Err(why) => return Answer::Unknown(why.clone()),
    };
    let Some((plugin, _)) = plugin::plugin(seen) else {
        return Answer::Unknown("which plugin would lay it is not known".to_owned());
    };
    if plugin == Plugin::Weave {
        return weave(seen);
    }
    // The kernel takes routes and neighbours away with it.
    let tunnel = network
        .links
        .iter()
        .find(|link| matches!(link.kind, LinkKind::Vxlan { .. }) && !link.up);
    if let Some(tunnel) = tunnel {
        return Answer::Unknown(format!("{} is down: see cni_device", tunnel.name));
    }
    let mut problems = tunnels(network);
    let others = match seen.other_nodes() {
        Ok(others) => others,
        Err(why) => {
            let why = format!("the Nodes are not known ({why})");
            return Answer::of(problems, || {
                let count = tunnel_routes(network).count();
                format!(
                    "{count} routes through tunnels have their neighbour and forwarding entry; {why}"
                )
            });
        }
    };
    let mut said = Vec::new();
    for node in &others {
        let found = match plugin {
            Plugin::Flannel if flannel_has_vxlan(seen) => flannel_vxlan(network, node),
            Plugin::Flannel | Plugin::Kindnet | Plugin::KubeRouter | Plugin::Bridge => {
                by_next_hop(network, node, plugin)
            }
            Plugin::Calico => calico(network, node),
            Plugin::Weave | Plugin::Cilium => Ok(format!("{} by {plugin}'s own maps", node.name)),
        };
        match found {
            Ok(way) => said.push(way),
            Err(problem) => {
                // What a tunnel's route lacks has been told, of the same object.
                if problems.iter().all(|told| told.object != problem.object) {
                    problems.push(problem);
                }
            }
        }
    }
    Answer::of(problems, || match said.len() {
        0 => "there is no other node".to_owned(),
        1..=4 => said.join("; "),
        count => format!("{count} nodes, among them {}", said[..3].join("; ")),
    })
}

fn hex(mac: Mac) -> String {
    let mut text = String::new();
    for byte in mac {
        let separator = if text.is_empty() { "" } else { ":" };
        // Formatting into a String cannot fail.
        let _ = write!(text, "{separator}{byte:02x}");
    }
    text
}

fn problem(object: String, sentence: &str, evidence: String, remedy: String) -> Problem {
    Problem {
        severity: Severity::Broken,
        follows: &[],
        object,
        sentence: sentence.to_owned(),
        evidence: vec![evidence],
        remedy,
    }
}

/// Routes that leave by a VXLAN device for a next hop, with the device.
fn tunnel_routes(network: &Network) -> impl Iterator<Item = (&Route, IpAddr, u32, &str)> {
    network.routes.iter().filter_map(|route| {
        let link = network.by_index(route.device?)?;
        let tunnel = matches!(link.kind, LinkKind::Vxlan { .. });
        let via = route.via?;
        tunnel.then_some((route, via, link.index, link.name.as_str()))
    })
}

/// Every next hop in a tunnel has a neighbour entry, and that a forwarding entry.
fn tunnels(network: &Network) -> Vec<Problem> {
    let lacking = tunnel_routes(network).filter_map(|(route, via, index, device)| {
        let object = format!("route {}/{} via {via} dev {device}", route.to, route.bits);
        next_hop(network, via, index, device, &object).err()
    });
    lacking.collect()
}

/// The node to which a tunnel's device sends what is for the next hop `via`.
fn next_hop(
    network: &Network,
    via: IpAddr,
    index: u32,
    device: &str,
    object: &str,
) -> Result<(Mac, IpAddr), Problem> {
    let mut neighbours = network.neighbours.iter();
    let neighbour = neighbours.find(|found| found.device == index && found.ip == via);
    let Some(mac) = neighbour
        .filter(|found| !found.failed)
        .and_then(|found| found.mac)
    else {
        return Err(problem(
            object.to_owned(),
            "has no neighbour entry for its next hop: packets wait for an answer that never comes",
            format!("ip neigh show dev {device}: nothing for {via}"),
            format!(
                "restart the CNI plugin's pod on this node; by hand: ip neigh replace {via} lladdr MAC dev {device} nud permanent"
            ),
        ));
    };
    let mut entries = network.forwarding.iter();
    let entry = entries.find(|entry| entry.device == index && entry.mac == mac);
    match entry {
        Some(entry) => Ok((mac, entry.to)),
        None => Err(problem(
            object.to_owned(),
            "has no forwarding entry: the tunnel does not know to which node it sends, and drops",
            format!("bridge fdb show dev {device}: nothing for {}", hex(mac)),
            format!(
                "restart the CNI plugin's pod on this node; by hand: bridge fdb append {} dev {device} dst NODE-IP self permanent",
                hex(mac)
            ),
        )),
    }
}

type Way = Result<String, Problem>;

/// The Node's pod range must be routed through flannel.1 to the node's own address.
fn flannel_vxlan(network: &Network, node: &NodeObject) -> Way {
    let ranges = node.pod_cidrs.iter().filter(|(range, _)| range.is_ipv4());
    let Some((range, bits)) = ranges.into_iter().next() else {
        return Err(problem(
            format!("Node {}", node.name),
            "has no podCIDR, so Flannel lays no route to it",
            "spec.podCIDRs is empty".to_owned(),
            "give kube-controller-manager --allocate-node-cidrs and --cluster-cidr".to_owned(),
        ));
    };
    let device = network.link("flannel.1").map_or(0, |link| link.index);
    let mut routes = network.routes.iter();
    let route = routes.find(|route| route.to == *range && route.bits == *bits);
    let via = route
        .filter(|route| route.device == Some(device))
        .and_then(|route| route.via);
    let Some(via) = via else {
        return Err(problem(
            format!("route to Node {} ({range}/{bits})", node.name),
            "is missing: this node's pods do not reach that node's",
            format!("ip route show {range}/{bits}: nothing via flannel.1"),
            format!(
                "restart this node's flannel pod; by hand: ip route add {range}/{bits} via {range} dev flannel.1 onlink"
            ),
        ));
    };
    let object = format!("route {range}/{bits} via {via} dev flannel.1");
    let (mac, to) = next_hop(network, via, device, "flannel.1", &object)?;
    let annotation = |key: &str| {
        node.annotations
            .get(&format!("flannel.alpha.coreos.com/{key}"))
    };
    // An address of one's own choice may be a router's before the node.
    let chosen = annotation("public-ip-overwrite");
    let public = chosen.or_else(|| annotation("public-ip"));
    let public = public.and_then(|text| text.parse::<IpAddr>().ok());
    if let Some(public) = public
        && chosen.is_none()
        && !node.addresses.is_empty()
        && !node.addresses.contains(&public)
    {
        return Err(problem(
            format!(
                "annotation flannel.alpha.coreos.com/public-ip of Node {}",
                node.name
            ),
            "is none of that node's addresses, and all others send its pods' packets there",
            format!("it is {public}; the Node has {}", list(&node.addresses)),
            format!(
                "kubectl annotate node {} --overwrite flannel.alpha.coreos.com/public-ip={}",
                node.name, node.addresses[0]
            ),
        ));
    }
    let own = public.or_else(|| node.addresses.first().copied());
    if let Some(own) = own
        && own != to
    {
        return Err(problem(
            object,
            "is sent to another address than that node's",
            format!(
                "bridge fdb: {} dst {to}; Node {} is at {own}",
                hex(mac),
                node.name
            ),
            format!(
                "bridge fdb replace {} dev flannel.1 dst {own} self permanent",
                hex(mac)
            ),
        ));
    }
    let told = annotation("backend-data")
        .and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    if let Some(told) = told.as_ref().and_then(|told| told["VtepMAC"].as_str())
        && !told.eq_ignore_ascii_case(&hex(mac))
    {
        return Err(problem(
            object,
            "names another link-layer address than that node's flannel.1 has: it discards what comes",
            format!(
                "ip neigh: {}; annotation backend-data of Node {} says {told}",
                hex(mac),
                node.name
            ),
            format!(
                "restart this node's flannel pod; by hand: ip neigh replace {via} lladdr {told} dev flannel.1 nud permanent"
            ),
        ));
    }
    Ok(format!("{} by VXLAN to {to}", node.name))
}

fn list(addresses: &[IpAddr]) -> String {
    let words: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    words.join(", ")
}

/// The Node's pod range must be routed to the node itself.
fn by_next_hop(network: &Network, node: &NodeObject, plugin: Plugin) -> Way {
    let Some((range, bits)) = node.pod_cidrs.first() else {
        return Ok(format!("{} has no podCIDR", node.name));
    };
    let routed = network
        .routes
        .iter()
        .find(|route| route.to == *range && route.bits == *bits);
    let via = routed.and_then(|route| route.via);
    match via {
        Some(via) if node.addresses.contains(&via) => Ok(format!("{} by {via}", node.name)),
        Some(via) => Err(problem(
            format!("route {range}/{bits} via {via}"),
            "leads to another address than that node's",
            format!("Node {} has {}", node.name, list(&node.addresses)),
            format!(
                "ip route replace {range}/{bits} via {}",
                node.addresses
                    .first()
                    .map_or_else(String::new, ToString::to_string)
            ),
        )),
        // A cloud's own routes do not show on the node.
        None if plugin == Plugin::Bridge => Ok(format!(
            "{} by the network's own routes, if at all",
            node.name
        )),
        None => Err(problem(
            format!("route to Node {} ({range}/{bits})", node.name),
            "is missing: this node's pods do not reach that node's",
            format!("ip route show {range}/{bits}: nothing"),
            format!("restart {plugin}'s pod on this node, which lays it"),
        )),
    }
}

/// Calico's ranges are in no Node: a node's tunnel address lies in one of its ranges, and the route
/// to that leads to it. Without a tunnel, some route leads to the node.
fn calico(network: &Network, node: &NodeObject) -> Way {
    let key = "projectcalico.org/IPv4VXLANTunnelAddr";
    let tunnel = node
        .annotations
        .get(key)
        .and_then(|text| text.parse::<IpAddr>().ok());
    let direct = network.routes.iter().find(|route| {
        route.via.is_some_and(|via| node.addresses.contains(&via)) && route.bits != 0
    });
    if let Some(direct) = direct {
        return Ok(format!(
            "{} by its own address, {}/{}",
            node.name, direct.to, direct.bits
        ));
    }
    let Some(tunnel) = tunnel else {
        return Err(problem(
            format!("route to Node {}", node.name),
            "is missing: no route leads to that node, so this node's pods do not reach its pods",
            format!("ip route: nothing via {}", list(&node.addresses)),
            "calicoctl node status on both nodes tells whether BGP is established (TCP 179)"
                .to_owned(),
        ));
    };
    let Some(route) = network.route(tunnel).filter(|route| route.bits != 0) else {
        return Err(problem(
            format!("route to Node {} ({tunnel})", node.name),
            "is missing: this node's pods do not reach that node's",
            format!(
                "ip route get {tunnel}: the default route; {key} of Node {} is {tunnel}",
                node.name
            ),
            "restart this node's calico-node pod: Felix lays routes within 30 s".to_owned(),
        ));
    };
    let (Some(index), Some(via)) = (route.device, route.via) else {
        return Err(problem(
            format!("route to Node {} ({tunnel})", node.name),
            "leads nowhere: this node's pods do not reach that node's",
            format!("{}/{} has no next hop", route.to, route.bits),
            "restart this node's calico-node pod: Felix lays routes within 30 s".to_owned(),
        ));
    };
    let device = network
        .by_index(index)
        .map_or("", |link| link.name.as_str());
    let object = format!("route {}/{} via {via} dev {device}", route.to, route.bits);
    let (_, to) = next_hop(network, via, index, device, &object)?;
    if !node.addresses.is_empty() && !node.addresses.contains(&to) {
        return Err(problem(
            object,
            "is sent to another address than that node's",
            format!(
                "bridge fdb: dst {to}; Node {} has {}",
                node.name,
                list(&node.addresses)
            ),
            "restart this node's calico-node pod".to_owned(),
        ));
    }
    Ok(format!("{} by VXLAN to {to}", node.name))
}

/// weaver tells its connections: `-> 192.0.2.12:6783  established sleeve 2e:… (n2)`.
fn weave(seen: &Seen) -> Answer {
    let page = match seen.http.get("127.0.0.1:6784/status/connections") {
        Some(Ok(page)) => page,
        Some(Err(why)) => return Answer::Unknown(format!("weaver does not answer: {why}")),
        None => return Answer::Unknown("weaver was not asked".to_owned()),
    };
    let (mut good, mut problems) = (Vec::new(), Vec::new());
    for line in page.body.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        // `cannot connect to ourself, retry: never` is how it always begins.
        if words.len() < 3 || line.contains("cannot connect to ourself") {
            continue;
        }
        if words[2] == "established" {
            let way = words.get(3).copied().unwrap_or_default();
            good.push(format!("{} by {way}", words[1]));
        } else {
            problems.push(problem(
                format!("Weave connection to {}", words[1]),
                "is not established: this node's pods do not reach that node's",
                line.trim().to_owned(),
                "see that weave-net runs on that node, and that TCP 6783, UDP 6783 and UDP 6784 pass between the nodes".to_owned(),
            ));
        }
    }
    // A peer that connected to us may have been tried in vain from here.
    problems.retain(|problem| {
        let peer = problem.object.trim_start_matches("Weave connection to ");
        let peer = peer.split(':').next().unwrap_or(peer);
        !good.iter().any(|way| way.starts_with(peer))
    });
    if let Ok(others) = seen.other_nodes() {
        for node in others {
            let known = node
                .addresses
                .iter()
                .any(|address| page.body.contains(&address.to_string()));
            if !known {
                problems.push(problem(
                    format!("Weave connection to Node {}", node.name),
                    "does not exist: weaver does not know that node",
                    format!(
                        "/status/connections has nothing of {}",
                        list(&node.addresses)
                    ),
                    format!(
                        "weave connect {}; or restart this node's weave-net pod",
                        list(&node.addresses)
                    ),
                ));
            }
        }
    }
    Answer::of(problems, || match good.len() {
        0 => "there is no other node".to_owned(),
        _ => good.join("; "),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures, *};
    use crate::doctor::seen::http::Page;

    fn first(seen: &Seen) -> String {
        match run(seen) {
            Answer::Fails(problems) => format!("{}: {}", problems[0].object, problems[0].sentence),
            Answer::Holds(seen) => seen,
            Answer::Unknown(why) => why,
        }
    }

    #[test]
    fn a_healthy_way_is_told_for_each_node() {
        assert_eq!(
            first(&fixtures::flannel().seen),
            "n2 by VXLAN to 192.0.2.12"
        );
        assert_eq!(first(&fixtures::calico().seen), "n2 by VXLAN to 192.0.2.12");
        assert_eq!(first(&fixtures::weave().seen), "192.0.2.12:6783 by sleeve");
    }

    #[test]
    fn what_the_way_lacks_is_named() {
        let check = |change: fn(&mut Network), expected: &str| {
            let mut node = fixtures::flannel();
            change(node.network());
            let said = first(&node.seen);
            assert!(said.starts_with(expected), "{said}");
        };
        check(
            |network| network.forwarding.clear(),
            "route 10.244.2.0/24 via 10.244.2.0 dev flannel.1: has no forwarding entry",
        );
        check(
            |network| network.neighbours.clear(),
            "route 10.244.2.0/24 via 10.244.2.0 dev flannel.1: has no neighbour entry",
        );
        check(
            |network| network.routes.retain(|route| route.bits == 0),
            "route to Node n2 (10.244.2.0/24): is missing",
        );
        check(
            |network| network.forwarding[0].to = "192.0.2.99".parse().unwrap(),
            "route 10.244.2.0/24 via 10.244.2.0 dev flannel.1: is sent to another address",
        );
        check(
            |network| {
                network.neighbours[0].mac = Some([9; 6]);
                network.forwarding[0].mac = [9; 6];
            },
            "route 10.244.2.0/24 via 10.244.2.0 dev flannel.1: names another link-layer address",
        );
    }

    #[test]
    fn without_an_api_server_tunnels_are_still_judged() {
        let mut node = fixtures::flannel();
        node.seen.objects = Err("connection refused".to_owned());
        assert!(first(&node.seen).starts_with("1 routes through tunnels have"));
        node.network().forwarding.clear();
        assert!(first(&node.seen).contains("has no forwarding entry"));
    }

    #[test]
    fn calicos_route_to_another_nodes_range_is_missed() {
        let mut node = fixtures::calico();
        node.network()
            .routes
            .retain(|route| route.via.is_none() || route.bits == 0);
        assert!(first(&node.seen).starts_with("route to Node n2 (10.244.69.0): is missing"));
    }

    #[test]
    fn a_weave_peer_that_cannot_be_reached_is_named() {
        let mut node = fixtures::weave();
        let body = "-> 192.0.2.12:6783 failed dial tcp4 :0->192.0.2.12:6783: connect: connection refused, retry: 2026-01-01\n";
        let page = Page {
            status: 200,
            body: body.to_owned(),
        };
        node.seen
            .http
            .insert("127.0.0.1:6784/status/connections".to_owned(), Ok(page));
        assert!(
            first(&node.seen)
                .starts_with("Weave connection to 192.0.2.12:6783: is not established")
        );
    }
}
