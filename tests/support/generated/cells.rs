//! Who is to ask where: each case, what it is about, and what the evaluator foretells of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tracer::model::Snapshot;
use tracer::model::cluster::{PortProtocol, Service, ServicePort, TrafficPolicy};
use tracer::rules::{Host, Ruleset};

use super::objects::{Made, NAMESPACE, Subject};
use super::world::{Asker, PLACES, Who, World};
use crate::support::foretold::Asked;
use crate::support::probe::Fate;

/// Someone asks at one address of a Service.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) service: String,
    pub(crate) protocol: PortProtocol,
    pub(crate) to: SocketAddr,
    pub(crate) asker: Asker,
    /// Clients stay with their endpoint: each comes twice, and where they can, each sample is another's.
    pub(crate) sticky: bool,
    /// Packets show these behaviours, by their numbers in `BEHAVIOURS`.
    pub(crate) behaviours: Vec<u8>,
    /// What the rules make of it, with probabilities.
    pub(crate) foretold: BTreeMap<Fate, f64>,
}

impl Cell {
    /// Whether chance decides.
    pub(crate) fn is_random(&self) -> bool {
        self.foretold.len() > 1
    }

    /// Each sample is another client's.
    pub(crate) fn has_many_clients(&self) -> bool {
        let many = matches!(self.asker.who, Who::Pod | Who::Outside);
        self.sticky && many && self.to.is_ipv4()
    }
}

/// A port that no Service has.
const OTHER_PORT: u16 = 1;

/// All cases at these nodes, without what is foretold.
pub(crate) fn all(made: &[Made], snapshot: &Snapshot, nodes: &[usize]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for one in made {
        let mut services = snapshot.services.iter();
        let service = services.find(|service| {
            &*service.name.namespace == NAMESPACE && *service.name.name == *one.name
        });
        let service = service.expect("the API server has it");
        for port in &service.ports {
            of_port(one, service, port, nodes, &mut cells);
        }
    }
    cells
}

fn of_port(
    made: &Made,
    service: &Service,
    port: &ServicePort,
    nodes: &[usize],
    cells: &mut Vec<Cell>,
) {
    let first = *port == service.ports[0];
    for node in nodes.iter().copied() {
        let mut add = |to: SocketAddr, who: &[Who], of: &[u8]| {
            for who in who {
                let at_place = matches!(who, Who::Place(_));
                // One that is remembered would come back to where it went from another case.
                if made.subject == Subject::Affinity && (at_place || *who == Who::Elsewhere) {
                    continue;
                }
                let mut behaviours = of.to_vec();
                behaviours.extend(of_service(made.subject, service, to));
                cells.push(Cell {
                    service: service.name.to_string(),
                    protocol: port.protocol,
                    to,
                    asker: Asker { node, who: *who },
                    sticky: service.affinity.is_some() && to.port() != OTHER_PORT,
                    behaviours,
                    foretold: BTreeMap::new(),
                });
            }
        };
        let (a, b) = (Who::Place(1), Who::Place(2));
        for vip in service.cluster_ips.iter().copied() {
            let at = SocketAddr::new(vip, port.port);
            let local = service.internal_policy == TrafficPolicy::Local;
            let policy: &[u8] = if local { &[2, 17] } else { &[2] };
            add(at, &[Who::Pod, Who::Node], policy);
            add(at, &[a, b], &[policy, &[5]].concat());
            add(at, &[Who::Outside], &[policy, &[6]].concat());
            if first {
                let other = SocketAddr::new(vip, OTHER_PORT);
                add(other, &[Who::Pod, Who::Node], &[9]);
            }
        }
        let local = service.external_policy == TrafficPolicy::Local;
        let policy = if local { 15 } else { 14 };
        let balanced = service.load_balancer_ips.iter().map(|one| one.ip);
        for ip in service.external_ips.iter().copied().chain(balanced) {
            let all = [Who::Pod, a, Who::Node, Who::Outside, Who::Elsewhere];
            let of: &[u8] = if service.source_ranges.is_empty() {
                &[13, policy]
            } else {
                &[13, policy, 18]
            };
            add(SocketAddr::new(ip, port.port), &all, of);
        }
        let Some(number) = port.node_port else {
            continue;
        };
        let own = Asker {
            node,
            who: Who::Node,
        };
        for v4 in [true, false] {
            let mut of_family = service.cluster_ips.iter();
            if !of_family.any(|vip| vip.is_ipv4() == v4) {
                continue;
            }
            let all = [
                Who::Pod,
                a,
                Who::Node,
                Who::Outside,
                Who::OtherNode,
                Who::FarPod,
            ];
            let at = SocketAddr::new(own.address(v4), number);
            add(at, &all, &[11, policy]);
            // Another of the node's addresses.
            add(
                SocketAddr::new(bridge(node, v4), number),
                &[Who::Pod],
                &[11],
            );
            if v4 {
                let here = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), number);
                add(here, &[Who::Node], &[12]);
            }
        }
    }
}

