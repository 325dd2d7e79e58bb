//! kube-proxy's rules for a few Services, written by hand in its layout for each mode, and the
//! network that they are for: a node, pods behind it, a host outside.

mod iptables;
mod nftables;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{End, Topology, ip, probe, run_in, veth};

pub(super) const CLUSTER_CIDR: &str = "10.244.0.0/16";
pub(super) const NODE: &str = "192.0.2.1";
pub(super) const OUTSIDE: &str = "192.0.2.100";
pub(super) const CLIENT: &str = "10.244.1.9";
/// Pods that serve; the third one is on another node, as far as Services know.
pub(super) const BACKENDS: [&str; 3] = ["10.244.1.1", "10.244.1.2", "10.244.2.3"];

/// kube-proxy's modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Iptables,
    /// The same, in iptables' own tables.
    Legacy,
    Nftables,
}

/// One port of one Service.
#[derive(Clone, Debug, Default)]
pub(super) struct Spec {
    pub(super) name: &'static str,
    pub(super) vip: &'static str,
    pub(super) protocol: &'static str,
    /// Indices into `BACKENDS`.
    pub(super) endpoints: Vec<usize>,
    pub(super) affinity: bool,
    pub(super) external: Option<&'static str>,
    pub(super) node_port: Option<u16>,
    /// `externalTrafficPolicy: Local`
    pub(super) local: bool,
}

impl Spec {
    fn targets(&self) -> Vec<String> {
        let targets = self.endpoints.iter();
        targets
            .map(|index| format!("{}:8080", BACKENDS[*index]))
            .collect()
    }

    fn local_targets(&self) -> Vec<String> {
        let local = self.endpoints.iter().filter(|index| **index < 2);
        local
            .map(|index| format!("{}:8080", BACKENDS[*index]))
            .collect()
    }

    fn title(&self) -> String {
        format!("shop/{}:http", self.name)
    }

    pub(super) fn to_vip(&self) -> SocketAddr {
        SocketAddr::new(self.vip.parse().expect("it is an address"), 80)
    }
}

/// One Service of each kind, by both protocols where that makes a difference.
pub(super) fn specs() -> Vec<Spec> {
    let web = Spec {
        name: "web",
        vip: "10.96.0.10",
        protocol: "tcp",
        endpoints: vec![0, 1, 2],
        ..Spec::default()
    };
    vec![
        web.clone(),
        Spec {
            name: "one",
            vip: "10.96.0.11",
            endpoints: vec![1],
            ..web.clone()
        },
        Spec {
            name: "none",
            vip: "10.96.0.12",
            endpoints: vec![],
            ..web.clone()
        },
        Spec {
            name: "sticky",
            vip: "10.96.0.13",
            affinity: true,
            ..web.clone()
        },
        Spec {
            name: "udp",
            vip: "10.96.0.14",
            protocol: "udp",
            ..web.clone()
        },
        Spec {
            name: "udp-none",
            vip: "10.96.0.15",
            protocol: "udp",
            endpoints: vec![],
            ..web.clone()
        },
        Spec {
            name: "node",
            vip: "10.96.0.16",
            node_port: Some(30016),
            ..web.clone()
        },
        Spec {
            name: "out",
            vip: "10.96.0.17",
            external: Some("198.51.100.17"),
            endpoints: vec![0, 2],
            ..web.clone()
        },
        Spec {
            name: "near",
            vip: "10.96.0.18",
            external: Some("198.51.100.18"),
            node_port: Some(30018),
            local: true,
            ..web.clone()
        },
        Spec {
            name: "far",
            vip: "10.96.0.19",
            external: Some("198.51.100.19"),
            node_port: Some(30019),
            endpoints: vec![2],
            local: true,
            ..web
        },
    ]
}

/// The namespaces; removed on drop.
pub(super) struct Network {
    _topology: Topology,
    pub(super) node: String,
    pub(super) outside: String,
    pub(super) client: String,
    pub(super) backends: Vec<String>,
}

