//! Exchanges with their sockets' ends, and when their rows come.

use std::time::Duration;

use crate::{
    correlate::{
        Settings,
        scenario::{
            A, At, BACKEND, CLIENT, NODE, POD, SERVER, Scene, VIP, answer, answering, asking, at,
            drop_names, dropped, line, query, received, sender,
        },
    },
    model::{
        Delivery, Fact, IoEvent, KtimeNs, NetnsInode, Place, Row, SkbId, SockId, SocketEnds,
        SocketIo, Task,
        journey::{Journey, Stage, Step},
    },
};

/// The client's and the server's process; their sockets have the same numbers.
const ASKER: u32 = 100;
const SERVANT: u32 = 200;

fn scene() -> Scene {
    Scene::with(Settings {
        paths: true,
        ..Settings::default()
    })
}

fn task(pid: u32) -> Task {
    Task {
        pid,
        tid: pid,
        comm: sender(pid).comm,
    }
}

fn io(pid: u32, event: IoEvent) -> Fact {
    let netns = if pid == ASKER { POD } else { SERVER };
    Fact::SocketIo(SocketIo {
        ktime: KtimeNs(0),
        netns: NetnsInode(netns),
        sock: SockId(u64::from(pid)),
        local: if pid == ASKER { 40000 } else { 53 },
        remote: None,
        event,
    })
}

/// The packet that went by last is put into the socket of `pid`.
fn delivered(pid: u32) -> Fact {
    let skb = if pid == ASKER { 0xff02 } else { 0xff01 };
    let last = Some(SkbId(skb));
    io(pid, IoEvent::Delivered { last, queued: 1 })
}

fn read(pid: u32, queued: usize) -> Fact {
    let by = task(pid);
    io(
        pid,
        IoEvent::Read {
            by,
            bytes: 20,
            queued,
        },
    )
}

fn sent(pid: u32) -> Fact {
    let by = task(pid);
    io(pid, IoEvent::Sent { by, bytes: 20 })
}

fn asked() -> [At; 4] {
    asking(CLIENT, &query(7, "a.test", A))
}

fn answered() -> [At; 4] {
    answering(CLIENT, &answer(7, "a.test", A))
}

#[track_caller]
fn ends(scene: &Scene) -> SocketEnds {
    match &scene.rows[..] {
        [Row::Dns(row)] => row.ends,
        rows => panic!("one row was to come: {rows:?}"),
    }
}

/// The journey of the one row.
fn journey(scene: &Scene) -> &Journey {
    scene.rows[0].journey().unwrap()
}

/// Its legs and stages.
fn stages(scene: &Scene) -> Vec<String> {
    let name = |(step, ..): (Step, _, _)| format!("{} {}", step.leg.name(), step.stage.name());
    journey(scene).spans().map(name).collect()
}

#[test]
fn a_row_waits_until_its_answer_is_read_and_tells_every_end() {
    let mut scene = scene();
    scene
        .see(asked())
        .fact(delivered(SERVANT))
        .fact(sent(ASKER));
    scene.wait(30).fact(read(SERVANT, 0)).wait(50);
    scene.see(answered()).fact(delivered(ASKER)).wait(200);
    scene.shows(&[]);
    scene.fact(read(ASKER, 0));
    let ends = ends(&scene);
    let waited = |delivery: Delivery| delivery.waited().map(|waited| waited.as_millis());
    assert_eq!(waited(ends.query), Some(30));
    assert_eq!(waited(ends.answer), Some(200));
    assert_eq!(ends.server_time().map(|own| own.as_millis()), Some(50));
    assert_eq!(ends.query.reader(), Some(task(SERVANT)));
    assert_eq!(ends.answer.reader(), Some(task(ASKER)));
    assert!(ends.sent > ends.query.queued());
    assert_eq!(
        stages(&scene),
        [
            "query client_link",
            "query node",
            "query backend_link",
            "query backend_input",
            "query backend_queue",
            "answer backend",
            "answer backend_link",
            "answer node",
            "answer client_link",
            "answer client_input",
            "answer client_queue",
        ]
    );
    let journey = journey(&scene);
    let took = |stage| {
        let mut spans = journey.spans();
        let (_, begin, end) = spans.find(|(step, ..)| step.stage == stage).unwrap();
        (end.ktime - begin.ktime).as_millis()
    };
    assert_eq!(took(Stage::BackendQueue), 30);
    assert_eq!(took(Stage::Backend), 50);
    assert_eq!(took(Stage::ClientQueue), 200);
    assert!(journey.unseen.is_empty(), "{:?}", journey.unseen);
}

