//! Text for people: one line a row, the finding marked; then the summary, losses last.

mod clocks;
mod drops;
mod lag;
mod line;
mod path;
mod section;
mod summary;
mod verified;
mod verify;

use std::{
    fmt::{self, Display},
    time::Duration,
};

pub(super) use self::{
    drops::{drops, drops_summary},
    lag::watched,
    line::row,
    path::{cut, place},
    section::{head, is_wordy, section, words},
    summary::{summary, unheard},
    verified::{mended, verified},
    verify::walk,
};

/// ANSI colours (ECMA-48, 8.3.117), or nothing.
#[derive(Clone, Copy)]
pub(super) struct Paint(pub(super) bool);

impl Paint {
    fn with(self, code: &'static str, text: impl Display) -> impl Display {
        fmt::from_fn(move |f| {
            if self.0 {
                write!(f, "\x1b[{code}m{text}\x1b[0m")
            } else {
                write!(f, "{text}")
            }
        })
    }
    pub(super) fn bad(self, text: impl Display) -> impl Display {
        self.with("31", text)
    }
    pub(super) fn dim(self, text: impl Display) -> impl Display {
        self.with("2", text)
    }
    pub(super) fn strong(self, text: impl Display) -> impl Display {
        self.with("1", text)
    }
}

/// A duration to three digits, in the unit that reads best.
pub(super) fn short(duration: Duration) -> impl Display {
    let nanos = duration.as_nanos();
    // Whole numbers: a float's decimals cost more than the rest of a line.
    fmt::from_fn(move |f| {
        let (one, unit) = match nanos {
            0..1_000_000 => (1_000, "µs"),
            1_000_000..1_000_000_000 => (1_000_000, "ms"),
            _ => (1_000_000_000, "s"),
        };
        let (digits, parts) = match nanos / one {
            0..10 => (2, 100),
            10..100 => (1, 10),
            _ => (0, 1),
        };
        let rounded = (nanos * parts + one / 2) / one;
        let (whole, part) = (rounded / parts, rounded % parts);
        if digits == 0 {
            write!(f, "{whole} {unit}")
        } else {
            write!(f, "{whole}.{part:0digits$} {unit}")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_to_three_digits() {
        let check = |nanos, expected: &str| {
            assert_eq!(short(Duration::from_nanos(nanos)).to_string(), expected);
        };
        check(900, "0.90 µs");
        check(45_600, "45.6 µs");
        check(999_400, "999 µs");
        check(4_987_000_000, "4.99 s");
        check(12_000_000, "12.0 ms");
        check(9_996, "10.00 µs");
    }
}
