//! What conntrack did to packets, and what rows say of it.

use super::super::scenario::*;
use crate::model::{
    Conntrack, Event, Fact, KtimeNs, NetnsInode, Place, Row, SkbId,
    conntrack::{ConntrackChange, ConntrackCounts},
    drops::Hook,
    insert::{Clash, Insert, InsertEvent},
};

const ASK: &str = "a.example";

/// Another client, with the same port.
const OTHER: &str = "192.0.2.2:40000";

/// Both, once the node has given them its own address.
const MASQUERADED: &str = "192.0.2.254:40000";

fn entry(client: &str, reply: (&str, &str)) -> Conntrack {
    Conntrack {
        original: flow(client, BACKEND),
        reply: flow(reply.0, reply.1),
        zone: 0,
    }
}

fn insert(netns: u32, event: InsertEvent) -> Fact {
    Fact::Insert(Insert {
        ktime: KtimeNs(0),
        netns: NetnsInode(netns),
        event,
    })
}

/// The packet of `own` met the entry `other`.
fn clash(own: Conntrack, other: Conntrack, resolved: bool) -> Fact {
    let skb = SkbId(0xff01);
    insert(
        NODE,
        InsertEvent::Clash(Box::new(Clash {
            skb,
            own,
            other,
            resolved,
        })),
    )
}

/// A drop at `hook` of the node, for a reason that has no name.
fn refused(hook: Hook) -> At {
    let (reason, location) = (7, 0);
    let hook = Some(hook);
    let place = Place::Dropped {
        reason,
        location,
        hook,
    };
    at(place, NODE, 11)
}

/// Both clients ask the server, whose node masquerades them; the second is dropped. `told` says whether the
/// kernel's clash is seen.
fn collide(scene: &mut Scene, told: bool) {
    let reply = (BACKEND, MASQUERADED);
    for client in [CLIENT, OTHER] {
        scene.see([
            queued(POD, 2)
                .udp(client, BACKEND)
                .sender(100)
                .dns(query(1, ASK, A)),
            received(NODE, 10)
                .udp(client, BACKEND)
                .dns(query(1, ASK, A)),
        ]);
    }
    let masqueraded = |at: At, client| at.conntrack((client, BACKEND), reply);
    scene.see([
        masqueraded(queued(NODE, 11).udp(MASQUERADED, BACKEND), CLIENT).dns(query(1, ASK, A)),
    ]);
    if told {
        scene.fact(clash(entry(OTHER, reply), entry(CLIENT, reply), false));
    }
    scene.see([
        masqueraded(refused(Hook::Postrouting).udp(MASQUERADED, BACKEND), OTHER)
            .dns(query(1, ASK, A)),
        received(SERVER, 2)
            .udp(MASQUERADED, BACKEND)
            .dns(query(1, ASK, A)),
        queued(SERVER, 2)
            .udp(BACKEND, MASQUERADED)
            .sender(200)
            .dns(answer(1, ASK, A)),
        received(NODE, 11)
            .udp(BACKEND, MASQUERADED)
            .dns(answer(1, ASK, A)),
        masqueraded(queued(NODE, 10).udp(BACKEND, CLIENT), CLIENT).dns(answer(1, ASK, A)),
        received(POD, 2).udp(BACKEND, CLIENT).dns(answer(1, ASK, A)),
    ]);
}

#[test]
fn the_loser_of_a_race_names_the_winner_and_does_not_get_its_answer() {
    let mut scene = Scene::new();
    collide(&mut scene, true);
    scene.wait(7_000);
    scene.shows(&[
        "1 a.example A 192.0.2.53:53: answered NOERROR in 110 µs",
        "2 a.example A 192.0.2.53:53: dropped: the kernel dropped the query: reason 7; its conntrack \
         entry, replies 192.0.2.53:53 → 192.0.2.254:40000, clashed with that of 192.0.2.1:40000 → \
         192.0.2.53:53",
    ]);
    let Row::Dns(lost) = &scene.rows[1] else {
        panic!("it is a query");
    };
    let clash = lost.clash.as_ref().unwrap();
    assert!(!clash.resolved);
    assert_eq!(clash.other.original.src, CLIENT.parse().unwrap());
}

