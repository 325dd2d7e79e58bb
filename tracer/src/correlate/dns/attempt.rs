//! One try of a question: from the client's sending to the row that tells its end.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    super::{
        Context, SWEEP_EVERY,
        carried::Carried,
        dropped::Dropped,
        inserts::Why,
        journey::Trail,
        last::Last,
        message::{self, QuestionKey},
        nat::Ends,
        spot::{Beginning, is_drop},
        words,
    },
    Seen,
};
use crate::model::{
    Client, Delivery, Dns, KtimeNs, NetnsInode, Outcome, Packet, Place, Protocol, Row, SockId,
    SocketEnds, insert::Clash, journey::Leg, trace::Unplaced,
};

/// How long an answer's hops may be apart before its last sight is taken for its arrival: more
/// than a slow link takes. Only where the arrival cannot be seen does a row wait for this.
const SETTLE: Duration = Duration::from_secs(1);

/// The same where arrivals are seen, so that one that is not seen got lost: long enough that by
/// then it is known whether records were lost.
const SETTLE_LOST: Duration = Duration::from_millis(2500);

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
    pub(super) beginning: Beginning,
    /// When it was last seen.
    pub(super) last: KtimeNs,
    pub(super) rcode: u16,
    count: u16,
    truncated: bool,
}

impl Answer {
    pub(super) fn new(seen: &Seen<'_>) -> Self {
        // Only an OPT record, among the additional ones, can extend the rcode.
        let extended = (seen.peek.counts.additionals > 0)
            .then(|| message::edns(seen.captured))
            .flatten();
        Self {
            beginning: Beginning::of(seen.packet),
            last: seen.packet.ktime,
            rcode: extended.map_or(u16::from(seen.peek.rcode), |edns| edns.rcode),
            count: seen.peek.counts.answers,
            truncated: seen.peek.tc,
        }
    }
}

/// An ICMP error came instead of an answer.
#[derive(Debug)]
pub(super) struct Rejected {
    /// When it was first seen.
    pub(super) ktime: KtimeNs,
    pub(super) cause: String,
}

/// One try.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what was seen, each thing by itself"
)]
pub(super) struct Attempt {
    pub(super) serial: u64,
    pub(super) question: Option<QuestionKey>,
    pub(super) asked: SocketAddr,
    pub(super) backend: Option<SocketAddr>,
    pub(super) query: Beginning,
    /// The namespace that the query was taken into from a device, last; `None` where it went on.
    pub(super) query_at: Option<NetnsInode>,
    pub(super) retry_of: Option<u64>,
    pub(super) answer: Option<Answer>,
    pub(super) state: State,
    /// By an ICMP error that came before anything else was seen, or, where paths are wanted, that
    /// the application may yet be told of.
    pub(super) rejected: Option<Rejected>,
    /// The ICMP error that the kernel sent about the query.
    pub(super) refused: Option<&'static str>,
    /// Who else answered.
    pub(super) stranger: Option<IpAddr>,
    pub(super) dropped: Dropped,
    carried: Carried,
    /// With another packet's conntrack entry, of the query's own.
    clash: Option<Box<Clash>>,
    /// The last sight of query or answer.
    pub(super) last: Last,
    /// Answers of this server are seen to arrive at the device by which the query left.
    pub(super) is_expected: bool,
    /// The answer came again.
    pub(super) twice: bool,
    /// The client's socket was closed when the answer came.
    closed: bool,
    pub(super) ends: SocketEnds,
    /// The answer has come to where the query was sent; its row waits until it is read.
    arrived: bool,
    pub(super) trail: Trail,
    client: Client,
    protocol: Protocol,
    id: u16,
    /// `None` without a question, and once the last row is out.
    name: Option<String>,
}

