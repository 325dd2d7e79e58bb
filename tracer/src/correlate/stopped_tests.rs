//! Where failures stopped, and what is said of them; and that nothing is said beyond what was seen.

use super::{Settings, scenario::*};
use crate::model::{
    Event, Losses, Row, SocketEvent,
    journey::{Leg, Side, Stage},
};

const ASK: &str = "a.example";
const WEB: &str = "10.96.0.80:80";
const WEB_BACKEND: &str = "192.0.2.80:8080";

fn following() -> Scene {
    Scene::with(Settings {
        paths: true,
        drop_names: drop_names([(2, "NO_SOCKET"), (3, "NEIGH_FAILED"), (4, "NETFILTER_DROP")]),
        ..Settings::default()
    })
}

fn asks(id: u16) -> [At; 4] {
    asking(CLIENT, &query(id, ASK, A))
}

fn answers(id: u16) -> [At; 4] {
    answering(CLIENT, &answer(id, ASK, A))
}

/// Leg, last stage, side and namespace of where the last row stopped.
fn stopped(scene: &Scene) -> Option<(Leg, Option<Stage>, Side, u32)> {
    let stopped = scene.rows.last().and_then(Row::stopped)?;
    let at = stopped.at;
    Some((stopped.leg, stopped.stage, at.side, at.netns.0))
}

fn lose(scene: &mut Scene) {
    let losses = Losses {
        ring_full: 1,
        ..Losses::default()
    };
    let event = Event::Loss(losses);
    scene.correlator.apply(event, &mut scene.rows);
}

#[test]
fn a_query_that_reached_its_server_stopped_there() {
    let mut scene = following();
    scene.see(asks(1)).wait(6_300);
    scene.shows(&[
        "1 a.example A 10.96.0.10:53 via 192.0.2.53:53: unanswered: no answer within 6 s",
    ]);
    let there = (Leg::Query, Some(Stage::BackendLink), Side::Received, SERVER);
    assert_eq!(stopped(&scene), Some(there));
}

#[test]
fn without_paths_the_place_is_told_and_no_stage() {
    let mut scene = Scene::new();
    scene.see(asks(1)).wait(6_300);
    let there = (Leg::Query, None, Side::Received, SERVER);
    assert_eq!(stopped(&scene), Some(there));
}

#[test]
fn a_good_end_stopped_nowhere() {
    let mut scene = following();
    scene.see(asks(1)).see(answers(1)).wait(1_000);
    assert_eq!(scene.rows.len(), 1);
    assert_eq!(stopped(&scene), None);
}

#[test]
fn a_drop_is_where_it_stopped() {
    let mut scene = following();
    let freed = dropped(NODE, 10, 4).udp(CLIENT, VIP);
    let [sent, received, ..] = asks(1);
    scene.see([sent, received, freed.dns(query(1, ASK, A))]);
    scene.wait(6_300);
    let there = (Leg::Query, Some(Stage::ClientLink), Side::Dropped, NODE);
    assert_eq!(stopped(&scene), Some(there));
}

#[test]
fn an_answer_that_is_seen_last_on_its_way_back_was_lost_where_others_arrived() {
    let mut scene = following();
    scene.see(asks(1)).see(answers(1)).wait(1_000);
    scene.see(asks(2)).see(answers(2).into_iter().take(3));
    scene.wait(3_000);
    let row = "2 a.example A 10.96.0.10:53 via 192.0.2.53:53: unanswered NOERROR in 60 µs: \
               the answer was lost on its way back: last seen 0 ms after the query, not seen to be \
               dropped, and not seen to arrive";
    assert_eq!(
        scene.rows.iter().map(line).next_back().as_deref(),
        Some(row)
    );
    let there = (Leg::Answer, Some(Stage::Node), Side::Queued, NODE);
    assert_eq!(stopped(&scene), Some(there));
    scene.wait(20_000);
    assert_eq!(scene.rows.len(), 2);
}

#[test]
fn where_arrivals_are_never_seen_no_answer_is_said_to_be_lost() {
    let mut scene = following();
    scene.see(asks(2)).see(answers(2).into_iter().take(3));
    scene.wait(10_000);
    scene.shows(&["1 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 60 µs"]);
}

