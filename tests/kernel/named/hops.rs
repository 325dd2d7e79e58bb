//! Failures of the way from hop to hop: neighbours, routes, forwarding, queues. ICMP errors that would tell of them
//! are limited by the kernel, as anywhere, or filtered.

use super::{Overlay, across, ask, assert_named, run};
use crate::support::routed::{Routed, SERVER, SERVER2};
use crate::support::trace::Tracer;
use crate::support::{cannot, iptables_restore, run_in};

/// Made in guests alone: the table is one of the whole kernel.
pub(super) const IN_GUESTS: &str = "the table of neighbours is full";

pub(super) const ROWS: &[(&str, &str)] = &[
    (
        "who has a backend's address answers no ARP, and ICMP errors are limited",
        "no_neighbour",
    ),
    (IN_GUESTS, "neighbours_full"),
    (
        "the route to another node's pods is missing, and ICMP errors are limited",
        "no_route",
    ),
    (
        "a pod is gone, and its node's route for the rest of the range is a blackhole",
        "no_route",
    ),
    ("the node does not forward what pods send", "forwarding"),
    ("two routers lead packets to each other", "routing_loop"),
    ("the same, and the ICMP error is filtered", "routing_loop"),
    (
        "another node's flannel.1 was made anew, and the entry has its former MAC address",
        "no_neighbour",
    ),
    (
        "a pod's bandwidth is limited by tbf, and more is sent",
        "queue_full",
    ),
];

/// What is found where the client asks `server` by as many sockets, `spoil` done.
fn check(what: &str, [server, times]: [&str; 2], spoil: impl FnOnce(&Routed), expected: &str) {
    let routed = Routed::new("hops");
    routed.answer(0);
    let words = format!(
        "--dns --path --unanswered-after 2s --netns {}",
        routed.client
    );
    let mut tracer = Tracer::start(&words);
    ask(&routed.client, SERVER, 1);
    tracer.wait_for(1);
    spoil(&routed);
    let times = times.parse().expect("it is a number");
    ask(&routed.client, server, times);
    tracer.wait_for(1 + usize::from(times));
    assert_named(what, &tracer.stop(), expected);
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn what_no_next_hop_takes_is_named_once_whether_or_not_an_error_tells_of_it() {
    check(
        "who has a backend's address answers no ARP, and ICMP errors are limited",
        ["198.51.100.77", "10"],
        |routed| {
            // One probe at once instead of three, a second apart.
            for words in ["mcast_solicit=1", "ucast_solicit=0"] {
                let quick = format!("sysctl -qw net.ipv4.neigh.s.{words}");
                run(&routed.node, &quick);
            }
        },
        "no_neighbour: address 198.51.100.77",
    );
    check(
        "the route to another node's pods is missing, and ICMP errors are limited",
        ["203.0.113.7", "10"],
        |_| {},
        "no_route: address 203.0.113.7",
    );
    check(
        "a pod is gone, and its node's route for the rest of the range is a blackhole",
        ["203.0.113.7", "2"],
        |routed| {
            let route = "ip route add blackhole 203.0.113.0/26 proto 80";
            run(&routed.node, route);
        },
        "no_route: address 203.0.113.7",
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_node_that_does_not_forward_and_routers_that_go_in_circles_are_named() {
    check(
        "the node does not forward what pods send",
        [SERVER, "2"],
        |routed| run(&routed.node, "sysctl -qw net.ipv4.ip_forward=0"),
        "forwarding: forwarding of this node",
    );
    let circle = |routed: &Routed| {
        run(&routed.node, "ip route add 203.0.113.0/24 via 198.51.100.2");
        run(&routed.server, "sysctl -qw net.ipv4.ip_forward=1");
    };
    check(
        "two routers lead packets to each other",
        ["203.0.113.7", "2"],
        circle,
        "routing_loop: address 203.0.113.7",
    );
    check(
        "the same, and the ICMP error is filtered",
        ["203.0.113.7", "2"],
        |routed| {
            circle(routed);
            let filter = "*filter\n-A OUTPUT -p icmp -j DROP\nCOMMIT\n";
            iptables_restore(&routed.server, filter);
        },
        "routing_loop: address 203.0.113.7",
    );
}

#[test]
#[ignore = "needs root and a BPF kernel; run `cargo xtask test kernel`"]
fn a_tunnels_old_mac_address_and_a_pods_bandwidth_are_named() {
    let overlay = Overlay::new("mac");
    assert_eq!(across(&overlay).found(), [""; 0]);
    let anew = "ip link set flannel.1 address 02:00:00:00:09:02";
    run(&overlay.nodes[1], anew);
    assert_named(
        "another node's flannel.1 was made anew, and the entry has its former MAC address",
        &across(&overlay),
        "no_neighbour: address 10.244.2.2",
    );

    // As the CNI plugin `bandwidth` does to the node's end of the pod's veth.
    check(
        "a pod's bandwidth is limited by tbf, and more is sent",
        [SERVER, "6"],
        |routed| {
            let tbf = "tc qdisc add dev s root tbf rate 1kbit burst 100 limit 100";
            run(&routed.node, tbf);
        },
        "queue_full: queue of a device on the way",
    );
}

#[test]
#[ignore = "needs root and a kernel of its own; run `cargo xtask test vm`"]
fn a_full_table_of_neighbours_is_named() {
    let routed = Routed::new("neigh");
    routed.answer(0);
    let most = "net.ipv4.neigh.default.gc_thresh3";
    let before = run_in(&routed.node, &["sysctl", "-n", most]);
    if before.status.success() {
        cannot("this kernel has tables of neighbours of each namespace");
        return;
    }
    let set = |value: &str| {
        let path = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";
        std::fs::write(path, value).expect("it is a guest's own");
    };
    let mut tracer = Tracer::start(&format!("--dns --path --netns {}", routed.client));
    ask(&routed.client, SERVER, 1);
    tracer.wait_for(1);
    // The way to the node is not to be looked for anew.
    run(
        &routed.client,
        "ip neigh change 192.0.2.1 dev eth0 nud permanent",
    );
    set("0");
    for netns in [&routed.node, &routed.server] {
        run(netns, "ip neigh flush all");
    }
    // What is still there and may be given up is, for entries that may not: they have just been confirmed.
    let adds = |host: u8| {
        let add =
            format!("ip neigh add 198.51.100.{host} lladdr 02:00:00:00:00:01 nud reachable dev s");
        let words: Vec<_> = add.split(' ').collect();
        run_in(&routed.node, &words).status.success()
    };
    assert!(!(10..250).all(adds), "there is always room");
    ask(&routed.client, SERVER2, 2);
    tracer.wait_for(3);
    set("1024");
    assert_named(
        IN_GUESTS,
        &tracer.stop(),
        "neighbours_full: neighbour table of this node",
    );
    // With room in it is told what is wrong there: nobody serves.
    let mut tracer = Tracer::start(&format!("--dns --path --netns {}", routed.client));
    ask(&routed.client, SERVER2, 2);
    tracer.wait_for(2);
    let expected = format!("backend_refuses: backend {SERVER2}:53");
    assert_eq!(tracer.stop().found(), [expected]);
}
