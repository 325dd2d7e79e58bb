//! Queries and answers: what is seen of them, and the rows that come of it.

use super::super::{Settings, scenario::*};
use crate::model::{NetnsInode, Row};

const ASK: &str = "a.example";

fn asked(scene: &mut Scene, id: u16, qtype: u16) -> &mut Scene {
    scene.see(asking(CLIENT, &query(id, ASK, qtype)))
}

fn answered(scene: &mut Scene, id: u16, qtype: u16) -> &mut Scene {
    scene.see(answering(CLIENT, &answer(id, ASK, qtype)))
}

/// A query to VIP and its answer, at the one device between client and server.
fn sent() -> At {
    queued(POD, 2)
        .udp(CLIENT, VIP)
        .sender(100)
        .dns(query(1, ASK, A))
}

fn arrived() -> At {
    received(POD, 2).udp(VIP, CLIENT).dns(answer(1, ASK, A))
}

#[test]
fn eight_hops_are_one_exchange_with_its_backend() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A);
    answered(&mut scene, 1, A).wait(20_000);
    scene.shows(&["1 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 70 µs"]);
    assert_eq!(scene.unplaced(), Default::default());
    let client = scene.rows[0].client();
    assert_eq!(client.netns, Some(NetnsInode(POD)));
    assert_eq!(client.sender.and_then(|sender| sender.pid), Some(100));
    assert_eq!(client.address, CLIENT.parse().unwrap());
}

#[test]
fn without_nat_there_is_no_backend() {
    let mut scene = Scene::new();
    let entry = |at: At| at.conntrack((CLIENT, BACKEND), (BACKEND, CLIENT));
    scene.see([
        queued(POD, 2)
            .udp(CLIENT, BACKEND)
            .sender(100)
            .dns(query(1, ASK, A)),
        received(NODE, 10)
            .udp(CLIENT, BACKEND)
            .dns(query(1, ASK, A)),
        entry(queued(NODE, 11).udp(CLIENT, BACKEND)).dns(query(1, ASK, A)),
        received(NODE, 11)
            .udp(BACKEND, CLIENT)
            .dns(answer(1, ASK, A)),
        entry(queued(NODE, 10).udp(BACKEND, CLIENT)).dns(answer(1, ASK, A)),
        received(POD, 2).udp(BACKEND, CLIENT).dns(answer(1, ASK, A)),
    ]);
    scene.shows(&["1 a.example A 192.0.2.53:53: answered NOERROR in 50 µs"]);
}

#[test]
fn masquerading_beyond_the_node_is_the_same_exchange() {
    const OUTSIDE: &str = "198.51.100.7:53";
    const MASKED: &str = "203.0.113.1:61000";
    let entry = ((CLIENT, OUTSIDE), (OUTSIDE, MASKED));
    let mut scene = Scene::new();
    scene.see([
        queued(POD, 2)
            .udp(CLIENT, OUTSIDE)
            .sender(100)
            .dns(query(1, ASK, A)),
        received(NODE, 10)
            .udp(CLIENT, OUTSIDE)
            .dns(query(1, ASK, A)),
        queued(NODE, 1)
            .udp(MASKED, OUTSIDE)
            .conntrack(entry.0, entry.1)
            .dns(query(1, ASK, A)),
        received(NODE, 1)
            .udp(OUTSIDE, MASKED)
            .dns(answer(1, ASK, A)),
        queued(NODE, 10)
            .udp(OUTSIDE, CLIENT)
            .conntrack(entry.0, entry.1)
            .dns(answer(1, ASK, A)),
        received(POD, 2).udp(OUTSIDE, CLIENT).dns(answer(1, ASK, A)),
    ]);
    scene
        .wait(7000)
        .shows(&["1 a.example A 198.51.100.7:53: answered NOERROR in 50 µs"]);
}

