//! DNS by server, by client, by name; what was not answered and why; what search paths cost.

use std::cmp::Reverse;

use super::{
    Report, Whole,
    section::{Cell, Column, Said, Section, Table, column, plural, share},
    text::short,
    whole::{causes, exchanges, percent, rcodes},
};
use crate::model::{
    breakdown::Breakdown,
    search::Search,
    tally::{Kind, Tally, Who},
};

pub(super) const REPORT: Report = Report {
    name: "dns",
    title: "DNS",
    build,
};

/// Most rows of a table.
const MOST: usize = 512;

/// From this share on, what a search path wastes is worth mending.
const WASTE: f64 = 0.2;

/// A client that sent fewer queries in vain than this is not told to mend its search path.
const FEW: u64 = 6;

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

const SEARCH: &[Column] = &[
    column("client", "client"),
    column("queries", "queries"),
    column("needed", "needed"),
    column("wasted", "wasted"),
    column("share", "share"),
    column("found", "found with"),
    column("fix", "fix"),
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
    for (client, search) in searches(breakdown) {
        section.said.extend(search_said(client, search, breakdown));
    }
    section.said.push(latency(all));
    section.tables = vec![
        servers(whole),
        unanswered(whole),
        clients(breakdown),
        search(breakdown),
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
            whole.service(*asked),
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

/// Clients that search, those that waste most first.
fn searches(breakdown: &Breakdown) -> Vec<(&Who, &Search)> {
    let mut all: Vec<_> = breakdown
        .searches
        .iter()
        .filter(|(_, search)| search.wasted > 0)
        .collect();
    all.sort_by_key(|(_, search)| Reverse(search.wasted));
    all
}

fn queries_of(client: &Who, breakdown: &Breakdown) -> u64 {
    breakdown.clients.get(client).map_or(0, |tally| tally.count)
}

fn search_said(client: &Who, search: &Search, breakdown: &Breakdown) -> Option<Said> {
    let queries = queries_of(client, breakdown).max(search.sent);
    if search.wasted < FEW || share(search.wasted, queries) < WASTE {
        return None;
    }
    let mut said = Said::bad(format!(
        "{client} wastes {} of its {} on its search path",
        percent(search.wasted, queries),
        exchanges(Kind::Dns, queries)
    ));
    said.evidence.push(format!(
        "{} sent for names that were searched for, {} needed",
        plural(search.sent, "query", "queries"),
        search.sent - search.wasted
    ));
    let mut won: Vec<_> = search.won.iter().collect();
    won.sort_by_key(|(_, count)| Reverse(**count));
    for (domain, count) in won.into_iter().take(4) {
        said.evidence.push(match &**domain {
            "" => format!("{count} found as they stand"),
            domain => format!("{count} found with {domain}"),
        });
    }
    said.remedy = fix(client, search);
    Some(said)
}

/// One line that ends most of the waste.
///
/// 1. A name found as it stands that has a dot or more: `ndots` of as many dots.
/// 2. One without any dot: the final dot alone can say that it is whole.
/// 3. A name found through the path: ask for it in full.
fn fix(client: &Who, search: &Search) -> Option<String> {
    let bare = search.won.get("").copied().unwrap_or(0);
    let searched: u64 = search.won.values().sum::<u64>() - bare;
    match (&search.bare, &search.searched) {
        (Some((dots, _)), _) if bare >= searched && *dots > 0 => Some(match client {
            Who::Pod { namespace, name } => format!(
                "in the workload of pod {name} in {namespace} set spec.template.spec.dnsConfig.options: [{{name: ndots, value: \"{dots}\"}}]"
            ),
            _ => format!("set options ndots:{dots} in its resolv.conf"),
        }),
        (Some((_, name)), _) if bare >= searched => {
            Some(format!("ask for `{name}.`, with the final dot"))
        }
        (_, Some((_, name))) => Some(format!(
            "ask for names in full and with the final dot, such as `{name}.`"
        )),
        _ => None,
    }
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
            whole.service(*asked).into(),
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
                whole.service(*asked).into(),
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

fn search(breakdown: &Breakdown) -> Table {
    let rows = searches(breakdown)
        .into_iter()
        .take(MOST)
        .map(|(client, search)| {
            let queries = queries_of(client, breakdown).max(search.sent);
            let won = search.won.iter().map(|(domain, count)| {
                let domain = if domain.is_empty() {
                    "the name as it stands"
                } else {
                    domain
                };
                (domain.to_owned(), *count)
            });
            let mut won: Vec<_> = won.collect();
            won.sort_by_key(|(_, count)| Reverse(*count));
            vec![
                client.to_string().into(),
                queries.into(),
                (queries - search.wasted).into(),
                search.wasted.into(),
                Cell::Share(share(search.wasted, queries)),
                Cell::Counts(won),
                fix(client, search).map_or(Cell::Nothing, Cell::Text),
            ]
        });
    Table {
        name: "search_paths",
        title: "clients by the queries that their search path wastes",
        columns: SEARCH,
        rows: rows.collect(),
    }
}
