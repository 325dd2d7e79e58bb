//! Rows as the correlator makes them, and what they are told to be.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::model::{
    Client, Connection, Dns, KtimeNs, Outcome, Protocol, SocketEnds, Trace, Upstream, WallNs,
    asked::{ServiceName, ServicePortName, Via},
    cluster::ObjectName,
    pod::Source,
};

mod common;

const CLIENT: &str = "10.244.0.11:40000";
const VIP: &str = "10.96.0.10:53";

fn dns(serial: u64, client: &str, asked: &str) -> Dns {
    Dns {
        serial,
        ktime: KtimeNs(serial * 1_000_000),
        wall: WallNs(1_700_000_000_000_000_000),
        client: Client {
            address: client.parse().unwrap(),
            netns: None,
            sender: None,
        },
        protocol: Protocol::Udp,
        asked: asked.parse().unwrap(),
        backend: None,
        id: 7,
        name: Some("web.lab.test".to_owned()),
        qtype: Some(1),
        rcode: None,
        answers: None,
        truncated: false,
        latency: None,
        outcome: Outcome::Unanswered,
        cause: None,
        clash: None,
        stopped: None,
        ends: SocketEnds::default(),
        upstream: None,
        retry_of: None,
        amends: None,
        journey: None,
    }
}

/// A cause by which rows are told that have no other sign.
fn one_connection(outcome: Outcome, latency: Option<Duration>, cause: &str, expected: &[&str]) {
    let row = Connection {
        outcome,
        latency,
        cause: Some(cause.to_owned()),
        ..connection(1)
    };
    let rows = [1, 2, 3].map(|serial| {
        Row::Connection(Connection {
            serial,
            ..row.clone()
        })
    });
    assert_eq!(found(&rows), expected, "{cause}");
}

fn connection(serial: u64) -> Connection {
    Connection {
        serial,
        ktime: KtimeNs(serial),
        wall: WallNs(0),
        client: dns(0, CLIENT, VIP).client,
        protocol: Protocol::Tcp,
        asked: "10.96.0.12:80".parse().unwrap(),
        backend: None,
        latency: None,
        first_byte: None,
        retransmits: 0,
        outcome: Outcome::Rejected,
        cause: Some("ICMP port unreachable from 10.244.0.1".to_owned()),
        stopped: None,
        amends: None,
        journey: None,
    }
}

fn answered(mut row: Dns, backend: &str) -> Row {
    row.backend = Some(backend.parse().unwrap());
    row.outcome = Outcome::Answered;
    row.rcode = Some(0);
    row.latency = Some(Duration::from_millis(1));
    Row::Dns(row)
}

fn failed(mut row: Dns, outcome: Outcome, cause: &str) -> Row {
    row.outcome = outcome;
    row.cause = Some(cause.to_owned());
    Row::Dns(row)
}

fn found(rows: &[Row]) -> Vec<String> {
    found_of(rows, &Named::default())
}

/// The same of rows that are all named so.
fn found_of(rows: &[Row], named: &Named) -> Vec<String> {
    let mut diagnoses = Diagnoses::default();
    let mut trace = Trace::default();
    for row in rows {
        diagnoses.add(row, named);
        trace.add(row, named);
    }
    let findings = diagnoses.findings(&trace.breakdown, &|_, _| false);
    let found = findings.iter();
    found
        .map(|finding| format!("{}: {}", finding.name, finding.object))
        .collect()
}

fn one(outcome: Outcome, cause: &str, expected: &str) {
    let rows = [failed(dns(1, CLIENT, VIP), outcome, cause)];
    assert_eq!(found(&rows), [expected], "{cause}");
}

#[test]
fn names_are_unique_and_pages_whole() {
    for (index, diagnosis) in ALL.iter().enumerate() {
        assert!(
            ALL[index + 1..]
                .iter()
                .all(|other| other.name != diagnosis.name)
        );
        let page = page(diagnosis);
        assert!(page.contains("Remedy: "), "{page}");
        assert!(!page.contains(".."), "{page}");
    }
}

