//! What failed at a socket or before it, told by the kernel where it happened: an ICMP error being
//! sent, a full receive buffer, an error that the application gets.

use std::time::Duration;

use super::{
    super::{Context, SWEEP_EVERY, words},
    DnsTable, Seen,
    ends::Datagram,
};
use crate::model::{KtimeNs, NetnsInode, Packet, Place, SocketIo, trace::Unplaced};

/// How long after a socket's buffer was found full the drop comes, at most: it is what the kernel
/// does next.
const NEXT: Duration = Duration::from_millis(1);

/// How long after an ICMP error came the application is told of it, at most: it may be seen by another
/// processor.
const TOLD: Duration = SWEEP_EVERY;

/// Most of each kind that are remembered.
const MOST: usize = 64;

/// What failed of late.
#[derive(Debug, Default)]
pub(super) struct Failing {
    /// Sockets whose receive buffers were full.
    full: Vec<(NetnsInode, u16, KtimeNs)>,
    /// Queries that an ICMP error came for, and when.
    rejected: Vec<(KtimeNs, Datagram)>,
}

impl Failing {
    /// There was no room in a socket. Of the newest alone drops are still to come.
    pub(super) fn full(&mut self, io: &SocketIo) {
        if self.full.len() >= MOST {
            self.full.clear();
        }
        self.full.push((io.netns, io.local, io.ktime));
    }

    /// An ICMP error came for the query of try `serial`.
    pub(super) fn rejected(&mut self, seen: &Seen<'_>, serial: u64) {
        if self.rejected.len() < MOST {
            let ktime = seen.packet.ktime;
            self.rejected.push((ktime, Datagram::of(seen, serial)));
        }
    }

    /// Forgets what has had its consequences.
    pub(super) fn age(&mut self, now: KtimeNs) {
        self.full.retain(|(.., ktime)| now - *ktime < NEXT);
        self.rejected.retain(|(ktime, _)| now - *ktime < TOLD);
    }

    /// Whether `packet` was dropped for want of room in the socket it was for.
    fn explains(&self, packet: &Packet) -> bool {
        self.full.iter().any(|&(netns, port, ktime)| {
            (netns, port) == (packet.netns, packet.flow.dst.port())
                && packet.ktime >= ktime
                && packet.ktime - ktime < NEXT
        })
    }
}

impl DnsTable {
    /// The cause of a drop, with the socket's part in it; `None` if it is no drop.
    pub(super) fn why_dropped(&self, packet: &Packet, context: &Context<'_>) -> Option<String> {
        let Place::Dropped { reason, .. } = packet.place else {
            return None;
        };
        let names = &context.settings.drop_names;
        let cause = words::dropped(packet, names, context.insert)?;
        // The kernel's own reason, where it gives one, must not say otherwise.
        let name = names.reason(reason);
        let may_be = reason == 0 || matches!(&*name, "SOCKET_RCVBUFF" | "PROTO_MEM");
        Some(if may_be && self.failing.explains(packet) {
            words::full(&cause)
        } else {
            cause
        })
    }

    /// The kernel answers a query with an ICMP error, which may yet get lost.
    pub(super) fn query_refused(
        &mut self,
        seen: &Seen<'_>,
        (kind, code): (u8, u8),
        unplaced: &mut Unplaced,
        context: &mut Context<'_>,
    ) {
        let Some(error) = words::icmp_error(false, kind, code) else {
            return;
        };
        if let Some(attempt) = self.ended(seen, unplaced, context) {
            attempt.refused.get_or_insert(error);
        }
    }

    /// The client's application gets an error. It is that of the latest query of its socket for
    /// which an ICMP error came.
    pub(super) fn application_told(&mut self, io: &SocketIo, errno: u32) {
        let mut rejected = self.failing.rejected.iter().rev();
        let Some(&(_, datagram)) = rejected.find(|(_, of)| of.client_port() == io.local) else {
            return;
        };
        if let Some(attempt) = self.attempt_of(datagram)
            && attempt.is_from(io.netns)
            && let Some(rejected) = &mut attempt.rejected
        {
            words::add_errno(&mut rejected.cause, errno);
        }
    }
}
