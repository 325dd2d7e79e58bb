//! Whether one of iptables' matches holds for a packet.

use std::net::IpAddr;

use super::{
    Memory,
    fields::{flags, state_bits, status_bits},
    later::Later,
    machine::Flow,
    state::State,
    walk::Walker,
};
use crate::{
    model::cluster::PortProtocol,
    rules::{
        Match,
        xt::{Conntrack, Masked, RecentOp},
    },
};

impl Walker<'_> {
    #[expect(clippy::too_many_lines, reason = "an arm for each match")]
    pub(super) fn fits(&self, state: &mut State, found: &Match) -> Flow {
        let (source, destination) = (state.packet.source, state.packet.destination);
        let holds = match found {
            Match::Comment(_) | Match::Nfacct(_) => true,
            Match::Tcp {
                source: from,
                destination: to,
                flags: (mask, wanted),
                flags_negated,
                option,
            } => {
                if *option != 0 {
                    return Flow::Unknown;
                }
                state.packet.protocol == PortProtocol::Tcp
                    && from.hold(source.port())
                    && to.hold(destination.port())
                    && (flags(state) & mask == *wanted) != *flags_negated
            }
            Match::Udp {
                source: from,
                destination: to,
            } => {
                state.packet.protocol == PortProtocol::Udp
                    && from.hold(source.port())
                    && to.hold(destination.port())
            }
            Match::Icmp { .. } => false,
            Match::Multiport {
                side,
                ports,
                negated,
            } => {
                let within = |port: u16| {
                    ports
                        .iter()
                        .any(|(first, last)| (*first..=*last).contains(&port))
                };
                let found = match side {
                    0 => within(source.port()),
                    1 => within(destination.port()),
                    _ => within(source.port()) || within(destination.port()),
                };
                found != *negated
            }
            Match::Random {
                probability,
                negated,
            } => return chance(f64::from(*probability) / f64::from(1_u32 << 31), *negated),
            Match::Nth { every, negated, .. } => {
                return chance(1.0 / (f64::from(*every) + 1.0), *negated);
            }
            Match::Mark {
                connection,
                mark,
                mask,
                negated,
            } => {
                let of = if *connection {
                    state.connection_mark
                } else {
                    state.mark
                };
                (of & mask == *mark) != *negated
            }
            Match::Conntrack(conntrack) => fits_connection(state, conntrack),
            Match::State(states) => states & xt_state(state) != 0,
            Match::Addrtype {
                source: from,
                destination: to,
                flags,
            } => return self.addrtype(state, *from, *to, *flags),
            Match::Recent {
                op, name, negated, ..
            } => {
                if *op == RecentOp::Set {
                    state.affinity = self.recent.get(&**name).copied().or(state.affinity);
                    state.noted.push(Memory::Recent(name.clone()));
                    // Whoever is remembered anew is there.
                    return Flow::when(!*negated);
                }
                let mut remembered = state.remembered.iter();
                let there =
                    remembered.any(|memory| matches!(memory, Memory::Recent(list) if list == name));
                there != *negated
            }
            Match::Physdev {
                flags, inverted, ..
            } => return self.physdev(*flags, *inverted),
            Match::Iprange {
                source: from,
                destination: to,
                flags,
            } => fits_ranges(source.ip(), destination.ip(), *from, *to, *flags),
            Match::Set {
                index,
                destination,
                negated,
                ..
            } => {
                let sets = &self.ruleset.ipsets;
                let held = sets.hold(*index, &state.packet, destination);
                return Flow::maybe(held.map(|held| held != *negated));
            }
            Match::Ipvs(wanted) => self.fits_server(state, wanted),
            Match::Limit { .. } | Match::Other { .. } => return Flow::Unknown,
        };
        Flow::when(holds)
    }

    fn addrtype(&self, state: &State, source: u16, destination: u16, flags: u32) -> Flow {
        // XT_ADDRTYPE_LIMIT_IFACE_IN, …_OUT: local on that device alone.
        if flags & 0xc != 0 {
            return Flow::Unknown;
        }
        let is = |types: u16, address: IpAddr, inverted: bool| {
            let kind = self.host.kind_of(address).number();
            types == 0 || (u32::from(types) >> kind & 1 == 1) != inverted
        };
        Flow::when(
            is(source, state.packet.source.ip(), flags & 1 != 0)
                && is(destination, state.packet.destination.ip(), flags & 2 != 0),
        )
    }

    /// A packet that no bridge passes has none of its ports; which one of them a bridged packet
    /// passes is not known here.
    fn physdev(&self, flags: u8, inverted: u8) -> Flow {
        if self.host.bridge_calls_iptables == Some(true) {
            return Flow::Unknown;
        }
        Flow::when(flags & !inverted == 0)
    }
}

