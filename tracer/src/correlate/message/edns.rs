//! The OPT record (RFC 6891), which holds the rcode's upper bits, and the names of the numbers.
//!
//! Number to mnemonic comes from `domain`'s copy of the IANA registry
//! (<https://www.iana.org/assignments/dns-parameters>); it is not repeated here.

use std::borrow::Cow;

use domain::base::{
    Message,
    iana::{OptRcode, Rtype},
};

/// What the OPT pseudo-record of a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// All twelve bits of the rcode, header's four included (RFC 6891 §6.1.3); [`rcode_name`] spells it.
    pub rcode: u16,
    /// Largest UDP payload in bytes the sender takes (RFC 6891 §6.2.3); below 512 counts as 512, which is left to the reader.
    pub udp_size: u16,
}

/// Looks for the OPT record: the full rcode and the advertised UDP size; `None` when there is none or a record before it is cut or unreadable.
///
/// Walks every section, so it costs what the message is long.
pub fn edns(captured: &[u8]) -> Option<Edns> {
    of(Message::from_slice(captured).ok()?)
}

pub(super) fn of(message: &Message<[u8]>) -> Option<Edns> {
    let opt = message.opt()?;
    Some(Edns {
        rcode: opt.rcode(message.header()).to_int(),
        udp_size: opt.udp_payload_size(),
    })
}

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
