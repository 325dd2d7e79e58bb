//! The sockets' ends of queries and answers over UDP: which try it was whose datagram a socket was
//! given, or whose application read.

use super::{
    super::{
        Context,
        sockets::{Sockets, Update},
    },
    DnsTable, Key, Seen,
    attempt::Attempt,
};
use crate::model::{Delivery, IoEvent, KtimeNs, Place, Protocol, SocketIo};

/// One datagram of a try: its query or its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram {
    key: Key,
    serial: u64,
    is_answer: bool,
}

/// Try `serial` begins with this query.
pub(super) fn begins(sockets: &mut Sockets<Datagram>, seen: &Seen<'_>, serial: u64) {
    if let Some(sender) = seen.packet.sender.filter(|_| seen.is_sent()) {
        let datagram = Datagram::of(seen, serial);
        sockets.sends(sender.sock, seen.packet.ktime, datagram);
    }
    passes(sockets, seen, serial);
}

/// A query or an answer of try `serial` is seen; from a device it may go on to a socket.
pub(super) fn passes(sockets: &mut Sockets<Datagram>, seen: &Seen<'_>, serial: u64) {
    if seen.protocol == Protocol::Udp && seen.packet.place == Place::Received {
        sockets.arrives(seen.packet, Datagram::of(seen, serial));
    }
}

impl Datagram {
    pub(super) fn of(seen: &Seen<'_>, serial: u64) -> Self {
        Self {
            key: seen.key(),
            serial,
            is_answer: seen.peek.is_response,
        }
    }

    /// Port of the client's socket.
    pub(super) fn client_port(self) -> u16 {
        self.key.client.port()
    }
}

impl DnsTable {
    /// Takes what a socket gave or took.
    pub(in super::super) fn socket(&mut self, io: &SocketIo, context: &mut Context<'_>) {
        match io.event {
            IoEvent::Full => self.failing.full(io),
            IoEvent::Failed { errno } => self.application_told(io, errno),
            IoEvent::Delivered { .. } | IoEvent::Read { .. } | IoEvent::Sent { .. } => {
                self.sockets.io(io, &mut self.updates);
                self.update(io.ktime, context);
            }
        }
    }

    /// Lets sockets go that are idle.
    pub(super) fn sweep_sockets(&mut self, now: KtimeNs, context: &mut Context<'_>) {
        let keep = context.settings.keep;
        self.sockets.sweep(now, keep, &mut self.updates);
        self.update(now, context);
    }

    /// The try that sent or got this one; `None` when it is forgotten.
    pub(super) fn attempt_of(&mut self, datagram: Datagram) -> Option<&mut Attempt> {
        let group = self.groups.get_mut(&datagram.key)?;
        group.get_mut(group.newest(|attempt| attempt.serial == datagram.serial)?)
    }

    /// Tells tries what became known of their datagrams.
    fn update(&mut self, now: KtimeNs, context: &mut Context<'_>) {
        let before = context.rows.len();
        let mut updates = std::mem::take(&mut self.updates);
        for (datagram, update) in updates.drain(..) {
            let Some(attempt) = self.attempt_of(datagram) else {
                continue;
            };
            match (update, datagram.is_answer) {
                (Update::Sent(ktime), _) => attempt.ends.sent = Some(ktime),
                (Update::Delivery(news), false) => follow(&mut attempt.ends.query, news),
                (Update::Delivery(news), true) => {
                    follow(&mut attempt.ends.answer, news);
                    if !attempt.ends.answer.waits() {
                        attempt.left_socket(context);
                    }
                }
            }
        }
        self.updates = updates;
        self.made(before, now, context);
    }
}

/// Takes what is new of one datagram; a second one of the same try, as of an answer that comes
/// twice, has another time.
fn follow(known: &mut Delivery, news: Delivery) {
    if *known == Delivery::Unseen || known.waits() && known.queued() == news.queued() {
        *known = news;
    }
}

#[cfg(test)]
mod tests;
