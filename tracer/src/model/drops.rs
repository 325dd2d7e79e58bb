//! Drops: what they are grouped by, what a group adds up to, and what their reasons are called.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt,
    net::SocketAddr,
    sync::Arc,
};

use super::{
    asked::ServiceName,
    fact::Flow,
    ids::{KtimeNs, NetnsInode, WallNs},
    pod::PodName,
};

/// Where on IP's path through the kernel a packet was freed, by netfilter's hook there
/// (`enum nf_inet_hooks`, include/uapi/linux/netfilter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// Before it was routed.
    Prerouting,
    /// On its way to a socket.
    Input,
    /// Routed from one device to another.
    Forward,
    /// Sent here, before it has a device.
    Output,
    /// At the device it leaves by.
    Postrouting,
    /// Either, of a packet that leaves by the device it came by.
    ForwardOrPostrouting,
}

impl Hook {
    /// The word for it, in text and JSON alike.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
            Self::ForwardOrPostrouting => "FORWARD or POSTROUTING",
        }
    }
}

/// What a packet of any kind carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Carried {
    /// An IP packet's protocol (IANA protocol numbers).
    Ip(u8),
    /// Another protocol than IP, or IP that cannot be read (`ETH_P_*`,
    /// include/uapi/linux/if_ether.h).
    Link(u16),
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip(1) => "icmp",
            Self::Ip(2) => "igmp",
            Self::Ip(4) => "ipip",
            Self::Ip(6) => "tcp",
            Self::Ip(17) => "udp",
            Self::Ip(47) => "gre",
            Self::Ip(50) => "esp",
            Self::Ip(58) => "icmpv6",
            Self::Ip(132) => "sctp",
            Self::Link(0x0806) => "arp",
            Self::Link(0x0800) => "ipv4",
            Self::Link(0x86dd) => "ipv6",
            Self::Link(0x88cc) => "lldp",
            Self::Ip(number) => return write!(f, "ip protocol {number}"),
            Self::Link(number) => return write!(f, "ethertype {number:#06x}"),
        })
    }
}

/// What the drops of one group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DropGroup {
    /// `enum skb_drop_reason` of the running kernel; 0 when it gives none.
    pub reason: u32,
    /// Kernel address of the code that freed the packets.
    pub location: u64,
    /// Where on IP's path that was; `None` where it cannot be told.
    pub hook: Option<Hook>,
    /// Namespace; inode 0 when not known.
    pub netns: NetnsInode,
    /// What the packets carried.
    pub carried: Carried,
    /// The service address asked, before NAT; `None` when none is known.
    pub service: Option<SocketAddr>,
}

/// What a group adds up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DropCount {
    /// Packets.
    pub packets: u64,
    /// Their bytes, from the network header on.
    pub bytes: u64,
    /// When the last was freed.
    pub last: KtimeNs,
    /// Its source and destination; `None` where they could not be read.
    pub flow: Option<Flow>,
}

impl DropCount {
    /// Adds `more` of the same group.
    pub fn add(&mut self, more: &Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
        if more.last >= self.last {
            self.last = more.last;
            self.flow = more.flow.or(self.flow);
        }
    }
}

/// Drops by group, bounded whatever is dropped.
#[derive(Debug, Default)]
pub struct Drops {
    /// What each group adds up to.
    pub groups: BTreeMap<DropGroup, DropCount>,
    /// Packets of groups that were too many to be told apart.
    pub beyond: u64,
}

impl Drops {
    /// Most groups that are told apart.
    const MOST: usize = 16_384;

    /// Adds `count` to its group.
    pub fn add(&mut self, group: DropGroup, count: DropCount) {
        if self.groups.len() >= Self::MOST && !self.groups.contains_key(&group) {
            self.beyond += count.packets;
            return;
        }
        self.groups
            .entry(group)
            .and_modify(|known| known.add(&count))
            .or_insert(count);
    }
}

/// Who has an address.
#[derive(Clone, Debug, Default)]
pub struct EndName {
    /// The pod; `None` when it is no pod's, or that is not known.
    pub pod: Option<PodName>,
    /// The node that it is, or that the pod runs on; `None` when that is not known.
    pub node: Option<Arc<str>>,
}

/// A group with the names that there are for it.
#[derive(Clone, Debug)]
pub struct NamedDrops {
    /// The group, its hook left out where the reason has nothing to do with netfilter.
    pub group: DropGroup,
    /// What it adds up to.
    pub count: DropCount,
    /// When the last was freed, by the wall clock.
    pub last: WallNs,
    /// Name of the reason.
    pub reason: Arc<str>,
    /// Symbol and offset of the code; `None` where they are hidden.
    pub symbol: Option<Arc<str>>,
    /// Name of the namespace; `None` when it is not known.
    pub netns: Option<Arc<str>>,
    /// What the service address asked is; `None` when there is none or it has no name.
    pub service: Option<ServiceName>,
    /// Who sent the last packet, and whom it was for.
    pub ends: [EndName; 2],
    /// Why these are no loss by themselves; `None` where they are one.
    pub usual: Option<&'static str>,
}

/// Names of what the running kernel tells of a drop.
#[derive(Clone, Debug, Default)]
pub struct DropNames {
    /// Reasons by value, without their common prefix.
    pub reasons: HashMap<u32, String>,
    /// Subsystems that have reasons of their own, by the upper half of the value.
    pub subsystems: HashMap<u32, String>,
    /// Code that frees packets, by address: function and offset, as far as met.
    pub symbols: HashMap<u64, String>,
}

