//! The correlator as a whole: hostile and interleaved events, bounds, order.

use std::collections::HashSet;

use super::{message::corpus::Xorshift, scenario::*, *};
use crate::model::NetnsInode;

/// Client ports in use, so that keys collide now and then.
const PORTS: usize = 5;

fn client(number: usize) -> String {
    format!("192.0.2.1:{}", 40_000 + number)
}

/// All sights of one exchange.
fn exchange(number: usize) -> Vec<At> {
    let (client, id) = (client(number % PORTS), u16::try_from(number).unwrap());
    let name = format!("name-{number}.example");
    let there = asking(&client, &query(id, &name, A));
    let back = answering(&client, &answer(id, &name, A));
    there.into_iter().chain(back).collect()
}

#[test]
fn any_interleaving_of_exchanges_yields_a_row_each() {
    for seed in 1..200 {
        let mut random = Xorshift(seed);
        let count = 1 + random.below(40);
        let mut open: Vec<_> = (0..count).map(|n| exchange(n).into_iter()).collect();
        let mut scene = Scene::new();
        while !open.is_empty() {
            let at = random.below(open.len());
            match open[at].next() {
                Some(sight) => scene.see([sight]),
                None => {
                    open.swap_remove(at);
                    continue;
                }
            };
            if random.below(20) == 0 {
                scene.wait(50);
            }
        }
        scene.wait(20_000);
        let shown: HashSet<_> = scene.rows.iter().map(|row| row.client().address).collect();
        assert_eq!(shown.len(), count.min(PORTS), "seed {seed}");
        assert_eq!(scene.rows.len(), count, "seed {seed}");
        for row in &scene.rows {
            let Row::Dns(row) = row else {
                panic!("{row:?}")
            };
            assert_eq!(row.outcome.name(), "answered", "seed {seed}: {row:?}");
            assert_eq!(row.backend, Some(BACKEND.parse().unwrap()), "seed {seed}");
        }
        assert_eq!(scene.unplaced(), Unplaced::default(), "seed {seed}");
    }
}

/// What is known of a datagram from the place before holds: its payload is not looked at again, as its being left out
/// shows.
#[test]
fn a_datagram_that_is_told_of_again_is_the_one_at_hand() {
    let rows = |again: bool| {
        let mut scene = Scene::new();
        for number in [0, 1, PORTS, 2 * PORTS] {
            for (place, mut sight) in exchange(number).into_iter().enumerate() {
                if again && place % 4 > 0 {
                    sight.0.again = true;
                    sight.0.payload.clear();
                }
                scene.see([sight]);
            }
        }
        assert_eq!(scene.unplaced(), Unplaced::default());
        format!("{:#?}", scene.rows)
    };
    assert_eq!(rows(true), rows(false));
}

/// Two neighbouring hops, seen by two processors, may come in the wrong order.
#[test]
fn hops_that_change_places_are_still_one_exchange() {
    for swapped in 0..7 {
        let mut hops = exchange(1);
        // The first answer cannot overtake the last hop of the query.
        if swapped != 3 {
            hops.swap(swapped, swapped + 1);
        }
        let mut scene = Scene::new();
        scene.see(hops).wait(20_000);
        assert_eq!(scene.rows.len(), 1, "{swapped}: {:#?}", scene.rows);
        assert_eq!(scene.rows[0].client().netns, Some(NetnsInode(POD)));
    }
}

fn pick<T: Copy>(random: &mut Xorshift, from: &[T]) -> T {
    from[random.below(from.len())]
}

fn garbage(random: &mut Xorshift) -> At {
    const ENDS: [&str; 5] = [CLIENT, VIP, BACKEND, "192.0.2.1:53", "[2001:db8::1]:53"];
    let (netns, ifindex) = (pick(random, &[0, POD, NODE]), pick(random, &[0, 1, 2]));
    let at = match random.below(3) {
        0 => queued(netns, ifindex),
        1 => received(netns, ifindex),
        _ => dropped(netns, ifindex, 9),
    };
    let (src, dst) = (pick(random, &ENDS), pick(random, &ENDS));
    let mut message = match random.below(2) {
        0 => query(1, "a.example", A),
        _ => answer(1, "a.example", A),
    };
    if random.below(4) == 0 {
        random.damage(&mut message);
    }
    let seq = u32::try_from(random.below(3)).unwrap();
    let at = match random.below(4) {
        0 => at
            .tcp(src, dst, u8::try_from(random.below(32)).unwrap(), seq)
            .payload(framed(&message)),
        1 => {
            let quoted = queued(POD, 1).udp(CLIENT, pick(random, &[VIP, BACKEND]));
            let kind = u8::try_from(random.below(13)).unwrap();
            at.icmp(kind, 3, "192.0.2.1", &quoted.dns(message))
        }
        _ => at.udp(src, dst).dns(message),
    };
    let at = at.skb(u64::try_from(random.below(3)).unwrap());
    let at = if random.below(3) == 0 {
        at.sender(100)
    } else {
        at
    };
    if random.below(3) == 0 {
        let end = |random: &mut Xorshift| pick(random, &ENDS);
        let original = (end(random), end(random));
        at.conntrack(original, (end(random), end(random)))
    } else {
        at
    }
}

