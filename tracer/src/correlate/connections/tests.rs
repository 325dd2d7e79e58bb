//! Connections: what is seen of them, and the rows that come of it.

use super::super::{Settings, scenario::*};
use crate::model::SocketEvent;

const WEB: &str = "10.96.0.1:443";
const ENDPOINT: &str = "192.0.2.80:8443";

/// What a segment's sights have in common.
#[derive(Clone, Copy)]
struct Tcp {
    client: &'static str,
    vip: &'static str,
    endpoint: &'static str,
}

const TCP: Tcp = Tcp {
    client: CLIENT,
    vip: WEB,
    endpoint: ENDPOINT,
};

impl Tcp {
    /// From the client's pod through the node to the endpoint's.
    fn there(self, flags: u8, seq: u32) -> [At; 4] {
        let Tcp {
            client,
            vip,
            endpoint,
        } = self;
        [
            queued(POD, 2).tcp(client, vip, flags, seq).sender(100),
            received(NODE, 10).tcp(client, vip, flags, seq),
            queued(NODE, 11)
                .tcp(client, endpoint, flags, seq)
                .conntrack((client, vip), (endpoint, client)),
            received(SERVER, 2).tcp(client, endpoint, flags, seq),
        ]
    }

    fn back(self, flags: u8) -> [At; 4] {
        let Tcp {
            client,
            vip,
            endpoint,
        } = self;
        [
            queued(SERVER, 2)
                .tcp(endpoint, client, flags, 9)
                .sender(200),
            received(NODE, 11).tcp(endpoint, client, flags, 9),
            queued(NODE, 10)
                .tcp(vip, client, flags, 9)
                .conntrack((client, vip), (endpoint, client)),
            received(POD, 2).tcp(vip, client, flags, 9),
        ]
    }

    fn first_byte(self) -> [At; 4] {
        self.back(PSH).map(|at| at.payload(vec![1]))
    }
}

fn vips() -> Settings {
    Settings {
        vips: vec![("10.96.0.0".parse().unwrap(), 12)],
        drop_names: drop_names([(9, "NETFILTER_DROP")]),
        ..Settings::default()
    }
}

#[test]
fn a_connection_has_its_handshake_and_its_first_byte() {
    let mut scene = Scene::new();
    scene
        .see(TCP.there(SYN, 1))
        .see(TCP.back(SYN_ACK))
        .see(TCP.first_byte());
    scene.see(TCP.there(FIN, 2)).see(TCP.back(FIN));
    scene
        .wait(20_000)
        .shows(&["1 tcp 10.96.0.1:443 via 192.0.2.80:8443: answered in 70 µs, first byte 110 µs"]);
    assert_eq!(scene.rows[0].client().sender, Some(sender(100)));
}

#[test]
fn a_server_that_says_nothing_makes_a_row_without_first_byte() {
    let mut scene = Scene::new();
    scene.see(TCP.there(SYN, 1)).see(TCP.back(SYN_ACK));
    scene.wait(900).shows(&[]);
    scene
        .wait(400)
        .shows(&["1 tcp 10.96.0.1:443 via 192.0.2.80:8443: answered in 70 µs"]);
}

#[test]
fn the_clients_close_ends_it() {
    let mut scene = Scene::new();
    scene
        .see(TCP.there(SYN, 1))
        .see(TCP.back(SYN_ACK))
        .see(TCP.there(FIN, 2));
    scene.shows(&["1 tcp 10.96.0.1:443 via 192.0.2.80:8443: answered in 70 µs"]);
}

#[test]
fn the_clients_reset_after_the_handshake_is_no_failure() {
    let mut scene = Scene::new();
    scene
        .see(TCP.there(SYN, 1))
        .see(TCP.back(SYN_ACK))
        .see(TCP.there(RST, 2));
    scene
        .wait(20_000)
        .shows(&["1 tcp 10.96.0.1:443 via 192.0.2.80:8443: answered in 70 µs"]);
}

