//! Time to correlate one fact, rows included, and how much is kept meanwhile.
//!
//! `cargo bench -p tracer --bench correlate`. A stream of exchanges through a service address,
//! each seen at eight places, as fast as 10,000 a second would come; then the cost of a sweep
//! when all that can be tracked waits for an answer.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its purpose")]

use std::{
    hint::black_box,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tracer::{
    correlate::{Correlator, Settings, message::Peek},
    model::{
        Comm, Conntrack, Event, Fact, Flow, Ifindex, KtimeNs, NetnsInode, Packet, Place, Sender,
        SkbId, SockId, Transport, WallNs,
    },
};

const EXCHANGES: u32 = 200_000;
const ROUNDS: usize = 9;
const HOPS: usize = 8;
const FACTS: u32 = EXCHANGES * 8;
/// Client ports in use.
const PORTS: u16 = 64;
/// Between two exchanges.
const PERIOD: Duration = Duration::from_micros(100);
/// Between two ticks.
const TICK: Duration = Duration::from_millis(10);

/// Both ends of an exchange, before and after NAT.
struct Ends {
    client: SocketAddr,
    vip: SocketAddr,
    backend: SocketAddr,
}

impl Ends {
    fn new(port: u16) -> Self {
        Self {
            client: ([192, 0, 2, 1], port).into(),
            vip: ([10, 96, 0, 10], 53).into(),
            backend: ([192, 0, 2, 53], 53).into(),
        }
    }

    /// Flow, conntrack entry and place of each sight, in order.
    fn sights(&self) -> [(Flow, bool, Place, u32); HOPS] {
        let Self {
            client,
            vip,
            backend,
        } = *self;
        let flow = |src, dst| Flow { src, dst };
        [
            (flow(client, vip), false, Place::Queued, 1),
            (flow(client, vip), false, Place::Received, 2),
            (flow(client, backend), true, Place::Queued, 2),
            (flow(client, backend), false, Place::Received, 3),
            (flow(backend, client), false, Place::Queued, 3),
            (flow(backend, client), false, Place::Received, 2),
            (flow(vip, client), true, Place::Queued, 2),
            (flow(vip, client), false, Place::Received, 1),
        ]
    }

    fn entry(&self) -> Conntrack {
        Conntrack {
            original: Flow {
                src: self.client,
                dst: self.vip,
            },
            reply: Flow {
                src: self.backend,
                dst: self.client,
            },
            zone: 0,
        }
    }
}

fn message(id: u16, flags: u16) -> Bytes {
    let mut wire: Vec<u8> = [id, flags, 1, 0, 0, 0]
        .into_iter()
        .flat_map(u16::to_be_bytes)
        .collect();
    wire.extend_from_slice(b"\x0akubernetes\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01");
    wire.into()
}

/// The facts of exchange `number`, which begins at `ktime`.
fn exchange(number: u64, ktime: KtimeNs) -> [Fact; HOPS] {
    let low = u16::try_from(number & 0xffff).unwrap_or_default();
    let ends = Ends::new(40_000 + low % PORTS);
    let messages = [message(low, 0x0100), message(low, 0x8180)];
    let mut at = 0;
    ends.sights().map(|(flow, has_entry, place, netns)| {
        at += 1;
        let [query, answer] = &messages;
        let payload = if at <= HOPS / 2 { query } else { answer };
        let sends = place == Place::Queued && netns != 2;
        Fact::Packet(Packet {
            ktime: ktime.plus(Duration::from_micros(5 * at as u64)),
            place,
            netns: NetnsInode(netns),
            ifindex: Ifindex(u32::try_from(at).unwrap_or_default()),
            skb: SkbId(0x1000 + (number % 7) * 256 + u64::from(at > HOPS / 2)),
            flow,
            transport: Transport::Udp,
            conntrack: has_entry.then(|| ends.entry()),
            sender: sends.then_some(Sender {
                pid: Some(netns),
                comm: Comm(*b"bench\0\0\0\0\0\0\0\0\0\0\0"),
                cgroup: None,
                sock: SockId(u64::from(netns)),
            }),
            headers: Bytes::new(),
            payload: payload.clone(),
            payload_len: u32::try_from(payload.len()).unwrap_or_default(),
            unreadable: false,
            tunnel: None,
        })
    })
}

fn tick(correlator: &mut Correlator, ktime: KtimeNs, rows: &mut Vec<tracer::model::Row>) {
    let wall = WallNs(0);
    correlator.apply(Event::Tick { ktime, wall }, rows);
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
            facts.push(exchange(number, now));
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
        for fact in exchange(number, now).iter().take(HOPS / 2) {
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
    let messages = [message(1, 0x0100), message(1, 0x8180)];
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