#[test]
fn what_the_kernel_or_the_node_says_is_named() {
    use Outcome::Rejected;
    one(
        Rejected,
        "ICMP port unreachable from 10.244.0.1",
        "no_endpoints: Service 10.96.0.10",
    );
    one(
        Rejected,
        "ICMP port unreachable was sent, and did not reach the client",
        "no_endpoints: Service 10.96.0.10",
    );
    one(
        Rejected,
        "ICMP port unreachable from 10.96.0.10",
        "backend_refuses: backend 10.96.0.10:53",
    );
    one(
        Rejected,
        "ICMP host unreachable from 10.244.0.1",
        "unreachable: address 10.96.0.10",
    );
    one(
        Rejected,
        "ICMP host unreachable from 10.244.0.1; its next hop did not answer ARP or neighbour discovery",
        "no_neighbour: address 10.96.0.10",
    );
    one(
        Rejected,
        "ICMP no route from 10.244.0.1",
        "no_route: address 10.96.0.10",
    );
    one(
        Rejected,
        "ICMP time exceeded from 10.244.0.1",
        "routing_loop: address 10.96.0.10",
    );
    one(
        Rejected,
        "ICMP administratively prohibited from 192.0.2.1",
        "policy_reject: traffic to 10.96.0.10:53",
    );
}

#[test]
fn what_the_kernel_drops_is_named_by_its_reason_and_place() {
    let drop = |reason: &str| format!("the kernel dropped the query: {reason}");
    let check = |reason: &str, expected: &str| one(Outcome::Dropped, &drop(reason), expected);
    check(
        "IP_RPFILTER, by ip_rcv_finish+0x1",
        "rp_filter: rp_filter of this node",
    );
    check(
        "SOCKET_RCVBUFF, the receive buffer of its socket was full",
        "rcvbuf_full: server 10.96.0.10:53",
    );
    check("UDP_CSUM, by udp_rcv+0x1", "bad_checksum: way to this node");
    check(
        "NEIGH_FAILED, by neigh_timer_handler+0x1",
        "no_neighbour: address 10.96.0.10",
    );
    check(
        "NEIGH_CREATEFAIL, by ip_finish_output2+0x1; the neighbour table was full",
        "neighbours_full: neighbour table of this node",
    );
    check(
        "reason not told by this kernel, by ip_finish_output2+0x1",
        "neighbours_full: neighbour table of this node",
    );
    check(
        "NO_TX_TARGET, by vxlan_xmit+0x1",
        "tunnel_target: address 10.96.0.10",
    );
    check(
        "IP_OUTNOROUTES, by ip_forward+0x1",
        "no_route: address 10.96.0.10",
    );
    check("PKT_TOO_BIG, by ip_forward+0x1", "mtu: a link on the way");
    check(
        "NETFILTER_DROP in PREROUTING, by nf_conntrack_in+0x1",
        "conntrack_full: conntrack's table of this node",
    );
    check(
        "NETFILTER_DROP in POSTROUTING, by nf_nat_inet_fn+0x1",
        "snat_ports: masquerading of this node",
    );
    check(
        "NETFILTER_DROP in FORWARD, by nft_do_chain+0x3e8",
        "forward_drop: netfilter's hook FORWARD",
    );
    check(
        "NETFILTER_DROP in INPUT, by nf_hook_slow+0x1",
        "policy_drop: traffic to 10.96.0.10:53",
    );
    check(
        "TC_INGRESS, by x+0x1",
        "policy_drop: traffic to 10.96.0.10:53",
    );
    check(
        "NOT_SPECIFIED, by ip_error+0x94",
        "no_route: address 10.96.0.10",
    );
    check(
        "IP_INADDRERRORS, by ip_error+0x94",
        "forwarding: forwarding of this node",
    );
    check(
        "IP_INHDR, by ip_forward+0x1",
        "routing_loop: address 10.96.0.10",
    );
    check(
        "OTHERHOST, by ip_rcv_core+0x1",
        "no_neighbour: address 10.96.0.10",
    );
    check(
        "QDISC_DROP, by x+0x1",
        "queue_full: queue of a device on the way",
    );
    check(
        "XFRM_POLICY, by x+0x1",
        "kernel_drop: traffic to 10.96.0.10:53",
    );
    check(
        "IP_INHDR, by ip_rcv_core+0x1",
        "kernel_drop: traffic to 10.96.0.10:53",
    );
}

