//! The last line: what the trace adds up to, and what it did not see.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::SocketAddr,
};

use serde::Serialize;

use super::{
    api::{ApiLine, AskedSummary},
    clock::ClockSummary,
    journey::StepLine,
    lag::LagLine,
    micros,
};
use crate::{
    model::{
        Outcome, Trace,
        conntrack::ConntrackTotals,
        stages::StageTotals,
        trace::{ConnectionTotals, DnsTotals, Latency, ServiceSpread},
    },
    report::names::rcode_name,
};

/// Raised when a key changes its meaning; so far never.
pub(super) const SCHEMA: u32 = 1;
#[derive(Serialize)]
struct Summary<'a> {
    r#type: &'static str,
    schema: u32,
    seconds: f64,
    dns: Vec<DnsSummary<'a>>,
    connections: Vec<ConnectionSummary<'a>>,
    beyond: u64,
    names: BTreeMap<&'static str, u64>,
    verdicts: &'a BTreeMap<&'static str, u64>,
    spreads: Vec<SpreadSummary<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<ApiLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    programming: Option<LagLine<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    clocks: Vec<ClockSummary<'a>>,
    conntrack: Vec<ConntrackSummary<'a>>,
    unplaced: Unplaced,
    lost: Lost,
    unseen: &'a [String],
}

#[derive(Serialize)]
struct DnsSummary<'a> {
    asked: AskedSummary<'a>,
    queries: u64,
    answered: u64,
    failed: u64,
    late: u64,
    retries: u64,
    outcomes: BTreeMap<&'static str, u64>,
    rcodes: BTreeMap<String, u64>,
    backends: BTreeMap<SocketAddr, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<Percentiles>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stages: Vec<StageSummary>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stopped: Vec<Stopped>,
}

/// A namespace's conntrack by its own statistics; counters are those of the trace's time.
#[derive(Serialize)]
struct ConntrackSummary<'a> {
    netns: &'a str,
    entries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<u64>,
    counted: BTreeMap<&'static str, u64>,
}

fn conntrack(totals: &ConntrackTotals) -> ConntrackSummary<'_> {
    let ConntrackTotals { netns, table } = totals;
    ConntrackSummary {
        netns,
        entries: table.entries,
        max: table.max,
        counted: table.counts.named().into(),
    }
}

#[derive(Serialize)]
struct ConnectionSummary<'a> {
    protocol: &'static str,
    asked: AskedSummary<'a>,
    count: u64,
    outcomes: BTreeMap<&'static str, u64>,
    backends: BTreeMap<SocketAddr, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<Percentiles>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stages: Vec<StageSummary>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stopped: Vec<Stopped>,
}

/// How a Service's connections were spread over its endpoints.
#[derive(Serialize)]
struct SpreadSummary<'a> {
    service: String,
    asked: &'a SocketAddr,
    connections: u64,
    endpoints: usize,
    test: &'static str,
    statistic: f64,
    p: f64,
}

fn spread(spread: &ServiceSpread) -> SpreadSummary<'_> {
    SpreadSummary {
        service: spread.port.to_string(),
        asked: &spread.asked,
        connections: spread.test.connections,
        endpoints: spread.test.endpoints,
        test: "chi_squared",
        statistic: spread.test.statistic,
        p: spread.test.p,
    }
}

/// One stage of all journeys.
#[derive(Serialize)]
struct StageSummary {
    #[serde(flatten)]
    step: StepLine,
    count: u64,
    share: f64,
    p50_us: f64,
    p99_us: f64,
}

/// Where exchanges without a good end were seen last.
#[derive(Serialize)]
struct Stopped {
    #[serde(flatten)]
    step: Option<StepLine>,
    count: u64,
}

#[derive(Serialize)]
pub(super) struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

#[derive(Serialize)]
struct Unplaced {
    malformed: u64,
    cut: u64,
    unmatched: u64,
    unexpected_source: u64,
    duplicates: u64,
    multi_question: u64,
    fragments: u64,
    tcp_gaps: u64,
    open: u64,
}

#[derive(Serialize)]
struct Lost {
    total: u64,
    ring_full: u64,
    skipped: u64,
    unreadable: u64,
    undecodable: u64,
    unrecorded: u64,
    evicted: u64,
}

