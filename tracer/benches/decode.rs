//! Time to peek at one DNS message, beside `domain`'s own parse of header and question in the same run.
//!
//! `cargo bench -p tracer --bench decode`. The ratio travels between machines; the nanoseconds do not.
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
const ROUNDS: u32 = 200_000;
const REPEATS: usize = 15;

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

/// Fastest of some repeats, in nanoseconds a call.
fn fastest<T>(mut work: impl FnMut() -> T) -> f64 {
    let once = |_| {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            black_box(work());
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS)
    };
    (0..REPEATS).map(once).fold(f64::INFINITY, f64::min)
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
    fastest(|| {
        let mut told = 0;
        let key = keys.next().unwrap_or_default();
        if let Some(seq) = seq.get_mut(usize::from(key)) {
            streams.push(&key, 1, *seq, &segment, segment.len(), &mut |message| {
                told += message.original_len;
            });
            *seq = seq.wrapping_add(u32::try_from(segment.len()).unwrap_or_default());
        }
        told
    })
}

fn main() {
    println!(
        "{:>8} {:>8} {:>6} {:>8}  question",
        "peek ns", "domain", "ratio", "name ns"
    );
    for name in NAMES {
        let wire = query(name);
        let peek = fastest(|| Peek::parse(black_box(&wire), black_box(wire.len())));
        let domain = fastest(|| {
            let message = Message::from_slice(black_box(&wire)).ok()?;
            Some((
                message.header(),
                message.header_counts(),
                message.sole_question().ok()?,
            ))
        });
        let text = Peek::parse(&wire, wire.len())
            .map_or(f64::NAN, |peek| fastest(|| peek.name(black_box(&wire))));
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
