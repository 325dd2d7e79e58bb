//! `Host`: what else decides a packet's way in this network namespace: devices, addresses, routes
//! and a few sysctls. Read by rtnetlink and from /proc/sys. Policy routing is not followed.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use rustc_hash::FxHashMap;

use super::{
    Error,
    netlink::{Attributes, Netlink, text_of},
};
use crate::model::prefix::contains;

// include/uapi/linux/rtnetlink.h
const RTM_GETLINK: u16 = 18;
const RTM_GETROUTE: u16 = 26;
const RTM_GETADDR: u16 = 22;
/// `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// `struct rtmsg`.
const ROUTE_HEADER: usize = 12;

/// What a route leads to (`RTN_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// A neighbour, or a gateway.
    Unicast,
    /// This host.
    Local,
    /// All hosts of a link.
    Broadcast,
    /// A group.
    Multicast,
    /// Nowhere, in silence.
    Blackhole,
    /// Nowhere, with an ICMP error.
    Unreachable,
}

impl RouteKind {
    /// Its number among `RTN_…`.
    pub fn number(self) -> u32 {
        match self {
            Self::Unicast => 1,
            Self::Local => 2,
            Self::Broadcast => 3,
            Self::Multicast => 5,
            Self::Blackhole => 6,
            Self::Unreachable => 7,
        }
    }

    /// The word for it, as `ip route` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Local => "local",
            Self::Broadcast => "broadcast",
            Self::Multicast => "multicast",
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
        }
    }

    fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Unicast,
            2 => Self::Local,
            3 | 4 => Self::Broadcast,
            5 => Self::Multicast,
            6 => Self::Blackhole,
            7 | 8 => Self::Unreachable,
            _ => return None,
        })
    }
}

/// One route.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Addresses it is for.
    pub to: (IpAddr, u8),
    /// What it leads to.
    pub kind: RouteKind,
    /// By which device; `None` when it leads nowhere.
    pub device: Option<Arc<str>>,
    /// The address that this host sends from (`src`); `None` when the device's is taken.
    pub source: Option<IpAddr>,
    /// Of the table `local`, which is looked at first.
    pub local_table: bool,
    /// Lower is taken first.
    pub metric: u32,
}

/// Devices, routes and sysctls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    /// Names of devices by index.
    pub devices: FxHashMap<u32, Arc<str>>,
    /// The best first: local table, longest prefix, lowest metric.
    pub routes: Vec<Route>,
    /// This host's own IPv6 addresses, in the order in which the kernel looks at them for a source: of what
    /// fits as well the first is taken.
    pub own6: Vec<Ipv6Addr>,
    /// Devices with `route_localnet`.
    pub route_localnet: Vec<Arc<str>>,
    /// Whether packets are forwarded, IPv4 and IPv6.
    pub forwarding: (bool, bool),
    /// Whether bridged packets pass iptables; `None` without br_netfilter.
    pub bridge_calls_iptables: Option<bool>,
}

