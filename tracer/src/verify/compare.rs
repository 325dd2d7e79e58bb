//! What is to become of a packet against what the rules make of it: the differences, by kind.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::expect::{Expect, Masquerade};
use crate::rules::{Branch, Ending, Packet, Reply, RuleAt, SourceChange, Spread};

/// Shares that differ by less, of what each is to get, are the same: kube-proxy writes
/// probabilities with ten digits, and the kernel keeps 31 bits.
pub(super) const EVEN: f64 = 0.01;

/// How what is found differs from what is expected.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Difference {
    /// Nothing translates the address.
    NotProgrammed,
    /// It is refused, although there are endpoints.
    Rejected,
    /// It is dropped on its way, at what is translated to.
    Dropped,
    /// There is no way to this endpoint.
    Unreachable(SocketAddr),
    /// These never get anything.
    Missing(Vec<SocketAddr>),
    /// These get packets and must not.
    Extra(Vec<SocketAddr>),
    /// Both: what is missing, and what is there instead.
    Instead(Vec<SocketAddr>, Vec<SocketAddr>),
    /// This one gets another share than the others: found, and even.
    Uneven(SocketAddr, f64, f64),
    /// The client's address is kept and must not be.
    NotMasqueraded,
    /// It is replaced and must not be.
    Masqueraded,
    /// A pod that reaches itself keeps its address.
    NoHairpin,
    /// The node's address takes the client's place, and the port is not drawn at random.
    PortNotRandom,
    /// Clients do not stay where they were, or for another time: found.
    Affinity(Option<Duration>),
    /// It is let go, although nobody serves.
    NotRefused,
    /// It is dropped, where the client is to be told.
    SilentlyDropped,
    /// It is let go, and must be dropped.
    NotDropped,
    /// It is refused, where it is to be dropped.
    RefusedNotDropped,
    /// These get packets, although nobody is to.
    Undue(Vec<SocketAddr>),
    /// Replies of these are lost on their way back.
    ReplyDropped(Vec<SocketAddr>),
    /// Replies of these come from another address than was asked, or to another than the client's.
    ReplyUntranslated(Vec<SocketAddr>),
    /// What clients send to these after their first packet is lost.
    LaterDropped(Vec<SocketAddr>),
    /// What clients send after a first packet that these got goes elsewhere, or from another address.
    LaterAstray(Vec<SocketAddr>),
    /// A rule that is not understood decides.
    Unknown,
}

/// A difference, and the rule that ends the packet's way where one does.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Differing {
    pub(super) what: Difference,
    pub(super) by: Option<RuleAt>,
}

/// What became of a packet, as far as it is compared.
struct Seen<'a> {
    /// Destinations after translation, and their shares at least and at most.
    reached: Vec<(SocketAddr, f64, f64)>,
    /// Branches whose address nothing translates and that go on.
    untouched: bool,
    /// Branches whose address nothing translates, and that is this host's own, where nobody listens at
    /// it: the host refuses by itself.
    own: bool,
    rejected: Option<&'a Branch>,
    dropped: Option<&'a Branch>,
    unroutable: Option<&'a Branch>,
    /// Branches that NetworkPolicies keep away before anything could translate them.
    kept_away: bool,
}

/// `by_policy`: whether NetworkPolicies end a branch's way. Where it leads is seen all the same.
fn seen(spread: &Spread, asked: SocketAddr, by_policy: impl Fn(&Branch) -> bool) -> Seen<'_> {
    let mut seen = Seen {
        reached: Vec::new(),
        untouched: false,
        own: false,
        rejected: None,
        dropped: None,
        unroutable: None,
        kept_away: false,
    };
    for branch in &spread.branches {
        let to = branch.outcome.destination;
        let ending = &branch.outcome.ending;
        let kept_away = by_policy(branch);
        let leads =
            kept_away || matches!(ending, Ending::Delivered | Ending::Sent(_) | Ending::Queued);
        match ending {
            _ if kept_away && to == asked => seen.kept_away = true,
            _ if leads && to != asked => match seen.reached.iter_mut().find(|(at, ..)| *at == to) {
                Some((_, low, high)) => {
                    *low += branch.low;
                    *high += branch.high;
                }
                None => seen.reached.push((to, branch.low, branch.high)),
            },
            Ending::Delivered => seen.own = true,
            Ending::Sent(_) | Ending::Queued => seen.untouched = true,
            Ending::Rejected(_) => seen.rejected = Some(branch),
            Ending::Dropped | Ending::Martian => seen.dropped = Some(branch),
            Ending::NoRoute | Ending::NotForwarded | Ending::Unknown => {
                seen.unroutable = Some(branch);
            }
        }
    }
    seen.reached.sort_by_key(|(at, ..)| *at);
    seen
}

