//! Failures of the DNS and Service path that a cluster's own components bring about, made in namespaces with the
//! rules and devices that they make: each is named, and nothing beside it.

mod hops;
mod throttled;
mod told;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread::{sleep, spawn};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::support::api::Api;
use crate::support::client::{A, inside, query, receive, udp};
use crate::support::routed::{Routed, SERVER, SERVER2, VIP};
use crate::support::trace::{Traced, Tracer};
use crate::support::{
    End, LyingDns, Topology, dig, iptables_restore, program, run_in, veth, wire_to_nowhere,
};

/// Rows of docs/failures.md that are made here: what is made, and what names it.
const ROWS: &[(&str, &str)] = &[
    (
        "answers take another way, and KUBE-FORWARD drops what conntrack calls INVALID",
        "invalid_drop",
    ),
    (
        "checksums are left to a device that does not make them, within VXLAN",
        "bad_checksum",
    ),
    (
        "the same, where KUBE-FORWARD drops what conntrack calls INVALID",
        "bad_checksum",
    ),
    (
        "a NetworkPolicy of Calico's allows the client nothing: chains cali-tw-",
        "network_policy",
    ),
    (
        "a NetworkPolicy of Calico's lets the client ask nobody: chains cali-fw-",
        "network_policy",
    ),
    (
        "a NetworkPolicy of Weave Net's allows the client nothing: its last rule",
        "network_policy",
    ),
    (
        "a NetworkPolicy of kube-router's allows the client nothing: it rejects",
        "network_policy",
    ),
    ("a server's process is stopped by a signal", "server_paused"),
    (
        "a UDP flow begins before its Service's rules are written, and goes on",
        "untranslated_entry",
    ),
    (
        "a server closes connections without reading",
        "reset_midway",
    ),
    ("a server takes more than a second to answer", "server_slow"),
    ("answers are routed elsewhere", "answer_lost"),
    ("the network between nodes loses VXLAN", "tunnel_silent"),
    (
        "a client asks two servers at once, as musl does, and they disagree",
        "servers_disagree",
    ),
];

#[test]
fn the_documented_table_has_what_is_made_here() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/failures.md");
    let page = std::fs::read_to_string(path).expect("it is committed");
    for (what, found) in rows() {
        let place = if *what == hops::IN_GUESTS {
            "vm"
        } else {
            "lab"
        };
        let row = format!("| {what} | {place} | trace: `{found}` |");
        assert!(page.contains(&row), "put this into docs/failures.md: {row}");
    }
}

fn rows() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    let others = [hops::ROWS, throttled::ROWS, told::ROWS];
    ROWS.iter().chain(others.into_iter().flatten())
}

/// Just `expected` was found, whose name is that of the documented row.
#[track_caller]
fn assert_named(what: &str, traced: &Traced, expected: &str) {
    let (_, name) = rows().find(|(of, _)| *of == what).expect("it is a row");
    assert!(expected.starts_with(&format!("{name}: ")), "{expected}");
    let found = traced.found();
    assert_eq!(found, [expected], "{what}: {:#?}", traced.briefs());
}

fn run(netns: &str, words: &str) {
    let done = run_in(netns, &words.split(' ').collect::<Vec<_>>());
    assert!(done.status.success(), "{words}: {done:?}");
}

fn socket_of(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("it is an address"), port)
}

/// Sends one query each from `times` sockets.
fn ask(netns: &str, server: &str, times: u16) {
    let server = socket_of(server, 53);
    inside(netns, "client", move || {
        for id in 0..times {
            let socket = udp(server);
            let patience = Some(Duration::from_millis(100));
            socket.set_read_timeout(patience).expect("it is not zero");
            drop(socket.send(&query(id, "host1.lab.test", A)));
            drop(socket.recv(&mut [0; 512]));
        }
    });
}

/// A tracer in a namespace, as on the node that it is.
fn tracer_in(netns: &str, words: &str) -> Tracer {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{netns}"));
    command.arg(program());
    Tracer::start_by(command, words)
}

/// What kube-proxy writes into the filter table of a node (pkg/proxy/iptables/proxier.go, 1.37).
const KUBE_FORWARD: &str = "*filter
:KUBE-FORWARD - [0:0]
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

