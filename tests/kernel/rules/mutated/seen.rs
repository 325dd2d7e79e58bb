//! What packets do with a set of rules, cell by cell, against what they did with kube-proxy's own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use tracer::model::Snapshot;
use tracer::rules::{Host, Ruleset};

use super::changes::Change;
use super::foretold::otherwise;
use super::world::{Cell, Who, World, cells};
use crate::support::probe::{Fate, Try, ask_all};
use crate::support::tally::Tally;

/// What kube-proxy's own rules do.
pub(super) struct Baseline {
    cells: Vec<Cell>,
    tallies: Vec<Tally>,
    counts: Counts,
}

/// What a changed set of rules does.
pub(super) struct Seen {
    tallies: Vec<Tally>,
}

/// How long silence is waited for where it is expected, and where not.
const SHORT: Duration = Duration::from_millis(150);
/// Over IPv6 a client is told at its second SYN, a second after the first.
const LONG: Duration = Duration::from_millis(500);
const PATIENT: Duration = Duration::from_secs(1);
const LONG_SIX: Duration = Duration::from_millis(1600);

/// Connections that tell shares apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    /// From one kind of source.
    many: usize,
    /// From the others.
    some: usize,
    /// That show whether there are several ways.
    varied: usize,
    /// How many times longer an answer may take: guests are emulated.
    pub(super) slowness: u32,
    /// How often packets are sent at most until all is as foretold: this machine does other things too, and IPVS
    /// remembers for minutes connections to servers that are gone, and refuses a client whose port comes again.
    pub(super) looks: u32,
}

impl Counts {
    /// Where chance decides.
    pub(super) const MANY: Self = Self {
        many: 600,
        some: 150,
        varied: 40,
        slowness: 1,
        looks: 2,
    };

    /// Where connections are dealt out in turn.
    pub(super) const FEW: Self = Self {
        many: 64,
        some: 12,
        varied: 9,
        slowness: 6,
        looks: 2,
    };
}

impl Baseline {
    pub(super) fn take(world: &World, snapshot: &Snapshot, counts: Counts) -> Self {
        let cells = cells(snapshot);
        let mut tallies = vec![Tally::default(); cells.len()];
        let mut clients = Clients::default();
        for node in [true, false] {
            let all = |cell: usize| {
                if (cells[cell].who == Who::Node) == node {
                    3
                } else {
                    0
                }
            };
            sample(world, &cells, &mut tallies, &mut clients, LONG, None, all);
        }
        // Who is not answered at first may only be slow: this machine does other things too.
        let mut again = vec![Tally::default(); cells.len()];
        let silent = |cell: usize| 3 * usize::from(tallies[cell].lost() > 0);
        sample(
            world,
            &cells,
            &mut again,
            &mut clients,
            PATIENT,
            None,
            silent,
        );
        for (tally, again) in tallies.iter_mut().zip(again) {
            if again.answered() {
                *tally = again;
            }
        }
        let varied: Vec<_> = tallies.iter().map(Tally::answered).collect();
        let more = |cell: usize| if varied[cell] { counts.varied } else { 0 };
        sample(world, &cells, &mut tallies, &mut clients, LONG, None, more);
        let random: Vec<_> = tallies.iter().map(|one| one.fates.len() > 1).collect();
        let most = |cell: usize| match (random[cell], cells[cell].sticky) {
            (true, false) => counts.many,
            (true, true) => counts.some,
            (false, _) => 0,
        };
        sample(world, &cells, &mut tallies, &mut clients, LONG, None, most);
        tallies.iter_mut().for_each(Tally::forget_lost);
        Self {
            cells,
            tallies,
            counts,
        }
    }

    pub(super) fn against(&self, world: &World, ruleset: &Ruleset, host: &Host) -> Vec<String> {
        otherwise(world, &self.cells, &self.tallies, ruleset, host)
    }
}