#[test]
fn a_second_node_in_the_same_kernel_may_have_entries_of_its_own() {
    const MASKED: &str = "203.0.113.1:61000";
    let first = ((CLIENT, VIP), (BACKEND, MASKED));
    let second = ((MASKED, BACKEND), (BACKEND, MASKED));
    let mut scene = Scene::new();
    scene.see([
        queued(POD, 2)
            .udp(CLIENT, VIP)
            .sender(100)
            .dns(query(1, ASK, A)),
        queued(NODE, 1)
            .udp(MASKED, BACKEND)
            .conntrack(first.0, first.1)
            .dns(query(1, ASK, A)),
        queued(9, 5)
            .udp(MASKED, BACKEND)
            .conntrack(second.0, second.1)
            .dns(query(1, ASK, A)),
        received(SERVER, 2)
            .udp(MASKED, BACKEND)
            .dns(query(1, ASK, A)),
        queued(SERVER, 2)
            .udp(BACKEND, MASKED)
            .sender(200)
            .dns(answer(1, ASK, A)),
        queued(9, 1)
            .udp(BACKEND, MASKED)
            .conntrack(second.0, second.1)
            .dns(answer(1, ASK, A)),
        received(POD, 2).udp(VIP, CLIENT).dns(answer(1, ASK, A)),
    ]);
    scene
        .wait(7000)
        .shows(&["1 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 60 µs"]);
}

#[test]
fn a_client_of_another_node_begins_and_ends_at_the_device_it_came_by() {
    let mut scene = Scene::new();
    let [_, received, queued, served] = asking(CLIENT, &query(1, ASK, A));
    let [server, back, home, _] = answering(CLIENT, &answer(1, ASK, A));
    scene.see([received, queued, served, server, back, home]);
    scene.shows(&["1 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 50 µs"]);
    assert_eq!(scene.rows[0].client().netns, None);
}

#[test]
fn a_client_of_another_node_retries_at_the_device_it_came_by() {
    let mut scene = Scene::new();
    let hops = || asking(CLIENT, &query(1, ASK, A)).into_iter().skip(1);
    scene.see(hops()).wait(5000).see(hops()).wait(7000);
    scene.shows(&[
        "1 a.example A 10.96.0.10:53 via 192.0.2.53:53: unanswered: no answer within 6 s",
        "2 a.example A 10.96.0.10:53 via 192.0.2.53:53: unanswered, retry of 1: no answer within 6 s",
    ]);
}

#[test]
fn loopback_is_one_exchange() {
    let (client, server) = ("127.0.0.1:40000", "127.0.0.53:53");
    let mut scene = Scene::new();
    scene.see([
        queued(NODE, 1)
            .udp(client, server)
            .sender(100)
            .dns(query(1, ASK, A)),
        received(NODE, 1).udp(client, server).dns(query(1, ASK, A)),
        queued(NODE, 1)
            .udp(server, client)
            .sender(200)
            .dns(answer(1, ASK, A)),
        received(NODE, 1).udp(server, client).dns(answer(1, ASK, A)),
    ]);
    scene.shows(&["1 a.example A 127.0.0.53:53: answered NOERROR in 30 µs"]);
}

#[test]
fn the_nodes_own_client_is_translated_before_its_first_device() {
    let entry = |at: At| at.conntrack((CLIENT, VIP), (BACKEND, CLIENT));
    let mut scene = Scene::new();
    scene.see([
        entry(queued(NODE, 11).udp(CLIENT, BACKEND))
            .sender(100)
            .dns(query(1, ASK, A)),
        received(SERVER, 2)
            .udp(CLIENT, BACKEND)
            .dns(query(1, ASK, A)),
        queued(SERVER, 2)
            .udp(BACKEND, CLIENT)
            .sender(200)
            .dns(answer(1, ASK, A)),
        received(NODE, 11)
            .udp(BACKEND, CLIENT)
            .dns(answer(1, ASK, A)),
    ]);
    scene.shows(&["1 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 30 µs"]);
}

