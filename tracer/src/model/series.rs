//! `Series`: a trace over time, in columns that grow wider as it grows longer.

use std::{collections::BTreeMap, time::Duration};

use super::{ids::WallNs, row::Row, spread, tally::Kind};

/// Most columns; when there would be more, each two neighbours become one.
pub const COLUMNS: usize = 240;

/// Width of a column at first.
const NARROW: Duration = Duration::from_millis(100);

/// Most causes of failures that are told apart.
const CAUSES: usize = 12;

/// Latencies to a cell, in the buckets of a `Spread`: two cells to each doubling.
const BUCKETS: u32 = 8;

/// Exchanges by the time at which they began.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    width: i64,
    columns: BTreeMap<i64, Column>,
    /// Causes in the order in which they were first met; what is beyond counts as the last.
    causes: Vec<Box<str>>,
}

/// Exchanges that began within one column's time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Column {
    /// By kind, as in [`Kind::ALL`].
    pub count: [u32; 3],
    /// Of these, those without a good end.
    pub failed: [u32; 3],
    /// Latencies by kind, and by cell, see [`cell`].
    pub latency: [BTreeMap<u8, u32>; 3],
    /// Failures by cause, an index into [`Series::causes`].
    pub causes: BTreeMap<u8, u32>,
}

impl Column {
    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for kind in 0..3 {
            self.count[kind] += other.count[kind];
            self.failed[kind] += other.failed[kind];
            for (cell, count) in &other.latency[kind] {
                *self.latency[kind].entry(*cell).or_default() += count;
            }
        }
        for (cause, count) in &other.causes {
            *self.causes.entry(*cause).or_default() += count;
        }
    }
}

impl Default for Series {
    fn default() -> Self {
        Self {
            width: i64::try_from(NARROW.as_nanos()).expect("it is short"),
            columns: BTreeMap::new(),
            causes: Vec::new(),
        }
    }
}

impl Series {
    /// Adds a row; `cause` as [`super::cause::of`] tells it.
    pub(super) fn add(&mut self, row: &Row, cause: Option<&str>) {
        let cause = cause.map(|cause| self.cause(cause));
        let kind = Kind::of(row) as usize;
        let mut at = row.wall().0.div_euclid(self.width);
        while !self.has_room(at) {
            self.widen();
            at = row.wall().0.div_euclid(self.width);
        }
        let column = self.columns.entry(at).or_default();
        column.count[kind] += 1;
        column.failed[kind] += u32::from(!row.outcome().is_good());
        if let Some(latency) = row.latency() {
            *column.latency[kind].entry(cell(latency)).or_default() += 1;
        }
        if let Some(cause) = cause {
            *column.causes.entry(cause).or_default() += 1;
        }
    }

    fn cause(&mut self, cause: &str) -> u8 {
        let known = self.causes.iter().position(|known| **known == *cause);
        let index = known.unwrap_or_else(|| {
            match self.causes.len() {
                CAUSES => {}
                last if last == CAUSES - 1 => self.causes.push("others".into()),
                _ => self.causes.push(cause.into()),
            }
            self.causes.len() - 1
        });
        u8::try_from(index).expect("there are few")
    }

    fn has_room(&self, at: i64) -> bool {
        let first = self
            .columns
            .keys()
            .next()
            .map_or(at, |first| at.min(*first));
        let last = self
            .columns
            .keys()
            .next_back()
            .map_or(at, |last| at.max(*last));
        usize::try_from(last.saturating_sub(first)).is_ok_and(|span| span < COLUMNS)
    }

    fn widen(&mut self) {
        self.width = self.width.saturating_mul(2);
        for (at, column) in std::mem::take(&mut self.columns) {
            self.columns
                .entry(at.div_euclid(2))
                .or_default()
                .merge(&column);
        }
    }

    /// How long each column lasts.
    pub fn width(&self) -> Duration {
        Duration::from_nanos(self.width.unsigned_abs())
    }

    /// Causes of failures, as columns number them.
    pub fn causes(&self) -> &[Box<str>] {
        &self.causes
    }

    /// Columns in which anything began, with when they begin, in order of time.
    pub fn columns(&self) -> impl Iterator<Item = (WallNs, &Column)> {
        let columns = self.columns.iter();
        columns.map(|(at, column)| (WallNs(at.saturating_mul(self.width)), column))
    }
}

/// The cell that a latency falls into.
pub fn cell(latency: Duration) -> u8 {
    // A u64 doubles 64 times: there are not more than 128.
    u8::try_from(spread::bucket(latency) / BUCKETS).unwrap_or(u8::MAX)
}

/// Where a cell begins, and where the next one does.
pub fn cell_bounds(cell: u8) -> (Duration, Duration) {
    let at = |cell: u32| spread::bounds(cell * BUCKETS).0;
    (at(u32::from(cell)), at(u32::from(cell) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::trace::tests::answered;

    #[test]
    fn columns_stay_few_and_lose_nothing_however_long_it_goes_on() {
        let mut series = Series::default();
        for second in 0..5_000 {
            series.add(&answered(second, Duration::from_micros(187)), None);
        }
        assert!(series.columns().count() <= COLUMNS);
        let counted: u32 = series.columns().map(|(_, column)| column.count[0]).sum();
        assert_eq!(counted, 5_000);
        assert!(series.width() >= Duration::from_secs(5_000 / COLUMNS as u64));
    }

    #[test]
    fn order_of_rows_does_not_matter() {
        let rows: Vec<_> = (0..600)
            .map(|second| answered(second, Duration::from_millis(1)))
            .collect();
        let (mut forward, mut backward) = (Series::default(), Series::default());
        for row in &rows {
            forward.add(row, None);
        }
        for row in rows.iter().rev() {
            backward.add(row, None);
        }
        assert_eq!(forward, backward);
    }

    #[test]
    fn causes_beyond_the_most_are_counted_as_one() {
        let mut series = Series::default();
        for nth in 0..100 {
            series.add(&answered(1, Duration::ZERO), Some(&format!("cause {nth}")));
        }
        assert_eq!(series.causes().len(), CAUSES);
        assert_eq!(series.causes().last().map(|cause| &**cause), Some("others"));
        let counted: u32 = series
            .columns()
            .flat_map(|(_, column)| column.causes.values())
            .sum();
        assert_eq!(counted, 100);
    }

    #[test]
    fn a_cell_holds_the_latencies_between_its_bounds() {
        for micros in [1, 10, 187, 5_000_000] {
            let latency = Duration::from_micros(micros);
            let (low, high) = cell_bounds(cell(latency));
            assert!(low <= latency && latency < high);
        }
    }
}
