//! Addresses to other addresses. Two that share octets, or in IPv6 nibbles, at their beginning still do.
//! An octet keeps its number of digits, so that an address in a name keeps its length. Private ones stay
//! private, in their range; those with a meaning of their own stay as they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustc_hash::FxHashMap;

use super::permute::Key;
use crate::model::prefix::masked;

/// Most addresses that are remembered.
const MOST: usize = 65_536;

/// Addresses that became others.
#[derive(Debug)]
pub(super) struct Addresses {
    key: Key,
    known: FxHashMap<IpAddr, IpAddr>,
}

/// A part of the addresses that becomes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    /// They have a meaning of their own.
    Kept,
    /// 10.0.0.0/8
    Ten,
    /// 172.16.0.0/12
    Private172,
    /// 192.168.0.0/16
    Private192,
    /// 100.64.0.0/10, RFC 6598
    Shared,
    /// fe80::/10
    LinkLocal,
    /// fc00::/7
    Local,
    /// 2000::/3
    Global,
    /// All else.
    Other,
}

impl Range {
    fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::of_v4(ip),
            IpAddr::V6(ip) => Self::of_v6(ip),
        }
    }

    fn of_v4(ip: Ipv4Addr) -> Self {
        match ip.octets() {
            [0 | 127 | 224..=255, ..] | [169, 254, ..] => Self::Kept,
            [10, ..] => Self::Ten,
            [172, 16..=31, ..] => Self::Private172,
            [192, 168, ..] => Self::Private192,
            [100, 64..=127, ..] => Self::Shared,
            _ => Self::Other,
        }
    }

    fn of_v6(ip: Ipv6Addr) -> Self {
        match ip.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] | [0xff00..=0xffff, ..] => Self::Kept,
            [0xfe80..=0xfebf, ..] => Self::LinkLocal,
            [0xfc00..=0xfdff, ..] => Self::Local,
            [0x2000..=0x3fff, ..] => Self::Global,
            _ => Self::Other,
        }
    }
}

impl Addresses {
    pub(super) fn new(secret: &[u8]) -> Self {
        Self {
            key: Key::new(secret, "addresses"),
            known: FxHashMap::default(),
        }
    }

    /// What an address becomes.
    pub(super) fn ip(&mut self, ip: IpAddr) -> IpAddr {
        if let Some(known) = self.known.get(&ip) {
            return *known;
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let range = Range::of(ip);
        let mut other = ip;
        // Each step permutes all addresses, so that walking on until one is of the same range permutes
        // that range.
        if range != Range::Kept {
            other = self.step(ip, range);
            while Range::of(other) != range {
                other = self.step(other, range);
            }
        }
        self.known.insert(ip, other);
        other
    }

    /// The same of an address and port; the port stays.
    pub(super) fn socket(&mut self, at: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.ip(at.ip()), at.port())
    }

    fn step(&self, ip: IpAddr, range: Range) -> IpAddr {
        match ip {
            IpAddr::V4(ip) => {
                let before = ip.octets();
                let mut after = before;
                for (at, octet) in after.iter_mut().enumerate() {
                    let set = octets(range, at, *octet);
                    *octet = self.key.among(&before[..at], &set, *octet);
                }
                after.into()
            }
            IpAddr::V6(ip) => {
                let bits = ip.to_bits();
                let nibble = |at: usize| u8::try_from(bits >> (124 - 4 * at) & 0xf).unwrap_or(0);
                let before: Vec<u8> = (0..32).map(nibble).collect();
                let mut after = 0_u128;
                for (at, nibble) in before.iter().enumerate() {
                    let set = nibbles(range, at);
                    let context = [&[6], &before[..at]].concat();
                    let other = self.key.among(&context, &set, *nibble);
                    after = after << 4 | u128::from(other);
                }
                Ipv6Addr::from_bits(after).into()
            }
        }
    }