#[test]
fn a_and_aaaa_from_one_socket_are_two_exchanges() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A);
    asked(&mut scene, 2, AAAA);
    answered(&mut scene, 2, AAAA);
    answered(&mut scene, 1, A);
    scene.shows(&[
        "2 a.example AAAA 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 70 µs",
        "1 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 150 µs",
    ]);
}

#[test]
fn the_same_id_with_another_question_is_another_exchange() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A);
    asked(&mut scene, 1, AAAA);
    answered(&mut scene, 1, AAAA).wait(7000);
    scene.shows(&[
        "2 a.example AAAA 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 70 µs",
        "1 a.example A 10.96.0.10:53 via 192.0.2.53:53: unanswered: no answer within 6 s",
    ]);
}

#[test]
fn an_id_used_again_after_the_answer_is_no_retry() {
    let mut scene = Scene::new();
    for _ in 0..2 {
        asked(&mut scene, 1, A);
        answered(&mut scene, 1, A);
    }
    scene.shows(&[
        "1 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 70 µs",
        "2 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 70 µs",
    ]);
    assert_eq!(scene.unplaced().duplicates, 0);
}

#[test]
fn each_retry_names_the_first_try() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A).wait(5000);
    asked(&mut scene, 1, A).wait(5000);
    asked(&mut scene, 1, A);
    answered(&mut scene, 1, A);
    scene.shows(&[
        "1 a.example A 10.96.0.10:53 via 192.0.2.53:53: unanswered: no answer within 6 s",
        "3 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 70 µs, retry of 1",
    ]);
}

#[test]
fn a_question_asked_anew_after_an_answered_retry_is_no_retry() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A).wait(5000);
    asked(&mut scene, 1, A);
    answered(&mut scene, 1, A).wait(100);
    asked(&mut scene, 1, A);
    answered(&mut scene, 1, A);
    scene.shows(&[
        "2 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 70 µs, retry of 1",
        "3 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 70 µs",
    ]);
}

#[test]
fn a_server_that_answers_both_tries_at_last_leaves_none_unanswered() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A).wait(5000);
    asked(&mut scene, 1, A).wait(500);
    answered(&mut scene, 1, A);
    scene.see(answering(CLIENT, &answer(1, ASK, A)).map(|at| at.skb(7)));
    scene.wait(10_000);
    assert_eq!(scene.unplaced().duplicates, 0);
    scene.shows(&[
        "2 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 500070 µs, retry of 1",
        "1 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 5500150 µs",
    ]);
}

#[test]
fn two_servers_asked_at_once_are_two_exchanges() {
    let other = "10.96.0.11:53";
    let mut scene = Scene::new();
    scene.see([
        sent(),
        queued(POD, 2)
            .udp(CLIENT, other)
            .sender(100)
            .dns(query(1, ASK, A))
            .skb(7),
        received(NODE, 10).udp(CLIENT, VIP).dns(query(1, ASK, A)),
        received(NODE, 10)
            .udp(CLIENT, other)
            .dns(query(1, ASK, A))
            .skb(7),
        received(POD, 2).udp(other, CLIENT).dns(answer(1, ASK, A)),
        arrived(),
    ]);
    scene.wait(7000).shows(&[
        "2 a.example A 10.96.0.11:53: answered NOERROR in 30 µs",
        "1 a.example A 10.96.0.10:53: answered NOERROR in 50 µs",
    ]);
    assert_eq!(scene.unplaced(), Default::default());
}

#[test]
fn an_answer_from_elsewhere_is_named_and_counted() {
    let mut scene = Scene::new();
    scene.see([
        sent(),
        received(POD, 2).udp(BACKEND, CLIENT).dns(answer(1, ASK, A)),
    ]);
    scene.wait(7000).shows(&["1 a.example A 10.96.0.10:53: unanswered: an answer came from 192.0.2.53, not from the address asked"]);
    assert_eq!(scene.unplaced().unexpected_source, 1);
}