impl Seen {
    #[expect(
        clippy::too_many_lines,
        reason = "one look after another, each by what the last has shown"
    )]
    pub(super) fn take(world: &World, baseline: &Baseline, change: &Change) -> Self {
        let Baseline {
            cells,
            tallies: known,
            counts,
        } = baseline;
        let mut tallies = vec![Tally::default(); cells.len()];
        let mut clients = Clients::default();
        let touched = |cell: usize| {
            let service = cells[cell].service.as_ref();
            service.is_some_and(|name| change.touched.contains(name))
        };
        let pause = change.slow.then(|| Duration::from_millis(1600));
        if let Some(pause) = pause {
            // Those who come again after a while.
            let few = |cell: usize| {
                if touched(cell) && cells[cell].sticky {
                    24
                } else {
                    0
                }
            };
            sample(
                world,
                cells,
                &mut tallies,
                &mut clients,
                LONG,
                Some(pause),
                few,
            );
            return Self { tallies };
        }
        // Where silence is expected it is not waited for as long.
        let mut ask = |tallies: &mut Vec<Tally>, wanted: &dyn Fn(&[Tally], usize) -> usize| {
            let now = tallies.clone();
            let wanted = |cell: usize| {
                if cells[cell].to.is_ipv6() == change.six {
                    wanted(&now, cell)
                } else {
                    0
                }
            };
            let silent = |cell: usize| {
                let silence = [Fate::Silence, Fate::Passed];
                silence
                    .iter()
                    .any(|fate| known[cell].fates.contains_key(fate))
            };
            let short = |cell: usize| if silent(cell) { wanted(cell) } else { 0 };
            let long = |cell: usize| if silent(cell) { 0 } else { wanted(cell) };
            let mut tries = tries(cells, &mut clients, SHORT, None, &short);
            tries.extend(self::tries(cells, &mut clients, LONG, None, &long));
            run(world, cells, tries, tallies);
        };
        let is_node = |cell: usize| cells[cell].who == Who::Node;
        ask(&mut tallies, &|_, cell| usize::from(!is_node(cell)));
        ask(&mut tallies, &|_, cell| usize::from(is_node(cell)));
        // What is different already needs no closer look.
        let open =
            |now: &[Tally], cell: usize| !now[cell].is_new(&known[cell]) && now[cell].answered();
        let random = |cell: usize| known[cell].fates.len() > 1;
        ask(
            &mut tallies,
            &|now, cell| match (open(now, cell), touched(cell)) {
                (false, _) => 0,
                (true, true) => 12,
                // Nobody by name: it may concern anybody.
                (true, false) => match (change.touched.is_empty(), random(cell)) {
                    (true, true) => 16,
                    (true, false) => 3,
                    (false, true) => 4,
                    (false, false) => 0,
                },
            },
        );
        ask(&mut tallies, &|now, cell| {
            let first = cells[cell].who == Who::Client;
            let closely = touched(cell) && open(now, cell) && random(cell);
            match (closely, first) {
                (true, true) => counts.many,
                (true, false) => counts.some,
                (false, _) => 0,
            }
        });
        // What is lost now and then is asked again, and more patiently: this machine does other things too.
        let doubtful = |now: &[Tally], cell: usize| {
            let new = !known[cell].fates.contains_key(&Fate::Silence);
            new && (1..=6).contains(&now[cell].lost())
        };
        for round in 0..3 {
            let again = |cell: &usize| round == 0 || tallies[*cell].answered();
            let doubted = (0..cells.len()).filter(|cell| doubtful(&tallies, *cell));
            let doubted: Vec<_> = doubted.filter(again).collect();
            if doubted.is_empty() {
                break;
            }
            let mut again = vec![Tally::default(); cells.len()];
            let more = |cell: usize| match (doubted.contains(&cell), tallies[cell].answered()) {
                (true, true) => 24,
                (true, false) => 1,
                (false, _) => 0,
            };
            sample(world, cells, &mut again, &mut clients, PATIENT, None, more);
            for cell in doubted {
                if again[cell].lost() == 0 && again[cell].count() > 20 {
                    tallies[cell].fates.remove(&Fate::Silence);
                }
                tallies[cell].join(&again[cell]);
            }
        }
        tallies.iter_mut().for_each(Tally::forget_lost);
        Self { tallies }
    }

    /// Where it differs from before: the Service, and how.
    pub(super) fn differing(&self, baseline: &Baseline) -> Vec<(Option<String>, String)> {
        let all = baseline
            .cells
            .iter()
            .zip(self.tallies.iter().zip(&baseline.tallies));
        let differing = all.filter_map(|(cell, (seen, known))| {
            let how = seen.differs(known)?;
            Some((
                cell.service.clone(),
                format!("{} from {:?}: {how}", cell.to, cell.who),
            ))
        });
        differing.collect()
    }

    pub(super) fn against(
        &self,
        world: &World,
        baseline: &Baseline,
        ruleset: &Ruleset,
        host: &Host,
    ) -> Vec<String> {
        otherwise(world, &baseline.cells, &self.tallies, ruleset, host)
    }
}

