//! Who asks and who serves: pods on both nodes' bridges, made here as CNI makes them, and hosts outside, each
//! behind one node. The nodes' own namespaces get routes and sysctls for as long as the test takes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use crate::support::foretold::Served;
use crate::support::probe::{Prober, Sniffer, serve};
use crate::support::{End, Topology, ip, run_in, veth};

/// The nodes, by index.
pub(crate) const NODES: [&str; 2] = ["n1", "n2"];
/// Their zones.
pub(crate) const ZONES: [&str; 2] = ["a", "b"];

/// Ports that every place serves at.
const PORTS: [u16; 2] = [8080, 9090];

/// A pod that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index of its node.
    pub(crate) node: usize,
    /// Its number there.
    pub(crate) number: u8,
}

/// Two on each node.
pub(crate) const PLACES: [Place; 4] = [
    Place { node: 0, number: 1 },
    Place { node: 0, number: 2 },
    Place { node: 1, number: 1 },
    Place { node: 1, number: 2 },
];

impl Place {
    pub(crate) fn node_name(self) -> &'static str {
        NODES[self.node]
    }

    pub(crate) fn address(self, v4: bool) -> IpAddr {
        // The bed's own pods have the first of a node's range.
        let node = [1, 2][self.node];
        if v4 {
            [10, 244, node, 200 + self.number].into()
        } else {
            let last = 200 + u16::from(self.number);
            Ipv6Addr::new(0xfd00, 0x10, 0x244, u16::from(node), 0, 0, 0, last).into()
        }
    }
}

/// Someone who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    /// A pod that serves nothing.
    Pod,
    /// One that serves, by its number.
    Place(u8),
    /// The node itself.
    Node,
    /// Someone outside, of the range that the Services with source ranges let in.
    Outside,
    /// Someone outside, beyond it.
    Elsewhere,
    /// The other node.
    OtherNode,
    /// A pod of the other node.
    FarPod,
}

/// Someone at a node whose rules its packets meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asker {
    /// Index of the node.
    pub(crate) node: usize,
    pub(crate) who: Who,
}

impl Asker {
    /// Its address; of the node, the one that leads outside.
    pub(crate) fn address(self, v4: bool) -> IpAddr {
        let host = |last: [u8; 2]| -> IpAddr {
            let last = last[self.node];
            if v4 {
                Ipv4Addr::new(192, 0, 2, last).into()
            } else {
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)).into()
            }
        };
        let node = |node: usize| match (node, v4) {
            (node, true) => [[192, 0, 2, 11], [192, 0, 2, 12]][node].into(),
            (node, false) => {
                let last = [0x11, 0x12][node];
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()
            }
        };
        let pod = |node, number| Place { node, number }.address(v4);
        match self.who {
            Who::Pod => pod(self.node, CLIENT),
            Who::Place(number) => pod(self.node, number),
            Who::Node => node(self.node),
            Who::Outside => host([200, 201]),
            Who::Elsewhere => host([220, 221]),
            Who::OtherNode => node(1 - self.node),
            Who::FarPod => pod(1 - self.node, CLIENT),
        }
    }

    /// From where it asks.
    fn home(self) -> Home {
        match self.who {
            Who::Pod => Home::Pod(self.node, CLIENT),
            Who::Place(number) => Home::Pod(self.node, number),
            Who::Node => Home::Node(self.node),
            Who::Outside | Who::Elsewhere => Home::Outside(self.node),
            Who::OtherNode => Home::Node(1 - self.node),
            Who::FarPod => Home::Pod(1 - self.node, CLIENT),
        }
    }
}

/// The number of the pod on each node that only asks.
const CLIENT: u8 = 9;

/// A namespace from which connections are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Home {
    Pod(usize, u8),
    Node(usize),
    Outside(usize),
}

/// The namespaces, their servers, and those who connect.
pub(crate) struct World {
    _undo: Undo,
    _topology: Topology,
    pub(crate) served: Served,
    probers: Vec<(Home, Prober)>,
    /// What comes outside.
    pub(crate) outside: Sniffer,
    pub(super) pace: Pace,
}

/// How many connections are made, and how quickly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Threads that connect from one namespace.
    pub(crate) threads: usize,
    /// How many times longer than here an answer may take: guests are emulated.
    pub(crate) slowness: u32,
    /// Connections where one thing is foretold.
    pub(crate) few: usize,
    /// And where several may happen.
    pub(crate) many: usize,
}

pub(crate) fn file(netns: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(netns)
}

