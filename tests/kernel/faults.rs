//! Faults of links, routes and rules: each is put where it is known, and the row must name stage and cause.
//!
//! Guests run them too: what this machine's kernel lacks, it cannot show.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client::{A, inside, query, receive, udp};
use crate::support::routed::{Routed, SERVER, VIP};
use crate::support::trace::Tracer;
use crate::support::{cannot, ip, iptables_restore, run_in, text_of};

/// Translates the VIP to the server's address on the node.
const DNAT: &str = "*nat\n-A PREROUTING -d 10.96.0.10 -p udp --dport 53 -j DNAT --to-destination 198.51.100.2:53\nCOMMIT\n";

/// How long a client waits for its answer, and the tracer with it.
const PATIENCE: Duration = Duration::from_millis(1200);

/// What netem adds to a link.
const DELAY_MS: f64 = 2000.0;

/// The one row of one query that the client sends to `asked`, and how long its answer took; `None` when none
/// came for as long as `patience`.
fn ask(routed: &Routed, asked: &str, patience: Duration) -> (Value, Option<Duration>) {
    let netns = &routed.client;
    let limit = patience.as_millis();
    let mut tracer = Tracer::start(&format!(
        "--dns --path --netns {netns} --unanswered-after {limit}ms"
    ));
    let asked = SocketAddr::new(asked.parse().expect("it is an address"), 53);
    let took = inside(netns, "client", move || {
        let socket = udp(asked);
        let start = Instant::now();
        assert!(socket.send(&query(7, "host1.lab.test", A)).is_ok());
        socket
            .set_read_timeout(Some(patience))
            .expect("it is not zero");
        socket.recv(&mut [0; 4096]).is_ok().then(|| start.elapsed())
    });
    tracer.wait_for(1);
    let rows = tracer.stop().rows();
    assert_eq!(rows.len(), 1, "{rows:#?}");
    (rows[0].clone(), took)
}

/// A stage's time in milliseconds; zero when it is not among the row's.
fn stage(row: &Value, leg: &str, stage: &str) -> f64 {
    let stages = row["journey"]["stages"].as_array().expect("it has a way");
    let found = stages
        .iter()
        .find(|found| found["leg"] == leg && found["stage"] == stage);
    found.map_or(0.0, |found| {
        found["duration_us"].as_f64().expect("it is a number") / 1e3
    })
}