#[test]
fn a_syn_sent_again_is_counted_by_its_socket() {
    let mut scene = Scene::new();
    let again = socket(SocketEvent::Retransmitted, 100, CLIENT, WEB);
    scene
        .see(TCP.there(SYN, 1))
        .fact(again)
        .see(TCP.there(SYN, 1));
    scene.see(TCP.back(SYN_ACK)).see(TCP.first_byte());
    scene.shows(&[
        "1 tcp 10.96.0.1:443 via 192.0.2.80:8443: answered in 120 µs, first byte 160 µs, 1 sent again",
    ]);
}

#[test]
fn a_syn_sent_again_by_another_node_is_counted_where_it_arrives() {
    let mut scene = Scene::new();
    let hops = || TCP.there(SYN, 1).into_iter().skip(1);
    scene.see(hops()).see(hops()).wait(7000);
    scene.shows(&[
        "1 tcp 10.96.0.1:443 via 192.0.2.80:8443: unanswered, 1 sent again: no answer within 6 s; the SYN was sent again once",
    ]);
}

#[test]
fn a_reset_to_the_syn_is_a_row() {
    let mut scene = Scene::new();
    scene.see(TCP.there(SYN, 1)).see(TCP.back(RST));
    scene.wait(20_000).shows(&[
        "1 tcp 10.96.0.1:443 via 192.0.2.80:8443: reset: reset by 192.0.2.80 to the first packet",
    ]);
}

#[test]
fn a_reset_after_the_handshake_is_not_taken_back() {
    let mut scene = Scene::new();
    scene
        .see(TCP.there(SYN, 1))
        .see(TCP.back(SYN_ACK))
        .see(TCP.back(RST));
    scene.wait(20_000).shows(&[
        "1 tcp 10.96.0.1:443 via 192.0.2.80:8443: reset in 70 µs: reset by 192.0.2.80 after the handshake",
    ]);
}

#[test]
fn a_handshake_after_the_row_amends_it() {
    let mut scene = Scene::new();
    scene
        .see(TCP.there(SYN, 1))
        .wait(7000)
        .see(TCP.back(SYN_ACK))
        .wait(2000);
    scene.shows(&[
        "1 tcp 10.96.0.1:443 via 192.0.2.80:8443: unanswered: no answer within 6 s",
        "2 tcp 10.96.0.1:443 via 192.0.2.80:8443: answered in 7000070 µs, amends 1",
    ]);
}

#[test]
fn nothing_is_amended_that_was_not_shown() {
    let mut scene = Scene::with(vips());
    let direct = Tcp {
        vip: ENDPOINT,
        ..TCP
    };
    scene
        .see([queued(POD, 2).tcp(CLIENT, ENDPOINT, SYN, 1).sender(100)])
        .wait(7000);
    scene
        .see(direct.back(SYN_ACK).into_iter().skip(3))
        .wait(2000)
        .shows(&[]);
}

#[test]
fn ports_used_again_begin_another_connection() {
    let mut scene = Scene::new();
    scene
        .see(TCP.there(SYN, 1))
        .wait(1000)
        .see(TCP.there(SYN, 500));
    scene.see(TCP.back(SYN_ACK)).see(TCP.first_byte());
    scene.shows(&[
        "1 tcp 10.96.0.1:443 via 192.0.2.80:8443: unanswered: no answer until the client used its port anew",
        "2 tcp 10.96.0.1:443 via 192.0.2.80:8443: answered in 70 µs, first byte 110 µs",
    ]);
}

#[test]
fn a_hairpin_comes_back_to_its_own_pod() {
    const MASKED: &str = "198.51.100.1:61000";
    let entry = ((CLIENT, WEB), ("192.0.2.1:8443", MASKED));
    let own = "192.0.2.1:8443";
    let mut scene = Scene::new();
    scene.see([
        queued(POD, 2).tcp(CLIENT, WEB, SYN, 1).sender(100),
        queued(NODE, 10)
            .tcp(MASKED, own, SYN, 1)
            .conntrack(entry.0, entry.1),
        received(POD, 2).tcp(MASKED, own, SYN, 1),
        queued(POD, 2).tcp(own, MASKED, SYN_ACK, 9).sender(100),
        received(NODE, 10).tcp(own, MASKED, SYN_ACK, 9),
        received(POD, 2).tcp(WEB, CLIENT, SYN_ACK, 9),
        queued(POD, 2).tcp(CLIENT, WEB, FIN, 2).sender(100),
    ]);
    scene.shows(&["1 tcp 10.96.0.1:443 via 192.0.2.1:8443: answered in 50 µs"]);
}

