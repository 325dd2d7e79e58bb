//! Time to peek at one DNS message, beside `domain`'s own parse of header and question in the same run.
//!
//! `cargo bench -p tracer --bench decode`. The two take turns, since the machine may be
//! busy. Beyond what `domain` does, the peek hashes the name.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its purpose")]

use std::{hint::black_box, time::Instant};

use domain::base::Message;
use tracer::correlate::{message::Peek, stream::Streams};

const NAMES: [&str; 4] = [
    "a.example",
    "kubernetes.default.svc.cluster.local",
    "KuBe-DnS.kUbE-sYsTeM.sVc.ClUsTeR.lOcAl",
    LONG,
];
const LONG: &str = "bucket-with-a-rather-long-name.s3.dualstack.eu-central-1.amazonaws.com.prod-namespace.svc.cluster.local";
const ROUND: u32 = 20_000;
const ROUNDS: usize = 101;

/// A query with EDNS for AAAA of `name`.
fn query(name: &str) -> Vec<u8> {
    let mut wire = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        wire.extend(u8::try_from(label.len()));
        wire.extend_from_slice(label.as_bytes());
    }
    wire.extend_from_slice(&[0, 0, 28, 0, 1]);
    wire.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    wire
}

/// Nanoseconds a call, over one round of calls.
fn round<T>(mut work: impl FnMut() -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..ROUND {
        black_box(work());
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUND)
}

/// Median of what was measured.
fn median(mut measured: Vec<f64>) -> f64 {
    measured.sort_by(f64::total_cmp);
    measured
        .get(measured.len() / 2)
        .copied()
        .unwrap_or(f64::NAN)
}

/// One message in one segment, through a table of a thousand streams.
fn over_tcp() -> f64 {
    let message = query(LONG);
    let segment = [
        u16::try_from(message.len())
            .map_or([0; 2], u16::to_be_bytes)
            .as_slice(),
        &message,
    ]
    .concat();
    let mut streams = Streams::new(1000, 1 << 20);
    let mut seq = [1_u32; 1000];
    (0..1000_u16).for_each(|key| streams.open(&key, 0, 0, &mut |_| ()));
    let mut keys = (0..1000_u16).cycle();
    let mut push = || {
        let mut told = 0;
        let key = keys.next().unwrap_or_default();
        if let Some(seq) = seq.get_mut(usize::from(key)) {
            streams.push(&key, 1, *seq, &segment, segment.len(), &mut |message| {
                told += message.original_len;
            });
            *seq = seq.wrapping_add(u32::try_from(segment.len()).unwrap_or_default());
        }
        told
    };
    median((0..ROUNDS).map(|_| round(&mut push)).collect())
}

fn main() {
    println!("medians of {ROUNDS} rounds, taken in turn");
    println!(
        "{:>8} {:>8} {:>6} {:>8}  question",
        "peek ns", "domain", "ratio", "name ns"
    );
    for name in NAMES {
        let wire = query(name);
        let (mut peeks, mut domains, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            peeks.push(round(|| {
                Peek::parse(black_box(&wire), black_box(wire.len()))
            }));
            domains.push(round(|| {
                let message = Message::from_slice(black_box(&wire)).ok()?;
                Some((
                    message.header(),
                    message.header_counts(),
                    message.sole_question().ok()?,
                ))
            }));
            if let Ok(peek) = Peek::parse(&wire, wire.len()) {
                names.push(round(|| peek.name(black_box(&wire))));
            }
        }
        let [peek, domain, text] = [peeks, domains, names].map(median);
        println!(
            "{peek:8.1} {domain:8.1} {:6.2} {text:8.1}  {name}",
            peek / domain
        );
    }
    println!(
        "{:8.1} ns for a message over TCP, table included",
        over_tcp()
    );
}