/// `SKB_DROP_REASON_SUBSYS_SHIFT`, include/net/dropreason.h.
const SUBSYSTEM_SHIFT: u32 = 16;

impl DropNames {
    /// The name of a reason, or what is known of one without a name.
    pub fn reason(&self, reason: u32) -> Cow<'_, str> {
        if let Some(name) = self.reasons.get(&reason).filter(|_| reason != 0) {
            return Cow::Borrowed(name);
        }
        match self.subsystems.get(&(reason >> SUBSYSTEM_SHIFT)) {
            Some(subsystem) if reason >> SUBSYSTEM_SHIFT != 0 => {
                let number = reason & ((1 << SUBSYSTEM_SHIFT) - 1);
                Cow::Owned(format!("{subsystem} reason {number}"))
            }
            _ if reason == 0 => Cow::Borrowed("reason not told by this kernel"),
            _ => Cow::Owned(format!("reason {reason}")),
        }
    }
}

/// Whether drops for the reason of that name happen in netfilter, so that the hook tells something.
/// A kernel that gives no reason gives netfilter's none either; there the code tells.
pub fn is_netfilter(reason: &str, symbol: Option<&str>) -> bool {
    reason == "NETFILTER_DROP"
        || symbol.is_some_and(|symbol| {
            symbol.starts_with("nf_hook_slow+") || symbol.starts_with("nft_do_chain+")
        })
}

/// Why packets freed for the reason of that name are no loss by themselves; `None` where they are.
/// include/net/dropreason-core.h says what each reason means.
pub fn usual(reason: &str, carried: Carried) -> Option<&'static str> {
    const ICMP: Carried = Carried::Ip(1);
    const ICMPV6: Carried = Carried::Ip(58);
    Some(match (reason, carried) {
        ("CONSUMED" | "SKB_CONSUMED", _) => "it was used up",
        ("NO_SOCKET", ICMP | ICMPV6) => "who pings gets a copy; this is the original",
        ("OTHERHOST", _) => "a bridge or switch sent it to more than it was for",
        ("SOCKET_CLOSE" | "QUEUE_PURGE" | "UNIX_DISCONNECT" | "UNIX_SKIP_OOB", _) => {
            "its reader had gone"
        }
        ("SOCKET_FILTER", _) => "the socket's own filter did not want it",
        ("TCP_OLD_DATA" | "TCP_OFOMERGE" | "TCP_OLD_ACK" | "TCP_TOO_OLD_ACK", _) => {
            "TCP had its content already"
        }
        ("UNHANDLED_PROTO", Carried::Link(_)) => "nobody here speaks its protocol",
        ("DUP_FRAG", _) => "the same fragment had come before",
        ("LOCAL_MAC" | "NO_TX_TARGET", _) => "a switch had no other port to send it to",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(location: u64) -> DropGroup {
        DropGroup {
            reason: 2,
            location,
            hook: None,
            netns: NetnsInode(1),
            carried: Carried::Ip(17),
            service: None,
        }
    }

    fn count(packets: u64, last: u64) -> DropCount {
        DropCount {
            packets,
            bytes: packets * 100,
            last: KtimeNs(last),
            flow: None,
        }
    }

    #[test]
    fn a_group_adds_up_and_keeps_its_last_flow() {
        let flow = Flow {
            src: "10.244.0.11:40000".parse().unwrap(),
            dst: "10.96.0.13:53".parse().unwrap(),
        };
        let mut drops = Drops::default();
        let told = DropCount {
            flow: Some(flow),
            ..count(2, 50)
        };
        drops.add(group(1), told);
        drops.add(group(1), count(3, 40));
        drops.add(group(2), count(1, 10));
        let sum = drops.groups[&group(1)];
        assert_eq!((sum.packets, sum.bytes, sum.last), (5, 500, KtimeNs(50)));
        assert_eq!(sum.flow, Some(flow));
        assert_eq!(drops.groups.len(), 2);
    }

    #[test]
    fn groups_beyond_the_bound_are_counted() {
        let mut drops = Drops::default();
        for location in 0..Drops::MOST as u64 + 3 {
            drops.add(group(location), count(2, 1));
        }
        drops.add(group(0), count(1, 1));
        assert_eq!((drops.groups.len(), drops.beyond), (Drops::MOST, 6));
    }

    #[test]
    fn reasons_have_names_or_numbers() {
        let names = DropNames {
            reasons: HashMap::from([(8, "NETFILTER_DROP".to_owned())]),
            subsystems: HashMap::from([(0, "CORE".to_owned()), (3, "OPENVSWITCH".to_owned())]),
            ..DropNames::default()
        };
        let check = |reason, expected: &str| assert_eq!(names.reason(reason), expected);
        check(8, "NETFILTER_DROP");
        check(0x3_0001, "OPENVSWITCH reason 1");
        check(0, "reason not told by this kernel");
        check(99, "reason 99");
        check(0x9_0001, "reason 589825");
    }

    #[test]
    fn a_ping_frees_what_a_closed_port_drops() {
        assert!(usual("NO_SOCKET", Carried::Ip(1)).is_some());
        assert_eq!(usual("NO_SOCKET", Carried::Ip(17)), None);
        assert_eq!(usual("NETFILTER_DROP", Carried::Ip(1)), None);
    }
}