impl World {
    /// `netns_of` knows the namespaces of `control`, which links the nodes, and of each node.
    pub(crate) fn new(netns_of: impl Fn(&str) -> String, pace: Pace) -> Self {
        let mut topology = Topology::new("verify");
        let mut undo = Undo(Vec::new());
        let mut homes = BTreeMap::new();
        let mut served = Served::default();
        let control = netns_of("control");
        for (index, name) in NODES.iter().enumerate() {
            let node = netns_of(name);
            for number in [1, 2, CLIENT] {
                let netns = pod(&mut topology, &node, index, number);
                let place = Place {
                    node: index,
                    number,
                };
                let own = [true, false].map(|v4| place.address(v4));
                served.known.extend(own);
                if number != CLIENT {
                    let at = own
                        .iter()
                        .flat_map(|ip| PORTS.map(|port| SocketAddr::new(*ip, port)));
                    let at: Vec<_> = at.collect();
                    serve(&file(&netns), &at);
                    served.at.extend(at);
                }
                homes.insert(Home::Pod(index, number), netns);
            }
            let netns = outside(&mut topology, &control, index);
            homes.insert(Home::Outside(index), netns);
            homes.insert(Home::Node(index), node);
            for who in [Who::Node, Who::Outside, Who::Elsewhere] {
                let asker = Asker { node: index, who };
                served
                    .known
                    .extend([true, false].map(|v4| asker.address(v4)));
            }
        }
        many_clients(&homes, &control, &mut undo);
        for netns in homes.values().chain([&control]) {
            told_of_each(netns, &mut undo);
        }
        // Where nobody translates them, the control plane passes such packets on to one who looks.
        for range in ["10.96.0.0/16", "198.51.100.0/24"] {
            undo.route(&control, &[range, "via", "192.0.2.200"]);
        }
        for range in ["fd00:10:96::/112", "2001:db8:51::/112"] {
            undo.route(&control, &[range, "via", "2001:db8::c8"]);
        }
        let sniffer = Sniffer::start(&file(&homes[&Home::Outside(0)]));
        let probers = homes
            .iter()
            .map(|(home, netns)| (*home, Prober::start(&file(netns), pace.threads)));
        Self {
            probers: probers.collect(),
            served,
            outside: sniffer,
            pace,
            _undo: undo,
            _topology: topology,
        }
    }

    pub(crate) fn probers(&self) -> impl Iterator<Item = &Prober> {
        self.probers.iter().map(|(_, prober)| prober)
    }

    /// Whose threads are to connect.
    pub(crate) fn index(&self, asker: Asker) -> usize {
        let home = asker.home();
        let found = self.probers.iter().position(|(of, _)| *of == home);
        found.expect("each has one")
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for words in self.0.iter().rev() {
            // A panic here would hide the one that failed the test.
            drop(Command::new("ip").args(words).status());
        }
    }
}

/// Commands of `ip` that undo what was done to the bed's namespaces.
struct Undo(Vec<Vec<String>>);

impl Undo {
    fn route(&mut self, netns: &str, words: &[&str]) {
        let [add, del] = ["add", "del"].map(|what| [&["-n", netns, "route", what], words].concat());
        ip(&add);
        self.0.push(del.into_iter().map(str::to_owned).collect());
    }

    /// Sets those that there are.
    fn sysctls(&mut self, netns: &str, wanted: &[(&str, &str)]) {
        let names = wanted.iter().map(|(name, _)| *name);
        let words: Vec<_> = ["sysctl", "-e"].into_iter().chain(names).collect();
        let was = run_in(netns, &words);
        let was = String::from_utf8_lossy(&was.stdout).into_owned();
        let was: Vec<_> = was
            .lines()
            .filter_map(|line| line.split_once(" = "))
            .collect();
        let there = wanted
            .iter()
            .filter(|(name, _)| was.iter().any(|(known, _)| known == name));
        let set: Vec<_> = there
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let words = ["sysctl", "-qw"].into_iter();
        let words: Vec<_> = words.chain(set.iter().map(String::as_str)).collect();
        let done = run_in(netns, &words);
        assert!(done.status.success(), "{done:?}");
        let words = ["netns", "exec", netns, "sysctl", "-qw"].map(str::to_owned);
        let mut words = words.to_vec();
        words.extend(was.iter().map(|(name, value)| format!("{name}={value}")));
        self.0.push(words);
    }
}

