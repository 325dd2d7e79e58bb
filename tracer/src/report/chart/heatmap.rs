//! When exchanges were slow: latency over time, darker where there were more; under it, on the same
//! axis, how many there were and how many failed.

use super::{
    frame::{Field, LogTimes, Stretch, count},
    histogram::under,
    picture::{Anchor, Ink, Picture},
};
use crate::{
    model::{
        WallNs,
        series::{Column, Series, cell_bounds},
        tally::{Kind, Tally},
    },
    report::{Whole, whole::words},
};

const HEIGHT: f64 = 560.0;

/// Most columns that are drawn; more would be narrower than can be seen.
const COLUMNS: usize = 120;

pub(super) fn picture(whole: &Whole<'_>, kind: Kind) -> Picture {
    let title = match kind {
        Kind::Dns => "When were DNS queries slow?",
        Kind::Tcp => "When were TCP connections slow to be made?",
        Kind::Udp => "When were UDP flows slow to be answered?",
    };
    let none = Tally::default();
    let tally = whole.breakdown().kinds.get(&kind).unwrap_or(&none);
    let mut picture = Picture::new(title, &under(whole, kind, tally), HEIGHT);
    let upper = Field {
        bottom: 370.0,
        ..Field::of(HEIGHT)
    };
    let lower = Field {
        top: 420.0,
        ..Field::of(HEIGHT)
    };
    lower.base(&mut picture, "time of day, UTC");
    let (columns, width) = columns(&whole.breakdown().series, COLUMNS);
    if tally.count == 0 || columns.is_empty() {
        upper.nothing(&mut picture, "nothing was seen");
        return picture;
    }
    let stretch = stretch(&columns, width);
    heat(&mut picture, upper, stretch, &columns, width, kind);
    rates(&mut picture, lower, stretch, &columns, width, kind);
    picture
}

/// Columns of the series, so many neighbours taken together that at most `most` are left; and
/// how long each lasts, in ns.
pub(super) fn columns(series: &Series, most: usize) -> (Vec<(WallNs, Column)>, i64) {
    let mut width = i64::try_from(series.width().as_nanos()).unwrap_or(i64::MAX);
    let mut columns: Vec<_> = series
        .columns()
        .map(|(at, column)| (at, column.clone()))
        .collect();
    while let (Some((first, _)), Some((last, _))) = (columns.first(), columns.last())
        && (last.0 - first.0) / width >= i64::try_from(most).unwrap_or(i64::MAX)
    {
        width *= 2;
        let mut wider: Vec<(WallNs, Column)> = Vec::with_capacity(columns.len() / 2 + 1);
        for (at, column) in columns {
            let at = WallNs(at.0.div_euclid(width) * width);
            match wider.last_mut() {
                Some((last, known)) if *last == at => known.merge(&column),
                _ => wider.push((at, column)),
            }
        }
        columns = wider;
    }
    (columns, width)
}

/// From the first column's begin to the last one's end.
pub(super) fn stretch(columns: &[(WallNs, Column)], width: i64) -> Stretch {
    let first = columns.first().map_or(WallNs(0), |(at, _)| *at);
    let last = columns.last().map_or(WallNs(0), |(at, _)| *at);
    Stretch {
        from: first,
        to: WallNs(last.0 + width),
    }
}

fn heat(
    picture: &mut Picture,
    field: Field,
    stretch: Stretch,
    columns: &[(WallNs, Column)],
    width: i64,
    kind: Kind,
) {
    let cells = || {
        columns
            .iter()
            .flat_map(|(_, column)| &column.latency[kind as usize])
    };
    let lowest = cells().map(|(cell, _)| *cell).min();
    let highest = cells().map(|(cell, _)| *cell).max();
    let (Some(lowest), Some(highest)) = (lowest, highest) else {
        field.nothing(picture, "no answer was seen");
        return;
    };
    let most = cells().map(|(_, count)| *count).max().unwrap_or(1);
    let scale = LogTimes::holding(cell_bounds(lowest).0, cell_bounds(highest).1);
    for (part, name) in scale.ticks() {
        field.tick_y(picture, part, &name);
    }
    field.upwards(picture, "latency, logarithmic");
    for (at, column) in columns {
        let (from, to) = span(field, stretch, *at, width);
        for (cell, count) in &column.latency[kind as usize] {
            let (low, high) = cell_bounds(*cell);
            let (bottom, top) = (field.y(scale.part(low)), field.y(scale.part(high)));
            picture.rect((from, top), (to, bottom), Ink::Heat(warmth(*count, most)));
        }
    }
    legend(picture, field, most, kind);
}

