//! Where exchanges stop that come to no good end: every way to fail is made to happen once, and the row says where
//! and why.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::{self, sleep};
use std::time::Duration;

use serde_json::Value;

use crate::support::client::{A, inside, query, udp};
use crate::support::trace::{Tracer, brief, text_of, without_code};
use crate::support::{
    End, LyingDns, Topology, client_and_server, dig, ip, iptables_restore, run_in, veth,
    wire_to_nowhere,
};
use tracer::lab::Lie;

/// A client behind a node, and a server behind it; the node forwards.
struct Bed {
    _topology: Topology,
    client: String,
    node: String,
    server: String,
    port: u16,
}

const SERVER: &str = "192.0.2.129";

fn ip_of(text: &str) -> IpAddr {
    text.parse().expect("it is an address")
}

impl Bed {
    fn new(port: u16) -> Self {
        let mut topology = Topology::new(&format!("stop{port}"));
        let [client, node, server] = ["client", "node", "server"].map(|name| topology.netns(name));
        let end = |netns, device, addresses| End {
            netns,
            device,
            addresses,
        };
        veth(
            &end(&client, "eth0", &["192.0.2.1/25"]),
            &end(&node, "client", &["192.0.2.2/25"]),
        );
        veth(
            &end(&server, "eth0", &["192.0.2.129/25"]),
            &end(&node, "server", &["192.0.2.130/25"]),
        );
        ip(&["-n", &client, "route", "add", "default", "via", "192.0.2.2"]);
        ip(&[
            "-n",
            &server,
            "route",
            "add",
            "default",
            "via",
            "192.0.2.130",
        ]);
        run_in(&node, &["sysctl", "-q", "net.ipv4.ip_forward=1"]);
        Self {
            _topology: topology,
            client,
            node,
            server,
            port,
        }
    }

    fn serve(&self) -> LyingDns {
        LyingDns::honest(&self.server, &format!("{SERVER}:{}", self.port))
    }

    fn dig(&self, to: &str) {
        dig(
            &self.client,
            &format!("-p {} @{to} host1.lab.test", self.port),
        );
    }

    /// The last of `count` rows, when `work` is done.
    fn last(&self, count: usize, work: impl FnOnce()) -> Value {
        let (port, client) = (self.port, &self.client);
        let mut tracer = Tracer::start(&format!("--path --dns-port {port} --netns {client}"));
        work();
        tracer.wait_for(count);
        let traced = tracer.stop();
        traced.assert_whole();
        let rows = traced.rows();
        assert_eq!(rows.len(), count, "{rows:#?}");
        rows.last().cloned().expect("there is one")
    }
}