#[test]
fn garbage_never_panics_and_each_row_is_shown_once() {
    for seed in 1..100 {
        let mut random = Xorshift(seed);
        let mut scene = Scene::new();
        for _ in 0..500 {
            let sight = garbage(&mut random);
            scene.see([sight]);
            if random.below(10) == 0 {
                scene.wait(u64::try_from(random.below(3000)).unwrap());
            }
        }
        scene.wait(20_000);
        assert_eq!(scene.correlator.dns.len(), 0, "seed {seed}");
        assert_eq!(scene.correlator.connections.len(), 0, "seed {seed}");
        let amends = |row: &Row| match row {
            Row::Dns(row) => row.amends,
            Row::Connection(row) => row.amends,
        };
        let serials: HashSet<_> = scene.rows.iter().map(Row::serial).collect();
        assert_eq!(serials.len(), scene.rows.len(), "seed {seed}");
        let amended: Vec<_> = scene.rows.iter().filter_map(amends).collect();
        assert!(amended.iter().all(|earlier| serials.contains(earlier)));
        let once: HashSet<_> = amended.iter().collect();
        assert_eq!(once.len(), amended.len(), "seed {seed}");
    }
}

fn few(tracked: usize) -> Scene {
    Scene::with(Settings {
        tracked,
        ..Settings::default()
    })
}

#[test]
fn more_queries_than_are_tracked_are_counted() {
    let mut scene = few(100);
    for number in 0..300 {
        let name = format!("name-{number}.example");
        scene.see(asking(&client(number), &query(1, &name, A)));
        assert!(scene.correlator.dns.len() <= 100);
    }
    assert_eq!(scene.unplaced().evicted, 200);
    scene.wait(7000);
    assert_eq!(scene.rows.len(), 100);
}

#[test]
fn finished_queries_make_room_for_new_ones() {
    let mut scene = few(10);
    for number in 0..300 {
        let name = format!("name-{number}.example");
        scene.see(asking(&client(number), &query(1, &name, A)));
        scene.see(answering(&client(number), &answer(1, &name, A)));
        if number % 5 == 4 {
            scene.wait(300);
        }
    }
    assert_eq!(scene.rows.len(), 300);
    assert_eq!(scene.unplaced().evicted, 0);
}

#[test]
fn finished_queries_leave_within_half_a_second() {
    let mut scene = few(100);
    scene.see(exchange(1)).wait(500);
    assert_eq!(scene.correlator.dns.len(), 0);
}

#[test]
fn one_question_without_end_is_followed_so_far() {
    let mut scene = few(1000);
    for _ in 0..1000 {
        scene.see(asking(CLIENT, &query(1, "a.example", A)));
    }
    assert_eq!(scene.correlator.dns.len(), 64);
    assert!(scene.unplaced().evicted > 0);
}

#[test]
fn a_flood_of_unmatched_answers_is_counted_and_keeps_nothing() {
    let mut scene = few(100);
    for number in 0..10_000 {
        let client = format!("192.0.2.{}:{}", number % 250, 1024 + number);
        scene.see([received(POD, 2)
            .udp(VIP, &client)
            .dns(answer(1, "a.example", A))]);
    }
    assert_eq!(scene.correlator.dns.len(), 0);
    assert_eq!(scene.unplaced().unmatched, 10_000);
}

#[test]
fn more_connections_than_are_tracked_are_counted() {
    let mut scene = few(100);
    for number in 0..300 {
        let syn = queued(POD, 2).tcp(&client(number), "10.96.0.1:443", 2, 1);
        scene.see([syn.sender(100)]);
        assert!(scene.correlator.connections.len() <= 100);
    }
    assert_eq!(scene.unplaced().evicted, 200);
}

#[test]
fn rows_of_one_moment_are_in_the_order_their_queries_began() {
    let mut scene = Scene::new();
    for number in (0..100).rev() {
        let name = format!("name-{number}.example");
        scene.see(
            asking(&client(number), &query(1, &name, A))
                .into_iter()
                .take(1),
        );
    }
    scene.wait(7000);
    let serials: Vec<_> = scene.rows.iter().map(Row::serial).collect();
    assert_eq!(serials, (1..=100).collect::<Vec<_>>());
}

#[test]
fn losses_add_up() {
    let mut scene = Scene::new();
    let lost = Losses {
        ring_full: 2,
        ..Losses::default()
    };
    for _ in 0..2 {
        let mut rows = Vec::new();
        scene.correlator.apply(Event::Loss(lost), &mut rows);
    }
    let (_, _, losses) = scene.finish();
    assert_eq!(losses.ring_full, 4);
}
