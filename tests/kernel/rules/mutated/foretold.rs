//! What the evaluator foretells of packets, against what became of them.

use std::collections::BTreeMap;

use tracer::rules::{Host, Judge, Ruleset};

use super::world::{Cell, Who, World};
use crate::support::foretold::{Asked, contradicts};
use crate::support::probe::Fate;
use crate::support::tally::Tally;

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
        if contradicts(&foretold, &tally, !cell.sticky) {
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
        // Clients of their own, of which each comes twice.
        (Who::Node, false) if cell.sticky => cell.who.address(v4),
        (Who::Node, false) => host.source_for(cell.to.ip()).expect("it is routed"),
        _ => cell.who.address(v4),
    };
    let asked = Asked {
        source,
        to: cell.to,
        protocol: cell.protocol,
        by_node: cell.who == Who::Node,
        watched: v4 && cell.service.is_some(),
    };
    world.served.fates(asked, judge, host)
}
