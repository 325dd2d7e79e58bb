//! The way of an exchange's packets as a waterfall: a line a stage, a bar from when to when.

use std::{
    fmt::{self, Display},
    io::{self, Write},
    time::Duration,
};

use super::{Paint, short};
use crate::model::{
    Dns, Flow, Journey, Named,
    journey::{Leg, Point, Side, Stage, Step},
    stopped::Stopped,
};

/// Cells that the whole journey's time is drawn in.
const CELLS: u32 = 20;

/// What is left of 100 columns for the places.
const PLACES: usize = 43;

/// Most characters of a name, where lines would be too long with more.
const NAMES: [usize; 4] = [40, 21, 15, 9];

/// The way of a query, or of a connection.
pub(super) fn waterfall(
    journey: &Journey,
    dns: Option<&Dns>,
    named: &Named,
    paint: Paint,
    out: &mut impl Write,
) -> io::Result<()> {
    let whole = journey.duration();
    let longest = journey
        .spans()
        .map(|(_, begin, end)| end.ktime - begin.ktime);
    let longest = longest.max().unwrap_or_default();
    let mut leg = None;
    for (step, begin, end) in journey.spans() {
        let name = if leg == Some(step.leg) {
            ""
        } else {
            step.leg.name()
        };
        leg = Some(step.leg);
        let took = end.ktime - begin.ktime;
        let bar = Bar {
            before: begin.ktime - journey.start.ktime,
            took,
            whole,
        };
        write!(
            out,
            "  {} {:<15} ",
            paint.dim(Padded(name, 8)),
            step.stage.name()
        )?;
        if took == longest {
            write!(out, "{}", paint.bad(bar))?;
        } else {
            write!(out, "{bar}")?;
        }
        write!(out, " {:>7}  ", short(took).to_string())?;
        let upstream = dns.and_then(|dns| dns.upstream.as_deref());
        let place = |most| match upstream {
            Some(upstream) if step.stage == Stage::Upstream => format!("→ {}", upstream.asked),
            _ => place(journey, dns, named, (step, begin, end), most),
        };
        let fits = |place: &String| place.chars().count() <= PLACES;
        let places = NAMES.map(place);
        let place = places.iter().find(|place| fits(place)).or(places.last());
        writeln!(out, "{}", place.map_or("", String::as_str))?;
    }
    more(journey, named, paint, out)
}

/// What is not on the line of a stage: what went unseen, and what was sent in vain.
fn more(journey: &Journey, named: &Named, paint: Paint, out: &mut impl Write) -> io::Result<()> {
    if journey.stages.is_empty() {
        let site = site(journey.start, named, NAMES[0]);
        writeln!(out, "  {}", paint.dim(format_args!("seen at {site} only")))?;
    }
    if let Some(lost) = journey.lost {
        let site = site(lost, named, NAMES[0]);
        writeln!(
            out,
            "  {}",
            paint.dim(format_args!("sent first and last seen at {site}"))
        )?;
    }
    if !journey.unseen.is_empty() {
        let steps: Vec<_> = journey.unseen.iter().copied().map(step_name).collect();
        let steps = steps.join(", ");
        writeln!(
            out,
            "  {}",
            paint.dim(format_args!("not seen apart: {steps}"))
        )?;
    }
    Ok(())
}

/// Where a query, or a connection, stopped: what was seen of it last.
pub(super) fn stopped(stopped: Stopped, dns: Option<&Dns>, named: &Named) -> String {
    let Stopped { leg, stage, at } = stopped;
    let site = named.site(at.netns, at.ifindex);
    let netns = site.map_or_else(|| at.netns.0.to_string(), |site| site.name.to_string());
    let leg = leg.name();
    let device = (at.ifindex.0 > 0).then(|| device(at, named, NAMES[0]));
    let device = device.as_deref().unwrap_or("no device yet");
    let mut place = match at.side {
        Side::Queued => format!("{leg} last seen leaving {netns} by {device}"),
        Side::Received => format!("{leg} last seen entering {netns} by {device}"),
        Side::Delivered => format!("{leg} last seen in a socket's queue in {netns}"),
        Side::Read => {
            let by = reader(dns, stopped.leg);
            format!("{leg} last seen read by {by} in {netns}")
        }
        Side::Dropped => format!("{leg} dropped in {netns} at {device}"),
    };
    if let Some(stage) = stage {
        place = place + ", after " + stage.name();
    }
    place
}

