//! Packets of a connection after its first, as conntrack and IPVS knew that one: what its server answers with first,
//! up to where rules let it be translated back, and what its client sends next.

use std::net::SocketAddr;

use super::{
    Branch, Origin, Packet, RuleAt, SourceChange, Spread,
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
    /// What became of its source.
    source: SourceChange,
    /// Conntrack was told to leave it alone.
    untracked: bool,
    /// The virtual server of IPVS that took it, and which of its real servers got it.
    server: Option<(u32, usize)>,
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
            source: state.source,
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

/// What conntrack takes a packet for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// One of its connection.
    Established,
    /// The first of another: it was not to see the connection's own.
    New,
    /// One that no connection begins with.
    Invalid,
}

/// Who sends a packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Client,
    Server,
}

/// A packet that is not its connection's first, on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Later {
    connection: Connection,
    known: Known,
    sender: Sender,
}

impl Later {
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
        const ASSURED: u32 = 1 << 2;
        const CONFIRMED: u32 = 1 << 3;
        // With its client's answer to SYN and ACK a connection is assured (nf_conntrack_tcp_packet).
        let is_assured =
            self.sender == Sender::Client && self.connection.original.protocol == PortProtocol::Tcp;
        let assured = if is_assured { ASSURED } else { 0 };
        match self.known {
            Known::Established => self.connection.status | SEEN_REPLY | CONFIRMED | assured,
            Known::New | Known::Invalid => 0,
        }
    }

    /// Whether the packet goes the connection's way back, as far as conntrack knows.
    pub(super) fn is_back(self) -> bool {
        self.known == Known::Established && self.is_reply()
    }

    /// Whether the server sends it.
    pub(super) fn is_reply(self) -> bool {
        self.sender == Sender::Server
    }

    /// Of its client's packets: where IPVS sends them, as it sent the first.
    pub(super) fn server(self) -> Option<(u32, usize)> {
        self.connection.server.filter(|_| !self.is_reply())
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
        outcome.arrives()
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
        if connection.past || !branch.outcome.arrives() {
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
        state.later = Some(Later {
            connection,
            known,
            sender: Sender::Server,
        });
        Some(Reply {
            packet,
            origin,
            spread: self.walk(state),
        })
    }

    /// Walks what the client sends from `origin` once it has been answered, behind a packet that went this way;
    /// `None` when nobody got that, or conntrack was told to leave it alone: rules then know no later packet from a
    /// first.
    pub(super) fn next_of_client(
        &self,
        branch: &Branch,
        origin: Origin,
        traced: bool,
    ) -> Option<Spread> {
        let connection = branch.connection;
        let arrives = branch.outcome.arrives();
        (arrives && !connection.untracked).then(|| {
            let mut state = State::new(connection.original, origin, traced);
            state.connection_mark = connection.mark;
            state.later = Some(Later {
                connection,
                known: Known::Established,
                sender: Sender::Client,
            });
            self.walk(state)
        })
    }
}

impl Branch {
    /// Whether a later packet of the client that fared like `next` has gone the way of this first one.
    pub fn goes_on(&self, next: &Branch) -> bool {
        let (first, next) = (&self.outcome, &next.outcome);
        next.arrives() && next.destination == first.destination && next.source == first.source
    }
}

/// Translates a packet as its connection's first was, or a reply back, where it has come that far in its hook:
/// before what stands at `before`, or at the end.
pub(super) fn translate_as_known(state: &mut State, before: Option<(i32, bool)>) {
    let Some(later) = state.later else {
        return;
    };
    let passed =
        |at: i32| before.is_none_or(|(priority, nat)| priority > at || nat && priority == at);
    let tracked = later.known == Known::Established && !state.untracked;
    let hook = state.stage.hook();
    let ends = (
        tracked && matches!(hook, Hook::Prerouting | Hook::Output) && passed(NAT_DESTINATION),
        tracked && matches!(hook, Hook::Input | Hook::Postrouting) && passed(NAT_SOURCE),
    );
    match later.sender {
        Sender::Server => back(state, later.connection, ends, passed),
        Sender::Client => on(state, later.connection, ends),
    }
}

/// Of a reply: its destination, then its source.
fn back(
    state: &mut State,
    connection: Connection,
    (to_client, from_server): (bool, bool),
    passed: impl Fn(i32) -> bool,
) {
    if to_client {
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
    if by_ipvs
        && of_client
        && let Some(server) = connection.server
    {
        from_asked(state, connection);
        state.balanced = Some(server);
    }
    if from_server && connection.is_translated() {
        from_asked(state, connection);
    }
}

/// Of its client's packets; IPVS translates where it stands itself.
fn on(state: &mut State, connection: Connection, (to_server, from_client): (bool, bool)) {
    if to_server && connection.is_translated() {
        state.packet.destination = connection.sent.destination;
    }
    if from_client && connection.source != SourceChange::Kept {
        state.packet.source = connection.sent.source;
        state.source = connection.source;
    }
}

fn from_asked(state: &mut State, connection: Connection) {
    state.packet.source = connection.original.destination;
    state.source = SourceChange::Translated(connection.original.destination.ip());
}

/// The rule without which a packet would have been translated as its connection is.
pub(super) fn undone_by(state: &State) -> Option<RuleAt> {
    state.later.and(state.untracked_by)
}
