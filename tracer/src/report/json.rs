//! JSON lines. The schema is an interface: keys are added, never renamed or retyped. README.md
//! describes it key by key.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::Serialize;

use crate::{
    correlate::message::{qtype_name, rcode_name},
    model::{
        Client, Comm, Connection, Dns, Named, Outcome, Row, Trace, WallNs,
        trace::{ConnectionTotals, DnsTotals, Latency},
    },
};

/// Raised when a key changes its meaning; so far never.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct End {
    ip: IpAddr,
    port: u16,
}

impl From<SocketAddr> for End {
    fn from(address: SocketAddr) -> Self {
        Self {
            ip: address.ip(),
            port: address.port(),
        }
    }
}

#[derive(Serialize)]
struct Process {
    pid: u32,
    #[serde(serialize_with = "as_text")]
    name: Comm,
}

fn as_text<S: serde::Serializer>(comm: &Comm, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(comm)
}

#[derive(Serialize)]
struct ClientLine<'a> {
    ip: IpAddr,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
}

fn client<'a>(client: &Client, named: &'a Named) -> ClientLine<'a> {
    ClientLine {
        ip: client.address.ip(),
        port: client.address.port(),
        netns: named.netns.as_deref(),
        process: named.process.map(|(pid, name)| Process { pid, name }),
        container: named.container.as_deref(),
    }
}

#[derive(Serialize)]
struct DnsLine<'a> {
    r#type: &'static str,
    serial: u64,
    time: Time,
    ktime_ns: u64,
    client: ClientLine<'a>,
    protocol: &'static str,
    asked: End,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<End>,
    id: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    qtype: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rcode: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answers: Option<u16>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<f64>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amends: Option<u64>,
}

#[derive(Serialize)]
struct ConnectionLine<'a> {
    r#type: &'static str,
    serial: u64,
    time: Time,
    ktime_ns: u64,
    client: ClientLine<'a>,
    protocol: &'static str,
    asked: End,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<End>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_us: Option<f64>,
    retransmits: u32,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amends: Option<u64>,
}

/// RFC 3339 in UTC, to the nanosecond.
struct Time(WallNs);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0.0)) {
            Ok(time) => serializer.collect_str(&format_args!("{time:.9}")),
            Err(_) => serializer.serialize_none(),
        }
    }
}

/// Microseconds to three digits behind the point: the kernel's clock has no more.
#[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days")]
fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1000.0
}

pub(super) fn row(row: &Row, named: &Named, out: &mut impl Write) -> io::Result<()> {
    match row {
        Row::Dns(dns) => serde_json::to_writer(&mut *out, &dns_line(dns, named))?,
        Row::Connection(connection) => {
            serde_json::to_writer(&mut *out, &connection_line(connection, named))?;
        }
    }
    out.write_all(b"\n")
}

fn dns_line<'a>(dns: &'a Dns, named: &'a Named) -> DnsLine<'a> {
    DnsLine {
        r#type: "dns",
        serial: dns.serial,
        time: Time(dns.wall),
        ktime_ns: dns.ktime.0,
        client: client(&dns.client, named),
        protocol: dns.protocol.name(),
        asked: dns.asked.into(),
        backend: dns.backend.map(End::from),
        id: dns.id,
        name: dns.name.as_deref(),
        qtype: dns.qtype.map(qtype_name),
        rcode: dns.rcode.map(rcode_name),
        answers: dns.answers,
        truncated: dns.truncated,
        latency_us: dns.latency.map(micros),
        outcome: dns.outcome.name(),
        cause: dns.cause.as_deref(),
        retry_of: dns.retry_of,
        amends: dns.amends,
    }
}

