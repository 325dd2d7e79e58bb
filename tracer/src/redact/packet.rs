//! Packets as captured: addresses in headers, DNS in payloads, what ICMP errors quote. Checksums that
//! were right stay right, and those that hardware was to fill in stay as wrong as they were: they are
//! moved by what changed (RFC 1624).

use bytes::Bytes;

use super::Redactor;
use crate::model::{Conntrack, Flow, Packet, Transport, fact::Comm};

/// IANA protocol numbers.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// IPv6 extension headers that are followed: hop by hop, routing, destination options.
const EXTENSIONS: [u8; 3] = [0, 43, 60];

impl Redactor {
    pub(super) fn packet(&mut self, packet: &mut Packet) {
        let flow = packet.flow;
        let headers = packet.headers.len();
        let mut bytes = [&packet.headers[..], &packet.payload].concat();
        let syn = matches!(packet.transport, Transport::Tcp { flags, .. } if flags.syn());
        if headers > 0 {
            self.ip(&mut bytes, Some(syn));
        } else {
            match packet.transport {
                Transport::Udp => self.datagram(flow.src.port(), flow.dst.port(), &mut bytes),
                Transport::Tcp { seq, .. } => self.segment(flow, seq, syn, &mut bytes),
                Transport::IcmpError { .. } => self.ip(&mut bytes, None),
                Transport::LaterFragment => bytes.fill(0),
            }
        }
        let bytes = Bytes::from(bytes);
        packet.headers = bytes.slice(..headers);
        packet.payload = bytes.slice(headers..);
        packet.flow = self.flow(flow);
        packet.conntrack = packet.conntrack.map(|entry| self.conntrack(entry));
        if let Some(sender) = &mut packet.sender {
            sender.comm = self.comm(sender.comm);
        }
        if let Some(tunnel) = &mut packet.tunnel
            && self.what.addresses
        {
            tunnel.src = self.addresses.ip(tunnel.src);
            tunnel.dst = self.addresses.ip(tunnel.dst);
        }
    }

    pub(super) fn flow(&mut self, flow: Flow) -> Flow {
        if !self.what.addresses {
            return flow;
        }
        Flow {
            src: self.addresses.socket(flow.src),
            dst: self.addresses.socket(flow.dst),
        }
    }

    pub(super) fn conntrack(&mut self, entry: Conntrack) -> Conntrack {
        Conntrack {
            original: self.flow(entry.original),
            reply: self.flow(entry.reply),
            zone: entry.zone,
        }
    }

    pub(super) fn comm(&mut self, comm: Comm) -> Comm {
        if !self.what.names {
            return comm;
        }
        let name = self.words.name(&comm.to_string());
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(name.bytes().take(15)) {
            *to = from;
        }
        Comm(bytes)
    }

    /// Rewrites an IP packet, or the beginning of one. `syn` is `None` for one that is quoted.
    fn ip(&mut self, bytes: &mut [u8], syn: Option<bool>) {
        let was = bytes.to_vec();
        let Some((protocol, at)) = self.ip_header(bytes) else {
            bytes.fill(0);
            return;
        };
        let Some(protocol) = protocol else { return };
        let (before, after) = (&was[..at], &mut *bytes);
        let (head, rest) = after.split_at_mut(at);
        let from = was[at..].to_vec();
        match protocol {
            UDP => self.udp(rest),
            TCP => self.tcp(head, rest, &was, syn),
            ICMP | ICMPV6 if syn.is_some() => {
                if let Some(quoted) = rest.get_mut(8..) {
                    self.ip(quoted, None);
                }
            }
            _ => rest.iter_mut().skip(8).for_each(|byte| *byte = 0),
        }
        let sum = match protocol {
            UDP => 6,
            TCP => 16,
            _ => 2,
        };
        // ICMP alone sums no addresses.
        let pseudo = if protocol == ICMP {
            (&[][..], &[][..])
        } else {
            (addresses(before), addresses(head))
        };
        let no_sum = protocol == UDP && from.get(6..8) == Some(&[0, 0]);
        if !no_sum {
            update(rest, sum, &from, pseudo);
            // A sum of zero would say that there is none.
            if protocol == UDP && rest.get(6..8) == Some(&[0, 0]) {
                rest[6..8].fill(0xff);
            }
        }
    }

