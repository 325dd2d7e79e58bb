//! Names of DNS numbers.
//!
//! Number to mnemonic comes from `domain`'s copy of the IANA registry
//! (<https://www.iana.org/assignments/dns-parameters>); it is not repeated here.

use std::borrow::Cow;

use domain::base::iana::{OptRcode, Rtype};

/// Mnemonic of a query type, or "TYPE65280" (RFC 3597 §5).
pub fn qtype_name(qtype: u16) -> Cow<'static, str> {
    match Rtype::from_int(qtype).to_mnemonic_str() {
        Some(mnemonic) => Cow::Borrowed(mnemonic),
        None => Cow::Owned(format!("TYPE{qtype}")),
    }
}

/// Mnemonic of a twelve-bit rcode, or "RCODE3841". 16 is BADVERS, its meaning outside TSIG (RFC 6895 §2.3).
pub fn rcode_name(rcode: u16) -> Cow<'static, str> {
    // Not `checked_from_int`: in domain 0.12.3 it refuses every value but multiples of 4096.
    let known = OptRcode::masked_from_int(rcode);
    match known.to_mnemonic_str() {
        Some(mnemonic) if known.to_int() == rcode => Cow::Borrowed(mnemonic),
        _ => Cow::Owned(format!("RCODE{rcode}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_without_a_mnemonic_keep_their_number() {
        let types = [1, 28, 65, 255, 65280].map(qtype_name);
        assert_eq!(types, ["A", "AAAA", "HTTPS", "ANY", "TYPE65280"]);
        let rcodes = [0, 2, 3, 5, 16, 23, 3841, 65535].map(rcode_name);
        assert_eq!(
            rcodes,
            [
                "NOERROR",
                "SERVFAIL",
                "NXDOMAIN",
                "REFUSED",
                "BADVERS",
                "BADCOOKIE",
                "RCODE3841",
                "RCODE65535"
            ]
        );
    }
}
