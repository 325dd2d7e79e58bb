//! Queries and their answers. An exchange is seen at many places; here it is one.
//!
//! What shares client, transport and id is a *group*. Within it each *try* is one query that a
//! client sent: a retry asks the same of the same server again, a query to a second server asks
//! another address.

mod attempt;
mod ends;
mod group;
mod refused;
mod upstream;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use rustc_hash::FxHashSet;

use self::{
    attempt::{Answer, Attempt, Rejected, State},
    ends::Datagram,
    group::{Groups, TRIES, Try},
    refused::Failing,
    upstream::Upstreams,
};
use super::{
    Context,
    message::Peek,
    nat::Ends,
    once::Once,
    quote::Quoted,
    sockets::{Sockets, Update},
    spot::Spot,
    words,
};
use crate::model::{
    Client, Ifindex, KtimeNs, NetnsInode, Outcome, Packet, Place, Protocol, Row, journey::Leg,
    trace::Unplaced,
};

/// Most packets between two sweeps that do not tell the question, ICMP errors that quote too little above
/// all, and for which every query is looked at.
const SEARCHES: u32 = 16;

/// How long a try is remembered after its row was made, at least, so that further sights of its answer, and
/// copies of it, find it: longer than one packet may take from place to place. Short: at 100,000 queries a
/// second what is remembered is to stay in a processor's cache.
const KEEP_DONE: Duration = Duration::from_millis(5);

/// Most of [`Home`] that are remembered.
const HOMES: usize = 65_536;

/// A device by which queries to a server leave their client's namespace.
type Home = (NetnsInode, Ifindex, SocketAddr);

fn home(attempt: &Attempt) -> Home {
    let Spot { netns, ifindex, .. } = attempt.query.spot;
    (netns, ifindex, attempt.backend.unwrap_or(attempt.asked))
}

/// One message at one place.
pub(super) struct Seen<'a> {
    pub(super) protocol: Protocol,
    pub(super) packet: &'a Packet,
    pub(super) captured: &'a [u8],
    pub(super) peek: &'a Peek,
    pub(super) ends: &'a Ends,
    /// It is the datagram that was seen before it, of the same client.
    pub(super) goes_on: bool,
    /// Who asks, where another packet of the connection told it.
    pub(super) client: Option<Client>,
}

/// What a group shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: SocketAddr,
    protocol: Protocol,
    id: u16,
}

impl Seen<'_> {
    fn key(&self) -> Key {
        Key {
            client: self.ends.client,
            protocol: self.protocol,
            id: self.peek.id,
        }
    }

    /// A socket sends it here. Not told of TCP, where a segment may be sent again.
    fn is_sent(&self) -> bool {
        self.protocol == Protocol::Udp && self.packet.sender.is_some()
    }

    /// As a query, it asks what `attempt` asks.
    fn asks(&self, attempt: &Attempt) -> bool {
        self.peek.question == attempt.question
    }

    /// As an answer, it may answer what `attempt` asks; an error may come without the question.
    fn answers(&self, attempt: &Attempt) -> bool {
        self.peek.question.is_none() || self.asks(attempt)
    }
}

/// Queries being followed.
#[derive(Debug)]
pub(super) struct DnsTable {
    sockets: Sockets<Datagram>,
    /// What sockets told and tries do not know yet; empty between two events.
    updates: Vec<(Datagram, Update)>,
    failing: Failing,
    upstreams: Upstreams,
    /// Where answers were seen to arrive, from whom.
    homes: FxHashSet<Home>,
    groups: Groups,
    /// Whose query or answer was seen just now.
    at_hand: Option<Try>,
    attempts: usize,
    /// Tries that are answered, and when their rows were made.
    done: VecDeque<(KtimeNs, Key, u64)>,
    unmatched: Once,
    refused: Once,
    evicted: u64,
    /// Since the last sweep, room was made.
    pressed: bool,
    /// Since the last sweep.
    searches: u32,
}

impl DnsTable {
    /// Follows `datagrams` into sockets at once.
    pub(super) fn new(datagrams: usize) -> Self {
        Self {
            sockets: Sockets::new(datagrams),
            updates: Vec::new(),
            failing: Failing::default(),
            upstreams: Upstreams::default(),
            homes: FxHashSet::default(),
            groups: Groups::default(),
            at_hand: None,
            attempts: 0,
            done: VecDeque::new(),
            unmatched: Once::default(),
            refused: Once::default(),
            evicted: 0,
            pressed: false,
            searches: 0,
        }
    }

    /// Queries that were not followed, or forgotten early, for want of room.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Queries being followed.
    pub(super) fn len(&self) -> usize {
        self.attempts
    }

