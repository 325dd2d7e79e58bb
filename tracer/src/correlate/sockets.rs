//! Which datagram a socket was given, and which one its application read.
//!
//! A delivery names the packet that is last in the socket's queue, and every record says how many
//! are in it. UDP sockets are read in order, so a queue that is followed here from its first
//! datagram on tells what is read next, and the counts tell whether it was followed rightly: where
//! they differ, as after a lost record, or when several threads read at once, all that is in the
//! queue is given up. Knows nothing of DNS: what is followed is the caller's `T`.

use std::{collections::VecDeque, time::Duration};

use rustc_hash::FxHashMap;

use crate::model::{Delivery, IoEvent, KtimeNs, NetnsInode, Packet, SkbId, SockId, SocketIo, Task};

/// How long a packet takes from its last device to its socket, at most: no queue lies between.
const TO_SOCKET: Duration = Duration::from_millis(10);

/// After this long without a record a socket is forgotten; one that has still something to be
/// read, with `keep`.
const IDLE: Duration = Duration::from_secs(2);

/// What became known of the datagram `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Update {
    /// The call that sent it returned.
    Sent(KtimeNs),
    /// It was put into a socket's queue, read from it, or lost sight of there.
    Delivery(Delivery),
}

/// Follows queues of sockets for datagrams that the caller calls `T`.
#[derive(Debug)]
pub(super) struct Sockets<T> {
    /// Packets that came in by a device and may be on their way to a socket.
    arrived: FxHashMap<SkbId, Arrived<T>>,
    /// Datagrams whose sockets' call to send has not returned; `None` where two are.
    sending: FxHashMap<SockId, (KtimeNs, Option<T>)>,
    queues: FxHashMap<SockId, Socket<T>>,
    most: usize,
}

#[derive(Debug)]
struct Arrived<T> {
    ktime: KtimeNs,
    netns: NetnsInode,
    len: u32,
    of: T,
}

#[derive(Debug)]
struct Socket<T> {
    netns: NetnsInode,
    local: u16,
    /// Of the last record.
    ktime: KtimeNs,
    queue: VecDeque<Queued<T>>,
    /// When one was read whose delivery is still to be told: by a reader on another processor.
    early: Option<KtimeNs>,
}

/// One datagram in a queue.
#[derive(Debug)]
struct Queued<T> {
    /// `None` when it was not told which packet it is.
    skb: Option<SkbId>,
    /// `None` when nobody follows it.
    followed: Option<Followed<T>>,
}

#[derive(Debug)]
struct Followed<T> {
    of: T,
    at: KtimeNs,
    len: u32,
}

impl<T: Copy> Sockets<T> {
    /// Follows at most `most` packets and as many sockets; none when it is 0.
    pub(super) fn new(most: usize) -> Self {
        Self {
            arrived: FxHashMap::default(),
            sending: FxHashMap::default(),
            queues: FxHashMap::default(),
            most,
        }
    }

    /// `sock` is sending `of`.
    pub(super) fn sends(&mut self, sock: SockId, ktime: KtimeNs, of: T) {
        if self.sending.len() < self.most {
            let other = self.sending.insert(sock, (ktime, Some(of)));
            if other.is_some() {
                self.sending.insert(sock, (ktime, None));
            }
        }
    }

    /// Whether it will be told what `sock` is given. Of one that sends again though no call of its was told of,
    /// nothing is: a probe is not attached, or an older recording knows connected sockets alone.
    pub(super) fn tells(&self, sock: SockId) -> bool {
        self.queues.contains_key(&sock) || !matches!(self.sending.get(&sock), Some((_, None)))
    }

    /// `packet`, which is `of`, was taken from a device.
    pub(super) fn arrives(&mut self, packet: &Packet, of: T) {
        if self.arrived.len() < self.most {
            let arrived = Arrived {
                ktime: packet.ktime,
                netns: packet.netns,
                len: packet.payload_len,
                of,
            };
            self.arrived.insert(packet.skb, arrived);
        }
    }

    /// Takes what a socket gave or took, and pushes what is known by it.
    pub(super) fn io(&mut self, io: &SocketIo, updates: &mut Vec<(T, Update)>) {
        match io.event {
            IoEvent::Delivered { last, queued } => {
                let arrived = last.and_then(|skb| self.arrived.remove(&skb));
                let followed = arrived.filter(|arrived| {
                    arrived.netns == io.netns && io.ktime - arrived.ktime < TO_SOCKET
                });
                if let Some(socket) = self.socket(io, updates) {
                    let followed = followed.map(|arrived| Followed {
                        of: arrived.of,
                        at: io.ktime,
                        len: arrived.len,
                    });
                    socket.delivered(last, followed, queued, updates);
                }
            }
            IoEvent::Read { by, bytes, queued } => {
                if let Some(socket) = self.socket(io, updates) {
                    socket.read(by, bytes, queued, updates);
                }
            }
            IoEvent::Full | IoEvent::Failed { .. } => {}
            IoEvent::Sent { .. } => {
                if let Some((_, Some(of))) = self.sending.remove(&io.sock) {
                    updates.push((of, Update::Sent(io.ktime)));
                }
            }
        }
    }

