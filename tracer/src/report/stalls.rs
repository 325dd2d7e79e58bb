//! Where packets stall: the stages in which time is spent, by Service, pod and node; where what failed
//! was last seen; and the exchanges that took longest, one by one.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use super::{
    Report, Whole,
    section::{Cell, Column, Said, Section, Shown, Table, column},
    text::short,
    whole::{exchanges, percent, step_name, words},
};
use crate::model::{
    Finding, Severity,
    breakdown::Breakdown,
    journey::Step,
    spread::Spread,
    stages::StageTotals,
    steps::Steps,
    tally::{Kind, Who},
};

pub(super) const REPORT: Report = Report {
    name: "stalls",
    title: "Where packets stall",
    build,
};

const STAGES: &[Column] = &[
    column("kind", "kind"),
    column("leg", "leg"),
    column("stage", "stage"),
    column("spent_us", "spent"),
    column("share", "share"),
    column("p50_us", "p50"),
    column("p99_us", "p99"),
    column("max_us", "longest"),
    column("count", "times"),
];

const SERVICES: &[Column] = &[
    column("service", "service"),
    column("kind", "kind"),
    column("leg", "leg"),
    column("stage", "stage"),
    column("share", "share"),
    column("p50_us", "p50"),
    column("p99_us", "p99"),
    column("count", "times"),
];

const PLACES: &[Column] = &[
    column("place", "pod or node"),
    column("place_kind", "is a"),
    column("kind", "kind"),
    column("leg", "leg"),
    column("stage", "stage"),
    column("spent_us", "spent"),
    column("p50_us", "p50"),
    column("p99_us", "p99"),
    column("max_us", "longest"),
    column("count", "times"),
];

const STOPPED: &[Column] = &[
    column("kind", "kind"),
    column("leg", "leg"),
    column("stage", "last stage passed"),
    column("count", "failed"),
];

/// Most places of a table.
const MOST: usize = 256;

fn build<'a>(whole: &Whole<'a>) -> Section<'a> {
    let breakdown = whole.breakdown();
    let mut section = Section::default();
    section.said.extend(whole.findings.iter().map(found));
    for kind in Kind::ALL {
        section.said.extend(failed(kind, breakdown));
        section.said.extend(slow(kind, breakdown));
        show(kind, breakdown, &mut section.exchanges);
    }
    section.said.sort_by_key(|said| !said.bad);
    let tables = [
        stages(breakdown),
        services(whole),
        places(breakdown),
        stopped(breakdown),
    ];
    section.tables = tables
        .into_iter()
        .filter(|table| !table.rows.is_empty())
        .collect();
    if breakdown.range.is_none() {
        section
            .said
            .push(Said::plain("nothing was asked".to_owned()));
    } else if breakdown.stages.is_empty() {
        section
            .notes
            .push("stages are told with --path only".to_owned());
    } else {
        section.notes.push("times of stages are within three percent, those by service within one; a failed exchange counts up to where it was seen last".to_owned());
    }
    section
}

/// What those who look for causes found.
fn found(finding: &Finding) -> Said {
    let mut evidence = finding.evidence.clone();
    if !finding.refuted_by.is_empty() {
        evidence.push(format!("it is not this if {}", finding.refuted_by));
    }
    Said {
        bad: finding.severity == Severity::Broken,
        sentence: format!("{} {}", finding.object, finding.sentence),
        evidence,
        remedy: (!finding.remedy.is_empty()).then(|| finding.remedy.clone()),
    }
}

/// What failed, why, and where it was seen last.
fn failed(kind: Kind, breakdown: &Breakdown) -> Option<Said> {
    let tally = breakdown.kinds.get(&kind)?;
    let failed = tally.failed();
    if failed == 0 {
        return None;
    }
    let (_, many) = words(kind);
    let mut said = Said::bad(format!(
        "{failed} of {} {} {many} ({}) came to no good end",
        tally.count,
        kind.name(),
        percent(failed, tally.count)
    ));
    for (cause, count) in tally.causes.commonest() {
        said.evidence.push(format!("{count} {cause}"));
    }
    let mut stopped: Vec<_> = breakdown
        .stopped
        .iter()
        .filter(|((of, _), _)| *of == kind)
        .map(|((_, step), count)| (step, count))
        .collect();
    stopped.sort_by_key(|(_, count)| Reverse(**count));
    for (step, count) in stopped {
        said.evidence.push(match step {
            Some(step) => format!("{count} last seen at the end of {}", step_name(*step)),
            None => format!("{count} seen at their first place only"),
        });
    }
    Some(said)
}

/// The stage in which most time was spent, and where.
fn slow(kind: Kind, breakdown: &Breakdown) -> Option<Said> {
    let (whole, ranked) = ranked(kind, breakdown);
    let (step, spread) = *ranked.first()?;
    let sum = spread.sum().as_secs_f64();
    let part = sum / whole.as_secs_f64().max(f64::MIN_POSITIVE) * 100.0;
    let (_, many) = words(kind);
    let mut said = Said::plain(format!(
        "{} takes {part:.0} % of the time of {} {many}: {} of {}",
        step_name(step),
        kind.name(),
        short(spread.sum()),
        short(whole)
    ));
    said.evidence.push(times(spread));
    let mut places: Vec<_> = breakdown
        .places
        .iter()
        .filter(|((_, of), _)| *of == kind)
        .flat_map(|((place, _), steps)| steps.iter().map(move |(at, spread)| (place, at, spread)))
        .filter(|(_, at, _)| *at == step)
        .map(|(place, _, spread)| (place, spread))
        .collect();
    places.sort_by_key(|(_, spread)| Reverse(spread.sum()));
    for (place, spread) in places.into_iter().take(3) {
        let (sum, times) = (short(spread.sum()), times(spread));
        said.evidence
            .push(format!("{sum} of it at {place}: {times}"));
    }
    Some(said)
}

