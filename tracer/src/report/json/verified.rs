//! What came of judging a node's rules: a `finding` for each thing wrong, `verified` last.

use std::io::{self, Write};

use serde::Serialize;

use super::summary::SCHEMA;
use crate::{
    model::{Finding, verified::Verified},
    report::findings,
};

#[derive(Serialize)]
struct VerifiedLine<'a> {
    r#type: &'static str,
    schema: u32,
    node: &'a str,
    modes: &'a [&'static str],
    objects: &'static str,
    objects_unix_ns: i64,
    services: usize,
    ports: usize,
    ports_changing: usize,
    packets: u64,
    rules: usize,
    findings: usize,
    kept_away: Vec<KeptLine<'a>>,
}

#[derive(Serialize)]
struct KeptLine<'a> {
    engine: &'static str,
    ports: usize,
    packets: usize,
    first: &'a [String],
}

pub(in crate::report) fn verified(verified: &Verified, out: &mut impl Write) -> io::Result<()> {
    for found in &verified.findings {
        findings::one_line(found, out)?;
    }
    let kept = verified.kept_away.iter().map(|kept| KeptLine {
        engine: kept.engine,
        ports: kept.ports,
        packets: kept.packets,
        first: &kept.first,
    });
    let last = VerifiedLine {
        r#type: "verified",
        schema: SCHEMA,
        node: &verified.node,
        modes: &verified.modes,
        objects: verified.objects.name(),
        objects_unix_ns: verified.taken.0,
        services: verified.services,
        ports: verified.ports,
        ports_changing: verified.changing,
        packets: verified.packets,
        rules: verified.rules,
        findings: verified.findings.len(),
        kept_away: kept.collect(),
    };
    serde_json::to_writer(&mut *out, &last)?;
    out.write_all(b"\n")
}

#[derive(Serialize)]
struct MendedLine<'a> {
    r#type: &'static str,
    name: &'static str,
    object: &'a str,
}

/// What is found no more.
pub(in crate::report) fn mended(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let line = MendedLine {
        r#type: "mended",
        name: finding.name,
        object: &finding.object,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}