#[test]
fn where_records_were_lost_no_answer_is_said_to_be_lost() {
    let mut scene = following();
    scene.see(asks(1)).see(answers(1)).wait(1_000);
    scene.see(asks(2)).see(answers(2).into_iter().take(3));
    lose(scene.wait(900));
    scene.wait(10_000);
    let last = scene.rows.iter().map(line).next_back().unwrap_or_default();
    assert!(last.ends_with("answered NOERROR in 60 µs"), "{last}");
}

#[test]
fn where_records_were_lost_no_answer_may_be_one_that_was_not_seen() {
    let mut scene = following();
    scene.see(asks(1));
    lose(scene.wait(900));
    scene.wait(6_000);
    let last = scene.rows.iter().map(line).next_back().unwrap_or_default();
    assert!(
        last.ends_with("records were lost meanwhile, an answer may have been among them"),
        "{last}"
    );
}

#[test]
fn an_answer_to_a_closed_socket_is_late_and_not_lost() {
    let mut scene = following();
    scene.see(asks(1)).wait(400).see(answers(1));
    let freed = dropped(POD, 2, 2).udp(VIP, CLIENT);
    scene.see([freed.dns(answer(1, ASK, A))]).wait(1_000);
    let row = "1 a.example A 10.96.0.10:53 via 192.0.2.53:53: late NOERROR in 400070 µs: \
               the answer came 400 ms after the query, when the client had closed its socket";
    scene.shows(&[row]);
}

#[test]
fn the_second_of_two_answers_to_a_socket_closed_meanwhile_is_no_fault() {
    let mut scene = following();
    scene.see(asks(1)).see(answers(1)).see(answers(1));
    let freed = dropped(POD, 2, 2).udp(VIP, CLIENT);
    scene.see([freed.dns(answer(1, ASK, A))]).wait(1_000);
    scene.shows(&["1 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 70 µs"]);
}

#[test]
fn a_next_hop_that_does_not_answer_explains_the_icmp_error() {
    let mut scene = following();
    let [sent, received_there, ..] = asks(1);
    let error = received(POD, 2).icmp(3, 1, "192.0.2.254", &sent);
    let freed = dropped(NODE, 11, 3).udp(CLIENT, VIP);
    scene.see([sent, received_there, error, freed.dns(query(1, ASK, A))]);
    scene.wait(300);
    scene.shows(&[
        "1 a.example A 10.96.0.10:53: rejected: ICMP host unreachable from 192.0.2.254; \
         its next hop did not answer ARP or neighbour discovery",
    ]);
}

/// The sights of a handshake's two packets, in the pod and in the node.
fn syn() -> [At; 2] {
    [
        queued(POD, 2).tcp(CLIENT, WEB, SYN, 100).sender(100),
        queued(NODE, 11)
            .tcp(CLIENT, WEB_BACKEND, SYN, 100)
            .conntrack((CLIENT, WEB), (WEB_BACKEND, CLIENT)),
    ]
}

fn syn_ack() -> [At; 2] {
    [
        received(NODE, 11).tcp(WEB_BACKEND, CLIENT, SYN_ACK, 500),
        received(POD, 2).tcp(WEB, CLIENT, SYN_ACK, 500),
    ]
}

fn again(scene: &mut Scene) {
    scene.fact(socket(SocketEvent::Retransmitted, 100, CLIENT, WEB));
}

#[test]
fn a_syn_sent_again_after_its_answer_was_seen_means_that_the_answer_was_lost() {
    let mut scene = following();
    let [back, _] = syn_ack();
    scene.see(syn()).see([back]).wait(800);
    again(&mut scene);
    scene.wait(6_000);
    scene.shows(&[
        "1 tcp 10.96.0.80:80 via 192.0.2.80:8080: unanswered, 1 sent again: no answer within 6 s: \
         the server's answer was seen on its way back, and did not arrive; the SYN was sent again once",
    ]);
    let there = (Leg::SynAck, Some(Stage::BackendLink), Side::Received, NODE);
    let told = stopped(&scene).expect("it is told");
    assert_eq!((told.0, told.2, told.3), (there.0, there.2, there.3));
}

