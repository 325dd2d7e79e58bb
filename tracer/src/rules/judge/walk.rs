//! The way through the hooks: which base chains see a packet, in what order, and where routing
//! sends it in between.

use std::{cell::Cell, time::Duration};

use rustc_hash::FxHashMap;

use super::{
    Ending, Origin, Outcome, RuleAt, SourceChange,
    ipvs::Servers,
    later::translate_as_known,
    machine::Flow,
    order::{Entry, entries, recent},
    spread::{Branch, Spread},
    state::{Frame, Stage, State},
};
use crate::rules::{
    ChainId, Expression, Family, Hook, Host, Match, RouteKind, Ruleset, Verdict,
    dispatch::Dispatch, xt::RecentOp,
};

/// Steps of one judgement. Rules that are not understood can double the ways; beyond this it is
/// given up, and said.
const BUDGET: u32 = 2_000_000;

/// Chains called in one another (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;

/// Before it, no connection is known.
const CONNTRACK: i32 = -200;

pub(super) struct Walker<'a> {
    pub(super) ruleset: &'a Ruleset,
    pub(super) host: &'a Host,
    entries: FxHashMap<(Family, Hook), Vec<Entry>>,
    /// How long iptables' lists of clients are asked for, by name.
    pub(super) recent: FxHashMap<&'a str, Duration>,
    /// Virtual servers of IPVS.
    pub(super) servers: Servers,
    dispatch: Dispatch,
    budget: Cell<u32>,
}

/// What one move of a packet leads to.
pub(super) enum Move {
    On,
    End(Ending, Option<RuleAt>),
    /// With this probability the packet goes on as that, else as it is.
    Chance(f64, Box<State>),
    /// As one of these, each with its probability.
    Shares(Vec<(f64, State)>),
    /// As one of these; which one hangs on what is not looked at.
    Any(Vec<State>),
    /// As that or as it is; nobody knows.
    Unknown(RuleAt, Box<State>),
}

impl<'a> Walker<'a> {
    pub(super) fn new(ruleset: &'a Ruleset, host: &'a Host) -> Self {
        Self {
            ruleset,
            host,
            entries: entries(ruleset),
            recent: recent(ruleset),
            servers: Servers::of(&ruleset.ipvs),
            dispatch: Dispatch::of(ruleset),
            budget: Cell::new(BUDGET),
        }
    }

    pub(super) fn walk(&self, state: State) -> Spread {
        self.budget.set(BUDGET);
        self.run(state)
    }

    fn run(&self, mut state: State) -> Spread {
        let mut spread = Spread::default();
        let mut share = 1.0;
        loop {
            let left = self.budget.get();
            let moved = match left {
                0 => Move::End(Ending::Unknown, Some(state.at())),
                _ => self.advance(&mut state),
            };
            self.budget.set(left.saturating_sub(1));
            match moved {
                Move::On => {}
                Move::End(ending, by) => {
                    let outcome: Outcome = state.outcome(ending);
                    spread.add(Branch::new(outcome, by, state), share);
                    return spread;
                }
                Move::Chance(probability, other) => {
                    spread.add_all(self.run(*other), share * probability);
                    share *= 1.0 - probability;
                }
                Move::Shares(states) => {
                    for (each, state) in states {
                        spread.add_all(self.run(state), share * each);
                    }
                    return spread;
                }
                Move::Any(states) => {
                    let ways = states.into_iter().map(|state| self.run(state));
                    if let Some(any) = ways.reduce(Spread::any) {
                        spread.add_all(any, share);
                    }
                    return spread;
                }
                Move::Unknown(by, held) => {
                    let either = Spread::either(self.run(*held), self.run(state), by);
                    spread.add_all(either, share);
                    return spread;
                }
            }
        }
    }

    fn advance(&self, state: &mut State) -> Move {
        if let Some(moved) = self.forward_chosen(state) {
            moved
        } else if state.frames.is_empty() {
            self.next_chain(state)
        } else {
            self.next_rule(state)
        }
    }

    /// Into the stage's next base chain, or on to the next stage.
    fn next_chain(&self, state: &mut State) -> Move {
        let hook = state.stage.hook();
        if state.entry == 0 {
            self.choose_output(state);
        }
        let entries = self.entries.get(&(state.family(), hook));
        let entries = entries.map_or(&[][..], Vec::as_slice);
        while let Some(entry) = entries.get(state.entry) {
            state.entry += 1;
            translate_as_known(state, Some((entry.priority, entry.nat)));
            if entry.nat && no_nat(state, hook) {
                continue;
            }
            if entry.table == RuleAt::IPVS {
                match self.balance(state) {
                    Some(moved) => return moved,
                    None => continue,
                }
            }
            state.table = entry.table;
            let early = matches!(hook, Hook::Prerouting | Hook::Output);
            state.tracked = !early || entry.priority >= CONNTRACK;
            state.frames.push(Frame {
                chain: entry.chain,
                rule: 0,
                expression: 0,
            });
            return Move::On;
        }
        translate_as_known(state, None);
        self.next_stage(state)
    }