/// From 0 to 8, by the power of the count.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is 0 to 8"
)]
fn warmth(count: u32, most: u32) -> usize {
    if most <= 1 {
        return 5;
    }
    let part = f64::from(count).ln() / f64::from(most).ln();
    (part * 8.0).round() as usize
}

fn legend(picture: &mut Picture, field: Field, most: u32, kind: Kind) {
    let y = field.top - 18.0;
    let (many, left) = (words(kind).1, field.right - 9.0 * 16.0 - 70.0);
    picture.text(
        (left - 8.0, y),
        &format!("{many} in a cell  1"),
        Anchor::Right,
        Ink::Dim,
    );
    for (nth, x) in (0..9).zip((0_u32..).map(|nth| left + f64::from(nth) * 16.0)) {
        picture.rect((x, y - 6.0), (x + 16.0, y + 6.0), Ink::Heat(nth));
    }
    let end = left + 9.0 * 16.0 + 8.0;
    picture.text((end, y), &count(f64::from(most)), Anchor::Left, Ink::Dim);
}

/// From where to where a column is drawn, at least a pixel.
pub(super) fn span(field: Field, stretch: Stretch, at: WallNs, width: i64) -> (f64, f64) {
    let from = field.x(stretch.part(at));
    let to = field.x(stretch.part(WallNs(at.0 + width)));
    (from, to.max(from + 1.0))
}

fn rates(
    picture: &mut Picture,
    field: Field,
    stretch: Stretch,
    columns: &[(WallNs, Column)],
    width: i64,
    kind: Kind,
) {
    #[expect(clippy::cast_precision_loss, reason = "a width in ns")]
    let seconds = width as f64 / 1e9;
    let rate = |count: u32| f64::from(count) / seconds;
    let counts = columns
        .iter()
        .map(|(_, column)| column.count[kind as usize]);
    let most = rate(counts.max().unwrap_or(0));
    let end = field.counts(picture, most);
    field.upwards(picture, &format!("{} each second", words(kind).1));
    stretch.ticks(field, picture);
    // Where nothing began the line is at the bottom.
    let mut points = Vec::with_capacity(columns.len() * 4);
    let mut ended = stretch.from;
    for (at, column) in columns {
        let (from, to) = span(field, stretch, *at, width);
        if *at > ended {
            points.push((field.x(stretch.part(ended)), field.bottom));
            points.push((from, field.bottom));
        }
        ended = WallNs(at.0 + width);
        let y = field.y(rate(column.count[kind as usize]) / end);
        points.extend([(from, y), (to, y)]);
        let failed = column.failed[kind as usize];
        if failed > 0 {
            let top = field.y(rate(failed) / end).min(field.bottom - 1.5);
            picture.rect((from, top), (to, field.bottom), Ink::Series(1));
        }
    }
    picture.line(points, 2, Ink::Series(0));
    let y = field.top - 18.0;
    let all = field.right - 150.0;
    picture.rect((all - 18.0, y - 1.0), (all - 4.0, y + 1.0), Ink::Series(0));
    picture.text((all, y), "all", Anchor::Left, Ink::Dim);
    let failed = field.right - 76.0;
    picture.rect(
        (failed - 18.0, y - 6.0),
        (failed - 4.0, y + 6.0),
        Ink::Series(1),
    );
    picture.text((failed, y), "failed", Anchor::Left, Ink::Dim);
}