/// Compares what becomes of a `packet`. `affinity` is the time that clients are to stay with their endpoint. What
/// NetworkPolicies keep away, as `by_policy` tells, is taken for what would get there.
pub(super) fn compare(
    expect: Expect<'_>,
    spread: &Spread,
    packet: Packet,
    affinity: Option<Duration>,
    by_policy: impl Fn(&Branch) -> bool,
) -> Vec<Differing> {
    let (asked, source) = (packet.destination, packet.source.ip());
    if let Some(by) = spread.unknown.first() {
        return one(Difference::Unknown, Some(*by));
    }
    let seen = seen(spread, asked, by_policy);
    if seen.kept_away {
        return Vec::new();
    }
    let addresses = || seen.reached.iter().map(|(at, ..)| *at).collect::<Vec<_>>();
    let refused = seen.rejected.is_some() || seen.unroutable.is_some();
    match expect {
        Expect::Backends(wanted, masquerade) => {
            let mut all = of_backends(wanted, &seen);
            all.extend(of_sources(spread, asked, source, masquerade, wanted));
            all.extend(of_affinity(spread, asked, affinity));
            all
        }
        _ if !seen.reached.is_empty() => one(Difference::Undue(addresses()), None),
        Expect::Refused if seen.untouched => one(Difference::NotRefused, None),
        Expect::Refused => match seen.dropped {
            Some(branch) => one(Difference::SilentlyDropped, branch.by),
            None => Vec::new(),
        },
        Expect::Dropped | Expect::Stopped if seen.untouched => one(Difference::NotDropped, None),
        Expect::Dropped if refused || seen.own => {
            let by = seen.rejected.and_then(|branch| branch.by);
            one(Difference::RefusedNotDropped, by)
        }
        Expect::Dropped | Expect::Stopped => Vec::new(),
    }
}

fn one(what: Difference, by: Option<RuleAt>) -> Vec<Differing> {
    vec![Differing { what, by }]
}

/// Who gets packets; of several things wrong the one that the others follow from.
fn of_backends(wanted: &[SocketAddr], seen: &Seen<'_>) -> Vec<Differing> {
    // What is translated as it should be and goes wrong after that.
    let after = |branch: Option<&Branch>| {
        let branch = branch.filter(|branch| wanted.contains(&branch.outcome.destination))?;
        Some((branch.outcome.destination, branch.by))
    };
    if let Some((_, by)) = after(seen.dropped) {
        return one(Difference::Dropped, by);
    }
    if let Some((_, by)) = after(seen.rejected) {
        return one(Difference::Rejected, by);
    }
    if let Some((at, by)) = after(seen.unroutable) {
        return one(Difference::Unreachable(at), by);
    }
    if seen.reached.is_empty() {
        return match (seen.rejected, seen.dropped) {
            (Some(branch), _) => one(Difference::Rejected, branch.by),
            (None, Some(branch)) => one(Difference::Dropped, branch.by),
            (None, None) => one(Difference::NotProgrammed, None),
        };
    }
    let missing: Vec<_> = wanted
        .iter()
        .filter(|at| !seen.reached.iter().any(|(to, ..)| to == *at))
        .copied()
        .collect();
    let extra: Vec<_> = seen
        .reached
        .iter()
        .map(|(at, ..)| *at)
        .filter(|at| !wanted.contains(at))
        .collect();
    match (missing.is_empty(), extra.is_empty()) {
        (false, false) => return one(Difference::Instead(missing, extra), None),
        (false, true) => return one(Difference::Missing(missing), None),
        (true, false) => return one(Difference::Extra(extra), None),
        (true, true) => {}
    }
    #[expect(clippy::cast_precision_loss, reason = "there are few")]
    let even = 1.0 / wanted.len() as f64;
    // The share that is nearest to even, of those that it may be.
    let shares = seen.reached.iter();
    let shares = shares.map(|(at, low, high)| (*at, even.max(*low).min(*high)));
    let apart = |share: f64| (share - even).abs() / even;
    let worst = shares.max_by(|a, b| apart(a.1).total_cmp(&apart(b.1)));
    match worst {
        Some((at, share)) if apart(share) > EVEN => one(Difference::Uneven(at, share, even), None),
        _ => Vec::new(),
    }
}

