//! `Ruleset`: the netfilter rules that the kernel holds in this network namespace, read from the
//! kernel itself, and `judge`, which walks a packet through them.
//!
//! One model for all ways rules come in: nf_tables' expressions are kept as they are, and those of
//! iptables (by nf_tables or by its own tables) stand among them. What is not understood is kept
//! as unknown, never left out.

mod compat;
mod dispatch;
mod expression;
mod flows;
mod host;
mod ipsets;
mod ipvs;
mod judge;
mod legacy;
mod neighbours;
mod netlink;
mod nftables;
mod policy;
mod polled;
mod render;
mod services;
mod xt;

use std::{fmt, io, sync::Arc, time::Duration};

use rustc_hash::FxHashMap;

pub use expression::{Base, CompareOp, Expression, NatKind, Register, RejectKind, SetOp};
pub use flows::Flow;
pub use host::{Host, Route, RouteKind};
pub use ipsets::{IpSet, Ipsets};
pub use ipvs::{Asked, Ipvs, Method, RealServer, VirtualServer};
pub use judge::{
    Branch, CLIENT_PORT, Ending, Judge, Memory, Origin, Outcome, Packet, Reply, RuleAt,
    SourceChange, Spread, Step,
};
pub use neighbours::unanswered;
pub use nftables::{Monitor, Written};
pub use policy::{PolicyEngine, is_kube_routers};
pub use polled::Polled;
pub use services::{Front, RuleService, name_of_chain, service_of_port, set_name};
pub use xt::{Match, Target};

/// Why rules could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel did not answer.
    #[error("read the {what} of this network namespace")]
    Asked {
        /// What was asked for.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody rewrites the rules faster than they can be read.
    #[error("the rules changed during each of {tries} readings: try again when they are at rest")]
    Unsteady {
        /// How often it was tried.
        tries: u32,
    },
}

impl Error {
    /// What becomes of the kernel's refusal to tell `what`.
    fn asked(what: &'static str) -> impl Fn(io::Error) -> Self + Copy {
        move |source| Self::Asked { what, source }
    }
}

/// IP family of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Which packets a table's rules see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TableFamily {
    /// `ip`
    Ip,
    /// `ip6`
    Ip6,
    /// `inet`: both.
    Inet,
    /// `arp`, `bridge`, `netdev`: by their number; walked by no packet here.
    Other(u8),
}

impl TableFamily {
    /// Whether packets of `family` pass through its rules.
    pub fn sees(self, family: Family) -> bool {
        match self {
            Self::Inet => true,
            Self::Ip => family == Family::V4,
            Self::Ip6 => family == Family::V6,
            Self::Other(_) => false,
        }
    }

    /// The word for it, as `nft` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            // enum nfproto, include/uapi/linux/netfilter.h
            Self::Other(3) => "arp",
            Self::Other(5) => "netdev",
            Self::Other(7) => "bridge",
            Self::Other(_) => "unknown",
        }
    }
}

/// Who writes a table, and so how its rules are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Backend {
    /// `nft`, or a program that speaks nf_tables itself.
    Nftables,
    /// `iptables` over nf_tables.
    IptablesNft,
    /// `iptables` in its own tables.
    IptablesLegacy,
}

/// Where in a packet's way a base chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// Before the route is chosen, for packets from a device.
    Prerouting,
    /// To this host.
    Input,
    /// Through this host.
    Forward,
    /// From this host.
    Output,
    /// Before a device sends it.
    Postrouting,
    /// On a device, before the rest; walked by no packet here.
    Ingress,
}

impl Hook {
    /// The word for it, as `nft` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Ingress => "ingress",
        }
    }
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainKind {
    /// `filter`
    Filter,
    /// `nat`: only for the first packet of a connection, until it is translated.
    Nat,
    /// `route`: the route is chosen anew after it.
    Route,
}

/// What makes a chain one that packets enter by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// Where it stands.
    pub hook: Hook,
    /// Lower comes first.
    pub priority: i32,
    /// What it may do.
    pub kind: ChainKind,
    /// What becomes of a packet that no rule decided: whether it is dropped.
    pub drops: bool,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What a rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The packet leaves this base chain unharmed.
    Accept,
    /// It is dropped.
    Drop,
    /// The next rule is looked at.
    Continue,
    /// The rest of this rule is not looked at.
    Break,
    /// Back to the rule behind the jump; from a base chain, to its policy.
    Return,
    /// To a chain, and back behind this rule.
    Jump(ChainId),
    /// To a chain, and back to where the chain of this rule was called.
    Goto(ChainId),
    /// To a program.
    Queue,
}

/// Index of a chain in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(pub u32);

impl ChainId {
    /// A chain that is named and does not exist.
    pub const MISSING: Self = Self(u32::MAX);
}

/// Index of a set in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(pub u32);

impl SetId {
    /// A set that is named and does not exist.
    pub const MISSING: Self = Self(u32::MAX);
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// As `nft -a` shows it; the index in the table for iptables' own tables.
    pub handle: u64,
    /// In order. A comparison that fails ends the rule.
    pub expressions: Box<[Expression]>,
    /// nft's comment; iptables' stands among the expressions.
    pub comment: Option<Box<str>>,
}

impl Rule {
    /// iptables' comment or nft's.
    pub fn comment(&self) -> Option<&str> {
        let of_iptables = self.expressions.iter().find_map(|expression| {
            let Expression::Match(found) = expression else {
                return None;
            };
            let Match::Comment(text) = &**found else {
                return None;
            };
            Some(&**text)
        });
        of_iptables.or(self.comment.as_deref())
    }

