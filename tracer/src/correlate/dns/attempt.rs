//! One try of a question: from the client's sending to the row that tells its end.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    super::{Context, message, nat::Ends, spot::Spot, words},
    Seen,
};
use crate::model::{Client, Dns, KtimeNs, Outcome, Packet, Protocol, Row, SkbId, trace::Unplaced};

/// How long an answer's hops may be apart before its last sight is taken for its arrival.
const SETTLE: Duration = Duration::from_millis(100);

/// How long one packet may take between two devices of one namespace, at most, to be taken for
/// the same packet by its skb's address.
const SAME_PACKET: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// For an answer, or for its arrival.
    Waiting,
    /// Its row is out, without an answer.
    GivenUp,
    /// Its row is out, with an answer.
    Done,
}

/// What is known of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// Where it was first seen.
    pub(super) origin: Spot,
    pub(super) skb: SkbId,
    /// When it was last seen.
    pub(super) last: KtimeNs,
    rcode: u16,
    count: u16,
    truncated: bool,
}

impl Answer {
    pub(super) fn new(seen: &Seen<'_>, origin: Spot) -> Self {
        // Only an OPT record, among the additional ones, can extend the rcode.
        let extended = (seen.peek.counts.additionals > 0)
            .then(|| message::edns(seen.captured))
            .flatten();
        Self {
            origin,
            skb: seen.packet.skb,
            last: seen.packet.ktime,
            rcode: extended.map_or(u16::from(seen.peek.rcode), |edns| edns.rcode),
            count: seen.peek.counts.answers,
            truncated: seen.peek.tc,
        }
    }
}

/// One try.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) serial: u64,
    pub(super) asked: SocketAddr,
    pub(super) backend: Option<SocketAddr>,
    /// Where it was first seen.
    pub(super) origin: Spot,
    pub(super) retry_of: Option<u64>,
    pub(super) answer: Option<Answer>,
    pub(super) state: State,
    /// The first drop of the query or of its answer, in words.
    pub(super) drop: Option<String>,
    /// Who else answered.
    pub(super) stranger: Option<IpAddr>,
    began: KtimeNs,
    skb: SkbId,
    client: Client,
    protocol: Protocol,
    id: u16,
    name: Option<String>,
    qtype: Option<u16>,
}

impl Attempt {
    pub(super) fn new(serial: u64, seen: &Seen<'_>, origin: Spot, retry_of: Option<u64>) -> Self {
        let packet = seen.packet;
        let here = Client {
            address: seen.ends.client,
            netns: packet.sender.map(|_| packet.netns),
            // A TCP segment may leave in anybody's context; only the connection tells whose it is.
            sender: packet.sender.filter(|_| seen.protocol == Protocol::Udp),
        };
        let question = seen.peek.question;
        Self {
            serial,
            asked: seen.ends.asked,
            backend: seen.ends.backend,
            origin,
            retry_of,
            answer: None,
            state: State::Waiting,
            drop: None,
            stranger: None,
            began: packet.ktime,
            skb: packet.skb,
            client: seen.client.clone().unwrap_or(here),
            protocol: seen.protocol,
            id: seen.peek.id,
            name: question.map(|_| seen.peek.name(seen.captured)),
            qtype: question.map(|question| question.qtype),
        }
    }

    /// Whether a packet between `ends` can belong here: it asks what was asked, or the backend
    /// that this became.
    pub(super) fn concerns(&self, ends: Ends) -> bool {
        ends.asked == self.asked || Some(ends.asked) == self.backend
    }

    /// Whether `packet` is the very packet this try began with, at its next device.
    pub(super) fn is_same_packet(&self, packet: &Packet) -> bool {
        packet.skb == self.skb
            && packet.ktime - self.began < SAME_PACKET
            && Spot::of(packet) != self.origin
    }

    /// Takes what a further sight of query or answer tells.
    pub(super) fn pass(&mut self, ends: Ends) {
        if self.backend.is_none() {
            self.backend = ends.backend;
        }
    }

    pub(super) fn is_older(&self, now: KtimeNs, than: Duration) -> bool {
        let since = match &self.answer {
            Some(answer) if self.state == State::Done => answer.last,
            _ => self.began,
        };
        now - since >= than
    }

    /// Lets time pass: an answer has arrived as far as it will, or the limit is reached.
    pub(super) fn age(&mut self, now: KtimeNs, unplaced: &mut Unplaced, context: &mut Context<'_>) {
        if let (Some(answer), State::Waiting | State::GivenUp) = (&self.answer, self.state) {
            if now - answer.last >= SETTLE {
                self.finish(context);
            }
        } else if self.state == State::Waiting
            && self.is_older(now, context.settings.unanswered_after)
        {
            unplaced.unexpected_source += u64::from(self.stranger.is_some());
            self.give_up(context);
        }
    }

    /// The answer is there.
    pub(super) fn finish(&mut self, context: &mut Context<'_>) {
        let amends = (self.state == State::GivenUp).then_some(self.serial);
        let mut row = self.row(context, Outcome::Answered);
        if amends.is_some() {
            row.serial = context.next_serial();
            row.cause = Some("the answer came late".to_owned());
        }
        row.amends = amends;
        context.rows.push(Row::Dns(row));
        self.state = State::Done;
    }

    fn give_up(&mut self, context: &mut Context<'_>) {
        let outcome = if self.drop.is_some() {
            Outcome::Dropped
        } else {
            Outcome::Unanswered
        };
        let mut row = self.row(context, outcome);
        row.cause = match (self.drop.take(), self.stranger) {
            (Some(drop), _) => Some(drop),
            (None, Some(from)) => Some(words::unexpected_source(from)),
            (None, None) => Some(words::unanswered(context.settings.unanswered_after)),
        };
        context.rows.push(Row::Dns(row));
        self.state = State::GivenUp;
    }

    /// An ICMP error came instead of an answer.
    pub(super) fn reject(&mut self, cause: &str, context: &mut Context<'_>) {
        if self.state != State::Waiting || self.answer.is_some() {
            return;
        }
        let mut row = self.row(context, Outcome::Rejected);
        row.cause = Some(cause.to_owned());
        context.rows.push(Row::Dns(row));
        self.state = State::GivenUp;
    }

    fn row(&mut self, context: &Context<'_>, outcome: Outcome) -> Dns {
        let answer = self.answer.as_ref();
        Dns {
            serial: self.serial,
            ktime: self.began,
            wall: context.clocks.wall(self.began),
            client: self.client.clone(),
            protocol: self.protocol,
            asked: self.asked,
            backend: self.backend,
            id: self.id,
            name: self.name.clone(),
            qtype: self.qtype,
            rcode: answer.map(|answer| answer.rcode),
            answers: answer.map(|answer| answer.count),
            truncated: answer.is_some_and(|answer| answer.truncated),
            latency: answer.map(|answer| answer.last - self.began),
            outcome,
            cause: None,
            retry_of: self.retry_of,
            amends: None,
        }
    }
}
