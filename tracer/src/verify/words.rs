//! Differences put into findings: what is wrong with which Service port, what was expected, what
//! was found, by which rule, and what to do. What many ports have in common is said once.

mod alone;
mod ipvs;
mod sentences;

use std::net::SocketAddr;

use self::sentences::{expected, found, in_common, listed, place, places, remedy, sentence};
pub(super) use self::{
    alone::{conflict, no_rules, two_backends, two_modes},
    ipvs::DEVICE,
};

use super::{
    compare::Difference,
    judgement::{Case, Found, Kept},
    plan::PortPlan,
    walk::Namer,
};
use crate::{
    model::{
        finding::{Finding, Severity},
        verified::KeptAway,
    },
    rules::{Branch, Expression, RuleAt, Spread, Step, Target, is_kube_routers},
};

/// What helps where kube-proxy's rules are not what they are to be.
pub(super) const RESTART: &str = "have kube-proxy write its rules anew: kubectl -n kube-system rollout restart ds/kube-proxy; `tracer doctor` tells whether it runs and when it wrote last";

/// What would show that it is none.
pub(super) const LAG: &str = "a change of the objects within the last seconds, which kube-proxy is still to write; another run tells";

/// Ports with the same thing wrong are told one by one up to here.
const APART: usize = 5;

/// Places and addresses shown.
const SHOWN: usize = 6;

/// Differences of one kind at one Service port.
struct Group {
    plan: usize,
    what: Difference,
    by: Option<RuleAt>,
    found: Vec<Found>,
}

/// Makes findings of differences.
pub(super) struct Words<'a> {
    case: &'a Case<'a>,
    plans: &'a [PortPlan<'a>],
    namer: Namer<'a>,
}