impl Attempt {
    pub(super) fn new(context: &mut Context<'_>, seen: &Seen<'_>, retry_of: Option<u64>) -> Self {
        let question = seen.peek.question;
        Self {
            serial: context.next_serial(),
            question,
            asked: seen.ends.asked,
            backend: seen.ends.backend,
            query: Beginning::of(seen.packet),
            query_at: received_in(seen.packet),
            retry_of,
            answer: None,
            state: State::Waiting,
            rejected: None,
            refused: None,
            stranger: None,
            dropped: Dropped::default(),
            carried: Carried::new(seen.packet),
            clash: None,
            last: Last::default(),
            is_expected: false,
            twice: false,
            closed: false,
            ends: SocketEnds::default(),
            arrived: false,
            trail: Trail::new(context.settings.paths),
            client: client(seen),
            protocol: seen.protocol,
            id: seen.peek.id,
            name: question.map(|_| seen.peek.name(seen.captured)),
        }
    }

    /// Whether this is the very packet that this try began with: at its next device; or freed,
    /// where an ICMP error about it was all that was seen.
    pub(super) fn is_of(&self, packet: &Packet) -> bool {
        let turned_away = self.rejected.is_some() && is_drop(packet);
        turned_away || self.query.is_of(packet)
    }

    /// Whether a packet between `ends` can belong here: it asks what was asked, or the backend
    /// that this became.
    pub(super) fn concerns(&self, ends: &Ends) -> bool {
        ends.asked == self.asked || Some(ends.asked) == self.backend
    }

    /// Takes what a further sight of query or answer tells.
    pub(super) fn passes(&mut self, ends: &Ends) {
        if self.backend.is_none() {
            let through = (ends.asked != self.asked).then_some(ends.asked);
            self.backend = ends.backend.or(through);
        }
    }

    /// Takes what a further sight of the query tells.
    pub(super) fn query_passes(&mut self, seen: &Seen<'_>) {
        self.passes(seen.ends);
        self.carried.note(seen.packet);
        self.goes_on(seen);
        if self.client.netns.is_none() && seen.packet.sender.is_some() {
            self.client = client(seen);
        }
    }

    /// Takes what conntrack told the query.
    pub(super) fn clashes(&mut self, insert: Option<&Why>) {
        if let Some(Why::Clash(clash)) = insert {
            self.clash.get_or_insert_with(|| clash.clone());
        }
    }

    /// Takes a sight of the query at a device.
    pub(super) fn goes_on(&mut self, seen: &Seen<'_>) {
        // The quote in an error is no sight of it.
        if seen.packet.place.is_device() && seen.packet.transport.is_data() {
            self.query_at = received_in(seen.packet);
            self.last.note(Leg::Query, seen.packet);
        }
    }

    /// An answer was dropped; one that had been seen will not arrive.
    pub(super) fn answer_dropped(&mut self, packet: &Packet, cause: &str, context: &Context<'_>) {
        if self.state == State::Done {
            return;
        }
        let answer = self.answer.as_ref();
        let same = answer.is_some_and(|answer| answer.beginning.is_of(packet));
        if self.arrived && same && self.is_from(packet.netns) {
            // One of two that came: its memory is used again at once.
            let is_copy = self.twice || self.ends.answer != Delivery::Unseen;
            if is_copy {
                return;
            }
            if cause.starts_with("NO_SOCKET") {
                self.closed = true;
                return;
            }
        }
        if same {
            self.answer = None;
        }
        let cause = words::freed("answer", cause);
        let suspect = context.suspect(packet);
        self.dropped.note(same, Leg::Answer, packet, cause, suspect);
    }

    /// Lets time pass: an answer has arrived as far as it will, or the limit is reached. False
    /// when this need not be remembered any longer.
    pub(super) fn age(
        &mut self,
        now: KtimeNs,
        unplaced: &mut Unplaced,
        context: &mut Context<'_>,
    ) -> bool {
        let since = now - self.query.ktime;
        match (self.state, &self.answer) {
            // It stays for a while, so that the answer's duplicates find it.
            (State::Done, Some(answer)) => return now - answer.last < SWEEP_EVERY,
            (State::Done, None) => return false,
            (_, Some(answer)) if self.is_settled(now - answer.last, since, context) => {
                self.settle(context);
            }
            (_, Some(_)) => {}
            (State::GivenUp, None) => return since < context.settings.keep,
            (State::Waiting, None) => {
                let rejected = self.rejected.as_ref();
                if rejected.is_some_and(|rejected| now - rejected.ktime >= SWEEP_EVERY) {
                    self.end_rejected(context);
                } else if rejected.is_none() && since >= context.settings.unanswered_after {
                    unplaced.unexpected_source += u64::from(self.stranger.is_some());
                    self.give_up(context);
                }
            }
        }
        true
    }

