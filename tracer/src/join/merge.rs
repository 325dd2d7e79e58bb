//! The one row that two nodes' rows of an exchange make.

use std::{collections::BTreeMap, sync::Arc};

use crate::model::{
    Delivery, Dns, Flow, Journey, KtimeNs, Named, NetnsInode, Outcome, Row, Site, WallNs,
    journey::{Leg, Passed, Point, Side, Stage, Step},
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

    fn point(&mut self, point: Point, flows: &mut Vec<Flow>, of: &Journey) -> Point {
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

/// Makes one row of `row`, whose query another node took, and of what that `node` has of it. `ahead` is by how
/// much that node's wall clock is ahead.
pub fn merge(
    row: &mut Row,
    named: &mut Named,
    other: &Row,
    other_named: &Named,
    node: &str,
    ahead: i64,
) {
    let (Row::Dns(dns), Row::Dns(theirs)) = (row, other) else {
        return;
    };
    let shift = shift(dns, theirs, ahead);
    let (Some(journey), Some(there)) = (dns.journey.as_deref_mut(), theirs.journey.as_deref())
    else {
        return;
    };
    let wire = journey
        .stages
        .iter()
        .position(|passed| passed.step.stage == Stage::Wire);
    let left = match wire {
        Some(0) => journey.start,
        Some(at) => journey
            .stages
            .get(at - 1)
            .map_or(journey.start, |stage| stage.end),
        None => journey.last(),
    };
    let back = wire
        .and_then(|at| journey.stages.get(at))
        .map(|stage| stage.end);
    let mut other = Other {
        shift,
        node,
        netns: BTreeMap::new(),
        after: left.ktime,
        before: back.map_or(KtimeNs(u64::MAX), |back| back.ktime),
    };
    let mut stages = Vec::new();
    let came = other.point(there.start, &mut journey.flows, there);
    let wire_of = |leg, end| Passed {
        step: Step {
            leg,
            stage: Stage::Wire,
        },
        end,
    };
    stages.push(wire_of(Leg::Query, came));
    for passed in &there.stages {
        let end = other.point(passed.end, &mut journey.flows, there);
        stages.push(Passed { end, ..*passed });
    }
    let last = stages.last().map_or(came, |passed| passed.end);
    match (wire, back) {
        (Some(at), Some(back)) => {
            stages.push(wire_of(Leg::Answer, back));
            journey.stages.splice(at..=at, stages);
        }
        _ => journey.stages.extend(stages),
    }
    journey.left_out += there.left_out;
    dns.ends.query = other.delivery(theirs.ends.query);
    dns.ends.answered = theirs.ends.answered.map(|at| other.ktime(at));
    dns.upstream = dns.upstream.take().or_else(|| theirs.upstream.clone());
    if back.is_none() && !dns.outcome.is_good() {
        failed(dns, theirs, last, &mut other);
    }
    let sites = other_named.sites.iter().map(|site| Site {
        netns: other.netns(site.netns),
        name: format!("{}/{}", other.node, site.name).into(),
        ..site.clone()
    });
    named.sites.extend(sites);
    named.backend = named.backend.take().or_else(|| {
        let theirs = other_named.backend.clone();
        theirs.or_else(|| other_named.asked.pod.clone())
    });
    named.backend_node.get_or_insert_with(|| Arc::from(node));
}

/// Why it failed, by what the other node saw.
fn failed(dns: &mut Dns, theirs: &Dns, last: Point, other: &mut Other<'_>) {
    let node = other.node;
    if theirs.outcome == Outcome::Answered {
        if last.side == Side::Queued {
            dns.cause = Some(format!("{node} sent the answer, and it did not come back"));
            dns.stopped = None;
        }
        return;
    }
    if matches!(theirs.outcome, Outcome::Dropped | Outcome::Rejected) {
        dns.outcome = theirs.outcome;
    }
    if let Some(cause) = &theirs.cause {
        dns.cause = Some(format!("on {node}: {cause}"));
    }
    if let Some(stopped) = theirs.stopped {
        let at = Point {
            ktime: other.ktime(stopped.at.ktime),
            netns: other.netns(stopped.at.netns),
            flow: last.flow,
            ..stopped.at
        };
        dns.stopped = Some(Stopped { at, ..stopped });
    }
}

/// What to add to the other node's kernel times.
fn shift(dns: &Dns, theirs: &Dns, ahead: i64) -> i64 {
    let WallNs(begin) = theirs.wall;
    let at_ours = begin.saturating_sub(ahead).saturating_sub(dns.wall.0);
    let ours = dns.ktime.0.wrapping_add_signed(at_ours);
    ours.wrapping_sub(theirs.ktime.0).cast_signed()
}
