//! DNS by server, by client, by name; what was not answered and why; what search paths cost.

mod search;

use std::cmp::Reverse;

use super::{
    Report, Whole,
    section::{Cell, Column, Said, Section, Table, column},
    text::short,
    whole::{causes, exchanges, percent, rcodes},
};
use crate::model::{
    breakdown::Breakdown,
    tally::{Kind, Tally},
};

pub(super) const REPORT: Report = Report {
    name: "dns",
    title: "DNS",
    build,
};

/// Most rows of a table.
const MOST: usize = 512;

const SERVERS: &[Column] = &[
    column("service", "asked"),
    column("backend", "backend"),
    column("queries", "queries"),
    column("failed", "failed"),
    column("rcodes", "rcodes"),
    column("p50_us", "p50"),
    column("p90_us", "p90"),
    column("p99_us", "p99"),
    column("max_us", "longest"),
];

const CLIENTS: &[Column] = &[
    column("client", "client"),
    column("queries", "queries"),
    column("failed", "failed"),
    column("retries", "retries"),
    column("rcodes", "rcodes"),
    column("p50_us", "p50"),
    column("p90_us", "p90"),
    column("p99_us", "p99"),
    column("max_us", "longest"),
];

const NAMES: &[Column] = &[
    column("name", "name"),
    column("queries", "queries"),
    column("failed", "failed"),
    column("rcodes", "rcodes"),
    column("p50_us", "p50"),
    column("p90_us", "p90"),
    column("p99_us", "p99"),
    column("max_us", "longest"),
];

const UNANSWERED: &[Column] = &[
    column("service", "asked"),
    column("backend", "backend"),
    column("failed", "failed"),
    column("causes", "why"),
];

fn build<'a>(whole: &Whole<'a>) -> Section<'a> {
    let breakdown = whole.breakdown();
    let mut section = Section::default();
    let Some(all) = breakdown.kinds.get(&Kind::Dns) else {
        section
            .said
            .push(Said::plain("nothing was asked over DNS".to_owned()));
        return section;
    };
    section.said.extend(servers_said(whole));
    section.said.extend(search::said(breakdown));
    section.said.push(latency(all));
    section.tables = vec![
        servers(whole),
        unanswered(whole),
        clients(breakdown),
        search::table(breakdown),
        names(breakdown),
    ];
    section.tables.retain(|table| !table.rows.is_empty());
    for (what, forgotten) in [
        ("clients", breakdown.clients.forgotten()),
        ("servers", breakdown.servers.forgotten()),
        ("names", breakdown.names.forgotten()),
    ] {
        if forgotten > 0 {
            section.notes.push(format!(
                "{} of {what} asked for seldom are not told apart",
                exchanges(Kind::Dns, forgotten)
            ));
        }
    }
    section
}

fn latency(all: &Tally) -> Said {
    let answered = all.latency.count();
    let Some(p50) = all.at(0.5) else {
        return Said::plain(format!(
            "none of {} was answered",
            exchanges(Kind::Dns, all.count)
        ));
    };
    let p50 = short(p50);
    let mut said = Said::plain(format!(
        "{} of {} were answered, half of them within {p50}",
        answered,
        exchanges(Kind::Dns, all.count)
    ));
    let at = |quantile| short(all.at(quantile).unwrap_or_default());
    let (p90, p99, longest) = (at(0.9), at(0.99), at(1.0));
    said.evidence
        .push(format!("p90 {p90}, p99 {p99}, longest {longest}"));
    said
}

