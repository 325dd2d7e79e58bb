//! Reads the structures of iptables' matches and targets (`struct xt_entry_match` and what is in
//! it), whichever backend carries them. In host order unless their headers say otherwise.

mod targets;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Expression, Family, Match,
    netlink::{Attributes, text_of},
    xt::{Conntrack, IpvsMatch, Masked, Ports, RecentOp},
};

pub(super) use targets::target;

/// nf_tables' `match` expression (`enum nft_match_attributes`, nf_tables_compat.h).
pub(super) fn expression_of_match(all: Attributes<'_>, family: Family) -> Option<Expression> {
    let (name, revision) = (all.text(1)?, all.be32(2)?);
    let found = decode_match(name, revision, family, all.find(3)?);
    Some(Expression::Match(Box::new(found)))
}

/// nf_tables' `target` expression.
pub(super) fn expression_of_target(all: Attributes<'_>, family: Family) -> Option<Expression> {
    let (name, revision) = (all.text(1)?, all.be32(2)?);
    let found = target(name, revision, family, all.find(3)?);
    Some(Expression::Target(Box::new(found)))
}

/// A match by name and revision.
pub(super) fn decode_match(name: &str, revision: u32, family: Family, bytes: &[u8]) -> Match {
    let decoded = known(name, revision, &Bytes(bytes, family));
    decoded.unwrap_or_else(|| Match::Other {
        name: name.into(),
        revision,
    })
}

/// A structure's bytes, and the family that its addresses are of.
struct Bytes<'a>(&'a [u8], Family);

impl Bytes<'_> {
    fn u8(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_ne_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    fn be16(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.0.get(at..)?.first_chunk()?))
    }

    fn text(&self, at: usize, length: usize) -> Option<Box<str>> {
        text_of(self.0.get(at..at + length)?).map(Into::into)
    }

    /// `union nf_inet_addr`
    fn address(&self, at: usize) -> Option<IpAddr> {
        let bytes: [u8; 16] = *self.0.get(at..)?.first_chunk()?;
        Some(match self.1 {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
            Family::V6 => IpAddr::V6(Ipv6Addr::from(bytes)),
        })
    }
}

/// `None` for one that is not understood, or is cut.
fn known(name: &str, revision: u32, bytes: &Bytes<'_>) -> Option<Match> {
    Some(match (name, revision) {
        ("comment", 0) => Match::Comment(text_of(bytes.0)?.into()),
        ("tcp", 0) => tcp(bytes)?,
        ("udp", 0) => {
            let inverted = bytes.u8(8)?;
            Match::Udp {
                source: ports(bytes, 0, inverted & 1 != 0)?,
                destination: ports(bytes, 4, inverted & 2 != 0)?,
            }
        }
        ("icmp" | "icmp6", 0) => Match::Icmp {
            name: if name == "icmp" { "icmp" } else { "icmp6" },
            kind: bytes.u8(0)?,
            codes: (bytes.u8(1)?, bytes.u8(2)?),
            negated: bytes.u8(3)? & 1 != 0,
        },
        ("multiport", 1) => multiport(bytes)?,
        ("statistic", 0) => statistic(bytes)?,
        ("mark" | "connmark", 1) => Match::Mark {
            connection: name == "connmark",
            mark: bytes.u32(0)?,
            mask: bytes.u32(4)?,
            negated: bytes.u8(8)? != 0,
        },
        ("conntrack", 3) => Match::Conntrack(conntrack(bytes)?),
        ("state", 0) => Match::State(bytes.u32(0)?),
        ("addrtype", 1) => Match::Addrtype {
            source: bytes.u16(0)?,
            destination: bytes.u16(2)?,
            flags: bytes.u32(4)?,
        },
        ("recent", 0 | 1) => recent(bytes, revision)?,
        ("set", 1..=4) => set(bytes, revision)?,
        ("ipvs", 0) => ipvs(bytes)?,
        ("physdev", 0) => Match::Physdev {
            input: bytes.text(0, 16)?,
            output: bytes.text(32, 16)?,
            inverted: bytes.u8(64)?,
            flags: bytes.u8(65)?,
        },
        ("iprange", 1) => Match::Iprange {
            source: (bytes.address(0)?, bytes.address(16)?),
            destination: (bytes.address(32)?, bytes.address(48)?),
            flags: bytes.u8(64)?,
        },
        ("limit", 0) => Match::Limit {
            average: bytes.u32(0)?,
            burst: bytes.u32(4)?,
        },
        ("nfacct", 0 | 1) => Match::Nfacct(bytes.text(0, 32)?),
        _ => return None,
    })
}

fn ports(bytes: &Bytes<'_>, at: usize, negated: bool) -> Option<Ports> {
    Some(Ports {
        first: bytes.u16(at)?,
        last: bytes.u16(at + 2)?,
        negated,
    })
}