    /// The socket of this record; another one if its address has gone to another. `None` for want
    /// of room.
    fn socket(&mut self, io: &SocketIo, updates: &mut Vec<(T, Update)>) -> Option<&mut Socket<T>> {
        if self.queues.len() >= self.most && !self.queues.contains_key(&io.sock) {
            return None;
        }
        let socket = self.queues.entry(io.sock).or_insert_with(|| Socket::of(io));
        if (socket.netns, socket.local) != (io.netns, io.local) {
            socket.give_up(updates);
            *socket = Socket::of(io);
        }
        socket.ktime = io.ktime;
        Some(socket)
    }

    /// Forgets what is over; a datagram may lie unread for `keep`.
    pub(super) fn sweep(&mut self, now: KtimeNs, keep: Duration, updates: &mut Vec<(T, Update)>) {
        self.arrived
            .retain(|_, arrived| now - arrived.ktime < TO_SOCKET);
        self.sending.retain(|_, (ktime, _)| now - *ktime < IDLE);
        self.queues.retain(|_, socket| {
            let limit = if socket.queue.is_empty() { IDLE } else { keep };
            let kept = now - socket.ktime < limit;
            if !kept {
                socket.give_up(updates);
            }
            kept
        });
    }
}

impl<T: Copy> Socket<T> {
    fn of(io: &SocketIo) -> Self {
        Self {
            netns: io.netns,
            local: io.local,
            ktime: io.ktime,
            queue: VecDeque::new(),
            early: None,
        }
    }

    /// A datagram was put into the queue, and `queued` were in it then. The first of ours may be
    /// one that is being read at this moment.
    fn delivered(
        &mut self,
        last: Option<SkbId>,
        followed: Option<Followed<T>>,
        queued: usize,
        updates: &mut Vec<(T, Update)>,
    ) {
        let early = self.early.take();
        let told = last.is_some() && self.queue.back().is_some_and(|back| back.skb == last);
        if let Some(Followed { of, at, .. }) = followed {
            let delivery = Delivery::Queued { at, waits: true };
            updates.push((of, Update::Delivery(delivery)));
            self.queue.push_back(Queued {
                skb: last,
                followed,
            });
        } else if last.is_some() && !told || last.is_none() && !self.was_read(early) {
            self.queue.push_back(Queued::unknown(last));
        }
        if self.queue.len() != queued && self.queue.len() != queued + 1 {
            let known = last.and_then(|_| self.queue.pop_back());
            self.give_up(updates);
            let before = queued.saturating_sub(usize::from(known.is_some()));
            self.queue.resize_with(before, || Queued::unknown(None));
            self.queue.extend(known);
        }
    }

    /// Whether the datagram delivered now is the one that was read just before.
    fn was_read(&self, early: Option<KtimeNs>) -> bool {
        early.is_some_and(|read| self.ktime - read < TO_SOCKET)
    }

    /// The first datagram was taken out, and `queued` were left.
    fn read(&mut self, by: Task, bytes: u32, queued: usize, updates: &mut Vec<(T, Update)>) {
        let Some(first) = self.queue.pop_front() else {
            self.early = Some(self.ktime);
            return;
        };
        // More than are known of were delivered just now.
        let in_step = queued >= self.queue.len();
        if let Some(Followed { of, at, len }) = first.followed {
            let delivery = if in_step && bytes <= len {
                Delivery::Read {
                    queued: at,
                    at: self.ktime,
                    by,
                }
            } else {
                Delivery::Queued { at, waits: false }
            };
            updates.push((of, Update::Delivery(delivery)));
        }
        if !in_step {
            self.give_up(updates);
            self.queue.resize_with(queued, || Queued::unknown(None));
        }
    }

    /// It is not known any longer what is in the queue.
    fn give_up(&mut self, updates: &mut Vec<(T, Update)>) {
        for Followed { of, at, .. } in self.queue.drain(..).filter_map(|queued| queued.followed) {
            let delivery = Delivery::Queued { at, waits: false };
            updates.push((of, Update::Delivery(delivery)));
        }
    }
}

impl<T> Queued<T> {
    fn unknown(skb: Option<SkbId>) -> Self {
        Self {
            skb,
            followed: None,
        }
    }
}

#[cfg(test)]
mod tests;
