//! A server's own queries outward, tied to the clients' queries that they serve.
//!
//! A query serves another where it asks the same, is sent in the namespace that the other was
//! received in and not answered from yet, and by the process that read it, as far as that is known.
//! Several queries may wait for the same: then the oldest that nothing was asked for yet is meant,
//! the others share its leg until they get one of their own, and all that is inferred.

use std::net::SocketAddr;

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::{
    super::{Context, journey::split, message::QuestionKey, words},
    DnsTable, Seen,
    attempt::{Attempt, State},
    group::Try,
};
use crate::model::{Dns, KtimeNs, NetnsInode, Outcome, Row, Upstream, journey};

/// Most tries of one question that are looked at.
const SAME: usize = 16;

/// Most queries outward that are kept for one query of a client.
const LEGS: usize = 8;

/// A query outward.
#[derive(Clone, Copy, Debug)]
struct Leg {
    asked: SocketAddr,
    /// Who asks; `None` when that was not seen.
    pid: Option<u32>,
    sent: KtimeNs,
    /// How it ended, so far.
    end: Option<(KtimeNs, Outcome, Option<u16>)>,
    /// Clients' queries that it is tied to.
    ties: u32,
}

#[derive(Clone, Copy, Debug)]
struct Tie {
    /// Of the leg.
    serial: u64,
    /// Not shared with another client's query.
    own: bool,
    /// Other queries could be meant.
    several: bool,
    /// The process that asks is known to be the one that read the query, or answers it.
    confirmed: bool,
}

impl Tie {
    fn is_inferred(self) -> bool {
        self.several || !self.confirmed
    }
}

/// What a client's query waits for.
#[derive(Debug, Default)]
struct Served {
    ties: Vec<Tie>,
    /// When its answer was sent.
    answered: Option<KtimeNs>,
}

/// Tries by what they ask, the oldest first.
#[derive(Debug, Default)]
struct Same(FxHashMap<QuestionKey, SmallVec<[Try; 2]>>);

impl Same {
    /// Of all these, in whatever order they come.
    fn of<'a>(tries: impl Iterator<Item = (usize, &'a Attempt)>) -> Self {
        let mut tries: Vec<_> = tries.collect();
        tries.sort_by_key(|(_, attempt)| attempt.serial);
        let mut same = Self::default();
        for (place, attempt) in tries {
            same.begins(place, attempt);
        }
        same
    }

    fn begins(&mut self, place: usize, attempt: &Attempt) {
        if let Some(question) = attempt.question {
            let same = self.0.entry(question).or_default();
            if same.len() < SAME {
                let serial = attempt.serial;
                same.push(Try { place, serial });
            }
        }
    }

    fn forget(&mut self, attempt: &Attempt) {
        if let Some(question) = attempt.question
            && let Some(same) = self.0.get_mut(&question)
        {
            same.retain(|of| of.serial != attempt.serial);
            if same.is_empty() {
                self.0.remove(&question);
            }
        }
    }
}

/// Who serves whom.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    /// Tries that are remembered, by question; `None` until a server asks others: most never do, on most nodes.
    same: Option<Same>,
    /// Namespaces that queries come into, from which alone such queries are sent.
    servers: FxHashSet<NetnsInode>,
    legs: FxHashMap<u64, Leg>,
    /// Legs without an answer yet, by what is asked and from where.
    flying: FxHashMap<(NetnsInode, QuestionKey), u64>,
    /// By the serial number of the client's query.
    served: FxHashMap<u64, Served>,
}

impl Upstreams {
    /// A query is taken from a device here.
    pub(super) fn receives(&mut self, netns: NetnsInode) {
        self.servers.insert(netns);
    }

    /// A try is begun, in the group at `place`.
    pub(super) fn begins(&mut self, place: usize, attempt: &Attempt) {
        if let Some(same) = &mut self.same {
            same.begins(place, attempt);
        }
    }

    /// A try need not be remembered any longer.
    pub(super) fn forget(&mut self, attempt: &Attempt) {
        if let Some(same) = &mut self.same {
            same.forget(attempt);
        }
        if self.served.is_empty() && self.flying.is_empty() {
            return;
        }
        self.lands(attempt.serial);
        if let Some(served) = self.served.remove(&attempt.serial) {
            for tie in served.ties {
                self.untie(tie);
            }
        }
    }

    /// Leg `serial` will not serve any further query.
    fn lands(&mut self, serial: u64) {
        if !self.flying.is_empty() {
            self.flying.retain(|_, flying| *flying != serial);
        }
    }

    fn untie(&mut self, tie: Tie) {
        if let Some(leg) = self.legs.get_mut(&tie.serial) {
            leg.ties -= 1;
            if leg.ties == 0 {
                self.legs.remove(&tie.serial);
            }
        }
    }

