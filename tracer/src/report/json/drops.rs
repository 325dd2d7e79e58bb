//! Drops as JSON lines: one a group, then the summary.

use std::{
    io::{self, Write},
    net::SocketAddr,
};

use serde::Serialize;

use super::{
    End, Time,
    named::{NamedEnd, ServiceLine},
    summary::SCHEMA,
};
use crate::{
    model::{
        WallNs,
        drops::{EndName, Hook, NamedDrops},
    },
    report::DropsSummary,
};

#[derive(Serialize)]
struct DropsLine<'a> {
    r#type: &'static str,
    time: Time,
    seconds: f64,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usual: Option<&'a str>,
    location: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    symbol: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<&'a str>,
    protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Asked<'a>>,
    packets: u64,
    bytes: u64,
    last: Last<'a>,
}

/// The service address asked, and what it is.
#[derive(Serialize)]
struct Asked<'a> {
    #[serde(flatten)]
    end: End,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceLine<'a>>,
}

/// The last packet of the group.
#[derive(Serialize)]
struct Last<'a> {
    time: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    src: Option<NamedEnd<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst: Option<NamedEnd<'a>>,
}

pub(in crate::report) fn drops(
    now: WallNs,
    drops: &[NamedDrops],
    seconds: f64,
    out: &mut impl Write,
) -> io::Result<()> {
    for named in drops {
        serde_json::to_writer(&mut *out, &line(now, named, seconds))?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn end(address: SocketAddr, name: &EndName) -> NamedEnd<'_> {
    NamedEnd::of(address, name.pod.as_ref(), name.node.as_deref())
}

fn line(now: WallNs, named: &NamedDrops, seconds: f64) -> DropsLine<'_> {
    let flow = named.count.flow;
    let [src, dst] = &named.ends;
    DropsLine {
        r#type: "drops",
        time: Time(now),
        seconds,
        reason: &named.reason,
        usual: named.usual,
        location: format!("{:#x}", named.group.location),
        symbol: named.symbol.as_deref(),
        hook: named.group.hook.map(Hook::name),
        netns: named.netns.as_deref(),
        protocol: named.group.carried.to_string(),
        service: named.group.service.map(|address| Asked {
            end: address.into(),
            service: named.service.as_ref().map(ServiceLine::from),
        }),
        packets: named.count.packets,
        bytes: named.count.bytes,
        last: Last {
            time: Time(named.last),
            src: flow.map(|flow| end(flow.src, src)),
            dst: flow.map(|flow| end(flow.dst, dst)),
        },
    }
}

#[derive(Serialize)]
struct Summary<'a> {
    r#type: &'static str,
    schema: u32,
    seconds: f64,
    packets: u64,
    usual: u64,
    lost: Lost,
    unseen: &'a [String],
}

#[derive(Serialize)]
struct Lost {
    total: u64,
    tables_full: u64,
    skipped: u64,
    beyond: u64,
}

pub(in crate::report) fn drops_summary(
    summary: &DropsSummary<'_>,
    out: &mut impl Write,
) -> io::Result<()> {
    let (packets, usual) = summary.packets();
    let line = Summary {
        r#type: "summary",
        schema: SCHEMA,
        seconds: summary.seconds,
        packets,
        usual,
        lost: Lost {
            total: summary.lost(),
            tables_full: summary.losses.ring_full,
            skipped: summary.losses.skipped,
            beyond: summary.beyond,
        },
        unseen: summary.unseen,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}
