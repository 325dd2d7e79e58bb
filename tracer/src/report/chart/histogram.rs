//! How long exchanges take: a histogram on a logarithmic axis, percentiles marked.

use super::{
    frame::{Field, LogTimes},
    picture::{Anchor, Ink, Picture, WIDTH},
};
use crate::{
    model::{
        spread::Spread,
        tally::{Kind, Tally},
    },
    report::{
        Whole,
        text::short,
        whole::{exchanges, words},
    },
};

/// Bars to each power of ten.
const BARS: u32 = 10;

const HEIGHT: f64 = 470.0;

pub(super) fn picture(whole: &Whole<'_>, kind: Kind) -> Picture {
    let title = match kind {
        Kind::Dns => "How long do DNS queries take?",
        Kind::Tcp => "How long does it take to connect over TCP?",
        Kind::Udp => "How long do UDP flows take until the first answer?",
    };
    let none = Tally::default();
    let tally = whole.breakdown().kinds.get(&kind).unwrap_or(&none);
    let mut picture = Picture::new(title, &under(whole, kind, tally), HEIGHT);
    let field = Field {
        top: 146.0,
        ..Field::of(HEIGHT)
    };
    field.base(&mut picture, "latency, logarithmic");
    if tally.latency.count() == 0 {
        field.nothing(&mut picture, "no answer was seen");
        return picture;
    }
    let scale = scale(&tally.latency);
    for (part, name) in scale.ticks() {
        field.tick_x(&mut picture, part, &name);
    }
    let counts = bars(&tally.latency, scale);
    let most = counts.iter().copied().max().unwrap_or(0);
    let unit = format!("{} in each bar, ten bars to a power of ten", words(kind).1);
    let end = field.counts(&mut picture, f64::from(most));
    picture.text((16.0, 70.0), &unit, Anchor::Left, Ink::Dim);
    let width = 1.0 / f64::from(u32::try_from(counts.len()).unwrap_or(u32::MAX));
    for (nth, count) in (0_u32..)
        .map(f64::from)
        .zip(counts)
        .filter(|(_, count)| *count > 0)
    {
        let (from, to) = (
            field.x(nth * width) + 0.5,
            field.x((nth + 1.0) * width) - 0.5,
        );
        // What is there is seen, however little it is.
        let top = field.y(f64::from(count) / end).min(field.bottom - 1.5);
        picture.rect((from, top), (to, field.bottom), Ink::Series(0));
    }
    marks(&mut picture, field, scale, tally);
    picture
}

/// The line under the title: when, how many, and how many of them have no latency.
pub(super) fn under(whole: &Whole<'_>, kind: Kind, tally: &Tally) -> String {
    let range = whole.range();
    let answered = tally.latency.count();
    let without = tally.count - answered.min(tally.count);
    let without = if without > 0 {
        format!(", {without} of them without an answer")
    } else {
        String::new()
    };
    format!("{range}, {}{without}", exchanges(kind, tally.count))
}

/// The scale that holds all times, with room on the right for the names of percentiles.
pub(super) fn scale(latency: &Spread) -> LogTimes {
    let shortest = latency.buckets().next().map(|bucket| bucket.low);
    let shortest = shortest.unwrap_or_default();
    let scale = LogTimes::holding(shortest, latency.max());
    let most = latency.quantile(0.9).unwrap_or_default();
    if scale.part(most) > 0.84 {
        scale.wider()
    } else {
        scale
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index of at most some hundred bars"
)]
fn bars(latency: &Spread, scale: LogTimes) -> Vec<u32> {
    let count = scale.decades() * f64::from(BARS);
    let mut bars = vec![0_u32; count.round() as usize];
    let last = bars.len() - 1;
    for bucket in latency.buckets() {
        let middle = scale.part((bucket.low + bucket.high) / 2);
        bars[((middle * count) as usize).min(last)] += bucket.count;
    }
    bars
}

/// Room for the name of a percentile and its time.
const NAME: f64 = 106.0;

/// Percentiles, as lines under their names, above the field: the lower one's higher up, so that no line
/// goes through a name.
fn marks(picture: &mut Picture, field: Field, scale: LogTimes, tally: &Tally) {
    let heights = [92.0, 110.0, 128.0];
    let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];
    for (y, (name, quantile)) in heights.into_iter().zip(quantiles) {
        let Some(time) = tally.at(quantile) else {
            continue;
        };
        let x = field.x(scale.part(time));
        let text = format!("{name} {}", short(time));
        let left = (x + 5.0).min(WIDTH - NAME);
        picture.text((left, y), &text, Anchor::Left, Ink::Text);
        let top = if left > x { y - 8.0 } else { y + 8.0 };
        picture.line(vec![(x, top), (x, field.bottom)], 1, Ink::Series(1));
    }
}