#[test]
fn equal_ports_to_different_vips_are_different_connections() {
    let other = Tcp {
        vip: "10.96.0.2:443",
        endpoint: "192.0.2.81:8443",
        ..TCP
    };
    let mut scene = Scene::new();
    scene.see(TCP.there(SYN, 1)).see(other.there(SYN, 1));
    scene.see(other.back(SYN_ACK)).see(TCP.back(SYN_ACK));
    scene.see(TCP.there(FIN, 2)).see(other.there(FIN, 2));
    scene.shows(&[
        "1 tcp 10.96.0.1:443 via 192.0.2.80:8443: answered in 150 µs",
        "2 tcp 10.96.0.2:443 via 192.0.2.81:8443: answered in 70 µs",
    ]);
}

#[test]
fn a_translation_unseen_is_told_by_the_sequence_number() {
    let mut scene = Scene::new();
    let [sent, at_node, _, served] = TCP.there(SYN, 77);
    let [.., home] = TCP.back(SYN_ACK);
    scene.see([sent, at_node, served, home]).wait(2000);
    scene.shows(&["1 tcp 10.96.0.1:443 via 192.0.2.80:8443: answered in 30 µs"]);
}

#[test]
fn a_connection_turned_away_before_any_device_is_one_row_with_its_client() {
    let mut scene = Scene::with(vips());
    let quoted = queued(POD, 2).tcp(CLIENT, WEB, SYN, 1);
    let connecting = socket(SocketEvent::Connecting, 100, "192.0.2.1:0", WEB);
    scene.fact(connecting).see([
        queued(POD, 1).icmp(3, 3, "192.0.2.1", &quoted),
        received(POD, 1).icmp(3, 3, "192.0.2.1", &quoted),
        dropped(POD, 0, 9).tcp(CLIENT, WEB, SYN, 1).sender(100),
    ]);
    scene
        .wait(20_000)
        .shows(&["1 tcp 10.96.0.1:443: rejected: ICMP port unreachable from 192.0.2.1"]);
    assert_eq!(scene.rows[0].client().sender, Some(sender(100)));
}

#[test]
fn who_was_to_get_what_a_rule_rejects_is_told_by_the_error() {
    let mut scene = Scene::with(vips());
    let syn = queued(POD, 2).tcp(CLIENT, WEB, SYN, 1).sender(100);
    let error = queued(NODE, 11).icmp(3, 3, "10.96.0.1", &syn);
    scene.see([
        syn,
        received(NODE, 11).tcp(CLIENT, WEB, SYN, 1),
        error.conntrack((CLIENT, WEB), (ENDPOINT, CLIENT)),
    ]);
    scene.shows(&[
        "1 tcp 10.96.0.1:443 via 192.0.2.80:8443: rejected: ICMP port unreachable from 10.96.0.1",
    ]);
}

#[test]
fn an_error_about_an_established_connection_makes_no_row() {
    let mut scene = Scene::new();
    let quoted = queued(POD, 2).tcp(CLIENT, WEB, PSH, 50);
    scene.see([received(POD, 2).icmp(3, 1, "192.0.2.254", &quoted)]);
    scene.wait(20_000).shows(&[]);
}

#[test]
fn a_dropped_syn_tells_the_kernels_reason() {
    let mut scene = Scene::with(vips());
    scene.see([
        queued(POD, 2).tcp(CLIENT, WEB, SYN, 1).sender(100),
        dropped(NODE, 10, 9).tcp(CLIENT, WEB, SYN, 1),
    ]);
    scene
        .wait(7000)
        .shows(&["1 tcp 10.96.0.1:443: dropped: the kernel dropped the SYN: NETFILTER_DROP"]);
}

#[test]
fn where_vips_are_known_failures_to_others_are_no_rows() {
    let mut scene = Scene::with(vips());
    scene.see([queued(POD, 2).tcp(CLIENT, ENDPOINT, SYN, 1).sender(100)]);
    scene.see([queued(POD, 2).tcp(CLIENT, WEB, SYN, 1).sender(100)]);
    scene
        .wait(7000)
        .shows(&["2 tcp 10.96.0.1:443: unanswered: no answer within 6 s: it was last seen leaving for 10.96.0.1, and nothing came back"]);
}

