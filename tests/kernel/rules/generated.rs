//! What the real kube-proxy set up in ipvs mode for Services and EndpointSlices of every kind, generated: real
//! packets are sent from every kind of source to one of two nodes, and each must end as the evaluator foretells.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::Value;
use tracer::rules::{Host, Ruleset};
use tracer::verify::judge;

use super::judged::Fixture;
use super::proxy::{feed, within};
use super::servers::MODULES;
use crate::support::generated::cells::Cell;
use crate::support::generated::objects::{self, Made};
use crate::support::generated::world::{NODES, PLACES, Pace, Who, World};
use crate::support::generated::{
    Evenness, LEAST, SEED, WANTED, assert_covered, assert_foretold, cells, covered, lines,
    otherwise, packets,
};
use crate::support::probe::Fate;
use crate::support::tally::Tally;
use crate::support::{Topology, has_ipvs};

/// A guest is emulated, and answers when it can.
const PACE: Pace = Pace {
    threads: 16,
    slowness: 3,
    few: 2,
    many: 6,
};

/// In a guest there is no repository: the texts are in the program.
macro_rules! text {
    ($name:literal) => {
        include_str!(concat!("../../data/kube-proxy/ipvs/generated/", $name))
    };
}

const OBJECTS: &str = text!("objects.json");

/// What kube-proxy 1.37 set up on the node `n1`.
fn fixture() -> Fixture {
    let texts = [
        text!("ipset.txt"),
        text!("addresses.txt"),
        text!("ipvsadm.txt"),
        text!("iptables.txt"),
        text!("ip6tables.txt"),
        text!("sysctl.txt"),
    ];
    Fixture::in_ipvs_mode(texts, OBJECTS)
}

/// What the fixture is of.
fn made() -> Vec<Made> {
    let mut made = objects::all(SEED, &PLACES);
    made.extend(objects::of_place_never_ready(&PLACES[0]));
    made
}

/// Whether `found` says all that `asked` does; what is empty may be left out.
fn says(found: &Value, asked: &Value) -> bool {
    match (found, asked) {
        (Value::Object(found), Value::Object(asked)) => asked.iter().all(|(key, value)| {
            let empty = *value == "" || *value == false || value.is_null();
            found.get(key).map_or(empty, |found| says(found, value))
        }),
        (Value::Array(found), Value::Array(asked)) => {
            let mut pairs = found.iter().zip(asked);
            found.len() == asked.len() && pairs.all(|(found, asked)| says(found, asked))
        }
        (found, asked) => found == asked,
    }
}

#[test]
fn what_kube_proxy_set_up_in_ipvs_mode_was_for_the_services_that_are_generated() {
    let objects: Value = serde_json::from_str(OBJECTS).expect("it is JSON");
    let found = objects["items"].as_array().expect("it is a list");
    for one in made() {
        for asked in one.slices.iter().chain([&one.service]) {
            let same = found.iter().any(|found| says(found, asked));
            assert!(same, "the fixture is of another generator's: {asked:#}");
        }
        let service = found.iter().find(|found| says(found, &one.service));
        let ingress = service.map(|service| service["status"]["loadBalancer"]["ingress"].clone());
        let ingress = ingress.and_then(|ingress| ingress.as_array().cloned());
        let ingress = ingress.unwrap_or_default();
        let ingress: Vec<_> = ingress
            .iter()
            .filter_map(|one| one["ip"].as_str())
            .collect();
        assert_eq!(ingress, one.ingress, "{}", one.name);
    }
}

