//! The network of the fixture with servers at all its endpoints and clients of every kind, in both IP
//! families; and which packets are to show what its rules do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tracer::model::Snapshot;
use tracer::model::cluster::{PortProtocol, ServiceType};

use super::super::judged::network;
use super::super::proxy::{BACKENDS, CLIENT, NODE, Network, OUTSIDE};
use crate::support::foretold::Served;
use crate::support::probe::{Prober, Sniffer, serve};
use crate::support::{ip, run_in};

/// Someone who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// A pod that serves nothing.
    Client,
    /// Pods that serve; the third is on another node, as far as objects know.
    Backend(usize),
    Node,
    /// Within the source ranges of the one Service that has some.
    Outside,
    /// Beyond them.
    Elsewhere,
}

impl Who {
    /// Its address; of the node, the one that leads outside.
    pub(super) fn address(self, v4: bool) -> IpAddr {
        const SIX: [&str; 3] = ["fd00:10:244:1::1", "fd00:10:244:1::2", "fd00:10:244:2::3"];
        let text = match (self, v4) {
            (Self::Client, true) => CLIENT,
            (Self::Client, false) => "fd00:10:244:1::9",
            (Self::Backend(index), true) => BACKENDS[index],
            (Self::Backend(index), false) => SIX[index],
            (Self::Node, true) => NODE,
            (Self::Node, false) => "2001:db8::1",
            (Self::Outside, true) => OUTSIDE,
            (Self::Outside, false) => "2001:db8::100",
            (Self::Elsewhere, _) => "192.0.2.200",
        };
        text.parse().expect("it is an address")
    }
}

/// Someone asks at one address of a Service.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    /// `shop/web`; `None` where no Service is to be.
    pub(super) service: Option<String>,
    pub(super) protocol: PortProtocol,
    pub(super) to: SocketAddr,
    pub(super) who: Who,
    /// Clients stay with their endpoint: each sample is another client's, who comes twice.
    pub(super) sticky: bool,
}

/// The namespaces, their servers, and those who connect.
pub(super) struct World {
    pub(super) network: Network,
    pub(super) served: Served,
    probers: Vec<Prober>,
    /// How many times longer than here an answer may take.
    pub(super) slowness: u32,
    /// What comes outside.
    pub(super) outside: Sniffer,
}

fn file(netns: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(netns)
}

impl World {
    #[expect(clippy::too_many_lines, reason = "one device after another")]
    pub(super) fn new(test: &str, slowness: u32) -> Self {
        let network = network(test);
        let node = &network.node;
        let set = |word: &str| {
            let done = run_in(node, &["sysctl", "-qw", word]);
            assert!(done.status.success(), "{word}: {done:?}");
        };
        // As kube-proxy does in iptables mode.
        set("net.ipv4.conf.all.route_localnet=1");
        // Each refusal is to be told of.
        set("net.ipv4.icmp_ratelimit=0");
        set("net.ipv4.icmp_msgs_per_sec=100000");
        set("net.ipv4.icmp_msgs_burst=100000");
        set("net.ipv6.icmp.ratelimit=0");
        let mut served = Served::default();
        let pods = network.backends.iter().zip(["b0", "b1", "b2"]);
        let pods = (0..)
            .zip(pods)
            .map(|(index, (netns, device))| (Who::Backend(index), netns, device, vec![8080, 9090]));
        let client = (Who::Client, &network.client, "c", vec![]);
        for (who, netns, device, ports) in pods.chain([client]) {
            six(node, device, netns, who.address(false));
            let all = [true, false].map(|v4| who.address(v4));
            served.known.extend(all);
            let at = all
                .iter()
                .flat_map(|at| ports.iter().map(|port| SocketAddr::new(*at, *port)));
            let at: Vec<_> = at.collect();
            serve(&file(netns), &at);
            served.at.extend(at);
        }
        let api = SocketAddr::new(Who::Node.address(true), 6443);
        serve(&file(node), &[api]);
        served.at.insert(api);
        let outside = &network.outside;
        let add = [
            "-n",
            outside,
            "address",
            "add",
            "2001:db8::100/64",
            "dev",
            "eth0",
            "nodad",
        ];
        ip(&add);
        ip(&[
            "-n",
            outside,
            "-6",
            "route",
            "add",
            "default",
            "via",
            "2001:db8::1",
        ]);
        ip(&[
            "-n",
            outside,
            "address",
            "add",
            "192.0.2.200/24",
            "dev",
            "eth0",
        ]);
        // Many clients, each with an address of its own.
        ip(&[
            "-n",
            outside,
            "route",
            "add",
            "local",
            "100.64.0.0/16",
            "dev",
            "lo",
        ]);
        ip(&[
            "-n",
            &network.client,
            "route",
            "add",
            "local",
            "10.244.128.0/17",
            "dev",
            "lo",
        ]);
        // By the pod's own address: a neighbour of each would be more than the kernel keeps.
        let range = ["-n", node, "route", "add", "10.244.128.0/17", "via", CLIENT];
        ip(&[&range[..], &["dev", "c", "onlink", "src", NODE]].concat());
        ip(&[
            "-n",
            node,
            "route",
            "add",
            "local",
            "100.65.0.0/16",
            "dev",
            "lo",
        ]);
        for who in [Who::Node, Who::Outside, Who::Elsewhere] {
            served.known.extend([true, false].map(|v4| who.address(v4)));
        }
        let netns = [&network.client, node, outside];
        let netns = netns.into_iter().chain(&network.backends);
        // At once, from each; a slow machine has none the more.
        let threads = 24 / slowness as usize;
        let probers = netns.map(|netns| Prober::start(&file(netns), threads));
        let probers = probers.collect();
        Self {
            slowness,
            served,
            probers,
            outside: Sniffer::start(&file(&network.outside)),
            network,
        }
    }

