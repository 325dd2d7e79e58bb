//! Whatever order records come in, and whichever of them are lost: nothing is said that was not seen.

use std::{collections::HashSet, time::Duration};

use super::{
    Correlator, Settings,
    message::corpus::Xorshift,
    scenario::{
        A, AAAA, At, BACKEND, NODE, SERVER, VIP, answer, answering, asking, drop_names, query,
        sender,
    },
};
use crate::model::{
    Event, Fact, IoEvent, KtimeNs, Losses, NetnsInode, Outcome, Packet, Row, SockId, SocketIo,
    Task, WallNs,
};

const EXCHANGES: u16 = 300;
/// Records of processors come in order each; between two, they change places by so many ns.
const SKEW: usize = 3_000;

/// One healthy exchange as records, with its sockets' ends; `start` in ns.
fn records(number: u16, start: u64, random: &mut Xorshift) -> Vec<Fact> {
    let client = format!("192.0.2.1:{}", 20_000 + number / 2);
    let kind = if number.is_multiple_of(2) { A } else { AAAA };
    let (asks, tells) = (
        query(number, "a.example", kind),
        answer(number, "a.example", kind),
    );
    let skb = |at: At, of: u64| at.skb(0x10_0000 + u64::from(number) * 4 + of);
    let there = asking(&client, &asks).map(|at| skb(at, 0));
    let back = answering(&client, &tells).map(|at| skb(at, 1));
    let mut now = start;
    let mut facts: Vec<Fact> = Vec::new();
    let mut packet = |At(mut packet): At, facts: &mut Vec<Fact>, now: &mut u64| {
        *now += 20_000 + random.below(50_000) as u64;
        packet.ktime = KtimeNs(*now);
        facts.push(Fact::Packet(packet));
    };
    for at in there {
        packet(at, &mut facts, &mut now);
    }
    // The server's socket is one for all; it is asked by many, so who reads what is told rarely.
    facts.push(io(
        SERVER,
        200,
        now + 5_000,
        IoEvent::Delivered {
            last: last_skb(&facts),
            queued: 1,
        },
    ));
    facts.push(io(
        SERVER,
        200,
        now + 9_000,
        IoEvent::Read {
            by: task(200),
            bytes: 40,
            queued: 0,
        },
    ));
    for at in back {
        packet(at, &mut facts, &mut now);
    }
    let sock = 1_000 + u32::from(number / 2);
    facts.push(io(
        1,
        sock,
        now + 5_000,
        IoEvent::Delivered {
            last: last_skb(&facts),
            queued: 1,
        },
    ));
    facts.push(io(
        1,
        sock,
        now + 9_000,
        IoEvent::Read {
            by: task(100),
            bytes: 40,
            queued: 0,
        },
    ));
    facts
}

fn last_skb(facts: &[Fact]) -> Option<crate::model::SkbId> {
    facts.iter().rev().find_map(|fact| match fact {
        Fact::Packet(Packet { skb, .. }) => Some(*skb),
        Fact::Socket(_) | Fact::SocketIo(_) | Fact::Insert(_) => None,
    })
}

fn task(pid: u32) -> Task {
    Task {
        pid,
        tid: pid,
        comm: sender(pid).comm,
    }
}

fn io(netns: u32, sock: u32, ktime: u64, event: IoEvent) -> Fact {
    Fact::SocketIo(SocketIo {
        ktime: KtimeNs(ktime),
        netns: NetnsInode(netns),
        sock: SockId(u64::from(sock)),
        local: u16::try_from(sock).unwrap(),
        remote: None,
        event,
    })
}

