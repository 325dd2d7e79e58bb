//! What a trace adds up to, and what it did not see.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
    io::{self, Write},
    net::SocketAddr,
    sync::Arc,
};

use super::{Paint, line::about, path::step_name, short};
use crate::{
    model::{
        Outcome, Protocol, ServicePortName, Source, Trace,
        conntrack::ConntrackTotals,
        index::Standing,
        stages::StageTotals,
        trace::{Api, ConnectionTotals, DnsTotals, Latency},
    },
    report::names::rcode_name,
};

pub(in crate::report) fn summary(
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
        dns_totals(trace, *asked, totals, paint, out)?;
    }
    for (key, totals) in &trace.connections {
        connection_totals(trace, *key, totals, paint, out)?;
    }
    for totals in trace.conntrack.iter().filter(|totals| totals.is_notable()) {
        conntrack(totals, paint, out)?;
    }
    if trace.beyond > 0 {
        writeln!(
            out,
            "and {} to addresses beyond the first 1024",
            trace.beyond
        )?;
    }
    names(trace, paint, out)?;
    if let Some(lag) = &trace.lag {
        super::lag::lag(lag, out)?;
    }
    super::clocks::clocks(&trace.clocks, out)?;
    not_seen(trace, unseen, paint, out)
}

/// Chance makes a spread as uneven less often than that.
const UNLIKELY: f64 = 0.001;

/// Where names came from, and what the API server was not heard of.
fn names(trace: &Trace, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    if !trace.verdicts.is_empty() {
        let counts = trace.verdicts.iter();
        let counts = list(counts.map(|(verdict, n)| format!("{} {n}", verdict.replace('_', " "))));
        writeln!(out, "translations: {counts}")?;
    }
    for spread in trace.spreads.iter().filter(|one| one.test.p < UNLIKELY) {
        let head = format!("{} is spread unevenly", spread.port);
        writeln!(
            out,
            "{}: {} connections over {} endpoints, chi-squared test p = {:.1e}",
            paint.bad(head),
            spread.test.connections,
            spread.test.endpoints,
            spread.test.p
        )?;
    }
    if !trace.names.is_empty() {
        let counts = trace.names.iter();
        let counts = list(counts.map(|(source, n)| format!("{} {n}", source.name())));
        write!(out, "names: {counts}")?;
        if let Some(api) = &trace.api
            && let Some(taken) = api.snapshot
            && trace.names.contains_key(&Source::Snapshot)
        {
            write!(out, "; the snapshot is {} old", about(api.since(taken)))?;
        }
        writeln!(out)?;
    }
    let Some(api) = &trace.api else {
        return Ok(());
    };
    let server = api.server.as_deref().unwrap_or("without an address");
    for (what, kinds) in unheard(api) {
        let kinds = kinds.join(", ");
        let title = paint.bad(format_args!("API server {server}")).to_string();
        writeln!(out, "{title}: {kinds}: {what}")?;
    }
    Ok(())
}

