//! A million healthy exchanges that never happened, through correlator and diagnoses: what no kernel could be
//! made to see in seconds. Clients come and go, CoreDNS is rolled out again and again, resolvers walk their
//! search paths, some names do not exist, and the upstream server takes its time.

#[path = "../../tracer/benches/exchange/facts.rs"]
mod facts;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use facts::{Exchange, HOPS};
use tracer::correlate::{Correlator, Settings};
use tracer::diagnose::Diagnoses;
use tracer::model::{Event, Fact, KtimeNs, Named, Outcome, Row, Trace, WallNs};

const EXCHANGES: u64 = 1_000_000;
/// Between two look-ups, each of A and AAAA.
const PERIOD: Duration = Duration::from_micros(200);
const TICK: Duration = Duration::from_millis(20);
/// How long a pod of CoreDNS, or a client, has its address.
const LIFE: Duration = Duration::from_secs(7);
const CLIENTS: u64 = 40;

/// Flags of an answer.
const NOERROR: u16 = 0x8180;
const NXDOMAIN: u16 = 0x8183;
const QTYPES: [u8; 2] = [1, 28];

/// What a resolver asks one after the other, and what it is told.
const LOOKUPS: [&[(&str, u16)]; 8] = [
    &[("web.shop.svc.cluster.local", NOERROR)],
    &[("cart.shop.svc.cluster.local", NOERROR)],
    &[("kubernetes.default.svc.cluster.local", NOERROR)],
    &[("db-0.db.data.svc.cluster.local", NOERROR)],
    &[
        ("ledger.data.shop.svc.cluster.local", NXDOMAIN),
        ("ledger.data.svc.cluster.local", NOERROR),
    ],
    &[("www.example.test", NOERROR)],
    &[("wbe.shop.svc.cluster.local", NXDOMAIN)],
    &[("printer.example.test", NXDOMAIN)],
];

