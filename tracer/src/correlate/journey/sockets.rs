//! What lies between the last device and an application, told by its socket: the one thing that
//! the packets themselves do not show.

use std::cmp::{max, min};

use crate::model::{
    Delivery, KtimeNs, Outcome, SocketEnds,
    journey::{Journey, Leg, Passed, Point, Side, Stage, Step},
};

/// Adds to the journey of a query over UDP the stages at its two sockets, and names what could not
/// be told apart. Who is not on this node has no socket here, and nothing of it is said to be
/// unseen: the client `from_here` has one, and a backend that is seen to receive.
pub(super) fn extend(journey: &mut Journey, ends: &SocketEnds, outcome: Outcome, from_here: bool) {
    let answers = Step {
        leg: Leg::Answer,
        stage: Stage::Backend,
    };
    let at = journey
        .stages
        .iter()
        .position(|stage| stage.step == answers);
    let is_answered = journey
        .stages
        .iter()
        .any(|stage| stage.step.leg == Leg::Answer);
    match at {
        Some(at) => {
            let arrival = at
                .checked_sub(1)
                .map_or(journey.start, |at| journey.stages[at].end);
            let answered = journey.stages[at].end.ktime;
            let (stages, missing) = socket(Leg::Query, ends.query, arrival, answered);
            journey.stages.insert_many(at, stages.into_iter().flatten());
            journey.unseen.insert_many(0, missing.into_iter().flatten());
        }
        // Delivered is what arrived; nothing more is known of where it was.
        None if !is_answered && ends.query.queued().is_some() => {
            let (stages, missing) =
                socket(Leg::Query, ends.query, journey.last(), KtimeNs(u64::MAX));
            journey.stages.extend(stages.into_iter().flatten());
            journey.unseen.extend(missing.into_iter().flatten());
        }
        None => {}
    }
    if outcome == Outcome::Answered && (from_here || ends.answer.queued().is_some()) {
        let (stages, missing) = socket(Leg::Answer, ends.answer, journey.last(), KtimeNs(u64::MAX));
        journey.stages.extend(stages.into_iter().flatten());
        journey.unseen.extend(missing.into_iter().flatten());
    }
}

/// The stages of a datagram of `leg` from its `arrival` to its reading, none of them beyond
/// `limit`; and those that could not be told.
fn socket(
    leg: Leg,
    delivery: Delivery,
    arrival: Point,
    limit: KtimeNs,
) -> ([Option<Passed>; 2], [Option<Step>; 2]) {
    let [input, queue] = if leg == Leg::Query {
        [Stage::BackendInput, Stage::BackendQueue]
    } else {
        [Stage::ClientInput, Stage::ClientQueue]
    };
    // Records of two processors may change places by microseconds.
    let mut now = arrival.ktime;
    let mut passed = |stage, ktime, side| {
        now = min(max(now, ktime), limit);
        let end = Point {
            ktime: now,
            side,
            ..arrival
        };
        let step = Step { leg, stage };
        Some(Passed { step, end })
    };
    let queued = delivery.queued();
    let taken_in = queued.and_then(|at| passed(input, at, Side::Delivered));
    let read = match delivery {
        Delivery::Read { at, .. } => passed(queue, at, Side::Read),
        Delivery::Unseen | Delivery::Queued { .. } => None,
    };
    // What is there still is in a stage that is not over.
    let missed = |stage, is_missing: bool| is_missing.then_some(Step { leg, stage });
    let unseen = [
        missed(input, taken_in.is_none()),
        missed(queue, read.is_none() && !delivery.waits()),
    ];
    ([taken_in, read], unseen)
}