#[test]
fn what_no_socket_tells_is_said_to_be_unseen() {
    let mut scene = scene();
    scene.see(asked()).see(answered()).wait(600);
    let unseen: Vec<_> = journey(&scene)
        .unseen
        .iter()
        .map(|step| step.stage)
        .collect();
    assert_eq!(
        unseen,
        [
            Stage::BackendInput,
            Stage::BackendQueue,
            Stage::ClientInput,
            Stage::ClientQueue
        ]
    );
}

#[test]
fn a_row_does_not_wait_for_a_socket_that_nothing_is_told_of() {
    let mut scene = scene();
    scene.see(asked()).see(answered()).shows(&[]);
    let again = asking(CLIENT, &query(8, "b.test", A));
    scene
        .see(again)
        .see(answering(CLIENT, &answer(8, "b.test", A)));
    let [Row::Dns(row)] = &scene.rows[..] else {
        panic!("the second row was to come: {:?}", scene.rows);
    };
    assert_eq!(row.id, 8);
}

/// As musl's resolver sends them.
#[test]
fn a_row_waits_for_a_socket_that_sent_two_queries_and_was_told_of() {
    let mut scene = scene();
    scene.see(asked()).fact(sent(ASKER));
    let other = asking(CLIENT, &query(8, "b.test", A));
    scene.see(other).fact(sent(ASKER));
    scene.see(answered()).shows(&[]);
    scene.fact(delivered(ASKER)).wait(200).fact(read(ASKER, 0));
    let waited = ends(&scene).answer.waited();
    assert_eq!(waited.map(|waited| waited.as_millis()), Some(200));
}

#[test]
fn the_way_of_a_query_that_is_not_answered_ends_where_it_was_last() {
    let mut unread = scene();
    unread.see(asked()).fact(delivered(SERVANT)).wait(6300);
    assert_eq!(stages(&unread).last().unwrap(), "query backend_input");
    let mut read_in_vain = scene();
    read_in_vain.see(asked()).fact(delivered(SERVANT)).wait(2);
    read_in_vain.fact(read(SERVANT, 0)).wait(6300);
    assert_eq!(stages(&read_in_vain).last().unwrap(), "query backend_queue");
}

#[test]
fn a_row_whose_sockets_nobody_sees_comes_soon() {
    let mut scene = scene();
    scene.see(asked()).see(answered()).wait(600);
    assert_eq!(ends(&scene).answer, Delivery::Unseen);
}

#[test]
fn a_row_does_not_wait_for_a_read_that_could_not_be_told() {
    let mut scene = scene();
    scene.see(asked()).see(answered()).fact(delivered(ASKER));
    // Two were in the queue, and neither is left: somebody else reads there too.
    let last = Some(SkbId(1));
    scene.fact(io(ASKER, IoEvent::Delivered { last, queued: 2 }));
    scene.fact(read(ASKER, 0));
    assert!(matches!(
        ends(&scene).answer,
        Delivery::Queued { waits: false, .. }
    ));
}

#[test]
fn an_answer_that_is_never_read_is_a_row_after_the_limit() {
    let mut scene = scene();
    scene.see(asked()).see(answered()).fact(delivered(ASKER));
    scene.wait(5900).shows(&[]);
    scene.wait(300);
    assert!(ends(&scene).answer.waits());
}

#[test]
fn without_paths_no_row_waits() {
    let mut scene = Scene::new();
    scene.see(asked()).see(answered());
    assert_eq!(ends(&scene).answer, Delivery::Unseen);
}

#[test]
fn a_query_without_answer_says_whether_it_was_read() {
    let mut unread = scene();
    unread.see(asked()).fact(delivered(SERVANT)).wait(6300);
    let limit = "1 a.test A 10.96.0.10:53 via 192.0.2.53:53: unanswered: no answer within 6 s";
    unread.shows(&[&format!(
        "{limit}: the query lies unread in the server's socket"
    )]);

    let mut read_in_vain = scene();
    read_in_vain.see(asked()).fact(delivered(SERVANT)).wait(2);
    read_in_vain.fact(read(SERVANT, 0)).wait(6300);
    let read = "test[200] read the query 2 ms after it came, and sent none";
    read_in_vain.shows(&[&format!("{limit}: {read}")]);
}

#[test]
fn an_answer_that_comes_twice_is_told_by_its_first() {
    let mut scene = scene();
    scene.see(asked()).see(answered()).fact(delivered(ASKER));
    scene.see(answered().map(|at| at.skb(0xff03)));
    let last = Some(SkbId(0xff03));
    scene.fact(io(ASKER, IoEvent::Delivered { last, queued: 2 }));
    scene.fact(read(ASKER, 1));
    let first = ends(&scene).answer;
    assert!(first.waited() < Some(Duration::from_millis(1)), "{first:?}");
    scene.fact(read(ASKER, 0));
    assert_eq!(ends(&scene).answer, first);
}

