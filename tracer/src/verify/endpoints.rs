//! Which endpoints of a Service port get its traffic on a node: ready ones, else those that still
//! serve while they end; by hints; by policy. As kube-proxy chooses them
//! (`CategorizeEndpoints`, pkg/proxy/topology.go, v1.37).

use std::{net::SocketAddr, sync::Arc};

use super::plan::family_of;
use crate::{
    model::cluster::{Endpoint, EndpointSlice, Service, ServicePort, TrafficPolicy},
    rules::Family,
};

/// One endpoint of a Service port.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "as the API has them")]
pub(super) struct Known {
    pub(super) at: SocketAddr,
    pub(super) ready: bool,
    pub(super) serving: bool,
    pub(super) terminating: bool,
    /// It is on this node.
    pub(super) local: bool,
    pub(super) zone_hints: Vec<Arc<str>>,
    pub(super) node_hints: Vec<Arc<str>>,
}

/// Endpoints that get traffic.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Choice {
    /// Under the policy Cluster; sorted.
    pub(super) cluster: Vec<SocketAddr>,
    /// Under the policy Local; sorted.
    pub(super) local: Vec<SocketAddr>,
    /// Some endpoint anywhere serves: traffic that finds none here is dropped, not refused.
    pub(super) any: bool,
}

/// The endpoints of `port`, each once.
pub(super) fn of(
    slices: &[&EndpointSlice],
    port: &ServicePort,
    family: Family,
    node: &str,
) -> Vec<Known> {
    let mut known: Vec<Known> = Vec::new();
    for slice in slices {
        let mut ports = slice.ports.iter();
        let fits = ports.find(|one| one.name == port.name && one.protocol == port.protocol);
        let Some(number) = fits.and_then(|one| one.port) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let one = endpoint.addresses.first();
            let Some(address) = one.filter(|address| family_of(**address) == family) else {
                continue;
            };
            let new = of_one(endpoint, SocketAddr::new(*address, number), node);
            // In two slices at once while it moves from one to the other.
            match known.iter_mut().find(|one| one.at == new.at) {
                Some(old) if new.local && !old.local => *old = new,
                Some(_) => {}
                None => known.push(new),
            }
        }
    }
    known
}

fn of_one(endpoint: &Endpoint, at: SocketAddr, node: &str) -> Known {
    Known {
        at,
        ready: endpoint.ready,
        serving: endpoint.serving,
        terminating: endpoint.terminating,
        local: endpoint.node.as_deref() == Some(node),
        zone_hints: endpoint.zone_hints.clone(),
        node_hints: endpoint.node_hints.clone(),
    }
}

/// By which hints endpoints are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Topology {
    Node,
    Zone,
    None,
}

/// Chooses among `known`. `external` says whether the port is reachable from outside the cluster.
pub(super) fn choose(
    known: &[Known],
    service: &Service,
    external: bool,
    node: &str,
    zone: Option<&str>,
) -> Choice {
    let internal_local = service.internal_policy == TrafficPolicy::Local;
    let external_local = external && service.external_policy == TrafficPolicy::Local;
    let uses_cluster = !internal_local || external;
    let uses_local = internal_local || external_local;
    let pick = |fits: &dyn Fn(&Known) -> bool| {
        let fitting = known.iter().filter(|one| fits(one)).map(|one| one.at);
        let mut fitting: Vec<_> = fitting.collect();
        fitting.sort_unstable();
        fitting
    };
    let ending = |one: &Known| one.serving && one.terminating;
    let mut choice = Choice::default();
    if uses_cluster {
        let topology = topology(known, node, zone);
        choice.cluster = pick(&|one| one.ready && hinted(one, topology, node, zone));
        if choice.cluster.is_empty() {
            choice.cluster = pick(&ending);
        }
        choice.any = !choice.cluster.is_empty();
    }
    if uses_local {
        choice.any |= known.iter().any(|one| one.ready || ending(one));
        choice.local = pick(&|one| one.local && one.ready);
        if choice.local.is_empty() {
            choice.local = pick(&|one| one.local && !one.ready && ending(one));
        }
    }
    choice
}

/// Hints count when all ready endpoints have them and one is for this node, or for its zone.
fn topology(known: &[Known], node: &str, zone: Option<&str>) -> Topology {
    let mut ready = known.iter().filter(|one| one.ready).peekable();
    if ready.peek().is_none() {
        return Topology::None;
    }
    let ready: Vec<_> = ready.collect();
    let here = |hints: &[Arc<str>], name: &str| hints.iter().any(|hint| **hint == *name);
    let all_nodes = ready.iter().all(|one| !one.node_hints.is_empty());
    if all_nodes && ready.iter().any(|one| here(&one.node_hints, node)) {
        return Topology::Node;
    }
    let all_zones = ready.iter().all(|one| !one.zone_hints.is_empty());
    let in_zone = |zone| ready.iter().any(|one| here(&one.zone_hints, zone));
    if all_zones && zone.is_some_and(in_zone) {
        return Topology::Zone;
    }
    Topology::None
}

fn hinted(one: &Known, topology: Topology, node: &str, zone: Option<&str>) -> bool {
    let here = |hints: &[Arc<str>], name: &str| hints.iter().any(|hint| **hint == *name);
    match topology {
        Topology::None => true,
        Topology::Node => here(&one.node_hints, node),
        Topology::Zone => zone.is_some_and(|zone| here(&one.zone_hints, zone)),
    }
}

