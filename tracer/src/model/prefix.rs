//! Prefixes: the first address of a range, and how many of its bits all of the range share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `192.0.2.0/24` as address and length; `None` where it is none. The length may be more than the family has.
pub fn parse(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    Some((address.parse().ok()?, length.parse().ok()?))
}

/// Whether `prefix` has `address`. A length beyond the family's is the family's.
pub fn contains(prefix: (IpAddr, u8), address: IpAddr) -> bool {
    let length = u32::from(prefix.1);
    match (prefix.0, address) {
        (IpAddr::V4(of), IpAddr::V4(address)) => {
            (of.to_bits() ^ address.to_bits()).leading_zeros() >= length.min(32)
        }
        (IpAddr::V6(of), IpAddr::V6(address)) => {
            (of.to_bits() ^ address.to_bits()).leading_zeros() >= length.min(128)
        }
        _ => false,
    }
}

/// `address` with all bits but its first `length` cleared. A length beyond the family's is the family's.
pub fn masked(address: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(length));
            Ipv4Addr::from_bits(address.to_bits() & mask.unwrap_or(0)).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length));
            Ipv6Addr::from_bits(address.to_bits() & mask.unwrap_or(0)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_holds_its_own_addresses_only() {
        let check = |prefix: &str, address: &str, expected| {
            let holds = contains(parse(prefix).unwrap(), address.parse().unwrap());
            assert_eq!(holds, expected, "{prefix} {address}");
        };
        check("10.244.1.0/24", "10.244.1.7", true);
        check("10.244.1.0/24", "10.244.2.7", false);
        check("0.0.0.0/0", "192.0.2.1", true);
        check("0.0.0.0/0", "255.1.2.3", true);
        check("::/0", "192.0.2.1", false);
        check("::/0", "fe00::1", true);
        check("fd00:10:244:1::/64", "fd00:10:244:1::5", true);
        check("fd00::/8", "fdff::1", true);
        check("fd00::/99", "fe00::1", false);
        check("10.244.1.0/32", "10.244.1.1", false);
        check("10.1.2.3/32", "10.1.2.3", true);
        check("10.1.2.3/32", "10.1.2.2", false);
        check("10.1.2.0/24", "fd00::1", false);
    }

    #[test]
    fn an_address_is_masked_to_the_first_of_its_prefix() {
        let check = |address: &str, length, expected: &str| {
            let expected: IpAddr = expected.parse().unwrap();
            assert_eq!(masked(address.parse().unwrap(), length), expected);
        };
        check("10.244.1.7", 24, "10.244.1.0");
        check("10.244.1.7", 0, "0.0.0.0");
        check("10.244.1.7", 32, "10.244.1.7");
        check("10.244.1.7", 99, "10.244.1.7");
        check("fd00:10:244:1::5", 64, "fd00:10:244:1::");
        check("fd00::5", 0, "::");
        check("fd00::5", 128, "fd00::5");
    }

    #[test]
    fn what_is_no_prefix_is_none() {
        for text in ["10.1.0.0", "10.1.0.0/", "10.1.0/16", "/8", "10.1.0.0/256"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
