//! Packets freed before delivery, with the kernel's reason, one by one or counted by group; and
//! packets answered with an ICMP error.

use tracer_ebpf::{
    config::program,
    record::{self, hook},
};

use super::{
    Probe, Wanted,
    packet::{address, socket_addr},
};
use crate::model::{
    Flow, KtimeNs, NetnsInode,
    drops::{Carried, DropCount, DropGroup, Hook},
};

/// Packets freed.
pub const PROBE: Probe = Probe {
    name: "kfree_skb",
    ways: tracepoint!("kfree_skb"),
    program: program::KFREE_SKB,
    unseen: "packets that the kernel drops, and why",
    wanted: Wanted::Always,
};

/// ICMP errors at their sender; of IPv4 alone, and not in older kernels.
pub const REFUSE: Probe = Probe {
    name: "icmp_send",
    ways: tracepoint!("icmp_send"),
    program: program::ICMP_SEND,
    unseen: "ICMP errors that never reach a device",
    wanted: Wanted::Always,
};

/// `ETH_P_IP` and `ETH_P_IPV6`, include/uapi/linux/if_ether.h.
const IP: [u16; 2] = [0x0800, 0x86dd];

/// The hook that a record names.
pub(super) fn hook(hook: u8) -> Option<Hook> {
    Some(match hook {
        hook::PREROUTING => Hook::Prerouting,
        hook::INPUT => Hook::Input,
        hook::FORWARD => Hook::Forward,
        hook::OUTPUT => Hook::Output,
        hook::POSTROUTING => Hook::Postrouting,
        hook::FORWARD_OR_POSTROUTING => Hook::ForwardOrPostrouting,
        _ => return None,
    })
}

/// What the key of a table of drops tells.
pub fn group(group: &record::DropGroup) -> DropGroup {
    let link = u16::from_be_bytes(group.ethertype);
    DropGroup {
        reason: group.reason,
        location: group.location,
        hook: hook(group.hook),
        netns: NetnsInode(group.netns),
        carried: if IP.contains(&link) && group.protocol != u8::MAX {
            Carried::Ip(group.protocol)
        } else {
            Carried::Link(link)
        },
        service: (group.service != [0; 4]).then(|| socket_addr(address(group.service), group.port)),
    }
}

/// What its value on one processor tells.
pub fn count(count: &record::DropCount) -> DropCount {
    let [src, dst] = count.addresses;
    DropCount {
        packets: count.packets,
        bytes: count.bytes,
        last: KtimeNs(count.ktime_ns),
        flow: (dst != [0; 4]).then(|| Flow {
            src: socket_addr(address(src), count.sport),
            dst: socket_addr(address(dst), count.dport),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group of UDP drops of IPv4.
    fn udp() -> record::DropGroup {
        record::DropGroup {
            location: 7,
            reason: 8,
            netns: 9,
            service: [0; 4],
            port: [0, 53],
            ethertype: [0x08, 0],
            protocol: 17,
            hook: hook::FORWARD,
            pad: [0; 2],
        }
    }

    #[test]
    fn a_service_is_told_with_its_port() {
        let vip = u32::from_ne_bytes([10, 96, 0, 10]);
        let mapped = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
        let told = group(&record::DropGroup {
            service: [0, 0, mapped, vip],
            ..udp()
        });
        assert_eq!(told.service, Some("10.96.0.10:53".parse().unwrap()));
        assert_eq!(
            (told.carried, told.hook),
            (Carried::Ip(17), Some(Hook::Forward))
        );
        assert_eq!(group(&udp()).service, None);
    }

    #[test]
    fn what_is_not_ip_is_told_by_its_ethertype() {
        let arp = record::DropGroup {
            ethertype: [0x08, 0x06],
            protocol: 255,
            ..udp()
        };
        assert_eq!(group(&arp).carried.to_string(), "arp");
        let unread = record::DropGroup {
            protocol: 255,
            ..udp()
        };
        assert_eq!(group(&unread).carried.to_string(), "ipv4");
    }
}