impl Host {
    /// Reads those of the caller's network namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read() -> Result<Self, Error> {
        let mut netlink = Netlink::open(None).map_err(Error::asked("netlink socket of routing"))?;
        let mut host = Self::default();
        host.read_links(&mut netlink)
            .map_err(Error::asked("devices"))?;
        host.read_routes(&mut netlink)
            .map_err(Error::asked("routes"))?;
        host.read_addresses(&mut netlink)
            .map_err(Error::asked("addresses"))?;
        host.read_sysctls();
        Ok(host)
    }

    fn read_links(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        netlink.dump(RTM_GETLINK, &[0; LINK_HEADER], |_, body| {
            let index = body.get(4..).and_then(|at| at.first_chunk());
            // IFLA_IFNAME
            let name = body
                .get(LINK_HEADER..)
                .and_then(|all| text_of(Attributes(all).find(3)?));
            if let (Some(index), Some(name)) = (index, name) {
                self.devices.insert(u32::from_ne_bytes(*index), name.into());
            }
        })?;
        Ok(())
    }

    fn read_routes(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        let mut routes = Vec::new();
        netlink.dump(RTM_GETROUTE, &[0; ROUTE_HEADER], |_, body| {
            routes.extend(self.route(body));
        })?;
        self.routes = routes;
        self.sort();
        Ok(())
    }

    fn read_addresses(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        // AF_INET6; of each device the newest first, as in its own list.
        let mut header = [0; ADDRESS_HEADER];
        header[0] = 10;
        netlink.dump(RTM_GETADDR, &header, |_, body| {
            let all = body.get(ADDRESS_HEADER..).map(Attributes);
            // IFA_ADDRESS
            let address = all.and_then(|all| address_of(all.find(1)?));
            if let Some(IpAddr::V6(address)) = address {
                self.own6.push(address);
            }
        })?;
        Ok(())
    }

    /// Puts the routes in the order in which they are looked at.
    pub fn sort(&mut self) {
        self.routes.sort_by_key(|route| {
            let length = std::cmp::Reverse(route.to.1);
            // A link's anycast address may be a device's own, too.
            let own = route.kind == RouteKind::Local;
            (!route.local_table, length, route.metric, !own)
        });
    }

    /// `struct rtmsg` and its attributes; `None` for those of other tables than local and main.
    fn route(&self, body: &[u8]) -> Option<Route> {
        // RT_TABLE_DEFAULT, RT_TABLE_MAIN, RT_TABLE_LOCAL
        let (family, length, table) = (*body.first()?, *body.get(1)?, *body.get(4)?);
        let kind = RouteKind::of(*body.get(7)?)?;
        let all = Attributes(body.get(ROUTE_HEADER..)?);
        // Clones of routes (RTM_F_CLONED) are none.
        let flags = u32::from_ne_bytes(*body.get(8..)?.first_chunk()?);
        if !(253..=255).contains(&table) || flags & 0x200 != 0 {
            return None;
        }
        let number = |kind| all.find(kind).and_then(|value| value.first_chunk());
        let address = |kind| all.find(kind).and_then(address_of);
        let any = match family {
            2 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            10 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        // RTA_DST 1, RTA_OIF 4, RTA_PRIORITY 6, RTA_PREFSRC 7, RTA_MULTIPATH 9
        let device = number(4).map(|index| u32::from_ne_bytes(*index));
        let device = device.or_else(|| first_hop(all.find(9)?));
        Some(Route {
            to: (address(1).unwrap_or(any), length),
            kind,
            device: device.and_then(|index| self.devices.get(&index).cloned()),
            source: address(7),
            local_table: table == 255,
            metric: number(6).map_or(0, |metric| u32::from_ne_bytes(*metric)),
        })
    }

    fn read_sysctls(&mut self) {
        let on = |path: &str| {
            let text = fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?;
            text.trim().parse::<u32>().ok().map(|number| number != 0)
        };
        let holds = |path: &str| on(path).unwrap_or(false);
        self.forwarding = (holds("ipv4/ip_forward"), holds("ipv6/conf/all/forwarding"));
        self.bridge_calls_iptables = on("bridge/bridge-nf-call-iptables");
        let everywhere = holds("ipv4/conf/all/route_localnet");
        let devices = self
            .devices
            .values()
            .filter(|device| everywhere || holds(&format!("ipv4/conf/{device}/route_localnet")));
        self.route_localnet = devices.cloned().collect();
    }

    /// The route to `address`; `None` when there is none.
    pub fn route_to(&self, address: IpAddr) -> Option<&Route> {
        self.routes.iter().find(|route| contains(route.to, address))
    }

    /// What `address` is to this host.
    pub fn kind_of(&self, address: IpAddr) -> RouteKind {
        if address.is_multicast() {
            return RouteKind::Multicast;
        }
        let route = self.route_to(address);
        route.map_or(RouteKind::Unicast, |route| route.kind)
    }

    /// Whether `address` is one of this host's own.
    pub fn is_local(&self, address: IpAddr) -> bool {
        self.kind_of(address) == RouteKind::Local
    }

    /// This host's own addresses, loopback's apart.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.routes.iter().filter_map(|route| {
            let whole = route.to.1 == if route.to.0.is_ipv4() { 32 } else { 128 };
            (route.kind == RouteKind::Local && whole && !route.to.0.is_loopback())
                .then_some(route.to.0)
        })
    }

    /// The address that this host sends from to `address`; `None` when it has no route there.
    pub fn source_for(&self, address: IpAddr) -> Option<IpAddr> {
        let route = self.route_to(address)?;
        let of_device = || {
            let device = route.device.as_ref()?;
            let own = self.routes.iter().filter(|one| {
                one.kind == RouteKind::Local && one.to.0.is_ipv4() == address.is_ipv4()
            });
            let here = |one: &&Route| one.device.as_ref() == Some(device);
            match address {
                IpAddr::V4(_) => own.clone().find(here).map(|one| one.to.0),
                // Any device's will do, if it fits better.
                IpAddr::V6(address) => own
                    .filter_map(|one| match one.to {
                        (IpAddr::V6(own), 128) => {
                            let mut all = self.own6.iter();
                            let earlier = std::cmp::Reverse(all.position(|one| *one == own));
                            Some(((fit(own, address, here(&one)), earlier), own))
                        }
                        _ => None,
                    })
                    .reduce(|best, one| if one.0 > best.0 { one } else { best })
                    .map(|(_, own)| own.into()),
            }
        };
        route.source.or_else(of_device)
    }
}

