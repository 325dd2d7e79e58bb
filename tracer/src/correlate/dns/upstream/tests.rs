//! Which query of a server serves which of its clients', in scenes of every kind.

use std::time::Duration;

use crate::{
    correlate::{Settings, journey::tests::story, scenario::*},
    model::{Outcome, Row},
};

const ASK: &str = "www.example";
const OTHER: &str = "192.0.2.2:40000";
const OUT: &str = "192.0.2.53:50000";
const UPSTREAM: &str = "198.51.100.1:53";

/// What the server asks of others, as seen where it is sent, and the answer to it.
fn outward(id: u16, out: &str, name: &str) -> At {
    queued(SERVER, 2)
        .udp(out, UPSTREAM)
        .sender(200)
        .dns(query(id, name, A))
        .skb(0xff03)
}

fn inward(id: u16, out: &str, flags: u16) -> At {
    received(SERVER, 2)
        .udp(UPSTREAM, out)
        .dns(dns(id, flags, [1, 0, 0, 0], ASK, A))
        .skb(0xff04)
}

/// Upstream of each row: query's serial, outcome, rcode, how many, and ~ where it is inferred.
fn upstreams(rows: &[Row]) -> Vec<String> {
    let dns = rows.iter().filter_map(|row| match row {
        Row::Dns(dns) => Some(dns),
        Row::Connection(_) => None,
    });
    let told = |dns: &crate::model::Dns| match &dns.upstream {
        None => format!("{}: none", dns.serial),
        Some(up) => format!(
            "{}: {}{} {} {:?} x{} {} µs",
            dns.serial,
            if up.inferred { "~" } else { "" },
            up.serial,
            up.outcome.name(),
            up.rcode,
            up.queries,
            up.waited.as_micros()
        ),
    };
    let mut dns: Vec<_> = dns.collect();
    dns.sort_by_key(|dns| dns.serial);
    dns.into_iter().map(told).collect()
}

fn scene() -> Scene {
    Scene::with(Settings {
        paths: true,
        ..Settings::default()
    })
}

fn asks(client: &str, id: u16) -> [At; 4] {
    asking(client, &query(id, ASK, A))
}

fn gets(client: &str, id: u16, flags: u16) -> [At; 4] {
    answering(client, &dns(id, flags, [1, 0, 0, 0], ASK, A))
}

#[test]
fn a_servers_own_query_is_tied_to_the_one_it_serves() {
    let mut scene = scene();
    scene.see(asks(CLIENT, 1)).see([outward(77, OUT, ASK)]);
    scene.see([inward(77, OUT, 0x8180)]);
    scene.see(gets(CLIENT, 1, 0x8180)).wait(2_000);
    assert_eq!(
        upstreams(&scene.rows),
        ["1: 2 answered Some(0) x1 10 µs", "2: none"]
    );
    let journey = scene.rows[0].journey().expect("it was seen");
    assert_eq!(
        story(journey),
        "query: client_link 10, node 10, backend_link 10; \
         answer: backend 10, upstream 10, backend 10, backend_link 10, node 10, client_link 10"
    );
}

#[test]
fn what_is_answered_without_asking_has_no_upstream() {
    let mut scene = scene();
    scene.see(asks(CLIENT, 1)).see([outward(77, OUT, ASK)]);
    scene.see([inward(77, OUT, 0x8180)]);
    scene.see(gets(CLIENT, 1, 0x8180));
    scene.see(asks(OTHER, 2)).see(gets(OTHER, 2, 0x8180));
    // Asked in advance, when nobody waits.
    scene.see([outward(78, OUT, ASK), inward(78, OUT, 0x8180)]);
    scene.wait(2_000);
    let told = upstreams(&scene.rows);
    assert_eq!(told[1..], ["2: none", "3: none", "4: none"], "{told:?}");
}

#[test]
fn of_two_clients_that_ask_the_same_each_gets_a_query_and_both_are_inferred() {
    let mut scene = scene();
    scene.see(asks(CLIENT, 1)).see(asks(OTHER, 2));
    let other = "192.0.2.53:50001";
    scene.see([outward(77, OUT, ASK), outward(78, other, ASK)]);
    scene.see([inward(77, OUT, 0x8180), inward(78, other, 0x8180)]);
    scene
        .see(gets(CLIENT, 1, 0x8180))
        .see(gets(OTHER, 2, 0x8180));
    scene.wait(2_000);
    assert_eq!(
        upstreams(&scene.rows),
        [
            "1: ~3 answered Some(0) x1 20 µs",
            "2: ~4 answered Some(0) x1 20 µs",
            "3: none",
            "4: none"
        ]
    );
}

