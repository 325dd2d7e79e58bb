//! The one row that two nodes' rows of an exchange make.

use std::{collections::BTreeMap, sync::Arc};

use super::{is_back, is_outward};
use crate::model::{
    Connection, Delivery, Dns, Journey, KtimeNs, Named, NetnsInode, Outcome, Protocol, Row, Site,
    WallNs,
    journey::{Flows, Leg, Passed, Point, Side, Stage, Step},
    stopped::Stopped,
};

/// What turns another node's times, namespaces and addresses into those of the row that takes them.
struct Other<'a> {
    /// From its boot's clock to that of the row, by both rows' beginnings.
    shift: i64,
    /// Its node's name.
    node: &'a str,
    /// Its namespaces, under numbers that no kernel gives.
    netns: BTreeMap<NetnsInode, NetnsInode>,
    /// No point is before this.
    after: KtimeNs,
    /// Nor after this.
    before: KtimeNs,
}

impl Other<'_> {
    fn ktime(&self, ktime: KtimeNs) -> KtimeNs {
        let at = ktime.0.wrapping_add_signed(self.shift);
        // Within what the clocks' offset leaves open, a packet comes no earlier than it left.
        KtimeNs(at).clamp(self.after, self.before)
    }

    fn netns(&mut self, netns: NetnsInode) -> NetnsInode {
        // Inodes of namespaces begin at PROC_DYNAMIC_FIRST, 0xf0000000 (include/linux/proc_ns.h).
        let next = u32::try_from(self.netns.len() + 1).unwrap_or(u32::MAX);
        *self.netns.entry(netns).or_insert(NetnsInode(next))
    }

    fn point(&mut self, point: Point, flows: &mut Flows, of: &Journey) -> Point {
        let flow = of.flow(point).map_or(0, |flow| {
            let known = flows.iter().position(|known| *known == flow);
            known.unwrap_or_else(|| {
                flows.push(flow);
                flows.len() - 1
            })
        });
        Point {
            ktime: self.ktime(point.ktime),
            netns: self.netns(point.netns),
            flow: u8::try_from(flow).unwrap_or(0),
            ..point
        }
    }

    /// Adds to `journey` the way to this node, and what came `there` of it.
    fn visit(&mut self, visit: &Visit<'_>, journey: &mut Journey, there: &Journey) {
        let Journey { stages, flows, .. } = journey;
        let (leg, stage) = (visit.leg, Stage::Wire);
        stages.push(Passed {
            step: Step { leg, stage },
            end: self.point(visit.start, flows, there),
        });
        for passed in visit.stages {
            let end = self.point(passed.end, flows, there);
            stages.push(Passed { end, ..*passed });
        }
    }

    fn delivery(&self, delivery: Delivery) -> Delivery {
        match delivery {
            Delivery::Unseen => Delivery::Unseen,
            Delivery::Queued { at, waits } => Delivery::Queued {
                at: self.ktime(at),
                waits,
            },
            Delivery::Read { queued, at, by } => Delivery::Read {
                queued: self.ktime(queued),
                at: self.ktime(at),
                by,
            },
        }
    }
}

/// What of a row another node's row changes.
struct Told<'a> {
    outcome: &'a mut Outcome,
    cause: &'a mut Option<String>,
    stopped: &'a mut Option<Stopped>,
}

impl<'a> Told<'a> {
    fn of(row: &'a mut Row) -> (&'a mut Option<Box<Journey>>, Self) {
        match row {
            Row::Dns(Dns {
                journey,
                outcome,
                cause,
                stopped,
                ..
            })
            | Row::Connection(Connection {
                journey,
                outcome,
                cause,
                stopped,
                ..
            }) => {
                let told = Self {
                    outcome,
                    cause,
                    stopped,
                };
                (journey, told)
            }
        }
    }
}

