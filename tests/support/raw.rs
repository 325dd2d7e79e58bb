//! Packets that no socket option in safe Rust makes: IP options, extension headers. RFC 791, RFC 8200.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// IANA protocol numbers; `RAW` is Linux' own, raw(7).
const UDP: u8 = 17;
const DESTINATION_OPTIONS: u8 = 60;
const RAW: i32 = 255;

/// UDP over IPv4 with four bytes of options: three no-operations and the end of the list.
pub(crate) fn v4_with_options(
    src: (Ipv4Addr, u16),
    dst: (Ipv4Addr, u16),
    payload: &[u8],
) -> Vec<u8> {
    // Zero means that the sender computed no checksum (RFC 768); Linux fills in the header's.
    let datagram = datagram(src.1, dst.1, payload);
    let total = u16::try_from(24 + datagram.len()).expect("it is short");
    let mut packet = vec![0x46, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    packet.extend(src.0.octets());
    packet.extend(dst.0.octets());
    packet.extend([1, 1, 1, 0]);
    packet.extend(datagram);
    packet
}

/// UDP over IPv6 behind a destination-options header that holds padding alone.
pub(crate) fn v6_with_extension(
    src: (Ipv6Addr, u16),
    dst: (Ipv6Addr, u16),
    payload: &[u8],
) -> Vec<u8> {
    let mut datagram = datagram(src.1, dst.1, payload);
    let length = u16::try_from(datagram.len()).expect("it is short");
    // The pseudo-header of RFC 8200 section 8.1.
    let mut sum = vec![0, UDP];
    sum.extend(src.0.octets());
    sum.extend(dst.0.octets());
    sum.extend(length.to_be_bytes());
    sum.extend(&datagram);
    datagram[6..8].copy_from_slice(&checksum(&sum).to_be_bytes());

    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((length + 8).to_be_bytes());
    packet.extend([DESTINATION_OPTIONS, 64]);
    packet.extend(src.0.octets());
    packet.extend(dst.0.octets());
    // Next header, no further eight bytes, and PadN of four.
    packet.extend([UDP, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend(datagram);
    packet
}

/// Sends a whole IP packet from the namespace the thread is in.
pub(crate) fn send(packet: &[u8], to: SocketAddr) {
    let domain = Domain::for_address(to);
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW))).expect("we are root");
    let to = SocketAddr::new(to.ip(), 0);
    let sent = socket
        .send_to(packet, &to.into())
        .expect("there is a route");
    assert_eq!(sent, packet.len());
}

fn datagram(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("it is short");
    let head = [sport, dport, length, 0].map(u16::to_be_bytes).concat();
    [head.as_slice(), payload].concat()
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let sum: u32 = pairs.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).expect("it was folded twice")
}
