//! `Dispatch`: which rules of a long chain a packet can fit at all, by destination address or
//! port. Only rules are left out that would end at that comparison, before any effect.

use std::net::IpAddr;

use rustc_hash::FxHashMap;

use super::{Base, Chain, ChainId, CompareOp, Expression, Match, Register, Ruleset, judge::Packet};

/// Shorter chains are walked rule by rule.
const LONG: usize = 32;

/// Rules of long chains, by what their destination must be.
pub(super) struct Dispatch {
    chains: FxHashMap<(u32, ChainId), Index>,
}

/// Rules of one chain, ascending.
#[derive(Default)]
struct Index {
    by_address: FxHashMap<IpAddr, Vec<u32>>,
    by_port: FxHashMap<u16, Vec<u32>>,
    others: Vec<u32>,
    length: u32,
}

impl Dispatch {
    pub(super) fn of(ruleset: &Ruleset) -> Self {
        let mut chains = FxHashMap::default();
        for (table_index, table) in (0..).zip(&ruleset.tables) {
            for (chain_index, chain) in (0..).zip(&table.chains) {
                if chain.rules.len() > LONG {
                    chains.insert((table_index, ChainId(chain_index)), Index::of(chain));
                }
            }
        }
        Self { chains }
    }

    /// The first rule from `from` on that `packet` may fit; beyond the chain when there is none.
    pub(super) fn next(&self, table: u32, chain: ChainId, from: u32, packet: &Packet) -> u32 {
        let Some(index) = self.chains.get(&(table, chain)) else {
            return from;
        };
        if from >= index.length {
            return from;
        }
        let address = index.by_address.get(&packet.destination.ip());
        let port = index.by_port.get(&packet.destination.port());
        [address, port, Some(&index.others)]
            .into_iter()
            .flatten()
            .filter_map(|rules| {
                let at = rules.partition_point(|rule| *rule < from);
                rules.get(at).copied()
            })
            .min()
            .unwrap_or(index.length)
    }
}

impl Index {
    fn of(chain: &Chain) -> Self {
        let mut index = Self {
            length: u32::try_from(chain.rules.len()).unwrap_or(u32::MAX),
            ..Self::default()
        };
        for (number, rule) in (0..).zip(&chain.rules) {
            match wanted(&rule.expressions) {
                Wanted::Address(address) => {
                    index.by_address.entry(address).or_default().push(number);
                }
                Wanted::Port(port) => index.by_port.entry(port).or_default().push(number),
                Wanted::Anything => index.others.push(number),
            }
        }
        index
    }
}

/// The destination without which a rule does nothing.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    Address(IpAddr),
    Port(u16),
    Anything,
}

/// Looks at a rule's expressions up to the first that has an effect. An address says more than a
/// port.
fn wanted(expressions: &[Expression]) -> Wanted {
    let mut port = Wanted::Anything;
    let mut loaded: Option<(Base, u32, u32, Register)> = None;
    for expression in expressions {
        match expression {
            Expression::Payload {
                base,
                offset,
                length,
                to,
            } => loaded = Some((*base, *offset, *length, *to)),
            Expression::Compare { op, from, with } => {
                let equal = *op == CompareOp::Equal;
                let field = loaded.filter(|loaded| equal && loaded.3 == *from);
                // Offsets of destination addresses in IPv4 and IPv6, of the port in all transports.
                match field {
                    Some((Base::Network, 16, 4, _)) if with.len() == 4 => {
                        if let Some(octets) = with.first_chunk::<4>() {
                            return Wanted::Address(IpAddr::V4((*octets).into()));
                        }
                    }
                    Some((Base::Network, 24, 16, _)) if with.len() == 16 => {
                        if let Some(octets) = with.first_chunk::<16>() {
                            return Wanted::Address(IpAddr::V6((*octets).into()));
                        }
                    }
                    Some((Base::Transport, 2, 2, _)) if with.len() == 2 => {
                        if let Some(octets) = with.first_chunk::<2>() {
                            port = Wanted::Port(u16::from_be_bytes(*octets));
                        }
                    }
                    _ => {}
                }
            }
            Expression::Meta { to, .. } | Expression::Ct { to, .. } => {
                loaded = loaded.filter(|loaded| loaded.3 != *to);
            }
            Expression::Match(found) => match &**found {
                Match::Tcp { destination, .. } | Match::Udp { destination, .. }
                    if destination.first == destination.last && !destination.negated =>
                {
                    port = Wanted::Port(destination.first);
                }
                Match::Tcp { .. }
                | Match::Udp { .. }
                | Match::Comment(_)
                | Match::Conntrack(_)
                | Match::Addrtype { .. }
                | Match::Mark { .. }
                | Match::State(_)
                | Match::Multiport { .. } => {}
                _ => return port,
            },
            _ => return port,
        }
    }
    port
}