/// A number that looks like chance and is always the same.
fn scattered(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

fn small(number: u64) -> u16 {
    u16::try_from(number % 60_000).unwrap_or_default()
}

/// An address of a pod, of those that were there at `now`.
fn pod(node: u8, nth: u64, now: KtimeNs, port: u16) -> SocketAddr {
    let life = u64::try_from(LIFE.as_nanos()).unwrap_or(u64::MAX);
    // Not all at once.
    let born = (now.0 + nth * life / 3) / life;
    let host = u8::try_from((born * 41 + nth) % 250).unwrap_or_default();
    ([10, 244, node, 2 + host], port).into()
}

/// Both questions of look-up `number`, which begins at `now`.
fn lookup(number: u64, now: KtimeNs) -> impl Iterator<Item = (KtimeNs, Exchange<'static>)> {
    let chance = scattered(number);
    let asked = LOOKUPS[usize::from(small(chance % 8))];
    let client = pod(1, chance % CLIENTS, now, 1024 + small(number));
    let each = asked.iter().zip(0_u32..);
    each.flat_map(move |((name, answer), nth)| {
        let cluster = name.ends_with("cluster.local");
        // Others' servers are slower, and now and then very much so.
        let server = match (cluster, chance / 8 % 50) {
            (true, _) => 30 + chance / 8 % 200,
            (false, 0) => 400_000,
            (false, _) => 900 + chance / 8 % 30_000,
        };
        let began = now.plus(Duration::from_millis(2) * nth);
        QTYPES.into_iter().zip(0..).map(move |(qtype, later)| {
            let id = small(number * 4) + 2 * u16::try_from(nth).unwrap_or_default() + later;
            let exchange = Exchange {
                client,
                vip: ([10, 96, 0, 10], 53).into(),
                // Rules choose for a socket, not for a query.
                backend: pod(2, chance / 64 % 2, now, 53),
                id,
                name,
                qtype,
                answer: *answer,
                hop: Duration::from_micros(3 + chance / 128 % 9),
                server: Duration::from_micros(server),
            };
            (
                began.plus(Duration::from_micros(30) * u32::from(later)),
                exchange,
            )
        })
    })
}

/// What they came to.
#[derive(Default)]
struct Told {
    trace: Trace,
    diagnoses: Diagnoses,
    rows: u64,
    failed: u64,
    nxdomain: u64,
    backends: BTreeSet<SocketAddr>,
}

impl Told {
    fn add(&mut self, row: &Row) {
        let named = Named::default();
        self.trace.add(row, &named);
        self.diagnoses.add(row, &named);
        self.rows += 1;
        self.failed += u64::from(row.outcome() != Outcome::Answered);
        self.backends.extend(row.backend());
        if let Row::Dns(dns) = row {
            self.nxdomain += u64::from(dns.rcode == Some(3));
        }
    }

    /// Names and objects of what was found.
    fn found(&self) -> Vec<String> {
        let findings = self
            .diagnoses
            .findings(&self.trace.breakdown, &|_, _| false);
        let found = findings.iter();
        found
            .map(|found| format!("{}: {}", found.name, found.object))
            .collect()
    }
}

/// `exchanges` of them or a few more, of each of which `sights` says how many are seen.
fn told(exchanges: u64, sights: impl Fn(&Exchange<'_>) -> usize) -> Told {
    let mut correlator = Correlator::new(Settings::default());
    let mut told = Told::default();
    let (mut rows, mut waiting) = (Vec::new(), Vec::<Fact>::new());
    let mut now = KtimeNs(1_000_000_000);
    let mut next_tick = now;
    let (mut number, mut asked) = (0, 0);
    while asked < exchanges || !waiting.is_empty() {
        if asked < exchanges {
            for (began, exchange) in lookup(number, now) {
                let facts = exchange.facts(began);
                waiting.extend(facts.into_iter().take(sights(&exchange)));
                asked += 1;
            }
            number += 1;
        }
        now = now.plus(PERIOD);
        if now >= next_tick {
            waiting.sort_by_key(Fact::ktime);
            let seen = waiting.partition_point(|fact| fact.ktime() < now);
            for fact in waiting.drain(..seen) {
                correlator.apply(Event::Fact(&fact), &mut rows);
            }
            let wall = WallNs(1_795_637_490_000_000_000 + now.0.cast_signed());
            correlator.apply(Event::Tick { ktime: now, wall }, &mut rows);
            rows.drain(..).for_each(|row| told.add(&row));
            next_tick = now.plus(TICK);
        }
    }
    for _ in 0..400 {
        now = now.plus(TICK);
        let wall = WallNs(1_795_637_490_000_000_000 + now.0.cast_signed());
        correlator.apply(Event::Tick { ktime: now, wall }, &mut rows);
    }
    rows.drain(..).for_each(|row| told.add(&row));
    assert_eq!(told.rows, asked, "each exchange is a row");
    told
}

#[test]
#[ignore = "takes a minute where it is not optimized; run `cargo xtask test kernel`"]
fn a_million_healthy_exchanges_lead_to_no_finding() {
    let told = told(EXCHANGES, |_| HOPS);
    assert_eq!(told.found(), [""; 0]);
    assert_eq!(told.failed, 0);
    assert!(told.nxdomain > EXCHANGES / 5, "{}", told.nxdomain);
    assert!(told.backends.len() > 20, "{:?}", told.backends);
}

/// The same, and one of CoreDNS's many pods answers nobody.
#[test]
#[ignore = "takes a minute where it is not optimized; run `cargo xtask test kernel`"]
fn among_healthy_exchanges_one_pod_that_answers_nobody_is_found() {
    let silent = pod(2, 0, KtimeNs(3_000_000_000), 53);
    let told = told(100_000, |exchange| {
        if exchange.backend == silent {
            HOPS / 2
        } else {
            HOPS
        }
    });
    assert_eq!(
        told.found(),
        [format!("backend_silent: backend {}", silent.ip())]
    );
    assert!(told.failed > 1000, "{}", told.failed);
}