#[test]
fn an_answer_to_another_port_is_unmatched_once() {
    let mut scene = Scene::new();
    scene.see([sent()]);
    scene.see(answering("192.0.2.1:40001", &answer(1, ASK, A)));
    scene
        .wait(7000)
        .shows(&["1 a.example A 10.96.0.10:53: unanswered: no answer within 6 s: it was last seen leaving for 10.96.0.10, and nothing came back"]);
    assert_eq!(scene.unplaced().unmatched, 1);
}

#[test]
fn an_answer_that_comes_again_is_counted_once() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A);
    answered(&mut scene, 1, A);
    answered(&mut scene, 1, A).wait(7000);
    assert_eq!(scene.rows.len(), 1);
    assert_eq!(scene.unplaced().duplicates, 1);
}

#[test]
fn clones_flooded_to_other_ports_are_no_retries() {
    let mut scene = Scene::new();
    let clone = |ifindex| {
        let hop = queued(NODE, ifindex).udp(CLIENT, VIP).dns(query(1, ASK, A));
        hop.skb(u64::from(ifindex))
    };
    scene.see([
        sent(),
        received(NODE, 10).udp(CLIENT, VIP).dns(query(1, ASK, A)),
    ]);
    scene.see([clone(21), clone(22), clone(23), arrived()]);
    scene
        .wait(7000)
        .shows(&["1 a.example A 10.96.0.10:53: answered NOERROR in 50 µs"]);
}

#[test]
fn stacked_devices_send_one_packet() {
    let mut scene = Scene::new();
    let at = |ifindex| {
        queued(NODE, ifindex)
            .udp(CLIENT, VIP)
            .sender(100)
            .dns(query(1, ASK, A))
    };
    scene.see([at(5), at(4), at(3)]);
    scene.see([received(NODE, 3).udp(VIP, CLIENT).dns(answer(1, ASK, A))]);
    scene
        .wait(7000)
        .shows(&["1 a.example A 10.96.0.10:53: answered NOERROR in 30 µs"]);
}

#[test]
fn letter_case_does_not_matter() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A);
    scene.see(answering(CLIENT, &answer(1, "A.eXaMpLe", A)));
    scene.shows(&["1 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 70 µs"]);
}

#[test]
fn edns_extends_the_rcode() {
    let mut bad = dns(1, 0x8180, [1, 0, 0, 1], ASK, A);
    bad.extend(b"\0\0\x29\x04\xd0\x01\0\0\0\0\0");
    let mut scene = Scene::new();
    scene.see([sent(), arrived().dns(bad)]);
    scene.shows(&["1 a.example A 10.96.0.10:53: answered BADVERS in 10 µs"]);
}

#[test]
fn truncation_is_told() {
    let mut scene = Scene::new();
    scene.see([sent(), arrived().dns(dns(1, 0x8380, [1, 0, 0, 0], ASK, A))]);
    scene.shows(&["1 a.example A 10.96.0.10:53: answered NOERROR in 10 µs, truncated"]);
}

#[test]
fn messages_without_a_question_are_paired_by_id() {
    let mut scene = Scene::new();
    scene.see([
        sent().dns(dns(1, 0x0100, [0; 4], "", 0)),
        arrived().dns(dns(1, 0x8185, [0; 4], "", 0)),
    ]);
    scene.shows(&["1 ? ? 10.96.0.10:53: answered REFUSED in 10 µs"]);
}

#[test]
fn an_error_may_leave_out_the_question() {
    let mut scene = Scene::new();
    scene.see([sent(), arrived().dns(dns(1, 0x8181, [0; 4], "", 0))]);
    scene.shows(&["1 a.example A 10.96.0.10:53: answered FORMERR in 10 µs"]);
}

#[test]
fn a_query_of_two_questions_is_counted_once() {
    let mut scene = Scene::new();
    scene.see(asking(CLIENT, &dns(1, 0x0100, [2, 0, 0, 0], ASK, A)));
    scene.see(answering(CLIENT, &dns(1, 0x8181, [2, 0, 0, 0], ASK, A)));
    scene.shows(&["1 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered FORMERR in 70 µs"]);
    assert_eq!(scene.unplaced().multi_question, 1);
}