/// `p50 28.9 µs, p99 166 µs, longest 301 ms, 2275 times`.
fn times(spread: &Spread) -> String {
    let at = |quantile| short(spread.quantile(quantile).unwrap_or_default());
    let (p50, p99, longest) = (at(0.5), at(0.99), short(spread.max()));
    format!(
        "p50 {p50}, p99 {p99}, longest {longest}, {} times",
        spread.count()
    )
}

/// The time of all stages of a kind, and its stages, most time first.
fn ranked(kind: Kind, breakdown: &Breakdown) -> (Duration, Vec<(Step, &Spread)>) {
    let stages = breakdown.stages.get(&kind).into_iter();
    let mut ranked: Vec<_> = stages.flat_map(Steps::iter).collect();
    ranked.sort_by_key(|(_, spread)| Reverse(spread.sum()));
    let whole = ranked.iter().map(|(_, spread)| spread.sum()).sum();
    (whole, ranked)
}

fn show<'a>(kind: Kind, breakdown: &'a Breakdown, shown: &mut Vec<Shown<'a>>) {
    let slowest = breakdown.worst.slowest(kind);
    let answered = breakdown
        .kinds
        .get(&kind)
        .map_or(0, |tally| tally.latency.count());
    for (nth, example) in (1..).zip(slowest) {
        let of = exchanges(kind, answered);
        let why = if nth == 1 {
            format!("slowest of {of}")
        } else {
            format!("number {nth} of {of} by time")
        };
        shown.push(Shown { nth, why, example });
    }
    let failed = breakdown.worst.failed();
    let failed = failed.filter(|(_, example)| Kind::of(&example.row) == kind);
    for (nth, (cause, example)) in (1..).zip(failed) {
        let why = format!("an example of {cause}");
        shown.push(Shown { nth, why, example });
    }
}

fn stages(breakdown: &Breakdown) -> Table {
    let mut rows = Vec::new();
    for kind in Kind::ALL {
        let (whole, ranked) = ranked(kind, breakdown);
        let whole = whole.as_secs_f64().max(f64::MIN_POSITIVE);
        for (step, spread) in ranked {
            rows.push(vec![
                kind.name().into(),
                step.leg.name().into(),
                step.stage.name().into(),
                Cell::Time(spread.sum()),
                Cell::Share(spread.sum().as_secs_f64() / whole),
                spread.quantile(0.5).into(),
                spread.quantile(0.99).into(),
                Cell::Time(spread.max()),
                spread.count().into(),
            ]);
        }
    }
    Table {
        name: "stages",
        title: "stages by the time spent in them",
        columns: STAGES,
        rows,
    }
}

fn services(whole: &Whole<'_>) -> Table {
    let dns = whole.trace.dns.iter();
    let dns = dns.map(|(asked, totals)| (Kind::Dns, *asked, &totals.stages));
    let connections = whole
        .trace
        .connections
        .iter()
        .map(|((protocol, asked), totals)| {
            let kind = Kind::of_protocol(*protocol);
            (kind, *asked, &totals.stages)
        });
    let mut rows = Vec::new();
    for (kind, asked, stages) in dns.chain(connections) {
        let ranked = stages
            .as_deref()
            .map(StageTotals::ranked)
            .unwrap_or_default();
        // The first few are where the time goes.
        for stage in ranked
            .into_iter()
            .take(3)
            .filter(|stage| stage.share >= 0.05)
        {
            rows.push(vec![
                whole.service(kind, asked).into(),
                kind.name().into(),
                stage.step.leg.name().into(),
                stage.step.stage.name().into(),
                Cell::Share(stage.share),
                Cell::Time(stage.p50),
                Cell::Time(stage.p99),
                stage.count.into(),
            ]);
        }
    }
    Table {
        name: "services",
        title: "the stages that take most of each service's time",
        columns: SERVICES,
        rows,
    }
}

fn places(breakdown: &Breakdown) -> Table {
    let mut spent: BTreeMap<&Who, Duration> = BTreeMap::new();
    let mut places = Vec::new();
    for ((place, kind), steps) in breakdown.places.iter() {
        for (step, spread) in steps.iter() {
            *spent.entry(place).or_default() += spread.sum();
            places.push((place, kind, step, spread));
        }
    }
    places
        .sort_by_key(|(place, .., spread)| (Reverse(spent[place]), *place, Reverse(spread.sum())));
    let rows = places
        .into_iter()
        .take(MOST)
        .map(|(place, kind, step, spread)| {
            vec![
                place.to_string().into(),
                place.kind().into(),
                kind.name().into(),
                step.leg.name().into(),
                step.stage.name().into(),
                Cell::Time(spread.sum()),
                spread.quantile(0.5).into(),
                spread.quantile(0.99).into(),
                Cell::Time(spread.max()),
                spread.count().into(),
            ]
        });
    Table {
        name: "places",
        title: "pods and nodes by the time spent there, and its stages",
        columns: PLACES,
        rows: rows.collect(),
    }
}

fn stopped(breakdown: &Breakdown) -> Table {
    let mut stopped: Vec<_> = breakdown.stopped.iter().collect();
    stopped.sort_by_key(|(_, count)| Reverse(**count));
    let rows = stopped.into_iter().map(|((kind, step), count)| {
        vec![
            kind.name().into(),
            step.map_or(Cell::Nothing, |step| step.leg.name().into()),
            step.map_or(Cell::Nothing, |step| step.stage.name().into()),
            (*count).into(),
        ]
    });
    Table {
        name: "stopped",
        title: "where failed exchanges were last seen",
        columns: STOPPED,
        rows: rows.collect(),
    }
}