    /// Rewrites addresses in an IP header, and blanks options, which may hold some; the transport's
    /// protocol, `None` in a later fragment, and where it begins.
    fn ip_header(&mut self, bytes: &mut [u8]) -> Option<(Option<u8>, usize)> {
        let addresses = self.what.addresses;
        if bytes.first()? >> 4 == 4 {
            let len = usize::from(bytes.first()? & 0xf) * 4;
            let was = bytes.get(..len.max(20))?.to_vec();
            if addresses {
                self.address(&mut bytes[12..16])?;
                self.address(&mut bytes[16..20])?;
                // RFC 791: option 1 does nothing.
                bytes[20..was.len()].fill(1);
            }
            update(&mut bytes[..was.len()], 10, &was, (&[], &[]));
            let fragment = u16::from_be_bytes([bytes[6], bytes[7]]) & 0x1fff;
            let protocol = bytes[9];
            return Some(((fragment == 0).then_some(protocol), was.len()));
        }
        bytes.get(..40)?;
        if addresses {
            self.address(&mut bytes[8..24])?;
            self.address(&mut bytes[24..40])?;
        }
        let (mut protocol, mut at) = (bytes[6], 40);
        let mut later = false;
        while EXTENSIONS.contains(&protocol) || protocol == 44 {
            let Some([next, len]) = bytes.get(at..).and_then(<[u8]>::first_chunk).copied() else {
                return Some((None, bytes.len()));
            };
            let len = if protocol == 44 {
                8
            } else {
                usize::from(len) * 8 + 8
            };
            if protocol == 44 {
                let offset = bytes.get(at + 2..).and_then(<[u8]>::first_chunk);
                later = offset.is_some_and(|offset| u16::from_be_bytes(*offset) & !7 != 0);
            } else if addresses {
                let end = (at + len).min(bytes.len());
                // Behind type and segments left, or as padding of unknown content (RFC 8200).
                bytes[(at + 4).min(end)..end].fill(0);
            }
            (protocol, at) = (next, (at + len).min(bytes.len()));
        }
        Some(((!later).then_some(protocol), at))
    }

    fn udp(&mut self, bytes: &mut [u8]) {
        let Some((header, payload)) = bytes.split_first_chunk_mut::<8>() else {
            return;
        };
        let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        self.datagram(port(0), port(2), payload);
    }

    fn datagram(&mut self, from: u16, to: u16, payload: &mut [u8]) {
        if self.dns_ports.contains(&from) || self.dns_ports.contains(&to) {
            self.message(payload);
        } else {
            payload.fill(0);
        }
    }

    /// `was` is the packet as it was: streams go by the addresses of before.
    fn tcp(&mut self, head: &[u8], bytes: &mut [u8], was: &[u8], syn: Option<bool>) {
        let Some(header) = bytes.first_chunk::<20>().copied() else {
            return;
        };
        let len = (usize::from(header[12] >> 4) * 4).clamp(20, bytes.len());
        let payload = bytes.get_mut(len..).unwrap_or_default();
        let [src, dst] = [0, 2].map(|at| u16::from_be_bytes([header[at], header[at + 1]]));
        let flow = flow_of(&was[..head.len()], src, dst);
        match (flow, syn) {
            (Some(flow), Some(syn)) => {
                let seq = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                self.segment(flow, seq, syn, payload);
            }
            _ => payload.fill(0),
        }
    }

    fn segment(&mut self, flow: Flow, seq: u32, syn: bool, payload: &mut [u8]) {
        let ports = [flow.src.port(), flow.dst.port()];
        if !ports.iter().any(|port| self.dns_ports.contains(port)) {
            payload.fill(0);
            return;
        }
        for part in self.streams.parts(flow, seq, syn, payload) {
            let part_of = &mut payload[part.at];
            if part.begins {
                self.message(part_of);
            } else {
                part_of.fill(0);
            }
        }
    }
}

/// Both addresses of an IP header, as they stand in it.
fn addresses(header: &[u8]) -> &[u8] {
    let at = match header.first().map(|byte| byte >> 4) {
        Some(4) => 12..20,
        _ => 8..40,
    };
    header.get(at).unwrap_or_default()
}