pub(in crate::report) fn summary(
    trace: &Trace,
    seconds: f64,
    unseen: &[String],
    out: &mut impl Write,
) -> io::Result<()> {
    let (unplaced, losses) = (trace.unplaced, trace.losses);
    let summary = Summary {
        r#type: "summary",
        schema: SCHEMA,
        seconds,
        dns: trace
            .dns
            .iter()
            .map(|(&asked, totals)| {
                dns_summary(AskedSummary::of(asked, trace.dns_service(asked)), totals)
            })
            .collect(),
        connections: trace
            .connections
            .iter()
            .map(|(key, totals)| {
                let asked = AskedSummary::of(key.1, trace.services.get(key));
                connection_summary(key.0.name(), asked, totals)
            })
            .collect(),
        beyond: trace.beyond,
        verdicts: &trace.verdicts,
        spreads: trace.spreads.iter().map(spread).collect(),
        names: trace
            .names
            .iter()
            .map(|(source, &n)| (source.name(), n))
            .collect(),
        api: trace.api.as_ref().map(ApiLine::from),
        programming: trace.lag.as_ref().map(LagLine::of),
        clocks: trace.clocks.iter().map(ClockSummary::of).collect(),
        conntrack: trace.conntrack.iter().map(conntrack).collect(),
        unplaced: Unplaced {
            malformed: unplaced.malformed,
            cut: unplaced.cut,
            unmatched: unplaced.unmatched,
            unexpected_source: unplaced.unexpected_source,
            duplicates: unplaced.duplicates,
            multi_question: unplaced.multi_question,
            fragments: unplaced.fragments,
            tcp_gaps: unplaced.tcp_gaps,
            open: unplaced.open,
        },
        lost: Lost {
            total: losses.total() + unplaced.evicted,
            ring_full: losses.ring_full,
            skipped: losses.skipped,
            unreadable: losses.unreadable,
            undecodable: losses.undecodable,
            unrecorded: losses.unrecorded,
            evicted: unplaced.evicted,
        },
        unseen,
    };
    serde_json::to_writer(&mut *out, &summary)?;
    out.write_all(b"\n")
}

fn dns_summary<'a>(asked: AskedSummary<'a>, totals: &DnsTotals) -> DnsSummary<'a> {
    DnsSummary {
        asked,
        queries: totals.queries,
        answered: totals.answered,
        failed: totals.queries - totals.answered,
        late: totals.late,
        retries: totals.retries,
        outcomes: outcomes(&totals.outcomes),
        rcodes: totals
            .rcodes
            .iter()
            .map(|(&rcode, &n)| (rcode_name(rcode).into_owned(), n))
            .collect(),
        backends: totals.backends.clone(),
        latency_us: percentiles(&totals.latency),
        stages: stages(totals.stages.as_deref()),
        stopped: stopped(totals.stages.as_deref()),
    }
}

fn connection_summary<'a>(
    protocol: &'static str,
    asked: AskedSummary<'a>,
    totals: &ConnectionTotals,
) -> ConnectionSummary<'a> {
    ConnectionSummary {
        protocol,
        asked,
        count: totals.count,
        outcomes: outcomes(&totals.outcomes),
        backends: totals.backends.clone(),
        latency_us: percentiles(&totals.latency),
        stages: stages(totals.stages.as_deref()),
        stopped: stopped(totals.stages.as_deref()),
    }
}

fn outcomes(outcomes: &BTreeMap<Outcome, u64>) -> BTreeMap<&'static str, u64> {
    outcomes
        .iter()
        .map(|(outcome, &n)| (outcome.name(), n))
        .collect()
}

fn stages(totals: Option<&StageTotals>) -> Vec<StageSummary> {
    let ranked = totals.map(StageTotals::ranked).unwrap_or_default();
    ranked
        .into_iter()
        .map(|stage| StageSummary {
            step: stage.step.into(),
            count: stage.count,
            share: stage.share,
            p50_us: micros(stage.p50),
            p99_us: micros(stage.p99),
        })
        .collect()
}

fn stopped(totals: Option<&StageTotals>) -> Vec<Stopped> {
    let stopped = totals.iter().flat_map(|totals| &totals.stopped);
    stopped
        .map(|(step, &count)| Stopped {
            step: step.map(StepLine::from),
            count,
        })
        .collect()
}

pub(super) fn percentiles(latency: &Latency) -> Option<Percentiles> {
    let at = |quantile| latency.quantile(quantile).map(micros);
    Some(Percentiles {
        p50: at(0.5)?,
        p90: at(0.9)?,
        p99: at(0.99)?,
        max: at(1.0)?,
    })
}