    /// Whether an answer that was last seen `ago` has come as far as it will: in the socket's
    /// queue its client has as long to read it as it has to wait for it.
    fn is_settled(&self, ago: Duration, since: Duration, context: &Context<'_>) -> bool {
        match (self.arrived, self.ends.answer.waits()) {
            (true, true) => since >= context.settings.unanswered_after,
            (true, false) => ago >= SWEEP_EVERY,
            (false, _) if self.is_expected => ago >= SETTLE_LOST,
            (false, _) => ago >= SETTLE,
        }
    }

    /// The answer has come as far as it will: to the client, as far as is known, unless it would
    /// have been seen to arrive there.
    fn settle(&mut self, context: &mut Context<'_>) {
        if self.arrived || !self.is_expected || context.is_lossy(self.query.ktime) {
            self.finish(context);
            return;
        }
        if self.state == State::Waiting {
            let cause = words::answer_lost(self.ended_after());
            self.fail(Outcome::Unanswered, cause, context);
        }
        self.state = State::Done;
    }

    /// From the query to the last sight of its answer.
    fn ended_after(&self) -> Option<Duration> {
        let answer = self.answer.as_ref()?;
        Some(answer.last - self.query.ktime)
    }

    /// The answer is where the query was sent; on its way into the socket there, where its socket `tells` of it.
    pub(super) fn arrive(&mut self, tells: bool, context: &mut Context<'_>) {
        self.arrived = true;
        if !tells || self.protocol == Protocol::Tcp {
            self.finish(context);
        }
    }

    /// The socket that sent the query, where that is known.
    pub(super) fn sock(&self) -> Option<SockId> {
        self.client.sender.map(|sender| sender.sock)
    }

    /// Further sights are of an answer that came again.
    pub(super) fn is_copy(&self) -> bool {
        self.arrived && self.twice
    }

    /// The answer was read, or nobody will know when.
    pub(super) fn left_socket(&mut self, context: &mut Context<'_>) {
        if self.arrived && self.answer.is_some() && self.state != State::Done {
            self.finish(context);
        }
    }

    /// The answer is there.
    pub(super) fn finish(&mut self, context: &mut Context<'_>) {
        let amends = (self.state == State::GivenUp).then_some(self.serial);
        self.state = State::Done;
        let outcome = if self.closed {
            Outcome::Late
        } else {
            Outcome::Answered
        };
        let mut row = self.row(context, outcome);
        if self.closed {
            row.serial = amends.map_or(self.serial, |_| context.next_serial());
            row.cause = row.latency.map(words::closed);
        } else if amends.is_some() {
            let late = row.latency >= Some(context.settings.unanswered_after);
            row.serial = context.next_serial();
            row.cause = Some(words::after_all(late).to_owned());
        }
        row.amends = amends;
        context.rows.push(Row::Dns(row));
    }

    fn give_up(&mut self, context: &mut Context<'_>) {
        let (outcome, cause) = match (self.dropped.explained(context.counted), self.stranger) {
            (dropped, _) if self.refused.is_some() => {
                let error = self.refused.unwrap_or_default();
                (
                    Outcome::Rejected,
                    words::lost_error(error, dropped.as_deref()),
                )
            }
            (Some(cause), _) => (Outcome::Dropped, cause),
            (None, Some(from)) => {
                // A lost record may have told of the translation.
                let lossy = context.is_lossy(self.query.ktime);
                let cause = words::while_lossy(words::unexpected_source(from), lossy);
                (Outcome::Unanswered, cause)
            }
            (None, None) => {
                let cause = words::unanswered(context.settings.unanswered_after);
                let left = self.last.leaves(Leg::Query).then_some(self.server());
                let cause = self.carried.explain(cause, left);
                let cause = words::unserved(cause, self.ends.query);
                let lossy = context.is_lossy(self.query.ktime);
                (Outcome::Unanswered, words::while_lossy(cause, lossy))
            }
        };
        self.fail(outcome, cause, context);
    }