/// What the API server was not heard of, and the kinds of objects that it concerns.
pub(in crate::report) fn unheard(api: &Api) -> Vec<(String, Vec<&'static str>)> {
    // The same cause is told once for all it concerns.
    let mut told: Vec<(String, Vec<&'static str>)> = Vec::new();
    for (kind, standing) in &api.kinds {
        let what = match standing {
            Standing::Watched { own: false } => continue,
            Standing::Watched { own: true } => "only this node's may be listed".to_owned(),
            Standing::Awaited => "no answer yet".to_owned(),
            Standing::Lost { since, why, listed } => {
                let how = if *listed { "not heard" } else { "not listed" };
                format!("{how} for {}: {why}", about(api.since(*since)))
            }
        };
        match told.iter_mut().find(|(told, _)| *told == what) {
            Some((_, kinds)) => kinds.push(kind.name()),
            None => told.push((what, vec![kind.name()])),
        }
    }
    told
}

fn dns_totals(
    trace: &Trace,
    asked: SocketAddr,
    totals: &DnsTotals,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    write!(
        out,
        "dns {}{}: {}",
        called(trace.dns_service(asked)),
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
    backends(trace, &totals.backends, out)?;
    latency(&totals.latency, out)?;
    stages(totals.stages.as_deref(), paint, out)
}

fn connection_totals(
    trace: &Trace,
    key: (Protocol, SocketAddr),
    totals: &ConnectionTotals,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let (protocol, asked) = (key.0.name(), key.1);
    let what = if protocol == "tcp" {
        ("connection", "connections")
    } else {
        ("flow", "flows")
    };
    write!(
        out,
        "{protocol} {}{}: {}",
        called(trace.services.get(&key)),
        paint.strong(asked),
        plural(totals.count, what.0, what.1)
    )?;
    bad_outcomes(&totals.outcomes, paint, out)?;
    writeln!(out)?;
    backends(trace, &totals.backends, out)?;
    latency(&totals.latency, out)?;
    stages(totals.stages.as_deref(), paint, out)
}

/// What was asked, by name, where it has one.
fn called(service: Option<&Arc<ServicePortName>>) -> impl Display {
    fmt::from_fn(move |f| match service {
        Some(name) => write!(f, "{name} "),
        None => Ok(()),
    })
}

/// What a namespace's conntrack counted, by its own statistics.
fn conntrack(totals: &ConntrackTotals, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let table = &totals.table;
    write!(
        out,
        "conntrack {}: {} entries",
        paint.strong(&totals.netns),
        table.entries
    )?;
    if let Some(max) = table.max {
        write!(out, " of {max}")?;
    }
    let named = table.counts.named().map(|(name, count)| (count, name));
    match counts(&named) {
        Some(counted) => writeln!(out, "; counted {counted}"),
        None => writeln!(out),
    }
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

fn backends(
    trace: &Trace,
    backends: &BTreeMap<SocketAddr, u64>,
    out: &mut impl Write,
) -> io::Result<()> {
    if backends.is_empty() {
        return Ok(());
    }
    let backends = list(backends.iter().map(
        |(backend, n)| match trace.breakdown.pod(backend.ip()) {
            Some(pod) => format!("{pod} {backend} {n}"),
            None => format!("{backend} {n}"),
        },
    ));
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

/// Where the time went, most first, and where what failed was seen last.
fn stages(totals: Option<&StageTotals>, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let Some(totals) = totals else {
        return Ok(());
    };
    let mut title = "stages";
    for stage in totals.ranked() {
        let name = step_name(stage.step);
        let percent = stage.share * 100.0;
        let (p50, p99) = (short(stage.p50).to_string(), short(stage.p99).to_string());
        writeln!(
            out,
            "    {title:<8}  {name:<25} {percent:>5.1} %  p50 {p50:>7}, p99 {p99:>7}"
        )?;
        title = "";
    }
    if !totals.stopped.is_empty() {
        let stopped = list(totals.stopped.iter().map(|(step, count)| match step {
            Some(step) => format!("{} {count}", step_name(*step)),
            None => format!("at its first place {count}"),
        }));
        writeln!(out, "    {}   {stopped}", paint.bad("stopped"))?;
    }
    Ok(())
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
        (losses.unrecorded, "events missing in the recording"),
        (unplaced.evicted, "forgotten for want of room"),
    ]);
    let odd = counts(&[
        (unplaced.malformed, "malformed messages"),
        (unplaced.cut, "messages captured too short"),
        (unplaced.unmatched, "answers to no query seen"),
        (unplaced.unexpected_source, "answers from another address"),
        (unplaced.duplicates, "answers that came again"),
        (unplaced.multi_question, "messages with several questions"),
        (unplaced.fragments, "later fragments"),
        (unplaced.tcp_gaps, "gaps in DNS over TCP"),
        (unplaced.open, "queries still waiting at the end"),
    ]);
    if let Some(odd) = odd {
        writeln!(out, "odd: {odd}")?;
    }
    for what in unseen {
        writeln!(out, "not seen: {what}")?;
    }
    match lost {
        Some(lost) => writeln!(out, "{}: {lost}", paint.bad("lost")),
        None => writeln!(out, "lost: nothing"),
    }
}

pub(super) fn counts(counts: &[(u64, &str)]) -> Option<String> {
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
    let shown = items[..items.len() - more].join(", ");
    if more > 0 {
        format!("{shown} and {more} more")
    } else {
        shown
    }
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_says_how_many_it_leaves_out() {
        let text = list((0..10).map(|n| n.to_string()));
        assert_eq!(text, "0, 1, 2, 3, 4, 5, 6, 7 and 2 more");
    }
}
