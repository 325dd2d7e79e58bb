//! One packet's way through the rules, put into words.

use std::collections::HashMap;

use super::Ask;
use crate::{
    model::walk::{ReplyWay, Walk, WalkStep, Way, WayEnd},
    rules::{
        Branch, Ending, Host, Origin, Outcome, RejectKind, Reply, RuleAt, Ruleset, SourceChange,
        Step, name_of_chain,
    },
};

/// Walks the packet of `ask`.
pub fn walk(ruleset: &Ruleset, host: &Host, ask: &Ask) -> Walk {
    let judge = ruleset.judges(host);
    let spread = judge.judge(ask.packet, ask.origin.clone(), true);
    let mut branches = spread.branches;
    branches.sort_by(|a, b| {
        b.high
            .total_cmp(&a.high)
            .then_with(|| a.outcome.cmp(&b.outcome))
    });
    let ways: Vec<Vec<Step>> = branches.iter().map(Branch::steps).collect();
    let common = common(&ways);
    let mut namer = Namer::new(ruleset);
    let steps = ways.first().map_or(&[][..], |way| &way[..common]);
    Walk {
        protocol: ask.packet.protocol,
        source: ask.packet.source,
        client: ask.client.clone(),
        destination: ask.packet.destination,
        service: ask.service.clone(),
        device: match &ask.origin {
            Origin::Host => None,
            Origin::Device(device) => Some(device.to_string()),
        },
        steps: steps.iter().map(|step| namer.step(step)).collect(),
        ways: branches
            .iter()
            .zip(&ways)
            .map(|(branch, steps)| Way {
                replies: replies(ask, judge.reply(branch, true), &mut namer),
                later: {
                    let next = judge.next_of_client(branch, ask.origin.clone(), true);
                    let branches = next.map_or(Vec::new(), |next| next.branches);
                    let ways = branches.iter();
                    ways.map(|branch| way(branch, &branch.steps(), &mut namer))
                        .collect()
                },
                ..way(branch, &steps[common..], &mut namer)
            })
            .collect(),
        unknown: spread.unknown.iter().map(|at| namer.unknown(*at)).collect(),
    }
}

/// How many steps all ways begin with.
fn common(ways: &[Vec<Step>]) -> usize {
    let Some((first, others)) = ways.split_first() else {
        return 0;
    };
    (0..first.len())
        .find(|index| {
            others
                .iter()
                .any(|way| way.get(*index) != first.get(*index))
        })
        .unwrap_or(first.len())
}

fn way(branch: &Branch, steps: &[Step], namer: &mut Namer<'_>) -> Way {
    let outcome = &branch.outcome;
    let (end, detail) = ending(outcome);
    Way {
        low: branch.low,
        high: branch.high,
        end,
        detail,
        destination: outcome.destination,
        source: match outcome.source {
            SourceChange::Kept => None,
            SourceChange::Masqueraded { .. } => Some("masqueraded".to_owned()),
            SourceChange::Translated(to) => Some(format!("translated to {to}")),
        },
        affinity: outcome.affinity,
        steps: steps.iter().map(|step| namer.step(step)).collect(),
        by: branch.by.map(|at| namer.full(at)),
        replies: Vec::new(),
        later: Vec::new(),
    }
}

fn replies(ask: &Ask, reply: Option<Reply>, namer: &mut Namer<'_>) -> Vec<ReplyWay> {
    let Some(reply) = reply else {
        return Vec::new();
    };
    let branches = reply.spread.branches.iter();
    let ways = branches.map(|branch| {
        let (end, detail) = ending(&branch.outcome);
        ReplyWay {
            low: branch.low,
            high: branch.high,
            end,
            detail,
            source: reply.source(ask.packet, branch),
            destination: branch.outcome.destination,
            right: reply.is_right(ask.packet, branch),
            steps: branch.steps().iter().map(|step| namer.step(step)).collect(),
            by: branch.by.map(|at| namer.full(at)),
        }
    });
    ways.collect()
}

