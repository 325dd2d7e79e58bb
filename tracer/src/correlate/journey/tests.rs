//! Journeys of every shape: what they are made of, stage by stage.

use super::super::{Settings, scenario::*};
use crate::model::{
    Journey, Row,
    journey::{Stage, Step},
};

const ASK: &str = "a.example";
const WEB: &str = "10.96.0.80:80";
const WEB_BACKEND: &str = "192.0.2.80:8080";

/// Stages of a journey by leg, then what was unseen: `query: client_link 10, node 20; …`, in µs.
pub(in crate::correlate) fn story(journey: &Journey) -> String {
    let mut story = String::new();
    let mut leg = None;
    for (step, begin, end) in journey.spans() {
        if leg == Some(step.leg) {
            story += ", ";
        } else {
            story += if leg.is_some() { "; " } else { "" };
            story = story + step.leg.name() + ": ";
            leg = Some(step.leg);
        }
        let micros = (end.ktime - begin.ktime).as_micros();
        story = story + step.stage.name() + " " + &micros.to_string();
    }
    // These scenes have no sockets; those have tests of their own.
    let is_socket = |step: &&Step| {
        use Stage::{BackendInput, BackendQueue, ClientInput, ClientQueue};
        matches!(
            step.stage,
            BackendInput | BackendQueue | ClientInput | ClientQueue
        )
    };
    let unseen: Vec<_> = journey
        .unseen
        .iter()
        .filter(|step| !is_socket(step))
        .map(|step| format!("{} {}", step.leg.name(), step.stage.name()))
        .collect();
    if !unseen.is_empty() {
        story = story + "; unseen " + &unseen.join(", ");
    }
    if journey.left_out > 0 {
        story = story + "; " + &journey.left_out.to_string() + " left out";
    }
    story
}

/// The only row's journey; its stages add up to what was measured from end to end.
#[track_caller]
fn journey(rows: &[Row]) -> Journey {
    assert_eq!(rows.len(), 1, "{rows:#?}");
    let journey = rows[0].journey().expect("it was seen").clone();
    let sum: std::time::Duration = journey
        .spans()
        .map(|(_, begin, end)| end.ktime - begin.ktime)
        .sum();
    assert_eq!(sum, journey.duration());
    let measured = match &rows[0] {
        Row::Dns(row) => row.latency,
        Row::Connection(row) => row.first_byte.or(row.latency),
    };
    if let Some(measured) = measured {
        assert_eq!(sum, measured);
    }
    journey
}

/// All sights of one exchange, by what query and answer pass.
/// A scene that follows paths.
fn following() -> Scene {
    Scene::with(Settings {
        paths: true,
        ..Settings::default()
    })
}

#[track_caller]
fn check(sights: impl IntoIterator<Item = At>, expected: &str) -> Journey {
    let mut scene = following();
    scene.see(sights).wait(20_000);
    let journey = journey(&scene.rows);
    assert_eq!(story(&journey), expected);
    journey
}

fn ask(at: At) -> At {
    at.dns(query(1, ASK, A))
}

fn reply(at: At) -> At {
    at.dns(answer(1, ASK, A))
}

fn there() -> [At; 4] {
    asking(CLIENT, &query(1, ASK, A))
}

fn back() -> [At; 4] {
    answering(CLIENT, &answer(1, ASK, A))
}

#[test]
fn query_and_answer_pass_link_node_and_link_each() {
    let journey = check(
        there().into_iter().chain(back()),
        "query: client_link 10, node 10, backend_link 10; \
         answer: backend 10, backend_link 10, node 10, client_link 10",
    );
    let flows: Vec<_> = journey
        .spans()
        .filter_map(|(_, _, end)| journey.flow(end))
        .map(|flow| flow.dst.to_string())
        .collect();
    let (vip, backend) = (VIP, BACKEND);
    let expected = [vip, backend, backend, backend, backend, vip, vip];
    assert_eq!(flows, expected, "DNAT lies in the node, both ways");
}

