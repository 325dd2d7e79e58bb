//! What can be told of any packet at little cost: protocol, addresses and ports, for counting.

use super::{First, IPV4, IPV6, SCTP, Skb, TCP, UDP, read, v4_mapped};

/// What the first bytes of a packet tell of it, whatever it is.
pub(crate) struct Brief {
    /// As it stands in memory; 0 when it is not IP.
    pub(crate) ethertype: u16,
    /// IP protocol number; 255 when it is not IP.
    pub(crate) protocol: u8,
    /// Bytes from the network header on.
    pub(crate) len: u32,
    /// Source and destination, IPv4 ones v4-mapped.
    pub(crate) addresses: [[u32; 4]; 2],
    /// Where it has ports and they can be read.
    pub(crate) sport: [u8; 2],
    pub(crate) dport: [u8; 2],
}

impl Brief {
    /// Nothing is known.
    pub(crate) const NONE: Self = Self {
        ethertype: 0,
        protocol: 255,
        len: 0,
        addresses: [[0; 4]; 2],
        sport: [0; 2],
        dport: [0; 2],
    };
}

impl<const DIRECT: bool> Skb<DIRECT> {
    /// Reads them at the network header. Extension headers of IPv6 are not followed.
    #[inline(always)]
    pub(crate) fn brief(self, network_offset: u16) -> Brief {
        let bounds = self.bounds();
        let ip = bounds.head + u64::from(network_offset);
        let mut brief = Brief {
            len: bounds.from(ip),
            ..Brief::NONE
        };
        let protocol = self.protocol();
        if protocol != 0 && protocol != IPV4 && protocol != IPV6 {
            return brief;
        }
        let Some(first) = read::<First>(ip) else {
            return brief;
        };
        let header = match first.0[0] >> 4 {
            4 => {
                brief.ethertype = IPV4;
                brief.protocol = first.0[9];
                brief.addresses = [v4_mapped(first.word::<12>()), v4_mapped(first.word::<16>())];
                // A later fragment has no ports.
                if u16::from_be_bytes([first.0[6], first.0[7]]) & 0x1fff != 0 {
                    return brief;
                }
                u64::from(first.0[0] & 0xf) * 4
            }
            6 => {
                brief.ethertype = IPV6;
                brief.protocol = first.0[6];
                brief.addresses = first.v6_addresses();
                40
            }
            _ => return brief,
        };
        if matches!(brief.protocol, TCP | UDP | SCTP)
            && let Some([a, b, c, d]) = read::<[u8; 4]>(ip + header)
        {
            brief.sport = [a, b];
            brief.dport = [c, d];
        }
        brief
    }
}
