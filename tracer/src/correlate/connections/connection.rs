//! One connection: from its first packet to the row that tells how it went.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    super::{
        Context,
        carried::Carried,
        dropped::Dropped,
        journey::Trail,
        last::Last,
        nat::Ends,
        spot::{Beginning, Spot, is_drop},
        words,
    },
    is_vip,
};
use crate::model::{Client, Connection, KtimeNs, Outcome, Packet, Protocol, Row, journey::Leg};

/// How often, and over how long at least, data of an open connection is sent again until that is
/// told: 0.2, 0.4 and 0.8 s lie between on Linux (`TCP_RTO_MIN`, include/net/tcp.h).
const STALLS: u32 = 3;
const STALLED: Duration = Duration::from_millis(500);

/// By then conntrack's statistics of a drop's time are there, or will not be: they are looked at each second.
const COUNTED: Duration = Duration::from_millis(1250);

/// How long an open connection waits for its first byte before its row is made without it.
const FIRST_BYTE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// For its end.
    Waiting,
    /// Nothing came, or an ICMP error; an answer may still come.
    GivenUp,
    /// Its row is out, as that of a good connection; it is open.
    Open,
    /// It has ended.
    Done,
}

/// A connection that is being followed.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what was seen, each thing by itself"
)]
pub(super) struct Opened {
    pub(super) client: Client,
    /// Its first packet.
    pub(super) first: Beginning,
    /// Sequence number of its SYN.
    pub(super) seq: u32,
    pub(super) retransmits: u32,
    pub(super) state: State,
    /// By an ICMP error that came before anything else was seen.
    pub(super) rejected: Option<String>,
    trail: Trail,
    serial: u64,
    protocol: Protocol,
    asked: SocketAddr,
    backend: Option<SocketAddr>,
    /// Only a failure is worth a row.
    quiet: bool,
    answered: Option<KtimeNs>,
    /// The answer was seen where the question came from; its time is final.
    home: bool,
    first_byte: Option<KtimeNs>,
    /// The same of the server's first data.
    first_byte_home: bool,
    dropped: Dropped,
    /// Its first packet.
    carried: Carried,
    last: Last,
    /// Sent again since an answer was seen: how often, and when first.
    again: Option<(u32, KtimeNs)>,
    /// Its lack of headway was told.
    stalled: bool,
    /// A row of it is out.
    shown: bool,
}

impl Opened {
    pub(super) fn new(
        protocol: Protocol,
        packet: &Packet,
        ends: Ends,
        quiet: bool,
        context: &mut Context<'_>,
    ) -> Self {
        Self {
            client: client(packet, ends),
            first: Beginning::of(packet),
            seq: 0,
            retransmits: 0,
            state: State::Waiting,
            rejected: None,
            trail: Trail::new(context.settings.paths),
            serial: context.next_serial(),
            protocol,
            asked: ends.asked,
            backend: ends.backend,
            quiet,
            answered: None,
            home: false,
            first_byte: None,
            first_byte_home: false,
            dropped: Dropped::default(),
            carried: Carried::new(packet),
            last: Last::default(),
            again: None,
            stalled: false,
            shown: false,
        }
    }

    /// Takes what a further sight of a packet tells.
    pub(super) fn passes(&mut self, ends: Ends) {
        if self.backend.is_none() {
            let through = (ends.asked != self.asked).then_some(ends.asked);
            let backend = ends.backend.or(through);
            self.backend = backend.filter(|&backend| backend != self.asked);
        }
    }

    /// Takes a sight of a packet on its way, until the row is out.
    pub(super) fn passes_by(&mut self, leg: Leg, packet: &Packet) {
        let is_answered = self.protocol == Protocol::Udp && self.home;
        if packet.transport.is_data() {
            self.last.note(leg, packet);
        }
        if self.state != State::Done && !is_answered {
            self.trail.note(leg, packet);
        }
    }

    /// Takes what a further sight of the SYN tells.
    pub(super) fn syn_passes(&mut self, packet: &Packet, ends: Ends, context: &Context<'_>) {
        self.passes(ends);
        self.carried.note(packet);
        self.passes_by(Leg::Syn, packet);
        if self.client.sender.is_none() && packet.sender.is_some() {
            self.client = client(packet, ends);
        }
        if is_drop(packet) {
            self.freed(packet, true, context);
        } else if self.first.spot == Spot::of(packet) && packet.sender.is_none() {
            // Sent again by a client of another node; a local one's socket tells it itself.
            self.retransmits += 1;
        }
    }