#[test]
fn a_malformed_message_is_counted_once_whoever_sent_it() {
    let malformed = b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xbf";
    let mut scene = Scene::new();
    scene.see(asking(CLIENT, malformed)).wait(1000);
    assert_eq!(scene.unplaced().malformed, 1);
    let elsewhere = asking("203.0.113.9:1", malformed).into_iter().skip(1);
    scene.see(elsewhere).wait(1000);
    assert_eq!(scene.unplaced().malformed, 2);
    scene.see(asking(CLIENT, malformed));
    assert_eq!(scene.unplaced().malformed, 3);
    scene.shows(&[]);
}

#[test]
fn a_late_answer_amends_its_row() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A).wait(7000);
    answered(&mut scene, 1, A);
    scene.shows(&[
        "1 a.example A 10.96.0.10:53 via 192.0.2.53:53: unanswered: no answer within 6 s",
        "2 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 7000070 µs, amends 1: the answer came late",
    ]);
}

#[test]
fn an_answer_after_all_is_remembered_is_unmatched() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A).wait(15_500);
    answered(&mut scene, 1, A);
    assert_eq!(scene.rows.len(), 1);
    assert_eq!(scene.unplaced().unmatched, 1);
}

#[test]
fn an_answer_on_its_way_when_time_is_up_is_no_time_out() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A).wait(5990);
    let [first, second, third, last] = answering(CLIENT, &answer(1, ASK, A));
    scene.see([first, second, third]).wait(20).see([last]);
    scene.shows(&["1 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 6010070 µs"]);
}

#[test]
fn an_answer_whose_arrival_is_not_seen_settles() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A);
    scene.see(answering(CLIENT, &answer(1, ASK, A)).into_iter().take(3));
    scene.wait(900).shows(&[]);
    scene
        .wait(400)
        .shows(&["1 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 60 µs"]);
}

#[test]
fn a_slow_link_on_the_way_back_counts() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A);
    let [first, second, third, last] = answering(CLIENT, &answer(1, ASK, A));
    scene.see([first, second, third]).wait(800).see([last]);
    scene.shows(&["1 a.example A 10.96.0.10:53 via 192.0.2.53:53: answered NOERROR in 800070 µs"]);
}

#[test]
fn an_answer_on_its_way_at_the_end_is_a_row() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A);
    scene.see(answering(CLIENT, &answer(1, ASK, A)).into_iter().take(3));
    let (rows, _, _) = scene.finish();
    assert_eq!(rows.len(), 1);
}

fn reasons() -> Settings {
    Settings {
        drop_names: drop_names([(9, "NETFILTER_DROP"), (3, "OTHERHOST")]),
        ..Settings::default()
    }
}

#[test]
fn a_dropped_query_tells_the_kernels_reason() {
    let mut scene = Scene::with(reasons());
    let [sent, at_node, ..] = asking(CLIENT, &query(1, ASK, A));
    let freed = dropped(NODE, 10, 9).udp(CLIENT, VIP).dns(query(1, ASK, A));
    scene.see([sent, at_node, freed]).wait(7000);
    scene.shows(&[
        "1 a.example A 10.96.0.10:53: dropped: the kernel dropped the query: NETFILTER_DROP",
    ]);
}

#[test]
fn a_query_dropped_before_any_device_is_a_row_each_time() {
    let mut scene = Scene::with(reasons());
    let freed = || {
        let at = dropped(POD, 0, 9).udp(CLIENT, VIP).sender(100);
        at.dns(query(1, ASK, A))
    };
    scene.see([freed()]).wait(5000).see([freed()]).wait(7000);
    scene.shows(&[
        "1 a.example A 10.96.0.10:53: dropped: it never left the client: the kernel dropped the query before any device: NETFILTER_DROP",
        "2 a.example A 10.96.0.10:53: dropped, retry of 1: it never left the client: the kernel dropped the query before any device: NETFILTER_DROP",
    ]);
}