impl<'a> Words<'a> {
    pub(super) fn new(case: &'a Case<'a>, plans: &'a [PortPlan<'a>]) -> Self {
        Self {
            case,
            plans,
            namer: Namer::new(case.ruleset),
        }
    }

    pub(super) fn findings(&mut self, found: Vec<Found>) -> Vec<Finding> {
        let mut groups: Vec<Group> = Vec::new();
        for one in found {
            let plan = one.plan;
            // Those of one plan stand together.
            let known = groups
                .iter_mut()
                .rev()
                .take_while(|group| group.plan == plan);
            let mut known = known.filter(|group| name(&group.what) == name(&one.differing.what));
            match known.next() {
                Some(group) => {
                    merge(&mut group.what, &one.differing.what);
                    group.found.push(one);
                }
                None => groups.push(Group {
                    plan,
                    what: one.differing.what.clone(),
                    by: one.differing.by,
                    found: vec![one],
                }),
            }
        }
        absorb(&mut groups);
        let mut findings = Vec::new();
        let mut kinds: Vec<&'static str> = groups.iter().map(|one| name(&one.what)).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let same = groups.iter().filter(|group| name(&group.what) == kind);
            let same: Vec<_> = same.collect();
            if same.len() > APART {
                findings.extend(self.in_common(&same));
            } else {
                findings.extend(same.iter().map(|group| self.finding(group)));
            }
        }
        findings
    }

    /// One finding for what many ports have wrong.
    fn in_common(&mut self, groups: &[&Group]) -> Option<Finding> {
        let first = groups.first()?;
        let mut finding = self.finding(first);
        let objects = groups.iter().map(|group| self.plans[group.plan].object());
        let objects: Vec<_> = objects.collect();
        let of_one = format!("{}: {}", finding.object, finding.sentence);
        finding.object = format!("{} Service ports", groups.len());
        in_common(&first.what).clone_into(&mut finding.sentence);
        let more = objects.len().saturating_sub(SHOWN);
        let listed = objects.into_iter().take(SHOWN).collect::<Vec<_>>();
        let mut listed = listed.join("; ");
        if more > 0 {
            listed = format!("{listed}; and {more} more");
        }
        finding.evidence.insert(0, of_one);
        finding.evidence.insert(0, listed);
        Some(finding)
    }

    fn finding(&mut self, group: &Group) -> Finding {
        let plan = &self.plans[group.plan];
        let first = &group.found[0];
        let spread = self.case.trace(first, plan);
        let mut evidence = vec![
            format!("expected  {}", expected(first)),
            format!("found     {}", found(spread.as_ref(), first.front.at)),
        ];
        let rule = self.rule(group, spread.as_ref());
        let foreign = rule.as_ref().is_some_and(|(_, foreign)| *foreign);
        evidence.extend(rule.map(|(words, _)| words));
        evidence.push(format!("asked     {}", places(&group.found)));
        Finding {
            name: name(&group.what),
            severity: severity(&group.what),
            object: plan.object(),
            sentence: sentence(&group.what, plan, first, foreign),
            stage: None,
            evidence,
            since: None,
            share: None,
            remedy: remedy(&group.what, foreign),
            refuted_by: LAG.to_owned(),
        }
    }

    /// The rule that does it, or the chain that lacks one; and whether it is another's than
    /// kube-proxy's.
    fn rule(&mut self, group: &Group, spread: Option<&Spread>) -> Option<(String, bool)> {
        if let Some(by) = group.by {
            let foreign = !self.is_of_proxy(by);
            return Some((format!("rule      {}", self.namer.full(by)), foreign));
        }
        let spread = spread?;
        let asked = group.found[0].front.at;
        let to = |addresses: &[SocketAddr]| {
            let mut branches = spread.branches.iter();
            branches.find(|one| addresses.contains(&one.outcome.destination))
        };
        let first = &group.found[0];
        if let Some(line) = ipvs::evidence(
            self.case,
            &self.plans[group.plan],
            first,
            &group.what,
            spread,
        ) {
            return Some((line, false));
        }
        let lacks = |branch: &Branch, what: &str| {
            let steps = branch.steps();
            let last = steps.iter().rev().find(|step| self.is_choice(step))?;
            let (table, chain) = self.case.ruleset.place(last.at)?;
            Some((
                format!("absent    no rule in {table} {} {what}", chain.name),
                false,
            ))
        };
        let any = spread.branches.first();
        match &group.what {
            Difference::Extra(addresses)
            | Difference::Instead(_, addresses)
            | Difference::Undue(addresses) => {
                let branch = to(addresses)?;
                let steps = branch.steps();
                let last = steps.iter().rev().find(|step| self.translates(step))?;
                Some((format!("rule      {}", self.namer.full(last.at)), false))
            }
            Difference::Uneven(at, _, _) => {
                let branch = to(&[*at])?;
                let steps = branch.steps();
                let last = steps.iter().rev().find(|step| self.is_choice(step))?;
                Some((format!("rule      {}", self.namer.full(last.at)), false))
            }
            Difference::Missing(addresses) => {
                lacks(any?, &format!("leads to {}", listed(addresses)))
            }
            Difference::NotMasqueraded | Difference::NoHairpin => {
                lacks(any?, "or behind it marks these packets for masquerading")
            }
            Difference::NotProgrammed => Some((
                format!("absent    no rule of kube-proxy's takes {asked}"),
                false,
            )),
            Difference::NotRefused => Some((
                format!("absent    no rule of kube-proxy's rejects {asked}"),
                false,
            )),
            _ => None,
        }
    }

    /// Whether kube-proxy wrote the rule, by its chain.
    fn is_of_proxy(&self, at: RuleAt) -> bool {
        let Some((table, chain)) = self.case.ruleset.place(at) else {
            return at.server(self.case.ruleset).is_some();
        };
        &*table.name == "kube-proxy"
            || chain.name.starts_with("KUBE-") && !is_kube_routers(&chain.name)
    }

    /// A rule of the chain that chooses among endpoints.
    fn is_choice(&self, step: &Step) -> bool {
        const CHAINS: [&str; 6] = [
            "KUBE-SVC-",
            "KUBE-SVL-",
            "KUBE-EXT-",
            "service-",
            "local-",
            "external-",
        ];
        let place = self.case.ruleset.place(step.at);
        step.at.server(self.case.ruleset).is_some()
            || place.is_some_and(|(_, chain)| CHAINS.iter().any(|of| chain.name.starts_with(of)))
    }

    /// A rule that translates: the last one of the hook in which addresses change.
    fn translates(&self, step: &Step) -> bool {
        let by_ipvs = step.at.server(self.case.ruleset).is_some();
        by_ipvs
            || step.at.rule(self.case.ruleset).is_some_and(|rule| {
                rule.expressions.iter().any(|one| match one {
                    Expression::Nat { .. } => true,
                    Expression::Target(target) => matches!(**target, Target::Nat(_)),
                    _ => false,
                })
            })
    }
}

