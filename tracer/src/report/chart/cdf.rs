//! What part of exchanges is answered within a time: the distribution, percentiles marked.

use super::{
    frame::{Field, LogTimes},
    histogram::{scale, under},
    picture::{Anchor, Ink, Picture, WIDTH},
};
use crate::{
    model::tally::{Kind, Tally},
    report::{Whole, text::short},
};

const HEIGHT: f64 = 430.0;

pub(super) fn picture(whole: &Whole<'_>, kind: Kind) -> Picture {
    let title = match kind {
        Kind::Dns => "What part of DNS queries is answered within a time?",
        Kind::Tcp => "What part of TCP connections is made within a time?",
        Kind::Udp => "What part of UDP flows is answered within a time?",
    };
    let none = Tally::default();
    let tally = whole.breakdown().kinds.get(&kind).unwrap_or(&none);
    let mut picture = Picture::new(title, &under(whole, kind, tally), HEIGHT);
    let field = Field::of(HEIGHT);
    field.base(&mut picture, "latency, logarithmic");
    if tally.latency.count() == 0 {
        field.nothing(&mut picture, "no answer was seen");
        return picture;
    }
    for percent in [0_u32, 25, 50, 75, 100] {
        let part = f64::from(percent) / 100.0;
        field.tick_y(&mut picture, part, &format!("{percent} %"));
    }
    field.upwards(&mut picture, "of those answered");
    let scale = scale(&tally.latency);
    for (part, name) in scale.ticks() {
        field.tick_x(&mut picture, part, &name);
    }
    let mut points = vec![(field.left, field.bottom)];
    let mut passed = 0;
    let whole = tally.latency.count();
    for bucket in tally.latency.buckets() {
        let before = crate::report::section::share(passed, whole);
        passed += u64::from(bucket.count);
        let after = crate::report::section::share(passed, whole);
        let end = bucket.high.min(tally.latency.max());
        points.push((field.x(scale.part(bucket.low)), field.y(before)));
        points.push((field.x(scale.part(end)), field.y(after)));
    }
    points.push((field.right, field.top));
    picture.line(points.clone(), 2, Ink::Series(0));
    marks(&mut picture, field, &points, scale, tally);
    picture
}

/// Room for the name of a percentile and its time.
const NAME: f64 = 116.0;

/// Percentiles as points on the line, their times beside them, under the line; where two would meet, the
/// higher one keeps its place, with the other's under it.
fn marks(
    picture: &mut Picture,
    field: Field,
    points: &[(f64, f64)],
    scale: LogTimes,
    tally: &Tally,
) {
    let mut lowest = field.top - 30.0;
    for (name, quantile) in [("p99.9", 0.999), ("p99", 0.99), ("p90", 0.9), ("p50", 0.5)] {
        let Some(time) = tally.at(quantile) else {
            continue;
        };
        let (x, y) = (field.x(scale.part(time)), field.y(quantile));
        picture.rect((x - 3.5, y - 3.5), (x + 3.5, y + 3.5), Ink::Series(1));
        let text = format!("{name} {}", short(time));
        let left = (x + 9.0).min(WIDTH - NAME);
        let beside = (y.max(height(points, left)) + 14.0).max(lowest + 18.0);
        lowest = beside;
        picture.text((left, beside), &text, Anchor::Left, Ink::Text);
    }
}

/// How high the line through `points` is at `x`, where it is lowest.
fn height(points: &[(f64, f64)], x: f64) -> f64 {
    let before = points.iter().take_while(|point| point.0 < x);
    before.last().map_or(0.0, |point| point.1)
}