impl Network {
    pub(super) fn new(test: &str) -> Self {
        let mut topology = Topology::new(test);
        let node = topology.netns("node");
        let outside = topology.netns("out");
        let client = topology.netns("client");
        // A redirect, sent where a packet leaves by the device it came by, keeps the next ICMP
        // error back (inet_peer_xrlim_allow).
        for sysctl in [
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.all.send_redirects=0",
            "net.ipv4.conf.default.send_redirects=0",
            // Of many refusals in a row each is told to the client.
            "net.ipv4.icmp_ratelimit=0",
        ] {
            assert!(run_in(&node, &["sysctl", "-qw", sysctl]).status.success());
        }
        veth(
            &End {
                netns: &outside,
                device: "eth0",
                addresses: &["192.0.2.100/24"],
            },
            &End {
                netns: &node,
                device: "eth0",
                addresses: &["192.0.2.1/24"],
            },
        );
        ip(&["-n", &node, "route", "add", "default", "via", OUTSIDE]);
        ip(&["-n", &outside, "route", "add", "default", "via", NODE]);
        pod(&node, &client, "c", CLIENT);
        let backends = (0..).zip(BACKENDS).map(|(index, address): (usize, _)| {
            let netns = topology.netns(&format!("b{index}"));
            pod(&node, &netns, &format!("b{index}"), address);
            netns
        });
        let backends = backends.collect();
        Self {
            node,
            outside,
            client,
            backends,
            _topology: topology,
        }
    }

    /// Loads the rules of `specs`.
    pub(super) fn load(&self, mode: Mode, specs: &[Spec]) {
        match mode {
            Mode::Iptables => feed(&self.node, &["iptables-restore"], &iptables::rules(specs)),
            Mode::Legacy => feed(
                &self.node,
                &["iptables-legacy-restore"],
                &iptables::rules(specs),
            ),
            Mode::Nftables => feed(&self.node, &["nft", "-f", "-"], &nftables::rules(specs)),
        }
    }
}

fn pod(node: &str, netns: &str, device: &str, address: &str) {
    let with_length = format!("{address}/32");
    veth(
        &End {
            netns,
            device: "eth0",
            addresses: &[&with_length],
        },
        &End {
            netns: node,
            device,
            addresses: &[],
        },
    );
    ip(&["-n", netns, "route", "add", NODE, "dev", "eth0"]);
    ip(&["-n", netns, "route", "add", "default", "via", NODE]);
    ip(&[
        "-n",
        node,
        "route",
        "add",
        &with_length,
        "dev",
        device,
        "src",
        NODE,
    ]);
}

/// Gives `text` to a program in `netns`, which must take it.
pub(super) fn feed(netns: &str, words: &[&str], text: &str) {
    assert!(takes(netns, words, text), "{text}");
}

/// Whether a program in `netns` takes `text`.
pub(super) fn takes(netns: &str, words: &[&str], text: &str) -> bool {
    let mut child = Command::new("ip")
        .args(["netns", "exec", netns])
        .args(words)
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip is installed");
    let stdin = child.stdin.take().expect("stdin is a pipe");
    std::io::Write::write_all(&mut { stdin }, text.as_bytes()).expect("rules are read");
    child.wait().is_ok_and(|status| status.success())
}

/// Runs `job` in a thread inside `netns`.
pub(super) fn within<T: Send>(netns: &str, job: impl FnOnce() -> T + Send) -> T {
    probe::within(&Path::new("/run/netns").join(netns), job)
}

/// Where each Service can be reached, by name.
pub(super) fn fronts(spec: &Spec) -> Vec<SocketAddr> {
    let mut fronts = vec![spec.to_vip()];
    let address = |text: &str| -> IpAddr { text.parse().expect("it is an address") };
    fronts.extend(
        spec.external
            .map(|external| SocketAddr::new(address(external), 80)),
    );
    fronts.extend(
        spec.node_port
            .map(|port| SocketAddr::new(address(NODE), port)),
    );
    fronts
}
