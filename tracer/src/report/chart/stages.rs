//! Where exchanges spend their time: each stage begins where the one before it ends, once with what half
//! of them do not exceed, once with what 99 of 100 do not.

use std::time::Duration;

use super::{
    frame::time,
    histogram::under,
    picture::{Anchor, Ink, Picture},
};
use crate::{
    model::{
        journey::{Stage, Step},
        spread::Spread,
        steps::Steps,
        tally::{Kind, Tally},
    },
    report::{Whole, text::short, whole::step_name},
};

/// Height of a stage's line.
const LINE: f64 = 23.0;

const TOP: f64 = 112.0;

/// Room on the left for the names of stages.
const NAMES: f64 = 196.0;

/// The stages of one leg, in the order in which a packet passes them: from client to server, and back.
const THERE: &[Stage] = &[
    Stage::SentAgain,
    Stage::Client,
    Stage::ClientDevices,
    Stage::ClientLink,
    Stage::Node,
    Stage::Link,
    Stage::Wire,
    Stage::BackendLink,
    Stage::BackendDevices,
    Stage::BackendInput,
    Stage::BackendQueue,
];
const BACK: &[Stage] = &[
    Stage::Backend,
    Stage::Upstream,
    Stage::BackendDevices,
    Stage::BackendLink,
    Stage::Wire,
    Stage::Link,
    Stage::Node,
    Stage::ClientLink,
    Stage::ClientDevices,
    Stage::ClientInput,
    Stage::ClientQueue,
];

pub(super) fn picture(whole: &Whole<'_>, kind: Kind) -> Picture {
    let title = match kind {
        Kind::Dns => "Where do DNS queries spend their time?",
        Kind::Tcp => "Where do TCP connections spend their time?",
        Kind::Udp => "Where do UDP flows spend their time?",
    };
    let breakdown = whole.breakdown();
    let stages = breakdown.stages.get(&kind).into_iter();
    let mut stages: Vec<_> = stages.flat_map(Steps::iter).collect();
    stages.sort_by_key(|(step, _)| (step.leg, place(*step)));
    let lines = f64::from(u32::try_from(stages.len().max(4)).unwrap_or(u32::MAX));
    let height = TOP + lines * LINE + 56.0;
    let none = Tally::default();
    let tally = breakdown.kinds.get(&kind).unwrap_or(&none);
    let mut picture = Picture::new(title, &under(whole, kind, tally), height);
    if stages.is_empty() {
        let middle = (400.0, TOP + lines * LINE / 2.0);
        let why = "no stage was seen: they are told with --path";
        picture.text(middle, why, Anchor::Centre, Ink::Dim);
        return picture;
    }
    for (nth, (step, _)) in (0_u32..).zip(&stages) {
        let y = TOP + (f64::from(nth) + 0.5) * LINE;
        picture.text(
            (NAMES - 8.0, y),
            &step_name(*step),
            Anchor::Right,
            Ink::Text,
        );
    }
    panel(
        &mut picture,
        &stages,
        0.5,
        "half take at most (p50)",
        (NAMES, 490.0),
    );
    panel(
        &mut picture,
        &stages,
        0.99,
        "99 of 100 take at most (p99)",
        (500.0, 794.0),
    );
    legend(&mut picture, height);
    picture
}

fn place(step: Step) -> Option<usize> {
    let order = if step.leg.is_forward() { THERE } else { BACK };
    order.iter().position(|stage| *stage == step.stage)
}

/// Who has the time of a stage.
fn ink(stage: Stage) -> Ink {
    match stage {
        Stage::Client
        | Stage::ClientDevices
        | Stage::ClientLink
        | Stage::ClientInput
        | Stage::ClientQueue
        | Stage::SentAgain => Ink::Series(0),
        Stage::Node | Stage::Link | Stage::Wire => Ink::Series(3),
        Stage::BackendLink
        | Stage::BackendDevices
        | Stage::BackendInput
        | Stage::BackendQueue
        | Stage::Backend
        | Stage::Upstream => Ink::Series(2),
    }
}

fn panel(
    picture: &mut Picture,
    stages: &[(Step, &Spread)],
    quantile: f64,
    title: &str,
    (left, right): (f64, f64),
) {
    // What is left is for the last stage's time.
    let right = right - 66.0;
    let times: Vec<_> = stages
        .iter()
        .map(|(_, spread)| spread.quantile(quantile).unwrap_or_default())
        .collect();
    let whole: Duration = times.iter().sum();
    let bottom = TOP + f64::from(u32::try_from(stages.len()).unwrap_or(u32::MAX)) * LINE;
    picture.text((left, TOP - 38.0), title, Anchor::Left, Ink::Text);
    let sum = format!("stages together {}", short(whole));
    picture.text((left, TOP - 18.0), &sum, Anchor::Left, Ink::Dim);
    let scale = |time: Duration| {
        let part = time.as_secs_f64() / whole.as_secs_f64().max(1e-9);
        left + (right - left) * part
    };
    for quarter in [0_u32, 1, 2] {
        let at = whole * quarter / 2;
        let x = scale(at);
        picture.line(vec![(x, TOP - 4.0), (x, bottom)], 1, Ink::Grid);
        let anchor = [Anchor::Left, Anchor::Centre, Anchor::Right][quarter as usize];
        let name = if quarter == 0 {
            "0".to_owned()
        } else {
            time(round(at))
        };
        picture.text((x, bottom + 12.0), &name, anchor, Ink::Dim);
    }
    let mut begin = Duration::ZERO;
    for (nth, ((step, _), took)) in (0_u32..).zip(stages.iter().zip(times)) {
        let y = TOP + (f64::from(nth) + 0.5) * LINE;
        let (from, to) = (scale(begin), scale(begin + took));
        let to = to.max(from + 2.0);
        picture.rect((from, y - 7.0), (to, y + 7.0), ink(step.stage));
        let text = short(took).to_string();
        picture.text((to + 5.0, y), &text, Anchor::Left, Ink::Text);
        begin += took;
    }
}

/// A time in ns, to two digits: it names a tick.
fn round(time: Duration) -> f64 {
    let nanos = time.as_secs_f64() * 1e9;
    let power = 10_f64.powf(nanos.max(1.0).log10().floor() - 1.0);
    (nanos / power).round() * power
}

fn legend(picture: &mut Picture, height: f64) {
    let y = height - 16.0;
    let mut x = NAMES;
    for (stage, name) in [
        (Stage::Client, "client"),
        (Stage::Node, "node and wire"),
        (Stage::Backend, "backend"),
    ] {
        picture.rect((x, y - 6.0), (x + 12.0, y + 6.0), ink(stage));
        picture.text((x + 18.0, y), name, Anchor::Left, Ink::Dim);
        x += 36.0 + 8.0 * f64::from(u32::try_from(name.len()).unwrap_or(0));
    }
    picture.text(
        (780.0, y),
        "percentiles do not add up to the whole's",
        Anchor::Right,
        Ink::Dim,
    );
}
