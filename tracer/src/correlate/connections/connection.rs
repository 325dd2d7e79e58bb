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
        nat::Ends,
        spot::{Beginning, Spot, is_drop},
        words,
    },
    is_vip,
};
use crate::model::{Client, Connection, KtimeNs, Outcome, Packet, Protocol, Row, journey::Leg};

/// How long an open connection waits for its first byte before its row is made without it.
const FIRST_BYTE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// For its end.
    Waiting,
    /// Nothing came, or an ICMP error; an answer may still come.
    GivenUp,
    /// It has ended.
    Done,
}

/// A connection that is being followed.
#[derive(Debug)]
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
    dropped: Dropped,
    /// Its first packet.
    carried: Carried,
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
            dropped: Dropped::default(),
            carried: Carried::new(packet),
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
        let what = match (forward, self.protocol) {
            (true, Protocol::Tcp) => "SYN",
            (true, Protocol::Udp) => "packet",
            (false, _) => "answer",
        };
        if let Some(reason) = words::dropped(packet, &context.settings.drop_names, context.insert) {
            let same = self.first.is_of(packet);
            let suspect = context.suspect(packet);
            self.dropped
                .note(same, words::freed(what, &reason), suspect);
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
        if home {
            self.finish(context);
        }
    }

    /// Either side closes.
    pub(super) fn close(&mut self, context: &mut Context<'_>) {
        if self.answered.is_some() {
            self.finish(context);
        }
    }

    /// The server's side sent a reset.
    pub(super) fn reset(&mut self, from: IpAddr, context: &mut Context<'_>) {
        let when = if self.answered.is_some() {
            "after the handshake"
        } else {
            "to the first packet"
        };
        self.trail.turned_away(from);
        let cause = format!("reset by {from} {when}");
        self.fail(Outcome::Reset, cause, context);
        self.state = State::Done;
    }

    /// An ICMP error came.
    pub(super) fn reject(&mut self, by: IpAddr, cause: &str, context: &mut Context<'_>) {
        self.trail.turned_away(by);
        if self.answered.is_none() && self.rejected.is_none() {
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
            (State::GivenUp, Some(_)) => self.finish(context),
            (State::GivenUp, None) => return since < context.settings.keep,
            (State::Waiting, Some(answered)) => {
                if self.protocol == Protocol::Udp || now - answered >= FIRST_BYTE {
                    self.finish(context);
                }
            }
            (State::Waiting, None) => {
                if let Some(cause) = self.rejected.take() {
                    self.fail(Outcome::Rejected, cause, context);
                } else if since >= context.settings.unanswered_after {
                    let cause = words::unanswered(context.settings.unanswered_after);
                    let cause = self.carried.explain(cause);
                    self.give_up(cause, context);
                }
            }
        }
        true
    }

    /// Nothing came; `otherwise` says so where nothing was seen that explains it.
    fn give_up(&mut self, otherwise: String, context: &mut Context<'_>) {
        match (self.dropped.take(context.counted), self.protocol) {
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
        if context.settings.vips.is_empty() || self.is_service(context) {
            self.emit(outcome, Some(cause), context);
        }
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        let wanted = self.shown || self.is_service(context) && !self.quiet;
        if self.state != State::Done && wanted {
            self.emit(Outcome::Answered, None, context);
        }
        self.state = State::Done;
    }

    fn is_service(&self, context: &Context<'_>) -> bool {
        self.backend.is_some() || is_vip(&context.settings.vips, self.asked.ip())
    }

    fn emit(&mut self, outcome: Outcome, cause: Option<String>, context: &mut Context<'_>) {
        let amends = self.shown.then_some(self.serial);
        self.shown = true;
        let trail = match outcome {
            Outcome::Answered => std::mem::take(&mut self.trail),
            _ => self.trail.clone(),
        };
        let row = Connection {
            serial: if amends.is_some() {
                context.next_serial()
            } else {
                self.serial
            },
            ktime: self.first.ktime,
            wall: context.clocks.wall(self.first.ktime),
            client: self.client.clone(),
            protocol: self.protocol,
            asked: self.asked,
            backend: self.backend,
            latency: self.answered.map(|answered| answered - self.first.ktime),
            first_byte: self
                .first_byte
                .map(|first_byte| first_byte - self.first.ktime),
            retransmits: self.retransmits,
            outcome,
            cause,
            amends,
            journey: trail.journey(outcome),
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