/// How well an own address fits a destination: same address, scope, device, label, longest common prefix
/// (RFC 6724, section 5; `ipv6_get_saddr_eval`, net/ipv6/addrconf.c). The greater the better.
fn fit(own: Ipv6Addr, to: Ipv6Addr, here: bool) -> (bool, bool, bool, bool, u32) {
    let scope = |address: Ipv6Addr| (address.is_unicast_link_local(), address.is_loopback());
    let label = |address: Ipv6Addr| address.is_unique_local();
    let common = (own.to_bits() ^ to.to_bits()).leading_zeros();
    (
        own == to,
        scope(own) == scope(to),
        here,
        label(own) == label(to),
        common,
    )
}

/// The device of the first `struct rtnexthop`.
fn first_hop(hops: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*hops.get(4..)?.first_chunk()?))
}

pub(super) fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::V4((*bytes.first_chunk::<4>()?).into())),
        16 => Some(IpAddr::V6((*bytes.first_chunk::<16>()?).into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_its_addresses_and_no_others() {
        let prefix = ([10, 244, 0, 0].into(), 16);
        assert!(contains(prefix, [10, 244, 255, 1].into()));
        assert!(!contains(prefix, [10, 245, 0, 1].into()));
        assert!(contains(([0, 0, 0, 0].into(), 0), [192, 0, 2, 1].into()));
        assert!(!contains(prefix, Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn a_global_address_is_taken_for_what_is_not_on_the_link() {
        let route = |to: &str, length, kind, device: &str, local_table| Route {
            to: (to.parse().expect("it is an address"), length),
            kind,
            device: Some(device.into()),
            source: None,
            local_table,
            metric: 0,
        };
        let mut host = Host {
            routes: vec![
                route("::1", 128, RouteKind::Local, "lo", true),
                route("fe80::1", 128, RouteKind::Local, "pod", true),
                route("2001:db8::1", 128, RouteKind::Local, "eth0", true),
                route("fd00::1", 128, RouteKind::Local, "eth0", true),
                route("fd00:1::9", 128, RouteKind::Unicast, "pod", false),
                route("fe80::", 64, RouteKind::Unicast, "pod", false),
                route("::", 0, RouteKind::Unicast, "eth0", false),
            ],
            ..Host::default()
        };
        host.sort();
        let from = |to: &str| {
            let to = to.parse().expect("it is an address");
            host.source_for(to).map(|source| source.to_string())
        };
        assert_eq!(from("fd00:1::9").as_deref(), Some("fd00::1"));
        assert_eq!(from("2001:db8:1::9").as_deref(), Some("2001:db8::1"));
        assert_eq!(from("fe80::9").as_deref(), Some("fe80::1"));
    }

    #[test]
    fn this_machine_is_local_to_itself() {
        let host = Host::read().expect("rtnetlink answers anyone");
        assert!(host.is_local(Ipv4Addr::LOCALHOST.into()));
        assert!(host.devices.values().any(|name| &**name == "lo"));
    }
}