#[test]
fn a_syn_that_is_freed_after_its_answer_was_sent_again_is_no_drop() {
    let mut scene = following();
    let [back, home] = syn_ack();
    scene.see(syn()).see([back.clone()]).wait(1_000);
    again(&mut scene);
    scene
        .see(syn())
        .see([dropped(SERVER, 2, 4).tcp(CLIENT, WEB_BACKEND, SYN, 100)]);
    scene.see([back, home]).wait(2_000);
    let told = scene.rows.iter().map(line).next_back().unwrap_or_default();
    assert!(told.contains(": answered in "), "{told}");
}

#[test]
fn an_answer_to_a_syn_whose_arrival_is_not_seen_is_no_fault() {
    let mut scene = following();
    let [back, _] = syn_ack();
    scene.see(syn()).see([back]).wait(10_000);
    scene.shows(&["1 tcp 10.96.0.80:80 via 192.0.2.80:8080: answered in 20 µs"]);
}

/// Connected, and its first data sent.
fn connected() -> Scene {
    let mut scene = following();
    scene.see(syn()).see(syn_ack());
    let data = queued(POD, 2).tcp(CLIENT, WEB, PSH, 101).sender(100);
    scene.see([data.payload(vec![1])]);
    scene
}

#[test]
fn a_connection_that_makes_no_headway_amends_its_row() {
    let mut scene = connected();
    for pause in [200, 400, 800] {
        again(scene.wait(pause));
    }
    scene.wait(3_000);
    scene.shows(&[
        "1 tcp 10.96.0.80:80 via 192.0.2.80:8080: answered in 30 µs, 2 sent again",
        "2 tcp 10.96.0.80:80 via 192.0.2.80:8080: unanswered in 30 µs, 3 sent again, amends 1: \
         connected, and then nothing came: data was sent again 3 times within 1200 ms, \
         without an answer",
    ]);
}

#[test]
fn data_sent_again_that_is_answered_then_is_no_fault() {
    let mut scene = connected();
    again(scene.wait(200));
    again(scene.wait(400));
    let back = received(POD, 2).tcp(WEB, CLIENT, PSH, 501);
    scene.see([back.payload(vec![2])]);
    for _ in 0..5 {
        again(scene.wait(800));
    }
    scene.wait(3_000);
    assert_eq!(scene.rows.len(), 1, "{:?}", scene.rows);
}

#[test]
fn a_reset_of_an_open_connection_amends_its_row() {
    let mut scene = connected();
    let back = received(POD, 2).tcp(WEB, CLIENT, PSH, 501);
    scene.see([back.payload(vec![2])]).wait(30_000);
    scene.see([received(POD, 2).tcp(WEB, CLIENT, RST, 502)]);
    scene.shows(&[
        "1 tcp 10.96.0.80:80 via 192.0.2.80:8080: answered in 30 µs, first byte 50 µs",
        "2 tcp 10.96.0.80:80 via 192.0.2.80:8080: reset in 30 µs, first byte 50 µs, amends 1: \
         reset by 10.96.0.80 after its first byte, before either side closed",
    ]);
}

#[test]
fn a_reset_after_either_side_closed_is_no_fault() {
    for (src, dst) in [(CLIENT, WEB), (WEB, CLIENT)] {
        let mut scene = connected();
        let back = received(POD, 2).tcp(WEB, CLIENT, PSH, 501);
        scene.see([back.payload(vec![2])]);
        let place = if src == CLIENT {
            queued(POD, 2)
        } else {
            received(POD, 2)
        };
        scene.see([place.tcp(src, dst, FIN, 502)]);
        scene.see([received(POD, 2).tcp(WEB, CLIENT, RST, 503)]);
        scene.wait(2_000);
        assert_eq!(scene.rows.len(), 1, "{:?}", scene.rows);
    }
}

#[test]
fn a_reset_where_records_were_lost_may_follow_a_close() {
    let mut scene = connected();
    let back = received(POD, 2).tcp(WEB, CLIENT, PSH, 501);
    scene.see([back.payload(vec![2])]).wait(1_000);
    lose(&mut scene);
    scene.see([received(POD, 2).tcp(WEB, CLIENT, RST, 503)]);
    assert_eq!(scene.rows.len(), 1, "{:?}", scene.rows);
}