#[test]
fn bridge_and_its_ports_are_one_stay_in_the_node() {
    let entry = |at: At| at.conntrack((CLIENT, VIP), (BACKEND, CLIENT));
    check(
        [
            ask(queued(POD, 2).udp(CLIENT, VIP)).sender(100),
            ask(received(NODE, 10).udp(CLIENT, VIP)),
            ask(received(NODE, 5).udp(CLIENT, VIP)),
            ask(entry(queued(NODE, 5).udp(CLIENT, BACKEND))),
            ask(entry(queued(NODE, 11).udp(CLIENT, BACKEND))),
            ask(received(SERVER, 2).udp(CLIENT, BACKEND)),
            reply(queued(SERVER, 2).udp(BACKEND, CLIENT)).sender(200),
            reply(received(NODE, 11).udp(BACKEND, CLIENT)),
            reply(received(NODE, 5).udp(BACKEND, CLIENT)),
            reply(entry(queued(NODE, 5).udp(VIP, CLIENT))),
            reply(entry(queued(NODE, 10).udp(VIP, CLIENT))),
            reply(received(POD, 2).udp(VIP, CLIENT)),
        ],
        "query: client_link 10, node 30, backend_link 10; \
         answer: backend 10, backend_link 10, node 30, client_link 10",
    );
}

#[test]
fn a_client_and_its_server_on_one_veth_pair_have_a_link_between_them() {
    check(
        [
            ask(queued(POD, 2).udp(CLIENT, BACKEND)).sender(100),
            ask(received(SERVER, 2).udp(CLIENT, BACKEND)),
            reply(queued(SERVER, 2).udp(BACKEND, CLIENT)).sender(200),
            reply(received(POD, 2).udp(BACKEND, CLIENT)),
        ],
        "query: link 10; answer: backend 10, link 10",
    );
}

#[test]
fn loopback_is_a_link_within_one_namespace() {
    let local = "127.0.0.1:40000";
    let server = "127.0.0.1:53";
    check(
        [
            ask(queued(POD, 1).udp(local, server)).sender(100),
            ask(received(POD, 1).udp(local, server)),
            reply(queued(POD, 1).udp(server, local)).sender(100),
            reply(received(POD, 1).udp(server, local)),
        ],
        "query: link 10; answer: backend 10, link 10",
    );
}

/// Its own VIP is translated before the first device; bridge and port are both the client's.
#[test]
fn the_nodes_own_query_leaves_by_the_nodes_devices() {
    let entry = |at: At| at.conntrack((CLIENT, VIP), (BACKEND, CLIENT));
    check(
        [
            ask(entry(queued(NODE, 5).udp(CLIENT, BACKEND))).sender(100),
            ask(entry(queued(NODE, 11).udp(CLIENT, BACKEND))),
            ask(received(SERVER, 2).udp(CLIENT, BACKEND)),
            reply(queued(SERVER, 2).udp(BACKEND, CLIENT)).sender(200),
            reply(received(NODE, 11).udp(BACKEND, CLIENT)),
        ],
        "query: client_devices 10, link 10; answer: backend 10, link 10",
    );
}

#[test]
fn a_backend_on_the_host_network_is_behind_the_clients_link() {
    let entry = |at: At| at.conntrack((CLIENT, VIP), (BACKEND, CLIENT));
    check(
        [
            ask(queued(POD, 2).udp(CLIENT, VIP)).sender(100),
            ask(received(NODE, 10).udp(CLIENT, VIP)),
            ask(received(NODE, 5).udp(CLIENT, VIP)),
            reply(entry(queued(NODE, 5).udp(VIP, CLIENT))).sender(200),
            reply(entry(queued(NODE, 10).udp(VIP, CLIENT))),
            reply(received(POD, 2).udp(VIP, CLIENT)),
        ],
        "query: link 10, backend_devices 10; answer: backend 10, backend_devices 10, link 10",
    );
}

/// A pod that asks the VIP of which it is the backend.
#[test]
fn a_hairpin_comes_back_to_the_namespace_it_left() {
    let masqueraded = "192.0.2.254:40000";
    let entry = |at: At| at.conntrack((CLIENT, VIP), (BACKEND, masqueraded));
    check(
        [
            ask(queued(POD, 2).udp(CLIENT, VIP)).sender(100),
            ask(received(NODE, 10).udp(CLIENT, VIP)),
            ask(entry(queued(NODE, 10).udp(masqueraded, BACKEND))),
            ask(received(POD, 2).udp(masqueraded, BACKEND)),
            reply(queued(POD, 2).udp(BACKEND, masqueraded)).sender(200),
            reply(received(NODE, 10).udp(BACKEND, masqueraded)),
            reply(entry(queued(NODE, 10).udp(VIP, CLIENT))),
            reply(received(POD, 2).udp(VIP, CLIENT)),
        ],
        "query: client_link 10, node 10, backend_link 10; \
         answer: backend 10, backend_link 10, node 10, client_link 10",
    );
}