    /// What a prefix becomes: several, where it ends within an octet or nibble.
    pub(super) fn prefix(&mut self, (ip, bits): (IpAddr, u8)) -> Vec<(IpAddr, u8)> {
        let (unit, all) = if ip.is_ipv4() { (8, 32) } else { (4, 128) };
        // What is so wide tells nobody's address.
        if bits < 8 || bits > all {
            return vec![(ip, bits)];
        }
        let whole = bits.div_ceil(unit) * unit;
        let count = 1_u128 << (whole - bits);
        let mut others: Vec<_> = (0..count)
            .map(|nth| {
                let ip = with_bits(masked(ip, bits), nth << (all - whole));
                (masked(self.ip(ip), whole), whole)
            })
            .collect();
        others.sort_unstable();
        others
    }
}

/// `ip` with those bits set that `rest` has.
fn with_bits(ip: IpAddr, rest: u128) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let rest = u32::try_from(rest).unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() | rest).into()
        }
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() | rest).into(),
    }
}

/// What the octet there may become: one of as many digits, and of the same range.
fn octets(range: Range, at: usize, octet: u8) -> Vec<u8> {
    let digits = match octet {
        0..=9 => 0..=9,
        10..=99 => 10..=99,
        100..=255 => 100..=255,
    };
    let of_range = match (range, at) {
        (Range::Ten | Range::Private172 | Range::Private192 | Range::Shared, 0)
        | (Range::Private192, 1) => octet..=octet,
        (Range::Private172, 1) => 16..=31,
        (Range::Shared, 1) => 64..=127,
        _ => 0..=255,
    };
    digits.filter(|octet| of_range.contains(octet)).collect()
}

/// What the nibble there may become.
fn nibbles(range: Range, at: usize) -> Vec<u8> {
    match (range, at) {
        (Range::LinkLocal, ..16) | (Range::Local, ..2) => Vec::new(),
        (Range::Global, 0) => vec![2, 3],
        _ => (0..16).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_becomes_one_of_its_range_and_length() {
        let mut addresses = Addresses::new(b"secret");
        for text in [
            "10.244.1.7",
            "172.20.3.44",
            "192.168.100.9",
            "100.100.1.1",
            "8.8.8.8",
            "203.0.113.77",
            "fe80::1234:5678:9abc:def0",
            "fd00:10:244::7",
            "2001:db8::53",
            "64:ff9b::808:808",
        ] {
            let other = addresses.ip(ip(text));
            assert_ne!(other, ip(text));
            assert_eq!(Range::of(other), Range::of(ip(text)), "{text} {other}");
            if other.is_ipv4() {
                assert_eq!(other.to_string().len(), text.len(), "{text} {other}");
            }
        }
        for text in [
            "127.0.0.1",
            "169.254.20.10",
            "0.0.0.0",
            "224.0.0.1",
            "::1",
            "::",
            "ff02::1",
        ] {
            assert_eq!(addresses.ip(ip(text)), ip(text));
        }
    }

    #[test]
    fn addresses_of_one_subnet_stay_together_and_apart() {
        let mut addresses = Addresses::new(b"secret");
        let mut seen = std::collections::BTreeSet::new();
        let subnet = addresses.prefix((ip("10.244.1.0"), 24));
        assert_eq!(subnet.len(), 1);
        for last in 0..=255 {
            let other = addresses.ip(IpAddr::from([10, 244, 1, last]));
            assert_eq!(masked(other, 24), subnet[0].0);
            seen.insert(other);
        }
        assert_eq!(seen.len(), 256);
        let public: std::collections::BTreeSet<_> = (0..=255)
            .map(|first| addresses.ip(IpAddr::from([first, 9, 9, 9])))
            .collect();
        assert_eq!(public.len(), 256);
    }

    #[test]
    fn a_prefix_holds_what_its_addresses_become() {
        let mut addresses = Addresses::new(b"secret");
        let prefixes = addresses.prefix((ip("10.96.0.0"), 12));
        assert_eq!(prefixes.len(), 16);
        for second in [96, 99, 100, 111] {
            let other = addresses.ip(IpAddr::from([10, second, 7, 7]));
            let holds = |(prefix, bits): &(IpAddr, u8)| masked(other, *bits) == *prefix;
            assert!(prefixes.iter().any(holds), "{other}");
        }
        assert_eq!(addresses.prefix((ip("0.0.0.0"), 0)), [(ip("0.0.0.0"), 0)]);
        assert_eq!(addresses.prefix((ip("fd00:10:96::"), 112)).len(), 1);
    }
}
