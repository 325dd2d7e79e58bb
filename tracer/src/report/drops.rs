//! Drops: queries, answers and connections that the kernel was seen to drop, by reason, place and
//! Service. `tracer drops` counts all packets; this counts exchanges that failed for it.

use std::cmp::Reverse;

use super::{
    Report, Whole,
    section::{Cell, Column, Said, Section, Table, column, plural},
};
use crate::model::tally::Kind;

pub(super) const REPORT: Report = Report {
    name: "drops",
    title: "Drops",
    build,
};

const DROPS: &[Column] = &[
    column("reason", "reason"),
    column("place", "by"),
    column("service", "asked"),
    column("what", "what"),
    column("count", "failed"),
];

fn build<'a>(whole: &Whole<'a>) -> Section<'a> {
    let mut drops: Vec<_> = whole.breakdown().drops.iter().collect();
    drops.sort_by_key(|(_, count)| Reverse(**count));
    let mut section = Section::default();
    let all: u64 = drops.iter().map(|(_, count)| **count).sum();
    let Some(((drop, asked), count)) = drops.first() else {
        section.said.push(Said::plain(
            "nothing failed because the kernel dropped it, as far as was seen".to_owned(),
        ));
        return section;
    };
    let by = if drop.place.is_empty() {
        String::new()
    } else {
        format!(", by {}", drop.place)
    };
    let mut said = Said::bad(format!(
        "{} failed because the kernel dropped a packet; {count} of them for {}{by}, on the way to {}",
        plural(all, "exchange", "exchanges"),
        drop.reason,
        whole.service(Kind::Dns, *asked)
    ));
    if drop.reason.starts_with("NETFILTER_DROP") {
        said.evidence.push(
            "a rule of netfilter dropped it: a NetworkPolicy, or a firewall of the node".to_owned(),
        );
    }
    section.said.push(said);
    let rows = drops.iter().map(|((drop, asked), count)| {
        vec![
            (&*drop.reason).into(),
            if drop.place.is_empty() {
                Cell::Nothing
            } else {
                (&*drop.place).into()
            },
            whole.service(Kind::Dns, *asked).into(),
            (&*drop.what).into(),
            (**count).into(),
        ]
    });
    section.tables.push(Table {
        name: "drops",
        title: "drops by exchanges that failed for them",
        columns: DROPS,
        rows: rows.collect(),
    });
    section.notes.push(
        "`tracer drops` counts every packet that the kernel drops, also of other protocols"
            .to_owned(),
    );
    section
}