#[test]
fn a_backend_on_another_node_is_behind_the_wire() {
    let entry = |at: At| at.conntrack((CLIENT, VIP), (BACKEND, CLIENT));
    let journey = check(
        [
            ask(queued(POD, 2).udp(CLIENT, VIP)).sender(100),
            ask(received(NODE, 10).udp(CLIENT, VIP)),
            ask(entry(queued(NODE, 3).udp(CLIENT, BACKEND))),
            reply(received(NODE, 3).udp(BACKEND, CLIENT)),
            reply(entry(queued(NODE, 10).udp(VIP, CLIENT))),
            reply(received(POD, 2).udp(VIP, CLIENT)),
        ],
        "query: client_link 10, node 10; answer: wire 10, node 10, client_link 10; \
         unseen query backend_link, answer backend, answer backend_link",
    );
    let (_, leaves, _) = journey.spans().nth(2).unwrap();
    let to = journey.flow(leaves).unwrap().dst;
    assert_eq!(to, BACKEND.parse().unwrap());
}

#[test]
fn a_client_on_another_node_has_links_that_nobody_saw() {
    let entry = |at: At| at.conntrack((CLIENT, VIP), (BACKEND, CLIENT));
    check(
        [
            ask(received(NODE, 3).udp(CLIENT, VIP)),
            ask(entry(queued(NODE, 11).udp(CLIENT, BACKEND))),
            ask(received(SERVER, 2).udp(CLIENT, BACKEND)),
            reply(queued(SERVER, 2).udp(BACKEND, CLIENT)).sender(200),
            reply(received(NODE, 11).udp(BACKEND, CLIENT)),
            reply(entry(queued(NODE, 3).udp(VIP, CLIENT))),
        ],
        "query: node 10, backend_link 10; answer: backend 10, backend_link 10, node 10; \
         unseen query client_link, answer client_link",
    );
}

/// Where one kernel plays two nodes.
#[test]
fn two_nodes_have_a_link_between_them() {
    const OTHER: u32 = 4;
    check(
        [
            ask(queued(POD, 2).udp(CLIENT, BACKEND)).sender(100),
            ask(received(NODE, 10).udp(CLIENT, BACKEND)),
            ask(queued(NODE, 3).udp(CLIENT, BACKEND)),
            ask(received(OTHER, 3).udp(CLIENT, BACKEND)),
            ask(queued(OTHER, 11).udp(CLIENT, BACKEND)),
            ask(received(SERVER, 2).udp(CLIENT, BACKEND)),
            reply(queued(SERVER, 2).udp(BACKEND, CLIENT)).sender(200),
            reply(received(OTHER, 11).udp(BACKEND, CLIENT)),
            reply(queued(OTHER, 3).udp(BACKEND, CLIENT)),
            reply(received(NODE, 3).udp(BACKEND, CLIENT)),
            reply(queued(NODE, 10).udp(BACKEND, CLIENT)),
            reply(received(POD, 2).udp(BACKEND, CLIENT)),
        ],
        "query: client_link 10, node 10, link 10, node 10, backend_link 10; \
         answer: backend 10, backend_link 10, node 10, link 10, node 10, client_link 10",
    );
}

