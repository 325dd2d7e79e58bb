//! One row as one line.

use std::{
    fmt::{self, Display},
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use super::{Paint, short};
use crate::{
    model::{
        Asked, Client, Connection, Dns, Named, Outcome, PodName, Row, Source, Upstream, WallNs,
        verdict::Verdict,
    },
    report::{
        Zone,
        names::{qtype_name, rcode_name},
        whole::utc,
    },
};

pub(in crate::report) fn row(
    row: &Row,
    named: &Named,
    colour: bool,
    zone: Zone,
    out: &mut impl Write,
) -> io::Result<()> {
    let time = time_of_day(row.wall(), zone);
    with_time(row, named, Paint(colour), &time, out)
}

/// The same, with a time that is the same on any machine.
pub(super) fn in_utc(
    row: &Row,
    named: &Named,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let wall = row.wall();
    let micros = wall.0.rem_euclid(1_000_000_000) / 1000;
    let time = format!("{}.{micros:06}", utc(wall));
    with_time(row, named, paint, &time, out)
}

fn with_time(
    row: &Row,
    named: &Named,
    paint: Paint,
    time: &dyn Display,
    out: &mut impl Write,
) -> io::Result<()> {
    let dns = row.dns();
    let cause = match row {
        Row::Dns(dns) => &dns.cause,
        Row::Connection(connection) => &connection.cause,
    };
    let stopped = row.stopped();
    let stopped = stopped.map(|at| super::path::stopped(at, dns, named));
    // Under a waterfall it has a line of its own.
    let why = match (cause, &stopped) {
        (Some(cause), Some(stopped)) if row.journey().is_none() => {
            Some(format!("{cause}; {stopped}"))
        }
        (cause, _) => cause.clone(),
    };
    let why = why.as_deref();
    match row {
        Row::Dns(dns) => dns_line(dns, why, named, time, paint, out)?,
        Row::Connection(connection) => connection_line(connection, why, named, time, paint, out)?,
    }
    let Some(journey) = row.journey() else {
        return Ok(());
    };
    super::path::waterfall(journey, dns, named, paint, out)?;
    match stopped {
        Some(stopped) => writeln!(out, "  {}", paint.dim(format_args!("stopped: {stopped}"))),
        None => Ok(()),
    }
}

fn dns_line(
    dns: &Dns,
    why: Option<&str>,
    named: &Named,
    time: &dyn Display,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let rcode = dns.rcode.filter(|_| dns.outcome == Outcome::Answered);
    // NXDOMAIN is an answer like any other: search lists make it the usual one.
    let wrong = !dns.outcome.is_good() || rcode.is_some_and(|rcode| !matches!(rcode, 0 | 3));
    head(time, "dns", wrong, &dns.client, named, paint, out)?;
    ends(dns.asked, dns.backend, named, paint, out)?;
    if let (Some(name), Some(qtype)) = (&dns.name, dns.qtype) {
        write!(out, "  {} {}", qtype_name(qtype), paint.strong(name))?;
    } else {
        write!(out, "  no question")?;
    }
    if dns.protocol.name() == "tcp" {
        write!(out, " over tcp")?;
    }
    if let Some(rcode) = rcode {
        let name = rcode_name(rcode);
        match dns.answers {
            Some(1) => write!(out, "  {name}, 1 answer")?,
            Some(count) => write!(out, "  {name}, {count} answers")?,
            None => write!(out, "  {name}")?,
        }
        if dns.truncated {
            write!(out, ", truncated")?;
        }
    } else {
        write!(out, "  {}", paint.bad(dns.outcome.name()))?;
    }
    if let Some(latency) = dns.latency {
        write!(out, "  {}", short(latency))?;
    }
    if let Some(upstream) = &dns.upstream {
        upstream_words(upstream, out)?;
    }
    if dns.clash.as_ref().is_some_and(|clash| clash.resolved) {
        write!(out, ", conntrack clash resolved")?;
    }
    let good = dns.outcome.is_good();
    tail(
        (!good).then_some(dns.serial),
        why,
        dns.retry_of,
        dns.amends,
        paint,
        out,
    )
}

/// What the server asked of others, in a few words.
fn upstream_words(upstream: &Upstream, out: &mut impl Write) -> io::Result<()> {
    let waited = short(upstream.waited);
    write!(out, ", of it {waited} for upstream {}", upstream.asked)?;
    if upstream.queries > 1 {
        write!(out, ", asked {} times", upstream.queries)?;
    }
    if upstream.inferred {
        write!(out, " (inferred)")?;
    }
    Ok(())
}

fn connection_line(
    connection: &Connection,
    why: Option<&str>,
    named: &Named,
    time: &dyn Display,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let good = connection.outcome.is_good();
    let kind = connection.protocol.name();
    head(time, kind, !good, &connection.client, named, paint, out)?;
    ends(connection.asked, connection.backend, named, paint, out)?;
    match (connection.outcome, connection.latency) {
        (Outcome::Answered, Some(latency)) => {
            let verb = if kind == "tcp" {
                "connected in"
            } else {
                "answered in"
            };
            write!(out, "  {verb} {}", short(latency))?;
        }
        (Outcome::OneWay, _) => write!(out, "  no answer seen, which UDP need not give")?,
        (outcome, _) => write!(out, "  {}", paint.bad(outcome.name()))?,
    }
    if let Some(first_byte) = connection.first_byte {
        write!(out, ", first byte after {}", short(first_byte))?;
    }
    if connection.retransmits > 0 {
        write!(out, ", {} sent again", connection.retransmits)?;
    }
    let serial = (!good).then_some(connection.serial);
    tail(serial, why, None, connection.amends, paint, out)
}

fn head(
    time: &dyn Display,
    kind: &str,
    wrong: bool,
    client: &Client,
    named: &Named,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let mark = if wrong { "✗" } else { " " };
    write!(out, "{} {} {kind} ", paint.dim(time), paint.bad(mark))?;
    // A pod says more than its namespace's and its container's ids.
    if let Some(name) = &named.pod {
        pod(name, paint, out)?;
    } else if let Some(node) = &named.client_node {
        write!(out, "node/{node} ")?;
    } else if let Some(netns) = &named.netns {
        write!(out, "{netns} ")?;
    }
    if let Some((pid, name)) = &named.process {
        write!(out, "{name}[{pid}] ")?;
    }
    if let (None, Some(container)) = (&named.pod, &named.container) {
        write!(out, "{} ", container.get(..12).unwrap_or(container))?;
    }
    write!(out, "{}", client.address)
}

fn ends(
    asked: SocketAddr,
    backend: Option<SocketAddr>,
    named: &Named,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    write!(out, " {} ", paint.dim("→"))?;
    let Asked {
        service,
        pod: asked_pod,
        node,
        local_dns,
    } = &named.asked;
    if let Some(name) = service {
        write!(out, "{} ", paint.strong(&name.port))?;
        age(name.source, name.age, paint, out)?;
    }
    match (asked_pod, node) {
        (Some(name), _) => pod(name, paint, out)?,
        (None, Some(node)) => write!(out, "node/{node} ")?,
        (None, None) if *local_dns => write!(out, "NodeLocalDNS ")?,
        (None, None) => {}
    }
    write!(out, "{asked}")?;
    if let Some(backend) = backend {
        write!(out, " {} ", paint.dim("⇒"))?;
        match (&named.backend, &named.backend_node) {
            (Some(name), _) => pod(name, paint, out)?,
            (None, Some(node)) => write!(out, "node/{node} ")?,
            (None, None) => {}
        }
        write!(out, "{backend}")?;
        if let Some(wrong) = named.verdict.and_then(Verdict::words) {
            write!(out, " {}", paint.bad(format_args!("({wrong})").to_string()))?;
        }
    }
    Ok(())
}

fn pod(name: &PodName, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    write!(out, "{} ", name.pod)?;
    age(name.source, name.age, paint, out)
}

/// A name that nobody has confirmed of late says so.
fn age(source: Source, age: Duration, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    const OLD: Duration = Duration::from_secs(10);
    match source {
        Source::Snapshot => {
            let text = format_args!("(snapshot, {} old) ", about(age)).to_string();
            write!(out, "{}", paint.dim(text))
        }
        Source::Api if age >= OLD => {
            let text = format_args!("({} old) ", about(age)).to_string();
            write!(out, "{}", paint.dim(text))
        }
        _ => Ok(()),
    }
}

/// A long time in its largest unit, cut.
pub(super) fn about(time: Duration) -> impl Display {
    let seconds = time.as_secs();
    fmt::from_fn(move |f| match seconds {
        0..120 => write!(f, "{seconds} s"),
        120..7200 => write!(f, "{} min", seconds / 60),
        7200..172_800 => write!(f, "{} h", seconds / 3600),
        _ => write!(f, "{} days", seconds / 86_400),
    })
}

/// `serial` is told where a later row may name it.
fn tail(
    serial: Option<u64>,
    cause: Option<&str>,
    retry_of: Option<u64>,
    amends: Option<u64>,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    if let Some(cause) = cause {
        write!(out, ": {cause}")?;
    }
    if let Some(serial) = serial {
        write!(out, " {}", paint.dim(format_args!("#{serial}")))?;
    }
    if let Some(first) = retry_of {
        write!(out, " {}", paint.dim(format_args!("(retry of #{first})")))?;
    }
    if let Some(earlier) = amends {
        write!(out, " {}", paint.dim(format_args!("(amends #{earlier})")))?;
    }
    writeln!(out)
}

/// Time of day to the microsecond.
pub(super) fn time_of_day(wall: WallNs, zone: Zone) -> impl Display {
    let time = jiff::Timestamp::from_nanosecond(i128::from(wall.0)).unwrap_or_default();
    let local = time.to_zoned(match zone {
        Zone::Local => jiff::tz::TimeZone::system(),
        Zone::Utc => jiff::tz::TimeZone::UTC,
    });
    fmt::from_fn(move |f| {
        let (hour, minute, second) = (local.hour(), local.minute(), local.second());
        write!(
            f,
            "{hour:02}:{minute:02}:{second:02}.{:06}",
            local.subsec_nanosecond() / 1000
        )
    })
}
