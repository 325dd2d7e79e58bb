//! Text for people: one line a row, the finding marked; then the summary, losses last.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use crate::{
    correlate::message::{qtype_name, rcode_name},
    model::{
        Client, Connection, Dns, Named, Outcome, Row, Trace, WallNs,
        trace::{ConnectionTotals, DnsTotals, Latency},
    },
};

/// ANSI colours (ECMA-48, 8.3.117), or nothing.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn with(self, code: &'static str, text: impl Display) -> impl Display {
        fmt::from_fn(move |f| {
            if self.0 {
                write!(f, "\x1b[{code}m{text}\x1b[0m")
            } else {
                write!(f, "{text}")
            }
        })
    }
    fn bad(self, text: impl Display) -> impl Display {
        self.with("31", text)
    }
    fn dim(self, text: impl Display) -> impl Display {
        self.with("2", text)
    }
    fn strong(self, text: impl Display) -> impl Display {
        self.with("1", text)
    }
}

pub(super) fn row(row: &Row, named: &Named, colour: bool, out: &mut impl Write) -> io::Result<()> {
    let paint = Paint(colour);
    match row {
        Row::Dns(dns) => dns_line(dns, named, paint, out),
        Row::Connection(connection) => connection_line(connection, named, paint, out),
    }
}

fn dns_line(dns: &Dns, named: &Named, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let rcode = dns.rcode.filter(|_| dns.outcome == Outcome::Answered);
    // NXDOMAIN is an answer like any other: search lists make it the usual one.
    let wrong = !dns.outcome.is_good() || rcode.is_some_and(|rcode| !matches!(rcode, 0 | 3));
    head(dns.wall, "dns", wrong, &dns.client, named, paint, out)?;
    ends(dns.asked, dns.backend, paint, out)?;
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
    tail(dns.cause.as_deref(), dns.retry_of, dns.amends, paint, out)
}

fn connection_line(
    connection: &Connection,
    named: &Named,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let good = connection.outcome.is_good();
    let kind = connection.protocol.name();
    head(
        connection.wall,
        kind,
        !good,
        &connection.client,
        named,
        paint,
        out,
    )?;
    ends(connection.asked, connection.backend, paint, out)?;
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
    tail(
        connection.cause.as_deref(),
        None,
        connection.amends,
        paint,
        out,
    )
}

fn head(
    wall: WallNs,
    kind: &str,
    wrong: bool,
    client: &Client,
    named: &Named,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let mark = if wrong { "✗" } else { " " };
    write!(
        out,
        "{} {} {kind} ",
        paint.dim(time_of_day(wall)),
        paint.bad(mark)
    )?;
    if let Some(netns) = &named.netns {
        write!(out, "{netns} ")?;
    }
    if let Some((pid, name)) = &named.process {
        write!(out, "{name}[{pid}] ")?;
    }
    if let Some(container) = &named.container {
        write!(out, "{} ", container.get(..12).unwrap_or(container))?;
    }
    write!(out, "{}", client.address)
}

fn ends(
    asked: SocketAddr,
    backend: Option<SocketAddr>,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    write!(out, " {} {asked}", paint.dim("→"))?;
    match backend {
        Some(backend) => write!(out, " {} {backend}", paint.dim("⇒")),
        None => Ok(()),
    }
}

fn tail(
    cause: Option<&str>,
    retry_of: Option<u64>,
    amends: Option<u64>,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    if let Some(cause) = cause {
        write!(out, ": {cause}")?;
    }
    if let Some(first) = retry_of {
        write!(out, " {}", paint.dim(format_args!("(retry of #{first})")))?;
    }
    if let Some(earlier) = amends {
        write!(out, " {}", paint.dim(format_args!("(amends #{earlier})")))?;
    }
    writeln!(out)
}

/// Local time of day to the microsecond.
fn time_of_day(wall: WallNs) -> impl Display {
    let time = jiff::Timestamp::from_nanosecond(i128::from(wall.0)).unwrap_or_default();
    let local = time.to_zoned(jiff::tz::TimeZone::system());
    fmt::from_fn(move |f| {
        let (hour, minute, second) = (local.hour(), local.minute(), local.second());
        write!(
            f,
            "{hour:02}:{minute:02}:{second:02}.{:06}",
            local.subsec_nanosecond() / 1000
        )
    })
}

/// A duration to three digits, in the unit that reads best.
fn short(duration: Duration) -> impl Display {
    let nanos = duration.as_nanos();
    fmt::from_fn(move |f| {
        #[expect(clippy::cast_precision_loss, reason = "shown to three digits")]
        let (value, unit) = match nanos {
            0..1_000_000 => (nanos as f64 / 1e3, "µs"),
            1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
            _ => (nanos as f64 / 1e9, "s"),
        };
        let digits = if value >= 100.0 {
            0
        } else if value >= 10.0 {
            1
        } else {
            2
        };
        write!(f, "{value:.digits$} {unit}")
    })
}

pub(super) fn summary(
    trace: &Trace,
    seconds: f64,
    unseen: &[String],
    colour: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let paint = Paint(colour);
    writeln!(out)?;
    if trace.dns.is_empty() && trace.connections.is_empty() {
        writeln!(out, "nothing was asked in {seconds:.1} s")?;
    } else {
        writeln!(out, "{}", paint.strong(format_args!("in {seconds:.1} s")))?;
    }
    for (asked, totals) in &trace.dns {
        dns_totals(*asked, totals, paint, out)?;
    }
    for ((protocol, asked), totals) in &trace.connections {
        connection_totals(protocol.name(), *asked, totals, paint, out)?;
    }
    if trace.beyond > 0 {
        writeln!(
            out,
            "and {} to addresses beyond the first 1024",
            trace.beyond
        )?;
    }
    not_seen(trace, unseen, paint, out)
}