/// Outcome and cause, and where it stopped: leg, stage, device in which namespace, side.
#[track_caller]
fn check(row: &Value, outcome: &str, cause: &str, stopped: [&str; 5]) {
    let told = brief(row);
    let told = without_code(&told);
    let at = &row["stopped_at"];
    let word = |key: &str| at[key].as_str().unwrap_or("none").to_owned();
    let netns = word("netns");
    let netns = netns.rsplit('-').next().unwrap_or_default().to_owned();
    let place = [
        word("leg"),
        word("stage"),
        netns,
        word("device"),
        word("side"),
    ];
    assert!(
        row["outcome"] == outcome && told.contains(cause),
        "not {outcome}, {cause}: {told}"
    );
    assert_eq!(place, stopped, "{row:#}");
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_query_dropped_on_the_way_is_told_with_reason_hook_and_place() {
    let bed = Bed::new(5450);
    iptables_restore(
        &bed.node,
        "*filter\n-A FORWARD -p udp --dport 5450 -j DROP\nCOMMIT\n",
    );
    let row = bed.last(1, || bed.dig(SERVER));
    let cause = "the kernel dropped the query: NETFILTER_DROP in FORWARD";
    let place = ["query", "client_link", "node", "client", "dropped"];
    check(&row, "dropped", cause, place);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_query_that_is_rejected_says_by_whom() {
    let bed = Bed::new(5451);
    let rule = "*filter\n-A FORWARD -p udp --dport 5451 -j REJECT\nCOMMIT\n";
    iptables_restore(&bed.node, rule);
    let row = bed.last(1, || bed.dig(SERVER));
    let cause = "ICMP port unreachable from 192.0.2.2";
    let place = ["query", "client_link", "node", "client", "dropped"];
    check(&row, "rejected", cause, place);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_query_that_never_left_its_client_says_so() {
    let bed = Bed::new(5452);
    iptables_restore(
        &bed.client,
        "*filter\n-A OUTPUT -p udp --dport 5452 -j DROP\nCOMMIT\n",
    );
    let (client, server) = (bed.client.clone(), SocketAddr::new(ip_of(SERVER), 5452));
    let row = bed.last(1, || {
        inside(&client, "client", move || {
            // The rule makes the call fail.
            drop(udp(server).send(&query(7, "host1.lab.test", A)));
        });
    });
    let cause = "it never left the client: the kernel dropped the query before any device: \
                 NETFILTER_DROP in OUTPUT";
    let place = ["query", "none", "client", "none", "dropped"];
    // Kernels differ in whether the packet has its device by then.
    let place = match row["stopped_at"]["device"].as_str() {
        Some(device) => ["query", "none", "client", device, "dropped"],
        None => place,
    };
    let cause = if brief(&row).contains("before any device") {
        cause.to_owned()
    } else {
        cause.replace(" before any device", "")
    };
    check(&row, "dropped", &cause, place);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_query_that_was_delivered_and_not_read_or_read_and_not_answered_says_which() {
    for reads in [false, true] {
        let bed = Bed::new(if reads { 5453 } else { 5454 });
        let address = SocketAddr::new(ip_of(SERVER), bed.port);
        let netns = bed.server.clone();
        let bind = move || UdpSocket::bind(address).expect("the port is free");
        let socket = inside(&netns, "binds", bind);
        let client = bed.client.clone();
        let row = bed.last(1, || {
            inside(&client, "client", move || {
                assert!(udp(address).send(&query(7, "host1.lab.test", A)).is_ok());
            });
            if reads {
                let limit = Some(Duration::from_secs(2));
                socket.set_read_timeout(limit).expect("it is not zero");
                socket.recv(&mut [0; 512]).expect("a query comes");
            }
        });
        let (cause, stage, side) = if reads {
            ("read the query", "backend_queue", "read")
        } else {
            (
                "the query lies unread in the server's socket",
                "backend_input",
                "delivered",
            )
        };
        check(
            &row,
            "unanswered",
            cause,
            ["query", stage, "server", "eth0", side],
        );
    }
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_answer_dropped_on_its_way_back_is_told_with_reason_and_place() {
    let bed = Bed::new(5455);
    iptables_restore(
        &bed.node,
        "*filter\n-A FORWARD -p udp --sport 5455 -j DROP\nCOMMIT\n",
    );
    let _server = bed.serve();
    let row = bed.last(1, || bed.dig(SERVER));
    let cause = "the kernel dropped the answer: NETFILTER_DROP in FORWARD";
    let place = ["answer", "backend_link", "node", "server", "dropped"];
    check(&row, "dropped", cause, place);
}

fn lead_nowhere(netns: &str, route: &str) {
    wire_to_nowhere(netns, "nowhere");
    ip(&["-n", netns, "route", "add", route, "dev", "nowhere"]);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_answer_that_got_lost_without_a_drop_says_where_it_was_seen_last() {
    let bed = Bed::new(5456);
    let _server = bed.serve();
    let row = bed.last(2, || {
        // This one shows that arrivals are seen here.
        bed.dig(SERVER);
        lead_nowhere(&bed.node, "192.0.2.1/32");
        bed.dig(SERVER);
        sleep(Duration::from_secs(2));
    });
    let cause = "ms after the query, not seen to be dropped, and not seen to arrive";
    let start = "(the answer was lost on its way back: last seen ";
    assert!(brief(&row).contains(start), "{row:#}");
    let place = ["answer", "node", "node", "nowhere", "queued"];
    check(&row, "unanswered", cause, place);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_answer_to_a_socket_closed_meanwhile_is_late() {
    let bed = Bed::new(5457);
    let late = ["--delay-ms", "300"];
    let listen = format!("{SERVER}:5457");
    let _server = LyingDns::start(&bed.server, &listen, Lie::Late, &late);
    let (client, server) = (bed.client.clone(), SocketAddr::new(ip_of(SERVER), 5457));
    let row = bed.last(1, || {
        inside(&client, "client", move || {
            assert!(udp(server).send(&query(7, "host1.lab.test", A)).is_ok());
        });
    });
    let cause = brief(&row);
    assert!(
        cause.contains("late NOERROR 1 (the answer came 3")
            && cause.ends_with("ms after the query, when the client had closed its socket)"),
        "{cause}"
    );
    let place = ["answer", "client_link", "client", "eth0", "received"];
    check(&row, "late", "", place);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_node_without_a_route_says_so() {
    let bed = Bed::new(5458);
    let row = bed.last(1, || bed.dig("203.0.113.1"));
    let place = ["query", "client_link", "node", "client", "dropped"];
    check(&row, "rejected", "ICMP no route from 192.0.2.2", place);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_next_hop_that_answers_no_arp_is_named_as_the_cause() {
    let bed = Bed::new(5459);
    // One probe at once instead of three, a second apart.
    let quick = [
        "net.ipv4.neigh.server.mcast_solicit=1",
        "net.ipv4.neigh.server.ucast_solicit=0",
    ];
    for setting in quick {
        run_in(&bed.node, &["sysctl", "-q", setting]);
    }
    let words = format!(
        "--path --dns --dns-port 5459 --unanswered-after 6s --netns {}",
        bed.client
    );
    let mut tracer = Tracer::start(&words);
    bed.dig("192.0.2.200");
    tracer.wait_for(1);
    let row = tracer.stop().rows()[0].clone();
    let cause = "ICMP host unreachable from 192.0.2.2; \
                 its next hop did not answer ARP or neighbour discovery";
    check(
        &row,
        "rejected",
        cause,
        ["query", "client_link", "node", "server", "dropped"],
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_query_that_left_by_a_device_and_was_seen_no_more_says_for_whom() {
    let bed = Bed::new(5460);
    lead_nowhere(&bed.node, "203.0.113.0/24");
    let row = bed.last(1, || bed.dig("203.0.113.1"));
    let cause =
        "no answer within 1 s: it was last seen leaving for 203.0.113.1, and nothing came back";
    let place = ["query", "node", "node", "nowhere", "queued"];
    check(&row, "unanswered", cause, place);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_query_that_left_by_a_tunnel_names_the_node_it_was_for() {
    let bed = Bed::new(5461);
    lead_nowhere(&bed.node, "198.51.100.0/24");
    ip(&[
        "-n",
        &bed.node,
        "address",
        "add",
        "198.51.100.1/32",
        "dev",
        "nowhere",
    ]);
    let vxlan =
        "link add flannel.1 type vxlan id 1 remote 198.51.100.2 local 198.51.100.1 dstport 8472";
    let words: Vec<&str> = ["-n", &bed.node]
        .into_iter()
        .chain(vxlan.split(' '))
        .collect();
    ip(&words);
    ip(&["-n", &bed.node, "link", "set", "flannel.1", "up"]);
    let onward = [
        "-n",
        &bed.node,
        "route",
        "add",
        "203.0.113.0/24",
        "dev",
        "flannel.1",
    ];
    ip(&onward);
    let hop = "neigh add 203.0.113.1 lladdr 02:00:00:00:00:01 dev flannel.1";
    let words: Vec<&str> = ["-n", &bed.node]
        .into_iter()
        .chain(hop.split(' '))
        .collect();
    ip(&words);
    let row = bed.last(1, || bed.dig("203.0.113.1"));
    let cause = "no answer within 1 s: it left by vxlan for 198.51.100.2 and nothing came back";
    let place = ["query", "node", "node", "nowhere", "queued"];
    check(&row, "unanswered", cause, place);
}

/// Opens a connection from the client that cannot be opened.
fn connect(bed: &Bed, to: &str) {
    let to = SocketAddr::new(ip_of(to), 8080);
    inside(&bed.client, "browser", move || {
        let limit = Duration::from_millis(2_500);
        assert!(TcpStream::connect_timeout(&to, limit).is_err());
    });
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_connection_whose_syns_vanish_says_how_often_they_were_sent() {
    let bed = Bed::new(5462);
    lead_nowhere(&bed.node, "203.0.113.0/24");
    let words = format!(
        "--path --connections --unanswered-after 3s --netns {}",
        bed.client
    );
    let mut tracer = Tracer::start(&words);
    connect(&bed, "203.0.113.1");
    tracer.wait_for(1);
    let row = tracer.stop().rows()[0].clone();
    let cause = "no answer within 3 s: it was last seen leaving for 203.0.113.1, and nothing came back; \
                 the SYN was sent again";
    check(
        &row,
        "unanswered",
        cause,
        ["syn", "node", "node", "nowhere", "queued"],
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_connection_whose_answer_vanishes_on_its_way_back_is_told_from_one_without_an_answer() {
    let bed = Bed::new(5463);
    let (server, client) = (bed.server.clone(), bed.client.clone());
    let bind = || TcpListener::bind((SERVER, 8080)).expect("the port is free");
    let _listener = inside(&server, "web", bind);
    lead_nowhere(&bed.node, "192.0.2.1/32");
    let words = format!("--path --connections --unanswered-after 3s --netns {client}");
    let mut tracer = Tracer::start(&words);
    connect(&bed, SERVER);
    tracer.wait_for(1);
    let row = tracer.stop().rows()[0].clone();
    let cause = "no answer within 3 s: the server's answer was seen on its way back, and did not \
                 arrive; the SYN was sent again";
    check(
        &row,
        "unanswered",
        cause,
        ["syn_ack", "node", "node", "nowhere", "queued"],
    );
}

/// A connection through a VIP that is open, and what then goes wrong with it.
fn open(port: u16, goes_wrong: impl FnOnce(&Bed, TcpStream, TcpStream)) -> Vec<String> {
    let bed = Bed::new(port);
    iptables_restore(
        &bed.node,
        "*nat\n-A PREROUTING -d 10.96.0.80 -p tcp -j DNAT --to-destination 192.0.2.129:8080\nCOMMIT\n",
    );
    let (server, client) = (bed.server.clone(), bed.client.clone());
    let listener = inside(&server, "web", || {
        TcpListener::bind((SERVER, 8080)).expect("the port is free")
    });
    let mut tracer = Tracer::start(&format!("--path --connections --netns {client}"));
    let accepts = thread::spawn(move || listener.accept().expect("a client comes").0);
    let near = inside(&client, "browser", || {
        TcpStream::connect(("10.96.0.80", 80)).expect("it listens")
    });
    let far = accepts.join().expect("it did not panic");
    goes_wrong(&bed, near, far);
    tracer.wait_for(2);
    let rows = tracer.stop().rows();
    assert_eq!(rows[1]["amends"], rows[0]["serial"], "{rows:#?}");
    rows.iter().map(brief).collect()
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_open_connection_that_is_reset_amends_its_row() {
    let briefs = open(5464, |_, near, far| {
        use std::io::{Read, Write};
        (&near).write_all(b"GET /\r\n").expect("it is open");
        (&far).write_all(b"half an answer").expect("it is open");
        (&near).read_exact(&mut [0; 14]).expect("it comes");
        sleep(Duration::from_millis(1_500));
        // What it has not read makes the kernel send a reset: tcp_close, net/ipv4/tcp.c.
        drop(far);
        sleep(Duration::from_millis(100));
        drop(near);
    });
    let cause = "tcp 10.96.0.80:80 reset amends \
                 (reset by 192.0.2.129 after its first byte, before either side closed)";
    assert_eq!(briefs, ["tcp 10.96.0.80:80 answered", cause]);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_open_connection_that_makes_no_headway_amends_its_row() {
    let briefs = open(5465, |bed, near, far| {
        use std::io::Write;
        lead_nowhere(&bed.node, "192.0.2.129/32");
        (&near).write_all(b"GET /\r\n").expect("it is open");
        sleep(Duration::from_millis(3_300));
        // A close now would be one more packet that is lost.
        drop((near, far));
    });
    let start = "tcp 10.96.0.80:80 unanswered amends (connected, and then nothing came: \
                 data was sent again 3 times within ";
    assert_eq!(briefs[0], "tcp 10.96.0.80:80 answered");
    assert!(briefs[1].starts_with(start), "{briefs:#?}");
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn without_paths_the_line_says_where_it_was_seen_last() {
    let (_topology, client, server) = client_and_server("lastseen");
    let _server = LyingDns::start_with(&server, "192.0.2.2:5466", &["--silent"]);
    let words = format!("--dns --dns-port 5466 --netns {client} --unanswered-after 1s --for 3s");
    let text = text_of(&words, || {
        dig(&client, "-p 5466 @192.0.2.2 host1.lab.test");
    });
    let expected = format!("no answer within 1 s; query last seen entering {server} by eth0 #1");
    assert!(text.contains(&expected), "{text}");
}