/// The bed's namespaces as `cargo xtask cluster` makes them: a link, and two nodes with pods' bridges, of which the
/// first has kube-proxy's rules.
fn bed(topology: &mut Topology) -> [String; 3] {
    let [control, n1, n2] = ["control", "n1", "n2"].map(|name| topology.netns(name));
    for netns in [&control, &n1, &n2] {
        let words = "net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
                     net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1";
        set(netns, words);
    }
    let batch = |netns: &str, lines: &str| feed(netns, &["ip", "-batch", "-"], lines);
    let mut lines = "link add link0 type bridge\n\
                     link set link0 up\n\
                     address add 192.0.2.10/24 dev link0\n\
                     address add 2001:db8::10/64 dev link0\n"
        .to_owned();
    for (number, netns) in [(1, &n1), (2, &n2)] {
        let _ = write!(
            lines,
            "link add n{number} type veth peer name eth0 netns {netns}\n\
             link set n{number} master link0 up\n\
             route add 10.244.{number}.0/24 via 192.0.2.1{number}\n\
             route add fd00:10:244:{number}::/64 via 2001:db8::1{number}\n"
        );
    }
    batch(&control, &lines);
    for (own, peer, netns) in [(1, 2, &n1), (2, 1, &n2)] {
        let vtep = |number: u8| format!("5e:00:00:00:00:0{number}");
        let mac = vtep(own);
        let mut lines = format!(
            "link set eth0 up\n\
             address add 192.0.2.1{own}/24 dev eth0\n\
             address add 2001:db8::1{own}/64 dev eth0\n\
             route add default via 192.0.2.10\n\
             route add default via 2001:db8::10\n\
             link add cni0 type bridge\n\
             link set cni0 up\n\
             address add 10.244.{own}.1/24 dev cni0\n\
             address add fd00:10:244:{own}::1/64 dev cni0\n"
        );
        for (device, local, remote, via, length) in [
            ("flannel.1", "192.0.2.1", "192.0.2.1", "10.244.", ".0"),
            (
                "flannel-v6.1",
                "2001:db8::1",
                "2001:db8::1",
                "fd00:10:244:",
                "::",
            ),
        ] {
            let (range, host) = if length == ".0" { (24, 32) } else { (64, 128) };
            let peer_mac = vtep(peer);
            let _ = write!(
                lines,
                "link add {device} address {mac} mtu 1430 type vxlan id 1 local {local}{own} remote {remote}{peer} \
                 dev eth0 dstport 8472 nolearning\n\
                 address add {via}{own}{length}/{host} dev {device}\n\
                 link set {device} up\n\
                 route add {via}{peer}{length}/{range} via {via}{peer}{length} dev {device} onlink\n\
                 neighbour add {via}{peer}{length} lladdr {peer_mac} dev {device} nud permanent\n"
            );
        }
        batch(netns, &lines);
        set(
            netns,
            "net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1",
        );
    }
    [control, n1, n2]
}

fn set(netns: &str, sysctls: &str) {
    let words: Vec<_> = ["sysctl", "-qw"]
        .into_iter()
        .chain(sysctls.split_whitespace())
        .collect();
    feed(netns, &words, "");
}

/// Whether the node asks by a Service's address, and a place on the other node answers to that: who takes such an
/// address for his own, and so gets the answer, only kube-proxy on the other node would settle, which is not here.
fn is_answered_around(cell: &Cell) -> bool {
    let around = |fate: &Fate| match fate {
        Fate::Answered(at, client) => {
            let mut there = PLACES.iter().filter(|place| place.node != 0);
            *client == cell.to.ip() && there.any(|place| place.address(at.is_ipv4()) == at.ip())
        }
        Fate::Refused | Fate::Silence | Fate::Passed => false,
    };
    cell.asker.who == Who::Node && cell.foretold.keys().any(around)
}

/// Has the tier show it.
fn shown(line: &str) {
    let said = writeln!(std::io::stderr(), "shown: {line}");
    assert!(said.is_ok(), "standard error is open");
}

#[test]
#[ignore = "needs root and ip_vs; run `cargo xtask test vm`"]
fn packets_go_where_the_evaluator_foretells_for_generated_services_in_ipvs_mode() {
    if !has_ipvs(&MODULES) {
        return;
    }
    let mut topology = Topology::new("vsgen");
    let [control, n1, n2] = bed(&mut topology);
    let netns_of = |name: &str| match name {
        "n1" => n1.clone(),
        "n2" => n2.clone(),
        _ => control.clone(),
    };
    let world = World::new(netns_of, PACE);
    let fixture = fixture();
    fixture.load_in(&n1);
    let (ruleset, host) = within(&n1, || {
        let ruleset = Ruleset::read().expect("it reads");
        (ruleset, Host::read().expect("it reads"))
    });
    let snapshot = &fixture.snapshot;
    let node = snapshot.nodes.iter().find(|node| *node.name == *NODES[0]);
    let judged = judge(&ruleset, &host, snapshot, node.expect("it is a Node"));
    assert_eq!(judged.findings, []);
    let made = made();
    let mut cells = cells::all(&made, snapshot, &[0]);
    cells::foretell(&mut cells, &world, &[(ruleset, host)]);
    cells.retain(|cell| !is_answered_around(cell));
    let tallies = packets::send(&world, &cells);
    let wrong = otherwise(&cells, &tallies);
    let even = Evenness::of(&cells, &tallies);
    let sent: u32 = tallies.iter().map(Tally::count).sum();
    shown(&format!(
        "ipvs, seed {SEED}: {} Services, {} cases on one node, {sent} connections: {} not as foretold",
        made.len(),
        cells.len(),
        wrong.len(),
    ));
    shown(&format!(
        "  of these {} dealt out in turn, {} connections: chi-squared {:.0} at {} degrees of freedom",
        even.cases, even.connections, even.statistic, even.freedom
    ));
    let covered = covered(&cells);
    for line in lines(&covered) {
        shown(&line);
    }
    assert_foretold(&wrong, &cells);
    // In turn is more even than chance would have it.
    assert!(
        even.statistic < even.freedom,
        "{:.0} {}",
        even.statistic,
        even.freedom
    );
    assert!(cells.len() >= LEAST, "{} cases", cells.len());
    assert_covered(&covered, WANTED);
}
