//! `judge`: what becomes of one packet, the first of its connection, from a client that no rule
//! remembers: every rule in its way is evaluated, in the kernel's order.
//!
//! Where chance decides, all ways are walked and weighed. Where a rule is not understood, both
//! ways are walked too; if they differ, the rule is named as what the answer hangs on.

mod fields;
mod ipvs;
mod later;
mod machine;
mod matches;
mod nat;
mod order;
mod sets;
mod spread;
mod state;
mod walk;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

pub use later::Reply;
pub use spread::{Branch, Spread};

use self::{state::State, walk::Walker};
use super::{Hook, Host, RealServer, RejectKind, Rule, Ruleset, SetId, VirtualServer};
use crate::model::cluster::PortProtocol;

/// A client's port where none is asked for: of the range that kernels take by themselves
/// (ip_local_port_range).
pub const CLIENT_PORT: u16 = 50_000;

impl Host {
    /// Where packets from `source` come in: by the device that leads back to it.
    pub fn origin_of(&self, source: IpAddr) -> Origin {
        if self.is_local(source) {
            return Origin::Host;
        }
        let route = self.route_to(source);
        let device = route.and_then(|route| route.device.clone());
        Origin::Device(device.unwrap_or_default())
    }
}

/// A packet that opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// From whom.
    pub source: SocketAddr,
    /// To whom, before any translation.
    pub destination: SocketAddr,
    /// By which protocol.
    pub protocol: PortProtocol,
}

/// Where a packet comes into this network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A program here sends it.
    Host,
    /// It comes by this device.
    Device(Arc<str>),
}

/// Which rule, by indices into a `Ruleset`; or which server of IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleAt {
    /// Table.
    pub table: u32,
    /// Chain in the table.
    pub chain: u32,
    /// Rule in the chain; its length for the chain's policy.
    pub rule: u32,
}

impl RuleAt {
    /// The table of what is no rule but a virtual server of IPVS, or one of its real servers.
    pub(super) const IPVS: u32 = u32::MAX;

    /// A virtual server, or one of its real servers.
    pub(super) fn of_server(index: u32, real: Option<u32>) -> Self {
        Self {
            table: Self::IPVS,
            chain: index,
            rule: real.unwrap_or(u32::MAX),
        }
    }

    /// The virtual server, and the real server where it is one; `None` for a rule.
    pub fn server(self, ruleset: &Ruleset) -> Option<(&VirtualServer, Option<&RealServer>)> {
        if self.table != Self::IPVS {
            return None;
        }
        let server = ruleset.ipvs.servers.get(self.chain as usize)?;
        Some((server, server.real.get(self.rule as usize)))
    }

    /// The rule; `None` for a chain's policy.
    pub fn rule(self, ruleset: &Ruleset) -> Option<&Rule> {
        let table = ruleset.tables.get(self.table as usize)?;
        let chain = table.chains.get(self.chain as usize)?;
        chain.rules.get(self.rule as usize)
    }
}

/// How a packet's way through this namespace ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ending {
    /// A socket here may have it.
    Delivered,
    /// It is sent by this device.
    Sent(Arc<str>),
    /// A rule or a policy drops it.
    Dropped,
    /// A rule refuses it.
    Rejected(RejectKind),
    /// A program decides.
    Queued,
    /// There is no route to where it goes.
    NoRoute,
    /// It is to pass through, and this host does not forward.
    NotForwarded,
    /// It has a loopback address where none may be (without `route_localnet`).
    Martian,
    /// What a rule does could not be told at all.
    Unknown,
}

/// What becomes of the source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SourceChange {
    /// It stays.
    Kept,
    /// It becomes this host's.
    Masqueraded {
        /// With a port drawn at random (`--random-fully`).
        random: bool,
    },
    /// It becomes this one.
    Translated(std::net::IpAddr),
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Outcome {
    /// How its way ends.
    pub ending: Ending,
    /// Where it goes then.
    pub destination: SocketAddr,
    /// From whom it then is.
    pub source: SourceChange,
    /// How long the client stays with this backend; `None` without affinity.
    pub affinity: Option<Duration>,
    /// Its mark at the end.
    pub mark: u32,
}

impl Outcome {
    /// Whether somebody gets the packet.
    pub fn arrives(&self) -> bool {
        matches!(self.ending, Ending::Delivered | Ending::Sent(_))
    }
}

/// A rule in a packet's way that held, and what it said of the way on.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Which.
    pub at: RuleAt,
    /// Where in the packet's way.
    pub hook: Hook,
    /// With what probability it held; `None` when that cannot be told.
    pub chance: Option<f64>,
}

impl Ruleset {
    /// Walks `packet` from `origin`. `traced` keeps the rules in its way.
    pub fn judge(&self, host: &Host, packet: Packet, origin: Origin, traced: bool) -> Spread {
        self.judges(host).judge(packet, origin, traced)
    }

    /// What many packets can be judged with.
    pub fn judges<'a>(&'a self, host: &'a Host) -> Judge<'a> {
        Judge(Walker::new(self, host))
    }
}

/// Where rules remember a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Memory {
    /// A list of `-m recent`.
    Recent(Box<str>),
    /// A set that rules add to: its table's index and its own, and what was added.
    Set(u32, SetId, Box<[u8]>),
    /// A virtual server of IPVS, and which of its real servers the client has.
    Server(u32, u32),
}

/// Judges packets by one set of rules.
pub struct Judge<'a>(Walker<'a>);

impl Judge<'_> {
    /// Walks `packet` from `origin`. `traced` keeps the rules in its way.
    pub fn judge(&self, packet: Packet, origin: Origin, traced: bool) -> Spread {
        self.0.walk(State::new(packet, origin, traced))
    }

    /// Walks the reply to a packet that went this way; `None` when none comes by here.
    pub fn reply(&self, branch: &Branch, traced: bool) -> Option<Reply> {
        self.0.reply(branch, traced)
    }

    /// Walks what the client sends from `origin` once a packet that went this way was answered; `None` when nobody
    /// got that, or conntrack was told to leave it alone.
    pub fn next_of_client(&self, branch: &Branch, origin: Origin, traced: bool) -> Option<Spread> {
        self.0.next_of_client(branch, origin, traced)
    }

    /// Walks the first packet of a client that is remembered there.
    pub fn judge_again(&self, packet: Packet, origin: Origin, memory: &[Memory]) -> Spread {
        let mut state = State::new(packet, origin, false);
        state.remembered = memory.into();
        self.0.walk(state)
    }
}
