//! How far kube-proxy was behind what the API server said.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use serde::Serialize;

use super::{
    micros,
    summary::{Percentiles, SCHEMA, percentiles},
};
use crate::model::lag::LagTotals;

#[derive(Serialize)]
pub(super) struct LagLine<'a> {
    endpoints_ready: u64,
    written: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_rules_us: Option<Percentiles>,
    asked: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules_to_packet_us: Option<Percentiles>,
    unwritten: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    polled_every_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slowest: Option<SlowestLine<'a>>,
}

#[derive(Serialize)]
struct SlowestLine<'a> {
    service: String,
    endpoint: &'a SocketAddr,
    to_rules_us: f64,
}

impl<'a> LagLine<'a> {
    pub(super) fn of(lag: &'a LagTotals) -> Self {
        Self {
            endpoints_ready: lag.changes,
            written: lag.written.count(),
            to_rules_us: percentiles(&lag.written),
            asked: lag.asked.count(),
            rules_to_packet_us: percentiles(&lag.asked),
            unwritten: lag.unwritten,
            polled_every_us: lag.polled.map(micros),
            slowest: lag.slowest.as_ref().map(|slowest| SlowestLine {
                service: slowest.service.to_string(),
                endpoint: &slowest.endpoint,
                to_rules_us: micros(slowest.took),
            }),
        }
    }
}

#[derive(Serialize)]
struct WatchedLine<'a> {
    r#type: &'static str,
    schema: u32,
    looks: u64,
    findings: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    programming: Option<LagLine<'a>>,
}

/// The end of a watch.
pub(in crate::report) fn watched(
    looks: u64,
    findings: usize,
    lag: Option<&LagTotals>,
    out: &mut impl Write,
) -> io::Result<()> {
    let line = WatchedLine {
        r#type: "watched",
        schema: SCHEMA,
        looks,
        findings,
        programming: lag.map(LagLine::of),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}
