//! Packets within packets: overlays between nodes, made by the kernel's devices where every kernel has them, and
//! by hand, byte for byte as the RFCs say, where it has not.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::client::{A, inside, query};
use crate::support::trace::Tracer;
use crate::support::{End, LyingDns, Topology, dig, ip, raw, text_of, veth, wire_to_nowhere};

/// The other node's address, and that of the server behind it.
const NODE2: &str = "192.0.2.2";
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);

fn run(command: &str) {
    ip(&command.split(' ').collect::<Vec<_>>());
}

/// A client's pod, at 10.244.0.2, and its node, whose overlay leads to the other node.
struct Node {
    _topology: Topology,
    pod: String,
    /// The other node and its pod, where there are any.
    other: Option<[String; 2]>,
}

impl Node {
    /// With an overlay device of `kind`, words for `ip link add type` with `LOCAL` and `REMOTE` in them.
    /// `alone`, its packets leave by a device that is connected to nothing.
    fn new(test: &str, kind: &str, alone: bool) -> Self {
        let mut topology = Topology::new(test);
        let [pod, node] = ["pod1", "node1"].map(|name| topology.netns(name));
        if alone {
            wire_to_nowhere(&node, "eth0");
            run(&format!("-n {node} address add 192.0.2.1/24 dev eth0"));
            let neighbour = format!("{NODE2} lladdr 02:00:00:00:00:02 dev eth0");
            run(&format!("-n {node} neighbour add {neighbour}"));
            overlay(&pod, &node, 1, kind);
            let other = None;
            return Self {
                _topology: topology,
                pod,
                other,
            };
        }
        let [pod2, node2] = ["pod2", "node2"].map(|name| topology.netns(name));
        let [a, b] = [(&node, "192.0.2.1/24"), (&node2, "192.0.2.2/24")]
            .map(|(netns, address)| (netns.as_str(), [address]));
        let [a, b] = [&a, &b].map(|(netns, addresses)| End {
            netns,
            device: "eth0",
            addresses,
        });
        veth(&a, &b);
        overlay(&pod, &node, 1, kind);
        overlay(&pod2, &node2, 2, kind);
        let other = Some([node2, pod2]);
        Self {
            _topology: topology,
            pod,
            other,
        }
    }
}

/// Connects `pod` to `node`, the `number`th of two, and that to the other by an overlay device.
fn overlay(pod: &str, node: &str, number: usize, kind: &str) {
    let (here, remote) = (number - 1, 3 - number);
    let there = 1 - here;
    let addresses = [format!("10.244.{here}.2/24"), format!("10.244.{here}.1/24")];
    let [inner, outer] = [(pod, "eth0", 0), (node, "pod", 1)];
    let [inner, outer] =
        [inner, outer].map(|(netns, device, at)| (netns, device, [addresses[at].as_str()]));
    let [inner, outer] = [&inner, &outer].map(|(netns, device, addresses)| End {
        netns,
        device,
        addresses,
    });
    veth(&inner, &outer);
    run(&format!("-n {pod} route add default via 10.244.{here}.1"));
    let kind = kind.replace("LOCAL", &format!("192.0.2.{number}"));
    let kind = kind.replace("REMOTE", &format!("192.0.2.{remote}"));
    run(&format!("-n {node} link add overlay type {kind}"));
    run(&format!(
        "-n {node} address add 10.255.0.{number}/30 dev overlay"
    ));
    run(&format!("-n {node} link set overlay up"));
    if kind.starts_with("vxlan") {
        run(&format!(
            "-n {node} link set overlay address 02:00:00:00:01:0{number}"
        ));
        let to = format!("10.255.0.{remote} lladdr 02:00:00:00:01:0{remote} dev overlay");
        run(&format!("-n {node} neighbour replace {to}"));
    }
    run(&format!(
        "-n {node} route add 10.244.{there}.0/24 via 10.255.0.{remote}"
    ));
    text_of(node, &["sysctl", "-q", "net.ipv4.ip_forward=1"]);
}