    /// The device it is to leave by, known from the route's choice on.
    pub(super) fn choose_output(&self, state: &mut State) {
        state.output = match state.stage {
            Stage::Forward | Stage::Output | Stage::Postrouting => self
                .host
                .route_to(state.next_hop())
                .and_then(|route| match route.kind {
                    RouteKind::Local => Some("lo".into()),
                    _ => route.device.clone(),
                }),
            Stage::Prerouting | Stage::Input | Stage::Returned => None,
        };
        if matches!(state.stage, Stage::Output) {
            state.input = None;
        }
        // Behind the device's queue it is as any packet from outside; what IPVS sent on still has its device.
        if matches!(state.stage, Stage::Postrouting) {
            state.input = match &state.origin {
                Origin::Host => None,
                Origin::Device(device) => Some(device.clone()),
            };
        }
    }

    fn next_stage(&self, state: &mut State) -> Move {
        state.entry = 0;
        match state.stage {
            Stage::Prerouting => {
                state.nat_done.0 = true;
                return self.route(state);
            }
            Stage::Output => {
                state.nat_done.0 = true;
                if let Some(ending) = self.refused_by_routing(state) {
                    return Move::End(ending, None);
                }
                state.stage = Stage::Postrouting;
            }
            Stage::Forward => state.stage = Stage::Postrouting,
            Stage::Postrouting => {
                state.nat_done.1 = true;
                let local = self.host.is_local(state.next_hop());
                if local && state.origin == Origin::Host {
                    state.input = Some("lo".into());
                    state.stage = Stage::Returned;
                } else {
                    let device = state.output.clone().unwrap_or_default();
                    return Move::End(Ending::Sent(device), None);
                }
            }
            Stage::Returned => state.stage = Stage::Input,
            Stage::Input => return Move::End(Ending::Delivered, None),
        }
        Move::On
    }

    /// Where a packet from a device goes.
    fn route(&self, state: &mut State) -> Move {
        let destination = state.packet.destination.ip();
        let loopback = destination.is_loopback() || state.packet.source.ip().is_loopback();
        let from_loopback = state.input.as_deref() == Some("lo");
        let allowed = state
            .input
            .as_ref()
            .is_some_and(|device| self.host.route_localnet.contains(device));
        if loopback && !from_loopback && !allowed {
            return Move::End(Ending::Martian, None);
        }
        match self.host.kind_of(destination) {
            RouteKind::Local | RouteKind::Broadcast | RouteKind::Multicast => {
                state.stage = Stage::Input;
                return Move::On;
            }
            RouteKind::Unicast | RouteKind::Blackhole | RouteKind::Unreachable => {}
        }
        if let Some(ending) = self.refused_by_routing(state) {
            return Move::End(ending, None);
        }
        let forwards = match state.family() {
            Family::V4 => self.host.forwarding.0,
            Family::V6 => self.host.forwarding.1,
        };
        if !forwards {
            return Move::End(Ending::NotForwarded, None);
        }
        state.stage = Stage::Forward;
        Move::On
    }

    fn refused_by_routing(&self, state: &State) -> Option<Ending> {
        let Some(route) = self.host.route_to(state.next_hop()) else {
            return Some(Ending::NoRoute);
        };
        if matches!(route.kind, RouteKind::Blackhole | RouteKind::Unreachable) {
            return Some(Ending::NoRoute);
        }
        // __mkroute_output, net/ipv4/route.c
        let loopback = state.packet.source.ip().is_loopback();
        let device = route.device.as_ref().filter(|name| &***name != "lo")?;
        let allowed = self.host.route_localnet.contains(device);
        (state.origin == Origin::Host && loopback && route.kind != RouteKind::Local && !allowed)
            .then_some(Ending::Martian)
    }

