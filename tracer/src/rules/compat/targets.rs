//! The targets' structures.

use std::net::{IpAddr, Ipv4Addr};

use super::Bytes;
use crate::rules::{
    Family, RejectKind, Target,
    xt::{Nat, NatTarget},
};

/// Targets that end no packet's way and turn it nowhere else.
const HARMLESS: &[&str] = &[
    "NFLOG",
    "TCPMSS",
    "CHECKSUM",
    "TRACE",
    "AUDIT",
    "CLASSIFY",
    "DSCP",
    "TOS",
    "ECN",
    "TTL",
    "HL",
    "SET",
    "TCPOPTSTRIP",
    "RATEEST",
    "IDLETIMER",
    "LED",
    "SECMARK",
    "CONNSECMARK",
    "TEE",
    "ULOG",
];

/// A target by name and revision.
pub(in crate::rules) fn target(name: &str, revision: u32, family: Family, bytes: &[u8]) -> Target {
    let decoded = known(name, revision, &Bytes(bytes, family));
    decoded.unwrap_or_else(|| {
        if HARMLESS.contains(&name) {
            Target::Harmless(name.into())
        } else {
            Target::Other {
                name: name.into(),
                revision,
            }
        }
    })
}

fn known(name: &str, revision: u32, bytes: &Bytes<'_>) -> Option<Target> {
    Some(match (name, revision) {
        ("MARK", 2) => Target::Mark {
            mark: bytes.u32(0)?,
            mask: bytes.u32(4)?,
        },
        ("DNAT" | "SNAT" | "REDIRECT" | "MASQUERADE", _) => Target::Nat(nat(name, bytes)?),
        ("REJECT", 0) if bytes.1 == Family::V4 => Target::Reject(reject(bytes.u32(0)?)?),
        ("REJECT", 0) => Target::Reject(reject6(bytes.u32(0)?)?),
        ("LOG", 0) => Target::Log {
            level: bytes.u8(0)?,
            prefix: bytes.text(2, 30)?,
        },
        ("NOTRACK", 0) => Target::Notrack,
        // XT_CT_NOTRACK
        ("CT", 0..=2) if bytes.u16(0)? & 1 != 0 => Target::Notrack,
        ("CONNMARK", 1) => Target::Connmark {
            mark: bytes.u32(0)?,
            mask: bytes.u32(4)?,
            packet_mask: bytes.u32(8)?,
            mode: bytes.u8(12)?,
        },
        // With a shift of no bits it is revision 1.
        ("CONNMARK", 2) if bytes.u8(13)? == 0 => Target::Connmark {
            mark: bytes.u32(0)?,
            mask: bytes.u32(4)?,
            packet_mask: bytes.u32(8)?,
            mode: bytes.u8(14)?,
        },
        _ => return None,
    })
}

/// `struct nf_nat_range2`, `struct nf_nat_range`, or `struct nf_nat_ipv4_multi_range_compat`: the
/// last one is 20 bytes long, with padding 24.
fn nat(name: &str, bytes: &Bytes<'_>) -> Option<Nat> {
    const MAP_IPS: u32 = 1;
    const PROTO_SPECIFIED: u32 = 2;
    let target = match name {
        "DNAT" => NatTarget::Dnat,
        "SNAT" => NatTarget::Snat,
        "REDIRECT" => NatTarget::Redirect,
        _ => NatTarget::Masquerade,
    };
    let of_ipv4 = bytes.0.len() <= 24;
    let (flags, first, last, ports) = if of_ipv4 {
        let flags = bytes.u32(4)?;
        let address = |at| {
            let octets: [u8; 4] = *bytes.0.get(at..)?.first_chunk()?;
            Some(IpAddr::V4(Ipv4Addr::from(octets)))
        };
        (flags, address(8)?, address(12)?, 16)
    } else {
        (bytes.u32(0)?, bytes.address(4)?, bytes.address(20)?, 36)
    };
    Some(Nat {
        target,
        addresses: (flags & MAP_IPS != 0).then_some((first, last)),
        ports: (flags & PROTO_SPECIFIED != 0)
            .then_some((bytes.be16(ports)?, bytes.be16(ports + 2)?)),
        flags,
    })
}

/// `enum ipt_reject_with`
fn reject(with: u32) -> Option<RejectKind> {
    // Codes of ICMP type 3, RFC 792 and RFC 1812.
    Some(match with {
        0 => RejectKind::Icmp(0),
        1 => RejectKind::Icmp(1),
        2 => RejectKind::Icmp(2),
        3 => RejectKind::Icmp(3),
        5 => RejectKind::Icmp(9),
        6 => RejectKind::Icmp(10),
        7 => RejectKind::TcpReset,
        8 => RejectKind::Icmp(13),
        _ => return None,
    })
}

/// `enum ip6t_reject_with`
fn reject6(with: u32) -> Option<RejectKind> {
    // Codes of ICMPv6 type 1, RFC 4443.
    Some(match with {
        0 => RejectKind::Icmp(0),
        1 => RejectKind::Icmp(1),
        2 => RejectKind::Icmp(2),
        3 => RejectKind::Icmp(3),
        4 => RejectKind::Icmp(4),
        6 => RejectKind::TcpReset,
        7 => RejectKind::Icmp(5),
        8 => RejectKind::Icmp(6),
        _ => return None,
    })
}
