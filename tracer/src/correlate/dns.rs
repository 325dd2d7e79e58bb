//! Queries and their answers. An exchange is seen at many places; here it is one.
//!
//! What belongs together shares client, id and question: a *group*. Within it each *try* is one
//! query that a client sent: a retry comes from the same spot again, a query to a second server
//! asks another address.

mod attempt;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use rustc_hash::{FxHashMap, FxHashSet};

use self::attempt::{Answer, Attempt, State};
use super::{
    Context,
    message::{Peek, QuestionKey},
    nat::Ends,
    quote::Quoted,
    spot::{self, Spot},
    words,
};
use crate::model::{Client, KtimeNs, Packet, Protocol, trace::Unplaced};

/// Most unmatched answers that are told apart within one sweep.
const UNMATCHED: usize = 4096;

/// One message at one place.
pub(super) struct Seen<'a> {
    pub(super) protocol: Protocol,
    pub(super) packet: &'a Packet,
    pub(super) captured: &'a [u8],
    pub(super) peek: Peek,
    pub(super) ends: Ends,
    /// Who asks, where another packet of the connection told it.
    pub(super) client: Option<Client>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: SocketAddr,
    protocol: Protocol,
    id: u16,
    question: Option<QuestionKey>,
}

impl Seen<'_> {
    fn key(&self) -> Key {
        Key {
            client: self.ends.client,
            protocol: self.protocol,
            id: self.peek.id,
            question: self.peek.question,
        }
    }
}

/// Queries being followed.
#[derive(Debug, Default)]
pub(super) struct DnsTable {
    groups: FxHashMap<Key, Vec<Attempt>>,
    attempts: usize,
    unmatched: FxHashSet<Key>,
    evicted: u64,
    /// Room was made, in vain or not, since the last sweep.
    pressed: bool,
}

impl DnsTable {
    /// Queries that were not followed, or forgotten early, for want of room.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Takes one message at one place.
    pub(super) fn message(
        &mut self,
        seen: &Seen<'_>,
        unplaced: &mut Unplaced,
        context: &mut Context<'_>,
    ) {
        match (spot::is_drop(seen.packet), seen.peek.is_response) {
            (true, _) => self.dropped(seen, context),
            (false, false) => self.query(seen, unplaced, context),
            (false, true) => self.answer(seen, unplaced, context),
        }
    }

    /// A query is, in this order:
    /// 1. a hop of a try that is known: the same packet further on its way
    /// 2. a new try: sent by a socket, or seen again where a try began
    /// 3. a hop that NAT has changed without our seeing how: the backend of the latest try
    fn query(&mut self, seen: &Seen<'_>, unplaced: &mut Unplaced, context: &mut Context<'_>) {
        let spot = Spot::of(seen.packet);
        let key = seen.key();
        if let Some(attempts) = self.groups.get_mut(&key) {
            let began_here = attempts.iter().any(|attempt| attempt.origin == spot);
            let newest = attempts
                .iter_mut()
                .rev()
                .find(|attempt| attempt.concerns(seen.ends));
            match newest {
                Some(attempt) if attempt.is_same_packet(seen.packet) || !began_here => {
                    if seen.packet.sender.is_none() || attempt.is_same_packet(seen.packet) {
                        attempt.pass(seen.ends);
                        return;
                    }
                }
                None if !began_here && seen.packet.sender.is_none() => {
                    if let Some(attempt) = attempts.last_mut() {
                        attempt.backend.get_or_insert(seen.ends.asked);
                    }
                    return;
                }
                _ => {}
            }
        }
        unplaced.multi_question += u64::from(seen.peek.multi_question());
        self.begin(key, seen, spot, context);
    }

    fn begin(&mut self, key: Key, seen: &Seen<'_>, spot: Spot, context: &mut Context<'_>) {
        if self.attempts >= context.settings.tracked {
            self.press();
        }
        if self.attempts >= context.settings.tracked {
            self.evicted += 1;
            return;
        }
        let attempts = self.groups.entry(key).or_default();
        // An answered question asked again is a new question, not a retry.
        let retry_of = attempts
            .iter()
            .filter(|attempt| attempt.asked == seen.ends.asked && attempt.answer.is_none())
            .map(|attempt| attempt.retry_of.unwrap_or(attempt.serial))
            .next();
        let serial = context.next_serial();
        attempts.push(Attempt::new(serial, seen, spot, retry_of));
        self.attempts += 1;
    }

    /// Makes room: finished tries first, then those kept for late answers only. Once a sweep,
    /// for it looks at all of them.
    fn press(&mut self) {
        if self.pressed {
            return;
        }
        self.pressed = true;
        self.retain(|attempt| attempt.state != State::Done);
        let before = self.attempts;
        if before * 10 > self.groups.capacity() * 9 {
            self.retain(|attempt| attempt.state == State::Waiting);
            self.evicted += (before - self.attempts) as u64;
        }
    }