    fn next_rule(&self, state: &mut State) -> Move {
        let (Some(frame), Some(table)) = (
            state.frames.last().copied(),
            self.ruleset.tables.get(state.table as usize),
        ) else {
            return Move::End(Ending::Unknown, None);
        };
        // Whoever jumps to a chain that is not there was read while it went.
        let Some(chain) = table.chains.get(frame.chain.0 as usize) else {
            return Move::End(Ending::Unknown, Some(state.at()));
        };
        let from = match frame.expression {
            0 => self
                .dispatch
                .next(state.table, frame.chain, frame.rule, &state.packet),
            _ => frame.rule,
        };
        let Some(rule) = chain.rules.get(from as usize) else {
            return self.end_of_chain(state);
        };
        if let Some(frame) = state.frames.last_mut() {
            frame.rule = from;
        }
        if frame.expression == 0 {
            state.registers = super::state::Registers::EMPTY;
        }
        for (index, expression) in (0..).zip(&rule.expressions).skip(frame.expression as usize) {
            let flow = self.run_expression(state, expression);
            match flow {
                Flow::Next => {}
                Flow::Break => {
                    next(state);
                    return Move::On;
                }
                Flow::Verdict(verdict) => {
                    state.note(Some(1.0));
                    return decide(state, verdict);
                }
                Flow::End(ending) => {
                    state.note(Some(1.0));
                    return Move::End(ending, Some(state.at()));
                }
                Flow::Chance(chance) => {
                    let held = behind(state, index, Some(chance));
                    next(state);
                    return Move::Chance(chance, Box::new(held));
                }
                Flow::Choice { to, values } => {
                    let each = 1.0 / f64::from(values.end - values.start);
                    let states = values.map(|value| {
                        let mut chosen = behind(state, index, Some(1.0));
                        chosen.registers.store(to, &value.to_ne_bytes());
                        (each, chosen)
                    });
                    return Move::Shares(states.collect());
                }
                Flow::Unknown => {
                    let at = state.at();
                    let held = behind(state, index, None);
                    next(state);
                    return Move::Unknown(at, Box::new(held));
                }
            }
        }
        // A rule that decides nothing is worth a word when it changed something.
        if rule.expressions.iter().any(changes) {
            state.note(Some(1.0));
        }
        next(state);
        Move::On
    }

    fn end_of_chain(&self, state: &mut State) -> Move {
        state.frames.pop();
        if !state.frames.is_empty() {
            return Move::On;
        }
        match self.dropping_policy(state) {
            Some(by) => Move::End(Ending::Dropped, Some(by)),
            None => Move::On,
        }
    }

    /// The policy of the base chain that is being walked, when it drops. It is the one that the
    /// stage entered: behind a goto, the last chain is another.
    fn dropping_policy(&self, state: &State) -> Option<RuleAt> {
        let entry = self
            .entries
            .get(&(state.family(), state.stage.hook()))?
            .get(state.entry.checked_sub(1)?)?;
        let table = self.ruleset.tables.get(entry.table as usize)?;
        let chain = table.chains.get(entry.chain.0 as usize)?;
        chain.base?.drops.then(|| RuleAt {
            table: entry.table,
            chain: entry.chain.0,
            rule: u32::try_from(chain.rules.len()).unwrap_or(u32::MAX),
        })
    }
}

/// The state in which the rest of a rule is evaluated.
fn behind(state: &State, expression: u32, chance: Option<f64>) -> State {
    let mut held = state.clone();
    if chance != Some(1.0) {
        held.note(chance);
    }
    if let Some(frame) = held.frames.last_mut() {
        frame.expression = expression + 1;
    }
    held
}

/// On to the next rule of the chain.
fn next(state: &mut State) {
    if let Some(frame) = state.frames.last_mut() {
        frame.rule += 1;
        frame.expression = 0;
    }
}

fn decide(state: &mut State, verdict: Verdict) -> Move {
    match verdict {
        Verdict::Accept => state.frames.clear(),
        Verdict::Drop => return Move::End(Ending::Dropped, Some(state.at())),
        Verdict::Queue => return Move::End(Ending::Queued, Some(state.at())),
        Verdict::Continue | Verdict::Break => next(state),
        Verdict::Return => {
            // At the end of its chain, whatever that leads to.
            if let Some(frame) = state.frames.last_mut() {
                frame.rule = u32::MAX;
                frame.expression = 0;
            }
        }
        Verdict::Jump(chain) => {
            next(state);
            return enter(state, chain);
        }
        Verdict::Goto(chain) => {
            state.frames.pop();
            return enter(state, chain);
        }
    }
    Move::On
}

fn enter(state: &mut State, chain: ChainId) -> Move {
    if state.frames.len() >= DEEPEST {
        return Move::End(Ending::Unknown, Some(state.at()));
    }
    state.frames.push(Frame {
        chain,
        rule: 0,
        expression: 0,
    });
    Move::On
}

/// nat chains see a connection until it is translated, or found to need none.
fn no_nat(state: &State, hook: Hook) -> bool {
    let done = match hook {
        Hook::Prerouting | Hook::Output => {
            state.nat_done.0 || state.destination_changed || state.stage == Stage::Returned
        }
        _ => state.nat_done.1 || state.source != SourceChange::Kept,
    };
    let established = state.later.is_some_and(|later| !later.has_nat());
    done || state.untracked || established
}

/// Whether an expression changes what later rules see.
fn changes(expression: &Expression) -> bool {
    match expression {
        Expression::SetMeta { .. }
        | Expression::SetCt { .. }
        | Expression::Notrack
        | Expression::Dynset { .. }
        | Expression::Target(_) => true,
        Expression::Match(found) => {
            matches!(&**found, Match::Recent { op, .. } if *op != RecentOp::Check)
        }
        _ => false,
    }
}