#[test]
fn a_client_that_comes_while_the_same_is_asked_shares_the_leg() {
    let mut scene = scene();
    scene.see(asks(CLIENT, 1)).see([outward(77, OUT, ASK)]);
    scene.see(asks(OTHER, 2)).see([inward(77, OUT, 0x8180)]);
    scene
        .see(gets(CLIENT, 1, 0x8180))
        .see(gets(OTHER, 2, 0x8180));
    scene.wait(2_000);
    let told = upstreams(&scene.rows);
    assert!(
        told.contains(&"3: ~2 answered Some(0) x1 50 µs".to_owned()),
        "{told:?}"
    );
}

#[test]
fn another_process_of_the_namespace_serves_nobody() {
    let mut scene = scene();
    let mut stranger = outward(77, OUT, ASK);
    stranger.0.sender = Some(sender(201));
    scene.see(asks(CLIENT, 1)).see([stranger]);
    scene.see([inward(77, OUT, 0x8180)]);
    scene.see(gets(CLIENT, 1, 0x8180)).wait(2_000);
    assert_eq!(upstreams(&scene.rows), ["1: none", "2: none"]);
}

#[test]
fn another_question_serves_nobody() {
    let mut scene = scene();
    scene
        .see(asks(CLIENT, 1))
        .see([outward(77, OUT, "other.example")]);
    scene.see(gets(CLIENT, 1, 0x8180)).wait(7_000);
    assert_eq!(upstreams(&scene.rows), ["1: none", "2: none"]);
}

#[test]
fn a_server_failure_names_the_upstream_that_never_answered() {
    let mut scene = scene();
    scene.see(asks(CLIENT, 1)).see([outward(77, OUT, ASK)]);
    scene.wait(2_000).see([outward(78, OUT, ASK)]).wait(2_000);
    scene.see(gets(CLIENT, 1, 0x8182)).wait(500);
    let Row::Dns(dns) = &scene.rows[0] else {
        panic!("it is DNS: {:?}", scene.rows);
    };
    assert_eq!(dns.rcode, Some(2));
    assert_eq!(
        dns.cause.as_deref(),
        Some("its server asked 2 times, 198.51.100.1:53 last, and got no answer within 4000 ms")
    );
    let upstream = dns.upstream.as_ref().expect("it asked");
    assert_eq!(
        (upstream.outcome, upstream.queries),
        (Outcome::Unanswered, 2)
    );
    assert!(!upstream.inferred);
    assert!(upstream.waited >= Duration::from_secs(4));
}

#[test]
fn a_query_that_stays_unanswered_names_its_upstream_too() {
    let mut scene = scene();
    scene.see(asks(CLIENT, 1)).see([outward(77, OUT, ASK)]);
    scene.wait(7_000);
    let cause = |row: &Row| match row {
        Row::Dns(dns) => dns.cause.clone().unwrap_or_default(),
        Row::Connection(_) => String::new(),
    };
    let cause = cause(&scene.rows[0]);
    assert!(
        cause.contains("its server asked 198.51.100.1:53, and got no answer within 60"),
        "{cause}"
    );
}

#[test]
fn a_late_answer_says_that_upstream_was_late() {
    let mut scene = scene();
    scene.see(asks(CLIENT, 1)).see([outward(77, OUT, ASK)]);
    scene.wait(7_000).see([inward(77, OUT, 0x8180)]);
    scene.see(gets(CLIENT, 1, 0x8180)).wait(500);
    let late = scene.rows.iter().find_map(|row| match row {
        Row::Dns(dns) if dns.amends == Some(1) => dns.cause.clone(),
        _ => None,
    });
    assert_eq!(
        late.as_deref(),
        Some(
            "the answer came late; its server asked 198.51.100.1:53, \
             and waited 7000 ms for the answer"
        )
    );
}

#[test]
fn nothing_is_kept_of_what_is_forgotten() {
    let mut scene = scene();
    for id in 0..100 {
        scene.see(asks(CLIENT, id)).see([outward(id, OUT, ASK)]);
        scene
            .see([inward(id, OUT, 0x8180)])
            .see(gets(CLIENT, id, 0x8180));
    }
    scene.wait(30_000);
    let kept = format!("{:?}", scene.correlator);
    assert!(
        kept.contains("same: Some(Same({}))") && kept.contains("legs: {}"),
        "{kept}"
    );
    assert!(
        kept.contains("flying: {}") && kept.contains("served: {}"),
        "{kept}"
    );
}
