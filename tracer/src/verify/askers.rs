//! From where Services are asked: a pod of this node, the node itself, the world outside; and what
//! is to be seen of each of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::plan::family_of;
use crate::{
    model::{Snapshot, cluster::Node, prefix::contains},
    rules::{Family, Host, Origin, RouteKind},
};

/// What kind of source a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum AskerKind {
    Pod,
    Node,
    Outside,
}

/// One source of packets.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) kind: AskerKind,
    /// `None` for the node: it sends from the address that leads to its destination.
    pub(super) address: Option<IpAddr>,
    pub(super) origin: Origin,
}

impl Asker {
    /// Somebody at `address`.
    pub(super) fn at(kind: AskerKind, address: IpAddr, host: &Host) -> Self {
        Self {
            kind,
            address: Some(address),
            origin: host.origin_of(address),
        }
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        match (self.kind, self.address) {
            (AskerKind::Pod, Some(address)) => format!("a pod ({address})"),
            (AskerKind::Outside, Some(address)) => format!("outside ({address})"),
            _ => "this node".to_owned(),
        }
    }
}

/// Those who can ask in one family.
#[derive(Clone, Debug, Default)]
pub(super) struct Askers {
    /// Pods of this node, a few; one that is no endpoint of what it asks is taken.
    pub(super) pods: Vec<IpAddr>,
    /// A pod of another node; `None` when no Node tells its range.
    pub(super) far_pod: Option<IpAddr>,
    /// Someone outside; `None` when nothing leads outside.
    pub(super) outside: Option<IpAddr>,
}

/// Pods looked at, so that one is no endpoint of the Service asked.
const PODS: usize = 16;

impl Askers {
    /// Those of `family`. `node` is this node.
    pub(super) fn of(snapshot: &Snapshot, host: &Host, node: &Node, family: Family) -> Self {
        Self {
            pods: pods(snapshot, host, node, family),
            far_pod: far_pod(snapshot, host, node, family),
            outside: outside(host, node, family),
        }
    }
}

fn pods(snapshot: &Snapshot, host: &Host, node: &Node, family: Family) -> Vec<IpAddr> {
    let here = snapshot.pods.iter().filter(|pod| {
        pod.node.as_deref() == Some(&*node.name) && !pod.host_network && pod.ended.is_none()
    });
    let addresses = here.filter_map(|pod| {
        let mut ips = pod.ips.iter().copied();
        let ip = ips.find(|ip| family_of(*ip) == family)?;
        (!host.is_local(ip)).then_some((pod.pod.to_string(), ip))
    });
    let mut named: Vec<_> = addresses.collect();
    named.sort();
    let mut pods: Vec<_> = named.into_iter().map(|(_, ip)| ip).collect();
    pods.truncate(PODS);
    // The last address but one of the node's range is as good where no pod is known.
    let ranges = node.pod_cidrs.iter();
    let ranges = ranges.filter(|(address, _)| family_of(*address) == family);
    pods.extend(ranges.filter_map(|range| last_but_one(*range)));
    pods.retain(|pod| host.route_to(*pod).is_some());
    pods
}

/// The last address but one of another node's range.
fn far_pod(snapshot: &Snapshot, host: &Host, node: &Node, family: Family) -> Option<IpAddr> {
    let others = snapshot
        .nodes
        .iter()
        .filter(|other| other.name != node.name);
    let ranges = others.flat_map(|other| other.pod_cidrs.iter());
    let ranges = ranges.filter(|(address, _)| family_of(*address) == family);
    let mut pods = ranges.filter_map(|range| last_but_one(*range));
    pods.find(|pod| host.route_to(*pod).is_some() && !host.is_local(*pod))
}

fn last_but_one((address, length): (IpAddr, u8)) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            let host = u32::MAX.checked_shr(u32::from(length))?;
            let last = address.to_bits() | host.checked_sub(1)?;
            Some(Ipv4Addr::from_bits(last).into())
        }
        IpAddr::V6(address) => {
            let host = u128::MAX.checked_shr(u32::from(length))?;
            let last = address.to_bits() | host.checked_sub(1)?;
            Some(Ipv6Addr::from_bits(last).into())
        }
    }
}

/// By the default route; where there is none, a neighbour of the node's own address.
fn outside(host: &Host, node: &Node, family: Family) -> Option<IpAddr> {
    // Of the addresses for documentation, RFC 5737 and RFC 3849.
    let far: IpAddr = match family {
        Family::V4 => [203, 0, 113, 250].into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfa).into(),
    };
    let leads = |address: IpAddr| {
        let route = host.route_to(address);
        route.is_some_and(|route| route.kind == RouteKind::Unicast && route.device.is_some())
    };
    if leads(far) {
        return Some(far);
    }
    let own = node.addresses.iter().copied();
    let neighbours = own
        .filter(|address| family_of(*address) == family)
        .flat_map(|address| [1_u8, 2, 3].map(|bit| flipped(address, bit)));
    let mut neighbours = neighbours.filter(|address| leads(*address) && !host.is_local(*address));
    neighbours.next()
}

fn flipped(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() ^ u32::from(bits)).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() ^ u128::from(bits)).into(),
    }
}

/// An address within `range` that is neither this host's nor a pod's; `None` when none is tried.
pub(super) fn within(range: (IpAddr, u8), host: &Host, pods: &[(IpAddr, u8)]) -> Option<IpAddr> {
    let tried = [1_u8, 2, 3, 0].map(|bits| flipped(range.0, bits));
    tried.into_iter().find(|address| {
        contains(range, *address)
            && !host.is_local(*address)
            && host.route_to(*address).is_some()
            && !pods.iter().any(|range| contains(*range, *address))
    })
}
