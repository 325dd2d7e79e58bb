//! `Expression`: one step of a rule, as nf_tables' machine runs it: loads into registers,
//! comparisons, look-ups, actions. iptables' matches and targets are expressions too.

use std::time::Duration;

use super::{Counter, Match, SetId, Target, Verdict};

/// A place in the register file: which of its 16 words of four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register(pub u8);

impl Register {
    /// Number of words.
    pub const WORDS: usize = 16;

    /// Its first byte.
    pub fn offset(self) -> usize {
        usize::from(self.0) * 4
    }
}

/// Which header a payload is loaded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Base {
    /// Ethernet's.
    Link,
    /// IP's.
    Network,
    /// TCP's, UDP's, ….
    Transport,
    /// What it carries.
    Inner,
}

/// How two values are compared, as big-endian numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompareOp {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

impl CompareOp {
    /// Whether it holds for a value that compares to the other as `order`.
    pub fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

/// What a rule does to a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SetOp {
    /// Adds an element unless it is there.
    Add,
    /// Adds it or renews its time.
    Update,
    /// Removes it.
    Delete,
}

/// Which end is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NatKind {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// How a packet is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectKind {
    /// ICMP destination unreachable of the packet's family, with this code.
    Icmp(u8),
    /// A TCP reset.
    TcpReset,
    /// nft's code for both families (`enum nft_reject_inet_code`).
    Icmpx(u8),
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Expression {
    /// Loads bytes of the packet.
    Payload {
        /// From which header.
        base: Base,
        /// Bytes from its start.
        offset: u32,
        /// How many.
        length: u32,
        /// To where.
        to: Register,
    },
    /// Loads something about the packet (`enum nft_meta_keys`).
    Meta {
        /// What.
        key: u32,
        /// To where.
        to: Register,
    },
    /// Sets something about the packet.
    SetMeta {
        /// What.
        key: u32,
        /// From where.
        from: Register,
    },
    /// Loads something about the connection (`enum nft_ct_keys`).
    Ct {
        /// What.
        key: u32,
        /// Of the reply's direction (true), the original's (false) or neither.
        reply: Option<bool>,
        /// To where.
        to: Register,
    },
    /// Sets something about the connection.
    SetCt {
        /// What.
        key: u32,
        /// From where.
        from: Register,
    },
    /// Ends the rule unless it holds.
    Compare {
        /// How.
        op: CompareOp,
        /// What is compared.
        from: Register,
        /// With what.
        with: Box<[u8]>,
    },
    /// Ends the rule unless the value lies between two, both included.
    Range {
        /// Ends the rule if it does.
        negated: bool,
        /// What is compared.
        from: Register,
        /// The least.
        low: Box<[u8]>,
        /// The most.
        high: Box<[u8]>,
    },
    /// `(from & mask) ^ xor`
    Bitwise {
        /// From where.
        from: Register,
        /// To where.
        to: Register,
        /// Bits that are kept.
        mask: Box<[u8]>,
        /// Bits that are flipped then.
        xor: Box<[u8]>,
    },
    /// Turns numbers of `size` bytes between host and network order.
    Byteorder {
        /// From where.
        from: Register,
        /// To where.
        to: Register,
        /// Bytes of one number.
        size: u32,
        /// Bytes in all.
        length: u32,
    },
    /// Looks a key up; ends the rule when it is not there.
    Lookup {
        /// Where.
        set: SetId,
        /// The key.
        key: Register,
        /// To where a map's value goes; `None` for a set, or for a map of verdicts.
        to: Option<Register>,
        /// Ends the rule when it is there.
        negated: bool,
    },
    /// Loads a constant.
    Immediate {
        /// To where.
        to: Register,
        /// The constant.
        value: Box<[u8]>,
    },
    /// Decides.
    Verdict(Verdict),
    /// Loads a number below `modulus`, plus `offset`.
    Numgen {
        /// To where.
        to: Register,
        /// How many there are.
        modulus: u32,
        /// The least.
        offset: u32,
        /// At random, or one after the other.
        random: bool,
    },
    /// Loads a hash below `modulus`, plus `offset`.
    Hash {
        /// To where.
        to: Register,
        /// How many there are.
        modulus: u32,
        /// The least.
        offset: u32,
    },
    /// Looks a route up (`enum nft_fib_result`, `enum nft_fib_flags`).
    Fib {
        /// Which result.
        result: u32,
        /// Of what.
        flags: u32,
        /// To where.
        to: Register,
    },
    /// Translates.
    Nat {
        /// Which end.
        kind: NatKind,
        /// The first address; `None` leaves it.
        address: Option<Register>,
        /// The last address.
        last_address: Option<Register>,
        /// The first port; `None` leaves it.
        port: Option<Register>,
        /// The last port.
        last_port: Option<Register>,
        /// `NF_NAT_RANGE_…`
        flags: u32,
    },
    /// Translates the source to the address of the device it leaves by.
    Masquerade {
        /// `NF_NAT_RANGE_…`
        flags: u32,
    },
    /// Translates the destination to this host.
    Redirect {
        /// To this port; `None` leaves it.
        port: Option<Register>,
        /// `NF_NAT_RANGE_…`
        flags: u32,
    },
    /// Refuses.
    Reject(RejectKind),
    /// Counts.
    Counter(Counter),
    /// Ends the rule when more come.
    Limit {
        /// Packets or bytes in a unit of time.
        rate: u64,
        /// Seconds of the unit.
        unit: u64,
        /// How many more at once.
        burst: u32,
        /// Bytes, not packets.
        bytes: bool,
        /// Ends the rule when fewer come.
        negated: bool,
    },
    /// Logs.
    Log {
        /// What a line begins with.
        prefix: Box<str>,
        /// To this group of nflog; `None` to the kernel's log.
        group: Option<u16>,
    },
    /// The connection is not tracked.
    Notrack,
    /// Adds to a set, or removes from it.
    Dynset {
        /// Which.
        set: SetId,
        /// What it does.
        op: SetOp,
        /// The key.
        key: Register,
        /// How long the element stays; `None` as long as the set says.
        timeout: Option<Duration>,
    },
    /// A named counter, quota, limit, …; its kind by number (`NFT_OBJECT_…`).
    Object {
        /// Kind.
        kind: u32,
        /// Name.
        name: Box<str>,
    },
    /// iptables' match.
    Match(Box<Match>),
    /// iptables' target.
    Target(Box<Target>),
    /// Something else, by name.
    Unknown(Box<str>),
}
