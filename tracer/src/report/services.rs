//! Services: connections and queries to each, how they failed, how long they took to connect, and
//! how evenly the backends share them.

use std::{cmp::Reverse, collections::BTreeMap, net::SocketAddr, sync::LazyLock};

use super::{
    Report, Whole,
    section::{Cell, Column, Said, Section, Table, column, share},
    whole::{causes, exchanges, percent},
};
use crate::model::tally::{Kind, Tally};

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

/// Totals of who was never chosen.
static NONE: LazyLock<Tally> = LazyLock::new(Tally::default);

/// All that was asked, by kind and address, with the backends that answered, and those that are ready.
pub(super) fn by_service<'a>(whole: &Whole<'a>) -> Services<'a> {
    let breakdown = whole.breakdown();
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
    for ((protocol, asked), ready) in &whole.trace.ready {
        for kind in [Kind::Dns, Kind::of_protocol(*protocol)] {
            let Some(backends) = services.get_mut(&(kind, *asked)) else {
                continue;
            };
            // Where nothing was translated that was seen, nobody here chooses.
            if expected_share(backends).is_some() {
                for backend in ready {
                    backends.entry(Some(*backend)).or_insert(&*NONE);
                }
            }
        }
    }
    services
}

/// The part of its Service's exchanges that each backend would have, were they even; `None` where nothing
/// was translated.
pub(super) fn expected_share(backends: &Backends<'_>) -> Option<f64> {
    let known = backends.keys().filter(|backend| backend.is_some()).count();
    (known > 0).then(|| 1.0 / f64::from(u32::try_from(known).unwrap_or(u32::MAX)))
}

fn build<'a>(whole: &Whole<'a>) -> Section<'a> {
    let services = by_service(whole);
    let mut section = Section::default();
    if services.is_empty() {
        section
            .said
            .push(Said::plain("no Service was asked".to_owned()));
        return section;
    }
    section.said.extend(failing(whole, &services));
    for ((kind, asked), backends) in &services {
        let of = (*kind, whole.service(*kind, *asked));
        let said = idle(whole, &of, backends).or_else(|| uneven(whole, &of, backends));
        section.said.extend(said);
    }
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
    section.notes.push("expected: an even share for each backend that was seen or that the API server calls ready; session affinity and connections that last make it uneven".to_owned());
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

/// What is taken for no chance: one in ten thousand.
const CHANCE: f64 = 1e-4;

/// Backends that are ready and were never chosen, where that is no chance.
fn idle(
    whole: &Whole<'_>,
    (kind, service): &(Kind, String),
    backends: &Backends<'_>,
) -> Option<Said> {
    let expected = expected_share(backends)?;
    let known = backends
        .iter()
        .filter_map(|(backend, tally)| Some(((*backend)?, tally)));
    let count: u64 = known.clone().map(|(_, tally)| tally.count).sum();
    let idle = known.filter(|(_, tally)| tally.count == 0);
    let idle: Vec<_> = idle.map(|(backend, _)| whole.address(backend)).collect();
    let (first, others) = idle.split_first()?;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let chance = (1.0 - expected).powf(count as f64);
    if chance > CHANCE {
        return None;
    }
    let of = format!("{} to {} {service}", exchanges(*kind, count), kind.name());
    let mut said = Said::bad(if others.is_empty() {
        format!("{first} is ready and got none of {of}")
    } else {
        let all = others.len() + 1;
        format!(
            "{all} backends are ready and got none of {of}: {}",
            idle.join(", ")
        )
    });
    let seen = backends.iter().filter(|(_, tally)| tally.count > 0);
    said.evidence = seen
        .filter_map(|(backend, tally)| {
            Some(format!("{} {}", tally.count, whole.address((*backend)?)))
        })
        .collect();
    said.evidence
        .push("it is not this if it became ready only as the trace ended".to_owned());
    said.remedy = Some(
        "compare the node's rules with the EndpointSlices: tracer verify --from node --to SERVICE"
            .replace("SERVICE", service.split(' ').next().unwrap_or(service)),
    );
    Some(said)
}

/// A backend whose share cannot be chance: further from an even one than four standard deviations, and by
/// more than a tenth of all.
fn uneven(
    whole: &Whole<'_>,
    (kind, service): &(Kind, String),
    backends: &Backends<'_>,
) -> Option<Said> {
    let expected = expected_share(backends).filter(|expected| *expected < 1.0)?;
    let translated = backends
        .iter()
        .filter_map(|(backend, tally)| Some(((*backend)?, tally)));
    let count: u64 = translated.clone().map(|(_, tally)| tally.count).sum();
    let known = translated.clone().count() as u64;
    let (backend, tally) = translated.max_by(|(_, a), (_, b)| {
        // In whole numbers, so that two as far off are a tie, which the larger one wins.
        let off = |tally: &Tally| (tally.count * known).abs_diff(count);
        off(a).cmp(&off(b)).then(a.count.cmp(&b.count))
    })?;
    let distance = (share(tally.count, count) - expected).abs();
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let deviation = (expected * (1.0 - expected) / (count as f64).max(1.0)).sqrt();
    if distance <= 0.1 || distance <= 4.0 * deviation {
        return None;
    }
    let mut said = Said::bad(format!(
        "{} has {} of the {} to {} {service}, where {:.0} % are even",
        whole.address(backend),
        percent(tally.count, count),
        exchanges(*kind, count),
        kind.name(),
        expected * 100.0
    ));
    for (backend, tally) in backends {
        if let Some(backend) = backend {
            said.evidence
                .push(format!("{} {}", tally.count, whole.address(*backend)));
        }
    }
    Some(said)
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
