//! The packet that an ICMP error quotes (RFC 792, RFC 4443): its flow, and its payload as far
//! as quoted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::model::{Flow, Protocol, fact::TcpFlags};

/// What was quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quoted<'a> {
    pub(crate) protocol: Protocol,
    pub(crate) flow: Flow,
    /// Transport payload; often empty, as eight bytes of transport header are all that
    /// RFC 792 asks for.
    pub(crate) payload: &'a [u8],
    /// Length of the whole payload, by the IP header.
    pub(crate) payload_len: usize,
    /// Sequence number, where a SYN is quoted as far as its flags.
    pub(crate) syn: Option<u32>,
}

/// Reads a quoted packet; `None` when it is cut within its ports, a later fragment, or neither
/// UDP nor TCP. IPv6 extension headers are not followed: who rejects seldom sees any.
pub(crate) fn parse(bytes: &[u8]) -> Option<Quoted<'_>> {
    let (protocol, src, dst, rest, len) = match bytes.first()? >> 4 {
        4 => v4(bytes)?,
        6 => v6(bytes)?,
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    let flow = Flow {
        src: SocketAddr::new(src, port(0)?),
        dst: SocketAddr::new(dst, port(2)?),
    };
    let (protocol, header) = match protocol {
        17 => (Protocol::Udp, 8),
        6 => (
            Protocol::Tcp,
            usize::from(rest.get(12).copied().unwrap_or(0) >> 4) * 4,
        ),
        _ => return None,
    };
    let payload = rest.get(header..).unwrap_or_default();
    let flags = rest.get(13).map(|&flags| TcpFlags(flags));
    let is_syn = flags.is_some_and(|flags| flags.syn() && !flags.ack());
    let seq = rest.get(4..8).and_then(<[u8]>::first_chunk);
    Some(Quoted {
        protocol,
        flow,
        payload,
        payload_len: len.saturating_sub(header),
        syn: seq
            .filter(|_| protocol == Protocol::Tcp && is_syn)
            .map(|seq| u32::from_be_bytes(*seq)),
    })
}

type Parts<'a> = (u8, IpAddr, IpAddr, &'a [u8], usize);

fn v4(bytes: &[u8]) -> Option<Parts<'_>> {
    let header = usize::from(bytes.first()? & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?));
    let fragment = u16::from_be_bytes(bytes.get(6..8)?.try_into().ok()?);
    if fragment & 0x1fff != 0 {
        return None;
    }
    let src: [u8; 4] = bytes.get(12..16)?.try_into().ok()?;
    let dst: [u8; 4] = bytes.get(16..20)?.try_into().ok()?;
    let ends = (Ipv4Addr::from(src).into(), Ipv4Addr::from(dst).into());
    Some((
        *bytes.get(9)?,
        ends.0,
        ends.1,
        bytes.get(header..)?,
        total.saturating_sub(header),
    ))
}

fn v6(bytes: &[u8]) -> Option<Parts<'_>> {
    let len = usize::from(u16::from_be_bytes(bytes.get(4..6)?.try_into().ok()?));
    let src: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
    let dst: [u8; 16] = bytes.get(24..40)?.try_into().ok()?;
    let ends = (Ipv6Addr::from(src).into(), Ipv6Addr::from(dst).into());
    Some((*bytes.get(6)?, ends.0, ends.1, bytes.get(40..)?, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp() -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
        packet.extend([192, 0, 2, 1, 10, 96, 0, 10]);
        packet.extend([0x9c, 0x40, 0, 53, 0, 12, 0, 0]);
        packet.extend([0xab, 0xcd, 1, 0]);
        packet
    }

    #[test]
    fn a_quoted_query_tells_its_flow_and_payload() {
        let bytes = udp();
        let quoted = parse(&bytes).unwrap();
        assert_eq!(quoted.flow.src, "192.0.2.1:40000".parse().unwrap());
        assert_eq!(quoted.flow.dst, "10.96.0.10:53".parse().unwrap());
        assert_eq!(quoted.payload, [0xab, 0xcd, 1, 0]);
        assert_eq!(quoted.payload_len, 4);
    }

    #[test]
    fn a_quote_cut_anywhere_is_no_panic() {
        let bytes = udp();
        for len in 0..bytes.len() {
            let quoted = parse(&bytes[..len]);
            assert_eq!(quoted.is_some(), len >= 24, "{len}");
        }
    }
}