    fn tie(&mut self, client: u64, tie: Tie) {
        let served = self.served.entry(client).or_default();
        let known = served.ties.iter().any(|known| known.serial == tie.serial);
        if known || served.ties.len() >= LEGS {
            return;
        }
        if let Some(leg) = self.legs.get_mut(&tie.serial) {
            leg.ties += 1;
        }
        let mut shared = Vec::new();
        if tie.own {
            shared.extend(served.ties.extract_if(.., |known| !known.own));
        }
        served.ties.push(tie);
        for tie in shared {
            self.untie(tie);
        }
    }

    fn has_own(&self, client: u64) -> bool {
        let served = self.served.get(&client);
        served.is_some_and(|served| served.ties.iter().any(|tie| tie.own))
    }

    /// A client's query is received where the same is being asked already.
    pub(super) fn joins(&mut self, netns: NetnsInode, attempt: &Attempt) {
        if self.flying.is_empty() || attempt.answer.is_some() {
            return;
        }
        let flying = attempt.question.and_then(|question| {
            let serial = *self.flying.get(&(netns, question))?;
            let leg = self.legs.get(&serial)?;
            // It is not that very query, come back to where it was sent.
            (serial != attempt.serial && leg.sent < attempt.query.ktime).then_some(serial)
        });
        if let Some(serial) = flying {
            let tie = Tie {
                serial,
                own: false,
                several: true,
                confirmed: false,
            };
            self.tie(attempt.serial, tie);
        }
    }

    /// Leg `serial`, if it is one, has come to this end.
    pub(super) fn ended(
        &mut self,
        serial: u64,
        ktime: KtimeNs,
        outcome: Outcome,
        rcode: Option<u16>,
    ) {
        if self.legs.is_empty() {
            return;
        }
        if let Some(leg) = self.legs.get_mut(&serial)
            && (leg.end.is_none() || outcome == Outcome::Answered)
        {
            leg.end = Some((ktime, outcome, rcode));
            self.lands(serial);
        }
    }

    /// The answer to client's query `serial` is sent, by `pid` if known: who asked for it is the
    /// same process.
    pub(super) fn answers(&mut self, serial: u64, ktime: KtimeNs, pid: Option<u32>) {
        if self.served.is_empty() {
            return;
        }
        let Some(served) = self.served.get_mut(&serial) else {
            return;
        };
        served.answered.get_or_insert(ktime);
        let legs = &self.legs;
        let by = |tie: &Tie| legs.get(&tie.serial).and_then(|leg| leg.pid);
        let others = |tie: &mut Tie| pid.is_some_and(|pid| by(tie).is_some_and(|by| by != pid));
        let others: Vec<Tie> = served.ties.extract_if(.., others).collect();
        for tie in &mut served.ties {
            tie.confirmed |= pid.is_some() && by(tie) == pid;
        }
        for tie in others {
            self.untie(tie);
        }
    }

    /// What was asked for client's query `serial`, as far as it can have mattered to its end at
    /// `until`; and when.
    fn told(&self, serial: u64, until: KtimeNs) -> Option<(Upstream, Vec<(KtimeNs, KtimeNs)>)> {
        let served = self.served.get(&serial)?;
        let until = served.answered.unwrap_or(until);
        let mut legs: Vec<(Tie, Leg)> = served
            .ties
            .iter()
            .filter_map(|&tie| Some((tie, *self.legs.get(&tie.serial)?)))
            // What another query shares was waited for only if it came before.
            .filter(|(tie, leg)| {
                let came = leg.end.is_some_and(|(at, ..)| at <= until);
                leg.sent <= until && (tie.own || came || served.answered.is_none())
            })
            .collect();
        legs.sort_by_key(|(tie, leg)| (leg.sent, tie.serial));
        for (_, leg) in &mut legs {
            leg.end = leg.end.filter(|&(at, ..)| at <= until);
        }
        let answered = |(_, leg): &&(Tie, Leg)| matches!(leg.end, Some((_, Outcome::Answered, _)));
        let (tie, leg) = legs.iter().rev().find(answered).or(legs.last())?;
        let spans = spans(&legs, until);
        let upstream = Upstream {
            serial: tie.serial,
            asked: leg.asked,
            latency: leg
                .end
                .filter(|(_, outcome, _)| *outcome == Outcome::Answered)
                .map(|(at, ..)| at - leg.sent),
            outcome: leg
                .end
                .map_or(Outcome::Unanswered, |(_, outcome, _)| outcome),
            rcode: leg.end.and_then(|(.., rcode)| rcode),
            queries: u32::try_from(legs.len()).unwrap_or(u32::MAX),
            waited: spans.iter().map(|(from, to)| *to - *from).sum(),
            inferred: legs.iter().any(|(tie, _)| tie.is_inferred()),
        };
        Some((upstream, spans))
    }
}

