//! What was not seen: losses, blind spots, what could not be placed or named. Always last, never left
//! out.

use super::{
    Report, Whole,
    section::{Cell, Column, Said, Section, Table, column, plural},
    text::unheard,
};
use crate::model::tally::Who;

pub(super) const REPORT: Report = Report {
    name: "unseen",
    title: "What was not seen",
    build,
};

const COUNTS: &[Column] = &[column("what", "what"), column("count", "count")];

const STAGES: &[Column] = &[
    column("kind", "kind"),
    column("leg", "leg"),
    column("stage", "stage"),
    column("count", "journeys"),
];

fn build<'a>(whole: &Whole<'a>) -> Section<'a> {
    let mut section = Section::default();
    section.said.push(lost(whole));
    for unseen in whole.unseen {
        section
            .said
            .push(Said::plain(format!("not seen: {unseen}")));
    }
    for (what, kinds) in whole.trace.api.iter().flat_map(unheard) {
        section.said.push(Said::bad(format!(
            "the API server's {}: {what}; names that need them may be missing or old",
            kinds.join(", ")
        )));
    }
    if let Some(names) = unnamed(whole) {
        section.said.push(names);
    }
    let unplaced = whole.trace.unplaced;
    let counts = [
        (
            "messages on a DNS port that do not parse",
            unplaced.malformed,
        ),
        ("messages captured too short to be told", unplaced.cut),
        ("answers to no query that was seen", unplaced.unmatched),
        (
            "answers from another address than the one asked",
            unplaced.unexpected_source,
        ),
        ("answers that came again", unplaced.duplicates),
        ("queries with several questions", unplaced.multi_question),
        (
            "later fragments, which are not put together",
            unplaced.fragments,
        ),
        ("gaps in DNS over TCP", unplaced.tcp_gaps),
        ("queries waiting for their answer at the end", unplaced.open),
        (
            "exchanges of addresses beyond the first 1024",
            whole.trace.beyond,
        ),
    ];
    section.tables.push(Table {
        name: "unplaced",
        title: "seen, and not placed",
        columns: COUNTS,
        rows: rows(&counts),
    });
    let stages = whole
        .breakdown()
        .unseen
        .iter()
        .map(|((kind, step), count)| {
            vec![
                kind.name().into(),
                step.leg.name().into(),
                step.stage.name().into(),
                (*count).into(),
            ]
        });
    section.tables.push(Table {
        name: "stages",
        title: "stages that could not be seen apart",
        columns: STAGES,
        rows: stages.collect(),
    });
    section.tables.retain(|table| !table.rows.is_empty());
    section
}

fn rows(counts: &[(&str, u64)]) -> Vec<Vec<Cell>> {
    let some = counts.iter().filter(|(_, count)| *count > 0);
    some.map(|(what, count)| vec![(*what).into(), (*count).into()])
        .collect()
}

fn lost(whole: &Whole<'_>) -> Said {
    let (losses, unplaced) = (whole.trace.losses, whole.trace.unplaced);
    let total = losses.total() + unplaced.evicted;
    if total == 0 {
        return Said::plain("nothing was lost".to_owned());
    }
    let mut said = Said::bad(format!(
        "{total} records were lost: every count is at least what it says"
    ));
    let counts = [
        (
            losses.ring_full,
            "for which the kernel's buffers had no room",
        ),
        (losses.skipped, "passed over by the kernel"),
        (losses.unreadable, "whose headers could not be read"),
        (losses.undecodable, "that could not be understood"),
        (losses.unrecorded, "that the recording lacks"),
        (
            unplaced.evicted,
            "forgotten for want of room: see --tracked",
        ),
    ];
    let some = counts.iter().filter(|(count, _)| *count > 0);
    said.evidence = some
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if losses.ring_full > 0 {
        said.remedy = Some("give the ring more room: --ring-kib".to_owned());
    }
    said
}

fn unnamed(whole: &Whole<'_>) -> Option<Said> {
    let breakdown = whole.breakdown();
    let clients = breakdown.clients.iter().map(|(client, _)| client);
    let clients: Vec<_> = clients
        .filter(|client| !matches!(client, Who::Pod { .. }))
        .collect();
    let servers = breakdown
        .servers
        .iter()
        .filter_map(|((_, backend), _)| *backend);
    let backends = breakdown
        .backends
        .iter()
        .filter_map(|((_, (_, backend)), _)| *backend);
    let mut addresses: Vec<_> = servers
        .chain(backends)
        .map(|backend| backend.ip())
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses.retain(|address| breakdown.pod(*address).is_none());
    if clients.is_empty() && addresses.is_empty() {
        return None;
    }
    let mut said = Said::plain(format!(
        "{} and {} are of no pod that is known here",
        plural(count(&clients), "client", "clients"),
        plural(count(&addresses), "backend", "backends")
    ));
    let clients = clients.iter().map(ToString::to_string);
    said.evidence.extend(list("clients", clients));
    said.evidence
        .extend(list("backends", addresses.iter().map(ToString::to_string)));
    Some(said)
}

fn count<T>(items: &[T]) -> u64 {
    u64::try_from(items.len()).unwrap_or(u64::MAX)
}

/// The first few, then how many more; `None` when there are none.
fn list(what: &str, items: impl ExactSizeIterator<Item = String>) -> Option<String> {
    const SHOWN: usize = 8;
    let more = items.len().saturating_sub(SHOWN);
    let shown: Vec<_> = items.take(SHOWN).collect();
    if shown.is_empty() {
        return None;
    }
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    Some(format!("{what} {}{more}", shown.join(", ")))
}