/// Why an address is not to get traffic, in words.
pub(super) fn against(known: &[Known], at: SocketAddr) -> &'static str {
    let Some(one) = known.iter().find(|one| one.at == at) else {
        return "which is no endpoint of it";
    };
    if one.terminating && known.iter().any(|other| other.ready) {
        "which is terminating, while others are ready"
    } else if one.terminating {
        "which is terminating"
    } else if !one.ready {
        "which is not ready"
    } else if one.zone_hints.is_empty() && one.node_hints.is_empty() {
        "which is on another node, although the traffic policy is Local"
    } else {
        "which its topology hints leave to other nodes"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::tests::service;

    fn known(last: u8, conditions: &str, node: &str, zones: &[&str], nodes: &[&str]) -> Known {
        let names = |hints: &[&str]| hints.iter().map(|hint| Arc::from(*hint)).collect();
        Known {
            at: SocketAddr::from(([10, 244, 1, last], 8080)),
            ready: conditions.contains('r'),
            serving: conditions.contains('r') || conditions.contains('s'),
            terminating: conditions.contains('t'),
            local: node == "n1",
            zone_hints: names(zones),
            node_hints: names(nodes),
        }
    }

    /// Last octets of the chosen, for the policies Cluster and Local, and whether anybody serves.
    fn check(known: &[Known], policies: &str, cluster: &[u8], local: &[u8], any: bool) {
        let mut service = service();
        if policies.contains('i') {
            service.internal_policy = TrafficPolicy::Local;
        }
        if policies.contains('e') {
            service.external_policy = TrafficPolicy::Local;
        }
        let external = policies.contains('x');
        let choice = choose(known, &service, external, "n1", Some("a"));
        let last = |chosen: &[SocketAddr]| -> Vec<u8> {
            let octet = |at: &SocketAddr| match at.ip() {
                std::net::IpAddr::V4(ip) => ip.octets()[3],
                std::net::IpAddr::V6(_) => 0,
            };
            chosen.iter().map(octet).collect()
        };
        assert_eq!(last(&choice.cluster), cluster, "{known:?} {policies}");
        assert_eq!(last(&choice.local), local, "{known:?} {policies}");
        assert_eq!(choice.any, any, "{known:?} {policies}");
    }

    #[test]
    fn ready_endpoints_come_first_then_those_that_still_serve() {
        let of = |conditions: [&str; 3]| {
            let nodes = ["n1", "n1", "n2"];
            let all = (1..).zip(conditions.into_iter().zip(nodes));
            let all = all.map(|(last, (of, node))| known(last, of, node, &[], &[]));
            all.collect::<Vec<_>>()
        };
        check(&of(["r", "st", "r"]), "", &[1, 3], &[], true);
        check(&of(["", "st", "st"]), "", &[2, 3], &[], true);
        check(&of(["", "t", ""]), "", &[], &[], false);
        // Each policy by itself.
        check(&of(["st", "st", "r"]), "xe", &[3], &[1, 2], true);
        check(&of(["r", "st", "r"]), "xe", &[1, 3], &[1], true);
        check(&of(["", "", "r"]), "i", &[], &[], true);
        check(&of(["", "", "r"]), "ix", &[3], &[], true);
        // Without an address outside, the external policy is none.
        check(&of(["r", "r", "r"]), "e", &[1, 2, 3], &[], true);
        check(&of(["", "", ""]), "i", &[], &[], false);
    }

    #[test]
    fn hints_count_when_all_ready_endpoints_have_them_and_one_is_for_this_node() {
        let zoned = |last, zones: &[&str]| known(last, "r", "n2", zones, &[]);
        check(&[zoned(1, &["a"]), zoned(2, &["b"])], "", &[1], &[], true);
        check(&[zoned(1, &["a"]), zoned(2, &[])], "", &[1, 2], &[], true);
        check(
            &[zoned(1, &["b"]), zoned(2, &["c"])],
            "",
            &[1, 2],
            &[],
            true,
        );
        let unready = known(3, "", "n2", &[], &[]);
        check(
            &[zoned(1, &["a"]), zoned(2, &["b"]), unready],
            "",
            &[1],
            &[],
            true,
        );
        let noded = |last, node: &str| known(last, "r", node, &["b"], &[node]);
        check(&[noded(1, "n1"), noded(2, "n2")], "", &[1], &[], true);
        check(&[noded(1, "n3"), noded(2, "n2")], "", &[1, 2], &[], true);
    }

    #[test]
    fn an_endpoint_in_two_slices_is_one_and_another_ports_are_none() {
        use crate::model::cluster::{EndpointPort, ObjectName, PortProtocol};
        let endpoint = |node: &str| Endpoint {
            addresses: vec![[10, 244, 1, 1].into()],
            ready: true,
            serving: true,
            terminating: false,
            node: Some(node.into()),
            zone: None,
            zone_hints: Vec::new(),
            node_hints: Vec::new(),
            pod: None,
        };
        let port = |name: &str, port| EndpointPort {
            name: name.into(),
            protocol: PortProtocol::Tcp,
            port,
        };
        let slice = |node: &str| EndpointSlice {
            name: ObjectName {
                namespace: "shop".into(),
                name: node.into(),
            },
            service: "web".into(),
            headless: false,
            endpoints: vec![endpoint(node)],
            ports: vec![port("http", Some(8080)), port("admin", Some(9090))],
        };
        let (first, second) = (slice("n2"), slice("n1"));
        let service = service();
        let all = of(&[&first, &second], &service.ports[0], Family::V4, "n1");
        assert_eq!(all.len(), 1);
        assert!(all[0].local);
        assert_eq!(all[0].at.port(), 8080);
        assert!(of(&[&first], &service.ports[0], Family::V6, "n1").is_empty());
    }
}
