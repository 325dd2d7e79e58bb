//! `Spread`: how times are spread, for keeping by the thousand: a histogram of some hundred bytes,
//! each time to within three percent.

use std::time::Duration;

/// Parts that each doubling of the time is cut into.
const PARTS: u32 = 16;

/// Times by bucket, with their count, sum and longest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Number of the first bucket kept.
    first: u32,
    /// Counts of the buckets from there on.
    buckets: Vec<u32>,
    count: u64,
    sum: Duration,
    max: Duration,
}

/// One bucket: times from `low`, inclusive, to `high`, exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Shortest time in it.
    pub low: Duration,
    /// Shortest time beyond it.
    pub high: Duration,
    /// How many times fell into it.
    pub count: u32,
}

impl Spread {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        let at = bucket(time);
        if self.buckets.is_empty() {
            self.first = at;
        }
        if at < self.first {
            let more = (self.first - at) as usize;
            self.buckets.splice(0..0, std::iter::repeat_n(0, more));
            self.first = at;
        }
        let index = (at - self.first) as usize;
        if index >= self.buckets.len() {
            self.buckets.resize(index + 1, 0);
        }
        self.buckets[index] = self.buckets[index].saturating_add(1);
        self.count += 1;
        self.sum += time;
        self.max = self.max.max(time);
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (at, &count) in (other.first..).zip(&other.buckets) {
            if count > 0 {
                // One of that bucket makes room for the rest.
                let (low, ..) = bounds(at);
                let (sum, max, total) = (self.sum, self.max, self.count);
                self.add(low);
                (self.sum, self.max, self.count) = (sum, max, total);
                let index = (at - self.first) as usize;
                self.buckets[index] = self.buckets[index].saturating_add(count - 1);
            }
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// How many were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The longest, exactly; zero when there are none.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The time that a `quantile` (0 to 1) of them does not exceed; `None` when there are none.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of times is far below 2^52, and not negative"
        )]
        let wanted = ((self.count as f64 * quantile).ceil() as u64).clamp(1, self.count);
        if wanted == self.count {
            return Some(self.max);
        }
        let mut passed = 0;
        for bucket in self.buckets() {
            passed += u64::from(bucket.count);
            if passed >= wanted {
                return Some(((bucket.low + bucket.high) / 2).min(self.max));
            }
        }
        Some(self.max)
    }

    /// Buckets that are not empty, shortest times first.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> {
        let buckets = (self.first..).zip(&self.buckets);
        buckets
            .filter(|(_, count)| **count > 0)
            .map(|(at, &count)| {
                let (low, high) = bounds(at);
                Bucket { low, high, count }
            })
    }
}

/// The number of the bucket that `time` falls into: exact below 16 ns, then 16 to a doubling.
pub(super) fn bucket(time: Duration) -> u32 {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    if nanos < u64::from(PARTS) {
        return u32::try_from(nanos).expect("it is below 16");
    }
    let octave = nanos.ilog2();
    let part = (nanos >> (octave - 4)) & u64::from(PARTS - 1);
    (octave - 3) * PARTS + u32::try_from(part).expect("it is below 16")
}

/// Where a bucket begins, and where the next one does.
pub(super) fn bounds(at: u32) -> (Duration, Duration) {
    let low = |at: u32| {
        if at < PARTS {
            return u64::from(at);
        }
        let (octave, part) = (at / PARTS + 3, at % PARTS);
        // Beyond the last bucket lies what a u64 cannot hold.
        u64::from(PARTS + part)
            .checked_shl(octave - 4)
            .unwrap_or(u64::MAX)
    };
    (
        Duration::from_nanos(low(at)),
        Duration::from_nanos(low(at + 1)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(micros: impl IntoIterator<Item = u64>) -> Spread {
        let mut spread = Spread::default();
        for micros in micros {
            spread.add(Duration::from_micros(micros));
        }
        spread
    }

    #[test]
    fn every_time_lies_within_its_bucket_and_the_bucket_is_narrow() {
        for nanos in [
            0,
            1,
            15,
            16,
            17,
            1_000,
            65_535,
            65_536,
            5_000_000_000,
            u64::MAX / 2,
        ] {
            let time = Duration::from_nanos(nanos);
            let (low, high) = bounds(bucket(time));
            assert!(low <= time && time < high, "{time:?} in {low:?}..{high:?}");
            assert!(high.as_nanos() - low.as_nanos() <= (low.as_nanos() / 16).max(1));
        }
    }

    #[test]
    fn quantiles_are_within_three_percent_and_the_longest_is_exact() {
        let spread = of((1..=1_000).rev());
        for (quantile, micros) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0)] {
            let got = spread.quantile(quantile).unwrap().as_secs_f64() * 1e6;
            assert!((got / micros - 1.0).abs() < 0.035, "{quantile}: {got}");
        }
        assert_eq!(spread.quantile(1.0), Some(Duration::from_millis(1)));
        assert_eq!(spread.sum(), Duration::from_micros(500_500));
    }

    #[test]
    fn one_time_is_every_quantile_and_none_is_none() {
        assert_eq!(of([187]).quantile(0.5), Some(Duration::from_micros(187)));
        assert_eq!(Spread::default().quantile(0.5), None);
    }

    #[test]
    fn merging_is_as_adding_all_to_one() {
        let mut merged = of([900, 5, 5]);
        merged.merge(&of([1, 5, 70_000]));
        merged.merge(&Spread::default());
        assert_eq!(merged, of([900, 5, 5, 1, 5, 70_000]));
    }
}