    /// Whose threads are to connect.
    pub(super) fn index(who: Who) -> usize {
        match who {
            Who::Client => 0,
            Who::Node => 1,
            Who::Outside | Who::Elsewhere => 2,
            Who::Backend(index) => 3 + index,
        }
    }

    pub(super) fn probers(&self) -> &[Prober] {
        &self.probers
    }
}

/// Gives a pod its IPv6 address.
fn six(node: &str, device: &str, netns: &str, address: IpAddr) {
    let address = format!("{address}/128");
    ip(&[
        "-n", netns, "address", "add", &address, "dev", "eth0", "nodad",
    ]);
    ip(&[
        "-n",
        node,
        "address",
        "add",
        "fe80::1/64",
        "dev",
        device,
        "nodad",
    ]);
    ip(&[
        "-n", netns, "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0",
    ]);
}

/// Who is to ask where: everybody at each Service's addresses, and where nothing is to be.
pub(super) fn cells(snapshot: &Snapshot) -> Vec<Cell> {
    let mut cells = Vec::new();
    let mut services: Vec<_> = snapshot.services.iter().collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    for service in services {
        let sticky = service.affinity.is_some();
        for port in &service.ports {
            let mut add = |service: Option<String>, to: SocketAddr, all: &[Who]| {
                // At a port that it has not, nobody is remembered.
                let sticky = sticky && to.port() != 1;
                // Rules that remember clients would let one go where it went before.
                let new =
                    |who: &&Who| !sticky || matches!(who, Who::Client | Who::Outside | Who::Node);
                cells.extend(all.iter().filter(new).map(|who| Cell {
                    service: service.clone(),
                    protocol: port.protocol,
                    to,
                    who: *who,
                    sticky,
                }));
            };
            // What another program is to serve is nobody's.
            let proxied = service.proxy_name.is_none();
            let name = || proxied.then(|| service.name.to_string());
            for address in &service.cluster_ips {
                let mut all = vec![Who::Client, Who::Backend(0), Who::Node, Who::Outside];
                if address.is_ipv4() {
                    all.push(Who::Backend(1));
                }
                add(name(), SocketAddr::new(*address, port.port), &all);
                if port.name == service.ports[0].name {
                    // A port that it has not.
                    add(
                        name(),
                        SocketAddr::new(*address, 1),
                        &[Who::Client, Who::Node],
                    );
                }
            }
            let outer = [
                Who::Client,
                Who::Backend(0),
                Who::Backend(2),
                Who::Node,
                Who::Outside,
                Who::Elsewhere,
            ];
            for address in &service.external_ips {
                add(name(), SocketAddr::new(*address, port.port), &outer);
            }
            for one in &service.load_balancer_ips {
                add(name(), SocketAddr::new(one.ip, port.port), &outer);
            }
            if let Some(number) = port.node_port {
                add(
                    name(),
                    SocketAddr::new(Who::Node.address(true), number),
                    &outer[..5],
                );
                let here = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), number);
                add(name(), here, &[Who::Node]);
            }
            if service.r#type == ServiceType::ClusterIp && &*service.name.name == "web" {
                let at = |text: &str| text.parse().expect("it is an address");
                add(None, at("10.96.0.200:80"), &[Who::Client, Who::Outside]);
                add(None, at("10.96.0.10:81"), &[Who::Client]);
                let node = SocketAddr::new(Who::Node.address(true), 30099);
                add(None, node, &[Who::Outside]);
            }
        }
    }
    cells
}