/// Whether clients' addresses are kept or replaced.
fn of_sources(
    spread: &Spread,
    asked: SocketAddr,
    source: IpAddr,
    masquerade: Masquerade,
    wanted: &[SocketAddr],
) -> Vec<Differing> {
    let mut found = Vec::new();
    let mut note = |what: Difference| {
        if !found.iter().any(|one: &Differing| one.what == what) {
            found.push(Differing { what, by: None });
        }
    };
    for branch in &spread.branches {
        let outcome = &branch.outcome;
        let to = outcome.destination;
        // To a socket of this host the answer comes back by itself.
        let leaves = matches!(outcome.ending, Ending::Sent(_));
        if !leaves || to == asked || !wanted.contains(&to) {
            continue;
        }
        let kept = outcome.source == SourceChange::Kept;
        match (to.ip() == source, masquerade) {
            (true, Masquerade::Must | Masquerade::MustNot) if kept => note(Difference::NoHairpin),
            (false, Masquerade::Must) if kept => note(Difference::NotMasqueraded),
            (false, Masquerade::MustNot) if !kept => note(Difference::Masqueraded),
            (true, Masquerade::Must | Masquerade::MustNot) | (false, Masquerade::Must)
                if outcome.source == (SourceChange::Masqueraded { random: false }) =>
            {
                note(Difference::PortNotRandom);
            }
            _ => {}
        }
    }
    found
}

fn of_affinity(spread: &Spread, asked: SocketAddr, wanted: Option<Duration>) -> Option<Differing> {
    let mut reached = spread.branches.iter().filter(|branch| {
        let outcome = &branch.outcome;
        outcome.destination != asked && outcome.arrives()
    });
    let other = reached.find(|branch| branch.outcome.affinity != wanted)?;
    Some(Differing {
        what: Difference::Affinity(other.outcome.affinity),
        by: None,
    })
}

/// Whether the reply to a client's first packet `first` is lost, or is none to the client; `None` when all is well.
pub(super) fn of_reply(first: Packet, reply: &Reply) -> Option<Differing> {
    let from = vec![reply.packet.source];
    let is_right = |branch: &Branch| reply.is_right(first, branch);
    follower(&reply.spread, is_right, |arrives| {
        if arrives {
            Difference::ReplyUntranslated(from)
        } else {
            Difference::ReplyDropped(from)
        }
    })
}

/// Whether what the client sends next is lost, or does not go the way `first` of its first packet; `None` when all is
/// well.
pub(super) fn of_next(first: &Branch, next: &Spread) -> Option<Differing> {
    let to = vec![first.outcome.destination];
    let is_right = |branch: &Branch| first.goes_on(branch);
    follower(next, is_right, |arrives| {
        if arrives {
            Difference::LaterAstray(to)
        } else {
            Difference::LaterDropped(to)
        }
    })
}

/// What is wrong with a later packet of a connection, by whether it arrives.
fn follower(
    spread: &Spread,
    is_right: impl Fn(&Branch) -> bool,
    what: impl FnOnce(bool) -> Difference,
) -> Option<Differing> {
    if let Some(by) = spread.unknown.first() {
        return Some(Differing {
            what: Difference::Unknown,
            by: Some(*by),
        });
    }
    let wrong = spread.branches.iter().find(|branch| !is_right(branch))?;
    Some(Differing {
        what: what(wrong.outcome.arrives()),
        by: wrong.by,
    })
}
