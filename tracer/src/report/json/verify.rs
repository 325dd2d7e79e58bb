//! A packet's way through the rules, as one JSON object.

use std::io::{self, Write};

use serde::Serialize;

use crate::model::walk::{ReplyWay, Walk, WalkStep, Way};

#[derive(Serialize)]
struct WalkLine<'a> {
    r#type: &'static str,
    protocol: &'static str,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    steps: Vec<StepObject<'a>>,
    ways: Vec<WayObject<'a>>,
    unknown_because_of: &'a [String],
}

#[derive(Serialize)]
struct StepObject<'a> {
    hook: &'static str,
    table: &'a str,
    chain: &'a str,
    rule: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    /// Null when it cannot be told.
    probability: Option<f64>,
}

#[derive(Serialize)]
struct WayObject<'a> {
    probability: [f64; 2],
    end: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_change: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    affinity_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    steps: Vec<StepObject<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replies: Vec<ReplyObject<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    later: Vec<WayObject<'a>>,
}

#[derive(Serialize)]
struct ReplyObject<'a> {
    probability: [f64; 2],
    end: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    source: String,
    destination: String,
    right: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a str>,
    steps: Vec<StepObject<'a>>,
}

pub(in crate::report) fn walk(walk: &Walk, out: &mut impl Write) -> io::Result<()> {
    let line = WalkLine {
        r#type: "walk",
        protocol: walk.protocol.name(),
        source: walk.source.ip().to_string(),
        client: walk.client.as_deref(),
        destination: walk.destination.to_string(),
        service: walk.service.as_deref(),
        device: walk.device.as_deref(),
        steps: walk.steps.iter().map(step).collect(),
        ways: walk.ways.iter().map(way).collect(),
        unknown_because_of: &walk.unknown,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

fn step(step: &WalkStep) -> StepObject<'_> {
    StepObject {
        hook: step.hook,
        table: &step.table,
        chain: &step.chain,
        rule: &step.rule,
        service: step.service.as_deref(),
        probability: step.chance,
    }
}

fn way(way: &Way) -> WayObject<'_> {
    WayObject {
        probability: [way.low, way.high],
        end: way.end.name(),
        detail: &way.detail,
        destination: way.destination.to_string(),
        source_change: way.source.as_deref(),
        affinity_s: way.affinity.map(|time| time.as_secs()),
        by: way.by.as_deref(),
        steps: way.steps.iter().map(step).collect(),
        replies: way.replies.iter().map(reply).collect(),
        later: way.later.iter().map(self::way).collect(),
    }
}

fn reply(way: &ReplyWay) -> ReplyObject<'_> {
    ReplyObject {
        probability: [way.low, way.high],
        end: way.end.name(),
        detail: &way.detail,
        source: way.source.to_string(),
        destination: way.destination.to_string(),
        right: way.right,
        by: way.by.as_deref(),
        steps: way.steps.iter().map(step).collect(),
    }
}