/// The address of a node's bridge.
fn bridge(node: usize, v4: bool) -> IpAddr {
    let number = [1, 2][node];
    if v4 {
        [10, 244, number, 1].into()
    } else {
        Ipv6Addr::new(0xfd00, 0x10, 0x244, u16::from(number), 0, 0, 0, 1).into()
    }
}

/// What packets to an address of such a Service show besides.
fn of_service(subject: Subject, service: &Service, to: SocketAddr) -> Vec<u8> {
    let mut all = Vec::new();
    match subject {
        Subject::NoEndpoints => all.push(8),
        Subject::Affinity => all.push(10),
        Subject::OnlyTerminating | Subject::SomeTerminating => all.push(19),
        Subject::ZoneHints | Subject::NodeHints | Subject::SomeHints => all.push(21),
        Subject::TwoProtocols | Subject::NamedPorts => all.push(24),
        Subject::OtherProxy | Subject::HeadlessLabel => all.push(25),
        Subject::Early => all.push(20),
        _ => {}
    }
    if service.cluster_ips.len() > 1 || to.is_ipv6() {
        all.push(26);
    }
    all
}

/// A place on another node that knows the client's address, which is none behind the node asked, answers straight,
/// past the node that would translate its answer back: the client takes it for nobody's.
fn without_straight_answers(
    foretold: &BTreeMap<Fate, f64>,
    source: IpAddr,
    node: usize,
) -> BTreeMap<Fate, f64> {
    let mut fates = BTreeMap::new();
    for (fate, share) in foretold {
        let elsewhere = |at: &SocketAddr| {
            let mut places = PLACES.iter().filter(|place| place.node != node);
            places.any(|place| place.address(at.is_ipv4()) == at.ip())
        };
        let fate = match fate {
            Fate::Answered(at, client) if *client == source && elsewhere(at) => Fate::Silence,
            other => *other,
        };
        *fates.entry(fate).or_insert(0.0) += share;
    }
    fates
}

/// Has the evaluator foretell what becomes of each, by the rules of its node: those of the nodes in order.
pub(crate) fn foretell(cells: &mut [Cell], world: &World, rules: &[(Ruleset, Host)]) {
    for (node, (ruleset, host)) in rules.iter().enumerate() {
        let judge = ruleset.judges(host);
        for cell in cells.iter_mut().filter(|cell| cell.asker.node == node) {
            let v4 = cell.to.is_ipv4();
            let by_node = cell.asker.who == Who::Node;
            let source = match (by_node, cell.to.ip().is_loopback()) {
                (true, true) => cell.to.ip(),
                (true, false) => host.source_for(cell.to.ip()).expect("it is routed"),
                _ => cell.asker.address(v4),
            };
            let asked = Asked {
                source,
                to: cell.to,
                protocol: cell.protocol,
                by_node,
                watched: v4,
            };
            cell.foretold = world.served.fates(asked, &judge, host);
            let behind = match cell.asker.who {
                // Services' addresses are the node's own, where it uses one.
                Who::Pod | Who::Place(_) | Who::Node => true,
                Who::Outside | Who::Elsewhere | Who::OtherNode | Who::FarPod => false,
            };
            if !behind {
                cell.foretold = without_straight_answers(&cell.foretold, source, node);
            }
            let answered = cell
                .foretold
                .keys()
                .any(|fate| matches!(fate, Fate::Answered(..)));
            if answered {
                cell.behaviours.push(3);
            }
            if cell.is_random() {
                cell.behaviours.push(4);
            }
        }
    }
    // A place reaches itself only where it serves.
    for cell in cells {
        let Who::Place(number) = cell.asker.who else {
            continue;
        };
        let mut places = PLACES.iter();
        let own = places.find(|one| one.node == cell.asker.node && one.number == number);
        let own = own.expect("it is one of them").address(cell.to.is_ipv4());
        let itself = |fate: &Fate| matches!(fate, Fate::Answered(at, _) if at.ip() == own);
        if !cell.foretold.keys().any(itself) {
            cell.behaviours.retain(|one| *one != 5);
        }
    }
}