    /// Takes one message at one place.
    pub(super) fn message(
        &mut self,
        seen: &Seen<'_>,
        unplaced: &mut Unplaced,
        context: &mut Context<'_>,
    ) {
        let before = context.rows.len();
        if !seen.goes_on {
            self.at_hand = None;
        }
        match (seen.packet.place, seen.peek.is_response) {
            (Place::Queued | Place::Received, false) => self.query(seen, unplaced, context),
            (Place::Queued | Place::Received, true) => self.answer(seen, unplaced, context),
            (Place::Dropped { .. }, false) => self.query_dropped(seen, unplaced, context),
            (Place::Dropped { .. }, true) => self.answer_dropped(seen, context),
            (Place::Refused { kind, code }, false) => {
                self.query_refused(seen, (kind, code), unplaced, context);
            }
            // That an answer finds no one is no failure of its own: the query was given up.
            (Place::Refused { .. }, true) => {}
        }
        self.made(before, seen.packet.ktime, context);
    }

    /// Takes a sight of a query, the first of a new try if need be.
    fn query(&mut self, seen: &Seen<'_>, unplaced: &mut Unplaced, context: &mut Context<'_>) {
        let received = seen.packet.place == Place::Received;
        if received {
            self.upstreams.receives(seen.packet.netns);
        }
        let found = self.groups.of_query(seen, self.at_hand);
        self.at_hand = found;
        if let Some(attempt) = found.and_then(|found| self.groups.attempt_mut(found)) {
            attempt.query_passes(seen);
            attempt.clashes(context.insert);
            attempt.trail.note(Leg::Query, seen.packet);
            ends::passes(&mut self.sockets, seen, attempt.serial);
            if received {
                self.upstreams.joins(seen.packet.netns, attempt);
            }
        } else {
            unplaced.multi_question += u64::from(seen.peek.multi_question());
            if let Some(attempt) = self.begin(seen, context) {
                attempt.clashes(context.insert);
                attempt.goes_on(seen);
                attempt.trail.note(Leg::Query, seen.packet);
                let serial = attempt.serial;
                ends::begins(&mut self.sockets, seen, serial);
                self.goes_outward(seen, serial);
            }
        }
    }

    /// Begins a try; `None` for want of room.
    fn begin(&mut self, seen: &Seen<'_>, context: &mut Context<'_>) -> Option<&mut Attempt> {
        let key = seen.key();
        if self.attempts >= context.settings.tracked {
            self.press(context.settings.tracked);
        }
        let has_room = self.attempts < context.settings.tracked;
        let place = has_room.then(|| self.groups.place_of(key));
        let group = place.and_then(|place| Some((place, self.groups.at_mut(place)?)));
        let Some((place, group)) = group.filter(|(_, group)| group.len() < TRIES) else {
            self.evicted += u64::from(self.refused.is_first((key, seen.peek.question)));
            return None;
        };
        self.attempts += 1;
        let retry_of = group.retry_of(seen);
        let attempt = group.push(Attempt::new(context, seen, retry_of));
        let serial = attempt.serial;
        self.at_hand = Some(Try { place, serial });
        self.upstreams.begins(place, attempt);
        Some(attempt)
    }

    /// Makes room: finished tries first; then, unless that was worth the while, those kept for
    /// late answers only. Once between two sweeps, for it looks at all of them.
    fn press(&mut self, tracked: usize) {
        if self.pressed {
            return;
        }
        self.pressed = true;
        self.retain(&mut |attempt| attempt.state != State::Done);
        if self.attempts > tracked - tracked / 8 {
            let before = self.attempts;
            self.retain(&mut |attempt| attempt.state == State::Waiting);
            self.evicted += (before - self.attempts) as u64;
        }
    }

    fn retain(&mut self, keep: &mut impl FnMut(&mut Attempt) -> bool) {
        let upstreams = &mut self.upstreams;
        self.attempts = self.groups.retain(&mut |attempt| {
            let kept = keep(attempt);
            if !kept {
                upstreams.forget(attempt);
            }
            kept
        });
    }