/// Serves one page, again and again, until the test ends.
fn serve_web(netns: &str) {
    let listener = inside(netns, "web", || {
        TcpListener::bind((SERVER, 8080)).expect("the port is free")
    });
    spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Who asked may be out of reach, which is what the test is about.
            drop(stream.set_read_timeout(Some(Duration::from_secs(3))));
            drop(stream.read(&mut [0; 512]));
            drop(stream.write_all(b"HTTP/1.0 200 OK\r\n\r\npage\n"));
        }
    });
}

/// Connects, asks, and waits for the page; whether it came.
fn browse(netns: &str) -> bool {
    let server = socket_of(SERVER, 8080);
    inside(netns, "browser", move || {
        let Ok(mut stream) = TcpStream::connect_timeout(&server, Duration::from_secs(2)) else {
            return false;
        };
        let patience = Some(Duration::from_secs(3));
        stream.set_read_timeout(patience).expect("it is not zero");
        stream
            .write_all(b"GET / HTTP/1.0\r\n\r\n")
            .expect("the handshake is over");
        let mut page = String::new();
        stream
            .read_to_string(&mut page)
            .is_ok_and(|length| length > 0)
    })
}

/// Beside the way by the node there is one without it, which the server's answers take.
fn direct_way_back(routed: &Routed) {
    connect(
        (&routed.client, "eth1", &["203.0.113.1/30"]),
        (&routed.server, "eth1", &["203.0.113.2/30"]),
    );
    for device in ["all", "eth1"] {
        let off = format!("sysctl -qw net.ipv4.conf.{device}.rp_filter=0");
        run(&routed.client, &off);
    }
    run(
        &routed.server,
        "ip route add 192.0.2.0/24 via 203.0.113.1 dev eth1",
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn what_a_node_drops_for_it_sees_one_direction_only_is_told_from_other_drops() {
    let routed = Routed::new("asymm");
    serve_web(&routed.server);
    direct_way_back(&routed);
    let words = format!(
        "--connections --path --vip 198.51.100.0/24 --netns {}",
        routed.client
    );
    // A node that forwards whatever comes takes no harm from it.
    let tracer = Tracer::start(&words);
    assert!(browse(&routed.client));
    assert_eq!(tracer.stop().found(), [""; 0]);

    iptables_restore(&routed.node, KUBE_FORWARD);
    let tracer = tracer_in(&routed.node, &words);
    assert!(!browse(&routed.client));
    assert_named(
        "answers take another way, and KUBE-FORWARD drops what conntrack calls INVALID",
        &tracer.stop(),
        &format!("invalid_drop: connections to {SERVER}:8080"),
    );
}

/// Joins two devices, each as (namespace, device, addresses).
fn connect(a: (&str, &str, &[&str]), b: (&str, &str, &[&str])) {
    let [a, b] = [a, b].map(|(netns, device, addresses)| End {
        netns,
        device,
        addresses,
    });
    veth(&a, &b);
}

/// Two nodes with a pod each, Flannel's VXLAN between them, and what carries it: a bridge of a third namespace, which
/// has an address itself, too.
struct Overlay {
    _topology: Topology,
    wire: String,
    nodes: [String; 2],
    pods: [String; 2],
}

const WIRE: &str = "192.0.2.9";

impl Overlay {
    fn new(test: &str) -> Self {
        let mut topology = Topology::new(test);
        let [wire, node1, node2, pod1, pod2] =
            ["wire", "node1", "node2", "pod1", "pod2"].map(|name| topology.netns(name));
        run(&wire, "ip link add br0 type bridge");
        run(&wire, &format!("ip address add {WIRE}/24 dev br0"));
        run(&wire, "ip link set br0 up");
        for (number, node, pod) in [(1, &node1, &pod1), (2, &node2, &pod2)] {
            let (own, port) = (format!("192.0.2.{number}/24"), format!("port{number}"));
            connect((node, "eth0", &[&own]), (&wire, &port, &[]));
            run(&wire, &format!("ip link set {port} master br0"));
            let [inner, outer] = [2, 1].map(|last| format!("10.244.{number}.{last}/24"));
            connect((pod, "eth0", &[&inner]), (node, "pod", &[&outer]));
            run(pod, &format!("ip route add default via 10.244.{number}.1"));
            let there = 3 - number;
            let mac = format!("02:00:00:00:01:0{there}");
            for words in [
                "sysctl -qw net.ipv4.ip_forward=1".to_owned(),
                format!(
                    "ip link add flannel.1 address 02:00:00:00:01:0{number} mtu 1450 type vxlan id 1 dstport 8472 nolearning local 192.0.2.{number}"
                ),
                format!("ip address add 10.244.{number}.0/32 dev flannel.1"),
                "ip link set flannel.1 up".to_owned(),
                format!(
                    "ip route add 10.244.{there}.0/24 via 10.244.{there}.0 dev flannel.1 onlink"
                ),
                format!("ip neighbour add 10.244.{there}.0 lladdr {mac} dev flannel.1"),
                format!("bridge fdb add {mac} dev flannel.1 dst 192.0.2.{there}"),
            ] {
                run(node, &words);
            }
        }
        Self {
            _topology: topology,
            wire,
            nodes: [node1, node2],
            pods: [pod1, pod2],
        }
    }

    /// What the first node sends to the second goes through a socket, which copies it as it lies in memory: a
    /// checksum that the sender leaves to its device is never made.
    fn carry_by_copy(&self) {
        let socket = inside(&self.wire, "wire", || {
            UdpSocket::bind((WIRE, 8472)).expect("the port is free")
        });
        spawn(move || {
            let mut frame = [0; 2048];
            while let Ok((length, _)) = socket.recv_from(&mut frame) {
                drop(socket.send_to(&frame[..length], "192.0.2.2:8472"));
            }
        });
        let to = format!("bridge fdb replace 02:00:00:00:01:02 dev flannel.1 dst {WIRE}");
        run(&self.nodes[0], &to);
    }
}

/// What is found where the pod of one node asks that of the other twice.
fn across(overlay: &Overlay) -> Traced {
    let [pod1, pod2] = &overlay.pods;
    let _server = LyingDns::honest(pod2, "10.244.2.2:53");
    let mut tracer = tracer_in(&overlay.nodes[1], &format!("--dns --path --netns {pod1}"));
    ask(pod1, "10.244.2.2", 2);
    tracer.wait_for(2);
    tracer.stop()
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn checksums_that_nobody_makes_are_named_where_they_are_found_wrong() {
    let overlay = Overlay::new("csum");
    assert_eq!(across(&overlay).found(), [""; 0]);
    overlay.carry_by_copy();
    assert_named(
        "checksums are left to a device that does not make them, within VXLAN",
        &across(&overlay),
        "bad_checksum: way to this node",
    );
    iptables_restore(&overlay.nodes[1], KUBE_FORWARD);
    assert_named(
        "the same, where KUBE-FORWARD drops what conntrack calls INVALID",
        &across(&overlay),
        "bad_checksum: way to this node",
    );
}

/// Has Calico's names for the node's devices; the first eleven digits are of a hash of the pod's name.
const CLIENT_CALI: &str = "cali0a1b2c3d4e5";
const SERVER_CALI: &str = "cali5e4d3c2b1a0";

/// What Felix 3.32 writes for two pods, of which policies select one, and allow it nothing (the comments' hashes
/// stand for those of the rules).
fn calico(selected: &str, ingress: bool) -> String {
    let mut rules = "*filter
:cali-FORWARD - [0:0]
:cali-from-wl-dispatch - [0:0]
:cali-to-wl-dispatch - [0:0]
:cali-pi-_qA9lGysOzwIsyVf0V23 - [0:0]
:cali-po-_qA9lGysOzwIsyVf0V23 - [0:0]
:cali-pri-kns.shop - [0:0]
:cali-pro-kns.shop - [0:0]
"
    .to_owned();
    let (own, pi) = if ingress { ("tw", "pi") } else { ("fw", "po") };
    for device in [CLIENT_CALI, SERVER_CALI] {
        for way in ["tw", "fw"] {
            // Formatting into a String cannot fail.
            let _ = writeln!(rules, ":cali-{way}-{device} - [0:0]");
        }
    }
    rules += "-A FORWARD -m comment --comment \"cali:wUHhoiAYhphO9Mso\" -j cali-FORWARD
-A cali-FORWARD -m comment --comment \"cali:vjrMJCRpqwy5oRoX\" -j MARK --set-xmark 0x0/0xe0000
-A cali-FORWARD -i cali+ -m comment --comment \"cali:8ZoYfO5HKXWbB3pk\" -j cali-from-wl-dispatch
-A cali-FORWARD -o cali+ -m comment --comment \"cali:jdEuaPBe14V2hutn\" -j cali-to-wl-dispatch
-A cali-from-wl-dispatch -m comment --comment \"cali:zTj6P0TIgYvgz-md\" -m comment --comment \"Unknown interface\" -j DROP
-A cali-to-wl-dispatch -m comment --comment \"cali:7KNphB1nNHw80nIO\" -m comment --comment \"Unknown interface\" -j DROP
-A cali-pri-kns.shop -m comment --comment \"cali:v1Nne7OsjVTnMSjG\" -m comment --comment \"Profile kns.shop ingress\" -j MARK --set-xmark 0x10000/0x10000
-A cali-pri-kns.shop -m comment --comment \"cali:x1\" -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-pro-kns.shop -m comment --comment \"cali:GO9jWrNPmkvc4JUd\" -m comment --comment \"Profile kns.shop egress\" -j MARK --set-xmark 0x10000/0x10000
-A cali-pro-kns.shop -m comment --comment \"cali:x2\" -m mark --mark 0x10000/0x10000 -j RETURN
";
    for device in [CLIENT_CALI, SERVER_CALI] {
        for (way, dispatch, flag, profile) in [
            ("tw", "to", "-o", "cali-pri-kns.shop"),
            ("fw", "from", "-i", "cali-pro-kns.shop"),
        ] {
            let chain = format!("cali-{way}-{device}");
            let dispatch = format!("cali-{dispatch}-wl-dispatch");
            let _ = writeln!(
                rules,
                "-I {dispatch} {flag} {device} -m comment --comment \"cali:d\" -g {chain}"
            );
            let _ = writeln!(
                rules,
                "-A {chain} -m comment --comment \"cali:a\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
            );
            let _ = writeln!(
                rules,
                "-A {chain} -m comment --comment \"cali:b\" -m conntrack --ctstate INVALID -j DROP"
            );
            let _ = writeln!(
                rules,
                "-A {chain} -m comment --comment \"cali:c\" -j MARK --set-xmark 0x0/0x30000"
            );
            if device == selected && way == own {
                let tier = "-m comment --comment \"cali:e\" -m comment --comment";
                let _ = writeln!(
                    rules,
                    "-A {chain} {tier} \"Start of tier default\" -j MARK --set-xmark 0x0/0x20000"
                );
                let _ = writeln!(
                    rules,
                    "-A {chain} -m comment --comment \"cali:f\" -m mark --mark 0x0/0x20000 -j cali-{pi}-_qA9lGysOzwIsyVf0V23"
                );
                let _ = writeln!(
                    rules,
                    "-A {chain} {tier} \"Return if policy accepted\" -m mark --mark 0x10000/0x10000 -j RETURN"
                );
                let _ = writeln!(
                    rules,
                    "-A {chain} {tier} \"End of tier default. Drop if no policies passed packet\" -m mark --mark 0x0/0x20000 -j DROP"
                );
            }
            let _ = writeln!(
                rules,
                "-A {chain} -m comment --comment \"cali:g\" -j {profile}"
            );
            let _ = writeln!(
                rules,
                "-A {chain} -m comment --comment \"cali:h\" -m comment --comment \"Return if profile accepted\" -m mark --mark 0x10000/0x10000 -j RETURN"
            );
            let _ = writeln!(
                rules,
                "-A {chain} -m comment --comment \"cali:i\" -m comment --comment \"Drop if no profiles matched\" -j DROP"
            );
        }
    }
    rules + "COMMIT\n"
}

/// What weave-npc 2.9 writes where no ingress policy allows anybody.
const WEAVE: &str = "*filter
:WEAVE-NPC - [0:0]
:WEAVE-NPC-DEFAULT - [0:0]
:WEAVE-NPC-EGRESS - [0:0]
:WEAVE-NPC-INGRESS - [0:0]
-A FORWARD -i weave -m comment --comment \"NOTE: this must go before '-j KUBE-FORWARD'\" -j WEAVE-NPC-EGRESS
-A FORWARD -o weave -m comment --comment \"NOTE: this must go before '-j KUBE-FORWARD'\" -j WEAVE-NPC
-A FORWARD -o weave -j DROP
-A WEAVE-NPC -m state --state RELATED,ESTABLISHED -j ACCEPT
-A WEAVE-NPC -d 224.0.0.0/4 -j ACCEPT
-A WEAVE-NPC -m state --state NEW -j WEAVE-NPC-DEFAULT
-A WEAVE-NPC -m state --state NEW -j WEAVE-NPC-INGRESS
-A WEAVE-NPC-EGRESS -m state --state RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

/// What kube-router 2 writes for a pod that a policy selects, and allows nobody.
const KUBE_ROUTER: &str = "*filter
:KUBE-ROUTER-FORWARD - [0:0]
:KUBE-POD-FW-24CAQJ4LYSAY3PHB - [0:0]
:KUBE-NWPLCY-5VLCZNPWIAXAL2HB - [0:0]
-A FORWARD -m comment --comment \"kube-router netpol - 4IA2OSFRMVNDXBVV\" -j KUBE-ROUTER-FORWARD
-A KUBE-ROUTER-FORWARD -d 198.51.100.2/32 -m comment --comment \"rule to jump traffic destined to POD name:web-0 namespace: shop to chain KUBE-POD-FW-24CAQJ4LYSAY3PHB\" -j KUBE-POD-FW-24CAQJ4LYSAY3PHB
-A KUBE-POD-FW-24CAQJ4LYSAY3PHB -m comment --comment \"rule for stateful firewall for pod\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-POD-FW-24CAQJ4LYSAY3PHB -m comment --comment \"rule to drop invalid state for pod\" -m conntrack --ctstate INVALID -j DROP
-A KUBE-POD-FW-24CAQJ4LYSAY3PHB -d 198.51.100.2/32 -m comment --comment \"rule to permit the traffic traffic to pods when source is the pod's local node\" -m addrtype --src-type LOCAL -j ACCEPT
-A KUBE-POD-FW-24CAQJ4LYSAY3PHB -d 198.51.100.2/32 -m comment --comment \"run through nw policy deny\" -j KUBE-NWPLCY-5VLCZNPWIAXAL2HB
-A KUBE-POD-FW-24CAQJ4LYSAY3PHB -m comment --comment \"rule to REJECT traffic destined for POD name:web-0 namespace: shop\" -m mark ! --mark 0x10000/0x10000 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-POD-FW-24CAQJ4LYSAY3PHB -j MARK --set-xmark 0x0/0x10000
-A KUBE-POD-FW-24CAQJ4LYSAY3PHB -m comment --comment \"set mark to ACCEPT traffic that comply to network policies\" -j MARK --set-xmark 0x20000/0x20000
COMMIT
";

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn what_a_network_policy_turns_away_names_the_pod_that_it_guards() {
    let check = |what, names: [&str; 2], allows: &str, forbids: &str, expected: &str| {
        let routed = Routed::new("policy");
        routed.answer(0);
        for (device, name) in ["c", "s"].into_iter().zip(names) {
            if name != device {
                for words in ["down", &format!("name {name}"), "up"] {
                    let device = if words == "up" { name } else { device };
                    run(&routed.node, &format!("ip link set {device} {words}"));
                }
            }
        }
        let words = format!("--dns --path --netns {}", routed.client);
        // What is allowed passes, and nothing is found.
        iptables_restore(&routed.node, allows);
        let mut tracer = tracer_in(&routed.node, &words);
        ask(&routed.client, SERVER, 2);
        tracer.wait_for(2);
        assert_eq!(tracer.stop().found(), [""; 0], "{what}");
        iptables_restore(&routed.node, forbids);
        let mut tracer = tracer_in(&routed.node, &words);
        ask(&routed.client, SERVER, 2);
        tracer.wait_for(2);
        assert_named(what, &tracer.stop(), expected);
    };
    let to_server = format!("network_policy: traffic to {SERVER}:53");
    let cali = [CLIENT_CALI, SERVER_CALI];
    check(
        "a NetworkPolicy of Calico's allows the client nothing: chains cali-tw-",
        cali,
        &calico("nobody", true),
        &calico(SERVER_CALI, true),
        &to_server,
    );
    check(
        "a NetworkPolicy of Calico's lets the client ask nobody: chains cali-fw-",
        cali,
        &calico("nobody", false),
        &calico(CLIENT_CALI, false),
        "network_policy: traffic of pod 192.0.2.2",
    );
    let allow = |chain: &str, rules: &str| {
        let last = rules.len() - "COMMIT\n".len();
        format!("{}{chain}\nCOMMIT\n", &rules[..last])
    };
    check(
        "a NetworkPolicy of Weave Net's allows the client nothing: its last rule",
        ["c", "weave"],
        &allow("-A WEAVE-NPC-INGRESS -s 192.0.2.2/32 -j ACCEPT", WEAVE),
        WEAVE,
        &to_server,
    );
    check(
        "a NetworkPolicy of kube-router's allows the client nothing: it rejects",
        ["c", "s"],
        &allow(
            "-A KUBE-NWPLCY-5VLCZNPWIAXAL2HB -s 192.0.2.2/32 -j MARK --set-xmark 0x10000/0x10000",
            KUBE_ROUTER,
        ),
        KUBE_ROUTER,
        &to_server,
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_server_that_is_stopped_is_named_as_such() {
    let routed = Routed::new("stopped");
    let server = LyingDns::honest(&routed.server, &format!("{SERVER}:53"));
    let words = format!("--dns --path --netns {}", routed.client);
    let mut tracer = Tracer::start(&words);
    server.signal(Signal::STOP);
    ask(&routed.client, SERVER, 2);
    tracer.wait_for(2);
    let traced = tracer.stop();
    server.signal(Signal::CONT);
    assert_named(
        "a server's process is stopped by a signal",
        &traced,
        &format!("server_paused: server {SERVER}:53"),
    );
    let evidence = traced.findings[0]["evidence"].to_string();
    assert!(evidence.contains("] is stopped by a signal"), "{evidence}");
    sleep(Duration::from_millis(100));
    // It goes on, and answers.
    let tracer = Tracer::start(&words);
    let answer = dig(&routed.client, &format!("@{SERVER} host1.lab.test"));
    assert!(answer.contains("NOERROR"), "{answer}");
    assert_eq!(tracer.stop().found(), [""; 0]);
}

/// What the API server says of the Service kube-dns and its endpoint.
fn kube_dns() -> Api {
    let name = |name: &str| {
        json!({"namespace": "kube-system", "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
               "labels": {"kubernetes.io/service-name": "kube-dns"}})
    };
    let service = json!({
        "metadata": name("kube-dns"),
        "spec": {"clusterIP": VIP, "clusterIPs": [VIP], "ports": [{"name": "dns", "protocol": "UDP", "port": 53}]},
    });
    let slice = json!({
        "metadata": name("kube-dns-1"), "addressType": "IPv4",
        "ports": [{"name": "dns", "protocol": "UDP", "port": 53}],
        "endpoints": [{"addresses": [SERVER], "conditions": {"ready": true}}],
    });
    Api::with(&[("services", service), ("endpointslices", slice)])
}

/// The node has no rules for Services, whose addresses lead nowhere.
fn without_rules(routed: &Routed) {
    wire_to_nowhere(&routed.node, "nowhere");
    run(&routed.node, "ip route add default dev nowhere");
    // Conntrack is at work, as on any node.
    iptables_restore(&routed.node, KUBE_FORWARD);
}

/// Traces the client's DNS by the names of `api`.
fn named_by(api: &Api, routed: &Routed) -> Tracer {
    Tracer::start(&format!(
        "--dns --path --netns {} --kubeconfig {}",
        routed.client,
        api.kubeconfig.path().display()
    ))
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_flow_older_than_its_services_rules_is_told_from_a_service_without_rules() {
    let routed = Routed::new("older");
    routed.answer(0);
    without_rules(&routed);
    let api = kube_dns();
    let mut tracer = named_by(&api, &routed);
    let to = socket_of(VIP, 53);
    let old = inside(&routed.client, "old", move || udp(to));
    let ask_again = |id: u16| assert!(old.send(&query(id, "host1.lab.test", A)).is_ok());
    ask_again(1);
    sleep(Duration::from_millis(200));
    let dnat = format!(
        "*nat\n-A PREROUTING -d {VIP}/32 -p udp -m comment --comment \"kube-system/kube-dns:dns cluster IP\" -m udp --dport 53 -j DNAT --to-destination {SERVER}:53\nCOMMIT\n"
    );
    iptables_restore(&routed.node, &dnat);
    ask(&routed.client, VIP, 3);
    ask_again(2);
    sleep(Duration::from_millis(200));
    ask_again(3);
    tracer.wait_for(6);
    assert_named(
        "a UDP flow begins before its Service's rules are written, and goes on",
        &tracer.stop(),
        &format!("untranslated_entry: address {VIP}:53 (kube-system/kube-dns)"),
    );
    // As the remedy says.
    run(
        &routed.node,
        &format!("conntrack -D -p udp --orig-dst {VIP}"),
    );
    let mut tracer = named_by(&api, &routed);
    ask_again(4);
    assert_eq!(receive(&old), 4);
    tracer.wait_for(1);
    assert_eq!(tracer.stop().found(), [""; 0]);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_server_that_is_slow_or_hangs_up_is_named_by_its_address() {
    let routed = Routed::new("server");
    let _slow = LyingDns::start_with(
        &routed.server,
        &format!("{SERVER}:53"),
        &["--lie", "late", "--delay-ms", "1200"],
    );
    let mut tracer = Tracer::start(&format!(
        "--dns --path --unanswered-after 3s --netns {}",
        routed.client
    ));
    for _ in 0..3 {
        dig(&routed.client, &format!("@{SERVER} host1.lab.test"));
    }
    tracer.wait_for(3);
    assert_named(
        "a server takes more than a second to answer",
        &tracer.stop(),
        &format!("server_slow: server {SERVER}:53"),
    );

    let listener = inside(&routed.server, "web", || {
        TcpListener::bind((SERVER, 8080)).expect("the port is free")
    });
    spawn(move || {
        for stream in listener.incoming().flatten() {
            // What lies unread makes a reset of its close.
            sleep(Duration::from_millis(50));
            drop(stream);
        }
    });
    let mut tracer = Tracer::start(&format!(
        "--connections --path --vip 198.51.100.0/24 --netns {}",
        routed.client
    ));
    for _ in 0..3 {
        assert!(!browse(&routed.client));
    }
    tracer.wait_for(3);
    assert_named(
        "a server closes connections without reading",
        &tracer.stop(),
        &format!("reset_midway: server {SERVER}:8080"),
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn what_is_lost_without_a_drop_is_told_by_the_way_it_took() {
    let routed = Routed::new("lost");
    routed.answer(0);
    let mut tracer = Tracer::start(&format!("--dns --path --netns {}", routed.client));
    ask(&routed.client, SERVER, 1);
    wire_to_nowhere(&routed.node, "nowhere");
    run(&routed.node, "ip route add 192.0.2.2/32 dev nowhere");
    ask(&routed.client, SERVER, 2);
    tracer.wait_for(3);
    assert_named(
        "answers are routed elsewhere",
        &tracer.stop(),
        &format!("answer_lost: server {SERVER}:53"),
    );

    let overlay = Overlay::new("lossy");
    let node = &overlay.nodes[0];
    wire_to_nowhere(node, "nowhere");
    run(node, "ip route add 203.0.113.2/32 dev nowhere");
    let to = "bridge fdb replace 02:00:00:00:01:02 dev flannel.1 dst 203.0.113.2";
    run(node, to);
    assert_named(
        "the network between nodes loses VXLAN",
        &across(&overlay),
        "tunnel_silent: node 203.0.113.2",
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn servers_that_disagree_are_told_of_who_asks_them_at_once() {
    let routed = Routed::new("two");
    // Of one every name exists, of the other this one does not.
    routed.answer(0);
    let _other = LyingDns::honest(&routed.server, &format!("{SERVER2}:53"));
    let ask = |at_once: bool| {
        let mut tracer = Tracer::start(&format!("--dns --netns {}", routed.client));
        inside(&routed.client, "musl", move || {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
            let patience = Some(Duration::from_secs(2));
            socket.set_read_timeout(patience).expect("it is not zero");
            for id in 0..4 {
                for server in [SERVER, SERVER2] {
                    let query = query(id, "nobody.lab.test", A);
                    let sent = socket.send_to(&query, (server, 53));
                    assert!(sent.is_ok());
                    if !at_once {
                        receive(&socket);
                        sleep(Duration::from_millis(20));
                    }
                }
                if at_once {
                    for _ in 0..2 {
                        receive(&socket);
                    }
                }
            }
        });
        tracer.wait_for(8);
        tracer.stop()
    };
    assert_eq!(ask(false).found(), [""; 0]);
    assert_named(
        "a client asks two servers at once, as musl does, and they disagree",
        &ask(true),
        &format!("servers_disagree: client {}", routed.client),
    );
}