/// A pod at a node's bridge, with the addresses of its number.
fn pod(topology: &mut Topology, node: &str, index: usize, number: u8) -> String {
    let netns = topology.netns(&format!("p{index}{number}"));
    let place = Place {
        node: index,
        number,
    };
    let device = format!("test{number}");
    let addresses = [(true, 24), (false, 64)];
    let addresses = addresses.map(|(v4, length)| format!("{}/{length}", place.address(v4)));
    let inner = End {
        netns: &netns,
        device: "eth0",
        addresses: &[&addresses[0], &addresses[1]],
    };
    let outer = End {
        netns: node,
        device: &device,
        addresses: &[],
    };
    veth(&inner, &outer);
    let port = ["-n", node, "link", "set", &device];
    ip(&[&port[..], &["master", "cni0"]].concat());
    ip(&[&port[..], &["type", "bridge_slave", "hairpin", "on"]].concat());
    for gateway in [
        format!("10.244.{}.1", index + 1),
        format!("fd00:10:244:{}::1", index + 1),
    ] {
        ip(&["-n", &netns, "route", "add", "default", "via", &gateway]);
    }
    netns
}

/// A host at the nodes' link to which one of them leads to Services.
fn outside(topology: &mut Topology, control: &str, index: usize) -> String {
    let netns = topology.netns(&format!("o{index}"));
    let askers = [Who::Outside, Who::Elsewhere].map(|who| Asker { node: index, who });
    let addresses = askers.iter().flat_map(|asker| {
        [(true, 24), (false, 64)].map(|(v4, length)| format!("{}/{length}", asker.address(v4)))
    });
    let addresses: Vec<_> = addresses.collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    let device = format!("test{index}");
    let inner = End {
        netns: &netns,
        device: "eth0",
        addresses: &addresses,
    };
    let outer = End {
        netns: control,
        device: &device,
        addresses: &[],
    };
    veth(&inner, &outer);
    ip(&["-n", control, "link", "set", &device, "master", "link0"]);
    let node = Asker {
        node: index,
        who: Who::Node,
    };
    for v4 in [true, false] {
        let via = node.address(v4).to_string();
        ip(&["-n", &netns, "route", "add", "default", "via", &via]);
    }
    netns
}

/// Clients by the thousand, each with an address of its own: those of a node's pod are in the pods' range,
/// those outside in another.
fn many_clients(homes: &BTreeMap<Home, String>, control: &str, undo: &mut Undo) {
    for index in [0, 1] {
        let local = |home, range: &str| {
            let netns = homes[&home].as_str();
            ip(&["-n", netns, "route", "add", "local", range, "dev", "lo"]);
        };
        let [pods, beyond] = RANGES[index];
        local(Home::Pod(index, CLIENT), pods);
        local(Home::Outside(index), beyond);
        let client = Place {
            node: index,
            number: CLIENT,
        };
        let client = client.address(true).to_string();
        let here = homes[&Home::Node(index)].as_str();
        undo.route(here, &[pods, "via", &client, "dev", "cni0"]);
        let there = homes[&Home::Node(1 - index)].as_str();
        let via = format!("10.244.{}.0", index + 1);
        undo.route(there, &[pods, "via", &via, "dev", "flannel.1", "onlink"]);
        let asker = Asker {
            node: index,
            who: Who::Outside,
        };
        let via = asker.address(true).to_string();
        undo.route(control, &[beyond, "via", &via]);
    }
}

/// Of each node's pod, and of who is outside behind it.
const RANGES: [[&str; 2]; 2] = [
    ["10.244.128.0/18", "100.64.0.0/17"],
    ["10.244.192.0/18", "100.64.128.0/17"],
];

/// The address of one client of many.
pub(crate) fn one_of_many(asker: Asker, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    match asker.who {
        Who::Pod => [10, 244, [128, 192][asker.node] + high, low].into(),
        _ => [100, 64, [0, 128][asker.node] + high, low].into(),
    }
}

/// Each refusal is told of, and nothing else is: a redirect would keep the next ICMP error back
/// (inet_peer_xrlim_allow).
fn told_of_each(netns: &str, undo: &mut Undo) {
    undo.sysctls(
        netns,
        &[
            ("net.ipv4.icmp_ratelimit", "0"),
            ("net.ipv4.icmp_msgs_per_sec", "100000"),
            ("net.ipv4.icmp_msgs_burst", "100000"),
            ("net.ipv6.icmp.ratelimit", "0"),
            ("net.ipv4.conf.all.send_redirects", "0"),
            // Of the link's bridge, of pods', and of what leads to either.
            ("net.ipv4.conf.link0.send_redirects", "0"),
            ("net.ipv4.conf.cni0.send_redirects", "0"),
            ("net.ipv4.conf.eth0.send_redirects", "0"),
        ],
    );
}