const VXLAN: &str = "vxlan id 1 dstport 8472 local LOCAL remote REMOTE";

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn a_query_through_vxlan_is_one_row() {
    let node = Node::new("vxlan", VXLAN, false);
    let [_, pod2] = node.other.as_ref().expect("there are two");
    let _server = LyingDns::honest(pod2, &format!("{SERVER}:5451"));
    let mut tracer = Tracer::start(&format!("--dns --dns-port 5451 --netns {}", node.pod));
    dig(&node.pod, &format!("-p 5451 @{SERVER} host1.lab.test"));
    tracer.wait_for(1);
    let traced = tracer.stop();
    assert_eq!(
        traced.briefs(),
        [format!(
            "udp {SERVER}:5451 host1.lab.test A answered NOERROR 1"
        )]
    );
    traced.assert_whole();
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn a_query_and_a_syn_that_leave_by_vxlan_are_last_seen_on_their_way_to_the_node() {
    let node = Node::new("gone", VXLAN, true);
    let mut tracer = Tracer::start(&format!(
        "--dns-port 5452 --netns {} --vip {SERVER}/32",
        node.pod
    ));
    let server = SocketAddr::from((SERVER, 80));
    inside(&node.pod, "browser", move || {
        let limit = std::time::Duration::from_millis(300);
        drop(std::net::TcpStream::connect_timeout(&server, limit));
    });
    dig(&node.pod, &format!("-p 5452 @{SERVER} host1.lab.test"));
    tracer.wait_for(2);
    let why = "(no answer within 1 s: it left by vxlan for 192.0.2.2 and nothing came back)";
    let mut briefs = tracer.stop().briefs();
    briefs.sort();
    assert_eq!(
        briefs,
        [
            format!("tcp {SERVER}:80 unanswered {why}"),
            format!("udp {SERVER}:5452 host1.lab.test A unanswered {why}"),
        ]
    );
}

/// An Ethernet frame with `packet`, tagged once as an 802.1Q VLAN where `tagged`.
fn framed(packet: &[u8], tagged: bool) -> Vec<u8> {
    let tag: &[u8] = if tagged { &[0x81, 0, 0, 42] } else { &[] };
    [&[2; 12], tag, &[8, 0], packet].concat()
}

/// What carries `packet`, in the form that a word of the tests' own tells: the protocol and, for
/// UDP, the port; and the bytes after that header.
fn carried(kind: &str, packet: &[u8]) -> (i32, u16, Vec<u8>) {
    const UDP: i32 = 17;
    let (frame, tagged) = (framed(packet, false), framed(packet, true));
    match kind {
        // RFC 7348 section 5.
        "vxlan" => (
            UDP,
            4789,
            [&[8, 0, 0, 0, 0, 0, 7, 0], frame.as_slice()].concat(),
        ),
        "vxlan, tagged" => (
            UDP,
            8472,
            [&[8, 0, 0, 0, 0, 0, 7, 0], tagged.as_slice()].concat(),
        ),
        // RFC 8926 section 3.4, with eight bytes of options.
        "geneve" => {
            let header = [2, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 1, 0, 0, 0, 0];
            (UDP, 6081, [&header, frame.as_slice()].concat())
        }
        // RFC 2784 section 2.1; RFC 2890 section 2, with checksum, key and sequence number.
        "gre" => (47, 0, [&[0, 0, 8, 0], packet].concat()),
        "gre, all fields" => {
            let header = [0xb0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1];
            (47, 0, [&header, packet].concat())
        }
        "gre, ethernet" => (47, 0, [&[0, 0, 0x65, 0x58], frame.as_slice()].concat()),
        // RFC 2003.
        "ipip" => (4, 0, packet.to_vec()),
        // Sending peer; source peer, destination peer, length, frame.
        "sleeve" => {
            let length = u16::try_from(frame.len())
                .expect("it is short")
                .to_be_bytes();
            (UDP, 6783, [&[1; 18], length.as_slice(), &frame].concat())
        }
        _ => panic!("{kind} is no kind"),
    }
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn whatever_carries_a_query_it_is_found_inside() {
    const KINDS: [&str; 8] = [
        "vxlan",
        "vxlan, tagged",
        "geneve",
        "gre",
        "gre, all fields",
        "gre, ethernet",
        "ipip",
        "sleeve",
    ];
    let mut topology = Topology::new("kinds");
    let node = topology.netns("node");
    wire_to_nowhere(&node, "eth0");
    run(&format!("-n {node} address add 192.0.2.1/24 dev eth0"));
    run(&format!(
        "-n {node} neighbour add {NODE2} lladdr 02:00:00:00:00:02 dev eth0"
    ));
    let mut tracer = Tracer::start("--dns --dns-port 5453");
    inside(&node, "router", || {
        for (number, kind) in (1..).zip(KINDS) {
            let name = kind.replace(", ", ".").replace(' ', "-");
            let client = (Ipv4Addr::new(10, 244, 0, number), 40000);
            let inner = raw::v4_with_options(client, (SERVER, 5453), &query(1, &name, A));
            let (protocol, port, bytes) = carried(kind, &inner);
            let node2: SocketAddr = format!("{NODE2}:{port}").parse().expect("it is an address");
            if port == 0 {
                let protocol = Some(Protocol::from(protocol));
                let socket = Socket::new(Domain::IPV4, Type::RAW, protocol).expect("we are root");
                socket
                    .send_to(&bytes, &node2.into())
                    .expect("there is a route");
            } else {
                let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
                socket.send_to(&bytes, node2).expect("there is a route");
            }
        }
    });
    tracer.wait_for(KINDS.len());
    let traced = tracer.stop();
    let told = |row: &Value| {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        format!(
            "{} {} {}",
            row["client"]["ip"].as_str().unwrap_or_default(),
            text("name"),
            text("cause")
        )
    };
    let found: Vec<String> = traced.rows().iter().map(told).collect();
    let expected: Vec<String> = (1..)
        .zip(KINDS)
        .map(|(number, kind): (u8, _)| {
            let name = kind.replace(", ", ".").replace(' ', "-");
            let by = kind.split(',').next().unwrap_or_default();
            format!(
                "10.244.0.{number} {name} no answer within 1 s: \
                 it left by {by} for {NODE2} and nothing came back"
            )
        })
        .collect();
    assert_eq!(found, expected);
    // Nobody's process sent these: the router's is not the client's.
    assert!(
        traced
            .rows()
            .iter()
            .all(|row| row["client"]["process"].is_null())
    );
}
