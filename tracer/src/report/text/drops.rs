//! Drops as a table: what is lost first, then what is freed as a matter of course.

use std::io::{self, Write};

use super::{Paint, line::time_of_day, summary::counts};
use crate::{
    model::{
        WallNs,
        drops::{EndName, NamedDrops},
    },
    report::{DropsSummary, Zone},
};

const HEADS: [&str; COLUMNS] = [
    "packets", "reason", "by", "netns", "protocol", "service", "pods",
];
const COLUMNS: usize = 7;

/// Most groups printed; JSON has them all.
const SHOWN: usize = 60;

pub(in crate::report) fn drops(
    now: WallNs,
    drops: &[NamedDrops],
    seconds: f64,
    colour: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let paint = Paint(colour);
    let heading = format!(
        "{}  dropped in {seconds:.1} s",
        time_of_day(now, Zone::Local)
    );
    if drops.is_empty() {
        return writeln!(out, "{heading}: nothing");
    }
    writeln!(out, "{}", paint.strong(heading))?;
    let shown = &drops[..drops.len().min(SHOWN)];
    let cells: Vec<_> = shown.iter().map(cells).collect();
    let mut widths = HEADS.map(str::len);
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    line(&HEADS.map(str::to_owned), &widths, "last", paint, out)?;
    let mut usual_before = None;
    for (named, cells) in shown.iter().zip(&cells) {
        if named.usual != usual_before {
            if let Some(why) = named.usual {
                writeln!(
                    out,
                    "{}",
                    paint.dim(format_args!("no loss by itself: {why}"))
                )?;
            }
            usual_before = named.usual;
        }
        line(cells, &widths, &last(named), paint, out)?;
    }
    if drops.len() > SHOWN {
        writeln!(out, "and {} more groups", drops.len() - SHOWN)?;
    }
    Ok(())
}

fn cells(named: &NamedDrops) -> [String; COLUMNS] {
    let group = &named.group;
    let mut by = match &named.symbol {
        Some(symbol) => symbol.to_string(),
        None => format!("{:#x}", group.location),
    };
    if let Some(hook) = group.hook {
        by = format!("{by} in {}", hook.name());
    }
    [
        named.count.packets.to_string(),
        named.reason.to_string(),
        by,
        named.netns.as_deref().unwrap_or("-").to_owned(),
        group.carried.to_string(),
        match (group.service, &named.service) {
            (Some(address), Some(name)) => format!("{} {address}", name.port),
            (Some(address), None) => address.to_string(),
            (None, _) => "-".to_owned(),
        },
        pods(&named.ends),
    ]
}

/// Who sent the last packet, and whom it was for; a dash for who is not known, one alone for both.
fn pods(ends: &[EndName; 2]) -> String {
    let [from, to] = ends.each_ref().map(|end| match (&end.pod, &end.node) {
        (Some(pod), _) => Some(pod.pod.to_string()),
        (None, Some(node)) => Some(format!("node/{node}")),
        (None, None) => None,
    });
    if from.is_none() && to.is_none() {
        return "-".to_owned();
    }
    let [from, to] = [from, to].map(|name| name.unwrap_or_else(|| "-".to_owned()));
    format!("{from} → {to}")
}

/// When the last of them was dropped, and between whom.
fn last(named: &NamedDrops) -> String {
    let time = time_of_day(named.last, Zone::Local);
    match named.count.flow {
        Some(flow) if flow.src.port() == 0 && flow.dst.port() == 0 => {
            format!("{time} {} → {}", flow.src.ip(), flow.dst.ip())
        }
        Some(flow) => format!("{time} {} → {}", flow.src, flow.dst),
        None => time.to_string(),
    }
}

fn line(
    cells: &[String; COLUMNS],
    widths: &[usize; COLUMNS],
    last: &str,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let [packets, rest @ ..] = cells;
    write!(
        out,
        "  {}",
        paint.strong(format_args!("{packets:>0$}", widths[0]))
    )?;
    for (cell, width) in rest.iter().zip(&widths[1..]) {
        write!(out, "  {cell:<width$}")?;
    }
    writeln!(out, "  {last}")
}