fn dns_totals(
    asked: SocketAddr,
    totals: &DnsTotals,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    write!(
        out,
        "dns {}: {}",
        paint.strong(asked),
        plural(totals.queries, "query", "queries")
    )?;
    write!(out, ", {} answered", totals.answered)?;
    bad_outcomes(&totals.outcomes, paint, out)?;
    if totals.retries > 0 {
        write!(out, ", {}", plural(totals.retries, "retry", "retries"))?;
    }
    if totals.late > 0 {
        write!(out, ", {} late", totals.late)?;
    }
    writeln!(out)?;
    if !totals.rcodes.is_empty() {
        let rcodes = list(
            totals
                .rcodes
                .iter()
                .map(|(&rcode, n)| format!("{} {n}", rcode_name(rcode))),
        );
        writeln!(out, "    rcodes    {rcodes}")?;
    }
    backends(&totals.backends, out)?;
    latency(&totals.latency, out)
}

fn connection_totals(
    protocol: &str,
    asked: SocketAddr,
    totals: &ConnectionTotals,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let what = if protocol == "tcp" {
        ("connection", "connections")
    } else {
        ("flow", "flows")
    };
    write!(
        out,
        "{protocol} {}: {}",
        paint.strong(asked),
        plural(totals.count, what.0, what.1)
    )?;
    bad_outcomes(&totals.outcomes, paint, out)?;
    writeln!(out)?;
    backends(&totals.backends, out)?;
    latency(&totals.latency, out)
}

fn bad_outcomes(
    outcomes: &BTreeMap<Outcome, u64>,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    for (outcome, count) in outcomes.iter().filter(|(outcome, _)| !outcome.is_good()) {
        write!(
            out,
            ", {}",
            paint.bad(format_args!("{count} {}", outcome.name()))
        )?;
    }
    Ok(())
}

fn backends(backends: &BTreeMap<SocketAddr, u64>, out: &mut impl Write) -> io::Result<()> {
    if backends.is_empty() {
        return Ok(());
    }
    let backends = list(backends.iter().map(|(backend, n)| format!("{backend} {n}")));
    writeln!(out, "    backends  {backends}")
}

fn latency(latency: &Latency, out: &mut impl Write) -> io::Result<()> {
    let at = |quantile| latency.quantile(quantile);
    let (Some(p50), Some(p90), Some(p99), Some(max)) = (at(0.5), at(0.9), at(0.99), at(1.0)) else {
        return Ok(());
    };
    let (p50, p90, p99, max) = (short(p50), short(p90), short(p99), short(max));
    writeln!(
        out,
        "    latency   p50 {p50}, p90 {p90}, p99 {p99}, max {max}"
    )
}

/// What was lost, by cause, and what could not be seen: always said, also when it is nothing.
fn not_seen(
    trace: &Trace,
    unseen: &[String],
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let (losses, unplaced) = (trace.losses, trace.unplaced);
    let lost = counts(&[
        (losses.ring_full, "ring buffer full"),
        (losses.skipped, "skipped by the kernel"),
        (losses.unreadable, "headers unreadable"),
        (losses.undecodable, "records not understood"),
        (unplaced.evicted, "forgotten for want of room"),
    ]);
    match lost {
        Some(lost) => writeln!(out, "{}: {lost}", paint.bad("lost"))?,
        None => writeln!(out, "lost: nothing")?,
    }
    let odd = counts(&[
        (unplaced.malformed, "malformed messages"),
        (unplaced.cut, "messages captured too short"),
        (unplaced.unmatched, "answers to no query seen"),
        (unplaced.unexpected_source, "answers from another address"),
        (unplaced.duplicates, "answers that came again"),
        (unplaced.multi_question, "messages with several questions"),
        (unplaced.fragments, "later fragments"),
        (unplaced.tcp_gaps, "gaps in DNS over TCP"),
    ]);
    if let Some(odd) = odd {
        writeln!(out, "odd: {odd}")?;
    }
    for what in unseen {
        writeln!(out, "not seen: {what}")?;
    }
    Ok(())
}

fn counts(counts: &[(u64, &str)]) -> Option<String> {
    let some: Vec<_> = counts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} {what}"))
        .collect();
    (!some.is_empty()).then(|| some.join(", "))
}

/// The first few, then how many more.
fn list(items: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 8;
    let items: Vec<_> = items.collect();
    let more = items.len().saturating_sub(SHOWN);
    let mut text = items[..items.len() - more].join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_to_three_digits() {
        let check = |nanos, expected: &str| {
            assert_eq!(short(Duration::from_nanos(nanos)).to_string(), expected);
        };
        check(900, "0.90 µs");
        check(45_600, "45.6 µs");
        check(999_400, "999 µs");
        check(4_987_000_000, "4.99 s");
        check(12_000_000, "12.0 ms");
    }

    #[test]
    fn a_long_list_says_how_many_it_leaves_out() {
        let text = list((0..10).map(|n| n.to_string()));
        assert_eq!(text, "0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
    }
}