fn chance(probability: f64, negated: bool) -> Flow {
    let probability = if negated {
        1.0 - probability
    } else {
        probability
    };
    if probability >= 1.0 {
        Flow::Next
    } else if probability <= 0.0 {
        Flow::Break
    } else {
        Flow::Chance(probability)
    }
}

/// `XT_CONNTRACK_STATE_…`
fn xt_state(state: &State) -> u32 {
    // Bits agree with nf_tables' but for UNTRACKED.
    match state_bits(state) {
        bits if bits == 1 << 6 => 1 << 8,
        bits => bits,
    }
}

/// `conntrack_mt`, net/netfilter/xt_conntrack.c
fn fits_connection(state: &State, wanted: &Conntrack) -> bool {
    const STATE: u16 = 1 << 0;
    const PROTO: u16 = 1 << 1;
    const STATUS: u16 = 1 << 6;
    const EXPIRES: u16 = 1 << 7;
    const DIRECTION: u16 = 1 << 12;
    let looks = |flag: u16| wanted.flags & flag != 0;
    let inverted = |flag: u16| wanted.inverted & flag != 0;
    if looks(STATE) {
        let mut bits = xt_state(state);
        // SNAT and DNAT count as states.
        let status = status_bits(state);
        bits |= (status >> 4 & 1) << 6 | (status >> 5 & 1) << 7;
        if (u32::from(wanted.states) & bits != 0) == inverted(STATE) {
            return false;
        }
    }
    if !state.tracked || state.untracked {
        return wanted.flags & !STATE == 0;
    }
    let original = state.tuple(false);
    let reply = state.tuple(true);
    let ends = [original.0, original.1, reply.0, reply.1];
    for (index, end) in ends.into_iter().enumerate() {
        let address = 1_u16 << (2 + index);
        let port = 1_u16 << (8 + index);
        if looks(address) && masked(wanted.addresses[index], end.ip()) == inverted(address) {
            return false;
        }
        let (first, last) = wanted.ports[index];
        if looks(port) && (first..=last).contains(&end.port()) == inverted(port) {
            return false;
        }
    }
    let same_protocol = wanted.protocol == state.protocol();
    if looks(PROTO) && same_protocol == inverted(PROTO) {
        return false;
    }
    let status = u32::from(wanted.status) & status_bits(state) != 0;
    if looks(STATUS) && status == inverted(STATUS) {
        return false;
    }
    let back = state.later.is_some_and(Later::is_back);
    if looks(DIRECTION) && inverted(DIRECTION) != back {
        return false;
    }
    !looks(EXPIRES)
}

pub(super) fn masked(wanted: Masked, address: IpAddr) -> bool {
    match (wanted.address, wanted.mask, address) {
        (IpAddr::V4(of), IpAddr::V4(mask), IpAddr::V4(address)) => {
            (of.to_bits() ^ address.to_bits()) & mask.to_bits() == 0
        }
        (IpAddr::V6(of), IpAddr::V6(mask), IpAddr::V6(address)) => {
            (of.to_bits() ^ address.to_bits()) & mask.to_bits() == 0
        }
        _ => false,
    }
}

/// `IPRANGE_SRC` and its like.
fn fits_ranges(
    source: IpAddr,
    destination: IpAddr,
    from: (IpAddr, IpAddr),
    to: (IpAddr, IpAddr),
    flags: u8,
) -> bool {
    let within =
        |address: IpAddr, (first, last): (IpAddr, IpAddr)| first <= address && address <= last;
    let side = |looked: u8, inverted: u8, address, range| {
        flags & looked == 0 || within(address, range) != (flags & inverted != 0)
    };
    side(1, 1 << 4, source, from) && side(2, 1 << 5, destination, to)
}