#[test]
fn where_no_vips_are_known_every_failure_is_a_row() {
    let mut scene = Scene::new();
    scene.see([queued(POD, 2).tcp(CLIENT, ENDPOINT, SYN, 1).sender(100)]);
    scene
        .wait(7000)
        .shows(&["1 tcp 192.0.2.80:8443: unanswered: no answer within 6 s: it was last seen leaving for 192.0.2.80, and nothing came back"]);
}

#[test]
fn a_connection_to_no_service_is_no_row() {
    let mut scene = Scene::new();
    scene.see([
        queued(POD, 2).tcp(CLIENT, ENDPOINT, SYN, 1).sender(100),
        received(POD, 2).tcp(ENDPOINT, CLIENT, SYN_ACK, 9),
    ]);
    scene.wait(20_000).shows(&[]);
}

#[test]
fn connections_to_dns_are_quiet_unless_they_fail() {
    let dns = Tcp {
        vip: VIP,
        endpoint: BACKEND,
        ..TCP
    };
    let mut scene = Scene::new();
    scene
        .see(dns.there(SYN, 1))
        .see(dns.back(SYN_ACK))
        .see(dns.there(FIN, 2));
    scene.wait(1000).shows(&[]);
    scene.see(dns.there(SYN, 100)).see(dns.back(RST));
    scene.shows(&[
        "2 tcp 10.96.0.10:53 via 192.0.2.53:53: reset: reset by 192.0.2.53 to the first packet",
    ]);
}

#[test]
fn dns_over_tcp_is_paired_by_message() {
    let dns = Tcp {
        vip: VIP,
        endpoint: BACKEND,
        ..TCP
    };
    let carried = |hops: [At; 4], message: Vec<u8>| hops.map(|at| at.payload(framed(&message)));
    let mut scene = Scene::new();
    let connecting = socket(SocketEvent::Connecting, 100, "192.0.2.1:0", VIP);
    scene
        .fact(connecting)
        .see(dns.there(SYN, 1))
        .see(dns.back(SYN_ACK));
    scene.see(carried(dns.there(PSH, 2), query(1, "a.example", A)));
    let hops = dns.back(PSH).map(|mut at| {
        if let crate::model::Transport::Tcp { seq, .. } = &mut at.0.transport {
            *seq = 10;
        }
        at
    });
    scene
        .see(carried(hops, answer(1, "a.example", A)))
        .wait(7000);
    scene.shows(&["2 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 70 µs"]);
    assert_eq!(scene.rows[0].client().sender, Some(sender(100)));
    assert_eq!(scene.unplaced(), Default::default());
}

const SYSLOG: &str = "10.96.0.5:514";
const LOGGER: &str = "192.0.2.14:5140";

fn logged() -> [At; 2] {
    [
        queued(POD, 2).udp(CLIENT, SYSLOG).sender(100),
        queued(NODE, 11)
            .udp(CLIENT, LOGGER)
            .conntrack((CLIENT, SYSLOG), (LOGGER, CLIENT)),
    ]
}

#[test]
fn a_udp_flow_may_go_one_way() {
    let mut scene = Scene::new();
    scene.see(logged()).wait(20_000);
    scene.shows(&["1 udp 10.96.0.5:514 via 192.0.2.14:5140: one_way"]);
}

#[test]
fn a_udp_flow_is_answered() {
    let mut scene = Scene::new();
    scene.see(logged()).see([
        received(NODE, 11).udp(LOGGER, CLIENT),
        received(POD, 2).udp(SYSLOG, CLIENT),
    ]);
    scene
        .wait(20_000)
        .shows(&["1 udp 10.96.0.5:514 via 192.0.2.14:5140: answered in 30 µs"]);
}

#[test]
fn a_udp_flow_dropped_before_any_device_is_a_row() {
    let mut scene = Scene::with(vips());
    scene.see([dropped(POD, 0, 9).udp(CLIENT, SYSLOG).sender(100)]);
    scene
        .wait(7000)
        .shows(&["1 udp 10.96.0.5:514: dropped: it never left the client: the kernel dropped the packet: NETFILTER_DROP"]);
}
