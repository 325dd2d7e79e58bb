//! Stages, told from sights: which namespace is whose, what lies between, and what nobody saw.

use smallvec::SmallVec;

use super::{Sight, USUAL};
use crate::model::journey::{Journey, Leg, Passed, Stage, Step, Unseen};

/// Leaves out arrivals from which the packet did not go on, since it went on elsewhere: clones
/// that a bridge flooded. Returns how many; the first sight stays. A sight in whose namespace the packet was received,
/// and the next of which is in another, is such an arrival where
/// 1. the next one is of the same packet, or
/// 2. it is of the packet that follows, and this one had been in that namespace before.
pub(super) fn prune(path: &mut SmallVec<[Sight; USUAL]>) -> u32 {
    let before = path.len();
    for index in (1..before.saturating_sub(1)).rev() {
        let (sight, next) = (path[index], path[index + 1]);
        let elsewhere = sight.received && sight.netns != next.netns;
        let was_there = || {
            let mut earlier = path[..index].iter();
            earlier.any(|e| e.leg == sight.leg && e.netns == next.netns)
        };
        if elsewhere && (next.leg == sight.leg || was_there()) {
            path.remove(index);
        }
    }
    u32::try_from(before - path.len()).unwrap_or(u32::MAX)
}

/// Tells the stages between the sights of `path`, and what went unseen; makes its times run
/// forward. `good` where the exchange ended well, `arrived` where a packet received last is
/// where it was sent to.
pub(super) fn tell(path: &mut [Sight], good: bool, arrived: bool, journey: &mut Journey) {
    let Journey { stages, unseen, .. } = journey;
    let mut now = path[0].ktime;
    for sight in path.iter_mut() {
        now = now.max(sight.ktime);
        sight.ktime = now;
    }
    for index in 1..path.len() {
        let (from, to) = (path[index - 1], path[index]);
        let stage = between(from, to, unseen);
        let step = Step { leg: to.leg, stage };
        match stages.last_mut() {
            Some(last) if last.step == step && stage == Stage::Node => last.end = to.point(),
            _ => stages.push(Passed {
                step,
                end: to.point(),
            }),
        }
    }
    name_ends(path, good, arrived, stages, unseen);
}

/// What lies between two sights that follow each other; ends are named later. What is received
/// after it was queued has crossed a link, also within one namespace: loopback, or a veth pair.
fn between(from: Sight, to: Sight, unseen: &mut Unseen) -> Stage {
    let (a, b) = (from, to);
    let same_netns = a.netns == b.netns;
    if from.leg != to.leg {
        return turn(from, to, unseen);
    }
    if from.spot() == to.spot() {
        Stage::SentAgain
    } else if same_netns && (a.received || !b.received) {
        Stage::Node
    } else {
        if !b.received {
            let stage = Stage::Node;
            unseen.push(Step { leg: to.leg, stage });
        }
        Stage::Link
    }
}

/// What lies between the last sight of one packet and the first of the next:
/// 1. its receiver, where it was received and the next is queued;
/// 2. the wire, where it was queued and the next is received;
/// 3. else its receiver, and whatever was not seen before it.
fn turn(from: Sight, to: Sight, unseen: &mut Unseen) -> Stage {
    let (a, b) = (from, to);
    let (there, link) = if to.leg.is_forward() {
        (Stage::Client, Stage::ClientLink)
    } else {
        (Stage::Backend, Stage::BackendLink)
    };
    let mut miss = |leg, stage| unseen.push(Step { leg, stage });
    let same_netns = a.netns == b.netns;
    match (a.received, b.received) {
        (true, false) if same_netns => there,
        (false, true) if same_netns => {
            miss(from.leg, link);
            miss(to.leg, there);
            miss(to.leg, link);
            Stage::Wire
        }
        (received, comes) => {
            if received && !same_netns {
                miss(from.leg, Stage::Node);
            }
            if !received || !same_netns {
                miss(from.leg, link);
            }
            if comes {
                miss(to.leg, link);
            }
            there
        }
    }
}

/// Names, in each leg, the stages at its two ends after whose they are.
fn name_ends(
    path: &[Sight],
    good: bool,
    arrived: bool,
    stages: &mut [Passed],
    unseen: &mut Unseen,
) {
    let home = path[0];
    let mut rest = path;
    let mut stages = stages;
    let mut is_first = true;
    while let Some(first) = rest.first().copied() {
        let leg = first.leg;
        let len = rest.iter().take_while(|sight| sight.leg == leg).count();
        let (sights, later) = rest.split_at(len);
        let last = sights[len - 1];
        let count = stages.iter().take_while(|s| s.step.leg == leg).count();
        let (of_leg, later_stages) = stages.split_at_mut(count);
        let arrives = last.received
            && match later.first() {
                Some(next) => !next.received && next.netns == last.netns,
                None if leg.is_forward() => arrived,
                None => home.sent && last.netns == home.netns,
            };
        name_leg(leg, first.sent, arrives, of_leg);
        let link = Step {
            leg,
            stage: Stage::ClientLink,
        };
        if is_first && !first.sent {
            unseen.insert(0, link);
        }
        if later.is_empty() && good && !arrives && !leg.is_forward() {
            unseen.push(link);
        }
        is_first = false;
        rest = later;
        stages = later_stages;
    }
}

/// Names the ends of one leg: it was sent in the first namespace of it if `sent`, and has come to
/// its end in the last if `arrives`.
fn name_leg(leg: Leg, sent: bool, arrives: bool, stages: &mut [Passed]) {
    let client = (Stage::ClientDevices, Stage::ClientLink);
    let backend = (Stage::BackendDevices, Stage::BackendLink);
    let (near, far) = if leg.is_forward() {
        (client, backend)
    } else {
        (backend, client)
    };
    let is_link = |stage: &Passed| stage.step.stage == Stage::Link;
    let is_within = |stage: &Passed| matches!(stage.step.stage, Stage::Link | Stage::Node);
    let links = stages.iter().filter(|stage| is_link(stage)).count();
    let first = stages.iter().position(is_within);
    let last = stages.iter().rposition(is_within);
    let first_link = stages.iter().position(is_link);
    let last_link = stages.iter().rposition(is_link);
    let mut name = |index: Option<usize>, is: Stage, named: Stage| {
        if let Some(stage) = index.and_then(|index| stages.get_mut(index))
            && stage.step.stage == is
        {
            stage.step.stage = named;
        }
    };
    let both = sent && arrives;
    if sent {
        name(first, Stage::Node, near.0);
    }
    if arrives && (last != first || !sent) {
        name(last, Stage::Node, far.0);
    }
    if sent && !(both && links == 1) {
        name(first_link, Stage::Link, near.1);
    }
    if arrives && !(both && links == 1) {
        name(last_link, Stage::Link, far.1);
    }
}
