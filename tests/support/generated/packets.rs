//! Sends what each case is about, and counts what becomes of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::cells::Cell;
use super::world::{Asker, Who, World, one_of_many};
use crate::support::probe::{Fate, Try, ask_all};
use crate::support::tally::Tally;

/// How long silence is waited for where it is foretold, and where not.
const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_millis(700);
/// Over IPv6 a client is told at its second SYN, a second after the first.
const LONG_SIX: Duration = Duration::from_millis(1600);
const PATIENT: Duration = Duration::from_secs(4);

/// Clients that no rule remembers.
#[derive(Default)]
struct Clients(BTreeMap<Asker, u16>);

impl Clients {
    fn next(&mut self, asker: Asker) -> IpAddr {
        let used = self.0.entry(asker).or_insert(0);
        *used += 1;
        one_of_many(asker, *used)
    }
}

/// What became of each case.
pub(crate) fn send(world: &World, cells: &[Cell]) -> Vec<Tally> {
    let mut tallies = vec![Tally::default(); cells.len()];
    let mut clients = Clients::default();
    // What the node lets out is known by its address: nobody else may ask meanwhile.
    for by_node in [false, true] {
        let mut tries = Vec::new();
        for (index, cell) in cells.iter().enumerate() {
            if (cell.asker.who == Who::Node) != by_node {
                continue;
            }
            let silent = cell.foretold.contains_key(&Fate::Silence)
                || cell.foretold.contains_key(&Fate::Passed);
            let patience = match (silent, cell.to.is_ipv6()) {
                (true, false) => SHORT,
                (false, false) => LONG,
                (_, true) => LONG_SIX,
            };
            let count = match (cell.sticky && !cell.has_many_clients(), cell.is_random()) {
                // A second one beside it would be remembered too.
                (true, _) => 1,
                (false, true) => world.pace.many,
                (false, false) => world.pace.few,
            };
            tries.extend((0..count).map(|_| one(index, cell, &mut clients, patience)));
        }
        run(world, cells, tries, &mut tallies, by_node);
    }
    // Who is not answered at first may only be slow: this machine does other things too. And who was elsewhere
    // when it came again may have asked for another case at that moment.
    let doubtful = |index: &usize| {
        let (cell, tally) = (&cells[*index], &tallies[*index]);
        let lost = tally.lost() > 0 && !cell.foretold.contains_key(&Fate::Silence);
        lost || tally.left() > 0 && !cell.has_many_clients()
    };
    let doubtful: Vec<_> = (0..cells.len()).filter(doubtful).collect();
    let mut again = vec![Tally::default(); cells.len()];
    let tries = doubtful.iter().flat_map(|index| {
        let several = cells[*index].is_random() && !cells[*index].sticky;
        [*index].repeat(if several { 12 } else { 1 })
    });
    let tries = tries.map(|index| one(index, &cells[index], &mut clients, PATIENT));
    let tries: Vec<_> = tries.collect();
    run(world, cells, tries, &mut again, false);
    for index in doubtful {
        if cells[index].sticky && !cells[index].has_many_clients() {
            tallies[index] = again[index].clone();
        } else if again[index].lost() == 0 {
            tallies[index].fates.remove(&Fate::Silence);
            tallies[index].join(&again[index]);
        }
    }
    tallies
}

fn one(index: usize, cell: &Cell, clients: &mut Clients, patience: Duration) -> Try {
    let from = match (cell.asker.who, cell.has_many_clients()) {
        (Who::Node, _) => None,
        (_, true) => Some(clients.next(cell.asker)),
        (_, false) => Some(cell.asker.address(cell.to.is_ipv4())),
    };
    Try {
        cell: index,
        udp: cell.protocol.name() == "udp",
        to: cell.to,
        from,
        patience,
        again: cell.sticky.then_some(Duration::ZERO),
    }
}

fn run(world: &World, cells: &[Cell], tries: Vec<Try>, tallies: &mut [Tally], by_node: bool) {
    world.outside.clear();
    let mut by_prober: Vec<Vec<Try>> = world.probers().map(|_| Vec::new()).collect();
    for mut one in tries {
        one.patience *= world.pace.slowness;
        by_prober[world.index(cells[one.cell].asker)].push(one);
    }
    for mut tried in ask_all(world.probers(), by_prober) {
        let cell = &cells[tried.what.cell];
        let own = cell.asker.address(cell.to.is_ipv4());
        let passed = |from| {
            if by_node {
                world.outside.saw_of(own, cell.to)
            } else {
                world.outside.saw(from, cell.to)
            }
        };
        if tried.fate == Fate::Silence && tried.own.is_some_and(passed) {
            tried.fate = Fate::Passed;
        }
        tried.is_by(own);
        tallies[tried.what.cell].add(&tried);
    }
}
