//! What failed, when and why: a column for each moment, its causes one upon the other.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use super::{
    frame::{Field, time},
    heatmap::{columns, span, stretch},
    picture::{Anchor, Ink, Picture, cut},
};
use crate::report::Whole;

/// Most columns that are drawn.
const COLUMNS: usize = 120;

/// Most causes that have a colour of their own.
const CAUSES: usize = 6;

pub(super) fn picture(whole: &Whole<'_>) -> Picture {
    let breakdown = whole.breakdown();
    let (columns, width) = columns(&breakdown.series, COLUMNS);
    let mut totals: BTreeMap<u8, u64> = BTreeMap::new();
    for (cause, count) in columns.iter().flat_map(|(_, column)| &column.causes) {
        *totals.entry(*cause).or_default() += u64::from(*count);
    }
    let mut causes: Vec<_> = totals.into_iter().collect();
    causes.sort_by_key(|(_, count)| Reverse(*count));
    let lines = causes.len().min(CAUSES + 1);
    let lines = f64::from(u32::try_from(lines).unwrap_or(u32::MAX));
    let height = 410.0 + lines * 20.0;
    let failed: u64 = causes.iter().map(|(_, count)| count).sum();
    let all: u64 = breakdown.kinds.values().map(|tally| tally.count).sum();
    let under = format!("{}, {failed} of {all} exchanges failed", whole.range());
    let mut picture = Picture::new("What failed, when, and why?", &under, height);
    let field = Field {
        bottom: 348.0,
        ..Field::of(height)
    };
    field.base(&mut picture, "time of day, UTC");
    if columns.is_empty() {
        field.nothing(&mut picture, "nothing was seen");
        return picture;
    }
    let stretch = stretch(&columns, width);
    let sums = columns
        .iter()
        .map(|(_, column)| column.causes.values().sum::<u32>());
    let most = sums.max().unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "a width in ns")]
    let each = time(Duration::from_nanos(width.unsigned_abs()).as_nanos() as f64);
    let end = field.counts(&mut picture, f64::from(most));
    field.upwards(&mut picture, &format!("failures in each {each}"));
    stretch.ticks(field, &mut picture);
    if failed == 0 {
        field.nothing(&mut picture, "nothing failed");
        return picture;
    }
    let ink = |cause: u8| {
        let nth = causes
            .iter()
            .position(|(of, _)| *of == cause)
            .unwrap_or(CAUSES);
        Ink::Series(COLOURS[nth.min(CAUSES)])
    };
    for (at, column) in &columns {
        let (from, to) = span(field, stretch, *at, width);
        let mut below = 0;
        for (cause, _) in &causes {
            let Some(count) = column.causes.get(cause) else {
                continue;
            };
            let (low, high) = (f64::from(below), f64::from(below + count));
            picture.rect(
                (from, field.y(high / end)),
                (to, field.y(low / end)),
                ink(*cause),
            );
            below += count;
        }
    }
    legend(&mut picture, whole, &causes);
    picture
}

/// The colours of the commonest causes, and that of all others.
const COLOURS: [usize; CAUSES + 1] = [1, 0, 3, 2, 4, 5, 6];

fn legend(picture: &mut Picture, whole: &Whole<'_>, causes: &[(u8, u64)]) {
    let mut y = 412.0;
    let mut line = |nth: usize, text: &str| {
        picture.rect((16.0, y - 6.0), (28.0, y + 6.0), Ink::Series(COLOURS[nth]));
        picture.text((34.0, y), &cut(text, 98), Anchor::Left, Ink::Text);
        y += 20.0;
    };
    for (nth, (cause, count)) in causes.iter().take(CAUSES).enumerate() {
        let words = whole.breakdown().series.causes().get(usize::from(*cause));
        line(nth, &format!("{count} {}", words.map_or("", |words| words)));
    }
    let others: u64 = causes.iter().skip(CAUSES).map(|(_, count)| count).sum();
    if others > 0 {
        line(CAUSES, &format!("{others} others"));
    }
}
