//! What translations do: nft's expressions and iptables' targets.

use std::net::{IpAddr, SocketAddr};

use super::{
    Ending, SourceChange,
    machine::{Flow, kind_for},
    state::State,
    walk::Walker,
};
use crate::rules::{
    Expression, NatKind, Register, Target, Verdict,
    xt::{Nat, NatTarget, RANDOM_FULLY},
};

impl Walker<'_> {
    pub(super) fn translate(&self, state: &mut State, expression: &Expression) -> Flow {
        match expression {
            Expression::Nat {
                kind,
                address,
                last_address,
                port,
                last_port,
                ..
            } => {
                let Ok(addresses) = range(state, *address, *last_address, address_in) else {
                    return Flow::End(Ending::Unknown);
                };
                let Ok(ports) = range(state, *port, *last_port, port_in) else {
                    return Flow::End(Ending::Unknown);
                };
                change(state, *kind, addresses, ports)
            }
            Expression::Masquerade { flags } => self.masquerade(state, *flags),
            Expression::Redirect { port, .. } => match range(state, *port, None, port_in) {
                Ok(ports) => self.redirect(state, ports),
                Err(NotKnown) => Flow::End(Ending::Unknown),
            },
            _ => Flow::Unknown,
        }
    }

    pub(super) fn apply(&self, state: &mut State, target: &Target) -> Flow {
        match target {
            Target::Mark { mark, mask } => state.mark = (state.mark & !mask) ^ mark,
            Target::Nat(nat) => return self.nat(state, nat),
            Target::Reject(kind) => return Flow::End(Ending::Rejected(kind_for(*kind, state))),
            Target::Notrack => state.untrack(),
            Target::Connmark {
                mark,
                mask,
                packet_mask,
                mode,
            } => match mode {
                0 => state.connection_mark = (state.connection_mark & !mask) ^ mark,
                1 => {
                    let packet = state.mark & packet_mask;
                    state.connection_mark = (state.connection_mark & !mask) ^ packet;
                }
                _ => {
                    let connection = state.connection_mark & mask;
                    state.mark = (state.mark & !packet_mask) ^ connection;
                }
            },
            Target::Log { .. } | Target::Harmless(_) => {}
            Target::Other { .. } => return Flow::End(Ending::Unknown),
        }
        Flow::Next
    }

    fn nat(&self, state: &mut State, nat: &Nat) -> Flow {
        match nat.target {
            NatTarget::Masquerade => self.masquerade(state, nat.flags),
            NatTarget::Redirect => self.redirect(state, nat.ports),
            NatTarget::Dnat => change(state, NatKind::Destination, nat.addresses, nat.ports),
            NatTarget::Snat => change(state, NatKind::Source, nat.addresses, nat.ports),
        }
    }

    /// To the address of the device it leaves by.
    fn masquerade(&self, state: &mut State, flags: u32) -> Flow {
        let to = state.packet.destination.ip();
        // Loopback's own address is of host scope, which is not taken (inet_select_addr).
        let here = state.output.as_deref() == Some("lo");
        let mut own = self.host.addresses();
        let address = if here {
            own.find(|address| address.is_ipv4() == to.is_ipv4())
        } else {
            self.host.source_for(to)
        };
        if let Some(address) = address {
            state.packet.source.set_ip(address);
        }
        state.source = SourceChange::Masqueraded {
            random: flags & RANDOM_FULLY != 0,
        };
        Flow::Verdict(Verdict::Accept)
    }

    /// To this host: to the address of the device it came by, or to loopback.
    fn redirect(&self, state: &mut State, ports: Option<(u16, u16)>) -> Flow {
        let here: Option<IpAddr> = match &state.input {
            None if state.packet.destination.is_ipv4() => Some([127, 0, 0, 1].into()),
            None => Some(std::net::Ipv6Addr::LOCALHOST.into()),
            Some(_) => self.host.source_for(state.packet.source.ip()),
        };
        let Some(here) = here else {
            return Flow::End(Ending::Dropped);
        };
        change(state, NatKind::Destination, Some((here, here)), ports)
    }
}

fn change(
    state: &mut State,
    kind: NatKind,
    addresses: Option<(IpAddr, IpAddr)>,
    ports: Option<(u16, u16)>,
) -> Flow {
    // Among several addresses the kernel chooses by a hash of its own.
    if addresses.is_some_and(|(first, last)| first != last) {
        return Flow::End(Ending::Unknown);
    }
    let place: &mut SocketAddr = match kind {
        NatKind::Source => &mut state.packet.source,
        NatKind::Destination => &mut state.packet.destination,
    };
    if let Some((address, _)) = addresses {
        place.set_ip(address);
    }
    // A port within the range stays.
    if let Some((first, last)) = ports
        && !(first..=last).contains(&place.port())
    {
        place.set_port(first);
    }
    match kind {
        NatKind::Source => state.source = SourceChange::Translated(state.packet.source.ip()),
        NatKind::Destination => state.destination_changed = true,
    }
    Flow::Verdict(Verdict::Accept)
}

/// A register holds what is not known.
struct NotKnown;

/// The first and the last value of two registers, of one if there is no other; `None` when
/// nothing is asked for.
fn range<T: Copy>(
    state: &State,
    first: Option<Register>,
    last: Option<Register>,
    load: impl Fn(&State, Register) -> Option<T>,
) -> Result<Option<(T, T)>, NotKnown> {
    let Some(register) = first else {
        return Ok(None);
    };
    let first = load(state, register).ok_or(NotKnown)?;
    let last = match last {
        Some(last) => load(state, last).ok_or(NotKnown)?,
        None => first,
    };
    Ok(Some((first, last)))
}

fn address_in(state: &State, register: Register) -> Option<IpAddr> {
    if state.packet.destination.is_ipv4() {
        let octets: [u8; 4] = *state.registers.load(register, 4)?.first_chunk()?;
        Some(octets.into())
    } else {
        let octets: [u8; 16] = *state.registers.load(register, 16)?.first_chunk()?;
        Some(octets.into())
    }
}

fn port_in(state: &State, register: Register) -> Option<u16> {
    let octets = state.registers.load(register, 2)?;
    Some(u16::from_be_bytes(*octets.first_chunk()?))
}
