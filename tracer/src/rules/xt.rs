//! What iptables' matches and targets say, decoded. Both backends of iptables carry them as the
//! same structures (include/uapi/linux/netfilter/xt_*.h).

use std::{net::IpAddr, sync::Arc};

use super::RejectKind;

/// An address under a mask, as iptables compares them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Masked {
    /// The address.
    pub address: IpAddr,
    /// Bits that count.
    pub mask: IpAddr,
}

/// Ports from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
    /// All but these.
    pub negated: bool,
}

impl Ports {
    /// Whether it holds for `port`.
    pub fn hold(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port) != self.negated
    }

    /// All ports.
    pub fn any(self) -> bool {
        self.first == 0 && self.last == u16::MAX && !self.negated
    }
}

/// Bits of a `-m conntrack`, set when it looks at that.
#[derive(Clone, Debug, PartialEq)]
pub struct Conntrack {
    /// `XT_CONNTRACK_…`: what is looked at.
    pub flags: u16,
    /// Of those, what must not be so.
    pub inverted: u16,
    /// `XT_CONNTRACK_STATE_…`
    pub states: u16,
    /// `IPS_…`
    pub status: u16,
    /// Protocol's number.
    pub protocol: u8,
    /// Original source, original destination, reply source, reply destination.
    pub addresses: [Masked; 4],
    /// Ports in the same order.
    pub ports: [(u16, u16); 4],
    /// Seconds until it is forgotten, at least and at most.
    pub expires: (u32, u32),
}

/// What `-m ipvs` asks of the virtual server that balanced a packet.
#[derive(Clone, Debug, PartialEq)]
pub struct IpvsMatch {
    /// Its address.
    pub address: Masked,
    /// Its port.
    pub port: u16,
    /// Its protocol's number.
    pub protocol: u8,
    /// `IP_VS_CONN_F_FWD_MASK`: how it forwards.
    pub method: u8,
    /// `XT_IPVS_…`: what must not be so.
    pub inverted: u8,
    /// `XT_IPVS_…`: what is looked at.
    pub flags: u8,
}

/// What `-m recent` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecentOp {
    /// `--set`
    Set,
    /// `--rcheck`
    Check,
    /// `--update`
    Update,
    /// `--remove`
    Remove,
}

