//! How far clocks are apart, and which rows are of one exchange.

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Crossing, Key};
use crate::model::{ClockOffset, WallNs};

/// How far apart what two nodes saw of one query may be, once their clocks agree.
const NEAR: i64 = 1_000_000_000;

/// A stretch of time over which one offset fits all that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    /// When it begins, by the node's own clock.
    begin: i64,
    /// The node's clock is ahead by that at least, and at most, in nanoseconds.
    low: i64,
    high: i64,
    exchanges: u64,
}

impl Stretch {
    fn middle(&self) -> i64 {
        self.low + (self.high - self.low) / 2
    }
}

/// What each of several nodes saw of queries between them.
#[derive(Debug, Default)]
pub struct Clocks {
    /// By node: queries sent, and queries taken, each with the session that has its row.
    seen: Vec<[Vec<(usize, Crossing)>; 2]>,
    /// By node: how far its clock is ahead of the first node's; void where that is not known.
    offsets: Vec<Vec<Stretch>>,
}

/// Rows of one exchange: that of the node that sent it on, and that of the node which took it; each by
/// session and number.
pub type Matches = FxHashMap<(usize, u64), (usize, u64)>;

impl Clocks {
    /// Of that many nodes, of which nothing was seen yet.
    pub fn new(nodes: usize) -> Self {
        Self {
            seen: vec![<_>::default(); nodes],
            offsets: vec![Vec::new(); nodes],
        }
    }

    /// Takes what `node` saw, in a row of `session`.
    pub fn add(
        &mut self,
        node: usize,
        session: usize,
        sent: Option<Crossing>,
        taken: Option<Crossing>,
    ) {
        if let Some([all_sent, all_taken]) = self.seen.get_mut(node) {
            all_sent.extend(sent.map(|crossing| (session, crossing)));
            all_taken.extend(taken.map(|crossing| (session, crossing)));
        }
    }

    /// Finds how far each clock is ahead of the first node's, straight or by way of others.
    pub fn compare(&mut self) {
        let Some(first) = self.offsets.first_mut() else {
            return;
        };
        *first = vec![Stretch {
            begin: i64::MIN,
            low: 0,
            high: 0,
            exchanges: 0,
        }];
        let mut known = vec![0];
        let mut at = 0;
        while let Some(&from) = known.get(at) {
            at += 1;
            for node in 0..self.seen.len() {
                if self.offsets[node].is_empty() {
                    let ahead = self.between(from, node);
                    let ahead = ahead.into_iter().map(|stretch| {
                        // The clock in between has its own offset, and its own doubt.
                        let by = self.stretch(from, stretch.begin.saturating_sub(stretch.middle()));
                        Stretch {
                            low: stretch.low + by.map_or(0, |by| by.low),
                            high: stretch.high + by.map_or(0, |by| by.high),
                            ..stretch
                        }
                    });
                    self.offsets[node] = ahead.collect();
                    if !self.offsets[node].is_empty() {
                        known.push(node);
                    }
                }
            }
        }
    }

    /// How far `node`'s clock is ahead of `from`'s, by queries each way.
    fn between(&self, from: usize, node: usize) -> Vec<Stretch> {
        let mut samples = Vec::new();
        for (out, back) in pairs(&self.seen[from][0], &self.seen[node][1]) {
            // When the taker's clock is ahead by x, it was x later there than here.
            let high = back.begin.0 - out.begin.0;
            let low = out.end.zip(back.end).map(|(out, back)| back.0 - out.0);
            samples.push((back.begin.0, low, high));
        }
        for (out, back) in pairs(&self.seen[node][0], &self.seen[from][1]) {
            let low = out.begin.0 - back.begin.0;
            let high = out.end.zip(back.end).map(|(out, back)| out.0 - back.0);
            samples.extend(high.map(|high| (out.begin.0, Some(low), high)));
        }
        samples.sort_unstable();
        let mut stretches: Vec<Stretch> = Vec::new();
        for (begin, low, high) in samples {
            let low = low.unwrap_or(i64::MIN);
            if let Some(last) = stretches.last_mut() {
                let both = (last.low.max(low), last.high.min(high));
                if both.0 <= both.1 {
                    (last.low, last.high) = both;
                    last.exchanges += 1;
                    continue;
                }
            }
            stretches.push(Stretch {
                begin,
                low,
                high,
                exchanges: 1,
            });
        }
        stretches.retain(|stretch| stretch.low != i64::MIN);
        stretches
    }

    fn stretch(&self, node: usize, wall: i64) -> Option<Stretch> {
        let all = self.offsets.get(node)?;
        let at = all.partition_point(|stretch| stretch.begin <= wall);
        all.get(at.saturating_sub(1)).copied()
    }

    /// The time of the first node when it was `wall` at `node`; the same where that is not known.
    pub fn common(&self, node: usize, wall: WallNs) -> WallNs {
        let ahead = self.stretch(node, wall.0).map_or(0, |by| by.middle());
        WallNs(wall.0.saturating_sub(ahead))
    }

    /// What is known of a node's clock, to be shown.
    pub fn offset(&self, node: usize, name: &str, reference: &str) -> ClockOffset {
        let all = &self.offsets[node];
        let middles = all.iter().map(Stretch::middle);
        let doubt = |stretch: &Stretch| (stretch.high - stretch.low + 1) / 2;
        let range = middles.clone().min().zip(middles.max());
        ClockOffset {
            node: name.into(),
            reference: reference.into(),
            ahead_ns: range,
            uncertainty_ns: all.iter().map(doubt).max(),
            exchanges: all.iter().map(|stretch| stretch.exchanges).sum(),
        }
    }

