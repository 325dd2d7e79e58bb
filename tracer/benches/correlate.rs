//! Time to correlate one fact, rows included, and how much is kept meanwhile.
//!
//! `cargo bench -p tracer --bench correlate`. A stream of exchanges through a service address,
//! each seen at eight places, as fast as 10,000 a second would come; then the cost of a sweep
//! when all that can be tracked waits for an answer.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its purpose")]

#[path = "exchange/facts.rs"]
mod facts;
#[path = "exchange/steady.rs"]
mod steady;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use facts::HOPS;
use steady::steady;
use tracer::{
    correlate::{Correlator, Settings, message::Peek},
    model::{Event, Fact, KtimeNs, WallNs},
};

/// What is asked.
const NAME: &str = "kubernetes.default.svc.cluster.local";

const EXCHANGES: u32 = 200_000;
const ROUNDS: usize = 9;
const FACTS: u32 = EXCHANGES * 8;
/// Client ports in use.
const PORTS: u16 = 64;
/// Between two exchanges.
const PERIOD: Duration = Duration::from_micros(100);
/// Between two ticks.
const TICK: Duration = Duration::from_millis(10);

fn tick(correlator: &mut Correlator, ktime: KtimeNs, rows: &mut Vec<tracer::model::Row>) {
    let wall = WallNs(0);
    correlator.apply(Event::Tick { ktime, wall }, rows);
}

/// Facts as a packet's record tells them, one place after the other.
fn in_turn(mut facts: [Fact; HOPS]) -> [Fact; HOPS] {
    for (place, fact) in facts.iter_mut().enumerate() {
        if let Fact::Packet(packet) = fact {
            packet.again = place % (HOPS / 2) > 0;
        }
    }
    facts
}

/// Nanoseconds for one fact of a steady stream, the making of the facts apart; and the most
/// queries that were followed at once.
fn stream() -> (f64, usize) {
    let mut correlator = Correlator::new(Settings::default());
    let (mut now, mut rows) = (KtimeNs(1_000_000_000), Vec::new());
    let (mut spent, mut peak, mut count) = (Duration::ZERO, 0, 0);
    let each_tick = TICK.as_nanos() / PERIOD.as_nanos();
    let mut facts = Vec::new();
    let mut number = 0;
    while number < u64::from(EXCHANGES) {
        facts.clear();
        for _ in 0..each_tick {
            facts.push(in_turn(steady(number, PORTS, NAME).facts(now)));
            now = now.plus(PERIOD);
            number += 1;
        }
        let start = Instant::now();
        for fact in facts.iter().flatten() {
            correlator.apply(Event::Fact(fact), &mut rows);
        }
        tick(&mut correlator, now, &mut rows);
        count += rows.len();
        rows.clear();
        spent += start.elapsed();
        peak = peak.max(correlator.tracked());
    }
    assert_eq!(count, EXCHANGES as usize, "each exchange is a row");
    (spent.as_secs_f64() * 1e9 / f64::from(FACTS), peak)
}

/// Milliseconds for one sweep over as many waiting queries as are tracked; and their number.
fn sweep() -> (f64, usize) {
    let settings = Settings::default();
    let tracked = settings.tracked as u64;
    let mut correlator = Correlator::new(settings);
    let (mut now, mut rows) = (KtimeNs(1_000_000_000), Vec::new());
    for number in 0..tracked {
        for fact in steady(number, PORTS, NAME).facts(now).iter().take(HOPS / 2) {
            correlator.apply(Event::Fact(fact), &mut rows);
        }
    }
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        now = now.plus(Duration::from_millis(250));
        let start = Instant::now();
        tick(&mut correlator, now, &mut rows);
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    (median(times), correlator.tracked())
}

/// Nanoseconds for no more than a peek into each of the same messages: a yardstick, for the
/// machine may be busy.
fn peeks() -> f64 {
    let messages = steady(1, PORTS, NAME).messages();
    let start = Instant::now();
    for _ in 0..FACTS / 2 {
        for message in &messages {
            let message = black_box(message);
            let _ = black_box(Peek::parse(message, message.len()));
        }
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(FACTS)
}

fn median(mut measured: Vec<f64>) -> f64 {
    measured.sort_by(f64::total_cmp);
    let middle = measured.get(measured.len() / 2);
    middle.copied().unwrap_or(f64::NAN)
}

fn main() {
    let (mut times, mut yardstick, mut peak) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let (time, most) = stream();
        times.push(time);
        yardstick.push(peeks());
        peak = peak.max(most);
    }
    let best = times.iter().copied().fold(f64::INFINITY, f64::min);
    let (time, peek) = (median(times), median(yardstick));
    println!(
        "{time:8.1} ns a fact, median of {ROUNDS} rounds of {EXCHANGES} exchanges; best {best:.1}"
    );
    println!(
        "{:8.1} times a peek into its message, {peek:.1} ns",
        time / peek
    );
    println!("{peak:8} queries followed at once, at most, at 10,000 a second");
    let (time, entries) = sweep();
    println!(
        "{time:8.2} ms a sweep over {entries} waiting queries: {:.2} % of a core",
        time / 250.0 * 100.0
    );
}