/// When one of `legs`, in order of sending, was under way; without an answer, until the next one
/// was sent, or until the end.
fn spans(legs: &[(Tie, Leg)], until: KtimeNs) -> Vec<(KtimeNs, KtimeNs)> {
    let mut spans: Vec<(KtimeNs, KtimeNs)> = Vec::new();
    for (index, (_, leg)) in legs.iter().enumerate() {
        let next = legs.get(index + 1).map_or(until, |(_, next)| next.sent);
        let end = leg.end.map_or(next, |(at, ..)| at).min(until);
        match spans.last_mut() {
            Some((_, last)) if *last >= leg.sent => *last = end.max(*last),
            _ => spans.push((leg.sent, end)),
        }
    }
    spans
}

impl DnsTable {
    /// A query is sent here: it may serve one that waits here.
    pub(super) fn goes_outward(&mut self, seen: &Seen<'_>, serial: u64) {
        let packet = seen.packet;
        let (Some(sender), Some(question)) = (packet.sender, seen.peek.question) else {
            return;
        };
        if !self.upstreams.servers.contains(&packet.netns) {
            return;
        }
        let groups = &self.groups;
        let same = self
            .upstreams
            .same
            .get_or_insert_with(|| Same::of(groups.all()));
        let Some(same) = same.0.get(&question) else {
            return;
        };
        // A TCP segment may leave in anybody's context.
        let pid = sender.pid.filter(|_| seen.is_sent());
        let waits = |of: &&Try| {
            let attempt = self.groups.attempt(**of);
            of.serial != serial && attempt.is_some_and(|attempt| attempt.waits_at(seen, pid))
        };
        let waiting: Vec<Try> = same.iter().filter(waits).copied().collect();
        let free = |of: &&Try| !self.upstreams.has_own(of.serial);
        let Some(&chosen) = waiting.iter().find(free).or(waiting.first()) else {
            return;
        };
        let several = waiting.len() > 1;
        let confirmed = pid.is_some() && self.reader(chosen) == pid;
        let leg = Leg {
            asked: seen.ends.asked,
            pid,
            sent: packet.ktime,
            end: None,
            ties: 0,
        };
        self.upstreams.legs.insert(serial, leg);
        self.upstreams
            .flying
            .insert((packet.netns, question), serial);
        for Try { serial: of, .. } in waiting {
            let own = of == chosen.serial;
            if own || !self.upstreams.has_own(of) {
                let tie = Tie {
                    serial,
                    own,
                    several,
                    confirmed,
                };
                self.upstreams.tie(of, tie);
            }
        }
    }

    /// Who read this query.
    fn reader(&self, of: Try) -> Option<u32> {
        let attempt = self.groups.attempt(of)?;
        attempt.ends.query.reader().map(|task| task.pid)
    }

    /// Tells rows that are new since `before` what their servers asked others.
    pub(super) fn explain(&self, before: usize, context: &mut Context<'_>) {
        if self.upstreams.served.is_empty() {
            return;
        }
        let now = context.clocks.ktime;
        for row in context.rows.get_mut(before..).unwrap_or_default() {
            if let Row::Dns(dns) = row {
                let serial = dns.amends.unwrap_or(dns.serial);
                if let Some((upstream, spans)) = self.upstreams.told(serial, now) {
                    explain(dns, upstream, &spans);
                }
            }
        }
    }
}

impl Attempt {
    /// Whether a query that `pid` sends at `seen` may serve this one:
    /// 1. this one waits for an answer, in the namespace of that one's socket;
    /// 2. it was read by that process, as far as that is known, and not sent by it;
    /// 3. that one asks another server: a client that asks again asks the same.
    fn waits_at(&self, seen: &Seen<'_>, pid: Option<u32>) -> bool {
        let reader = self.ends.query.reader().map(|task| task.pid);
        let of_other = reader.zip(pid).is_some_and(|(reader, pid)| reader != pid);
        let sent_it = pid.is_some() && self.sender() == pid;
        self.answer.is_none()
            && self.state != State::Done
            && self.query_at == Some(seen.packet.netns)
            && !of_other
            && !sent_it
            && !self.concerns(seen.ends)
    }
}

/// Says in `dns` what its server asked, in the cause too where that is one, and tells the wait for
/// it from the server's own time.
fn explain(dns: &mut Dns, upstream: Upstream, spans: &[(KtimeNs, KtimeNs)]) {
    dns.upstream = Some(Box::new(upstream));
    let by_upstream = words::by_upstream(dns, &upstream);
    dns.cause = match (dns.cause.take(), by_upstream) {
        (Some(cause), Some(more)) => Some(format!("{cause}; {more}")),
        (cause, more) => cause.or(more),
    };
    if let Some(stopped) = &mut dns.stopped
        && upstream.outcome != Outcome::Answered
    {
        stopped.leg = journey::Leg::Answer;
        stopped.stage = Some(journey::Stage::Upstream);
    }
    if let Some(journey) = &mut dns.journey {
        split(journey, spans);
    }
}

#[cfg(test)]
mod tests;