fn connection_line<'a>(connection: &'a Connection, named: &'a Named) -> ConnectionLine<'a> {
    ConnectionLine {
        r#type: "connection",
        serial: connection.serial,
        time: Time(connection.wall),
        ktime_ns: connection.ktime.0,
        client: client(&connection.client, named),
        protocol: connection.protocol.name(),
        asked: connection.asked.into(),
        backend: connection.backend.map(End::from),
        latency_us: connection.latency.map(micros),
        first_byte_us: connection.first_byte.map(micros),
        retransmits: connection.retransmits,
        outcome: connection.outcome.name(),
        cause: connection.cause.as_deref(),
        amends: connection.amends,
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    r#type: &'static str,
    schema: u32,
    seconds: f64,
    dns: Vec<DnsSummary>,
    connections: Vec<ConnectionSummary>,
    beyond: u64,
    unplaced: Unplaced,
    lost: Lost,
    unseen: &'a [String],
}

#[derive(Serialize)]
struct DnsSummary {
    asked: End,
    queries: u64,
    answered: u64,
    unanswered: u64,
    late: u64,
    retries: u64,
    outcomes: BTreeMap<&'static str, u64>,
    rcodes: BTreeMap<String, u64>,
    backends: BTreeMap<SocketAddr, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<Percentiles>,
}

#[derive(Serialize)]
struct ConnectionSummary {
    protocol: &'static str,
    asked: End,
    count: u64,
    outcomes: BTreeMap<&'static str, u64>,
    backends: BTreeMap<SocketAddr, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<Percentiles>,
}

#[derive(Serialize)]
struct Percentiles {
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
}

#[derive(Serialize)]
struct Lost {
    total: u64,
    ring_full: u64,
    skipped: u64,
    unreadable: u64,
    undecodable: u64,
    evicted: u64,
}

pub(super) fn summary(
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
            .map(|(&asked, totals)| dns_summary(asked, totals))
            .collect(),
        connections: trace
            .connections
            .iter()
            .map(|(&(protocol, asked), totals)| connection_summary(protocol.name(), asked, totals))
            .collect(),
        beyond: trace.beyond,
        unplaced: Unplaced {
            malformed: unplaced.malformed,
            cut: unplaced.cut,
            unmatched: unplaced.unmatched,
            unexpected_source: unplaced.unexpected_source,
            duplicates: unplaced.duplicates,
            multi_question: unplaced.multi_question,
            fragments: unplaced.fragments,
            tcp_gaps: unplaced.tcp_gaps,
        },
        lost: Lost {
            total: losses.total() + unplaced.evicted,
            ring_full: losses.ring_full,
            skipped: losses.skipped,
            unreadable: losses.unreadable,
            undecodable: losses.undecodable,
            evicted: unplaced.evicted,
        },
        unseen,
    };
    serde_json::to_writer(&mut *out, &summary)?;
    out.write_all(b"\n")
}

fn dns_summary(asked: SocketAddr, totals: &DnsTotals) -> DnsSummary {
    DnsSummary {
        asked: asked.into(),
        queries: totals.queries,
        answered: totals.answered,
        unanswered: totals.queries - totals.answered,
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
    }
}

fn connection_summary(
    protocol: &'static str,
    asked: SocketAddr,
    totals: &ConnectionTotals,
) -> ConnectionSummary {
    ConnectionSummary {
        protocol,
        asked: asked.into(),
        count: totals.count,
        outcomes: outcomes(&totals.outcomes),
        backends: totals.backends.clone(),
        latency_us: percentiles(&totals.latency),
    }
}

fn outcomes(outcomes: &BTreeMap<Outcome, u64>) -> BTreeMap<&'static str, u64> {
    outcomes
        .iter()
        .map(|(outcome, &n)| (outcome.name(), n))
        .collect()
}

fn percentiles(latency: &Latency) -> Option<Percentiles> {
    let at = |quantile| latency.quantile(quantile).map(micros);
    Some(Percentiles {
        p50: at(0.5)?,
        p90: at(0.9)?,
        p99: at(0.99)?,
        max: at(1.0)?,
    })
}