/// How a way ends, and more of it.
fn ending(outcome: &Outcome) -> (WayEnd, String) {
    match &outcome.ending {
        Ending::Delivered => (WayEnd::Delivered, String::new()),
        Ending::Sent(device) => (WayEnd::Sent, device.to_string()),
        Ending::Dropped => (WayEnd::Dropped, String::new()),
        Ending::Rejected(kind) => (
            WayEnd::Rejected,
            refusal(*kind, outcome.destination.is_ipv4()),
        ),
        Ending::Queued => (WayEnd::Queued, String::new()),
        Ending::NoRoute => (WayEnd::NoRoute, String::new()),
        Ending::NotForwarded => (WayEnd::NotForwarded, String::new()),
        Ending::Martian => (WayEnd::Martian, String::new()),
        Ending::Unknown => (WayEnd::Unknown, String::new()),
    }
}

/// What a client gets, in words.
pub(super) fn refusal(kind: RejectKind, v4: bool) -> String {
    match kind {
        RejectKind::TcpReset => "TCP reset".to_owned(),
        RejectKind::Icmp(code) | RejectKind::Icmpx(code) => {
            // RFC 792 and RFC 1812; RFC 4443.
            let words = match (code, v4) {
                (0, true) => "network unreachable",
                (1, true) | (3, false) => "host unreachable",
                (2, true) => "protocol unreachable",
                (3, true) | (4, false) => "port unreachable",
                (0, false) => "no route",
                (9 | 10 | 13, true) | (1, false) => "administratively prohibited",
                _ => "unreachable",
            };
            format!("ICMP {words}")
        }
    }
}

/// Says what rules are.
pub(super) struct Namer<'a> {
    ruleset: &'a Ruleset,
    /// Services' ports by table and chain, from comments.
    commented: HashMap<(u32, u32), String>,
}

impl<'a> Namer<'a> {
    pub(super) fn new(ruleset: &'a Ruleset) -> Self {
        Self {
            ruleset,
            commented: HashMap::new(),
        }
    }

    fn step(&mut self, step: &Step) -> WalkStep {
        let place = self.ruleset.place(step.at);
        let place = place.map(|(table, chain)| (table.to_string(), chain.name.to_string()));
        let server = || {
            let (server, _) = step.at.server(self.ruleset)?;
            Some(("ipvs".to_owned(), server.to_string()))
        };
        let (table, chain) = place.or_else(server).unwrap_or_default();
        WalkStep {
            hook: step.hook.name(),
            table,
            chain,
            rule: self.ruleset.text(step.at),
            service: self.service(step.at),
            chance: step.chance,
        }
    }

    /// `ip filter FORWARD: TEXT`
    pub(super) fn full(&self, at: RuleAt) -> String {
        self.ruleset.line(at)
    }

    /// The same, with what is not understood of it.
    pub(super) fn unknown(&self, at: RuleAt) -> String {
        let set = at
            .rule(self.ruleset)
            .and_then(|rule| self.ruleset.unread_set(rule));
        match set {
            Some(why) => format!("{} ({why})", self.full(at)),
            None => self.full(at),
        }
    }

    /// The Service's port that a rule serves: its chain's name says so, or a comment.
    fn service(&mut self, at: RuleAt) -> Option<String> {
        let (_, chain) = self.ruleset.place(at)?;
        if let Some(name) = name_of_chain(&chain.name).filter(|name| name.contains('/')) {
            return Some(name.to_string());
        }
        let of_rule = |at: RuleAt| {
            let comment = at.rule(self.ruleset)?.comment()?;
            let name = comment.split(' ').next()?;
            let named = name.contains('/') && !name.starts_with("kubernetes");
            named.then(|| name.to_owned())
        };
        if let Some(name) = of_rule(at) {
            self.commented.insert((at.table, at.chain), name.clone());
            return Some(name);
        }
        self.commented.get(&(at.table, at.chain)).cloned()
    }
}
