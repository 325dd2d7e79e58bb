//! Where an exchange met its sockets: when a datagram was put into a socket's queue, and when and
//! by whom it was read. Known only where kernel and socket gave it away without doubt.

use std::time::Duration;

use super::{fact::Task, ids::KtimeNs, journey::Leg};

/// The sockets' ends of one exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketEnds {
    /// When the client's call to send returned; `None` when not seen.
    pub sent: Option<KtimeNs>,
    /// The query at the server's socket.
    pub query: Delivery,
    /// When the server sent its answer; `None` when that was not seen.
    pub answered: Option<KtimeNs>,
    /// The answer at the client's socket.
    pub answer: Delivery,
}

impl SocketEnds {
    /// Who read the datagram of `leg`; `None` when that was not seen.
    pub fn reader(&self, leg: Leg) -> Option<Task> {
        let delivery = if leg.is_forward() {
            self.query
        } else {
            self.answer
        };
        delivery.reader()
    }

    /// From reading the query to sending the answer: the server's own time, all that it asks
    /// others included. `None` when either was not seen.
    pub fn server_time(&self) -> Option<Duration> {
        Some(self.answered? - self.query.read()?)
    }
}

/// A datagram at its socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Not seen, or not to be told from another's.
    #[default]
    Unseen,
    /// In the socket's queue since then; not read yet, or nobody could tell when.
    Queued {
        /// When it was put there.
        at: KtimeNs,
        /// `false` once another datagram may have been read in its place.
        waits: bool,
    },
    /// Taken out by its application.
    Read {
        /// When it was put into the queue.
        queued: KtimeNs,
        /// When the call to read returned.
        at: KtimeNs,
        /// Who read.
        by: Task,
    },
}

impl Delivery {
    /// When it was put into the socket's queue.
    pub fn queued(self) -> Option<KtimeNs> {
        match self {
            Self::Unseen => None,
            Self::Queued { at, .. } | Self::Read { queued: at, .. } => Some(at),
        }
    }

    /// When it was read.
    pub fn read(self) -> Option<KtimeNs> {
        match self {
            Self::Read { at, .. } => Some(at),
            Self::Unseen | Self::Queued { .. } => None,
        }
    }

    /// How long it lay in the queue; `None` when it was not seen to be read.
    pub fn waited(self) -> Option<Duration> {
        Some(self.read()? - self.queued()?)
    }

    /// Who read it; `None` when it was not seen to be read.
    pub fn reader(self) -> Option<Task> {
        match self {
            Self::Read { by, .. } => Some(by),
            Self::Unseen | Self::Queued { .. } => None,
        }
    }

    /// Whether it lies there still, as far as is known.
    pub fn waits(self) -> bool {
        matches!(self, Self::Queued { waits: true, .. })
    }
}