#[test]
fn a_query_dropped_where_it_was_queued_is_one_try() {
    let mut scene = Scene::with(reasons());
    let freed = dropped(POD, 2, 9).udp(CLIENT, VIP).sender(100);
    scene.see([sent(), freed.dns(query(1, ASK, A))]).wait(7000);
    scene.shows(&[
        "1 a.example A 10.96.0.10:53: dropped: it never left the client: the kernel dropped the query: NETFILTER_DROP",
    ]);
}

#[test]
fn a_dropped_answer_does_not_count_as_arrived() {
    let mut scene = Scene::with(reasons());
    asked(&mut scene, 1, A);
    let [first, second, ..] = answering(CLIENT, &answer(1, ASK, A));
    let freed = dropped(NODE, 11, 9)
        .udp(BACKEND, CLIENT)
        .dns(answer(1, ASK, A));
    scene.see([first, second, freed]).wait(7000);
    scene.shows(&["1 a.example A 10.96.0.10:53 via 192.0.2.53:53: dropped: the kernel dropped the answer: NETFILTER_DROP"]);
}

#[test]
fn a_clone_freed_at_the_wrong_port_is_not_the_cause() {
    let mut scene = Scene::with(reasons());
    let clone = dropped(9, 2, 3)
        .udp(CLIENT, VIP)
        .dns(query(1, ASK, A))
        .skb(7);
    let freed = dropped(NODE, 10, 9).udp(CLIENT, VIP).dns(query(1, ASK, A));
    scene.see([sent(), clone, freed]).wait(7000);
    scene.shows(&[
        "1 a.example A 10.96.0.10:53: dropped: the kernel dropped the query: NETFILTER_DROP",
    ]);
}

#[test]
fn an_icmp_error_rejects_the_query_it_quotes() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A);
    asked(&mut scene, 2, AAAA);
    let [quoted, ..] = asking(CLIENT, &query(1, ASK, A));
    scene
        .see([received(POD, 2).icmp(3, 3, "192.0.2.53", &quoted)])
        .wait(500);
    scene.shows(&["1 a.example A 10.96.0.10:53 via 192.0.2.53:53: rejected: ICMP port unreachable from 192.0.2.53"]);
}

#[test]
fn an_icmp_error_that_quotes_no_question_rejects_the_latest_query_between_the_ends() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A);
    asked(&mut scene, 2, AAAA);
    let [quoted, ..] = asking(CLIENT, &query(1, ASK, A));
    let error = received(POD, 2)
        .icmp(3, 3, "192.0.2.53", &quoted)
        .quoting_little();
    scene.see([error]);
    scene.shows(&["2 a.example AAAA 10.96.0.10:53 via 192.0.2.53:53: rejected: ICMP port unreachable from 192.0.2.53"]);
}

/// As with a wrong targetPort.
#[test]
fn a_query_that_is_translated_to_a_port_without_dns_knows_its_backend() {
    const WRONG: &str = "192.0.2.53:5353";
    let entry = |at: At| at.conntrack((CLIENT, VIP), (WRONG, CLIENT));
    let mut scene = Scene::new();
    scene.see([
        sent(),
        received(NODE, 10).udp(CLIENT, VIP).dns(query(1, ASK, A)),
        entry(queued(NODE, 11).udp(CLIENT, WRONG)),
        received(SERVER, 2).udp(CLIENT, WRONG),
    ]);
    let quoted = sent();
    scene.see([received(POD, 2).icmp(3, 3, "10.96.0.10", &quoted)]);
    let dns: Vec<_> = scene
        .rows
        .iter()
        .filter(|row| matches!(row, Row::Dns(_)))
        .collect();
    assert_eq!(
        dns.into_iter().map(line).collect::<Vec<_>>(),
        [
            "1 a.example A 10.96.0.10:53 via 192.0.2.53:5353: rejected: ICMP port unreachable from 10.96.0.10"
        ],
    );
}

