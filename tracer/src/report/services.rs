//! Services: connections and queries to each, how they failed, how long they took to connect, and
//! how evenly the backends share them.

use std::{cmp::Reverse, collections::BTreeMap, net::SocketAddr};

use super::{
    Report, Whole,
    section::{Cell, Column, Said, Section, Table, column, share},
    whole::{causes, exchanges, percent},
};
use crate::model::{
    breakdown::Breakdown,
    tally::{Kind, Tally},
};

pub(super) const REPORT: Report = Report {
    name: "services",
    title: "Services",
    build,
};

/// Most rows of a table.
const MOST: usize = 512;

const SERVICES: &[Column] = &[
    column("service", "service"),
    column("kind", "kind"),
    column("count", "count"),
    column("failed", "failed"),
    column("share", "share failed"),
    column("sent_again", "segments sent again"),
    column("p50_us", "p50"),
    column("p90_us", "p90"),
    column("p99_us", "p99"),
    column("max_us", "longest"),
    column("causes", "why failed"),
];

const BACKENDS: &[Column] = &[
    column("service", "service"),
    column("kind", "kind"),
    column("backend", "backend"),
    column("count", "count"),
    column("share", "share"),
    column("expected_share", "expected"),
    column("failed", "failed"),
    column("p50_us", "p50"),
    column("p99_us", "p99"),
];

/// One Service, and its backends; `None` where nothing was translated.
pub(super) type Backends<'a> = BTreeMap<Option<SocketAddr>, &'a Tally>;

/// All that was asked, by kind and address, with the backends that answered.
pub(super) fn by_service(breakdown: &Breakdown) -> BTreeMap<(Kind, SocketAddr), Backends<'_>> {
    let mut services: BTreeMap<_, Backends<'_>> = BTreeMap::new();
    for ((asked, backend), tally) in breakdown.servers.iter() {
        services
            .entry((Kind::Dns, *asked))
            .or_default()
            .insert(*backend, tally);
    }
    for ((protocol, (asked, backend)), tally) in breakdown.backends.iter() {
        let kind = Kind::of_protocol(*protocol);
        services
            .entry((kind, *asked))
            .or_default()
            .insert(*backend, tally);
    }
    services
}

/// The part of its Service's exchanges that each backend seen would have, were they even; `None` where
/// nothing was translated.
pub(super) fn expected_share(backends: &Backends<'_>) -> Option<f64> {
    let known = backends.keys().filter(|backend| backend.is_some()).count();
    (known > 0).then(|| 1.0 / f64::from(u32::try_from(known).unwrap_or(u32::MAX)))
}

fn build<'a>(whole: &Whole<'a>) -> Section<'a> {
    let services = by_service(whole.breakdown());
    let mut section = Section::default();
    if services.is_empty() {
        section
            .said
            .push(Said::plain("no Service was asked".to_owned()));
        return section;
    }
    section.said.extend(failing(whole, &services));
    section.said.extend(uneven(whole, &services));
    if section.said.is_empty() {
        section.said.push(Said::plain(
            "every Service that was asked answered, and its backends share evenly".to_owned(),
        ));
    }
    section.tables = vec![
        services_table(whole, &services),
        backends_table(whole, &services),
    ];
    section.tables.retain(|table| !table.rows.is_empty());
    section.notes.push("expected: an even share for each backend seen; session affinity and connections that last make it uneven".to_owned());
    section
}

fn total(backends: &Backends<'_>) -> Tally {
    let mut total = Tally::default();
    for tally in backends.values() {
        total.merge(tally);
    }
    total
}

type Services<'a> = BTreeMap<(Kind, SocketAddr), Backends<'a>>;

/// Services by what failed, most first.
fn failing(whole: &Whole<'_>, services: &Services<'_>) -> Vec<Said> {
    let totals = services
        .iter()
        .map(|(key, backends)| (key, total(backends)));
    let mut failing: Vec<_> = totals.filter(|(_, total)| total.failed() > 0).collect();
    failing.sort_by_key(|(_, total)| Reverse(total.failed()));
    let said = failing.into_iter().take(8).map(|((kind, asked), total)| {
        let failed = total.failed();
        let of = if failed == total.count && failed > 1 {
            format!("all {}", exchanges(*kind, total.count))
        } else {
            format!("{failed} of {}", exchanges(*kind, total.count))
        };
        let service = whole.service(*kind, *asked);
        let mut said = Said::bad(format!(
            "{of} to {} {service} failed ({})",
            kind.name(),
            percent(failed, total.count)
        ));
        let causes = total.causes.commonest().into_iter();
        said.evidence = causes
            .map(|(cause, count)| format!("{count} {cause}"))
            .collect();
        said
    });
    said.collect()
}

