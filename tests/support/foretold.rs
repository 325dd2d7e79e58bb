//! What the evaluator foretells of a packet, as whoever sends it would see it; and whether what happened can
//! have come of that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use tracer::model::cluster::PortProtocol;
use tracer::rules::{Branch, Ending, Host, Judge, Packet, RejectKind, SourceChange};

use super::probe::Fate;
use super::tally::{Tally, far_apart};

/// Who takes packets in the namespaces of a test.
#[derive(Default)]
pub(crate) struct Served {
    /// Hosts that answer, if only that nobody listens.
    pub(crate) known: BTreeSet<IpAddr>,
    /// Where servers listen.
    pub(crate) at: BTreeSet<SocketAddr>,
}

/// Someone asks at an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) source: IpAddr,
    pub(crate) to: SocketAddr,
    pub(crate) protocol: PortProtocol,
    /// The node itself asks.
    pub(crate) by_node: bool,
    /// Packets that are let out by `eth0` untranslated are seen.
    pub(crate) watched: bool,
}

impl Served {
    /// What may become of it, with probabilities.
    pub(crate) fn fates(
        &self,
        asked: Asked,
        judge: &Judge<'_>,
        host: &Host,
    ) -> BTreeMap<Fate, f64> {
        let source = asked.source;
        let packet = Packet {
            source: SocketAddr::new(source, 50_000),
            destination: asked.to,
            protocol: asked.protocol,
        };
        let spread = judge.judge(packet, host.origin_of(source), false);
        let out = Ending::Sent("eth0".into());
        let mut fates = BTreeMap::new();
        for branch in spread.branches {
            let outcome = &branch.outcome;
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
                    () if client == to.ip() && !asked.by_node => Fate::Silence,
                    // A martian to whom it comes.
                    () if client.is_loopback() && !host.is_local(to.ip()) => Fate::Silence,
                    () if self.at.contains(&to) => Fate::Answered(to, client),
                    () if self.known.contains(&to.ip()) || host.is_local(to.ip()) => Fate::Refused,
                    () if asked.watched && outcome.ending == out && (kept || asked.by_node) => {
                        Fate::Passed
                    }
                    () => Fate::Silence,
                },
                // Rejected, or without a route, of which the client is told too.
                _ => Fate::Refused,
            };
            let mut add = |fate, share: f64| {
                if share > 0.0 {
                    *fates.entry(fate).or_insert(0.0) += branch.high * share;
                }
            };
            // It is another kind of packet that tells of a refusal.
            if !matches!(fate, Fate::Answered(..)) {
                add(fate, 1.0);
                continue;
            }
            // What is answered and does not come back is nothing to the client, who then sends nothing more.
            let lost = lost(judge, packet, &branch);
            add(Fate::Silence, lost);
            let mut goes_on = 1.0;
            for (fate, share) in stopped(judge, packet, host, &branch) {
                let passed = fate == Fate::Passed && !asked.watched;
                add(
                    if passed { Fate::Silence } else { fate },
                    (1.0 - lost) * share,
                );
                goes_on -= share;
            }
            add(fate, (1.0 - lost) * goes_on);
        }
        fates
    }
}

/// Which share of the replies does not come to the client from where it asked.
fn lost(judge: &Judge<'_>, first: Packet, branch: &Branch) -> f64 {
    let Some(reply) = judge.reply(branch, false) else {
        return 0.0;
    };
    let ways = reply.spread.branches.iter();
    let wrong = ways.filter(|way| !reply.is_right(first, way));
    wrong.map(|way| way.high).sum()
}

/// Which shares of what the client sends next do not go the way of its first packet, and what becomes of them.
fn stopped(judge: &Judge<'_>, first: Packet, host: &Host, branch: &Branch) -> Vec<(Fate, f64)> {
    let origin = host.origin_of(first.source.ip());
    let next = judge.next_of_client(branch, origin, false);
    let ways = next.map_or(Vec::new(), |next| next.branches).into_iter();
    let stopped = ways.filter(|way| !branch.goes_on(way)).map(|way| {
        let told = match way.outcome.ending {
            Ending::Rejected(RejectKind::TcpReset) => true,
            // An ICMP error does not end a connection of TCP that is open (RFC 1122, section 4.2.3.9).
            Ending::Rejected(_) => first.protocol == PortProtocol::Udp,
            _ => false,
        };
        let out = way.outcome.ending == Ending::Sent("eth0".into());
        let fate = match () {
            () if told => Fate::Refused,
            () if out && way.outcome.source == SourceChange::Kept => Fate::Passed,
            () => Fate::Silence,
        };
        (fate, way.high)
    });
    stopped.collect()
}

/// Whether what happened cannot have come of what was foretold: something else happened, or, where shares are
/// looked at, one is further off than five standard deviations.
pub(crate) fn contradicts(foretold: &BTreeMap<Fate, f64>, tally: &Tally, shares: bool) -> bool {
    let only = tally.fates.keys().all(|fate| foretold.contains_key(fate));
    let far = foretold.iter().any(|(fate, share)| {
        far_apart(tally.share(fate), *share, tally.count()) && shares && *share <= 0.999
    });
    !only || far
}
