//! `AllSpent`: where the time of journeys goes, summed up by the way that they went. Of the rows that come at once
//! most go the way of others, so that whom and where a way is about is looked up once for all of them.

use std::{
    hash::{Hash as _, Hasher as _},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustc_hash::{FxHashMap, FxHasher};
use smallvec::SmallVec;

use super::{
    ids::{Ifindex, NetnsInode},
    journey::{Journey, Point, Stage, Step, Unseen},
    pod::{Pod, PodName},
    row::{Named, Protocol, Row},
    tally::{Kind, Who},
};

/// The steps of a way; all but the longest need no memory of their own.
type PerStep<T> = SmallVec<[T; 16]>;

/// What journeys spent, by their way.
#[derive(Debug, Default)]
pub(super) struct AllSpent {
    by_hash: FxHashMap<u64, usize>,
    ways: Vec<Spent>,
}

impl AllSpent {
    /// Adds the journey of a row, if it has one.
    pub(super) fn add(&mut self, row: &Row, named: &Named) {
        let Some(journey) = row.journey() else { return };
        let hash = hash(row, journey);
        let known = self.by_hash.get(&hash).copied();
        let known = known.filter(|index| self.ways[*index].is_of(row, named, journey));
        let index = known.unwrap_or_else(|| {
            self.ways.push(Spent::new(row, named, journey));
            let index = self.ways.len() - 1;
            self.by_hash.insert(hash, index);
            index
        });
        self.ways[index].add(journey);
    }

    /// All of it; then there is none.
    pub(super) fn take(&mut self) -> Vec<Spent> {
        self.by_hash.clear();
        std::mem::take(&mut self.ways)
    }
}

/// What distinguishes ways, but for names.
fn hash(row: &Row, journey: &Journey) -> u64 {
    let mut hasher = FxHasher::default();
    row.client().address.ip().hash(&mut hasher);
    row.asked().hash(&mut hasher);
    row.backend().hash(&mut hasher);
    for passed in &journey.stages {
        let Step { leg, stage } = passed.step;
        hasher.write_u32(passed.end.netns.0);
        hasher.write_u64(u64::from(passed.end.ifindex.0) << 16 | (leg as u64) << 8 | stage as u64);
    }
    hasher.finish()
}

/// What journeys spent that went the same way: same ends, same stages through the same devices.
#[derive(Debug)]
pub(super) struct Spent {
    pub(super) kind: Kind,
    pub(super) protocol: Protocol,
    pub(super) asked: SocketAddr,
    /// Stages that nobody could see apart.
    pub(super) unseen: Unseen,
    backend: Option<SocketAddr>,
    client: IpAddr,
    netns: Option<Arc<str>>,
    pod: Option<Arc<Pod>>,
    backend_pod: Option<Arc<Pod>>,
    start: At,
    /// Each stage, where it ends, and its index in `steps`.
    stages: PerStep<(Step, At, u8)>,
    /// Each step once, and who or where spends it.
    steps: PerStep<(Step, Option<Who>)>,
    /// Of each journey the time spent in each step.
    times: Vec<Duration>,
}

impl Spent {
    fn new(row: &Row, named: &Named, journey: &Journey) -> Self {
        let mut steps = PerStep::<(Step, Option<Who>)>::new();
        let mut stages = PerStep::new();
        let backend = Who::backend(row, named);
        for (step, begin, end) in journey.spans() {
            // What a server asks of others parts its own time in two.
            let known = steps.iter().position(|(known, _)| *known == step);
            let index = known.unwrap_or_else(|| {
                let who = match place(step, (begin, end), named, &backend) {
                    None => None,
                    Some(Place::Client) => Some(Who::client(row, named)),
                    Some(Place::Backend) => Some(backend.clone()),
                    Some(Place::Netns(name)) => Some(Who::Netns(Arc::clone(name))),
                };
                steps.push((step, who));
                steps.len() - 1
            });
            let index = u8::try_from(index).expect("there are fewer steps than that");
            stages.push((step, at(end), index));
        }
        Self {
            kind: Kind::of(row),
            protocol: row.protocol(),
            asked: row.asked(),
            unseen: journey.unseen.clone(),
            backend: row.backend(),
            client: row.client().address.ip(),
            netns: named.netns.clone(),
            pod: pod(named.pod.as_ref()).cloned(),
            backend_pod: pod(named.backend.as_ref()).cloned(),
            start: at(journey.start),
            stages,
            steps,
            times: Vec::new(),
        }
    }

    fn is_of(&self, row: &Row, named: &Named, journey: &Journey) -> bool {
        let ends = (row.asked(), row.backend(), row.client().address.ip());
        (self.asked, self.backend, self.client) == ends
            && (self.kind, self.protocol) == (Kind::of(row), row.protocol())
            && is_same(self.netns.as_ref(), named.netns.as_ref())
            && is_same(self.pod.as_ref(), pod(named.pod.as_ref()))
            && is_same(self.backend_pod.as_ref(), pod(named.backend.as_ref()))
            && self.start == at(journey.start)
            && self.stages.len() == journey.stages.len()
            && self
                .stages
                .iter()
                .zip(&journey.stages)
                .all(|((step, place, _), passed)| *step == passed.step && *place == at(passed.end))
            && self.unseen == journey.unseen
    }

    fn add(&mut self, journey: &Journey) {
        let first = self.times.len();
        self.times.resize(first + self.steps.len(), Duration::ZERO);
        let mut begin = journey.start.ktime;
        for ((_, _, index), passed) in self.stages.iter().zip(&journey.stages) {
            self.times[first + usize::from(*index)] += passed.end.ktime - begin;
            begin = passed.end.ktime;
        }
    }

    /// How many journeys there were.
    pub(super) fn count(&self) -> usize {
        self.times.len().checked_div(self.steps.len()).unwrap_or(0)
    }

    /// Each step once, with who or where spends it and the time that it took in each journey; nobody where the
    /// namespace's name was not looked up.
    pub(super) fn steps(
        &self,
    ) -> impl Iterator<Item = (Step, Option<&Who>, impl Iterator<Item = Duration>)> {
        let steps = self.steps.iter().enumerate();
        steps.map(|(index, (step, who))| {
            let times = self.times.iter().skip(index).step_by(self.steps.len());
            (*step, who.as_ref(), times.copied())
        })
    }
}

/// A device of a namespace.
type At = (NetnsInode, Ifindex);

fn at(point: Point) -> At {
    (point.netns, point.ifindex)
}

fn pod(name: Option<&PodName>) -> Option<&Arc<Pod>> {
    name.map(|name| &name.pod)
}

/// Whether both are the same one; what only looks like it makes a way of its own.
fn is_same<T: ?Sized>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

/// Where the time of a stage is spent.
enum Place<'a> {
    Client,
    Backend,
    Netns(&'a Arc<str>),
}

/// Where time was spent; `None` where the namespace's name was not looked up. A backend of no known pod goes
/// by its namespace.
fn place<'a>(
    step: Step,
    (begin, end): (Point, Point),
    named: &'a Named,
    backend: &Who,
) -> Option<Place<'a>> {
    let netns = |point: Point| {
        let site = named.site(point.netns, point.ifindex);
        site.map(|site| Place::Netns(&site.name))
    };
    match step.stage {
        Stage::SentAgain
        | Stage::Client
        | Stage::ClientDevices
        | Stage::ClientLink
        | Stage::ClientInput
        | Stage::ClientQueue => Some(Place::Client),
        Stage::BackendLink
        | Stage::BackendDevices
        | Stage::BackendInput
        | Stage::BackendQueue
        | Stage::Backend
        | Stage::Upstream => {
            let there = if step.leg.is_forward() { end } else { begin };
            let by_name = match backend {
                Who::Address(_) => netns(there),
                Who::Pod { .. } | Who::Netns(_) => None,
            };
            Some(by_name.unwrap_or(Place::Backend))
        }
        Stage::Node | Stage::Link | Stage::Wire => netns(begin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        KtimeNs, Site,
        journey::{Flows, Leg, Passed, Side},
        trace::tests::answered,
    };

    const fn step(leg: Leg, stage: Stage) -> Step {
        Step { leg, stage }
    }

    const LINK: Step = step(Leg::Query, Stage::ClientLink);
    const NODE: Step = step(Leg::Query, Stage::Node);
    const BACKEND: Step = step(Leg::Answer, Stage::Backend);

    /// A query that spent so many ns in each step, through devices 1, 2, 3 …
    fn row(steps: &[(Step, u64)]) -> Row {
        let point = |ktime, ifindex: usize| Point {
            ktime: KtimeNs(ktime),
            netns: NetnsInode(1),
            ifindex: Ifindex(u32::try_from(ifindex).unwrap()),
            side: Side::Queued,
            flow: 0,
        };
        let mut now = 1_000;
        let passed = |(index, (step, took)): (usize, &(Step, u64))| {
            now += took;
            Passed {
                step: *step,
                end: point(now, index + 2),
            }
        };
        let mut row = answered(1, Duration::from_millis(1));
        if let Row::Dns(dns) = &mut row {
            dns.journey = Some(Box::new(Journey {
                start: point(1_000, 1),
                stages: steps.iter().enumerate().map(passed).collect(),
                unseen: Unseen::new(),
                flows: Flows::new(),
                lost: None,
                left_out: 0,
            }));
        }
        row
    }

    fn told(spent: &Spent) -> Vec<(Step, Option<String>, Vec<u128>)> {
        let steps = spent.steps().map(|(step, who, times)| {
            let times = times.map(|took| took.as_nanos());
            (step, who.map(ToString::to_string), times.collect())
        });
        steps.collect()
    }

    #[test]
    fn journeys_that_go_the_same_way_are_told_together() {
        let mut all = AllSpent::default();
        for took in [5, 6] {
            all.add(&row(&[(LINK, took), (NODE, 70)]), &Named::default());
        }
        all.add(&row(&[(LINK, 5)]), &Named::default());
        all.add(&answered(2, Duration::ZERO), &Named::default());
        let spent = all.take();
        let [both, shorter] = &spent[..] else {
            panic!("there are two ways: {spent:?}");
        };
        let client = Some("192.0.2.1".to_owned());
        assert_eq!(
            told(both),
            [
                (LINK, client.clone(), vec![5, 6]),
                (NODE, None, vec![70, 70])
            ]
        );
        assert_eq!(told(shorter), [(LINK, client, vec![5])]);
        assert_eq!((both.count(), shorter.count()), (2, 1));
        assert!(all.take().is_empty());
    }

    #[test]
    fn pieces_of_a_step_are_one_time() {
        let mut all = AllSpent::default();
        let upstream = step(Leg::Answer, Stage::Upstream);
        let steps = [(BACKEND, 10), (upstream, 200), (BACKEND, 3)];
        all.add(&row(&steps), &Named::default());
        let [spent] = &all.take()[..] else {
            panic!("there is one way");
        };
        let backend = Some("10.96.0.10".to_owned());
        assert_eq!(
            told(spent),
            [
                (BACKEND, backend.clone(), vec![13]),
                (upstream, backend, vec![200])
            ]
        );
    }

    #[test]
    fn a_client_by_another_name_goes_another_way_and_a_node_is_told_by_its_namespace() {
        let named = |name: &str| Named {
            netns: Some(name.into()),
            sites: Some(
                [Site {
                    netns: NetnsInode(1),
                    ifindex: Ifindex(2),
                    name: "node".into(),
                    device: None,
                }]
                .into(),
            ),
            ..Named::default()
        };
        let mut all = AllSpent::default();
        for name in ["one", "other"] {
            all.add(&row(&[(LINK, 5), (NODE, 70)]), &named(name));
        }
        let spent = all.take();
        assert_eq!(spent.len(), 2);
        let other = told(&spent[1]);
        assert_eq!(other[0].1.as_deref(), Some("other"));
        assert_eq!(other[1].1.as_deref(), Some("node"));
    }
}