fn flow_of(header: &[u8], src: u16, dst: u16) -> Option<Flow> {
    use std::net::{IpAddr, SocketAddr};
    let both = addresses(header);
    let (from, to) = both.split_at_checked(both.len() / 2)?;
    let ip = |bytes: &[u8]| match *bytes {
        [a, b, c, d] => Some(IpAddr::from([a, b, c, d])),
        _ => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some(Flow {
        src: SocketAddr::new(ip(from)?, src),
        dst: SocketAddr::new(ip(to)?, dst),
    })
}

/// Moves the checksum at `at` by how `bytes` differ from what they `was`, and by a change of addresses
/// that are summed with them (RFC 1624, equation 3).
fn update(bytes: &mut [u8], at: usize, was: &[u8], (before, after): (&[u8], &[u8])) {
    let Some(sum) = was.get(at..).and_then(<[u8]>::first_chunk) else {
        return;
    };
    let mut total = u64::from(!u16::from_be_bytes(*sum));
    bytes[at..at + 2].copy_from_slice(sum);
    for (old, new) in [(was, &*bytes), (before, after)] {
        for (old, new) in old.chunks(2).zip(new.chunks(2)) {
            let word = |bytes: &[u8]| {
                let high = bytes.first().copied().unwrap_or(0);
                u16::from_be_bytes([high, bytes.get(1).copied().unwrap_or(0)])
            };
            if old != new {
                total += u64::from(!word(old)) + u64::from(word(new));
            }
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    let sum = !u16::try_from(total).unwrap_or(0);
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::Redact;

    /// The sum of all words, which is 0xffff where the checksum among them is right (RFC 1071).
    fn sum(parts: &[&[u8]]) -> u16 {
        let mut total = 0_u32;
        for part in parts {
            for word in part.chunks(2) {
                let low = word.get(1).copied().unwrap_or(0);
                total += u32::from(u16::from_be_bytes([word[0], low]));
            }
        }
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        u16::try_from(total).unwrap()
    }

    /// A query for `web.shop` by UDP, with right checksums.
    fn query() -> Vec<u8> {
        let message = b"\xab\xcd\x01\0\0\x01\0\0\0\0\0\0\x03web\x04shop\0\0\x01\0\x01";
        let len = u8::try_from(message.len()).unwrap();
        let mut packet = vec![0x45, 0, 0, 28 + len, 0, 1, 0x40, 0, 64, UDP, 0, 0];
        packet.extend([10, 244, 1, 7, 10, 96, 0, 10]);
        let header = !sum(&[&packet]);
        packet[10..12].copy_from_slice(&header.to_be_bytes());
        packet.extend([0x9c, 0x40, 0, 53, 0, 8 + len, 0, 0]);
        packet.extend(message);
        let pseudo = [&packet[12..20], &[0, UDP, 0, 8 + len]].concat();
        let udp = !sum(&[&pseudo, &packet[20..]]);
        packet[26..28].copy_from_slice(&udp.to_be_bytes());
        packet
    }

    fn is_right(packet: &[u8]) -> bool {
        let len = u16::try_from(packet.len() - 20).unwrap().to_be_bytes();
        let pseudo = [&packet[12..20], &[0, UDP], &len].concat();
        sum(&[&packet[..20]]) == 0xffff && sum(&[&pseudo, &packet[20..]]) == 0xffff
    }

    fn redactor() -> Redactor {
        let both = Redact {
            names: true,
            addresses: true,
        };
        let mut redactor = Redactor::new(both, b"secret");
        redactor.dns_ports = vec![53];
        redactor
    }

    #[test]
    fn checksums_that_were_right_are_right() {
        let before = query();
        assert!(is_right(&before), "the test's own packet");
        let mut after = before.clone();
        redactor().ip(&mut after, Some(false));
        assert_ne!(before[12..20], after[12..20]);
        assert!(!after.windows(4).any(|part| part == b"shop"));
        assert!(is_right(&after), "{after:?}");
        let mut wrong = before.clone();
        wrong[26] ^= 0x55;
        redactor().ip(&mut wrong, Some(false));
        assert!(!is_right(&wrong), "as wrong as it was");
    }

    #[test]
    fn what_an_error_quotes_is_replaced_alike() {
        let quoted = query();
        let mut error = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, ICMP, 0, 0];
        error.extend([192, 0, 2, 1, 10, 244, 1, 7]);
        error.extend([3, 3, 0, 0, 0, 0, 0, 0]);
        error.extend(&quoted);
        let icmp = !sum(&[&error[20..]]);
        error[22..24].copy_from_slice(&icmp.to_be_bytes());
        redactor().ip(&mut error, Some(false));
        let mut alone = quoted;
        redactor().ip(&mut alone, None);
        assert_eq!(error[28..], alone);
        assert_eq!(sum(&[&error[20..]]), 0xffff);
    }

    #[test]
    fn a_packet_that_ends_anywhere_is_no_panic() {
        let whole = query();
        for len in 0..whole.len() {
            let mut bytes = whole[..len].to_vec();
            redactor().ip(&mut bytes, Some(false));
            assert_eq!(bytes.len(), len);
            assert!(!bytes.windows(4).any(|part| part == b"shop"), "{len}");
        }
    }
}