/// What each engine of NetworkPolicies keeps away.
pub(super) fn kept_away(kept: &[Kept], plans: &[PortPlan<'_>]) -> Vec<KeptAway> {
    let mut all: Vec<KeptAway> = Vec::new();
    let mut last = None;
    for one in kept {
        let index = all.iter().position(|known| known.engine == one.engine);
        let index = index.unwrap_or_else(|| {
            all.push(KeptAway {
                engine: one.engine,
                ports: 0,
                packets: 0,
                first: Vec::new(),
            });
            all.len() - 1
        });
        let known = &mut all[index];
        known.packets += 1;
        // Those of one plan stand together.
        known.ports += usize::from(last.replace((index, one.plan)) != Some((index, one.plan)));
        if known.first.len() < SHOWN {
            let object = plans[one.plan].object();
            let place = place(one.front, &one.asker);
            known.first.push(format!("{object}: {place}"));
        }
    }
    all
}

/// Where an endpoint is missing altogether, addresses that lead to it alone lead nowhere.
fn absorb(groups: &mut Vec<Group>) {
    let missing: Vec<_> = groups
        .iter()
        .filter_map(|group| match &group.what {
            Difference::Missing(addresses) => Some((group.plan, addresses.clone())),
            _ => None,
        })
        .collect();
    groups.retain(|group| {
        let follows = missing.iter().any(|(plan, addresses)| {
            let of = |one: &Found| one.wanted.iter().all(|at| addresses.contains(at));
            *plan == group.plan && group.found.iter().all(of)
        });
        group.what != Difference::NotProgrammed || !follows
    });
}

fn merge(into: &mut Difference, more: &Difference) {
    let add = |into: &mut Vec<SocketAddr>, more: &[SocketAddr]| {
        into.extend(more);
        into.sort_unstable();
        into.dedup();
    };
    match (into, more) {
        (Difference::Missing(into), Difference::Missing(more))
        | (Difference::Extra(into), Difference::Extra(more))
        | (Difference::Undue(into), Difference::Undue(more))
        | (Difference::ReplyDropped(into), Difference::ReplyDropped(more))
        | (Difference::ReplyUntranslated(into), Difference::ReplyUntranslated(more))
        | (Difference::LaterDropped(into), Difference::LaterDropped(more))
        | (Difference::LaterAstray(into), Difference::LaterAstray(more)) => {
            add(into, more);
        }
        (Difference::Instead(a, b), Difference::Instead(c, d)) => {
            add(a, c);
            add(b, d);
        }
        _ => {}
    }
}

/// The name that JSON has.
fn name(what: &Difference) -> &'static str {
    match what {
        Difference::NotProgrammed => "not_programmed",
        Difference::Rejected => "rejected",
        Difference::Dropped => "dropped",
        Difference::Unreachable(_) => "no_route",
        Difference::Missing(_) => "missing_endpoint",
        Difference::Extra(_) => "extra_endpoint",
        Difference::Instead(missing, extra) if same_addresses(missing, extra) => "wrong_port",
        Difference::Instead(..) => "wrong_endpoint",
        Difference::Uneven(..) => "uneven_spread",
        Difference::NotMasqueraded => "no_masquerade",
        Difference::Masqueraded => "undue_masquerade",
        Difference::NoHairpin => "no_hairpin",
        Difference::PortNotRandom => "port_not_random",
        Difference::Affinity(_) => "affinity",
        Difference::NotRefused => "no_reject",
        Difference::SilentlyDropped => "dropped_not_rejected",
        Difference::NotDropped => "no_drop",
        Difference::RefusedNotDropped => "rejected_not_dropped",
        Difference::Undue(_) => "undue_endpoint",
        Difference::ReplyDropped(_) => "reply_dropped",
        Difference::ReplyUntranslated(_) => "reply_untranslated",
        Difference::LaterDropped(_) => "later_dropped",
        Difference::LaterAstray(_) => "later_astray",
        Difference::Unknown => "unknown_rule",
    }
}

fn same_addresses(missing: &[SocketAddr], extra: &[SocketAddr]) -> bool {
    extra
        .iter()
        .all(|at| missing.iter().any(|of| of.ip() == at.ip()))
}

fn severity(what: &Difference) -> Severity {
    match what {
        Difference::Uneven(..)
        | Difference::Masqueraded
        | Difference::PortNotRandom
        | Difference::Affinity(_)
        | Difference::NotRefused
        | Difference::SilentlyDropped
        | Difference::RefusedNotDropped
        | Difference::Unknown => Severity::Warning,
        _ => Severity::Broken,
    }
}
