//! One connection: from its first packet to the row that tells how it went.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    super::{Context, nat::Ends, spot::Spot, words},
    is_vip,
};
use crate::model::{Client, Connection, KtimeNs, Outcome, Packet, Protocol, Row, SkbId};

/// How long an open connection waits for its first byte before its row is made without it.
const FIRST_BYTE: Duration = Duration::from_secs(1);

/// How long one packet may take across the node, at most, to be known again by its skb.
const SAME_PACKET: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// For its row.
    Waiting,
    /// The row is out, and it was bad; it may still be amended.
    GivenUp,
    /// The row is out.
    Done,
}

/// A connection that is being followed.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) client: Client,
    pub(super) origin: Spot,
    pub(super) skb: SkbId,
    /// Sequence number of its SYN.
    pub(super) seq: u32,
    pub(super) retransmits: u32,
    pub(super) state: State,
    serial: u64,
    began: KtimeNs,
    protocol: Protocol,
    asked: SocketAddr,
    backend: Option<SocketAddr>,
    /// Only a failure is worth a row.
    quiet: bool,
    answered: Option<KtimeNs>,
    /// The answer was seen where the question came from; its time is final.
    home: bool,
    first_byte: Option<KtimeNs>,
    drop: Option<String>,
}

impl Opened {
    pub(super) fn new(
        protocol: Protocol,
        packet: &Packet,
        ends: Ends,
        origin: Spot,
        quiet: bool,
        context: &mut Context<'_>,
    ) -> Self {
        Self {
            client: Client {
                address: ends.client,
                netns: packet.sender.map(|_| packet.netns),
                sender: packet.sender,
            },
            origin,
            skb: packet.skb,
            seq: 0,
            retransmits: 0,
            state: State::Waiting,
            serial: context.next_serial(),
            began: packet.ktime,
            protocol,
            asked: ends.asked,
            backend: ends.backend,
            quiet,
            answered: None,
            home: false,
            first_byte: None,
            drop: None,
        }
    }

    pub(super) fn is_young(&self, now: KtimeNs) -> bool {
        now - self.began < SAME_PACKET
    }

    /// Takes what a further sight of a packet tells.
    pub(super) fn pass(&mut self, backend: Option<SocketAddr>) {
        if self.backend.is_none() {
            self.backend = backend.filter(|&backend| backend != self.asked);
        }
    }

    pub(super) fn drop(&mut self, cause: Option<String>) {
        if self.drop.is_none() {
            self.drop = cause;
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
        let cause = format!("reset by {from} {when}");
        self.fail(Outcome::Reset, cause, context);
    }

    /// An ICMP error came.
    pub(super) fn reject(&mut self, cause: &str, context: &mut Context<'_>) {
        if self.answered.is_none() {
            self.fail(Outcome::Rejected, cause.to_owned(), context);
        }
    }

    /// Its ports are used anew before its row was made.
    pub(super) fn replaced(mut self, context: &mut Context<'_>) {
        if self.answered.is_some() {
            self.finish(context);
        } else {
            self.give_up(context);
        }
    }

    /// Lets time pass; false when it need not be followed any longer.
    pub(super) fn age(&mut self, now: KtimeNs, context: &mut Context<'_>) -> bool {
        let since = now - self.began;
        match self.state {
            State::Done => return false,
            State::GivenUp if self.answered.is_some() => self.finish(context),
            State::GivenUp => return since < context.settings.keep,
            State::Waiting => match self.answered {
                Some(answered)
                    if self.protocol == Protocol::Udp || now - answered >= FIRST_BYTE =>
                {
                    self.finish(context);
                }
                None if since >= context.settings.unanswered_after => self.give_up(context),
                _ => {}
            },
        }
        true
    }

    fn give_up(&mut self, context: &mut Context<'_>) {
        match (self.drop.take(), self.protocol) {
            (Some(cause), _) => self.fail(Outcome::Dropped, cause, context),
            (None, Protocol::Tcp) => {
                let cause = words::unanswered(context.settings.unanswered_after);
                self.fail(Outcome::Unanswered, cause, context);
            }
            (None, Protocol::Udp) => {
                if self.is_service(context) {
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
        // Where service addresses are known, failures to others are not asked for.
        if context.settings.vips.is_empty() || self.is_service(context) {
            self.emit(outcome, Some(cause), context);
        }
        self.state = State::GivenUp;
    }

    fn finish(&mut self, context: &mut Context<'_>) {
        let is_service = self.is_service(context);
        let amends = self.state == State::GivenUp;
        if self.state != State::Done && (amends || is_service && !self.quiet) {
            self.emit(Outcome::Answered, None, context);
        }
        self.state = State::Done;
    }

    fn is_service(&self, context: &Context<'_>) -> bool {
        self.backend.is_some() || is_vip(&context.settings.vips, self.asked.ip())
    }

    fn emit(&self, outcome: Outcome, cause: Option<String>, context: &mut Context<'_>) {
        let amends = (self.state == State::GivenUp).then_some(self.serial);
        let row = Connection {
            serial: if amends.is_some() {
                context.next_serial()
            } else {
                self.serial
            },
            ktime: self.began,
            wall: context.clocks.wall(self.began),
            client: self.client.clone(),
            protocol: self.protocol,
            asked: self.asked,
            backend: self.backend,
            latency: self.answered.map(|answered| answered - self.began),
            first_byte: self.first_byte.map(|first_byte| first_byte - self.began),
            retransmits: self.retransmits,
            outcome,
            cause,
            amends,
        };
        context.rows.push(Row::Connection(row));
    }
}