pub(in crate::report) fn drops_summary(
    summary: &DropsSummary<'_>,
    colour: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let paint = Paint(colour);
    let (packets, usual) = summary.packets();
    writeln!(out)?;
    writeln!(
        out,
        "in {:.1} s {}, and {usual} freed that are no loss by themselves",
        summary.seconds,
        paint.strong(format_args!("{packets} packets dropped"))
    )?;
    for what in summary.unseen {
        writeln!(out, "not seen: {what}")?;
    }
    let lost = counts(&[
        (
            summary.losses.ring_full,
            "drops for which the kernel's table had no room",
        ),
        (summary.losses.skipped, "skipped by the kernel"),
        (
            summary.beyond,
            "drops of groups beyond the most that are told apart",
        ),
    ]);
    match lost {
        Some(lost) => writeln!(out, "{}: {lost}", paint.bad("lost")),
        None => writeln!(out, "lost: nothing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Flow, KtimeNs, NetnsInode, Pod, PodName, Source,
        drops::{Carried, DropCount, DropGroup, Hook},
    };

    fn named(usual: Option<&'static str>, packets: u64) -> NamedDrops {
        NamedDrops {
            group: DropGroup {
                reason: 8,
                location: 0xabc,
                hook: Some(Hook::Forward),
                netns: NetnsInode(0),
                carried: Carried::Ip(17),
                service: Some("10.96.0.13:53".parse().unwrap()),
            },
            count: DropCount {
                packets,
                bytes: 1,
                last: KtimeNs(1),
                flow: Some(Flow {
                    src: "192.0.2.1:4000".parse().unwrap(),
                    dst: "10.96.0.13:53".parse().unwrap(),
                }),
            },
            last: WallNs(0),
            reason: "NETFILTER_DROP".into(),
            symbol: None,
            netns: None,
            service: None,
            ends: [EndName::default(), EndName::default()],
            usual,
        }
    }

    fn pod(name: &str) -> EndName {
        let pod = Pod {
            namespace: "shop".into(),
            name: name.into(),
            uid: None,
        };
        EndName {
            pod: Some(PodName {
                pod: pod.into(),
                source: Source::Api,
                age: std::time::Duration::ZERO,
                object: None,
            }),
            node: Some("n1".into()),
        }
    }

    #[test]
    fn both_ends_are_named_where_they_are_known() {
        let node = EndName {
            pod: None,
            node: Some("n2".into()),
        };
        let nobody = EndName::default;
        assert_eq!(pods(&[pod("web-1"), pod("db-0")]), "shop/web-1 → shop/db-0");
        assert_eq!(pods(&[node, pod("db-0")]), "node/n2 → shop/db-0");
        assert_eq!(pods(&[pod("web-1"), nobody()]), "shop/web-1 → -");
        assert_eq!(pods(&[nobody(), nobody()]), "-");
    }

    /// What is printed, without times, which depend on the zone.
    fn shown(drops_shown: &[NamedDrops]) -> Vec<String> {
        let mut out = Vec::new();
        drops(WallNs(0), drops_shown, 5.0, false, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let without_time = |line: &str| match line.split_once("10.96.0.13:53  -     ") {
            Some((start, last)) => format!("{start}{}", &last["00:00:00.000000 ".len()..]),
            None => line.trim_end().to_owned(),
        };
        text.lines().skip(1).map(without_time).collect()
    }

    #[test]
    fn losses_stand_apart_from_what_is_none() {
        let table = shown(&[named(None, 12), named(Some("it was used up"), 3)]);
        assert_eq!(
            table,
            [
                "  packets  reason          by                netns  protocol  service        pods  last",
                "       12  NETFILTER_DROP  0xabc in FORWARD  -      udp       192.0.2.1:4000 → 10.96.0.13:53",
                "no loss by itself: it was used up",
                "        3  NETFILTER_DROP  0xabc in FORWARD  -      udp       192.0.2.1:4000 → 10.96.0.13:53",
            ]
        );
    }

    #[test]
    fn a_long_table_says_how_many_it_leaves_out() {
        let many = vec![named(None, 1); SHOWN + 7];
        let table = shown(&many);
        assert_eq!(table.last().unwrap(), "and 7 more groups");
    }
}
