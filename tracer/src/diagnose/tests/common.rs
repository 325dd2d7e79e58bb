//! Findings of one common cause, and those that names alone tell.

use super::*;
use crate::model::{Comm, Sender, SockId, verdict::Verdict};

/// Not ready any more, it is no endpoint any more.
#[test]
fn a_service_without_endpoints_is_told_with_its_server_that_hangs() {
    let unread = |serial| {
        Row::Dns(Dns {
            backend: Some("10.244.1.2:53".parse().unwrap()),
            cause: Some(
                "no answer within 1 s: the query lies unread in the server's socket".to_owned(),
            ),
            ..dns(serial, CLIENT, VIP)
        })
    };
    let turned_away = |serial, asked| {
        Row::Dns(Dns {
            outcome: Outcome::Rejected,
            cause: Some("ICMP port unreachable from 10.244.1.1".to_owned()),
            ..dns(serial, CLIENT, asked)
        })
    };
    let expected = "server_overloaded: server 10.244.1.2:53";
    let rows = [unread(1), unread(2), unread(3), turned_away(4, VIP)];
    assert_eq!(found(&rows), [expected]);
    let other = "10.96.0.12:53";
    let rows = [unread(1), unread(2), unread(3), turned_away(4, other)];
    assert_eq!(found(&rows), [expected, "no_endpoints: Service 10.96.0.12"]);
}

/// Whatever became of its packets, a new connection to what is no endpoint was led there by old rules.
#[test]
fn new_connections_to_what_is_no_endpoint_are_the_rules_fault() {
    let led = |serial, protocol| {
        Row::Connection(Connection {
            protocol,
            backend: Some("10.244.1.9:8080".parse().unwrap()),
            outcome: Outcome::Dropped,
            cause: Some("the kernel dropped the SYN: XFRM_POLICY, by ip6_forward+0x1".to_owned()),
            ..connection(serial)
        })
    };
    let rows = |protocol| [1, 2, 3].map(|serial| led(serial, protocol));
    let named = |verdict| Named {
        verdict,
        ..Named::default()
    };
    let stale = named(Some(Verdict::Stale(Duration::from_secs(9))));
    let expected = ["stale_rules: Service 10.96.0.12:80"];
    assert_eq!(found_of(&rows(Protocol::Tcp), &stale), expected);
    let never = named(Some(Verdict::NotAnEndpoint));
    assert_eq!(found_of(&rows(Protocol::Tcp), &never), expected);
    let dropped = ["kernel_drop: traffic to 10.96.0.12:80"];
    assert_eq!(found_of(&rows(Protocol::Udp), &stale), dropped);
    let right = named(Some(Verdict::Right));
    assert_eq!(found_of(&rows(Protocol::Tcp), &right), dropped);
}

/// A and AAAA go to one backend, and are sent again there: that alone is no old conntrack entry.
#[test]
fn a_silent_endpoint_is_told_from_one_that_is_gone_and_still_asked() {
    let gone = "10.244.0.99:53";
    let rows = |sockets: u16| {
        let silent = (0..sockets).flat_map(|socket| {
            let client = format!("10.244.0.11:{}", 41_000 + socket);
            [1, 2].map(|serial| {
                Row::Dns(Dns {
                    backend: Some(gone.parse().unwrap()),
                    cause: Some("no answer within 6 s".to_owned()),
                    ..dns(serial, &client, VIP)
                })
            })
        });
        let other = answered(dns(9, CLIENT, VIP), "10.244.0.2:53");
        silent.chain([other]).collect::<Vec<_>>()
    };
    let stale = ["stale_conntrack: backend 10.244.0.99"];
    let silent = ["backend_silent: backend 10.244.0.99"];
    assert_eq!(found(&rows(1)), stale);
    assert_eq!(found(&rows(9)), silent);
    let named = |verdict| Named {
        verdict: Some(verdict),
        ..Named::default()
    };
    assert_eq!(found_of(&rows(1), &named(Verdict::Right)), silent);
    let left = named(Verdict::Stale(Duration::from_secs(9)));
    assert_eq!(found_of(&rows(9), &left), stale);
}

/// Ordinary while a pod starts.
#[test]
fn a_probe_of_the_kubelets_that_is_refused_is_no_finding() {
    let refused = |comm: &[u8; 16]| {
        let mut row = Connection {
            outcome: Outcome::Reset,
            cause: Some("reset by 10.244.1.9".to_owned()),
            ..connection(1)
        };
        row.client.sender = Some(Sender {
            pid: Some(1),
            comm: Comm(*comm),
            cgroup: None,
            sock: SockId(1),
        });
        found(&[Row::Connection(row)])
    };
    assert_eq!(refused(b"kubelet\0\0\0\0\0\0\0\0\0"), [""; 0]);
    let other = ["backend_refuses: backend 10.96.0.12:80"];
    assert_eq!(refused(b"envoy\0\0\0\0\0\0\0\0\0\0\0"), other);
}
