//! `Spread`: what becomes of a packet, with probabilities. An interval where a rule that is not
//! understood decides.

use std::rc::Rc;

use super::{
    Memory, Outcome, RuleAt, Step,
    later::{Connection, undone_by},
    state::State,
};

/// Probabilities that differ by less are the same.
const SAME: f64 = 1e-9;

/// One thing that may become of a packet.
#[derive(Clone, Debug)]
pub struct Branch {
    /// What.
    pub outcome: Outcome,
    /// At least with this probability.
    pub low: f64,
    /// At most with this probability.
    pub high: f64,
    /// The rule that ended its way; `None` when none did.
    pub by: Option<RuleAt>,
    /// Where the client is remembered then, on one such way.
    pub memory: Rc<[Memory]>,
    /// What is then known of the connection, on one such way.
    pub(super) connection: Connection,
    /// Where the walk kept them, the rules on one such way.
    steps: Option<Rc<Walked>>,
}

impl Branch {
    pub(super) fn new(outcome: Outcome, by: Option<RuleAt>, state: State) -> Self {
        Self {
            outcome,
            low: 1.0,
            high: 1.0,
            by: by.or_else(|| undone_by(&state)),
            connection: Connection::of(&state),
            memory: state.noted.into(),
            steps: state.steps,
        }
    }

    /// The rules on one such way, from the first.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut at = self.steps.as_ref();
        while let Some(walked) = at {
            steps.push(walked.step.clone());
            at = walked.before.as_ref();
        }
        steps.reverse();
        steps
    }
}

/// A step, and those before it; ways share what they have in common.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) step: Step,
    pub(super) before: Option<Rc<Walked>>,
}

/// All that may become of a packet.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    /// In the order in which it was found.
    pub branches: Vec<Branch>,
    /// Rules that are not understood and on which the answer hangs, each once.
    pub unknown: Vec<RuleAt>,
}

impl Spread {
    /// The one thing that becomes of it, when it is certain.
    pub fn certain(&self) -> Option<&Branch> {
        match self.branches.as_slice() {
            [only] if self.unknown.is_empty() => Some(only),
            _ => None,
        }
    }

    /// Adds a branch to be taken with probability `share`.
    pub(super) fn add(&mut self, branch: Branch, share: f64) {
        let known = self
            .branches
            .iter_mut()
            .find(|known| known.outcome == branch.outcome);
        match known {
            Some(known) => {
                known.low += branch.low * share;
                known.high += branch.high * share;
            }
            None => self.branches.push(Branch {
                low: branch.low * share,
                high: branch.high * share,
                ..branch
            }),
        }
    }

    /// Adds all of `other`, to be met with probability `share`.
    pub(super) fn add_all(&mut self, other: Spread, share: f64) {
        for branch in other.branches {
            self.add(branch, share);
        }
        self.hangs_on(&other.unknown);
    }

    /// Either of two, by a rule that is not understood.
    pub(super) fn either(held: Spread, not: Spread, by: RuleAt) -> Spread {
        if held.same(&not) {
            return not;
        }
        let mut both = Spread::any(not, held);
        both.hangs_on(&[by]);
        both
    }

    /// Either of two; nobody says which.
    pub(super) fn any(one: Spread, held: Spread) -> Spread {
        let mut both = one;
        for branch in &mut both.branches {
            let other = held
                .branches
                .iter()
                .find(|other| other.outcome == branch.outcome);
            branch.low = branch.low.min(other.map_or(0.0, |other| other.low));
            branch.high = branch.high.max(other.map_or(0.0, |other| other.high));
        }
        for branch in held.branches {
            if both
                .branches
                .iter()
                .all(|one| one.outcome != branch.outcome)
            {
                both.branches.push(Branch { low: 0.0, ..branch });
            }
        }
        both.hangs_on(&held.unknown);
        both
    }

    fn hangs_on(&mut self, rules: &[RuleAt]) {
        for rule in rules {
            if !self.unknown.contains(rule) {
                self.unknown.push(*rule);
            }
        }
    }

    fn same(&self, other: &Spread) -> bool {
        self.branches.len() == other.branches.len()
            && self.branches.iter().all(|branch| {
                other.branches.iter().any(|one| {
                    one.outcome == branch.outcome
                        && (one.low - branch.low).abs() < SAME
                        && (one.high - branch.high).abs() < SAME
                })
            })
    }
}