    /// What its counter says; `None` without a counter.
    pub fn counter(&self) -> Option<Counter> {
        self.expressions.iter().find_map(|found| match found {
            Expression::Counter(counter) => Some(*counter),
            _ => None,
        })
    }
}

/// One chain.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// Its name.
    pub name: Arc<str>,
    /// `None` for one that only jumps lead to.
    pub base: Option<BaseChain>,
    /// In order.
    pub rules: Vec<Rule>,
}

/// One element of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// First key of it, in the registers' order.
    pub low: Box<[u8]>,
    /// Last key of it, for each field of a concatenation apart; `None` for a single key.
    pub high: Option<Box<[u8]>>,
    /// What it maps to.
    pub value: Value,
    /// When it ends; `None` for one that stays.
    pub expires: Option<Duration>,
    /// nft's comment.
    pub comment: Option<Box<str>>,
}

/// What an element of a map maps to.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A set's element maps to nothing.
    Nothing,
    /// Bytes for a register.
    Data(Box<[u8]>),
    /// A verdict.
    Verdict(Verdict),
    /// A stateful object.
    Object(Box<str>),
}

/// One set or map.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the kernel's"
)]
pub struct Set {
    /// Its name; `__set0` and the like for one without.
    pub name: Arc<str>,
    /// Written into one rule, without a name of its own.
    pub anonymous: bool,
    /// Elements are ranges.
    pub interval: bool,
    /// Elements map to something.
    pub map: bool,
    /// Rules add elements.
    pub dynamic: bool,
    /// How long elements stay; `None` without an end.
    pub timeout: Option<Duration>,
    /// nft's number for the key's type.
    pub key_type: u32,
    /// nft's number for the type of what it maps to.
    pub data_type: u32,
    /// Bytes of each field of the key; one field if it is no concatenation.
    pub fields: Box<[u8]>,
    /// Sorted by `low`, with a catch-all apart.
    pub elements: Vec<Element>,
    /// What keys without an element map to.
    pub catch_all: Option<Value>,
}

/// One table.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Which packets pass through it.
    pub family: TableFamily,
    /// Its name.
    pub name: Arc<str>,
    /// Who writes it.
    pub backend: Backend,
    /// Switched off.
    pub dormant: bool,
    /// In the kernel's order.
    pub chains: Vec<Chain>,
    /// In the kernel's order.
    pub sets: Vec<Set>,
    /// Chains by name.
    by_name: FxHashMap<Arc<str>, ChainId>,
}

impl Table {
    /// The chain called `name`.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        let id = self.by_name.get(name)?;
        self.chains.get(id.0 as usize)
    }

    /// The set called `name`.
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| &*set.name == name)
    }

    /// The chains that rules and maps lead to, from wherever, as often as they do.
    pub fn leads_to(&self) -> impl Iterator<Item = ChainId> {
        let rules = self.chains.iter().flat_map(|chain| &chain.rules);
        let by_rule = rules.flat_map(|rule| &rule.expressions);
        let by_rule = by_rule.filter_map(|expression| match expression {
            Expression::Verdict(verdict) => Some(verdict),
            _ => None,
        });
        let by_map = self.sets.iter().flat_map(|set| &set.elements);
        let by_map = by_map.filter_map(|element| match &element.value {
            Value::Verdict(verdict) => Some(verdict),
            _ => None,
        });
        by_rule.chain(by_map).filter_map(|verdict| match verdict {
            Verdict::Jump(id) | Verdict::Goto(id) => Some(*id),
            _ => None,
        })
    }
}

impl fmt::Display for Table {
    /// `ip nat`, as `nft` has it.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.family.name(), self.name)
    }
}

/// All rules of a network namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ruleset {
    /// In the order they were made.
    pub tables: Vec<Table>,
    /// What `-m set` looks up.
    pub ipsets: Ipsets,
    /// Virtual servers, which balance what comes to this host.
    pub ipvs: Ipvs,
}

impl Ruleset {
    /// Reads what the kernel holds in the caller's network namespace. Runs no program, changes
    /// nothing and loads no module.
    ///
    /// # Errors
    /// The kernel refuses, or the rules never stand still.
    pub fn read() -> Result<Self, Error> {
        let mut ruleset = Self::default();
        ruleset.tables.extend(nftables::read()?);
        ruleset.tables.extend(legacy::read()?);
        ruleset.ipsets = Ipsets::read()?;
        ruleset.ipvs = Ipvs::read()?;
        ruleset.name_sets();
        Ok(ruleset)
    }

    /// Rules know sets by number; their names are for who reads them.
    fn name_sets(&mut self) {
        let chains = self.tables.iter_mut().flat_map(|table| &mut table.chains);
        let rules = chains.flat_map(|chain| &mut chain.rules);
        for expression in rules.flat_map(|rule| &mut rule.expressions) {
            if let Expression::Match(found) = expression
                && let Match::Set { index, name, .. } = &mut **found
            {
                *name = self.ipsets.by_index(*index).map(|set| set.name.clone());
            }
        }
    }

    /// Why it is not known whether a rule holds, where one of the sets that it looks into is what is not
    /// understood; `None` for another cause.
    pub fn unread_set(&self, rule: &Rule) -> Option<String> {
        rule.expressions.iter().find_map(|expression| {
            let Expression::Match(found) = expression else {
                return None;
            };
            let Match::Set { index, name, .. } = &**found else {
                return None;
            };
            let name = name.as_deref().unwrap_or("of that number");
            let why = self.ipsets.unread(*index)?;
            Some(format!("set {name}: {why}"))
        })
    }

    /// The table of `family` called `name`.
    pub fn table(&self, family: TableFamily, name: &str) -> Option<&Table> {
        self.tables
            .iter()
            .find(|table| table.family == family && &*table.name == name)
    }
}
