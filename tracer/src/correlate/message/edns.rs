//! The OPT record (RFC 6891), which holds the rcode's upper bits.

use domain::base::Message;

/// What the OPT pseudo-record of a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edns {
    /// All twelve bits of the rcode, header's four included (RFC 6891 §6.1.3).
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
