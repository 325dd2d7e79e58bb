//! Services and EndpointSlices of every kind, generated from a seed, who asks at them, and what becomes of the
//! packets: for rules that the real kube-proxy wrote, in a cluster or, in ipvs mode, for a guest.

pub(crate) mod cells;
pub(crate) mod objects;
pub(crate) mod packets;
pub(crate) mod world;

use std::collections::BTreeMap;

use self::cells::Cell;
use super::behaviours::BEHAVIOURS;
use super::foretold::contradicts;
use super::tally::Tally;

/// What the objects are drawn from.
pub(crate) const SEED: u64 = 1;

/// Fewest cases in each of kube-proxy's modes.
pub(crate) const LEAST: usize = 1000;

/// How the cases ended that did not end as foretold.
pub(crate) fn otherwise(cells: &[Cell], tallies: &[Tally]) -> Vec<String> {
    let all = cells.iter().zip(tallies);
    let wrong = all.filter(|(cell, tally)| {
        let shares = !cell.sticky || cell.has_many_clients();
        contradicts(&cell.foretold, tally, shares) || cell.sticky && tally.left() > 0
    });
    wrong
        .map(|(cell, tally)| {
            let Cell {
                service,
                asker,
                to,
                protocol,
                foretold,
                ..
            } = cell;
            format!(
                "{service} at {to} by {} from {asker:?}: foretold {foretold:?}, happened {tally:?}",
                protocol.name()
            )
        })
        .collect()
}

/// How even all spreads are together: Pearson's statistic of each case where chance decides, summed up.
pub(crate) struct Evenness {
    pub(crate) cases: usize,
    pub(crate) connections: u32,
    pub(crate) statistic: f64,
    pub(crate) freedom: f64,
}

impl Evenness {
    pub(crate) fn of(cells: &[Cell], tallies: &[Tally]) -> Self {
        let mut all = Self {
            cases: 0,
            connections: 0,
            statistic: 0.0,
            freedom: 0.0,
        };
        let counted = cells
            .iter()
            .zip(tallies)
            .filter(|(cell, _)| cell.is_random() && (!cell.sticky || cell.has_many_clients()));
        for (cell, tally) in counted {
            all.cases += 1;
            all.connections += tally.count();
            all.freedom += f64::from(u32::try_from(cell.foretold.len() - 1).expect("they are few"));
            for (fate, share) in &cell.foretold {
                let expected = share * f64::from(tally.count());
                let seen = tally.share(fate) * f64::from(tally.count());
                all.statistic += (seen - expected).powi(2) / expected;
            }
        }
        all
    }
}

/// Behaviours that every run is to show.
pub(crate) const WANTED: [u8; 21] = [
    2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 17, 18, 19, 20, 21, 24, 25, 26,
];

/// Cases for each behaviour.
pub(crate) fn covered(cells: &[Cell]) -> BTreeMap<u8, usize> {
    let mut covered = BTreeMap::new();
    for behaviour in cells.iter().flat_map(|cell| &cell.behaviours) {
        *covered.entry(*behaviour).or_insert(0) += 1;
    }
    covered
}

/// What the cases cover, a line for each behaviour.
pub(crate) fn lines(covered: &BTreeMap<u8, usize>) -> impl Iterator<Item = String> {
    BEHAVIOURS.into_iter().filter_map(|(number, what)| {
        let count = covered.get(&number)?;
        Some(format!("  {number} {what}: {count}"))
    })
}

/// No case is otherwise than foretold.
pub(crate) fn assert_foretold(wrong: &[String], cells: &[Cell]) {
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cells.len(),
        wrong.join("\n")
    );
}

/// Packets show each of these behaviours.
pub(crate) fn assert_covered(covered: &BTreeMap<u8, usize>, wanted: impl IntoIterator<Item = u8>) {
    for number in wanted {
        let count = covered.get(&number).copied().unwrap_or(0);
        assert!(count > 0, "behaviour {number} is not shown");
    }
}