/// Backends whose share cannot be chance: further from an even one than four standard deviations, and
/// by more than a tenth of all.
fn uneven(whole: &Whole<'_>, services: &Services<'_>) -> Vec<Said> {
    let mut said = Vec::new();
    for ((kind, asked), backends) in services {
        let Some(expected) = expected_share(backends).filter(|expected| *expected < 1.0) else {
            continue;
        };
        let translated = backends
            .iter()
            .filter_map(|(backend, tally)| Some(((*backend)?, tally)));
        let count: u64 = translated.clone().map(|(_, tally)| tally.count).sum();
        let known = translated.clone().count() as u64;
        let off = translated.max_by(|(_, a), (_, b)| {
            // In whole numbers, so that two as far off are a tie, which the larger one wins.
            let off = |tally: &Tally| (tally.count * known).abs_diff(count);
            off(a).cmp(&off(b)).then(a.count.cmp(&b.count))
        });
        let Some((backend, tally)) = off else {
            continue;
        };
        let distance = (share(tally.count, count) - expected).abs();
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let deviation = (expected * (1.0 - expected) / (count as f64).max(1.0)).sqrt();
        if distance > 0.1 && distance > 4.0 * deviation {
            let mut one = Said::bad(format!(
                "{} has {} of the {} to {} {}, where {:.0} % are even",
                whole.address(backend),
                percent(tally.count, count),
                exchanges(*kind, count),
                kind.name(),
                whole.service(*kind, *asked),
                expected * 100.0
            ));
            for (backend, tally) in backends {
                if let Some(backend) = backend {
                    one.evidence
                        .push(format!("{} {}", tally.count, whole.address(*backend)));
                }
            }
            said.push(one);
        }
    }
    said
}

fn services_table(whole: &Whole<'_>, services: &Services<'_>) -> Table {
    let totals = services
        .iter()
        .map(|(key, backends)| (key, total(backends)));
    let mut totals: Vec<_> = totals.collect();
    totals.sort_by_key(|(_, total)| Reverse(total.count));
    let rows = totals.into_iter().take(MOST).map(|((kind, asked), total)| {
        vec![
            whole.service(*kind, *asked).into(),
            kind.name().into(),
            total.count.into(),
            total.failed().into(),
            Cell::Share(share(total.failed(), total.count)),
            if *kind == Kind::Tcp {
                total.sent_again.into()
            } else {
                Cell::Nothing
            },
            total.at(0.5).into(),
            total.at(0.9).into(),
            total.at(0.99).into(),
            total.at(1.0).into(),
            causes(&total),
        ]
    });
    Table {
        name: "services",
        title: "services by exchanges; the latency is that of connecting, or of the answer",
        columns: SERVICES,
        rows: rows.collect(),
    }
}

fn backends_table(whole: &Whole<'_>, services: &Services<'_>) -> Table {
    let mut rows = Vec::new();
    let mut heaviest: Vec<_> = services
        .iter()
        .map(|(key, backends)| (key, backends, total(backends).count))
        .collect();
    heaviest.sort_by_key(|(.., count)| Reverse(*count));
    for ((kind, asked), backends, _) in heaviest {
        let expected = expected_share(backends);
        let translated: u64 = backends
            .iter()
            .filter(|(backend, _)| backend.is_some())
            .map(|(_, tally)| tally.count)
            .sum();
        for (backend, tally) in backends {
            let Some(backend) = backend else { continue };
            rows.push(vec![
                whole.service(*kind, *asked).into(),
                kind.name().into(),
                whole.address(*backend).into(),
                tally.count.into(),
                Cell::Share(share(tally.count, translated)),
                expected.map_or(Cell::Nothing, Cell::Share),
                tally.failed().into(),
                tally.at(0.5).into(),
                tally.at(0.99).into(),
            ]);
        }
    }
    rows.truncate(MOST);
    Table {
        name: "backends",
        title: "backends, by service",
        columns: BACKENDS,
        rows,
    }
}