    /// A packet was dropped.
    pub(super) fn freed(&mut self, packet: &Packet, forward: bool, context: &Context<'_>) {
        let connected = self.is_connected();
        // A SYN that comes again is freed when its answer has been sent again.
        let is_served = forward && self.protocol == Protocol::Tcp && self.answered.is_some();
        if is_served && !connected {
            return;
        }
        let (first, answer) = match self.protocol {
            Protocol::Tcp if !connected => (Leg::Syn, Leg::SynAck),
            _ => (Leg::Request, Leg::Response),
        };
        let what = match (forward, self.protocol) {
            (_, Protocol::Tcp) if connected => "packet",
            (true, Protocol::Tcp) => "SYN",
            (true, Protocol::Udp) => "packet",
            (false, _) => "answer",
        };
        if let Some(reason) = words::dropped(packet, &context.settings.drop_names, context.insert) {
            let same = self.first.is_of(packet);
            let at_home = self.client.netns == Some(packet.netns) && self.last.is_before(first);
            let cause = words::never_left(words::freed(what, &reason), forward && at_home);
            let leg = if forward { first } else { answer };
            let suspect = context.suspect(packet);
            self.dropped.note(same, leg, packet, cause, suspect);
        }
    }

    /// The answer to the first packet was seen; `home` where it is back with the one who asked.
    pub(super) fn answered(&mut self, ktime: KtimeNs, home: bool) {
        if !self.home {
            self.answered = Some(ktime);
            self.home = home;
        }
    }

    /// The server's first data was seen.
    pub(super) fn first_byte(&mut self, ktime: KtimeNs, home: bool, context: &mut Context<'_>) {
        if self.first_byte.is_none() || home {
            self.first_byte = Some(ktime);
        }
        self.first_byte_home |= home;
        if home {
            self.finish(context);
        }
    }

    /// Either side closes.
    pub(super) fn close(&mut self, context: &mut Context<'_>) {
        if self.answered.is_some() {
            self.finish(context);
            self.state = State::Done;
        }
    }

    /// The handshake is over: its answer came home, or data followed.
    fn is_connected(&self) -> bool {
        self.home || self.first_byte.is_some() || self.last.leg() >= Some(Leg::Request)
    }

    /// When the server's first data was with the client, as far as that can be known: where the answer to the SYN
    /// was seen to come home, data that is seen elsewhere alone did not.
    fn arrived(&self) -> Option<KtimeNs> {
        let lost = self.home && !self.first_byte_home;
        self.first_byte.filter(|_| !lost)
    }

    /// A segment was sent again. Data that is, again and again, without an answer, means that the
    /// connection makes no headway.
    pub(super) fn sent_again(&mut self, ktime: KtimeNs, context: &mut Context<'_>) {
        self.retransmits += 1;
        if self.answered.is_none() || self.arrived().is_some() {
            return;
        }
        let (times, first) = self
            .again
            .map_or((1, ktime), |(times, first)| (times + 1, first));
        self.again = Some((times, first));
        let over = ktime - first;
        if times < STALLS || over < STALLED || self.stalled || !self.is_connected() {
            return;
        }
        // Why a packet was dropped is told a second later at times.
        if over < COUNTED && self.dropped.awaits(context.counted) {
            return;
        }
        self.stalled = true;
        if self.state == State::Waiting {
            self.finish(context);
        }
        let stalled = words::stalled(times, over);
        let (outcome, cause) = match self.dropped.explained(context.counted) {
            Some(dropped) => (Outcome::Dropped, format!("{stalled}; {dropped}")),
            None => (Outcome::Unanswered, stalled),
        };
        self.amend(outcome, cause, context);
    }

    /// Whether the answer to the SYN was seen and did not come to the client: it was dropped, or
    /// the SYN was sent again although it had been sent.
    fn is_answer_lost(&self) -> bool {
        let is_seen_lost = self.again.is_some() || self.dropped.cause().is_some();
        self.protocol == Protocol::Tcp && !self.is_connected() && is_seen_lost
    }

    /// The server's side sent a reset.
    pub(super) fn reset(&mut self, from: IpAddr, context: &mut Context<'_>) {
        let cause = words::reset(from, self.answered.is_some(), self.first_byte.is_some());
        self.trail.turned_away(from);
        match self.state {
            State::Open => self.amend(Outcome::Reset, cause, context),
            _ => self.fail(Outcome::Reset, cause, context),
        }
        self.state = State::Done;
    }

    /// An ICMP error came.
    pub(super) fn reject(&mut self, by: IpAddr, cause: &str, context: &mut Context<'_>) {
        self.trail.turned_away(by);
        if self.answered.is_some() || self.rejected.is_some() {
            return;
        }
        // Why a host is not reachable is told by the packet's drop, which comes next.
        if self.state == State::Waiting && cause.contains("host unreachable") {
            self.rejected = Some(cause.to_owned());
        } else {
            self.fail(Outcome::Rejected, cause.to_owned(), context);
        }
    }

    /// Its ports are used anew before its row was made.
    pub(super) fn replaced(mut self, context: &mut Context<'_>) {
        if self.answered.is_some() {
            self.finish(context);
        } else if let Some(cause) = self.rejected.take() {
            self.fail(Outcome::Rejected, cause, context);
        } else {
            self.give_up(words::replaced(), context);
        }
    }

