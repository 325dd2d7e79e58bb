//! What comes after a client's first packet: its reply, what the client sends next, and the client that comes again.

use super::{
    askers::{Asker, AskerKind},
    compare::{Difference, Differing, of_next, of_reply},
    plan::PortPlan,
};
use crate::rules::{Judge, Packet, SourceChange, Spread};

/// How what comes after the first packet fares: replies that come back by this node, to its own clients, or from its
/// own endpoints, or because its address took the client's place; and what the client sends then. What many have
/// wrong is told of each endpoint once.
pub(super) fn followers(
    judge: &Judge<'_>,
    first: Packet,
    plan: &PortPlan<'_>,
    asker: &Asker,
    spread: &Spread,
    packets: &mut u64,
) -> Vec<Differing> {
    let mut all: Vec<Differing> = Vec::new();
    for branch in &spread.branches {
        let to = branch.outcome.destination;
        let here = asker.kind != AskerKind::Outside
            || branch.outcome.source != SourceChange::Kept
            || plan.known.iter().any(|one| one.at == to && one.local);
        let reply = here.then(|| judge.reply(branch, false)).flatten();
        *packets += u64::from(reply.is_some());
        let wrong = reply.and_then(|reply| of_reply(first, &reply));
        // A client that gets no reply sends nothing more.
        let origin = asker.origin.clone();
        let next = wrong
            .is_none()
            .then(|| judge.next_of_client(branch, origin, false))
            .flatten();
        *packets += u64::from(next.is_some());
        all.extend(wrong.or_else(|| of_next(branch, &next?)));
    }
    all
}

/// Whether a client that comes again goes elsewhere.
pub(super) fn forgets(
    judge: &Judge<'_>,
    packet: Packet,
    asker: &Asker,
    spread: &Spread,
    packets: &mut u64,
) -> Option<Differing> {
    let mut branches = spread.branches.iter();
    let forgotten = branches.any(|branch| {
        *packets += 1;
        let again = judge.judge_again(packet, asker.origin.clone(), &branch.memory);
        let to = branch.outcome.destination;
        !again
            .branches
            .iter()
            .all(|one| one.outcome.destination == to)
    });
    forgotten.then_some(Differing {
        what: Difference::Affinity(None),
        by: None,
    })
}