#[test]
fn one_of_two_questions_dropped_at_insertion_is_the_race_and_alone_it_is_not() {
    let a = answered(dns(1, CLIENT, VIP), "10.244.0.21:53");
    let aaaa = || Dns {
        qtype: Some(28),
        ktime: KtimeNs(1_010_000),
        ..dns(2, CLIENT, VIP)
    };
    let cause = "the kernel dropped the query: NETFILTER_DROP in POSTROUTING, by nf_hook_slow+0x1";
    let lost = || failed(aaaa(), Outcome::Dropped, cause);
    assert_eq!(
        found(&[a.clone(), lost()]),
        ["conntrack_race: conntrack, for DNS at 10.96.0.10:53"]
    );
    let by_rule = ["policy_drop: traffic to 10.96.0.10:53"];
    assert_eq!(found(&[lost()]), by_rule);
    let unreasoned = cause.replace("NETFILTER_DROP", "reason not told by this kernel");
    assert_eq!(
        found(&[failed(aaaa(), Outcome::Dropped, &unreasoned)]),
        by_rule,
        "before Linux 5.17"
    );
    let later = Dns {
        ktime: KtimeNs(900_000_000),
        ..aaaa()
    };
    assert_eq!(
        found(&[a.clone(), failed(later, Outcome::Dropped, cause)]),
        by_rule
    );
    let silent = failed(aaaa(), Outcome::Unanswered, "no answer within 6 s");
    assert_eq!(found(&[a, silent]), [""; 0], "servers drop AAAA as well");
}

#[test]
fn a_backend_that_is_gone_is_told_from_one_that_is_silent() {
    let to = |serial, client: &str, backend: &str| {
        let row = Dns {
            backend: Some(backend.parse().unwrap()),
            ..dns(serial, client, VIP)
        };
        failed(row, Outcome::Unanswered, "no answer within 6 s")
    };
    let gone = "10.244.0.99:53";
    let fine = answered(dns(9, "10.244.0.12:50000", VIP), "10.244.0.21:53");
    let stale = [to(1, CLIENT, gone), to(2, CLIENT, gone), fine.clone()];
    assert_eq!(found(&stale), ["stale_conntrack: backend 10.244.0.99"]);
    let silent = [to(1, CLIENT, gone), to(2, "10.244.0.11:40001", gone), fine];
    assert_eq!(found(&silent), ["backend_silent: backend 10.244.0.99"]);
}

#[test]
fn what_leaves_by_a_tunnel_for_good_names_the_node() {
    one(
        Outcome::Unanswered,
        "no answer within 6 s: it left by VXLAN for 192.0.2.12 and nothing came back",
        "tunnel_silent: node 192.0.2.12",
    );
}

#[test]
fn a_probe_of_coredns_that_comes_again_and_again_is_a_loop() {
    let probe = |serial| {
        let row = Dns {
            qtype: Some(13),
            name: Some("4547308712345678901.6612345678901234567".to_owned()),
            ..dns(serial, CLIENT, VIP)
        };
        answered(row, "10.244.0.21:53")
    };
    assert_eq!(found(&[probe(1)]), [""; 0]);
    assert_eq!(
        found(&[probe(1), probe(2), probe(3)]),
        ["coredns_loop: CoreDNS, asked at 10.96.0.10:53"]
    );
}

#[test]
fn healthy_exchanges_with_ordinary_nxdomains_give_no_finding() {
    let mut diagnoses = Diagnoses::default();
    let mut trace = Trace::default();
    for serial in 0..100_000 {
        let client = format!("10.244.0.{}:{}", serial % 200 + 2, 1024 + serial % 60_000);
        let mut row = dns(serial, &client, VIP);
        row.name = Some(format!("n{}.lab.test", serial % 50));
        let mut row = answered(row, "10.244.0.21:53");
        if let Row::Dns(dns) = &mut row
            && serial % 3 == 0
        {
            dns.rcode = Some(3);
        }
        diagnoses.add(&row, &Named::default());
        trace.add(&row, &Named::default());
    }
    assert_eq!(diagnoses.findings(&trace.breakdown, &|_, _| false), []);
}

