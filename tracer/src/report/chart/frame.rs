//! What pictures have in common: the field that things are drawn in, axes with their units, ticks.

use std::time::Duration;

use super::picture::{Anchor, Ink, Picture, WIDTH};
use crate::{model::WallNs, report::whole::utc};

/// The field between the axes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Field {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) right: f64,
    pub(super) bottom: f64,
}

impl Field {
    /// The usual one of a picture as high as `height`.
    pub(super) fn of(height: f64) -> Self {
        Self {
            left: 72.0,
            top: 92.0,
            right: 780.0,
            bottom: height - 52.0,
        }
    }

    /// Where a part, 0 to 1, of the width lies.
    pub(super) fn x(&self, part: f64) -> f64 {
        self.left + (self.right - self.left) * part
    }

    /// Where a part, 0 to 1, of the height lies, 0 at the bottom.
    pub(super) fn y(&self, part: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * part
    }

    /// The line at the bottom, and what is measured along it.
    pub(super) fn base(&self, picture: &mut Picture, unit: &str) {
        picture.line(
            vec![(self.left, self.bottom), (self.right, self.bottom)],
            1,
            Ink::Dim,
        );
        picture.text(
            (self.right, self.bottom + 38.0),
            unit,
            Anchor::Right,
            Ink::Dim,
        );
    }

    /// A tick of the axis at the bottom.
    pub(super) fn tick_x(&self, picture: &mut Picture, part: f64, text: &str) {
        let x = self.x(part);
        picture.line(vec![(x, self.top), (x, self.bottom)], 1, Ink::Grid);
        picture.line(vec![(x, self.bottom), (x, self.bottom + 4.0)], 1, Ink::Dim);
        // The last one's name ends where the picture does.
        let half = 4.8 * f64::from(u32::try_from(text.chars().count()).unwrap_or(0));
        let (at, anchor) = if x + half > WIDTH - 2.0 {
            (WIDTH - 2.0, Anchor::Right)
        } else {
            (x, Anchor::Centre)
        };
        picture.text((at, self.bottom + 16.0), text, anchor, Ink::Dim);
    }

    /// A tick of the axis on the left.
    pub(super) fn tick_y(&self, picture: &mut Picture, part: f64, text: &str) {
        let y = self.y(part);
        picture.line(vec![(self.left, y), (self.right, y)], 1, Ink::Grid);
        picture.text((self.left - 8.0, y), text, Anchor::Right, Ink::Dim);
    }

    /// What is measured upwards.
    pub(super) fn upwards(&self, picture: &mut Picture, unit: &str) {
        picture.text((16.0, self.top - 18.0), unit, Anchor::Left, Ink::Dim);
    }

    /// The axis on the left for counts up to `most`; returns what is at its upper end.
    pub(super) fn counts(&self, picture: &mut Picture, most: f64) -> f64 {
        let step = nice_step(most.max(1.0) / 4.0);
        let end = (most.max(1.0) / step).ceil() * step;
        let mut at = 0.0;
        while at <= end + step / 2.0 {
            self.tick_y(picture, at / end, &count(at));
            at += step;
        }
        end
    }

    /// Words in the middle, where there is nothing to draw.
    pub(super) fn nothing(&self, picture: &mut Picture, why: &str) {
        let middle = (
            f64::midpoint(self.left, self.right),
            f64::midpoint(self.top, self.bottom),
        );
        picture.text(middle, why, Anchor::Centre, Ink::Dim);
    }
}

/// 1, 2 or 5 times a power of ten, at least 1, not below `rough`.
fn nice_step(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    let step = steps.into_iter().find(|step| *step >= rough * 0.999);
    step.unwrap_or(rough).max(1.0)
}

/// A count in few characters.
pub(super) fn count(count: f64) -> String {
    match count {
        count if count >= 1e6 => format!("{} M", round(count / 1e6)),
        count if count >= 1e4 => format!("{} k", round(count / 1e3)),
        count => round(count),
    }
}

fn round(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A duration as a tick is named: `10 µs`, `2.5 ms`.
pub(super) fn time(nanos: f64) -> String {
    match nanos {
        nanos if nanos >= 1e9 => format!("{} s", round(nanos / 1e9)),
        nanos if nanos >= 1e6 => format!("{} ms", round(nanos / 1e6)),
        nanos if nanos >= 1e3 => format!("{} µs", round(nanos / 1e3)),
        nanos => format!("{} ns", round(nanos)),
    }
}

/// Durations on a scale on which each ten times as long is as far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LogTimes {
    /// Powers of ten of the ends, in ns.
    low: f64,
    high: f64,
}