/// The error has the conntrack entry of what it is about.
#[test]
fn an_icmp_error_tells_the_backend_of_a_query_whose_translation_was_not_seen() {
    const WRONG: &str = "192.0.2.53:5353";
    let mut scene = Scene::new();
    scene.see([sent()]);
    let error = queued(NODE, 10)
        .icmp(3, 3, "10.96.0.10", &sent())
        .conntrack((CLIENT, VIP), (WRONG, CLIENT));
    scene.see([error]);
    scene.shows(&["1 a.example A 10.96.0.10:53 via 192.0.2.53:5353: rejected: ICMP port unreachable from 10.96.0.10"]);
}

#[test]
fn an_icmp_error_about_an_answer_rejects_no_query() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A);
    let [quoted, ..] = answering(CLIENT, &answer(1, ASK, A));
    scene.see([queued(POD, 2).icmp(3, 3, "192.0.2.1", &quoted)]);
    scene.shows(&[]);
    let between_servers = queued(POD, 2)
        .udp(VIP, "192.0.2.1:53")
        .dns(answer(1, ASK, A));
    scene.see([queued(POD, 2).icmp(3, 3, "192.0.2.1", &between_servers)]);
    scene.shows(&[]);
}

#[test]
fn fragmentation_needed_is_no_rejection() {
    let mut scene = Scene::new();
    scene.see([
        sent(),
        received(POD, 2).icmp(3, 4, "192.0.2.254", &sent()),
        arrived(),
    ]);
    scene.shows(&["1 a.example A 10.96.0.10:53: answered NOERROR in 20 µs"]);
}

#[test]
fn an_answer_after_a_rejection_amends_it() {
    let mut scene = Scene::new();
    scene.see([sent(), received(POD, 2).icmp(3, 1, "192.0.2.254", &sent())]);
    scene.wait(300).see([arrived()]);
    scene.shows(&[
        "1 a.example A 10.96.0.10:53: rejected: ICMP host unreachable from 192.0.2.254",
        "2 a.example A 10.96.0.10:53: answered NOERROR in 300020 µs, amends 1: an answer came after all",
    ]);
}

#[test]
fn time_alone_makes_the_row() {
    let mut scene = Scene::new();
    scene.see([sent()]).wait(5900).shows(&[]);
    scene
        .wait(400)
        .shows(&["1 a.example A 10.96.0.10:53: unanswered: no answer within 6 s: it was last seen leaving for 10.96.0.10, and nothing came back"]);
}

#[test]
fn a_port_used_before_towards_the_backend_itself_is_not_the_vip() {
    let mut scene = Scene::new();
    asked(&mut scene, 1, A);
    answered(&mut scene, 1, A);
    scene.see([
        queued(POD, 2)
            .udp(CLIENT, BACKEND)
            .sender(100)
            .dns(query(2, ASK, A)),
        received(POD, 2).udp(BACKEND, CLIENT).dns(answer(2, ASK, A)),
    ]);
    scene.wait(7000);
    let Row::Dns(row) = &scene.rows[1] else {
        panic!("it is a DNS row")
    };
    assert_eq!(row.asked, BACKEND.parse().unwrap());
}

#[test]
fn a_query_turned_away_before_any_device_is_a_rejected_row_with_its_client() {
    let mut scene = Scene::with(reasons());
    let quoted = sent();
    let freed = dropped(POD, 0, 9).udp(CLIENT, VIP).sender(100);
    scene.see([
        queued(POD, 1).icmp(3, 3, "192.0.2.1", &quoted),
        received(POD, 1).icmp(3, 3, "192.0.2.1", &quoted),
        freed.dns(query(1, ASK, A)),
    ]);
    scene
        .wait(7000)
        .shows(&["1 a.example A 10.96.0.10:53: rejected: ICMP port unreachable from 192.0.2.1"]);
    assert_eq!(scene.rows[0].client().sender, Some(sender(100)));
}
