//! A packet's way through the rules, for people: rules in their order, then what becomes of it.

use std::io::{self, Write};

use super::Paint;
use crate::model::walk::{ReplyWay, Walk, WalkStep, Way, WayEnd};

/// Further ways are counted, not shown rule by rule.
const SHOWN: usize = 3;

pub(in crate::report) fn walk(walk: &Walk, colour: bool, out: &mut impl Write) -> io::Result<()> {
    let paint = Paint(colour);
    head(walk, paint, out)?;
    steps(&walk.steps, "  ", paint, out)?;
    if walk.ways.len() > 1 {
        writeln!(out, "then one of {}:", walk.ways.len())?;
    }
    for (index, way) in walk.ways.iter().enumerate() {
        outcome(way, paint, out)?;
        if index < SHOWN {
            steps(&way.steps, "      ", paint, out)?;
        }
        for reply in &way.replies {
            self::reply(reply, paint, out)?;
            if index < SHOWN {
                steps(&reply.steps, "        ", paint, out)?;
            }
        }
        for later in &way.later {
            let (share, words) = (share_if_some(later.low, later.high), words(later, paint));
            writeln!(out, "           its client's next packet {share}{words}")?;
            if index < SHOWN {
                steps(&later.steps, "        ", paint, out)?;
            }
        }
    }
    for rule in &walk.unknown {
        writeln!(out, "unknown because of {rule}")?;
    }
    Ok(())
}

fn head(walk: &Walk, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let named = |name: &Option<String>| match name {
        Some(name) => format!(" ({name})"),
        None => String::new(),
    };
    let from = match &walk.device {
        Some(device) if !device.is_empty() => format!(", in by {device}"),
        Some(_) => ", in by an unknown device".to_owned(),
        None => ", from this node".to_owned(),
    };
    let line = format!(
        "{} {}{} to {}{}{from}",
        walk.protocol.name(),
        walk.source.ip(),
        named(&walk.client),
        walk.destination,
        named(&walk.service),
    );
    writeln!(out, "{}", paint.strong(&line))
}

/// Each hook and chain is named where it begins.
fn steps(steps: &[WalkStep], indent: &str, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let mut place = ("", "", "");
    for step in steps {
        let here = (step.hook, step.table.as_str(), step.chain.as_str());
        if here != place {
            let title = format!("{} {} {}", step.hook, step.table, step.chain);
            let service = match &step.service {
                Some(service) => format!("  ({service})"),
                None => String::new(),
            };
            writeln!(out, "{indent}{}{service}", paint.dim(&title))?;
            place = here;
        }
        let chance = match step.chance {
            Some(chance) if chance < 1.0 => format!("  [{:.1} %]", chance * 100.0),
            Some(_) => String::new(),
            None => "  [unknown]".to_owned(),
        };
        writeln!(out, "{indent}  {}{chance}", step.rule)?;
    }
    Ok(())
}

fn outcome(way: &Way, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let (share, words) = (share(way.low, way.high), words(way, paint));
    writeln!(out, "  {share:>7}  {words}")
}

fn words(way: &Way, paint: Paint) -> String {
    let detail = detail(way.end, &way.detail);
    let to = if way.end.arrives() {
        format!(" to {}", way.destination)
    } else {
        String::new()
    };
    let source = match (&way.source, way.end.arrives()) {
        (Some(source), _) => format!(", source {source}"),
        (None, true) => ", source kept".to_owned(),
        (None, false) => String::new(),
    };
    let affinity = way.affinity.map_or(String::new(), |time| {
        format!(", this client stays there {} s", time.as_secs())
    });
    let by = match &way.by {
        Some(by) => format!(" by {by}"),
        None => String::new(),
    };
    let words = format!("{}{detail}{to}{source}{affinity}{by}", way.end.name());
    if way.end.arrives() {
        words
    } else {
        paint.bad(&words).to_string()
    }
}

fn detail(end: WayEnd, detail: &str) -> String {
    match (detail, end) {
        ("", _) => String::new(),
        (device, WayEnd::Sent) => format!(" by {device}"),
        (more, _) => format!(" ({more})"),
    }
}

fn reply(way: &ReplyWay, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    let detail = detail(way.end, &way.detail);
    let ends = if way.end.arrives() {
        format!(" from {} to {}", way.source, way.destination)
    } else {
        String::new()
    };
    let astray = if way.end.arrives() && !way.right {
        ", which is none to what the client asked"
    } else {
        ""
    };
    let by = match &way.by {
        Some(by) => format!(" by {by}"),
        None => String::new(),
    };
    let share = share_if_some(way.low, way.high);
    let words = format!("{share}{}{detail}{ends}{astray}{by}", way.end.name());
    let words = if way.right {
        words
    } else {
        paint.bad(&words).to_string()
    };
    writeln!(out, "           its reply {words}")
}

/// A share and a space; nothing where it is the whole.
fn share_if_some(low: f64, high: f64) -> String {
    match share(low, high).as_str() {
        "100.0 %" => String::new(),
        share => format!("{share} "),
    }
}

/// `33.3 %`, or `0–50 %` where a rule is not understood.
fn share(low: f64, high: f64) -> String {
    if (high - low).abs() < 1e-6 {
        format!("{:.1} %", high * 100.0)
    } else {
        format!("{:.0}–{:.0} %", low * 100.0, high * 100.0)
    }
}