/// A bridge that does not know the backend's port yet sends to all, and each of them receives.
#[test]
fn clones_that_a_bridge_floods_are_left_out() {
    const NEIGHBOUR: u32 = 7;
    let [sent, taken, out, arrives] = there();
    let flooded = |at: At| ask(at.udp(CLIENT, BACKEND)).skb(0xc1);
    let neighbour = flooded(received(NEIGHBOUR, 2));
    let stages = "query: client_link 10, node 20, backend_link 20; \
         answer: backend 10, backend_link 10, node 10, client_link 10; 1 left out";
    check(
        [
            sent.clone(),
            taken.clone(),
            flooded(queued(NODE, 17)),
            out.clone(),
            neighbour.clone(),
            arrives.clone(),
        ]
        .into_iter()
        .chain(back()),
        stages,
    );
    // It may arrive in between, or last.
    check(
        [
            sent.clone(),
            taken.clone(),
            flooded(queued(NODE, 17)),
            neighbour.clone(),
            out.clone(),
            arrives.clone(),
        ]
        .into_iter()
        .chain(back()),
        "query: client_link 10, node 30, backend_link 10; \
         answer: backend 10, backend_link 10, node 10, client_link 10; 1 left out",
    );
    check(
        [
            sent,
            taken,
            flooded(queued(NODE, 17)),
            out,
            arrives,
            neighbour,
        ]
        .into_iter()
        .chain(back()),
        "query: client_link 10, node 20, backend_link 10; \
         answer: backend 20, backend_link 10, node 10, client_link 10; 1 left out",
    );
}

/// A packet that is put straight into a pod is received there without being seen, as by
/// `bpf_redirect_peer`.
#[test]
fn what_is_put_straight_into_a_pod_has_a_link_that_nobody_saw() {
    check(
        [
            ask(queued(POD, 2).udp(CLIENT, BACKEND)).sender(100),
            ask(received(NODE, 10).udp(CLIENT, BACKEND)),
            reply(queued(SERVER, 2).udp(BACKEND, CLIENT)).sender(200),
            reply(received(NODE, 11).udp(BACKEND, CLIENT)),
        ],
        "query: client_link 10; answer: backend 10, backend_link 10; \
         unseen query node, query backend_link, answer client_link",
    );
}

#[test]
fn what_is_rejected_in_the_node_did_not_reach_its_backend() {
    let [sent, taken, out, arrives] = there();
    let error = queued(NODE, 10).icmp(3, 3, "192.0.2.254", &sent);
    check(
        [sent.clone(), taken.clone(), error],
        "query: client_link 10",
    );
    let error = queued(SERVER, 2).icmp(3, 3, "192.0.2.53", &arrives);
    check(
        [sent, taken, out, arrives, error],
        "query: client_link 10, node 10, backend_link 10",
    );
}

#[test]
fn a_query_that_is_dropped_in_the_node_did_not_reach_its_backend() {
    let [sent, taken, ..] = there();
    let freed = ask(dropped(NODE, 10, 2).udp(CLIENT, VIP));
    check([sent, taken, freed], "query: client_link 10");
}

/// Of UDP other than DNS the kernel side shows no packet before it is translated.
#[test]
fn a_namespace_whose_receiving_went_unseen_is_said_to_be_so() {
    let echo = ("10.96.0.81:7", "192.0.2.7:7777");
    let entry = |at: At| at.conntrack((CLIENT, echo.0), (echo.1, CLIENT));
    check(
        [
            queued(POD, 2).udp(CLIENT, echo.0).sender(100),
            entry(queued(NODE, 11).udp(CLIENT, echo.1)),
            queued(SERVER, 2).udp(echo.1, CLIENT).sender(200),
            entry(queued(NODE, 10).udp(echo.0, CLIENT)),
        ],
        "request: client_link 10; response: backend 10, backend_link 10; unseen \
         request node, request backend_link, response node, response client_link",
    );
}

#[test]
fn hops_that_change_places_leave_no_gap_and_no_stage_below_zero() {
    for swapped in [0, 1, 2, 4, 5, 6] {
        let mut hops: Vec<_> = there().into_iter().chain(back()).collect();
        hops.swap(swapped, swapped + 1);
        let mut scene = following();
        scene.see(hops).wait(20_000);
        journey(&scene.rows);
    }
}

#[test]
fn more_sights_than_are_kept_are_counted() {
    let [sent, ..] = there();
    let mut scene = following();
    scene.see([sent]);
    for ifindex in 10..50 {
        scene.see([ask(received(NODE, ifindex).udp(CLIENT, VIP))]);
    }
    scene.see(back()).wait(20_000);
    let journey = scene.rows[0].journey().unwrap();
    // No entry told of the NAT, so only the last two sights of the answer are placed.
    assert_eq!(journey.left_out, 41 + 2 - 32);
}