    /// Lets time pass; false when it need not be followed any longer.
    pub(super) fn age(&mut self, now: KtimeNs, context: &mut Context<'_>) -> bool {
        let since = now - self.first.ktime;
        match (self.state, self.answered) {
            (State::Done, _) => return false,
            (State::Open, _) => {}
            (State::GivenUp, Some(_)) => self.finish(context),
            (State::GivenUp, None) => return since < context.settings.keep,
            (State::Waiting, Some(answered)) => {
                if self.is_answer_lost() {
                    if since >= context.settings.unanswered_after {
                        self.answered = None;
                        let after = context.settings.unanswered_after;
                        let cause = words::syn_ack_lost(&words::unanswered(after));
                        self.give_up(words::sent_again(cause, self.retransmits), context);
                    }
                } else if self.protocol == Protocol::Udp || now - answered >= FIRST_BYTE {
                    self.finish(context);
                }
            }
            (State::Waiting, None) => {
                if let Some(cause) = self.rejected.take() {
                    let cause = words::with_neighbour(cause, self.dropped.cause());
                    self.fail(Outcome::Rejected, cause, context);
                } else if since >= context.settings.unanswered_after {
                    let cause = words::unanswered(context.settings.unanswered_after);
                    let to = self.backend.unwrap_or(self.asked).ip();
                    let left = self.last.leaves(Leg::Syn).then_some(to);
                    let cause = self.carried.explain(cause, left);
                    let cause = words::sent_again(cause, self.retransmits);
                    let cause = words::while_lossy(cause, context.is_lossy(self.first.ktime));
                    self.give_up(cause, context);
                }
            }
        }
        true
    }

    /// Nothing came; `otherwise` says so where nothing was seen that explains it.
    fn give_up(&mut self, otherwise: String, context: &mut Context<'_>) {
        match (self.dropped.explained(context.counted), self.protocol) {
            (Some(cause), _) => self.fail(Outcome::Dropped, cause, context),
            (None, Protocol::Tcp) => self.fail(Outcome::Unanswered, otherwise, context),
            (None, Protocol::Udp) => {
                if self.state == State::Waiting && self.is_service(context) {
                    self.emit(Outcome::OneWay, None, context);
                }
                self.state = State::Done;
            }
        }
    }

    fn fail(&mut self, outcome: Outcome, cause: String, context: &mut Context<'_>) {
        if self.state != State::Waiting {
            return;
        }
        self.state = State::GivenUp;
        // Where service addresses are known, failures to others are not asked for.
        if context.settings.vips.is_empty() || self.is_wanted(context) {
            self.emit(outcome, Some(cause), context);
        }
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        let is_over = matches!(self.state, State::Done | State::Open);
        let wanted = self.shown || self.is_wanted(context) && !self.quiet;
        if !is_over && wanted {
            self.emit(Outcome::Answered, None, context);
        }
        let is_followed = wanted && !self.quiet && self.protocol == Protocol::Tcp;
        self.state = match self.state {
            State::Done => State::Done,
            _ if is_followed => State::Open,
            _ => State::Done,
        };
    }

    /// What goes wrong with a connection whose row may be out already. Where records were lost, its
    /// end may be among them.
    fn amend(&mut self, outcome: Outcome, cause: String, context: &mut Context<'_>) {
        if self.is_wanted(context) && !context.is_lossy(self.first.ktime) {
            self.emit(outcome, Some(cause), context);
        }
    }

    fn is_wanted(&self, context: &Context<'_>) -> bool {
        context.settings.direct || self.is_service(context)
    }

    fn is_service(&self, context: &Context<'_>) -> bool {
        self.backend.is_some() || is_vip(&context.settings.vips, self.asked.ip())
    }

    fn emit(&mut self, outcome: Outcome, cause: Option<String>, context: &mut Context<'_>) {
        // Each row corrects the one before it.
        let amends = self.shown.then_some(self.serial);
        if amends.is_some() {
            self.serial = context.next_serial();
        }
        self.shown = true;
        let trail = match outcome {
            Outcome::Answered => std::mem::take(&mut self.trail),
            _ => self.trail.clone(),
        };
        let journey = trail.journey(outcome);
        let dropped = self.dropped.place();
        let row = Connection {
            serial: self.serial,
            ktime: self.first.ktime,
            wall: context.clocks.wall(self.first.ktime),
            client: self.client.clone(),
            protocol: self.protocol,
            asked: self.asked,
            backend: self.backend,
            latency: self.answered.map(|answered| answered - self.first.ktime),
            first_byte: self
                .arrived()
                .map(|first_byte| first_byte - self.first.ktime),
            retransmits: self.retransmits,
            outcome,
            cause,
            amends,
            stopped: self.last.stopped(outcome, journey.as_deref(), dropped),
            journey,
        };
        context.rows.push(Row::Connection(row));
    }
}

/// Who opens a connection, as far as one sight of its first packet tells.
fn client(packet: &Packet, ends: Ends) -> Client {
    Client {
        address: ends.client,
        netns: packet.sender.map(|_| packet.netns),
        sender: packet.sender,
    }
}
