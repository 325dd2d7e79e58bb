//! What expressions load: bytes of the packet's headers, what is known about it, its connection,
//! routes. What a first packet does not have is not known.

use super::{
    SourceChange,
    later::Later,
    machine::{Flow, octets},
    state::State,
    walk::Walker,
};
use crate::{
    model::cluster::PortProtocol,
    rules::{Base, Expression, Register},
};

/// Of TCP's flags.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Flags of a first packet, of the first reply, and of what the client sends then.
pub(super) fn flags(state: &State) -> u8 {
    match state.later {
        None => SYN,
        Some(later) if later.is_reply() => SYN | ACK,
        Some(_) => ACK,
    }
}

/// Length of names of devices, IFNAMSIZ.
const NAME: usize = 16;

impl Walker<'_> {
    /// Loads into a register, or leaves it unknown.
    pub(super) fn load(&self, state: &mut State, expression: &Expression) -> Flow {
        let (value, to, length) = match expression {
            Expression::Payload {
                base,
                offset,
                length,
                to,
            } => {
                let length = *length as usize;
                (header(state, *base, *offset as usize, length), *to, length)
            }
            Expression::Meta { key, to } => (self.meta(state, *key), *to, NAME),
            Expression::Ct { key, reply, to } => (connection(state, *key, *reply), *to, NAME),
            Expression::Fib { result, flags, to } => (self.fib(state, *result, *flags), *to, NAME),
            _ => return Flow::Unknown,
        };
        put(state, to, value, length)
    }

    /// `enum nft_meta_keys`
    fn meta(&self, state: &State, key: u32) -> Option<Vec<u8>> {
        let v4 = state.packet.destination.is_ipv4();
        let index = |device: &Option<std::sync::Arc<str>>| {
            let Some(device) = device else {
                return Some(vec![0; 4]);
            };
            let mut devices = self.host.devices.iter();
            let found = devices.find(|(_, name)| *name == device);
            found.map(|(index, _)| index.to_ne_bytes().to_vec())
        };
        Some(match key {
            // ETH_P_IP, ETH_P_IPV6
            1 => if v4 { [0x08, 0x00] } else { [0x86, 0xdd] }.to_vec(),
            3 => state.mark.to_ne_bytes().to_vec(),
            4 => index(&state.input)?,
            5 => index(&state.output)?,
            6 => device_name(state.input.as_deref()),
            7 => device_name(state.output.as_deref()),
            // NFPROTO_IPV4, NFPROTO_IPV6
            15 => vec![if v4 { 2 } else { 10 }],
            16 => vec![state.protocol()],
            // PACKET_HOST
            19 => vec![0],
            _ => return None,
        })
    }

    /// `enum nft_fib_result`, `enum nft_fib_flags`
    fn fib(&self, state: &State, result: u32, flags: u32) -> Option<Vec<u8>> {
        const SOURCE: u32 = 1;
        const PRESENT: u32 = 1 << 5;
        let of = if flags & SOURCE != 0 {
            state.packet.source.ip()
        } else {
            state.packet.destination.ip()
        };
        let route = self.host.route_to(of);
        // Restricted to a device, an address of another device is none of this host's.
        if flags & 0x18 != 0 {
            return None;
        }
        match result {
            3 => Some(self.host.kind_of(of).number().to_ne_bytes().to_vec()),
            _ if flags & PRESENT != 0 => Some(vec![u8::from(route.is_some())]),
            2 => Some(device_name(route.and_then(|route| route.device.as_deref()))),
            _ => None,
        }
    }
}

fn put(state: &mut State, to: Register, value: Option<Vec<u8>>, length: usize) -> Flow {
    match value {
        Some(value) => state.registers.store(to, &value),
        None => state.registers.forget(to, length),
    }
    Flow::Next
}

/// A device's name as the kernel compares it; empty when there is no device.
fn device_name(name: Option<&str>) -> Vec<u8> {
    let mut bytes = name.unwrap_or("").as_bytes().to_vec();
    bytes.resize(NAME, 0);
    bytes
}