/// One of iptables' matches.
#[derive(Clone, Debug, PartialEq)]
pub enum Match {
    /// `-m comment`
    Comment(Box<str>),
    /// `-m tcp`
    Tcp {
        /// Source ports.
        source: Ports,
        /// Destination ports.
        destination: Ports,
        /// Flags that are looked at, and what they must be.
        flags: (u8, u8),
        /// The flags must not be so.
        flags_negated: bool,
        /// A TCP option that must be there, 0 for none.
        option: u8,
    },
    /// `-m udp`
    Udp {
        /// Source ports.
        source: Ports,
        /// Destination ports.
        destination: Ports,
    },
    /// `-m icmp`, `-m icmp6`: of another protocol than any packet here.
    Icmp {
        /// `icmp` or `icmp6`.
        name: &'static str,
        /// Type; 255 for any.
        kind: u8,
        /// Codes from the first to the last.
        codes: (u8, u8),
        /// All but these.
        negated: bool,
    },
    /// `-m multiport`
    Multiport {
        /// 0 source, 1 destination, 2 either.
        side: u8,
        /// First and last.
        ports: Box<[(u16, u16)]>,
        /// All but these.
        negated: bool,
    },
    /// `-m statistic --mode random`
    Random {
        /// In 2³¹sts.
        probability: u32,
        /// The other packets.
        negated: bool,
    },
    /// `-m statistic --mode nth`
    Nth {
        /// Less one.
        every: u32,
        /// Which of them.
        packet: u32,
        /// The other packets.
        negated: bool,
    },
    /// `-m mark`, `-m connmark`
    Mark {
        /// The connection's mark, not the packet's.
        connection: bool,
        /// What it must be.
        mark: u32,
        /// Bits that count.
        mask: u32,
        /// All but that.
        negated: bool,
    },
    /// `-m conntrack`
    Conntrack(Conntrack),
    /// `-m state`
    State(u32),
    /// `-m addrtype`
    Addrtype {
        /// `1 << RTN_…`, 0 for any.
        source: u16,
        /// `1 << RTN_…`, 0 for any.
        destination: u16,
        /// `XT_ADDRTYPE_…`
        flags: u32,
    },
    /// `-m recent`
    Recent {
        /// What it does.
        op: RecentOp,
        /// Its list.
        name: Box<str>,
        /// How long ago; 0 for ever.
        seconds: u32,
        /// How often; 0 for once.
        hits: u32,
        /// `--reap`
        reap: bool,
        /// The destination is remembered, not the source.
        destination: bool,
        /// Bits that count.
        mask: IpAddr,
        /// It must not be so.
        negated: bool,
    },
    /// `-m set`
    Set {
        /// Its number.
        index: u16,
        /// Its name; `None` when it was not read.
        name: Option<Arc<str>>,
        /// For each field: whether it is the destination's.
        destination: Box<[bool]>,
        /// It must not be there.
        negated: bool,
    },
    /// `-m ipvs`
    Ipvs(IpvsMatch),
    /// `-m physdev`
    Physdev {
        /// The bridge's port it came from.
        input: Box<str>,
        /// The bridge's port it goes to.
        output: Box<str>,
        /// `XT_PHYSDEV_OP_…`: what is looked at.
        flags: u8,
        /// Of those, what must not be so.
        inverted: u8,
    },
    /// `-m iprange`
    Iprange {
        /// First and last source.
        source: (IpAddr, IpAddr),
        /// First and last destination.
        destination: (IpAddr, IpAddr),
        /// `IPRANGE_…`
        flags: u8,
    },
    /// `-m limit`
    Limit {
        /// Ten-thousandths of a second between packets.
        average: u32,
        /// How many at once.
        burst: u32,
    },
    /// `-m nfacct`: counts.
    Nfacct(Box<str>),
    /// One that is not understood.
    Other {
        /// Its name.
        name: Box<str>,
        /// Its revision.
        revision: u32,
    },
}

/// One of iptables' targets.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// `-j MARK`: `(mark & !mask) ^ mark`
    Mark {
        /// Bits that are flipped.
        mark: u32,
        /// Bits that are cleared before.
        mask: u32,
    },
    /// `-j DNAT`, `-j SNAT`, `-j REDIRECT`, `-j MASQUERADE`
    Nat(Nat),
    /// `-j REJECT`
    Reject(RejectKind),
    /// `-j LOG`
    Log {
        /// What a line begins with.
        prefix: Box<str>,
        /// Syslog's number.
        level: u8,
    },
    /// `-j CT --notrack`, `-j NOTRACK`
    Notrack,
    /// `-j CONNMARK`
    Connmark {
        /// Bits of the connection's mark that are flipped.
        mark: u32,
        /// Bits of it that are cleared before.
        mask: u32,
        /// Bits of the packet's mark.
        packet_mask: u32,
        /// 0 set, 1 save, 2 restore.
        mode: u8,
    },
    /// One that changes nothing a packet's way depends on, by name: NFLOG, TCPMSS, CHECKSUM,
    /// TRACE, ….
    Harmless(Box<str>),
    /// One that is not understood.
    Other {
        /// Its name.
        name: Box<str>,
        /// Its revision.
        revision: u32,
    },
}

/// Which of iptables' targets translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatTarget {
    /// `-j DNAT`
    Dnat,
    /// `-j SNAT`
    Snat,
    /// `-j REDIRECT`
    Redirect,
    /// `-j MASQUERADE`
    Masquerade,
}

impl NatTarget {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dnat => "DNAT",
            Self::Snat => "SNAT",
            Self::Redirect => "REDIRECT",
            Self::Masquerade => "MASQUERADE",
        }
    }
}

/// A translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    /// Which.
    pub target: NatTarget,
    /// First and last address; `None` leaves it.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// First and last port; `None` leaves it.
    pub ports: Option<(u16, u16)>,
    /// `NF_NAT_RANGE_…` (nf_nat.h)
    pub flags: u32,
}

/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`
pub(super) const RANDOM_FULLY: u32 = 1 << 4;
