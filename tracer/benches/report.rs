//! Time to print one row, as text and as JSON.
//!
//! `cargo bench -p tracer --bench report`. The row is that of an answered query through a service
//! address, with namespace, process and container known.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its purpose")]

use std::{hint::black_box, io::Write as _, sync::Arc, time::Duration, time::Instant};

use tracer::{
    model::{
        Client, Comm, Dns, KtimeNs, Named, NetnsInode, Outcome, Protocol, Row, SocketEnds, WallNs,
    },
    report::{self, Format},
};

const ROWS: u32 = 200_000;
const ROUNDS: usize = 9;

fn row(serial: u64) -> Row {
    Row::Dns(Dns {
        serial,
        ktime: KtimeNs(serial * 100_000),
        wall: WallNs(1_790_000_000_000_000_000 + i64::try_from(serial).unwrap_or(0) * 100_000),
        client: Client {
            address: ([192, 0, 2, 1], 40_000).into(),
            netns: Some(NetnsInode(4_026_532_000)),
            sender: None,
        },
        protocol: Protocol::Udp,
        asked: ([10, 96, 0, 10], 53).into(),
        backend: Some(([192, 0, 2, 53], 53).into()),
        id: 4660,
        name: Some("web.shop.svc.cluster.local".to_owned()),
        qtype: Some(1),
        rcode: Some(0),
        answers: Some(1),
        truncated: false,
        latency: Some(Duration::from_micros(187)),
        outcome: Outcome::Answered,
        cause: None,
        clash: None,
        stopped: None,
        ends: SocketEnds::default(),
        upstream: None,
        retry_of: None,
        amends: None,
        journey: None,
    })
}

fn main() {
    let mut comm = [0; 16];
    comm[..7].copy_from_slice(b"dnsperf");
    let named = Named {
        netns: Some(Arc::from("client1")),
        process: Some((4242, Comm(comm))),
        container: Some(Arc::from("0123456789ab".repeat(6).as_str())),
        ..Named::default()
    };
    for (name, format) in [
        (
            "text",
            Format::Text {
                colour: false,
                zone: report::Zone::Utc,
            },
        ),
        ("json", Format::Json),
    ] {
        let mut out = Vec::with_capacity(1 << 20);
        let mut rounds = [0.0; ROUNDS];
        for round in &mut rounds {
            let start = Instant::now();
            for serial in 0..ROWS {
                if out.len() > 60_000 {
                    out.clear();
                }
                let row = black_box(row(u64::from(serial)));
                // Writing to memory does not fail.
                let _ = report::row(format, &row, &named, &mut out);
            }
            *round = start.elapsed().as_secs_f64() * 1e9 / f64::from(ROWS);
        }
        let _ = out.flush();
        rounds.sort_by(f64::total_cmp);
        println!(
            "{name}: {:.0} ns a row (median of {ROUNDS})",
            rounds[ROUNDS / 2]
        );
    }
}
