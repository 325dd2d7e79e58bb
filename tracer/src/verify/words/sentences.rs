//! What is wrong, expected, found and to be done, in sentences.

use std::{net::SocketAddr, time::Duration};

use super::{RESTART, SHOWN};
use crate::{
    rules::{Ending, SourceChange, Spread},
    verify::{
        askers::Asker,
        compare::{Difference, Differing},
        endpoints::against,
        expect::Masquerade,
        judgement::Found,
        plan::{FrontKind, FrontPlan, PortPlan},
    },
};

pub(super) fn listed(addresses: &[SocketAddr]) -> String {
    let shown = addresses.iter().take(SHOWN).map(ToString::to_string);
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if addresses.len() > SHOWN {
        text = format!("{text} and {} more", addresses.len() - SHOWN);
    }
    text
}

pub(super) fn sentence(
    what: &Difference,
    plan: &PortPlan<'_>,
    first: &Found,
    foreign: bool,
) -> String {
    let at = first.front.at;
    let whose = if foreign {
        ", by a rule that is not kube-proxy's"
    } else {
        ""
    };
    match what {
        Difference::NotProgrammed => format!("no rule takes packets to {at}: they are not translated"),
        Difference::Rejected => format!("is refused at {at}, although endpoints are ready{whose}"),
        Difference::Dropped => format!("is dropped at {at}, although endpoints are ready{whose}"),
        Difference::Unreachable(to) => {
            format!("leads to {to}, and this node has no route there")
        }
        Difference::Missing(addresses) => format!(
            "never leads to {}, which {} to get traffic here",
            listed(addresses),
            if addresses.len() == 1 { "is" } else { "are" }
        ),
        Difference::Extra(addresses) | Difference::Undue(addresses) => {
            let first = addresses.first().copied().unwrap_or(at);
            let why = against(&plan.known, first);
            format!("leads to {}, {why}", listed(addresses))
        }
        Difference::Instead(missing, extra) => {
            format!("leads to {} instead of {}", listed(extra), listed(missing))
        }
        Difference::Uneven(to, share, even) => format!(
            "sends {:.1} % of connections to {to}, where {:.1} % would be even",
            share * 100.0,
            even * 100.0
        ),
        Difference::NotMasqueraded => "keeps the client's address where the node's must take its place: answers go past this node".to_owned(),
        Difference::Masqueraded => "hides the client's address, which is to be kept".to_owned(),
        Difference::NoHairpin => "a pod that reaches itself through it keeps its own address, and resets its own connection".to_owned(),
        Difference::PortNotRandom => "gives connections the node's address without drawing their port at random: those of several clients at once clash, and packets are lost".to_owned(),
        Difference::Affinity(found) => affinity(*found, plan),
        Difference::NotRefused => format!("is not refused at {at}, although nothing serves it: clients wait for a time-out"),
        Difference::SilentlyDropped => format!("is dropped in silence at {at}{whose}, where clients are to be refused: they wait for a time-out"),
        Difference::NotDropped => format!("is let through at {at}, and must be dropped"),
        Difference::RefusedNotDropped => format!("is refused at {at}{whose}, where packets are to be dropped in silence: a load balancer takes that for an answer"),
        Difference::ReplyDropped(from) => format!("gets packets to {}, whose replies are lost on their way back{whose}: clients wait for a time-out", listed(from)),
        Difference::ReplyUntranslated(from) => format!("gets packets to {}, whose replies are not translated back{whose}: clients take them for nobody's", listed(from)),
        Difference::LaterDropped(to) => format!("gets first packets to {}, and what clients send after them is lost{whose}: connections stall once they are open", listed(to)),
        Difference::LaterAstray(to) => format!("gets first packets to {}, and what clients send after them goes elsewhere{whose}: connections stall once they are open", listed(to)),
        Difference::Unknown => "cannot be judged: what becomes of its packets hangs on a rule that is not understood".to_owned(),
    }
}

fn affinity(found: Option<Duration>, plan: &PortPlan<'_>) -> String {
    match (found, plan.service.affinity) {
        (Some(found), None) => format!(
            "clients stay with their endpoint for {} s, although sessionAffinity is None",
            found.as_secs()
        ),
        (Some(found), Some(wanted)) => format!(
            "clients stay with their endpoint for {} s instead of {} s",
            found.as_secs(),
            wanted.as_secs()
        ),
        (None, _) => {
            "clients do not stay with their endpoint, although sessionAffinity is ClientIP"
                .to_owned()
        }
    }
}

