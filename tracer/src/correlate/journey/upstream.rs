//! The part of a server's own time that it waits for others.

use crate::model::{
    KtimeNs,
    journey::{Journey, Leg, Passed, Point, Side, Stage, Step},
};

/// Cuts the `spans` out of the server's own time.
pub(in super::super) fn split(journey: &mut Journey, spans: &[(KtimeNs, KtimeNs)]) {
    let leg = Leg::Answer;
    let step = |stage| Step { leg, stage };
    let is_own = |stage: &Passed| stage.step == step(Stage::Backend);
    let Some(at) = journey.stages.iter().position(is_own) else {
        return;
    };
    let start = at
        .checked_sub(1)
        .map_or(journey.start, |at| journey.stages[at].end);
    let own = journey.stages[at];
    let mut pieces = Vec::new();
    let mut now = start.ktime;
    let mut pass = |stage, until: KtimeNs| {
        if until > now {
            now = until;
            pieces.push(Passed {
                step: step(stage),
                end: Point {
                    ktime: until,
                    side: Side::Queued,
                    ..own.end
                },
            });
        }
    };
    let within = |ktime: KtimeNs| ktime.clamp(start.ktime, own.end.ktime);
    for &(from, to) in spans {
        if within(to) > within(from) {
            pass(Stage::Backend, within(from));
            pass(Stage::Upstream, within(to));
        }
    }
    // What is left is the server's again, up to its answer.
    pieces.push(own);
    journey.stages.remove(at);
    journey.stages.insert_many(at, pieces);
}