pub(super) fn step_name(step: Step) -> String {
    format!("{} {}", step.leg.name(), step.stage.name())
}

/// Who read the packet of `leg`.
fn reader(dns: Option<&Dns>, leg: Leg) -> String {
    let by = dns.and_then(|dns| dns.ends.reader(leg));
    by.map_or_else(
        || "somebody".to_owned(),
        |by| format!("{}[{}]", by.comm, by.pid),
    )
}

/// Where a stage of a query, or of a connection, ends, and where it began if it is the first; names have at most
/// `most` characters.
pub(in crate::report) fn place(
    journey: &Journey,
    dns: Option<&Dns>,
    named: &Named,
    (step, begin, end): (Step, Point, Point),
    most: usize,
) -> String {
    let mut place = String::new();
    if begin == journey.start {
        place = site(begin, named, most) + " ";
    }
    let there = match step.stage {
        Stage::Backend | Stage::Client => site(end, named, most),
        Stage::BackendInput | Stage::ClientInput => "→ its socket".to_owned(),
        Stage::BackendQueue | Stage::ClientQueue if end.side == Side::Read => {
            format!("→ {}", reader(dns, step.leg))
        }
        Stage::BackendQueue | Stage::ClientQueue => String::new(),
        Stage::SentAgain => "no acknowledgement came".to_owned(),
        _ if begin.netns == end.netns => format!("→ {}", device(end, named, most)),
        _ => format!("→ {}", site(end, named, most)),
    };
    place += &there;
    if step.stage == Stage::Wire
        && let Some(flow) = journey.flow(begin)
    {
        place = place + ", from " + &flow.dst.ip().to_string();
    }
    let (before, undone, after) = if step.leg.is_forward() {
        (begin, "", end)
    } else {
        (end, " undone", begin)
    };
    if let (Some(before), Some(after)) = (journey.flow(before), journey.flow(after))
        && before != after
    {
        place = place + ", " + nat(before, after) + undone;
    }
    place
}

/// What NAT makes `after` of `before`.
fn nat(before: Flow, after: Flow) -> &'static str {
    match (before.src != after.src, before.dst != after.dst) {
        (true, false) => "SNAT",
        (false, _) => "DNAT",
        (true, true) => "DNAT and SNAT",
    }
}

/// Namespace and device.
fn site(point: Point, named: &Named, most: usize) -> String {
    let name = named.site(point.netns, point.ifindex);
    let name = name.map_or_else(|| point.netns.0.to_string(), |site| cut(&site.name, most));
    format!("{name} {}", device(point, named, most))
}

/// The device's name, or its number.
fn device(point: Point, named: &Named, most: usize) -> String {
    let site = named.site(point.netns, point.ifindex);
    match site.and_then(|site| site.device.as_deref()) {
        Some(device) => cut(device, most),
        None => format!("ifindex {}", point.ifindex.0),
    }
}

/// The name, its middle left out where it has more than `most` characters.
pub(in crate::report) fn cut(name: &str, most: usize) -> String {
    let count = name.chars().count();
    if count <= most {
        return name.to_owned();
    }
    let ends = most / 2;
    let first: String = name.chars().take(ends).collect();
    let last: String = name.chars().skip(count - ends).collect();
    format!("{first}…{last}")
}

/// Text and spaces up to a width, also when painted.
struct Padded<'a>(&'a str, usize);

impl Display for Padded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<1$}", self.0, self.1)
    }
}

/// A bar from `before` on, `took` long, in the time of the whole.
struct Bar {
    before: Duration,
    took: Duration,
    whole: Duration,
}

impl Display for Bar {
    /// A begun cell is drawn in eighths; what took next to nothing is one eighth.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PARTS: [char; 8] = ['█', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
        let part = |time: Duration| {
            let whole = self.whole.as_nanos().max(1);
            let eighths = time.as_nanos() * u128::from(CELLS) * 8 / whole;
            u32::try_from(eighths).unwrap_or(u32::MAX).min(CELLS * 8)
        };
        let start = (part(self.before) / 8).min(CELLS - 1);
        let eighths = part(self.took).clamp(1, (CELLS - start) * 8);
        let cells = eighths.div_ceil(8);
        for _ in 0..start {
            write!(f, " ")?;
        }
        for _ in 1..cells {
            write!(f, "█")?;
        }
        write!(f, "{}", PARTS[(eighths % 8) as usize])?;
        for _ in start + cells..CELLS {
            write!(f, " ")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
