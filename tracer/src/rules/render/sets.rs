//! Values as nft prints them, by kind, and the elements of a set written into a rule.

use std::net::IpAddr;

use data_encoding::HEXLOWER;

use super::{iptables::protocol, nft::verdict_text};
use crate::rules::{Set, Table, Value};

/// How a value is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An IP address.
    Address,
    /// The first bytes of one, with the prefix's length.
    Prefix(u32),
    /// A port.
    Port,
    /// A transport's number.
    Protocol,
    /// `NFPROTO_…`
    NfProto,
    /// A mark.
    Mark,
    /// A device's name.
    Name,
    /// A connection's state.
    CtState,
    /// A connection's status.
    CtStatus,
    /// Bits of a state or a status.
    Masked {
        /// Of which.
        of: Bits,
        /// Which.
        bits: u32,
    },
    /// What an address is.
    FibType,
    /// A number in host order.
    Host,
    /// Anything.
    Hex,
}

/// What bits are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bits {
    /// A connection's state.
    CtState,
    /// A connection's status.
    CtStatus,
}

impl Bits {
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::CtState => Kind::CtState,
            Self::CtStatus => Kind::CtStatus,
        }
    }
}

pub(super) fn value(kind: Kind, bytes: &[u8]) -> String {
    match kind {
        Kind::Address => address(bytes).map_or_else(|| hex(bytes), |address| address.to_string()),
        Kind::Prefix(length) => {
            let mut whole = bytes.to_vec();
            whole.resize(if bytes.len() <= 4 { 4 } else { 16 }, 0);
            address(&whole).map_or_else(|| hex(bytes), |address| format!("{address}/{length}"))
        }
        Kind::Port => match bytes.first_chunk() {
            Some(port) => u16::from_be_bytes(*port).to_string(),
            None => hex(bytes),
        },
        Kind::Protocol => match bytes.first() {
            Some(number) if protocol(*number) != "other" => protocol(*number).to_owned(),
            Some(number) => number.to_string(),
            None => hex(bytes),
        },
        Kind::NfProto => match bytes.first() {
            Some(2) => "ipv4".to_owned(),
            Some(10) => "ipv6".to_owned(),
            _ => hex(bytes),
        },
        Kind::Mark => format!("{:#010x}", host(bytes)),
        Kind::Name => {
            let name = String::from_utf8_lossy(bytes);
            match name.find('\0') {
                Some(end) => format!("\"{}\"", &name[..end]),
                None => format!("\"{name}*\""),
            }
        }
        Kind::CtState => bits(
            bytes,
            &[
                "invalid",
                "established",
                "related",
                "new",
                "",
                "",
                "untracked",
            ],
        ),
        Kind::CtStatus => bits(
            bytes,
            &[
                "expected",
                "seen-reply",
                "assured",
                "confirmed",
                "snat",
                "dnat",
            ],
        ),
        Kind::FibType => {
            const NAMES: [&str; 6] = [
                "unspec",
                "unicast",
                "local",
                "broadcast",
                "anycast",
                "multicast",
            ];
            let name = NAMES.get(host(bytes) as usize);
            name.map_or_else(|| host(bytes).to_string(), |name| (*name).to_owned())
        }
        Kind::Host if bytes.len() == 4 => host(bytes).to_string(),
        Kind::Host | Kind::Hex | Kind::Masked { .. } => hex(bytes),
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
        _ => None,
    }
}

fn host(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn bits(bytes: &[u8], names: &[&str]) -> String {
    let value = host(bytes);
    let set = (0..).zip(names).filter(|(bit, _)| value >> bit & 1 == 1);
    let set: Vec<_> = set.map(|(_, name)| *name).collect();
    if set.is_empty() {
        value.to_string()
    } else {
        set.join(",")
    }
}

fn hex(bytes: &[u8]) -> String {
    format!("0x{}", HEXLOWER.encode(bytes))
}

/// `{ 0 : goto …, 1 : goto … }`
pub(super) fn elements(table: &Table, set: &Set, kinds: &[Kind]) -> String {
    let elements = set.elements.iter().map(|element| {
        let low = key(set, kinds, &element.low);
        let mut words = match &element.high {
            Some(high) if *high != element.low => range(kinds, &low, &element.low, high),
            _ => low,
        };
        let to = match &element.value {
            Value::Nothing => return words,
            Value::Verdict(verdict) => verdict_text(table, *verdict),
            Value::Data(data) => destination(data),
            Value::Object(name) => format!("\"{name}\""),
        };
        words.push_str(" : ");
        words.push_str(&to);
        words
    });
    let elements: Vec<_> = elements.collect();
    format!("{{ {} }}", elements.join(", "))
}

/// Fields of a key, each filled up to whole registers.
fn key(set: &Set, kinds: &[Kind], bytes: &[u8]) -> String {
    if kinds.len() < 2 {
        return value(kinds.first().copied().unwrap_or(Kind::Hex), bytes);
    }
    let lengths = kinds.iter().map(|kind| match kind {
        Kind::Address if set.key_length() > 16 => 16,
        Kind::Name => 16,
        Kind::Port => 2,
        Kind::Protocol | Kind::NfProto => 1,
        _ => 4,
    });
    let mut at = 0;
    let fields = kinds.iter().zip(lengths).map(|(kind, length): (_, usize)| {
        let field = bytes.get(at..at + length).unwrap_or_default();
        at += length.next_multiple_of(4);
        value(*kind, field)
    });
    fields.collect::<Vec<_>>().join(" . ")
}

/// A range of addresses is a prefix where it can be.
fn range(kinds: &[Kind], words: &str, low: &[u8], high: &[u8]) -> String {
    let kind = kinds.first().copied().unwrap_or(Kind::Hex);
    let differing: Vec<u8> = low.iter().zip(high).map(|(low, high)| low ^ high).collect();
    let length: u32 = {
        let whole = differing.iter().take_while(|byte| **byte == 0).count();
        let rest = differing.get(whole).map_or(0, |byte| byte.leading_zeros());
        u32::try_from(whole * 8).unwrap_or(0) + rest
    };
    let ones: u32 = differing.iter().map(|byte| byte.count_ones()).sum();
    let bits = u32::try_from(low.len() * 8).unwrap_or(0);
    let is_prefix =
        ones == bits - length && low.iter().zip(&differing).all(|(low, d)| low & d == 0);
    match kind {
        Kind::Address if is_prefix => format!("{words}/{length}"),
        _ => format!("{words}-{}", value(kind, high)),
    }
}

/// What a map of destinations leads to: an address, and a port in the next register.
fn destination(data: &[u8]) -> String {
    let port = |bytes: &[u8]| {
        bytes
            .first_chunk()
            .map_or(0, |port| u16::from_be_bytes(*port))
    };
    match data.len() {
        4 | 16 => value(Kind::Address, data),
        8 => format!(
            "{} . {}",
            value(Kind::Address, &data[..4]),
            port(&data[4..])
        ),
        20 => format!(
            "{} . {}",
            value(Kind::Address, &data[..16]),
            port(&data[16..])
        ),
        _ => value(Kind::Hex, data),
    }
}
