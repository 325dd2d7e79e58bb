//! `State`: a packet on its way: its fields as they are now, the registers of the rule being
//! evaluated, and where it stands.

use std::{
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use super::{
    Ending, Memory, Origin, Outcome, Packet, RuleAt, SourceChange, Step, later::Later,
    spread::Walked,
};
use crate::rules::{ChainId, Family, Hook, Register};

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
    /// The virtual server of IPVS that took it, and which of its real servers gets it.
    pub(super) balanced: Option<(u32, usize)>,
    /// That virtual server, one of its real servers, and the probability with which it gets the packet;
    /// it is still to go there.
    pub(super) chosen: Option<(u32, usize, Option<f64>)>,
    /// Where it goes unchanged; `None` when to its destination.
    pub(super) via: Option<IpAddr>,
    pub(super) untracked: bool,
    /// The rule that had it so.
    pub(super) untracked_by: Option<RuleAt>,
    /// It is not its connection's first.
    pub(super) later: Option<Later>,
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
            balanced: None,
            chosen: None,
            via: None,
            untracked: false,
            untracked_by: None,
            later: None,
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

    /// Number of its protocol.
    pub(super) fn protocol(&self) -> u8 {
        self.packet.protocol.number()
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

    /// Where it goes next.
    pub(super) fn next_hop(&self) -> IpAddr {
        self.via.unwrap_or(self.packet.destination.ip())
    }

    /// Conntrack leaves it alone from here on.
    pub(super) fn untrack(&mut self) {
        self.untracked = true;
        self.untracked_by = Some(self.at());
    }

    /// Keeps the rule being evaluated as one that held.
    pub(super) fn note(&mut self, chance: Option<f64>) {
        let at = self.at();
        let again = self
            .steps
            .as_ref()
            .is_some_and(|last| last.step.at == at && last.step.hook == self.stage.hook());
        if !again {
            self.keep(Step {
                at,
                hook: self.stage.hook(),
                chance,
            });
        }
    }

    /// Keeps a step, where steps are wanted.
    pub(super) fn keep(&mut self, step: Step) {
        if self.traced {
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
        if let Some(later) = self.later {
            later.tuple(reply)
        } else if reply {
            (self.packet.destination, self.packet.source)
        } else {
            (self.original.source, self.original.destination)
        }
    }
}
