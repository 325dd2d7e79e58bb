//! The names of the devices on rows' ways. Most rows go the way that others went just before, so ways are
//! remembered for a moment.

use std::{
    hash::{Hash as _, Hasher as _},
    sync::Arc,
};

use rustc_hash::{FxHashMap, FxHasher};
use smallvec::SmallVec;

use crate::model::{Ifindex, NetnsInode, Row, Site, journey::Point};

/// Most ways that are remembered.
const WAYS: usize = 1024;

type At = (NetnsInode, Ifindex);

/// A way, and its places by name.
type Known = (Box<[At]>, Arc<[Site]>);

/// Ways by their hash.
#[derive(Default)]
pub(super) struct Sites {
    ways: FxHashMap<u64, Known>,
}

impl Sites {
    /// The names of all places that `row` tells of, each once; `name` knows one. `None` where there is none.
    pub(super) fn of(
        &mut self,
        row: &Row,
        mut name: impl FnMut(At) -> Site,
    ) -> Option<Arc<[Site]>> {
        if row.journey().is_none() && row.stopped().is_none() {
            return None;
        }
        let way = way(row);
        let mut hasher = FxHasher::default();
        way.hash(&mut hasher);
        let hash = hasher.finish();
        if let Some((known, sites)) = self.ways.get(&hash)
            && **known == *way
        {
            return Some(Arc::clone(sites));
        }
        let each = way.iter().enumerate();
        let each = each.filter(|(index, at)| !way[..*index].contains(at));
        let sites: Arc<[Site]> = each.map(|(_, at)| name(*at)).collect();
        if self.ways.len() >= WAYS {
            self.forget();
        }
        self.ways
            .insert(hash, (way.into_boxed_slice(), Arc::clone(&sites)));
        Some(sites)
    }

    /// Names may be others from now on.
    pub(super) fn forget(&mut self) {
        self.ways.clear();
    }
}

/// The devices that a row tells of, in order.
fn way(row: &Row) -> SmallVec<[At; 24]> {
    let at = |point: Point| (point.netns, point.ifindex);
    let mut way = SmallVec::new();
    if let Some(journey) = row.journey() {
        way.push(at(journey.start));
        way.extend(journey.stages.iter().map(|stage| at(stage.end)));
        way.extend(journey.lost.map(at));
    }
    way.extend(row.stopped().map(|stopped| at(stopped.at)));
    way
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        KtimeNs,
        journey::{Flows, Journey, Leg, Passed, Side, Stage, Step, Unseen},
        trace::tests::answered,
    };

    fn through(devices: &[(u32, u32)]) -> Row {
        let mut row = answered(1, std::time::Duration::from_millis(1));
        let point = |(netns, ifindex): &(u32, u32)| Point {
            ktime: KtimeNs(1),
            netns: NetnsInode(*netns),
            ifindex: Ifindex(*ifindex),
            side: Side::Queued,
            flow: 0,
        };
        if let (Row::Dns(dns), Some((first, rest))) = (&mut row, devices.split_first()) {
            let step = Step {
                leg: Leg::Query,
                stage: Stage::Node,
            };
            let passed = |device| Passed {
                step,
                end: point(device),
            };
            dns.journey = Some(Box::new(Journey {
                start: point(first),
                stages: rest.iter().map(passed).collect(),
                unseen: Unseen::new(),
                flows: Flows::new(),
                lost: None,
                left_out: 0,
            }));
        }
        row
    }

    #[test]
    fn each_device_of_a_way_is_named_once_and_asked_for_once() {
        let mut asked = Vec::new();
        let mut sites = Sites::default();
        for way in [
            &[(1, 2), (3, 4), (1, 2)][..],
            &[(1, 2), (3, 4), (1, 2)],
            &[(1, 2)],
            &[],
        ] {
            let found = sites.of(&through(way), |(netns, ifindex)| {
                asked.push((netns.0, ifindex.0));
                Site {
                    netns,
                    ifindex,
                    name: netns.0.to_string().into(),
                    device: None,
                }
            });
            let found = found.iter().flat_map(|sites| sites.iter());
            let found: Vec<_> = found.map(|at| (at.netns.0, at.ifindex.0)).collect();
            let mut once = way.to_vec();
            once.truncate(2);
            assert_eq!(found, once);
        }
        assert_eq!(asked, [(1, 2), (3, 4), (1, 2)]);
    }
}