fn tcp(bytes: &Bytes<'_>) -> Option<Match> {
    // XT_TCP_INV_SRCPT, XT_TCP_INV_DSTPT, XT_TCP_INV_FLAGS
    let inverted = bytes.u8(11)?;
    Some(Match::Tcp {
        source: ports(bytes, 0, inverted & 1 != 0)?,
        destination: ports(bytes, 4, inverted & 2 != 0)?,
        option: bytes.u8(8)?,
        flags: (bytes.u8(9)?, bytes.u8(10)?),
        flags_negated: inverted & 4 != 0,
    })
}

fn multiport(bytes: &Bytes<'_>) -> Option<Match> {
    const MOST: usize = 15;
    let count = usize::from(bytes.u8(1)?).min(MOST);
    let mut ports = Vec::new();
    let mut index = 0;
    while index < count {
        let first = bytes.u16(2 + index * 2)?;
        // A flagged port is the first of a range, and the next its last.
        let ranges = bytes.u8(2 + MOST * 2 + index)? != 0;
        index += usize::from(ranges);
        ports.push((first, bytes.u16(2 + index * 2)?));
        index += 1;
    }
    Some(Match::Multiport {
        side: bytes.u8(0)?,
        ports: ports.into(),
        negated: bytes.u8(2 + MOST * 3)? != 0,
    })
}

fn statistic(bytes: &Bytes<'_>) -> Option<Match> {
    let negated = bytes.u16(2)? & 1 != 0;
    Some(if bytes.u16(0)? == 0 {
        Match::Random {
            probability: bytes.u32(4)?,
            negated,
        }
    } else {
        Match::Nth {
            every: bytes.u32(4)?,
            packet: bytes.u32(8)?,
            negated,
        }
    })
}

/// `struct xt_conntrack_mtinfo3`
fn conntrack(bytes: &Bytes<'_>) -> Option<Conntrack> {
    let masked = |index: usize| {
        Some(Masked {
            address: bytes.address(index * 32)?,
            mask: bytes.address(index * 32 + 16)?,
        })
    };
    let range = |index: usize| Some((bytes.u16(138 + index * 2)?, bytes.u16(154 + index * 2)?));
    Some(Conntrack {
        protocol: u8::try_from(bytes.u16(136)?).ok()?,
        flags: bytes.u16(146)?,
        inverted: bytes.u16(148)?,
        states: bytes.u16(150)?,
        status: bytes.u16(152)?,
        addresses: [masked(0)?, masked(1)?, masked(2)?, masked(3)?],
        ports: [range(0)?, range(1)?, range(2)?, range(3)?],
        expires: (bytes.u32(128)?, bytes.u32(132)?),
    })
}

fn recent(bytes: &Bytes<'_>, revision: u32) -> Option<Match> {
    // XT_RECENT_CHECK, SET, UPDATE, REMOVE, TTL, REAP
    let flags = bytes.u8(8)?;
    let op = match flags & 0xf {
        0x1 => RecentOp::Check,
        0x2 => RecentOp::Set,
        0x4 => RecentOp::Update,
        _ => RecentOp::Remove,
    };
    // It behaves otherwise with a TTL that must agree.
    if flags & 0x10 != 0 {
        return None;
    }
    Some(Match::Recent {
        op,
        seconds: bytes.u32(0)?,
        hits: bytes.u32(4)?,
        reap: flags & 0x20 != 0,
        negated: bytes.u8(9)? != 0,
        name: bytes.text(10, 200)?,
        destination: bytes.u8(210)? != 0,
        mask: if revision == 0 {
            IpAddr::V4(Ipv4Addr::BROADCAST)
        } else {
            bytes.address(212)?
        },
    })
}

/// `struct xt_set_info`; flags are bits of fields, from the first, for the source.
fn set(bytes: &Bytes<'_>, revision: u32) -> Option<Match> {
    // IPSET_FLAG_MATCH_COUNTERS, IPSET_FLAG_RETURN_NOMATCH: what is found counts in another way.
    const OTHERWISE: u32 = 1 << 5 | 1 << 7;
    if revision >= 3 && bytes.u32(40)? & OTHERWISE != 0 {
        return None;
    }
    let (dimensions, flags) = (bytes.u8(2)?, bytes.u8(3)?);
    Some(Match::Set {
        index: bytes.u16(0)?,
        name: None,
        // IPSET_DIM_ONE_SRC is 1 << 1.
        destination: (1..=dimensions)
            .map(|dimension| flags & (1_u8 << dimension.min(7)) == 0)
            .collect(),
        // IPSET_INV_MATCH
        negated: flags & 1 != 0,
    })
}

/// `struct xt_ipvs_mtinfo`
fn ipvs(bytes: &Bytes<'_>) -> Option<Match> {
    let (inverted, flags) = (bytes.u8(38)?, bytes.u8(39)?);
    // XT_IPVS_VPORTCTL: FTP's data connections, of which none is a packet here.
    if flags & (1 << 6) != 0 {
        return None;
    }
    Some(Match::Ipvs(IpvsMatch {
        address: Masked {
            address: bytes.address(0)?,
            mask: bytes.address(16)?,
        },
        port: bytes.be16(32)?,
        protocol: bytes.u8(34)?,
        method: bytes.u8(35)?,
        inverted,
        flags,
    }))
}
