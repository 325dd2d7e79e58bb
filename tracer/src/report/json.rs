//! JSON lines. The schema is an interface: keys are added, never renamed or retyped. README.md
//! describes it key by key.

mod api;
mod clash;
mod clock;
mod drops;
mod ends;
mod journey;
mod lag;
mod named;
mod section;
mod summary;
mod upstream;
mod verified;
mod verify;

use std::{
    borrow::Cow,
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::Serialize;

use self::{
    clash::ClashLine,
    ends::{Sockets, sockets},
    journey::{JourneyLine, StoppedLine, stopped},
    named::{AskedLine, BackendLine, ClientLine, asked, backend, client},
    upstream::UpstreamLine,
};
pub(super) use self::{
    drops::{drops, drops_summary},
    lag::watched,
    section::section,
    summary::summary,
    verified::{mended, verified},
    verify::walk,
};
use super::names::{qtype_name, rcode_name};
use crate::model::{Connection, Dns, Named, Row, WallNs};

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
struct DnsLine<'a> {
    r#type: &'static str,
    serial: u64,
    time: Time,
    ktime_ns: u64,
    client: ClientLine<'a>,
    protocol: &'static str,
    asked: AskedLine<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<BackendLine<'a>>,
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
    clash: Option<ClashLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_at: Option<StoppedLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sockets: Option<Sockets>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<UpstreamLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amends: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    journey: Option<JourneyLine<'a>>,
}

#[derive(Serialize)]
struct ConnectionLine<'a> {
    r#type: &'static str,
    serial: u64,
    time: Time,
    ktime_ns: u64,
    client: ClientLine<'a>,
    protocol: &'static str,
    asked: AskedLine<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<BackendLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_us: Option<f64>,
    retransmits: u32,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_at: Option<StoppedLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amends: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    journey: Option<JourneyLine<'a>>,
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

fn time(wall: WallNs) -> impl Serialize {
    Time(wall)
}

/// Microseconds to three digits behind the point: the kernel's clock has no more.
#[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days")]
fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1000.0
}

pub(super) fn row(row: &Row, named: &Named, out: &mut impl Write) -> io::Result<()> {
    let journey = row.journey().map(|journey| JourneyLine { journey, named });
    match row {
        Row::Dns(dns) => serde_json::to_writer(&mut *out, &dns_line(dns, named, journey))?,
        Row::Connection(connection) => {
            serde_json::to_writer(&mut *out, &connection_line(connection, named, journey))?;
        }
    }
    out.write_all(b"\n")
}

fn dns_line<'a>(dns: &'a Dns, named: &'a Named, journey: Option<JourneyLine<'a>>) -> DnsLine<'a> {
    DnsLine {
        r#type: "dns",
        serial: dns.serial,
        time: Time(dns.wall),
        ktime_ns: dns.ktime.0,
        client: client(&dns.client, named),
        protocol: dns.protocol.name(),
        asked: asked(dns.asked, named),
        backend: backend(dns.backend, named),
        id: dns.id,
        name: dns.name.as_deref(),
        qtype: dns.qtype.map(qtype_name),
        rcode: dns.rcode.map(rcode_name),
        answers: dns.answers,
        truncated: dns.truncated,
        latency_us: dns.latency.map(micros),
        outcome: dns.outcome.name(),
        cause: dns.cause.as_deref(),
        clash: dns.clash.as_deref().map(ClashLine::from),
        stopped_at: dns.stopped.map(|at| stopped(at, named)),
        sockets: sockets(dns),
        upstream: dns.upstream.as_deref().map(UpstreamLine::from),
        retry_of: dns.retry_of,
        amends: dns.amends,
        journey,
    }
}

fn connection_line<'a>(
    connection: &'a Connection,
    named: &'a Named,
    journey: Option<JourneyLine<'a>>,
) -> ConnectionLine<'a> {
    ConnectionLine {
        r#type: "connection",
        serial: connection.serial,
        time: Time(connection.wall),
        ktime_ns: connection.ktime.0,
        client: client(&connection.client, named),
        protocol: connection.protocol.name(),
        asked: asked(connection.asked, named),
        backend: backend(connection.backend, named),
        latency_us: connection.latency.map(micros),
        first_byte_us: connection.first_byte.map(micros),
        retransmits: connection.retransmits,
        outcome: connection.outcome.name(),
        cause: connection.cause.as_deref(),
        stopped_at: connection.stopped.map(|at| stopped(at, named)),
        amends: connection.amends,
        journey,
    }
}