#[test]
fn many_rows_of_one_cause_are_one_finding_with_their_share() {
    let mut diagnoses = Diagnoses::default();
    for serial in 0..10 {
        let connection = Row::Connection(connection(serial));
        diagnoses.add(&connection, &Named::default());
    }
    let findings = diagnoses.findings(&Breakdown::default(), &|_, _| false);
    assert_eq!(findings.len(), 1);
    assert!((findings[0].share.unwrap() - 1.0).abs() < 1e-9);
    assert!(findings[0].evidence[0].starts_with("10 of 10 connections"));
}

#[test]
fn connections_that_were_made_and_go_wrong_are_named() {
    let made = Some(Duration::from_millis(1));
    one_connection(
        Outcome::Unanswered,
        made,
        "connected, and then nothing came: data was sent again 5 times within 900 ms, without an answer",
        &["stalled: server 10.96.0.12:80"],
    );
    one_connection(
        Outcome::Reset,
        made,
        "reset by 10.244.0.31 after the handshake",
        &["reset_midway: server 10.96.0.12:80"],
    );
    one_connection(
        Outcome::Reset,
        None,
        "reset by 10.244.0.31 to the first packet",
        &["backend_refuses: backend 10.96.0.12:80"],
    );
    one_connection(
        Outcome::Unanswered,
        None,
        "no answer within 1 s: the server's answer was seen on its way back, and did not arrive",
        &["answer_lost: server 10.96.0.12:80"],
    );
}

#[test]
fn a_pod_that_cannot_reach_itself_is_told_from_a_silent_one() {
    let own = "10.244.0.11:53";
    let row = Dns {
        backend: Some(own.parse().unwrap()),
        ..dns(1, CLIENT, VIP)
    };
    assert_eq!(
        found(&[failed(row, Outcome::Unanswered, "no answer within 6 s")]),
        ["hairpin: pod 10.244.0.11"]
    );
}

/// What was asked is a Service that the API server knows.
fn kube_dns() -> Named {
    let service = ServiceName {
        port: Arc::new(ServicePortName {
            service: ObjectName {
                namespace: "kube-system".into(),
                name: "kube-dns".into(),
            },
            port: "dns".into(),
            via: Via::ClusterIp,
        }),
        source: Source::Api,
        age: Duration::ZERO,
    };
    let mut named = Named::default();
    named.asked.service = Some(service);
    named
}

#[test]
fn an_object_has_its_name_and_a_service_that_nothing_translates_is_named() {
    let named = kube_dns();
    let mut diagnoses = Diagnoses::default();
    let row = failed(
        dns(1, CLIENT, VIP),
        Outcome::Unanswered,
        "no answer within 6 s",
    );
    diagnoses.add(&row, &named);
    let findings = diagnoses.findings(&Breakdown::default(), &|_, _| false);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].name, "untranslated");
    assert_eq!(
        findings[0].object,
        "address 10.96.0.10:53 (kube-system/kube-dns)"
    );
}

#[test]
fn a_server_that_fails_for_want_of_its_upstream_server_is_one_finding() {
    let failed = |serial| Dns {
        rcode: Some(2),
        latency: Some(Duration::from_millis(1)),
        outcome: Outcome::Answered,
        ..dns(serial, CLIENT, VIP)
    };
    let upstream = Upstream {
        serial: 9,
        asked: "192.0.2.99:53".parse().unwrap(),
        latency: None,
        outcome: Outcome::Unanswered,
        rcode: None,
        queries: 2,
        waited: Duration::from_secs(2),
        inferred: false,
    };
    let waited = Row::Dns(Dns {
        upstream: Some(Box::new(upstream)),
        ..failed(1)
    });
    // From CoreDNS's cache.
    let soon = [2, 3, 4].map(|serial| Row::Dns(failed(serial)));
    let elsewhere = [5, 6, 7].map(|serial| {
        Row::Dns(Dns {
            asked: "10.96.0.12:53".parse().unwrap(),
            ..failed(serial)
        })
    });
    let rows = || [waited.clone()].into_iter().chain(soon.clone());
    let expected = "upstream_timeout: upstream server 192.0.2.99:53";
    assert_eq!(found(&rows().collect::<Vec<_>>()), [expected]);
    let all: Vec<_> = rows().chain(elsewhere).collect();
    assert_eq!(found(&all), [expected, "servfail: DNS at 10.96.0.12:53"]);
}

