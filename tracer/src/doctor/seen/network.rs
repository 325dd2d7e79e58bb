//! `Network`: links, addresses, routes, neighbours and forwarding entries of this network
//! namespace, read over rtnetlink into plain values.

use std::net::IpAddr;

use futures::{Stream, TryStreamExt as _};
use rtnetlink::{
    Handle, RouteMessageBuilder, new_connection,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressMessage},
        link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
    },
};

use crate::model::prefix::contains;

/// Table `main` (enum rt_class_t, include/uapi/linux/rtnetlink.h).
const MAIN: u32 = 254;

/// A link-layer address.
pub(in crate::doctor) type Mac = [u8; 6];

/// What this network namespace looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Devices.
    pub links: Vec<Link>,
    /// Device index, address and prefix length.
    pub addresses: Vec<(u32, IpAddr, u8)>,
    /// Routes of the table `main`.
    pub routes: Vec<Route>,
    /// Neighbours (ARP and NDP).
    pub neighbours: Vec<Neighbour>,
    /// Forwarding entries that name where a tunnel ends.
    pub forwarding: Vec<Forwarding>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// Its link-layer address; `None` when it has none of six bytes.
    pub mac: Option<Mac>,
    /// Index of the bridge it is a port of; `None` when it is none.
    pub master: Option<u32>,
    /// Packets dropped on their way out since it was made.
    pub tx_dropped: u64,
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A VXLAN tunnel.
    Vxlan {
        /// VXLAN network identifier.
        vni: u32,
        /// UDP port.
        port: u16,
        /// Index of the device below; 0 when it is bound to none.
        below: u32,
        /// The address it sends from; `None` when it is bound to none.
        local: Option<IpAddr>,
    },
    /// A bridge.
    Bridge,
    /// One end of a pair.
    Veth,
    /// IP in IP.
    Ipip,
    /// WireGuard.
    Wireguard,
    /// Any other, as the kernel calls it; empty for a physical one.
    Other(String),
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub to: IpAddr,
    /// Length of the prefix.
    pub bits: u8,
    /// The next hop; `None` when the destination is on the link.
    pub via: Option<IpAddr>,
    /// Index of the device it leaves by; `None` when it leads nowhere.
    pub device: Option<u32>,
    /// It drops what it matches.
    pub blackhole: bool,
}

/// A neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Index of the device.
    pub device: u32,
    /// Its address.
    pub ip: IpAddr,
    /// Its link-layer address; `None` when it is not known.
    pub mac: Option<Mac>,
    /// Whether nobody answered for it.
    pub failed: bool,
}

/// Where a tunnel sends what is for a link-layer address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// Index of the tunnel's device.
    pub device: u32,
    /// For whom.
    pub mac: Mac,
    /// The node it is sent to.
    pub to: IpAddr,
}

impl Network {
    /// Reads it.
    ///
    /// # Errors
    /// In words: the kernel does not answer.
    pub async fn read() -> Result<Self, String> {
        let (connection, handle, _) =
            new_connection().map_err(|error| format!("open a netlink socket: {error}"))?;
        // It ends when the last handle is dropped, and is dropped itself with this function.
        let connection = std::pin::pin!(connection);
        let read = std::pin::pin!(read(&handle));
        match futures::future::select(read, connection).await {
            futures::future::Either::Left((read, _)) => {
                read.map_err(|error| format!("ask rtnetlink: {error}"))
            }
            futures::future::Either::Right(_) => Err("rtnetlink closed the socket".to_owned()),
        }
    }