    /// Which rows are of one exchange.
    pub fn matches(&self) -> Matches {
        let mut taken: FxHashMap<Key, Vec<(i64, usize, usize, u64)>> = FxHashMap::default();
        for (node, [_, all]) in self.seen.iter().enumerate() {
            for (session, crossing) in all {
                let begin = self.common(node, crossing.begin).0;
                let of = taken.entry(crossing.key).or_default();
                of.push((begin, node, *session, crossing.serial));
            }
        }
        let mut matches = Matches::default();
        let mut used = FxHashSet::default();
        for (node, [all, _]) in self.seen.iter().enumerate() {
            for (session, crossing) in all {
                let begin = self.common(node, crossing.begin).0;
                let others = taken.get(&crossing.key).into_iter().flatten();
                let near = others
                    .filter(|(at, of, ..)| {
                        *of != node && !self.offsets[*of].is_empty() && (at - begin).abs() < NEAR
                    })
                    .filter(|(_, _, session, serial)| !used.contains(&(*session, *serial)))
                    .min_by_key(|(at, ..)| (at - begin).abs());
                if let Some((_, _, other, serial)) = near {
                    used.insert((*other, *serial));
                    matches.insert((*session, crossing.serial), (*other, *serial));
                }
            }
        }
        matches
    }
}

/// Queries that one node sent and another took, of those that are known by one key alone.
fn pairs<'a>(
    sent: &'a [(usize, Crossing)],
    taken: &'a [(usize, Crossing)],
) -> impl Iterator<Item = (&'a Crossing, &'a Crossing)> {
    let once = |all: &'a [(usize, Crossing)]| {
        let mut by_key: FxHashMap<Key, Option<&'a Crossing>> = FxHashMap::default();
        for (_, crossing) in all {
            let known = by_key.entry(crossing.key);
            known
                .and_modify(|one| *one = None)
                .or_insert(Some(crossing));
        }
        by_key
    };
    let (sent, taken) = (once(sent), once(taken));
    let both = sent.into_iter().filter_map(move |(key, sent)| {
        let taken = taken.get(&key).copied().flatten();
        Some((sent?, taken?))
    });
    // In no order else, which would be told.
    let sorted: BTreeMap<_, _> = both.map(|(a, b)| ((a.begin, a.serial), (a, b))).collect();
    sorted.into_values()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The query `id` that leaves at `left` and is back at `back`, in microseconds.
    fn crossing(id: u16, left: i64, back: Option<i64>) -> Crossing {
        Crossing {
            key: Key {
                client: "10.244.1.7:40000".parse().unwrap(),
                server: "10.244.2.9:53".parse().unwrap(),
                id,
                question: 7,
            },
            serial: u64::from(id),
            begin: WallNs(left * 1000),
            end: back.map(|back| WallNs(back * 1000)),
        }
    }

    #[test]
    fn an_offset_is_bounded_by_the_quickest_ways_and_rows_are_matched_by_it() {
        let mut clocks = Clocks::new(2);
        // The second clock is 5 s ahead; ways take 10 µs to 60 µs.
        clocks.add(0, 0, Some(crossing(1, 100, Some(300))), None);
        clocks.add(1, 1, None, Some(crossing(1, 5_000_110, Some(5_000_240))));
        clocks.add(0, 0, Some(crossing(2, 1000, Some(1200))), None);
        clocks.add(1, 1, None, Some(crossing(2, 5_001_050, Some(5_001_190))));
        // One that got no answer bounds it on one side.
        clocks.add(0, 0, Some(crossing(3, 2000, None)), None);
        clocks.add(1, 1, None, Some(crossing(3, 5_002_030, Some(5_002_100))));
        clocks.compare();
        let offset = clocks.offset(1, "n2", "n1");
        assert_eq!(offset.ahead_ns, Some((5_000_000_000, 5_000_000_000)));
        assert_eq!(offset.uncertainty_ns, Some(10_000));
        assert_eq!(offset.exchanges, 3);
        assert_eq!(clocks.common(1, WallNs(5_000_000_500)), WallNs(500));
        let matches = clocks.matches();
        assert_eq!(matches.len(), 3);
        assert_eq!(matches[&(0, 2)], (1, 2));
    }

    #[test]
    fn a_clock_that_was_set_has_two_offsets_and_one_of_which_nothing_is_known_none() {
        let mut clocks = Clocks::new(3);
        for (id, at, ahead) in [(1, 100, 5000), (2, 200, 5000), (3, 300, 900)] {
            clocks.add(0, 0, Some(crossing(id, at, Some(at + 40))), None);
            let (came, left) = (at + ahead + 10, at + ahead + 30);
            clocks.add(1, 1, None, Some(crossing(id, came, Some(left))));
        }
        clocks.compare();
        let offset = clocks.offset(1, "n2", "n1");
        assert_eq!(offset.ahead_ns, Some((900_000, 5_000_000)));
        assert_eq!(clocks.offset(2, "n3", "n1").ahead_ns, None);
        assert_eq!(clocks.common(2, WallNs(5)), WallNs(5));
    }
}