#[test]
fn what_conntrack_calls_invalid_is_a_way_of_one_direction_or_a_wrong_checksum() {
    let cause = "the kernel dropped the packet: NETFILTER_DROP in FORWARD, by nft_do_chain+0x1; \
                 conntrack's statistics there count 3 invalid within that second";
    let stalled = format!(
        "connected, and then nothing came: data was sent again 3 times within 1400 ms, without an answer; {cause}"
    );
    let expected = ["invalid_drop: connections to 10.96.0.12:80"];
    let latency = Some(Duration::from_millis(1));
    one_connection(Outcome::Dropped, latency, &stalled, &expected);
    one(Outcome::Dropped, cause, "bad_checksum: way to this node");
}

#[test]
fn a_rule_of_a_policy_engine_names_the_pod_that_it_guards() {
    let dropped = "the kernel dropped the query: NETFILTER_DROP in FORWARD, by nft_do_chain+0x1";
    let refused = "ICMP port unreachable from 10.244.0.1";
    let check = |outcome, cause: &str, rule: &str, expected: &str| {
        let named = Named {
            rule: Some(rule.into()),
            ..Named::default()
        };
        let row = failed(dns(1, CLIENT, "10.244.0.21:53"), outcome, cause);
        assert_eq!(found_of(&[row], &named), [expected]);
    };
    check(
        Outcome::Dropped,
        dropped,
        "ip filter cali-tw-cali1: -A cali-tw-cali1 -j DROP",
        "network_policy: traffic to 10.244.0.21:53",
    );
    check(
        Outcome::Dropped,
        dropped,
        "ip filter cali-fw-cali1: -A cali-fw-cali1 -j DROP",
        "network_policy: traffic of pod 10.244.0.11",
    );
    check(
        Outcome::Rejected,
        refused,
        "ip filter KUBE-POD-FW-A: -A KUBE-POD-FW-A -m comment --comment \"rule to REJECT traffic destined for POD name:web namespace: shop\" -j REJECT",
        "network_policy: traffic to 10.244.0.21:53",
    );
    check(
        Outcome::Dropped,
        dropped,
        "ip filter FORWARD: -A FORWARD -p udp -j DROP",
        "forward_drop: netfilter's hook FORWARD",
    );
}

#[test]
fn a_server_that_is_stopped_is_not_called_overloaded() {
    let cause = "no answer within 1 s: the query lies unread in the server's socket";
    let rows = [failed(dns(1, CLIENT, VIP), Outcome::Unanswered, cause)];
    let named = Named {
        held: Some("coredns[7] is frozen, with its cgroup".into()),
        ..Named::default()
    };
    assert_eq!(
        found_of(&rows, &named),
        ["server_paused: server 10.96.0.10:53"]
    );
    assert_eq!(found(&rows), ["server_overloaded: server 10.96.0.10:53"]);
}

#[test]
fn a_socket_that_is_not_translated_while_others_are_has_an_entry_older_than_the_rules() {
    let named = kube_dns();
    let silent = |serial| {
        failed(
            dns(serial, CLIENT, VIP),
            Outcome::Unanswered,
            "no answer within 1 s",
        )
    };
    let served = answered(dns(2, "10.244.0.11:40001", VIP), "10.244.1.2:53");
    let never = [silent(1), silent(3)];
    let address = "address 10.96.0.10:53 (kube-system/kube-dns)";
    assert_eq!(
        found_of(&never, &named),
        [format!("untranslated: {address}")]
    );
    let later = [silent(1), served.clone(), silent(3)];
    assert_eq!(
        found_of(&later, &named),
        [format!("untranslated_entry: {address}")]
    );
    // Before there were rules, and never since.
    let before = [silent(1), served];
    assert_eq!(
        found_of(&before, &named),
        [format!("untranslated: {address}")]
    );
}