/// Rows of a run of healthy exchanges, of whose records `lost` in a thousand are lost.
fn run(seed: u64, lost: usize, paths: bool) -> Vec<Row> {
    let mut random = Xorshift(seed);
    let mut facts = Vec::new();
    for number in 0..EXCHANGES {
        let start = 1_000_000_000 + u64::from(number / 2) * 400_000;
        let exchange = records(number, start + random.below(100_000) as u64, &mut random);
        facts.extend(exchange);
    }
    let mut skewed: Vec<(u64, Fact)> = facts
        .into_iter()
        .map(|fact| (fact.ktime().0 + random.below(SKEW) as u64, fact))
        .collect();
    skewed.sort_by_key(|(at, _)| *at);
    let before = skewed.len();
    skewed.retain(|_| random.below(1_000) >= lost);
    let lost = (before - skewed.len()) as u64;
    let mut correlator = Correlator::new(Settings {
        paths,
        drop_names: drop_names([]),
        ..Settings::default()
    });
    let mut rows = Vec::new();
    let mut now = KtimeNs(1_000_000_000);
    let tick = |correlator: &mut Correlator, now: KtimeNs, rows: &mut Vec<Row>| {
        let wall = WallNs(0);
        correlator.apply(Event::Tick { ktime: now, wall }, rows);
    };
    for (at, fact) in &skewed {
        if *at > now.0 + 20_000_000 {
            now = KtimeNs(*at);
            tick(&mut correlator, now, &mut rows);
        }
        correlator.apply(Event::Fact(fact), &mut rows);
    }
    // The counters of losses are read every second.
    let losses = Losses {
        ring_full: lost,
        ..Losses::default()
    };
    now = KtimeNs(skewed.last().map_or(now.0, |(at, _)| *at));
    tick(&mut correlator, now, &mut rows);
    correlator.apply(Event::Loss(losses), &mut rows);
    for _ in 0..200 {
        now = now.plus(Duration::from_millis(100));
        tick(&mut correlator, now, &mut rows);
    }
    rows
}

fn outcome_and_cause(row: &Row) -> (Outcome, Option<&str>) {
    match row {
        Row::Dns(row) => (row.outcome, row.cause.as_deref()),
        Row::Connection(row) => (row.outcome, row.cause.as_deref()),
    }
}

#[test]
fn in_any_order_healthy_exchanges_are_accused_of_nothing() {
    for seed in 1..60 {
        for paths in [false, true] {
            let rows = run(seed, 0, paths);
            assert_eq!(rows.len(), usize::from(EXCHANGES), "seed {seed}");
            for row in &rows {
                let told = outcome_and_cause(row);
                assert_eq!(told, (Outcome::Answered, None), "seed {seed}: {row:#?}");
                assert_eq!(row.stopped(), None);
            }
        }
    }
}

#[test]
fn where_records_are_lost_nothing_is_told_but_that() {
    for seed in 1..60 {
        for lost in [5, 50, 300] {
            for paths in [false, true] {
                for row in run(seed, lost, paths) {
                    let told = match outcome_and_cause(&row) {
                        (Outcome::Answered, None | Some("an answer came after all")) => true,
                        (Outcome::Unanswered, Some(cause)) => {
                            cause.contains("records were lost meanwhile")
                        }
                        _ => false,
                    };
                    assert!(told, "seed {seed}, {lost} lost: {row:#?}");
                }
            }
        }
    }
}

/// What the correlator says of who read a query is never another's reading.
#[test]
fn a_server_that_reads_is_never_another_process() {
    for seed in 1..30 {
        for row in run(seed, 50, true) {
            let Row::Dns(dns) = row else { continue };
            let reader = dns.ends.query.reader().map(|task| task.pid);
            assert!(reader.is_none_or(|pid| pid == 200), "{dns:#?}");
            let backends: HashSet<_> = dns.backend.iter().map(ToString::to_string).collect();
            assert!(backends.iter().all(|backend| backend == BACKEND));
            assert!(dns.asked.to_string() == VIP || dns.asked.to_string() == BACKEND);
            assert!(dns.client.netns.is_none_or(|netns| netns.0 != NODE));
        }
    }
}