    fn retain(&mut self, mut keep: impl FnMut(&Attempt) -> bool) {
        let mut attempts = 0;
        self.groups.retain(|_, group| {
            group.retain(&mut keep);
            attempts += group.len();
            !group.is_empty()
        });
        self.attempts = attempts;
    }

    fn answer(&mut self, seen: &Seen<'_>, unplaced: &mut Unplaced, context: &mut Context<'_>) {
        let key = seen.key();
        let Some(attempts) = self.groups.get_mut(&key) else {
            if self.unmatched.len() < UNMATCHED && self.unmatched.insert(key) {
                unplaced.unmatched += 1;
            }
            return;
        };
        let spot = Spot::of(seen.packet);
        let Some(attempt) = attempts
            .iter_mut()
            .rev()
            .find(|attempt| attempt.concerns(seen.ends))
        else {
            if let Some(attempt) = attempts.last_mut() {
                attempt.stranger.get_or_insert(seen.ends.asked.ip());
            }
            return;
        };
        attempt.pass(seen.ends);
        match &mut attempt.answer {
            None => attempt.answer = Some(Answer::new(seen, spot)),
            Some(answer) if answer.origin == spot && answer.skb != seen.packet.skb => {
                unplaced.duplicates += 1;
                return;
            }
            Some(answer) if attempt.state != State::Done => answer.last = seen.packet.ktime,
            Some(_) => return,
        }
        if attempt.origin.is_reached_by(spot) {
            attempt.finish(context);
        }
    }

    fn dropped(&mut self, seen: &Seen<'_>, context: &mut Context<'_>) {
        let attempts = self.groups.get_mut(&seen.key());
        let attempt = attempts.and_then(|attempts| {
            attempts
                .iter_mut()
                .rev()
                .find(|attempt| attempt.concerns(seen.ends))
        });
        let Some(cause) = words::dropped(seen.packet, &context.settings.drop_reasons) else {
            return;
        };
        if let Some(attempt) = attempt {
            let what = if seen.peek.is_response {
                "answer"
            } else {
                "query"
            };
            attempt
                .drop
                .get_or_insert(format!("the kernel dropped the {what}: {cause}"));
        } else if !seen.peek.is_response && seen.packet.sender.is_some() {
            // Dropped before it reached any device.
            let (key, spot) = (seen.key(), Spot::of(seen.packet));
            self.begin(key, seen, spot, context);
            if let Some(attempt) = self.groups.get_mut(&key).and_then(|group| group.last_mut()) {
                attempt.drop = Some(format!(
                    "the kernel dropped the query before any device: {cause}"
                ));
            }
        }
    }

    /// An ICMP error quoted a query. Where the quote holds no question, the latest query between
    /// these ends is meant.
    pub(super) fn rejected(
        &mut self,
        quoted: &Quoted<'_>,
        ends: Ends,
        cause: &str,
        context: &mut Context<'_>,
    ) {
        let peek = Peek::parse(quoted.payload, quoted.payload_len).ok();
        let attempt = match peek {
            Some(peek) => {
                let key = Key {
                    client: ends.client,
                    protocol: quoted.protocol,
                    id: peek.id,
                    question: peek.question,
                };
                let attempts = self.groups.get_mut(&key);
                attempts.and_then(|group| group.iter_mut().rev().find(|a| a.concerns(ends)))
            }
            None => self
                .groups
                .iter_mut()
                .filter(|(key, _)| key.client == ends.client && key.protocol == quoted.protocol)
                .flat_map(|(_, group)| group)
                .filter(|attempt| attempt.concerns(ends) && attempt.state == State::Waiting)
                .max_by_key(|attempt| attempt.serial),
        };
        if let Some(attempt) = attempt {
            attempt.reject(cause, context);
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
        self.unmatched.clear();
        self.pressed = false;
        self.retain(|attempt| {
            // Finished ones stay for one sweep more, so that an answer's later hops and its
            // duplicates find them.
            attempt.state != State::Done || !attempt.is_older(now, super::SWEEP_EVERY)
        });
        let keep = context.settings.keep;
        let mut forgotten = false;
        for attempt in self.groups.values_mut().flatten() {
            attempt.age(now, unplaced, context);
            forgotten |= attempt.state == State::GivenUp && attempt.is_older(now, keep);
        }
        if forgotten {
            self.retain(|attempt| attempt.state != State::GivenUp || !attempt.is_older(now, keep));
        }
    }
}
