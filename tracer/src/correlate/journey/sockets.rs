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
            journey.stages.splice(at..at, stages);
            journey.unseen.splice(0..0, missing);
        }
        // Delivered is what arrived; nothing more is known of where it was.
        None if !is_answered && ends.query.queued().is_some() => {
            let (stages, missing) =
                socket(Leg::Query, ends.query, journey.last(), KtimeNs(u64::MAX));
            journey.stages.extend(stages);
            journey.unseen.extend(missing);
        }
        None => {}
    }
    if outcome == Outcome::Answered && (from_here || ends.answer.queued().is_some()) {
        let (stages, missing) = socket(Leg::Answer, ends.answer, journey.last(), KtimeNs(u64::MAX));
        journey.stages.extend(stages);
        journey.unseen.extend(missing);
    }
}

/// The stages of a datagram of `leg` from its `arrival` to its reading, none of them beyond
/// `limit`; and those that could not be told.
fn socket(
    leg: Leg,
    delivery: Delivery,
    arrival: Point,
    limit: KtimeNs,
) -> (Vec<Passed>, Vec<Step>) {
    let [input, queue] = if leg == Leg::Query {
        [Stage::BackendInput, Stage::BackendQueue]
    } else {
        [Stage::ClientInput, Stage::ClientQueue]
    };
    let mut stages = Vec::new();
    let mut unseen = Vec::new();
    // Records of two processors may change places by microseconds.
    let mut now = arrival.ktime;
    let mut pass = |stage, reached: Option<(KtimeNs, Side)>| {
        let step = Step { leg, stage };
        let Some((ktime, side)) = reached else {
            unseen.push(step);
            return;
        };
        now = min(max(now, ktime), limit);
        let end = Point {
            ktime: now,
            side,
            ..arrival
        };
        stages.push(Passed { step, end });
    };
    pass(input, delivery.queued().map(|at| (at, Side::Delivered)));
    match delivery {
        Delivery::Read { at, by, .. } => pass(queue, Some((at, Side::Read { by }))),
        // It is there still: the last stage is not over.
        Delivery::Queued { waits: true, .. } => {}
        Delivery::Unseen | Delivery::Queued { .. } => pass(queue, None),
    }
    (stages, unseen)
}
