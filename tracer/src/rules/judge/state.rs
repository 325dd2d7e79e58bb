//! `State`: a packet on its way: its fields as they are now, the registers of the rule being
//! evaluated, and where it stands.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use super::{Ending, Memory, Origin, Outcome, Packet, RuleAt, SourceChange, Step, spread::Walked};
use crate::{
    model::cluster::PortProtocol,
    rules::{ChainId, Family, Hook, Register},
};

/// Which hooks come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// From a device.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// Before it is sent.
    Postrouting,
    /// From this host to itself, by the loopback device: seen again, translated no more.
    Returned,
}

impl Stage {
    pub(super) fn hook(self) -> Hook {
        match self {
            Self::Prerouting | Self::Returned => Hook::Prerouting,
            Self::Input => Hook::Input,
            Self::Forward => Hook::Forward,
            Self::Output => Hook::Output,
            Self::Postrouting => Hook::Postrouting,
        }
    }
}

/// The registers of one rule: bytes, and which words of four are known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers {
    bytes: [u8; Register::WORDS * 4],
    known: u16,
}

impl Registers {
    pub(super) const EMPTY: Self = Self {
        bytes: [0; Register::WORDS * 4],
        known: 0,
    };

    /// Stores a value, its last word filled up with zeros.
    pub(super) fn store(&mut self, to: Register, value: &[u8]) {
        let end = (to.offset() + value.len().next_multiple_of(4)).min(self.bytes.len());
        let place = &mut self.bytes[to.offset()..end];
        let length = value.len().min(place.len());
        place.fill(0);
        place[..length].copy_from_slice(&value[..length]);
        self.known |= words(to, value.len());
    }

    /// Forgets a value of `length` bytes.
    pub(super) fn forget(&mut self, to: Register, length: usize) {
        self.known &= !words(to, length);
    }

    /// The `length` bytes there; `None` when one of them is not known.
    pub(super) fn load(&self, from: Register, length: usize) -> Option<&[u8]> {
        let wanted = words(from, length);
        (self.known & wanted == wanted)
            .then(|| self.bytes.get(from.offset()..from.offset() + length))?
    }
}

/// A bit for each word that `length` bytes at `register` lie in.
#[expect(
    clippy::cast_possible_truncation,
    reason = "bits beyond the file are cut off"
)]
fn words(register: Register, length: usize) -> u16 {
    let count = length.div_ceil(4).min(Register::WORDS);
    let bits = (1_u32 << count) - 1;
    (bits << register.0) as u16
}

/// Where in a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) chain: ChainId,
    pub(super) rule: u32,
    /// Behind a chance in the middle of a rule.
    pub(super) expression: u32,
}

/// A packet on its way.
#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct State {
    /// As it is now.
    pub(super) packet: Packet,
    /// As it came.
    pub(super) original: Packet,
    pub(super) origin: Origin,
    pub(super) mark: u32,
    pub(super) connection_mark: u32,
    pub(super) source: SourceChange,
    pub(super) destination_changed: bool,
    pub(super) affinity: Option<Duration>,
    /// Where the client is remembered from before.
    pub(super) remembered: Rc<[Memory]>,
    /// Where it is remembered from now on.
    pub(super) noted: Vec<Memory>,
    pub(super) untracked: bool,
    /// Conntrack has seen it.
    pub(super) tracked: bool,
    /// No nat chain sees it any more, for its destination and for its source.
    pub(super) nat_done: (bool, bool),
    pub(super) input: Option<Arc<str>>,
    pub(super) output: Option<Arc<str>>,
    pub(super) stage: Stage,
    /// Which of the stage's base chains comes next.
    pub(super) entry: usize,
    /// The table of the chains in `frames`.
    pub(super) table: u32,
    pub(super) frames: Vec<Frame>,
    pub(super) registers: Registers,
    pub(super) traced: bool,
    pub(super) steps: Option<Rc<Walked>>,
}

impl State {
    pub(super) fn new(packet: Packet, origin: Origin, traced: bool) -> Self {
        let stage = match origin {
            Origin::Host => Stage::Output,
            Origin::Device(_) => Stage::Prerouting,
        };
        Self {
            packet,
            original: packet,
            input: match &origin {
                Origin::Device(name) => Some(name.clone()),
                Origin::Host => None,
            },
            origin,
            mark: 0,
            connection_mark: 0,
            source: SourceChange::Kept,
            destination_changed: false,
            affinity: None,
            remembered: Rc::new([]),
            noted: Vec::new(),
            untracked: false,
            tracked: true,
            nat_done: (false, false),
            output: None,
            stage,
            entry: 0,
            table: 0,
            frames: Vec::new(),
            registers: Registers::EMPTY,
            traced,
            steps: None,
        }
    }

    pub(super) fn family(&self) -> Family {
        if self.packet.destination.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        }
    }

    /// Number of its protocol (RFC 5237's registry).
    pub(super) fn protocol(&self) -> u8 {
        match self.packet.protocol {
            PortProtocol::Tcp => 6,
            PortProtocol::Udp => 17,
            PortProtocol::Sctp => 132,
        }
    }

    /// Where the rule being evaluated stands.
    pub(super) fn at(&self) -> RuleAt {
        let frame = self.frames.last();
        RuleAt {
            table: self.table,
            chain: frame.map_or(0, |frame| frame.chain.0),
            rule: frame.map_or(0, |frame| frame.rule),
        }
    }

    /// Keeps the rule being evaluated as one that held.
    pub(super) fn note(&mut self, chance: Option<f64>) {
        let again = self
            .steps
            .as_ref()
            .is_some_and(|last| last.step.at == self.at() && last.step.hook == self.stage.hook());
        if self.traced && !again {
            let step = Step {
                at: self.at(),
                hook: self.stage.hook(),
                chance,
            };
            self.steps = Some(Rc::new(Walked {
                step,
                before: self.steps.take(),
            }));
        }
    }

    pub(super) fn outcome(&self, ending: Ending) -> Outcome {
        Outcome {
            ending,
            destination: self.packet.destination,
            source: self.source,
            affinity: self.affinity,
            mark: self.mark,
        }
    }

    /// Source and destination in the connection's entry, of the reply or of the original.
    pub(super) fn tuple(&self, reply: bool) -> (SocketAddr, SocketAddr) {
        if reply {
            (self.packet.destination, self.packet.source)
        } else {
            (self.original.source, self.original.destination)
        }
    }
}