    /// The address that the query went to, as far as is known.
    fn server(&self) -> IpAddr {
        self.backend.unwrap_or(self.asked).ip()
    }

    /// Whether its client is in this namespace.
    pub(super) fn is_from(&self, netns: NetnsInode) -> bool {
        self.client.netns == Some(netns)
    }

    /// A socket of this node sent the query, and that was its first sight.
    pub(super) fn is_sent_here(&self) -> bool {
        self.is_from(self.query.spot.netns) && !self.query.spot.received
    }

    /// The process that sent the query, where that is known.
    pub(super) fn sender(&self) -> Option<u32> {
        self.client.sender.and_then(|sender| sender.pid)
    }

    /// An ICMP error came instead of an answer.
    pub(super) fn reject(&mut self, error: &Packet, cause: &str, context: &mut Context<'_>) {
        self.trail.turned_away(error.flow.src.ip());
        if self.state != State::Waiting || self.answer.is_some() || self.rejected.is_some() {
            return;
        }
        // Why a host is not reachable is told by the query's drop, which comes next.
        if context.settings.paths || cause.contains("host unreachable") {
            self.rejected = Some(Rejected {
                ktime: error.ktime,
                cause: cause.to_owned(),
            });
        } else {
            self.fail(Outcome::Rejected, cause.to_owned(), context);
        }
    }

    /// What an ICMP error brought about is all known by now.
    pub(super) fn end_rejected(&mut self, context: &mut Context<'_>) {
        if let Some(Rejected { cause, .. }) = self.rejected.take() {
            let cause = words::with_neighbour(cause, self.dropped.cause());
            self.fail(Outcome::Rejected, cause, context);
        }
    }

    fn fail(&mut self, outcome: Outcome, cause: String, context: &mut Context<'_>) {
        self.state = State::GivenUp;
        let mut row = self.row(context, outcome);
        row.cause = Some(cause);
        context.rows.push(Row::Dns(row));
    }

    fn row(&mut self, context: &Context<'_>, outcome: Outcome) -> Dns {
        let (name, trail) = match self.state {
            State::Done => (self.name.take(), std::mem::take(&mut self.trail)),
            State::Waiting | State::GivenUp => (self.name.clone(), self.trail.clone()),
        };
        let answer = self.answer.as_ref();
        let journey = match self.protocol {
            Protocol::Udp => trail.journey_to(&self.ends, outcome),
            Protocol::Tcp => trail.journey(outcome),
        };
        let dropped = self.dropped.place().filter(|_| answer.is_none());
        Dns {
            serial: self.serial,
            ktime: self.query.ktime,
            wall: context.clocks.wall(self.query.ktime),
            client: self.client.clone(),
            protocol: self.protocol,
            asked: self.asked,
            backend: self.backend,
            id: self.id,
            name,
            qtype: self.question.map(|question| question.qtype),
            rcode: answer.map(|answer| answer.rcode),
            answers: answer.map(|answer| answer.count),
            truncated: answer.is_some_and(|answer| answer.truncated),
            latency: answer.map(|answer| answer.last - self.query.ktime),
            outcome,
            cause: None,
            clash: self.clash.clone(),
            stopped: self.last.stopped(outcome, journey.as_deref(), dropped),
            ends: self.ends,
            upstream: None,
            retry_of: self.retry_of,
            amends: None,
            journey,
        }
    }
}

fn received_in(packet: &Packet) -> Option<NetnsInode> {
    (packet.place == Place::Received).then_some(packet.netns)
}

/// Who sends a query, as far as one sight of it tells.
fn client(seen: &Seen<'_>) -> Client {
    let packet = seen.packet;
    seen.client.clone().unwrap_or_else(|| Client {
        address: seen.ends.client,
        netns: packet.sender.map(|_| packet.netns),
        // A TCP segment may leave in anybody's context; only the connection tells whose it is.
        sender: packet.sender.filter(|_| seen.protocol == Protocol::Udp),
    })
}