/// Makes one row of `row`, whose packets another node took, and of what that `node` has of it. `ahead` is by how
/// much that node's wall clock is ahead.
pub fn merge(
    row: &mut Row,
    named: &mut Named,
    other: &Row,
    other_named: &Named,
    node: &str,
    ahead: i64,
) {
    let mut translated = Other {
        shift: shift(row, other, ahead),
        node,
        netns: BTreeMap::new(),
        after: KtimeNs(0),
        before: KtimeNs(u64::MAX),
    };
    let (journey, mut told) = Told::of(row);
    let (Some(journey), Some(there)) = (journey.as_deref_mut(), other.journey()) else {
        return;
    };
    let last = weave(journey, there, first_leg(other), &mut translated);
    if let Some(last) = last.filter(|_| !told.outcome.is_good()) {
        failed(&mut told, other, last, &mut translated);
    }
    if let (Row::Dns(dns), Row::Dns(theirs)) = (row, other) {
        dns.ends.query = translated.delivery(theirs.ends.query);
        dns.ends.answered = theirs.ends.answered.map(|at| translated.ktime(at));
        dns.upstream = dns.upstream.take().or_else(|| theirs.upstream.clone());
    }
    let sites = other_named.sites().iter().map(|site| Site {
        netns: translated.netns(site.netns),
        name: format!("{node}/{}", site.name).into(),
        ..site.clone()
    });
    named.sites = Some(named.sites().iter().cloned().chain(sites).collect());
    named.backend = named.backend.take().or_else(|| {
        let theirs = other_named.backend.clone();
        theirs.or_else(|| other_named.asked.pod.clone())
    });
    named.backend_node.get_or_insert_with(|| Arc::from(node));
}

/// What a node did from the coming of a packet to the leaving of its answer.
struct Visit<'a> {
    /// The packet that came.
    leg: Leg,
    start: Point,
    stages: &'a [Passed],
}

/// The visits of a journey that begins with the coming of `first`.
fn visits(there: &Journey, first: Leg) -> Vec<Visit<'_>> {
    let mut visits = Vec::new();
    let (mut leg, mut start, mut rest) = (first, there.start, &there.stages[..]);
    loop {
        let len = rest.iter().position(|passed| is_back(passed.step));
        let (stages, later) = rest.split_at(len.unwrap_or(rest.len()));
        visits.push(Visit { leg, start, stages });
        let Some((back, later)) = later.split_first() else {
            return visits;
        };
        (leg, start, rest) = (back.step.leg, back.end, later);
    }
}

/// Puts into `journey`, wherever its packets went out of the node, what they did `there`, visit by visit.
/// Returns where they were there last, if they did not come back from it.
fn weave(
    journey: &mut Journey,
    there: &Journey,
    first: Leg,
    other: &mut Other<'_>,
) -> Option<Point> {
    let stages = std::mem::take(&mut journey.stages);
    let mut visits = visits(there, first).into_iter();
    let mut here = journey.start;
    for passed in stages {
        if is_outward(passed.step)
            && let Some(visit) = visits.next()
        {
            (other.after, other.before) = (here.ktime, passed.end.ktime);
            other.visit(&visit, journey, there);
        }
        here = passed.end;
        journey.stages.push(passed);
    }
    journey.left_out += there.left_out;
    let visit = visits.next().filter(|_| here.side == Side::Queued)?;
    (other.after, other.before) = (here.ktime, KtimeNs(u64::MAX));
    other.visit(&visit, journey, there);
    Some(journey.last())
}

/// Why it failed, by what the other node saw.
fn failed(told: &mut Told<'_>, theirs: &Row, last: Point, other: &mut Other<'_>) {
    let node = other.node;
    if theirs.outcome() == Outcome::Answered {
        if last.side == Side::Queued {
            *told.cause = Some(format!("{node} sent the answer, and it did not come back"));
            *told.stopped = None;
        }
        return;
    }
    if matches!(
        theirs.outcome(),
        Outcome::Dropped | Outcome::Rejected | Outcome::Reset
    ) {
        *told.outcome = theirs.outcome();
    }
    if let Some(cause) = theirs.cause() {
        *told.cause = Some(format!("on {node}: {cause}"));
    }
    if let Some(stopped) = theirs.stopped() {
        let at = Point {
            ktime: other.ktime(stopped.at.ktime),
            netns: other.netns(stopped.at.netns),
            flow: last.flow,
            ..stopped.at
        };
        *told.stopped = Some(Stopped { at, ..stopped });
    }
}

/// The packet that a row begins with.
fn first_leg(row: &Row) -> Leg {
    match (row, row.protocol()) {
        (Row::Dns(_), _) => Leg::Query,
        (Row::Connection(_), Protocol::Tcp) => Leg::Syn,
        (Row::Connection(_), Protocol::Udp) => Leg::Request,
    }
}

/// What to add to the other node's kernel times.
fn shift(row: &Row, theirs: &Row, ahead: i64) -> i64 {
    let WallNs(begin) = theirs.wall();
    let at_ours = begin.saturating_sub(ahead).saturating_sub(row.wall().0);
    let ours = row.ktime().0.wrapping_add_signed(at_ours);
    ours.wrapping_sub(theirs.ktime().0).cast_signed()
}
