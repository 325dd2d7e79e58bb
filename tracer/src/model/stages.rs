//! `StageTotals`: what the journeys to one address add up to, stage by stage.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use super::{
    journey::{Journey, Step},
    spent::Spent,
    steps::Steps,
};

/// Times per stage, and where what failed was seen last.
#[derive(Debug, Default)]
pub struct StageTotals {
    times: Steps<Times>,
    /// Exchanges without a good end, by the last stage that was passed; `None` where the packet
    /// was seen at one place only.
    pub stopped: BTreeMap<Option<Step>, u64>,
}

/// The times of one stage: a histogram in ns, up to 10 minutes, each to within one percent.
#[derive(Debug)]
struct Times {
    sum: Duration,
    histogram: Histogram<u32>,
}

impl Default for Times {
    fn default() -> Self {
        let mut histogram = Histogram::new(2).expect("two digits are allowed");
        // A stage takes microseconds; room for more is made when it is needed.
        histogram.auto(true);
        Self {
            sum: Duration::ZERO,
            histogram,
        }
    }
}

/// One stage of all journeys to an address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StageTime {
    /// Which.
    pub step: Step,
    /// How many journeys passed it.
    pub count: u64,
    /// Its part, 0 to 1, of the time that all journeys took together.
    pub share: f64,
    /// What half of them do not exceed.
    pub p50: Duration,
    /// What 99 of 100 do not exceed.
    pub p99: Duration,
}

impl StageTotals {
    /// Adds what journeys spent.
    pub(super) fn add(&mut self, spent: &Spent) {
        /// Longer ones count as this long.
        const LONGEST: Duration = Duration::from_secs(600);
        for (step, _, times) in spent.steps() {
            let totals = self.times.of(step);
            for took in times {
                totals.sum += took;
                let nanos = u64::try_from(took.min(LONGEST).as_nanos()).unwrap_or(u64::MAX);
                // It grows to what is recorded, which has a limit.
                let _ = totals.histogram.record(nanos.max(1));
            }
        }
    }

    /// Adds a journey that came to no good end.
    pub(super) fn stop(&mut self, journey: &Journey) {
        *self.stopped.entry(journey.stopped_in()).or_default() += 1;
    }

    /// Stages by the time that was spent in them, most first.
    pub fn ranked(&self) -> Vec<StageTime> {
        // Stages leave no gap.
        let whole: Duration = self.times.iter().map(|(_, times)| times.sum).sum();
        let whole = whole.as_secs_f64();
        let mut ranked: Vec<_> = self
            .times
            .iter()
            .map(|(step, times)| {
                let at =
                    |quantile| Duration::from_nanos(times.histogram.value_at_quantile(quantile));
                StageTime {
                    step,
                    count: times.histogram.len(),
                    share: if whole > 0.0 {
                        times.sum.as_secs_f64() / whole
                    } else {
                        0.0
                    },
                    p50: at(0.5),
                    p99: at(0.99),
                }
            })
            .collect();
        ranked.sort_by(|a, b| b.share.total_cmp(&a.share));
        ranked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        KtimeNs, Named, NetnsInode, Row,
        ids::Ifindex,
        journey::{Flows, Leg, Passed, Point, Side, Stage, Unseen},
        spent::AllSpent,
        trace::tests::answered,
    };

    /// A query that is in the client's link for `link` ns and then in the node for `node`.
    fn journey(link: u64, node: u64) -> Journey {
        let point = |ktime| Point {
            ktime: KtimeNs(ktime),
            netns: NetnsInode(1),
            ifindex: Ifindex(1),
            side: Side::Queued,
            flow: 0,
        };
        let passed = |stage, ktime| Passed {
            step: Step {
                leg: Leg::Query,
                stage,
            },
            end: point(ktime),
        };
        Journey {
            start: point(0),
            stages: smallvec::smallvec![
                passed(Stage::ClientLink, link),
                passed(Stage::Node, link + node),
            ],
            unseen: Unseen::new(),
            flows: Flows::new(),
            lost: None,
            left_out: 0,
        }
    }

    #[test]
    fn stages_are_ranked_by_the_time_spent_in_them() {
        let mut totals = StageTotals::default();
        let mut all = AllSpent::default();
        let mut add = |journey: &Journey| {
            let mut row = answered(1, Duration::from_millis(1));
            if let Row::Dns(dns) = &mut row {
                dns.journey = Some(Box::new(journey.clone()));
            }
            all.add(&row, &Named::default());
        };
        for _ in 0..99 {
            add(&journey(1_000, 3_000));
        }
        let slow = journey(1_000, 903_000);
        add(&slow);
        totals.stop(&slow);
        let spent = all.take();
        assert_eq!(spent.len(), 1, "they went the same way");
        totals.add(&spent[0]);
        let ranked = totals.ranked();
        let [node, link] = &ranked[..] else {
            panic!("there are two stages: {ranked:?}");
        };
        assert_eq!(
            (node.step.stage, link.step.stage),
            (Stage::Node, Stage::ClientLink)
        );
        assert!((node.share - 0.923).abs() < 0.001, "{node:?}");
        assert!((node.share + link.share - 1.0).abs() < 1e-9, "{ranked:?}");
        let near = |duration: Duration, nanos: u64| {
            duration.abs_diff(Duration::from_nanos(nanos)) <= Duration::from_nanos(nanos / 100)
        };
        assert!(near(node.p50, 3_000) && near(node.p99, 3_000), "{node:?}");
        assert_eq!(totals.stopped.len(), 1);
        assert_eq!(totals.stopped[&Some(node.step)], 1);
    }

    #[test]
    fn nothing_has_no_stages() {
        assert_eq!(StageTotals::default().ranked(), []);
    }
}