    fn answer(&mut self, seen: &Seen<'_>, unplaced: &mut Unplaced, context: &mut Context<'_>) {
        let found = self.groups.of_answer(seen, self.at_hand);
        self.at_hand = found.map(|(found, _)| found);
        let Some((found, begins)) = found else {
            self.strange(seen, unplaced);
            return;
        };
        let Some(attempt) = self.groups.attempt_mut(found) else {
            return;
        };
        attempt.passes(seen.ends);
        ends::passes(&mut self.sockets, seen, attempt.serial);
        let is_copy = attempt.is_copy();
        match &mut attempt.answer {
            None => {
                let home = self.homes.contains(&home(attempt));
                attempt.is_expected = home && attempt.is_sent_here();
                attempt.answer = Some(Answer::new(seen));
                attempt.ends.answered = seen.is_sent().then_some(seen.packet.ktime);
                let sender = seen.packet.sender.filter(|_| seen.is_sent());
                let pid = sender.and_then(|sender| sender.pid);
                self.upstreams
                    .answers(attempt.serial, seen.packet.ktime, pid);
            }
            Some(_) if begins => {
                // Over TCP a long answer, of a zone transfer say, is many messages.
                unplaced.duplicates += u64::from(seen.protocol == Protocol::Udp);
                attempt.twice = true;
                return;
            }
            Some(_) if attempt.state == State::Done || is_copy => return,
            Some(answer) => answer.last = seen.packet.ktime,
        }
        attempt.trail.note(Leg::Answer, seen.packet);
        attempt.last.note(Leg::Answer, seen.packet);
        let rcode = attempt.answer.as_ref().map(|answer| answer.rcode);
        let at = seen.packet.ktime;
        self.upstreams
            .ended(attempt.serial, at, Outcome::Answered, rcode);
        if attempt.query.spot.is_reached_by(Spot::of(seen.packet)) {
            if self.homes.len() >= HOMES {
                self.homes.clear();
            }
            self.homes.insert(home(attempt));
            let sock = attempt.sock();
            let tells = context.settings.paths && sock.is_none_or(|sock| self.sockets.tells(sock));
            attempt.arrive(tells, context);
        }
    }

    /// An answer is of no try: to nothing that was asked, or of somebody else than was asked.
    fn strange(&mut self, seen: &Seen<'_>, unplaced: &mut Unplaced) {
        let key = seen.key();
        let Some(group) = self.groups.get_mut(&key) else {
            let first = self.unmatched.is_first((key, seen.peek.question));
            unplaced.unmatched += u64::from(first);
            return;
        };
        let fooled = group.newest(|attempt| seen.answers(attempt));
        if let Some(attempt) = fooled.and_then(|index| group.get_mut(index)) {
            attempt.stranger.get_or_insert(seen.ends.asked.ip());
        }
    }

    fn query_dropped(
        &mut self,
        seen: &Seen<'_>,
        unplaced: &mut Unplaced,
        context: &mut Context<'_>,
    ) {
        let Some(cause) = self.why_dropped(seen.packet, context) else {
            return;
        };
        if let Some(attempt) = self.ended(seen, unplaced, context) {
            let what = match seen.packet.ifindex {
                Ifindex(0) => "query before any device",
                Ifindex(_) => "query",
            };
            let same = attempt.query.is_of(seen.packet);
            let cause = words::freed(what, &cause);
            let at_home = attempt.is_from(seen.packet.netns) && attempt.last.is_before(Leg::Query);
            let cause = words::never_left(cause, at_home);
            let suspect = context.suspect(seen.packet);
            attempt
                .dropped
                .note(same, Leg::Query, seen.packet, cause, suspect);
            let (serial, at) = (attempt.serial, seen.packet.ktime);
            self.upstreams.ended(serial, at, Outcome::Dropped, None);
        }
    }

    /// The try whose query ends here; begun if it was sent here, before it reached any device.
    fn ended(
        &mut self,
        seen: &Seen<'_>,
        unplaced: &mut Unplaced,
        context: &mut Context<'_>,
    ) -> Option<&mut Attempt> {
        let attempt = match self.groups.of_query(seen, None) {
            Some(found) => self.groups.attempt_mut(found),
            None if seen.is_sent() => {
                unplaced.multi_question += u64::from(seen.peek.multi_question());
                self.begin(seen, context)
            }
            None => None,
        }?;
        attempt.query_passes(seen);
        attempt.clashes(context.insert);
        Some(attempt)
    }

    fn answer_dropped(&mut self, seen: &Seen<'_>, context: &Context<'_>) {
        let Some(cause) = self.why_dropped(seen.packet, context) else {
            return;
        };
        let found = self.groups.of_answer(seen, None);
        if let Some(attempt) = found.and_then(|(found, _)| self.groups.attempt_mut(found)) {
            attempt.answer_dropped(seen.packet, &cause, context);
        }
    }

    /// An ICMP error quoted a query. Where the quote holds no question, the latest query between
    /// these ends is meant. One that is not known yet was turned away before any device.
    pub(super) fn rejected(
        &mut self,
        quoted: &Quoted<'_>,
        error: &Packet,
        ends: Ends,
        cause: &str,
        context: &mut Context<'_>,
    ) {
        let before = context.rows.len();
        self.reject(quoted, error, ends, cause, context);
        self.made(before, error.ktime, context);
    }