/// A TCP packet at a place, from client to server.
fn forward(at: At, dst: &str, flags: u8, seq: u32) -> At {
    at.tcp(CLIENT, dst, flags, seq)
}

/// The four sights of a segment to the web server, or of one back.
fn web(forth: bool, flags: u8, data: usize) -> [At; 4] {
    let entry = |at: At| at.conntrack((CLIENT, WEB), (WEB_BACKEND, CLIENT));
    let sights = if forth {
        [
            forward(queued(POD, 2), WEB, flags, 1).sender(100),
            forward(received(NODE, 10), WEB, flags, 1),
            entry(forward(queued(NODE, 11), WEB_BACKEND, flags, 1)),
            forward(received(SERVER, 2), WEB_BACKEND, flags, 1),
        ]
    } else {
        [
            queued(SERVER, 2)
                .tcp(WEB_BACKEND, CLIENT, flags, 1)
                .sender(200),
            received(NODE, 11).tcp(WEB_BACKEND, CLIENT, flags, 1),
            entry(queued(NODE, 10).tcp(WEB, CLIENT, flags, 1)),
            received(POD, 2).tcp(WEB, CLIENT, flags, 1),
        ]
    };
    sights.map(|at| at.payload(vec![0; data]))
}

#[test]
fn a_connection_goes_by_syn_syn_ack_request_and_response() {
    let sights = [
        web(true, SYN, 0),
        web(false, SYN_ACK, 0),
        web(true, PSH, 10),
        web(false, PSH, 10),
    ];
    check(
        sights.into_iter().flatten(),
        "syn: client_link 10, node 10, backend_link 10; \
         syn_ack: backend 10, backend_link 10, node 10, client_link 10; \
         request: client 10, client_link 10, node 10, backend_link 10; \
         response: backend 10, backend_link 10, node 10, client_link 10",
    );
}

#[test]
fn a_slow_server_and_a_slow_client_are_told_apart() {
    let mut scene = following();
    scene.see(web(true, SYN, 0)).see(web(false, SYN_ACK, 0));
    scene.wait(200).see(web(true, PSH, 10));
    scene.wait(300).see(web(false, PSH, 10));
    let journey = journey(&scene.rows);
    assert_eq!(
        story(&journey),
        "syn: client_link 10, node 10, backend_link 10; \
         syn_ack: backend 10, backend_link 10, node 10, client_link 10; \
         request: client 200010, client_link 10, node 10, backend_link 10; \
         response: backend 300010, backend_link 10, node 10, client_link 10",
    );
}

#[test]
fn a_syn_that_was_lost_is_shown_where_it_was_last_and_the_next_one_is_followed() {
    let mut scene = following();
    let [sent, taken, ..] = web(true, SYN, 0);
    scene.see([sent, taken]).wait(1000);
    scene.see(web(true, SYN, 0).map(|at| at.skb(0xbb)));
    scene.see(web(false, SYN_ACK, 0)).see(web(true, PSH, 10));
    scene.see(web(false, PSH, 10));
    let journey = journey(&scene.rows);
    assert_eq!(
        story(&journey),
        "syn: sent_again 1000020, client_link 10, node 10, backend_link 10; \
         syn_ack: backend 10, backend_link 10, node 10, client_link 10; \
         request: client 10, client_link 10, node 10, backend_link 10; \
         response: backend 10, backend_link 10, node 10, client_link 10",
    );
    let lost = journey.lost.unwrap();
    assert_eq!((lost.netns.0, lost.ifindex.0), (NODE, 10));
}

#[test]
fn a_syn_ack_that_comes_again_does_not_disturb_the_first() {
    let mut scene = following();
    scene.see(web(true, SYN, 0)).see(web(false, SYN_ACK, 0));
    scene.see(web(true, PSH, 10)).see(web(false, SYN_ACK, 0));
    scene.see(web(false, PSH, 10));
    assert_eq!(
        story(&journey(&scene.rows)),
        "syn: client_link 10, node 10, backend_link 10; \
         syn_ack: backend 10, backend_link 10, node 10, client_link 10; \
         request: client 10, client_link 10, node 10, backend_link 10; \
         response: backend 50, backend_link 10, node 10, client_link 10; 4 left out",
    );
}