/// The query was dropped, the cause holding each of `words`, after stage `last`.
fn assert_dropped(row: &Value, words: &[&str], last: &str) {
    let cause = row["cause"].as_str().unwrap_or_default();
    assert_eq!(row["outcome"], "dropped", "{row:#}");
    for word in words {
        assert!(cause.contains(word), "{word}: {row:#}");
    }
    let stages = row["journey"]["stages"].as_array().expect("it has a way");
    let stopped = stages.last().map(|stage| {
        let word = |key: &str| stage[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", word("leg"), word("stage"))
    });
    assert_eq!(stopped.as_deref(), Some(last), "{row:#}");
}

/// Adds netem to `device` of the node; false, with the reason said, where the kernel has none.
///
/// Neighbours know one another before: what delays a query delays the ARP request before it too.
fn netem(routed: &Routed, device: &str, words: &str) -> bool {
    inside(&routed.client, "first", || {
        let socket = udp(SocketAddr::new(
            SERVER.parse().expect("it is an address"),
            53,
        ));
        assert!(socket.send(&query(1, "first.lab.test", A)).is_ok());
        receive(&socket);
    });
    let command = format!("tc qdisc add dev {device} root netem {words}");
    let output = run_in(&routed.node, &command.split(' ').collect::<Vec<_>>());
    if !output.status.success() {
        cannot("this kernel has no sch_netem");
    }
    output.status.success()
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn a_delay_on_a_link_is_told_of_that_link_and_of_no_other() {
    let routed = Routed::new("delay");
    routed.answer(0);
    if !netem(&routed, "s", &format!("delay {DELAY_MS}ms")) {
        return;
    }
    let (row, took) = ask(&routed, SERVER, Duration::from_secs(10));
    assert_eq!(row["outcome"], "answered", "{row:#}");
    let whole = took.expect("it was answered").as_secs_f64() * 1e3;
    let link = stage(&row, "query", "backend_link");
    // Not less than was put there, and a twentieth more at most.
    assert!(
        (DELAY_MS..DELAY_MS * 1.05).contains(&link) && link < whole,
        "{link} of {whole} ms: {row:#}"
    );
    let others = row["latency_us"].as_f64().expect("it has one") / 1e3 - link;
    assert!(others < DELAY_MS * 0.05, "{others} ms elsewhere: {row:#}");
    eprintln!(
        "shown: {link:.3} ms at the link of {DELAY_MS} ms injected, {others:.3} ms elsewhere"
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn a_packet_lost_on_a_link_is_told_to_be_lost_there() {
    let routed = Routed::new("loss");
    routed.answer(0);
    if !netem(&routed, "s", "loss 100%") {
        return;
    }
    let (row, _) = ask(&routed, SERVER, PATIENCE);
    assert_dropped(&row, &["the kernel dropped the query"], "query node");
    let cause = row["cause"].to_string();
    assert!(cause.contains("QDISC_DROP") || !has_reasons(), "{row:#}");
}

/// Whether the kernel names a reason for each drop: since Linux 5.17.
fn has_reasons() -> bool {
    let release = text_of_file("/proc/sys/kernel/osrelease");
    let mut numbers = release
        .split('.')
        .map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(17))
}

fn text_of_file(path: &str) -> String {
    std::fs::read_to_string(path).expect("every kernel has it")
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn a_forward_policy_of_drop_is_told_by_hook() {
    let routed = Routed::new("policy");
    iptables_restore(&routed.node, "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
    let (row, _) = ask(&routed, SERVER, PATIENCE);
    assert_dropped(&row, &["in FORWARD, by nf"], "query client_link");
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn a_source_that_is_routed_elsewhere_is_dropped_by_rp_filter() {
    let routed = Routed::new("rpf");
    // A client's address that the node would answer by another device.
    for words in [
        [
            "-n",
            &routed.node,
            "route",
            "add",
            "203.0.113.9",
            "via",
            SERVER,
        ],
        [
            "-n",
            &routed.client,
            "address",
            "add",
            "203.0.113.9",
            "dev",
            "lo",
        ],
    ] {
        ip(&words);
    }
    for (netns, words) in [
        (
            &routed.client,
            "ip route change default via 192.0.2.1 src 203.0.113.9",
        ),
        // ARP requests from that address would be dropped before.
        (
            &routed.client,
            "sysctl -qw net.ipv4.conf.eth0.arp_announce=2",
        ),
        (&routed.node, "sysctl -qw net.ipv4.conf.c.rp_filter=1"),
    ] {
        let done = run_in(netns, &words.split(' ').collect::<Vec<_>>());
        assert!(done.status.success(), "{words}: {done:?}");
    }
    let (row, _) = ask(&routed, SERVER, PATIENCE);
    // The reason has a name since Linux 6.14; the place is the same in all.
    assert_dropped(&row, &["by ip_rcv"], "query client_link");
    let cause = row["cause"].as_str().unwrap_or_default();
    assert!(
        cause.contains("IP_RPFILTER") || cause.contains("ip_rcv_finish"),
        "{row:#}"
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn an_answer_too_big_for_a_link_is_told_to_be_lost_on_its_way_back() {
    let routed = Routed::new("mtu");
    routed.answer(1200);
    ip(&["-n", &routed.node, "link", "set", "c", "mtu", "600"]);
    // The hole is black: the server is not told.
    iptables_restore(&routed.node, "*filter\n-A OUTPUT -p icmp -j DROP\nCOMMIT\n");
    let (row, _) = ask(&routed, SERVER, PATIENCE);
    assert_dropped(
        &row,
        &["the kernel dropped the answer", "by ip_forward"],
        "answer backend_link",
    );
    let cause = row["cause"].to_string();
    assert!(cause.contains("PKT_TOO_BIG") || !has_reasons(), "{row:#}");
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn rules_of_nftables_are_seen_through_and_their_drops_named() {
    let routed = Routed::new("nft");
    routed.answer(0);
    // As kube-proxy's nftables mode writes them, in short.
    let rules = "
        add table ip kube-proxy
        add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
        add chain ip kube-proxy service
        add rule ip kube-proxy service meta l4proto udp dnat to 198.51.100.2:53
        add element ip kube-proxy service-ips { 10.96.0.10 . udp . 53 : goto service }
        add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority dstnat; }
        add rule ip kube-proxy nat-prerouting ip daddr . meta l4proto . th dport vmap @service-ips
        add chain ip kube-proxy filter-forward { type filter hook forward priority filter; }
        add rule ip kube-proxy filter-forward ip daddr 198.51.100.3 udp dport 53 drop
        ";
    let loaded = run_in(&routed.node, &["nft", rules]);
    assert!(loaded.status.success(), "{loaded:?}");
    let (row, _) = ask(&routed, VIP, PATIENCE);
    assert_eq!(row["outcome"], "answered", "{row:#}");
    assert_eq!(row["backend"]["ip"], SERVER, "{row:#}");
    let (row, _) = ask(&routed, "198.51.100.3", PATIENCE);
    assert_dropped(&row, &["in FORWARD, by n"], "query client_link");
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel` or `cargo xtask test vm`"]
fn healthy_queries_through_the_same_node_are_accused_of_nothing() {
    let routed = Routed::new("healthy");
    routed.answer(0);
    iptables_restore(&routed.node, DNAT);
    let netns = &routed.client;
    let mut tracer = Tracer::start(&format!("--dns --path --netns {netns}"));
    inside(netns, "client", || {
        let socket = udp(SocketAddr::new(VIP.parse().expect("it is one"), 53));
        for id in 0..100 {
            assert!(socket.send(&query(id, "host1.lab.test", A)).is_ok());
            assert_eq!(receive(&socket), id);
        }
    });
    tracer.wait_for(100);
    let traced = tracer.stop();
    for row in traced.rows() {
        assert_eq!(row["outcome"], "answered", "{row:#}");
        assert_eq!(row["backend"]["ip"], SERVER, "{row:#}");
        assert!(row["cause"].is_null() && row["clash"].is_null(), "{row:#}");
    }
    assert!(!text_of(&routed.node, &["conntrack", "-C"]).starts_with('0'));
}
