//! `Worst`: the few exchanges that are worth looking at one by one.

use std::{collections::BTreeMap, time::Duration};

use super::{
    row::{Named, Row},
    tally::Kind,
};

/// Most exchanges of each kind that are kept for having taken longest.
const SLOWEST: usize = 8;

/// Most causes of failure of which an example is kept.
const EXAMPLES: usize = 16;

/// A row and the names that belong to it.
#[derive(Clone, Debug)]
pub struct Example {
    /// What happened.
    pub row: Row,
    /// To whom.
    pub named: Named,
}

/// The slowest exchanges, and one of each way to fail.
#[derive(Clone, Debug, Default)]
pub struct Worst {
    slowest: BTreeMap<Kind, Vec<Example>>,
    failed: BTreeMap<Box<str>, Example>,
}

impl Worst {
    /// Looks at a row; `cause` as [`super::cause::of`] tells it.
    pub(super) fn add(&mut self, row: &Row, named: &Named, cause: Option<&str>) {
        let example = || Example {
            row: row.clone(),
            named: named.clone(),
        };
        if let Some(cause) = cause {
            let room = self.failed.len() < EXAMPLES;
            match self.failed.get_mut(cause) {
                // One that shows the way is better.
                Some(known) if known.row.journey().is_none() && row.journey().is_some() => {
                    *known = example();
                }
                None if room => {
                    self.failed.insert(cause.into(), example());
                }
                Some(_) | None => {}
            }
        }
        let Some(latency) = row.latency() else { return };
        let slowest = self.slowest.entry(Kind::of(row)).or_default();
        // Equals in order of their coming. From the end, for nearly none is so slow.
        let slower = slowest.iter().rposition(|other| took(other) >= latency);
        let at = slower.map_or(0, |last| last + 1);
        if at < SLOWEST {
            slowest.truncate(SLOWEST - 1);
            slowest.insert(at, example());
        }
    }

    /// The slowest that came to a good end, slowest first.
    pub fn slowest(&self, kind: Kind) -> &[Example] {
        self.slowest.get(&kind).map_or(&[], Vec::as_slice)
    }

    /// An example for each cause of failure, in order of their words.
    pub fn failed(&self) -> impl Iterator<Item = (&str, &Example)> {
        self.failed
            .iter()
            .map(|(cause, example)| (&**cause, example))
    }
}

fn took(example: &Example) -> Duration {
    example.row.latency().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::trace::tests::answered;

    #[test]
    fn the_slowest_are_kept_slowest_first() {
        let mut worst = Worst::default();
        for millis in (1..=100).chain(50..=60) {
            worst.add(
                &answered(1, Duration::from_millis(millis)),
                &Named::default(),
                None,
            );
        }
        let kept: Vec<_> = worst
            .slowest(Kind::Dns)
            .iter()
            .map(|one| took(one).as_millis())
            .collect();
        assert_eq!(kept, [100, 99, 98, 97, 96, 95, 94, 93]);
        assert!(worst.slowest(Kind::Tcp).is_empty());
    }

    #[test]
    fn each_cause_has_one_example() {
        let mut worst = Worst::default();
        for nth in 0..100 {
            let cause = format!("unanswered: cause {}", nth % 3);
            worst.add(
                &answered(nth, Duration::ZERO),
                &Named::default(),
                Some(&cause),
            );
        }
        let serials: Vec<_> = worst.failed().map(|(_, one)| one.row.serial()).collect();
        assert_eq!(serials, [0, 1, 2]);
    }
}