impl LogTimes {
    /// A scale of whole powers of ten that holds both.
    pub(super) fn holding(low: Duration, high: Duration) -> Self {
        let low = log(low).floor();
        Self {
            low,
            high: log(high).ceil().max(low + 1.0),
        }
    }

    /// With one more power of ten at its upper end.
    pub(super) fn wider(self) -> Self {
        Self {
            high: self.high + 1.0,
            ..self
        }
    }

    /// The powers of ten on the scale.
    pub(super) fn decades(&self) -> f64 {
        self.high - self.low
    }

    /// Where a time lies, 0 to 1.
    pub(super) fn part(&self, time: Duration) -> f64 {
        ((log(time) - self.low) / self.decades()).clamp(0.0, 1.0)
    }

    /// Where each power of ten lies, and its name.
    pub(super) fn ticks(&self) -> impl Iterator<Item = (f64, String)> {
        let Self { low, .. } = *self;
        let decades = self.decades();
        (0_u32..=100)
            .map(f64::from)
            .take_while(move |nth| *nth <= decades)
            .map(move |nth| (nth / decades, time(10_f64.powf(low + nth))))
    }
}

fn log(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e9).max(1.0).log10()
}

/// A stretch of time, from left to right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Stretch {
    pub(super) from: WallNs,
    pub(super) to: WallNs,
}

/// Steps between ticks, in ms.
const STEPS: &[i64] = &[
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000,
    900_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000, 43_200_000, 86_400_000,
];

impl Stretch {
    /// Where a moment lies, 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a part of a picture's width")]
    pub(super) fn part(&self, at: WallNs) -> f64 {
        let whole = (self.to.0 - self.from.0).max(1) as f64;
        ((at.0 - self.from.0) as f64 / whole).clamp(0.0, 1.0)
    }

    /// Draws its ticks.
    pub(super) fn ticks(&self, field: Field, picture: &mut Picture) {
        let length = (self.to.0 - self.from.0) / 1_000_000;
        let step = STEPS.iter().find(|step| length / **step <= 7);
        let step = step.copied().unwrap_or(length / 6).max(1) * 1_000_000;
        let mut at = self.from.0.div_euclid(step) * step;
        while at <= self.to.0 {
            if at >= self.from.0 {
                field.tick_x(picture, self.part(WallNs(at)), &clock(WallNs(at), step));
            }
            at += step;
        }
    }
}

/// As much of a moment's time of day as steps of that length need.
fn clock(at: WallNs, step: i64) -> String {
    let text = utc(at);
    match step {
        86_400_000_000_000.. => text[5..10].to_owned(),
        60_000_000_000.. => text[11..16].to_owned(),
        1_000_000_000.. => text[11..].to_owned(),
        _ => format!(
            "{}.{}",
            &text[11..],
            at.0.rem_euclid(1_000_000_000) / 100_000_000
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_between_ticks_are_round() {
        let check = |rough, expected: f64| assert!((nice_step(rough) - expected).abs() < 1e-9);
        check(0.3, 1.0);
        check(1.2, 2.0);
        check(30.0, 50.0);
        check(700.0, 1_000.0);
        check(100.0, 100.0);
    }

    #[test]
    fn counts_and_times_are_short() {
        assert_eq!(
            [0.0, 950.0, 20_000.0, 2_500_000.0].map(count),
            ["0", "950", "20 k", "2.5 M"]
        );
        assert_eq!(
            [1e3, 1e5, 2.5e6, 1e9].map(time),
            ["1 µs", "100 µs", "2.5 ms", "1 s"]
        );
    }

    #[test]
    fn a_scale_of_times_has_whole_powers_of_ten_and_at_least_one() {
        let micros = Duration::from_micros;
        let scale = LogTimes::holding(micros(20), micros(900));
        let ticks: Vec<_> = scale.ticks().map(|(_, name)| name).collect();
        assert_eq!(ticks, ["10 µs", "100 µs", "1 ms"]);
        let scale = LogTimes::holding(micros(100), micros(100));
        assert!((scale.decades() - 1.0).abs() < 1e-9);
    }
}
