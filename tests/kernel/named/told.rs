//! Failures that a rule, a server, or a Service without rules makes, and such as have no name of their own.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::{sleep, spawn};
use std::time::Duration;

use super::{ask, assert_named, kube_dns, named_by, run, socket_of, tracer_in, without_rules};
use crate::support::client::inside;
use crate::support::routed::{Routed, SERVER, VIP};
use crate::support::trace::Tracer;
use crate::support::{LyingDns, dig, iptables_restore, wire_to_nowhere};

pub(super) const ROWS: &[(&str, &str)] = &[
    ("a rule of the server's own namespace drops", "policy_drop"),
    (
        "a policy of IPsec lets nothing pass that is not encrypted",
        "kernel_drop",
    ),
    ("nobody has an address, and nobody says so", "unanswered"),
    (
        "kube-proxy has written no rules for a Service",
        "untranslated",
    ),
    (
        "a server refuses names of zones that it has not",
        "servfail",
    ),
    (
        "the upstream server takes more than a second",
        "upstream_slow",
    ),
    (
        "the server's node goes away while a connection is open",
        "stalled",
    ),
    (
        "an answer over TCP is too large for a link, and ICMP is lost",
        "mtu",
    ),
];

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn what_is_dropped_or_lost_beside_the_usual_ways_is_named() {
    let check = |what, server, spoil: &dyn Fn(&Routed), expected: &str| {
        let routed = Routed::new("told");
        routed.answer(0);
        spoil(&routed);
        let mut tracer = tracer_in(
            &routed.node,
            &format!("--dns --path --netns {}", routed.client),
        );
        ask(&routed.client, server, 3);
        tracer.wait_for(3);
        assert_named(what, &tracer.stop(), expected);
    };
    check(
        "a rule of the server's own namespace drops",
        SERVER,
        &|routed| {
            let rule = "*filter\n-A INPUT -p udp --dport 53 -j DROP\nCOMMIT\n";
            iptables_restore(&routed.server, rule);
        },
        &format!("policy_drop: traffic to {SERVER}:53"),
    );
    check(
        "a policy of IPsec lets nothing pass that is not encrypted",
        SERVER,
        &|routed| {
            let policy =
                format!("ip xfrm policy add dir in src 192.0.2.0/24 dst {SERVER}/32 action block");
            run(&routed.server, &policy);
        },
        &format!("kernel_drop: traffic to {SERVER}:53"),
    );
    check(
        "nobody has an address, and nobody says so",
        "203.0.113.2",
        &|routed| {
            wire_to_nowhere(&routed.node, "nowhere");
            run(&routed.node, "ip route add 203.0.113.0/29 dev nowhere");
        },
        "unanswered: address 203.0.113.2:53",
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_service_without_rules_is_named_as_such() {
    let routed = Routed::new("norules");
    without_rules(&routed);
    let api = kube_dns();
    let mut tracer = named_by(&api, &routed);
    ask(&routed.client, VIP, 3);
    tracer.wait_for(3);
    assert_named(
        "kube-proxy has written no rules for a Service",
        &tracer.stop(),
        &format!("untranslated: address {VIP}:53 (kube-system/kube-dns)"),
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_server_that_refuses_and_one_that_waits_for_another_are_told_apart() {
    let routed = Routed::new("refuses");
    routed.refuse();
    let mut tracer = Tracer::start(&format!("--dns --path --netns {}", routed.client));
    ask(&routed.client, SERVER, 3);
    tracer.wait_for(3);
    assert_named(
        "a server refuses names of zones that it has not",
        &tracer.stop(),
        &format!("servfail: DNS at {SERVER}:53"),
    );

    let routed = Routed::new("upslow");
    let upstream = format!("{SERVER}:53");
    let late = ["--lie", "late", "--delay-ms", "1100"];
    let _upstream = LyingDns::start_with(&routed.server, &upstream, &late);
    let forward = ["--forward", &upstream, "--patience-ms", "3000"];
    let _server = LyingDns::start_with(&routed.node, "192.0.2.1:53", &forward);
    let mut tracer = Tracer::start(&format!(
        "--dns --path --unanswered-after 3s --netns {}",
        routed.client
    ));
    for host in 1..=3 {
        dig(&routed.client, &format!("@192.0.2.1 host{host}.lab.test"));
    }
    tracer.wait_for(3);
    assert_named(
        "the upstream server takes more than a second",
        &tracer.stop(),
        &format!("upstream_slow: upstream server {upstream}"),
    );
}

/// What is found of one connection to the server's port 8080; the server says as much as `length` tells, and
/// `spoil` is done once it is open.
fn connected(what: &str, length: usize, spoil: impl FnOnce(&Routed), expected: &str) {
    let routed = Routed::new("open");
    let listener = inside(&routed.server, "web", || {
        TcpListener::bind((SERVER, 8080)).expect("the port is free")
    });
    spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Who asked may be out of reach by then.
            drop(stream.read(&mut [0; 64]));
            drop(stream.write_all(&vec![b'x'; length]));
            sleep(Duration::from_secs(10));
        }
    });
    let words = format!(
        "--connections --path --vip 198.51.100.0/24 --netns {}",
        routed.client
    );
    let mut tracer = Tracer::start(&words);
    let mut stream = inside(&routed.client, "browser", || {
        TcpStream::connect(socket_of(SERVER, 8080)).expect("it listens")
    });
    spoil(&routed);
    let sent = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
    assert!(sent.is_ok(), "{sent:?}");
    // The row of the handshake, and what amends it.
    tracer.wait_for(2);
    assert_named(what, &tracer.stop(), expected);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn an_open_connection_without_headway_is_told_by_what_is_seen_of_it() {
    connected(
        "the server's node goes away while a connection is open",
        5,
        |routed| {
            wire_to_nowhere(&routed.node, "nowhere");
            run(
                &routed.node,
                &format!("ip route add {SERVER}/32 dev nowhere"),
            );
        },
        &format!("stalled: server {SERVER}:8080"),
    );
    connected(
        "an answer over TCP is too large for a link, and ICMP is lost",
        5000,
        |routed| {
            run(&routed.node, "ip link set c mtu 600");
            let filter = "*filter\n-A OUTPUT -p icmp -j DROP\nCOMMIT\n";
            iptables_restore(&routed.node, filter);
        },
        "mtu: a link on the way",
    );
}
