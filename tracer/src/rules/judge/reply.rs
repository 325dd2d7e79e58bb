//! The way back: the first packet that a server answers with, as conntrack and IPVS knew the one that it
//! answers, up to where rules let it be translated back.

use std::net::SocketAddr;

use super::{
    Branch, Ending, Origin, Packet, RuleAt, SourceChange, Spread,
    fields::status_bits,
    order::{NAT_DESTINATION, NAT_SOURCE},
    state::{Stage, State},
    walk::Walker,
};
use crate::{model::cluster::PortProtocol, rules::Hook};

/// Where IPVS translates back (`ip_vs_ops4`).
const IPVS_INPUT: i32 = 98;
const IPVS_OUTPUT: i32 = -99;
const IPVS_FORWARD: i32 = 100;

/// What is known of a connection once its first packet has gone its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    /// Its first packet as it came, and as it went on.
    original: Packet,
    sent: Packet,
    mark: u32,
    /// `IPS_…`
    status: u32,
    /// Conntrack was told to leave it alone.
    untracked: bool,
    /// The virtual server of IPVS that translated it.
    server: Option<u32>,
    /// IPVS sent it on as it was: the server answers the client itself.
    past: bool,
}

impl Connection {
    pub(super) fn of(state: &State) -> Self {
        Self {
            original: state.original,
            sent: state.packet,
            mark: state.connection_mark,
            status: status_bits(state),
            untracked: state.untracked,
            server: state.balanced,
            past: state.via.is_some(),
        }
    }

    /// Whether conntrack, and not IPVS, replaced its destination.
    fn is_translated(self) -> bool {
        self.server.is_none() && self.sent.destination != self.original.destination
    }
}

/// What conntrack takes a reply for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// One of its connection.
    Established,
    /// The first of another: it was not to see the connection's own.
    New,
    /// One that no connection begins with.
    Invalid,
}

/// A reply on its way back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Back {
    connection: Connection,
    known: Known,
}

impl Back {
    /// `NF_CT_STATE_…_BIT`
    pub(super) fn state_bits(self) -> u32 {
        match self.known {
            Known::Invalid => 1,
            Known::Established => 1 << 1,
            Known::New => 1 << 3,
        }
    }

    /// `IPS_…`
    pub(super) fn status_bits(self) -> u32 {
        const SEEN_REPLY: u32 = 1 << 1;
        const CONFIRMED: u32 = 1 << 3;
        match self.known {
            Known::Established => self.connection.status | SEEN_REPLY | CONFIRMED,
            Known::New | Known::Invalid => 0,
        }
    }

    /// Whether the packet goes the connection's way back.
    pub(super) fn is_back(self) -> bool {
        self.known == Known::Established
    }

    /// Source and destination in the connection's entry, of the reply or of the original.
    pub(super) fn tuple(self, reply: bool) -> (SocketAddr, SocketAddr) {
        let Connection { original, sent, .. } = self.connection;
        match (self.known, reply) {
            (Known::Established, false) => (original.source, original.destination),
            (Known::Established, true) | (_, false) => (sent.destination, sent.source),
            (_, true) => (sent.source, sent.destination),
        }
    }

    /// Nat chains see the first packet of a connection alone.
    pub(super) fn has_nat(self) -> bool {
        self.known == Known::New
    }
}

/// What becomes of a reply.
#[derive(Clone, Debug)]
pub struct Reply {
    /// From whom it comes, and to whom, as the server sends it.
    pub packet: Packet,
    /// Where it comes into this network namespace.
    pub origin: Origin,
    /// What may become of it; a source that is translated is the one that the client asked.
    pub spread: Spread,
}

impl Reply {
    /// Whether on this way the client gets it from where it asked.
    pub fn is_right(&self, first: Packet, branch: &Branch) -> bool {
        let outcome = &branch.outcome;
        let arrives = matches!(outcome.ending, Ending::Delivered | Ending::Sent(_));
        arrives
            && outcome.destination == first.source
            && self.source(first, branch) == first.destination
    }

    /// From whom it seems to come at its end.
    pub fn source(&self, first: Packet, branch: &Branch) -> SocketAddr {
        match branch.outcome.source {
            SourceChange::Kept => self.packet.source,
            _ => first.destination,
        }
    }
}

impl Walker<'_> {
    /// Walks the reply to a packet that went this way; `None` when it does not come here: nobody got the packet,
    /// or IPVS sent it on as it was.
    pub(super) fn reply(&self, branch: &Branch, traced: bool) -> Option<Reply> {
        let connection = branch.connection;
        if connection.past || !matches!(branch.outcome.ending, Ending::Delivered | Ending::Sent(_))
        {
            return None;
        }
        let Packet {
            source,
            destination,
            protocol,
        } = connection.sent;
        let packet = Packet {
            source: destination,
            destination: source,
            protocol,
        };
        let origin = self.host.origin_of(packet.source.ip());
        let mut state = State::new(packet, origin.clone(), traced);
        state.connection_mark = connection.mark;
        let known = match (connection.untracked, protocol) {
            (false, _) => Known::Established,
            (true, PortProtocol::Udp) => Known::New,
            // A connection does not begin with SYN and ACK (tcp_conntracks, net/netfilter/nf_conntrack_proto_tcp.c).
            (true, _) => Known::Invalid,
        };
        state.back = Some(Back { connection, known });
        Some(Reply {
            packet,
            origin,
            spread: self.walk(state),
        })
    }
}

/// Translates a reply back where it has come that far in its hook: before what stands at `before`, or at the end.
pub(super) fn translate_back(state: &mut State, before: Option<(i32, bool)>) {
    let Some(Back { connection, known }) = state.back else {
        return;
    };
    let passed =
        |at: i32| before.is_none_or(|(priority, nat)| priority > at || nat && priority == at);
    let tracked = known == Known::Established && !state.untracked;
    let hook = state.stage.hook();
    let to_client = matches!(hook, Hook::Prerouting | Hook::Output) && passed(NAT_DESTINATION);
    if to_client && tracked {
        state.packet.destination = connection.original.source;
    }
    let by_ipvs = match state.stage {
        Stage::Input => passed(IPVS_INPUT),
        Stage::Output => passed(IPVS_OUTPUT),
        Stage::Forward => passed(IPVS_FORWARD),
        Stage::Prerouting | Stage::Postrouting | Stage::Returned => false,
    };
    // IPVS knows its connections itself.
    let of_client = state.packet.destination == connection.original.source;
    if by_ipvs && connection.server.is_some() && of_client {
        from_asked(state, connection);
        state.balanced = connection.server;
    }
    let from_server = matches!(hook, Hook::Input | Hook::Postrouting) && passed(NAT_SOURCE);
    if from_server && tracked && connection.is_translated() {
        from_asked(state, connection);
    }
}

fn from_asked(state: &mut State, connection: Connection) {
    state.packet.source = connection.original.destination;
    state.source = SourceChange::Translated(connection.original.destination.ip());
}

/// The rule without which a reply would have been translated back.
pub(super) fn undone_by(state: &State) -> Option<RuleAt> {
    state.back.and(state.untracked_by)
}