    /// The device called `name`.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The device with an index.
    pub fn by_index(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The device that has `address`.
    pub fn holder(&self, address: IpAddr) -> Option<&Link> {
        let mut addresses = self.addresses.iter();
        let (index, ..) = addresses.find(|(_, held, _)| *held == address)?;
        self.by_index(*index)
    }

    /// The route that a packet to `address` takes: the longest prefix.
    pub fn route(&self, address: IpAddr) -> Option<&Route> {
        let routes = self.routes.iter();
        routes
            .filter(|route| contains((route.to, route.bits), address))
            .max_by_key(|route| route.bits)
    }

    /// The default route of IPv4, or else of IPv6.
    pub fn default_route(&self) -> Option<&Route> {
        let mut routes: Vec<_> = self.routes.iter().filter(|route| route.bits == 0).collect();
        routes.sort_by_key(|route| route.to.is_ipv6());
        routes.first().copied()
    }
}

async fn read(handle: &Handle) -> Result<Network, rtnetlink::Error> {
    let links = collect(handle.link().get().execute(), link).await?;
    let addresses = collect(handle.address().get().execute(), address).await?;
    let v4 = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
    let v6 = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
    let mut routes = collect(handle.route().get(v4).execute(), route).await?;
    routes.extend(collect(handle.route().get(v6).execute(), route).await?);
    let neighbours = collect(handle.neighbours().get().execute(), neighbour).await?;
    let entries = handle.neighbours().get();
    let entries = entries.set_address_family(AddressFamily::Bridge);
    let entries = entries.set_flags(NeighbourFlags::Own);
    let forwarding = collect(entries.execute(), forwarding).await?;
    Ok(Network {
        links,
        addresses,
        routes,
        neighbours,
        forwarding,
    })
}

async fn collect<M, T>(
    messages: impl Stream<Item = Result<M, rtnetlink::Error>>,
    value: impl Fn(&M) -> Option<T>,
) -> Result<Vec<T>, rtnetlink::Error> {
    let messages: Vec<M> = messages.try_collect().await?;
    Ok(messages.iter().filter_map(value).collect())
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok()
}

fn link(message: &LinkMessage) -> Option<Link> {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        kind: LinkKind::Other(String::new()),
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        mac: None,
        master: None,
        tx_dropped: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = mac(bytes),
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Stats64(stats) => link.tx_dropped = stats.tx_dropped,
            LinkAttribute::LinkInfo(infos) => link.kind = kind(infos),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn kind(infos: &[LinkInfo]) -> LinkKind {
    let told = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    match told {
        Some(InfoKind::Vxlan) => vxlan(infos),
        Some(InfoKind::Bridge) => LinkKind::Bridge,
        Some(InfoKind::Veth) => LinkKind::Veth,
        Some(InfoKind::IpIp) => LinkKind::Ipip,
        Some(InfoKind::Wireguard) => LinkKind::Wireguard,
        Some(other) => LinkKind::Other(other.to_string()),
        None => LinkKind::Other(String::new()),
    }
}

fn vxlan(infos: &[LinkInfo]) -> LinkKind {
    let (mut vni, mut port, mut below, mut local) = (0, 0, 0, None);
    for info in infos {
        let LinkInfo::Data(InfoData::Vxlan(attributes)) = info else {
            continue;
        };
        for attribute in attributes {
            match attribute {
                InfoVxlan::Id(id) => vni = *id,
                InfoVxlan::Port(number) => port = *number,
                InfoVxlan::Link(index) => below = *index,
                InfoVxlan::Local(address) => local = Some(IpAddr::V4(*address)),
                InfoVxlan::Local6(address) => local = Some(IpAddr::V6(*address)),
                _ => {}
            }
        }
    }
    LinkKind::Vxlan {
        vni,
        port,
        below,
        local,
    }
}

fn address(message: &AddressMessage) -> Option<(u32, IpAddr, u8)> {
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
    let address = local.or_else(|| {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
    })?;
    Some((message.header.index, address, message.header.prefix_len))
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn route(message: &RouteMessage) -> Option<Route> {
    let v6 = message.header.address_family == AddressFamily::Inet6;
    let mut table = u32::from(message.header.table);
    let any = if v6 {
        IpAddr::from([0_u16; 8])
    } else {
        IpAddr::from([0_u8; 4])
    };
    let mut route = Route {
        to: any,
        bits: message.header.destination_prefix_length,
        via: None,
        device: None,
        blackhole: message.header.kind == RouteType::BlackHole,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => route.to = ip(address)?,
            RouteAttribute::Gateway(address) => route.via = ip(address),
            RouteAttribute::Oif(index) => route.device = Some(*index),
            _ => {}
        }
    }
    let kept = matches!(
        message.header.kind,
        RouteType::Unicast | RouteType::BlackHole
    );
    (table == MAIN && kept).then_some(route)
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let mut found = None;
    let mut mac_of = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                found = Some(IpAddr::V4(*address));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                found = Some(IpAddr::V6(*address));
            }
            // Of the family "bridge" the address stands as it is.
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                found = address_of(bytes);
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => mac_of = mac(bytes),
            _ => {}
        }
    }
    let state = &message.header.state;
    Some(Neighbour {
        device: message.header.ifindex,
        ip: found?,
        mac: mac_of,
        failed: matches!(state, NeighbourState::Failed | NeighbourState::Incomplete),
    })
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn forwarding(message: &NeighbourMessage) -> Option<Forwarding> {
    let neighbour = neighbour(message)?;
    Some(Forwarding {
        device: neighbour.device,
        mac: neighbour.mac?,
        to: neighbour.ip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machines_loopback_is_read() {
        let network = Network::read().await.unwrap();
        let lo = network.link("lo").unwrap();
        assert!(lo.mtu >= 16_384, "{lo:?}");
    }
}