/// Bytes of a header; `None` when one of them is not known.
fn header(state: &State, base: Base, offset: usize, length: usize) -> Option<Vec<u8>> {
    let bytes: Vec<Option<u8>> = match base {
        Base::Network => network(state),
        Base::Transport => transport(state),
        Base::Link | Base::Inner => return None,
    };
    bytes
        .get(offset..offset + length)?
        .iter()
        .copied()
        .collect()
}

/// The IP header: version, no fragment, protocol and addresses are known.
fn network(state: &State) -> Vec<Option<u8>> {
    let (source, destination) = (state.packet.source.ip(), state.packet.destination.ip());
    let addresses = [octets(source), octets(destination)].concat();
    let addresses = addresses.into_iter().map(Some);
    let mut bytes = vec![None; if destination.is_ipv4() { 12 } else { 8 }];
    if destination.is_ipv4() {
        bytes[0] = Some(0x45);
        bytes[6] = Some(0x40);
        bytes[7] = Some(0);
        bytes[9] = Some(state.protocol());
    } else {
        bytes[0] = Some(0x60);
        bytes[6] = Some(state.protocol());
    }
    bytes.extend(addresses);
    bytes
}

/// The transport's header: ports, and TCP's flags, are known.
fn transport(state: &State) -> Vec<Option<u8>> {
    let ports = [
        state.packet.source.port().to_be_bytes(),
        state.packet.destination.port().to_be_bytes(),
    ];
    let mut bytes: Vec<_> = ports.concat().into_iter().map(Some).collect();
    if state.packet.protocol == PortProtocol::Tcp {
        bytes.resize(20, None);
        bytes[13] = Some(flags(state));
    } else {
        bytes.resize(8, None);
    }
    bytes
}

/// `enum nft_ct_keys`
fn connection(state: &State, key: u32, reply: Option<bool>) -> Option<Vec<u8>> {
    let (source, destination) = state.tuple(reply.unwrap_or(false));
    Some(match key {
        0 => state_bits(state).to_ne_bytes().to_vec(),
        // No packet without a connection has any of these.
        _ if !state.tracked || state.untracked => return None,
        1 => vec![u8::from(state.later.is_some_and(Later::is_back))],
        2 => status_bits(state).to_ne_bytes().to_vec(),
        3 => state.connection_mark.to_ne_bytes().to_vec(),
        7 => vec![if source.is_ipv4() { 2 } else { 10 }],
        8 | 19 | 21 => octets(source.ip()),
        9 | 20 | 22 => octets(destination.ip()),
        10 => vec![state.protocol()],
        11 => source.port().to_be_bytes().to_vec(),
        12 => destination.port().to_be_bytes().to_vec(),
        17 => vec![0; 2],
        _ => return None,
    })
}

/// `NF_CT_STATE_…_BIT`
pub(super) fn state_bits(state: &State) -> u32 {
    const INVALID: u32 = 1;
    const NEW: u32 = 1 << 3;
    const UNTRACKED: u32 = 1 << 6;
    match (state.untracked, state.tracked) {
        (true, _) => UNTRACKED,
        (false, true) => state.later.map_or(NEW, Later::state_bits),
        (false, false) => INVALID,
    }
}

/// `IPS_…`
pub(super) fn status_bits(state: &State) -> u32 {
    const SRC_NAT: u32 = 1 << 4;
    const DST_NAT: u32 = 1 << 5;
    const SRC_NAT_DONE: u32 = 1 << 7;
    const DST_NAT_DONE: u32 = 1 << 8;
    if let Some(later) = state.later {
        return later.status_bits();
    }
    let mut bits = 0;
    if state.destination_changed {
        bits |= DST_NAT | DST_NAT_DONE;
    }
    if state.source != SourceChange::Kept {
        bits |= SRC_NAT | SRC_NAT_DONE;
    }
    if state.nat_done.0 {
        bits |= DST_NAT_DONE;
    }
    bits
}