/// A scene that knows the reasons 6 and 7.
fn with_reasons() -> Scene {
    Scene::with(Settings {
        drop_names: drop_names([(6, "SOCKET_RCVBUFF"), (7, "UDP_CSUM")]),
        ..Settings::default()
    })
}

#[test]
fn a_drop_after_a_full_buffer_is_explained_by_it_unless_the_kernel_says_otherwise() {
    let limit = "1 a.test A 10.96.0.10:53 via 192.0.2.53:53: dropped: the kernel dropped the query";
    for (reason, expected) in [
        (
            6,
            "SOCKET_RCVBUFF, the receive buffer of its socket was full",
        ),
        (7, "UDP_CSUM; its checksum was wrong"),
        (
            0,
            "reason not told by this kernel, the receive buffer of its socket was full",
        ),
    ] {
        let mut scene = with_reasons();
        scene.see(asked()).fact(io(SERVANT, IoEvent::Full));
        let freed = dropped(SERVER, 2, reason).udp(CLIENT, BACKEND);
        scene.see([freed.dns(query(7, "a.test", A))]).wait(6300);
        scene.shows(&[&format!("{limit}: {expected}")]);
    }
}

#[test]
fn a_drop_long_after_a_full_buffer_has_another_cause() {
    let mut scene = with_reasons();
    scene.see(asked()).fact(io(SERVANT, IoEvent::Full)).wait(10);
    let freed = dropped(SERVER, 2, 0).udp(CLIENT, BACKEND);
    scene.see([freed.dns(query(7, "a.test", A))]).wait(6300);
    let cause = "the kernel dropped the query: reason not told by this kernel";
    scene.shows(&[&format!(
        "1 a.test A 10.96.0.10:53 via 192.0.2.53:53: dropped: {cause}"
    )]);
}

/// The node answers the query with an ICMP error of this type and code.
fn refused(kind: u8, code: u8) -> At {
    at(Place::Refused { kind, code }, NODE, 10)
        .udp(CLIENT, VIP)
        .dns(query(7, "a.test", A))
}

#[test]
fn an_icmp_error_that_was_sent_and_did_not_arrive_is_told_with_the_drop() {
    let mut scene = with_reasons();
    let [sent, at_node, ..] = asked();
    scene.see([sent, at_node, refused(3, 1)]);
    let freed = dropped(NODE, 10, 6).udp(CLIENT, VIP);
    scene.see([freed.dns(query(7, "a.test", A))]).wait(6300);
    scene.shows(&["1 a.test A 10.96.0.10:53: rejected: \
         ICMP host unreachable was sent, and did not reach the client; \
         the kernel dropped the query: SOCKET_RCVBUFF"]);
}

#[test]
fn an_icmp_error_that_asks_for_smaller_packets_rejects_nothing() {
    let mut scene = Scene::new();
    let [sent, at_node, ..] = asked();
    scene.see([sent, at_node, refused(3, 4)]).wait(6300);
    scene.shows(&["1 a.test A 10.96.0.10:53: unanswered: no answer within 6 s"]);
}

#[test]
fn a_rejected_query_says_which_error_its_application_got() {
    let mut scene = scene();
    let [sent, ..] = asked();
    let error = received(POD, 2).icmp(3, 3, "10.96.0.1", &sent);
    scene
        .see([sent, error])
        .fact(io(ASKER, IoEvent::Failed { errno: 111 }));
    scene.shows(&[]);
    scene.wait(500);
    scene.shows(&["1 a.test A 10.96.0.10:53: rejected: \
         ICMP port unreachable from 10.96.0.1; the application got ECONNREFUSED"]);
}

#[test]
fn an_application_that_is_told_of_an_error_just_after_a_sweep_is_told_of_all_the_same() {
    let mut scene = scene();
    let [sent, ..] = asked();
    let error = received(POD, 2).icmp(3, 3, "10.96.0.1", &sent);
    // Sweeps are a quarter of a second apart: one comes between the two.
    scene.wait(200).see([sent, error]).wait(100).shows(&[]);
    scene.fact(io(ASKER, IoEvent::Failed { errno: 111 }));
    scene
        .wait(500)
        .shows(&["1 a.test A 10.96.0.10:53: rejected: \
         ICMP port unreachable from 10.96.0.1; the application got ECONNREFUSED"]);
}

#[test]
fn a_query_that_was_rejected_just_before_the_end_is_a_row() {
    let mut scene = scene();
    let [sent, ..] = asked();
    let error = received(POD, 2).icmp(3, 3, "10.96.0.1", &sent);
    scene.see([sent, error]).shows(&[]);
    let (rows, ..) = scene.finish();
    let lines: Vec<_> = rows.iter().map(line).collect();
    assert_eq!(
        lines,
        ["1 a.test A 10.96.0.10:53: rejected: ICMP port unreachable from 10.96.0.1"]
    );
}
