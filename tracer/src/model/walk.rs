//! `Walk`: what the rules of a node make of one packet, in words: each rule in its way, and what
//! becomes of it.

use std::{net::SocketAddr, time::Duration};

use super::cluster::PortProtocol;

/// One packet's way through the rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Walk {
    /// By which protocol.
    pub protocol: PortProtocol,
    /// From whom.
    pub source: SocketAddr,
    /// Who that is; `None` when it is not known.
    pub client: Option<String>,
    /// To whom.
    pub destination: SocketAddr,
    /// The Service's port there, `shop/web:http`; `None` when it is none.
    pub service: Option<String>,
    /// Where it comes in: a device's name, or `None` when this node sends it.
    pub device: Option<String>,
    /// Rules that held on every way, up to where ways part.
    pub steps: Vec<WalkStep>,
    /// What may become of it, the likeliest first.
    pub ways: Vec<Way>,
    /// Rules that are not understood and on which the answer hangs.
    pub unknown: Vec<String>,
}

/// A rule that held.
#[derive(Clone, Debug, PartialEq)]
pub struct WalkStep {
    /// `prerouting`, `forward`, ….
    pub hook: &'static str,
    /// `ip nat`.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// Its text, as `iptables-save` or `nft list` has it.
    pub rule: String,
    /// The Service's port that it serves; `None` when it serves none, or all.
    pub service: Option<String>,
    /// With what probability it held; `None` when that cannot be told.
    pub chance: Option<f64>,
}

/// How a way ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayEnd {
    /// A socket of this node may have it.
    Delivered,
    /// A device sends it.
    Sent,
    /// Dropped in silence.
    Dropped,
    /// Refused by an ICMP error or a reset.
    Rejected,
    /// A program decides.
    Queued,
    /// No route.
    NoRoute,
    /// Not forwarded.
    NotForwarded,
    /// A loopback address where none may be.
    Martian,
    /// A rule that is not understood.
    Unknown,
}

impl WayEnd {
    /// The word for it, in text and JSON alike.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Sent => "sent",
            Self::Dropped => "dropped",
            Self::Rejected => "rejected",
            Self::Queued => "queued",
            Self::NoRoute => "no route",
            Self::NotForwarded => "not forwarded",
            Self::Martian => "martian",
            Self::Unknown => "unknown",
        }
    }

    /// Whether somebody gets the packet.
    pub fn arrives(self) -> bool {
        matches!(self, Self::Delivered | Self::Sent)
    }
}

/// One thing that may become of a packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// At least with this probability.
    pub low: f64,
    /// At most with this probability.
    pub high: f64,
    /// How it ends.
    pub end: WayEnd,
    /// More of it: a device, an ICMP error; empty when there is none.
    pub detail: String,
    /// Where it goes then.
    pub destination: SocketAddr,
    /// What becomes of the source, in words; `None` when it stays.
    pub source: Option<String>,
    /// How long the client stays with this backend; `None` without affinity.
    pub affinity: Option<Duration>,
    /// Rules that held on this way alone.
    pub steps: Vec<WalkStep>,
    /// The rule that ended it, `ip filter FORWARD: TEXT`; `None` when none did.
    pub by: Option<String>,
    /// What may become of the reply, where it comes back by this node; empty when nobody got the packet.
    pub replies: Vec<ReplyWay>,
    /// What may become of the packet that the client sends once it has been answered; empty where `replies` may be,
    /// where conntrack was told to leave the connection alone, and within itself.
    pub later: Vec<Way>,
}

/// One thing that may become of a reply.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplyWay {
    /// At least with this probability.
    pub low: f64,
    /// At most with this probability.
    pub high: f64,
    /// How it ends.
    pub end: WayEnd,
    /// More of it: a device, an ICMP error; empty when there is none.
    pub detail: String,
    /// From whom it seems to come then.
    pub source: SocketAddr,
    /// Where it goes then.
    pub destination: SocketAddr,
    /// The client gets it, and from where it asked.
    pub right: bool,
    /// Rules that held.
    pub steps: Vec<WalkStep>,
    /// The rule that ended it, or kept it from being translated back; `None` when none did.
    pub by: Option<String>,
}
