//! What the evaluator foretells of packets, against what became of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tracer::rules::{Ending, Host, Judge, Packet, Ruleset, SourceChange};
use tracer::verify::origin_of;

use super::tally::{Tally, far_apart};
use super::world::{Cell, Who, World};
use crate::support::probe::Fate;

/// Where what happened cannot have come of what the evaluator foretells.
pub(super) fn otherwise(
    world: &World,
    cells: &[Cell],
    tallies: &[Tally],
    ruleset: &Ruleset,
    host: &Host,
) -> Vec<String> {
    let judge = ruleset.judges(host);
    let mut otherwise = Vec::new();
    let all = cells.iter().zip(tallies);
    for (cell, tally) in all.filter(|(_, tally)| tally.count() > 0) {
        let mut foretold = fates(world, cell, &judge, host);
        let mut tally = tally.clone();
        if cell.who == Who::Node {
            // Where others ask too, the node's own masqueraded packets are not told from theirs.
            let passed = foretold.remove(&Fate::Passed);
            if let Some(share) = passed {
                *foretold.entry(Fate::Silence).or_insert(0.0) += share;
            }
            let passed = tally.fates.remove(&Fate::Passed);
            if let Some(count) = passed {
                *tally.fates.entry(Fate::Silence).or_insert(0) += count;
            }
        }
        let only = tally.fates.keys().all(|fate| foretold.contains_key(fate));
        let shares = foretold.iter().all(|(fate, share)| {
            !far_apart(tally.share(fate), *share, tally.count()) || cell.sticky || *share > 0.999
        });
        if !only || !shares {
            let (to, who) = (cell.to, cell.who);
            otherwise.push(format!(
                "{to} from {who:?}: foretold {foretold:?}, happened {tally:?}"
            ));
        }
    }
    otherwise
}

fn fates(world: &World, cell: &Cell, judge: &Judge<'_>, host: &Host) -> BTreeMap<Fate, f64> {
    let v4 = cell.to.is_ipv4();
    let source = match (cell.who, cell.to.ip().is_loopback()) {
        (Who::Node, true) => cell.to.ip(),
        (Who::Node, false) => host.source_for(cell.to.ip()).expect("it is routed"),
        _ => cell.who.address(v4),
    };
    let packet = Packet {
        source: SocketAddr::new(source, 50_000),
        destination: cell.to,
        protocol: cell.protocol,
    };
    let spread = judge.judge(packet, origin_of(source, host), false);
    let out = Ending::Sent("eth0".into());
    let mut fates = BTreeMap::new();
    for branch in spread.branches {
        let outcome = branch.outcome;
        let to = outcome.destination;
        let client = match outcome.source {
            SourceChange::Kept => source,
            SourceChange::Masqueraded { .. } => host.source_for(to.ip()).expect("it is routed"),
            SourceChange::Translated(address) => address,
        };
        let kept = outcome.source == SourceChange::Kept;
        let fate = match outcome.ending {
            Ending::Dropped | Ending::Martian => Fate::Silence,
            Ending::Sent(_) | Ending::Delivered => match () {
                // From itself to itself: a packet that nobody takes.
                () if client == to.ip() && cell.who != Who::Node => Fate::Silence,
                // A martian to whom it comes.
                () if client.is_loopback() && !host.is_local(to.ip()) => Fate::Silence,
                () if world.served.contains(&to) => Fate::Answered(to, client),
                () if world.known.contains(&to.ip()) || host.is_local(to.ip()) => Fate::Refused,
                () if v4
                    && cell.service.is_some()
                    && outcome.ending == out
                    && (kept || cell.who == Who::Node) =>
                {
                    Fate::Passed
                }
                () => Fate::Silence,
            },
            // Rejected, or without a route, of which the client is told too.
            _ => Fate::Refused,
        };
        *fates.entry(fate).or_insert(0.0) += branch.high;
    }
    fates
}
