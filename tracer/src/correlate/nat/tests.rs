//! Who really asked whom, by entry and by learnt translation.

use super::{
    super::scenario::{At, BACKEND, CLIENT, NODE, POD, VIP, flow, queued, received},
    *,
};

fn entry(original: (&str, &str), reply: (&str, &str)) -> Conntrack {
    Conntrack {
        original: flow(original.0, original.1),
        reply: flow(reply.0, reply.1),
        zone: 0,
    }
}

fn knowing(entries: &[Conntrack]) -> Nat {
    let mut nat = Nat::new(16);
    for entry in entries {
        nat.learn(Protocol::Udp, entry);
    }
    nat
}

fn dnat() -> Conntrack {
    entry((CLIENT, VIP), (BACKEND, CLIENT))
}

#[track_caller]
#[expect(
    clippy::needless_pass_by_value,
    reason = "the test vocabulary builds it in place"
)]
fn check(nat: &Nat, at: At, client: &str, asked: &str, backend: Option<&str>, forward: bool) {
    let expected = Ends {
        client: client.parse().unwrap(),
        asked: asked.parse().unwrap(),
        backend: backend.map(|backend| backend.parse().unwrap()),
        forward,
    };
    assert_eq!(nat.ends(Protocol::Udp, &at.0), expected, "guessed");
    let told = nat.ends_of_way(Protocol::Udp, &at.0, forward);
    assert_eq!(told, expected, "told");
}

#[test]
fn an_entry_tells_both_ways() {
    let nat = knowing(&[]);
    let at = |src, dst| {
        let at = queued(NODE, 1).udp(src, dst);
        at.conntrack((CLIENT, VIP), (BACKEND, CLIENT))
    };
    check(&nat, at(CLIENT, BACKEND), CLIENT, VIP, Some(BACKEND), true);
    check(&nat, at(VIP, CLIENT), CLIENT, VIP, Some(BACKEND), false);
}

#[test]
fn without_an_entry_the_translation_learnt_elsewhere_tells() {
    let nat = knowing(&[dnat()]);
    let there = received(POD, 1).udp(CLIENT, BACKEND);
    check(&nat, there, CLIENT, VIP, Some(BACKEND), true);
    let back = received(POD, 1).udp(BACKEND, CLIENT);
    check(&nat, back, CLIENT, VIP, Some(BACKEND), false);
}

#[test]
fn what_is_sent_is_not_translated_yet() {
    let nat = knowing(&[dnat()]);
    let at = queued(POD, 1).udp(CLIENT, BACKEND).sender(1);
    let ends = nat.ends_of_way(Protocol::Udp, &at.0, true);
    assert_eq!(ends.asked, BACKEND.parse().unwrap());
}

#[test]
fn translations_one_behind_the_other_lead_to_the_first_client() {
    const MASKED: &str = "203.0.113.1:61000";
    const PORT: &str = "203.0.113.2:30053";
    let nat = knowing(&[
        entry((CLIENT, VIP), (PORT, MASKED)),
        entry((MASKED, PORT), (BACKEND, MASKED)),
    ]);
    let at = received(POD, 1).udp(MASKED, BACKEND);
    check(&nat, at, CLIENT, VIP, Some(BACKEND), true);
}

#[test]
fn an_entry_without_translation_is_not_learnt() {
    let nat = knowing(&[entry((CLIENT, BACKEND), (BACKEND, CLIENT))]);
    assert!(nat.young.is_empty());
}

#[test]
fn a_translation_is_forgotten_after_two_spans_unseen() {
    let mut nat = knowing(&[dnat()]);
    let reply = flow(BACKEND, CLIENT);
    nat.age(KtimeNs(60_000_000_000));
    assert!(nat.first(Protocol::Udp, reply).is_some());
    nat.age(KtimeNs(120_000_000_000));
    assert!(nat.first(Protocol::Udp, reply).is_none());
}

#[test]
fn no_more_are_kept_than_twice_the_most() {
    let mut nat = Nat::new(16);
    for port in 1..1000 {
        let client = format!("192.0.2.1:{port}");
        nat.learn(Protocol::Udp, &entry((&client, VIP), (BACKEND, &client)));
    }
    assert!(nat.young.len() + nat.old.len() <= 32);
}