#[test]
fn a_backend_that_answered_and_left_ended_early() {
    let refused = |serial, port: u16, cause: &str| {
        let mut row = dns(serial, &format!("10.244.0.11:{port}"), VIP);
        row.backend = Some("10.244.1.2:53".parse().unwrap());
        failed(row, Outcome::Rejected, cause)
    };
    let rows = [
        answered(dns(1, CLIENT, VIP), "10.244.1.2:53"),
        refused(2, 40001, "ICMP port unreachable from 10.244.1.2"),
        refused(3, 40002, "ICMP host unreachable from 10.244.0.1"),
        answered(dns(4, CLIENT, VIP), "10.244.2.2:53"),
    ];
    let found = |left: &Left<'_>| {
        let mut diagnoses = Diagnoses::default();
        let trace = Trace::default();
        for row in &rows {
            diagnoses.add(row, &Named::default());
        }
        let findings = diagnoses.findings(&trace.breakdown, left);
        let told = findings.iter().map(|finding| {
            let share = finding.evidence[0].clone();
            format!("{}: {}, {share}", finding.name, finding.object)
        });
        told.collect::<Vec<_>>()
    };
    let all = found(&|_, _| true);
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(
        all[0].starts_with("ended_early: backend 10.244.1.2, 2 of 4 queries"),
        "{all:?}"
    );
    assert_eq!(found(&|_, _| false).len(), 2);
}

#[test]
fn a_cache_on_the_node_that_does_not_answer_is_named_as_such() {
    let mut named = Named::default();
    named.asked.local_dns = true;
    let check = |outcome, cause: &str, expected: &str| {
        let rows = [failed(dns(1, CLIENT, "169.254.20.10:53"), outcome, cause)];
        assert_eq!(found_of(&rows, &named), [expected]);
    };
    let cache = "node_cache: NodeLocal DNSCache at 169.254.20.10:53";
    check(
        Outcome::Rejected,
        "ICMP port unreachable from 169.254.20.10",
        cache,
    );
    check(Outcome::Unanswered, "no answer within 1 s", cache);
    check(
        Outcome::Unanswered,
        "no answer within 1 s: node-cache[7] read the query 1 ms after it came, and sent none",
        "server_silent: server 169.254.20.10:53",
    );
}

#[test]
fn servers_that_are_asked_at_once_and_disagree_are_told_of_their_client() {
    // Each asked within a millisecond; the answers' rcodes in turn.
    let ask = |serial: u64, port: u16, rcodes: [u16; 2], apart: u64| {
        let client = format!("10.244.0.11:{port}");
        [(0, VIP), (1, "192.0.2.53:53")].map(|(number, server)| {
            let mut row = dns(serial, &client, server);
            row.ktime = KtimeNs(serial * 1_000_000_000 + number * apart);
            row.outcome = Outcome::Answered;
            row.rcode = Some(rcodes[usize::try_from(number).unwrap()]);
            row.latency = Some(Duration::from_millis(1));
            Row::Dns(row)
        })
    };
    // As few as are told, so that each must count, the first among them.
    let many = |rcodes, apart| {
        let asks = (1..4).map(|serial| ask(serial, 40_000, rcodes, apart));
        found(&asks.collect::<Vec<_>>().concat())
    };
    assert_eq!(
        many([0, 3], 100_000),
        ["servers_disagree: client 10.244.0.11"]
    );
    assert_eq!(
        many([3, 0], 100_000),
        ["servers_disagree: client 10.244.0.11"]
    );
    // One after the other, as glibc asks; and servers that agree.
    assert_eq!(many([0, 3], 100_000_000), [""; 0]);
    assert_eq!(many([3, 3], 100_000), [""; 0]);
    // Whoever comes after more clients than are remembered is told of, too.
    let crowd = (0..2_000_u64).map(|number| {
        let client = format!("10.245.{}.{}:40000", number / 250, number % 250);
        let mut row = dns(number, &client, VIP);
        row.outcome = Outcome::Answered;
        row.rcode = Some(0);
        Row::Dns(row)
    });
    let late = (1..4).flat_map(|serial| ask(serial, 40_000, [0, 3], 100_000));
    assert_eq!(
        found(&crowd.chain(late).collect::<Vec<_>>()),
        ["servers_disagree: client 10.244.0.11"]
    );
}