#[test]
fn a_resolved_clash_is_a_note_and_no_cause() {
    let mut scene = Scene::new();
    let [sent, taken, passed, got] = asking(CLIENT, &query(1, ASK, A));
    scene.see([sent, taken]);
    let own = entry(CLIENT, (BACKEND, CLIENT));
    scene.fact(clash(own, own, true));
    scene.see([passed, got]);
    scene.see(answering(CLIENT, &answer(1, ASK, A))).wait(2_000);
    let Row::Dns(row) = &scene.rows[0] else {
        panic!("it is a query");
    };
    assert!(row.clash.as_ref().is_some_and(|clash| clash.resolved));
    assert_eq!(row.cause, None);
}

/// The cause of a query that the node drops at `hook` just after a full table was seen in `netns`.
fn after_full(netns: u32, hook: Hook) -> String {
    let mut scene = Scene::new();
    scene.see([queued(POD, 2)
        .udp(CLIENT, VIP)
        .sender(100)
        .dns(query(1, ASK, A))]);
    scene.fact(insert(netns, InsertEvent::Full));
    scene.see([refused(hook).udp(CLIENT, VIP).dns(query(1, ASK, A))]);
    scene.wait(7_000);
    line(&scene.rows[0])
}

#[test]
fn a_full_table_explains_the_drop_that_follows_in_its_namespace_where_packets_are_looked_up() {
    let full = "conntrack's table was full";
    assert!(after_full(NODE, Hook::Prerouting).ends_with(full));
    assert!(!after_full(POD, Hook::Prerouting).contains(full));
    assert!(!after_full(NODE, Hook::Forward).contains(full));
}

/// The cause of a query that the node drops at POSTROUTING, when conntrack of `netns` counts so many failures.
fn when_counted(netns: u32, insert_failed: u64) -> String {
    let names = drop_names([(7, "NETFILTER_DROP")]);
    let mut scene = Scene::with(super::super::Settings {
        drop_names: names,
        ..super::super::Settings::default()
    });
    let from = scene.now;
    collide(&mut scene, false);
    let change = ConntrackChange {
        netns: NetnsInode(netns),
        from,
        to: scene.now,
        counts: ConntrackCounts {
            insert_failed,
            ..ConntrackCounts::default()
        },
    };
    scene
        .correlator
        .apply(Event::Counted(&change), &mut scene.rows);
    scene.wait(7_000);
    line(&scene.rows[1])
}

#[test]
fn without_a_probe_conntracks_statistics_are_named_as_such() {
    let said =
        "in POSTROUTING; conntrack's statistics there count 1 insert_failed within that second";
    assert!(
        when_counted(NODE, 1).ends_with(said),
        "{}",
        when_counted(NODE, 1)
    );
    for other in [when_counted(NODE, 0), when_counted(POD, 1)] {
        assert!(other.ends_with("NETFILTER_DROP in POSTROUTING"), "{other}");
    }
}

/// The cause of a query that a rule of the node drops in FORWARD, when conntrack counts so many packets INVALID
/// meanwhile; `entry` says whether it has an entry.
fn in_forward(invalid: u64, entry: bool) -> String {
    let names = drop_names([(7, "NETFILTER_DROP")]);
    let mut scene = Scene::with(super::super::Settings {
        drop_names: names,
        ..super::super::Settings::default()
    });
    let from = scene.now;
    let mut drop = refused(Hook::Forward).udp(CLIENT, BACKEND);
    if entry {
        drop = drop.conntrack((CLIENT, BACKEND), (BACKEND, CLIENT));
    }
    scene.see([
        queued(POD, 2)
            .udp(CLIENT, BACKEND)
            .sender(100)
            .dns(query(1, ASK, A)),
        drop.dns(query(1, ASK, A)),
    ]);
    let change = ConntrackChange {
        netns: NetnsInode(NODE),
        from,
        to: scene.now,
        counts: ConntrackCounts {
            invalid,
            ..ConntrackCounts::default()
        },
    };
    scene
        .correlator
        .apply(Event::Counted(&change), &mut scene.rows);
    scene.wait(7_000);
    line(&scene.rows[0])
}

#[test]
fn a_packet_without_an_entry_past_conntrack_is_invalid_where_that_is_counted() {
    let said = "in FORWARD; conntrack's statistics there count 1 invalid within that second";
    assert!(
        in_forward(1, false).ends_with(said),
        "{}",
        in_forward(1, false)
    );
    for other in [in_forward(0, false), in_forward(1, true)] {
        assert!(other.ends_with("NETFILTER_DROP in FORWARD"), "{other}");
    }
}