/// Servers that fail: by what they do not answer, and by their rcodes.
fn servers_said(whole: &Whole<'_>) -> Vec<Said> {
    let mut bad: Vec<_> = whole
        .breakdown()
        .servers
        .iter()
        .filter(|(_, tally)| tally.failed() + tally.refused > 0)
        .collect();
    bad.sort_by_key(|(_, tally)| Reverse(tally.failed() + tally.refused));
    let said = bad.into_iter().take(8).map(|((asked, backend), tally)| {
        let backend = backend.map(|backend| format!(" by {}", whole.address(backend)));
        let mut parts = Vec::new();
        if tally.failed() > 0 {
            parts.push(format!("{} got no answer", tally.failed()));
        }
        if tally.refused > 0 {
            parts.push(format!(
                "{} got an rcode that says the server failed",
                tally.refused
            ));
        }
        let mut said = Said::bad(format!(
            "of {} to {}{}, {} ({})",
            exchanges(Kind::Dns, tally.count),
            whole.service(Kind::Dns, *asked),
            backend.unwrap_or_default(),
            parts.join(", "),
            percent(tally.failed() + tally.refused, tally.count)
        ));
        let causes = tally.causes.commonest().into_iter();
        said.evidence = causes
            .map(|(cause, count)| format!("{count} {cause}"))
            .collect();
        if tally.refused > 0
            && let Cell::Counts(counts) = rcodes(tally)
        {
            let counts = counts
                .iter()
                .map(|(rcode, count)| format!("{rcode} {count}"));
            said.evidence.push(counts.collect::<Vec<_>>().join(", "));
        }
        said
    });
    said.collect()
}

fn latencies(tally: &Tally) -> [Cell; 4] {
    [
        tally.at(0.5).into(),
        tally.at(0.9).into(),
        tally.at(0.99).into(),
        tally.at(1.0).into(),
    ]
}

fn servers(whole: &Whole<'_>) -> Table {
    let servers = whole.breakdown().servers.heaviest().into_iter();
    let rows = servers.take(MOST).map(|((asked, backend), tally)| {
        let mut row = vec![
            whole.service(Kind::Dns, *asked).into(),
            backend.map_or(Cell::Nothing, |backend| whole.address(backend).into()),
            tally.count.into(),
            tally.failed().into(),
            rcodes(tally),
        ];
        row.extend(latencies(tally));
        row
    });
    Table {
        name: "servers",
        title: "servers by queries",
        columns: SERVERS,
        rows: rows.collect(),
    }
}

fn unanswered(whole: &Whole<'_>) -> Table {
    let mut failing: Vec<_> = whole
        .breakdown()
        .servers
        .iter()
        .filter(|(_, tally)| tally.failed() > 0)
        .collect();
    failing.sort_by_key(|(_, tally)| Reverse(tally.failed()));
    let rows = failing
        .into_iter()
        .take(MOST)
        .map(|((asked, backend), tally)| {
            vec![
                whole.service(Kind::Dns, *asked).into(),
                backend.map_or(Cell::Nothing, |backend| whole.address(backend).into()),
                tally.failed().into(),
                causes(tally),
            ]
        });
    Table {
        name: "unanswered",
        title: "queries without an answer, and why",
        columns: UNANSWERED,
        rows: rows.collect(),
    }
}

fn clients(breakdown: &Breakdown) -> Table {
    let clients = breakdown.clients.heaviest().into_iter();
    let rows = clients.take(MOST).map(|(client, tally)| {
        let mut row = vec![
            client.to_string().into(),
            tally.count.into(),
            tally.failed().into(),
            tally.retries.into(),
            rcodes(tally),
        ];
        row.extend(latencies(tally));
        row
    });
    Table {
        name: "clients",
        title: "clients by queries",
        columns: CLIENTS,
        rows: rows.collect(),
    }
}

fn names(breakdown: &Breakdown) -> Table {
    let names = breakdown.names.heaviest().into_iter();
    let rows = names.take(MOST).map(|(name, tally)| {
        let mut row = vec![
            name.as_str().into(),
            tally.count.into(),
            tally.failed().into(),
            rcodes(tally),
        ];
        row.extend(latencies(tally));
        row
    });
    Table {
        name: "names",
        title: "names by queries",
        columns: NAMES,
        rows: rows.collect(),
    }
}
