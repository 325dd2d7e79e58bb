//! `Journey`: where the packets of one exchange were, stage after stage without a gap, and where
//! it stopped if it came to no good end. The names of legs and stages are these two lists.

use std::time::Duration;

use smallvec::SmallVec;

use super::{
    fact::Flow,
    ids::{Ifindex, KtimeNs, NetnsInode},
};

/// The packet of an exchange that is under way, or awaited; in the order in which they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Leg {
    /// A DNS query.
    Query,
    /// Its answer.
    Answer,
    /// The first packet of a TCP handshake.
    Syn,
    /// The second.
    SynAck,
    /// The client's first data over TCP, or the first packet of a UDP flow.
    Request,
    /// The server's first data over TCP, or the first packet back of a UDP flow.
    Response,
}

impl Leg {
    /// The word for it, in text and JSON alike.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Answer => "answer",
            Self::Syn => "syn",
            Self::SynAck => "syn_ack",
            Self::Request => "request",
            Self::Response => "response",
        }
    }

    /// Whether it goes from client to server.
    pub fn is_forward(self) -> bool {
        matches!(self, Self::Query | Self::Syn | Self::Request)
    }
}

/// A part of a leg, told by what is seen: changes of namespace, receiving and queueing.
/// The same names hold both ways; the leg tells which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The sender's kernel waits for an acknowledgement before it sends the same again.
    SentAgain,
    /// At the client, between its last answer and its next packet: its own time.
    Client,
    /// Within the client's namespace, between its first or last device and the one to the outside.
    ClientDevices,
    /// From the client's namespace to the next, or back: the queue of its device, and the wait
    /// for a processor to receive.
    ClientLink,
    /// Within a namespace between client and backend, from receiving to queueing: bridge,
    /// netfilter, NAT, routing.
    Node,
    /// From one namespace to another, neither end of which alone is the client's or the backend's:
    /// straight from client to backend, or between two on the way.
    Link,
    /// Out of this node and back: both ways on the wire, and all that the other node does.
    Wire,
    /// From the namespace before the backend's to the backend's, or back.
    BackendLink,
    /// Within the backend's namespace, between its outermost device and the last one before, or
    /// the first one after, its socket.
    BackendDevices,
    /// At the backend, from its last device to its socket's queue.
    BackendInput,
    /// In the queue of the backend's socket, until the backend reads.
    BackendQueue,
    /// The backend's own time, until its answer is queued at a device; and what of the two before
    /// nobody saw apart.
    Backend,
    /// The backend waits for a server that it asked in its turn.
    Upstream,
    /// At the client, from its last device to its socket's queue.
    ClientInput,
    /// In the queue of the client's socket, until the client reads.
    ClientQueue,
}

impl Stage {
    /// The word for it, in text and JSON alike.
    pub fn name(self) -> &'static str {
        match self {
            Self::SentAgain => "sent_again",
            Self::Client => "client",
            Self::ClientDevices => "client_devices",
            Self::ClientLink => "client_link",
            Self::Node => "node",
            Self::Link => "link",
            Self::Wire => "wire",
            Self::BackendLink => "backend_link",
            Self::BackendDevices => "backend_devices",
            Self::BackendInput => "backend_input",
            Self::BackendQueue => "backend_queue",
            Self::Backend => "backend",
            Self::Upstream => "upstream",
            Self::ClientInput => "client_input",
            Self::ClientQueue => "client_queue",
        }
    }
}

/// A stage of a leg; what totals are kept by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Step {
    /// Which packet.
    pub leg: Leg,
    /// Which part of its way. At [`Stage::Backend`], [`Stage::Client`] and [`Stage::Wire`] the
    /// packet is awaited.
    pub stage: Stage,
}

/// Where a packet is, at a device or between it and an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Handed to the device.
    Queued,
    /// Taken from it.
    Received,
    /// Put into a socket's queue.
    Delivered,
    /// Read by an application.
    Read,
    /// Freed by the kernel.
    Dropped,
}

impl Side {
    /// The word for it in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Received => "received",
            Self::Delivered => "delivered",
            Self::Read => "read",
            Self::Dropped => "dropped",
        }
    }
}

/// One side of one device in one namespace, at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When the packet was there; never before the point that precedes it.
    pub ktime: KtimeNs,
    /// In which namespace.
    pub netns: NetnsInode,
    /// At which device; 0 before or without any.
    pub ifindex: Ifindex,
    /// At which side of it, or beyond.
    pub side: Side,
    /// Index of the packet's addresses there, in [`Journey::flows`].
    pub flow: u8,
}

/// A stage with its end; it begins where the one before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Which one.
    pub step: Step,
    /// Where and when it ended.
    pub end: Point,
}

/// Stages; those of a query through a bridge and a VIP, into sockets and out of them, need no memory of their
/// own.
pub type Stages = SmallVec<[Passed; 12]>;

/// Stages that nobody could see apart.
pub type Unseen = SmallVec<[Step; 4]>;

/// A packet's addresses; NAT on its way makes two or three.
pub type Flows = SmallVec<[Flow; 2]>;

/// The way of an exchange's packets, as far as seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journey {
    /// The first sight.
    pub start: Point,
    /// Stages in order of time. They leave no gap: their durations add up to the time from
    /// `start` to the last one's end.
    pub stages: Stages,
    /// Stages that nobody could see apart: they lie within their neighbours, or beyond either end.
    pub unseen: Unseen,
    /// Addresses as they stood in the packets, each once, turned to point from client to server.
    pub flows: Flows,
    /// Where a packet that had to be sent again was seen last.
    pub lost: Option<Point>,
    /// Sights left out: clones that a bridge flooded elsewhere, copies, and those beyond the
    /// bound of what is kept for one exchange.
    pub left_out: u32,
}

impl Journey {
    /// Stages with where they began, in order.
    pub fn spans(&self) -> impl Iterator<Item = (Step, Point, Point)> {
        let begins = std::iter::once(self.start).chain(self.stages.iter().map(|stage| stage.end));
        let stages = self.stages.iter().zip(begins);
        stages.map(|(stage, begin)| (stage.step, begin, stage.end))
    }

    /// The last sight.
    pub fn last(&self) -> Point {
        self.stages.last().map_or(self.start, |stage| stage.end)
    }

    /// The stage that was passed last; `None` when the packet was seen at one place only.
    pub fn stopped_in(&self) -> Option<Step> {
        self.stages.last().map(|stage| stage.step)
    }

    /// From the first sight to the last.
    pub fn duration(&self) -> Duration {
        self.last().ktime - self.start.ktime
    }

    /// Addresses of the packet at `point`, from client to server.
    pub fn flow(&self, point: Point) -> Option<Flow> {
        self.flows.get(usize::from(point.flow)).copied()
    }
}