/// Addresses of clients that no rule remembers.
#[derive(Default)]
struct Clients(BTreeMap<Who, u16>);

impl Clients {
    /// One more of this host's loopback addresses.
    fn here(&mut self) -> IpAddr {
        let [_, _, high, low] = match self.next(Who::Node) {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(_) => unreachable!("they are of IPv4"),
        };
        [127, 1, high, low].into()
    }

    /// One more.
    fn next(&mut self, who: Who) -> IpAddr {
        let used = self.0.entry(who).or_insert(0);
        *used += 1;
        let [high, low] = used.to_be_bytes();
        match who {
            Who::Client => [10, 244, 128 + high, low].into(),
            Who::Node => [100, 65, high, low].into(),
            _ => [100, 64, high, low].into(),
        }
    }
}

/// Tries each cell so many times as `wanted` says.
fn sample(
    world: &World,
    cells: &[Cell],
    tallies: &mut [Tally],
    clients: &mut Clients,
    patience: Duration,
    pause: Option<Duration>,
    wanted: impl Fn(usize) -> usize,
) {
    let tries = tries(cells, clients, patience, pause, &wanted);
    run(world, cells, tries, tallies);
}

fn tries(
    cells: &[Cell],
    clients: &mut Clients,
    patience: Duration,
    pause: Option<Duration>,
    wanted: &dyn Fn(usize) -> usize,
) -> Vec<Try> {
    let mut tries = Vec::new();
    for (index, cell) in cells.iter().enumerate() {
        for _ in 0..wanted(index) {
            let from = match (cell.who, cell.sticky) {
                (Who::Node, false) => None,
                (Who::Node, true) if cell.to.ip().is_loopback() => Some(clients.here()),
                (_, false) => Some(cell.who.address(cell.to.is_ipv4())),
                (who, true) => Some(clients.next(who)),
            };
            tries.push(Try {
                cell: index,
                udp: cell.protocol.name() == "udp",
                to: cell.to,
                from,
                patience: if cell.to.is_ipv6() {
                    patience.max(LONG_SIX)
                } else {
                    patience
                },
                again: pause.or_else(|| cell.sticky.then_some(Duration::ZERO)),
            });
        }
    }
    tries
}

fn run(world: &World, cells: &[Cell], mut tries: Vec<Try>, tallies: &mut [Tally]) {
    for one in &mut tries {
        one.patience *= world.slowness;
    }
    // Where the node alone asks, its packets are known by their address, masqueraded or not.
    let alone = tries.iter().all(|one| cells[one.cell].who == Who::Node);
    world.outside.clear();
    let mut by_prober: Vec<Vec<Try>> = world.probers().iter().map(|_| Vec::new()).collect();
    for one in tries {
        by_prober[World::index(cells[one.cell].who)].push(one);
    }
    for mut tried in ask_all(world.probers().iter(), by_prober) {
        let cell = &cells[tried.what.cell];
        let tally = &mut tallies[tried.what.cell];
        tally.count_port(&tried);
        let own = tried.what.from.unwrap_or(cell.who.address(true));
        let passed = |from| {
            if alone {
                world.outside.saw_of(own, cell.to)
            } else {
                world.outside.saw(from, cell.to)
            }
        };
        if tried.fate == Fate::Silence && cell.service.is_some() && tried.own.is_some_and(passed) {
            tried.fate = Fate::Passed;
        }
        // Nor does it, which of the node's addresses.
        tried.is_by(cell.who.address(cell.to.is_ipv4()));
        tally.add(&tried);
    }
}