    fn reject(
        &mut self,
        quoted: &Quoted<'_>,
        error: &Packet,
        ends: Ends,
        cause: &str,
        context: &mut Context<'_>,
    ) {
        let Ok(peek) = Peek::parse(quoted.payload, quoted.payload_len) else {
            if let Some(attempt) = self.search(quoted.protocol, ends) {
                attempt.reject(error, cause, context);
            }
            return;
        };
        if peek.is_response {
            return;
        }
        let seen = Seen {
            protocol: quoted.protocol,
            packet: error,
            captured: quoted.payload,
            peek: &peek,
            ends: &ends,
            goes_on: false,
            client: None,
        };
        let asks = |attempt: &Attempt| seen.asks(attempt) && attempt.concerns(&ends);
        let group = self.groups.get_mut(&seen.key());
        if let Some(attempt) = group.and_then(|group| group.get_mut(group.newest(asks)?)) {
            attempt.passes(&ends);
            attempt.reject(error, cause, context);
            self.failing.rejected(&seen, attempt.serial);
            let (serial, at) = (attempt.serial, error.ktime);
            self.upstreams.ended(serial, at, Outcome::Rejected, None);
        } else if ends.is_told(error)
            && let Some(attempt) = self.begin(&seen, context)
        {
            // Who asked is told by the query's drop, which comes after the error.
            attempt.rejected = Some(Rejected {
                ktime: error.ktime,
                cause: cause.to_owned(),
            });
        }
    }

    /// A query was translated to a port that carries no DNS as far as is known, so that its bytes were not
    /// captured there: the latest one that waits between these ends is meant.
    pub(super) fn leads_to(&mut self, ends: Ends) {
        if let Some(attempt) = self.search(Protocol::Udp, ends) {
            attempt.passes(&ends);
        }
    }

    /// The latest query between `ends` that waits.
    fn search(&mut self, protocol: Protocol, ends: Ends) -> Option<&mut Attempt> {
        if self.searches >= SEARCHES {
            return None;
        }
        self.searches += 1;
        let waits = |attempt: &Attempt| attempt.concerns(&ends) && attempt.state == State::Waiting;
        let of = |key: &Key| key.client == ends.client && key.protocol == protocol;
        let found = self.groups.latest(of, waits)?;
        self.groups.attempt_mut(found)
    }

    /// Rows are new since `before`, made at `now`: they are told what their servers asked others, and tries
    /// that they end need not be remembered much longer.
    fn made(&mut self, before: usize, now: KtimeNs, context: &mut Context<'_>) {
        if context.rows.len() > before {
            self.note_made(before, now, context);
        }
    }

    // Apart, so that nothing is called where none is new, as after nearly all events.
    #[inline(never)]
    fn note_made(&mut self, before: usize, now: KtimeNs, context: &mut Context<'_>) {
        self.explain(before, context);
        for row in context.rows.get(before..).unwrap_or_default() {
            if let Row::Dns(dns) = row
                && dns.latency.is_some()
            {
                let key = Key {
                    client: dns.client.address,
                    protocol: dns.protocol,
                    id: dns.id,
                };
                let serial = dns.amends.unwrap_or(dns.serial);
                self.done.push_back((now, key, serial));
            }
        }
    }

    /// Forgets tries that were answered a while ago and that no other try stands beside, as of nearly all;
    /// the sweep forgets the rest.
    pub(super) fn retire(&mut self, now: KtimeNs) {
        while let Some(&(since, key, serial)) = self.done.front()
            && now - since >= KEEP_DONE
        {
            self.done.pop_front();
            let is_over =
                |attempt: &&Attempt| attempt.serial == serial && attempt.state == State::Done;
            self.groups.forget(key, |group| {
                let over = group.alone().filter(is_over);
                if let Some(attempt) = over {
                    self.upstreams.forget(attempt);
                    self.attempts -= 1;
                }
                over.is_some()
            });
        }
    }

    /// Lets time pass: answers that settled, queries that stayed unanswered, and what need not
    /// be remembered any longer.
    pub(super) fn sweep(
        &mut self,
        now: KtimeNs,
        unplaced: &mut Unplaced,
        context: &mut Context<'_>,
    ) {
        self.unmatched.turn();
        self.refused.turn();
        self.pressed = false;
        self.searches = 0;
        self.failing.age(now);
        self.sweep_sockets(now, context);
        let before = context.rows.len();
        self.retain(&mut |attempt| attempt.age(now, unplaced, context));
        self.made(before, now, context);
    }

    /// No more will come: answers and errors that were under way have come as far as they will. Returns how
    /// many queries are still waiting for one.
    pub(super) fn finish(&mut self, context: &mut Context<'_>) -> u64 {
        let mut open = 0;
        let before = context.rows.len();
        self.retain(&mut |attempt| {
            if attempt.answer.is_some() && attempt.state != State::Done {
                attempt.finish(context);
            } else if attempt.state == State::Waiting {
                attempt.end_rejected(context);
            }
            open += u64::from(attempt.state == State::Waiting);
            true
        });
        self.made(before, context.clocks.ktime, context);
        open
    }
}