pub(super) fn in_common(what: &Difference) -> &'static str {
    match what {
        Difference::NotProgrammed => "are not translated at all",
        Difference::Rejected => "are refused, although endpoints are ready",
        Difference::Dropped => "are dropped, although endpoints are ready",
        Difference::Unreachable(_) => "lead where this node has no route",
        Difference::Missing(_) => "never lead to some of their endpoints",
        Difference::Extra(_) | Difference::Undue(_) => "lead to what must get no traffic",
        Difference::Instead(..) => "lead elsewhere than to their endpoints",
        Difference::Uneven(..) => "spread connections unevenly",
        Difference::NotMasqueraded => {
            "keep the client's address where the node's must take its place"
        }
        Difference::Masqueraded => "hide the client's address, which is to be kept",
        Difference::NoHairpin => "let a pod that reaches itself keep its own address",
        Difference::PortNotRandom => {
            "give connections the node's address without drawing their port at random"
        }
        Difference::Affinity(_) => "do not keep clients as sessionAffinity says",
        Difference::NotRefused => "are not refused, although nothing serves them",
        Difference::SilentlyDropped => "are dropped in silence instead of refused",
        Difference::NotDropped => "are let through and must be dropped",
        Difference::RefusedNotDropped => "are refused instead of dropped",
        Difference::ReplyDropped(_) => "lose replies on their way back",
        Difference::ReplyUntranslated(_) => "have replies that are not translated back",
        Difference::LaterDropped(_) => "lose what clients send after a first packet",
        Difference::LaterAstray(_) => "do not send on what comes after a first packet",
        Difference::Unknown => "cannot be judged: a rule is not understood",
    }
}

pub(super) fn remedy(what: &Difference, foreign: bool) -> String {
    match what {
        _ if foreign => {
            "see who wrote that rule (a NetworkPolicy's CNI plugin, a firewall, somebody by hand); `tracer verify --from --to` shows the packet's whole way".to_owned()
        }
        Difference::Unreachable(_) => "the CNI plugin makes routes to pods: tracer doctor --only cni".to_owned(),
        Difference::Unknown => "tracer verify --from --to shows both ways; report the rule, so that it is learnt".to_owned(),
        _ => RESTART.to_owned(),
    }
}

/// What was expected there, in words.
pub(super) fn expected(found: &Found) -> String {
    let each = |wanted: &[SocketAddr]| match wanted {
        [] => String::new(),
        [only] => format!("to {only}"),
        several => format!("to {}, each alike", listed(several)),
    };
    let Differing { what, .. } = &found.differing;
    match what {
        Difference::NotRefused | Difference::SilentlyDropped => {
            "refused: nothing serves it".to_owned()
        }
        Difference::NotDropped | Difference::RefusedNotDropped => "dropped in silence".to_owned(),
        Difference::Undue(_) => "nothing gets it".to_owned(),
        Difference::NotMasqueraded | Difference::NoHairpin => {
            each(&found.wanted) + Masquerade::Must.words()
        }
        Difference::PortNotRandom => {
            each(&found.wanted) + Masquerade::Must.words() + " and a random port (fully-random)"
        }
        Difference::Masqueraded => each(&found.wanted) + Masquerade::MustNot.words(),
        _ => each(&found.wanted),
    }
}

/// What becomes of packets, in words.
pub(super) fn found(spread: Option<&Spread>, asked: SocketAddr) -> String {
    let Some(spread) = spread else {
        return String::new();
    };
    let ways = spread.branches.iter().take(SHOWN).map(|branch| {
        let outcome = &branch.outcome;
        let to = outcome.destination;
        let what = match &outcome.ending {
            Ending::Delivered | Ending::Sent(_) if to == asked => "as it is".to_owned(),
            Ending::Delivered | Ending::Sent(_) => format!("to {to}"),
            Ending::Dropped => "dropped".to_owned(),
            Ending::Rejected(_) => "refused".to_owned(),
            Ending::NoRoute => format!("no route to {}", to.ip()),
            Ending::NotForwarded => "not forwarded".to_owned(),
            Ending::Martian => "dropped as martian".to_owned(),
            Ending::Queued => "left to a program".to_owned(),
            Ending::Unknown => "unknown".to_owned(),
        };
        let source = match outcome.source {
            SourceChange::Kept => "",
            _ => " masqueraded",
        };
        format!("{:.1} % {what}{source}", branch.high * 100.0)
    });
    ways.collect::<Vec<_>>().join(", ")
}

/// Which address, asked by whom.
pub(super) fn place(front: FrontPlan, asker: &Asker) -> String {
    let kind = match front.kind {
        FrontKind::ClusterIp => "cluster IP",
        FrontKind::OtherPort => "another port of the cluster IP",
        FrontKind::NodePort => "node port",
        FrontKind::External => "external IP",
        FrontKind::LoadBalancer => "load balancer's IP",
    };
    format!("{kind} {} from {}", front.at, asker.words())
}

/// Where it was found, in words.
pub(super) fn places(found: &[Found]) -> String {
    let mut places: Vec<String> = Vec::new();
    for one in found {
        let place = place(one.front, &one.asker);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let more = places.len().saturating_sub(SHOWN);
    places.truncate(SHOWN);
    let mut text = places.join("; ");
    if more > 0 {
        text = format!("{text}; and {more} more");
    }
    text
}
