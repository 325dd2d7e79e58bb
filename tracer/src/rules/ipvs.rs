//! `Ipvs`: the kernel's virtual servers and the real servers behind each, read by generic netlink.
//!
//! Format: include/uapi/linux/ip_vs.h of the kernel.

use std::{
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use rustix::net::netlink::GENERIC;

use super::{
    Counter, Error, Family,
    netlink::{Attributes, Netlink, is_in_kernel, push},
};
use crate::model::cluster::PortProtocol;

// include/uapi/linux/genetlink.h: GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_…
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

// IPVS_CMD_…, and IPVS_GENL_VERSION
const GET_SERVICE: u8 = 4;
const GET_DESTINATION: u8 = 8;
const VERSION: u8 = 1;
/// `struct genlmsghdr`
const HEADER: usize = 4;

// IPVS_CMD_ATTR_…
const SERVICE: u16 = 1;
const DESTINATION: u16 = 2;

/// `IP_VS_SVC_F_PERSISTENT`
const PERSISTENT: u32 = 1;

/// What the kernel is asked for, in errors.
const WHAT: &str = "virtual servers of IPVS";

/// All virtual servers of a network namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ipvs {
    /// In the kernel's order.
    pub servers: Vec<VirtualServer>,
    /// Conntrack knows what they balance (`net.ipv4.vs.conntrack`); without it no rule can replace a
    /// client's address.
    pub conntrack: bool,
}

/// What a virtual server balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// Packets to this address; to any of its ports where the port is 0.
    Address(PortProtocol, SocketAddr),
    /// Packets with this mark.
    Mark(Family, u32),
}

/// A virtual server.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualServer {
    /// What it balances.
    pub asked: Asked,
    /// `rr` and the like.
    pub scheduler: Box<str>,
    /// `IP_VS_SVC_F_…`
    pub(super) flags: u32,
    /// How long a client stays with its real server; `None` when it does not.
    pub persistence: Option<Duration>,
    /// Clients whose addresses have so many bits in common are one client to it.
    pub alike: u8,
    /// Connections that it has dealt out so far.
    pub dealt: u64,
    /// Packets that clients sent to it.
    pub counter: Counter,
    /// In the kernel's order.
    pub real: Vec<RealServer>,
}

/// How a packet gets to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Its destination is replaced.
    Masq,
    /// It is for this host.
    Local,
    /// It goes there within another packet, unchanged.
    Tunnel,
    /// It goes there unchanged.
    Route,
}

impl Method {
    /// The word for it, as `ipvsadm` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Masq => "Masq",
            Self::Local => "Local",
            Self::Tunnel => "Tunnel",
            Self::Route => "Route",
        }
    }
}

/// A real server.
#[derive(Clone, Debug, PartialEq)]
pub struct RealServer {
    /// Port 0 leaves a packet's port as it is.
    pub at: SocketAddr,
    /// How packets get there.
    pub method: Method,
    /// It gets no new connections when it is 0.
    pub weight: u32,
    /// Connections that it has.
    pub connections: u32,
    /// As many of them are enough; 0 for any number.
    pub most: u32,
    /// Connections that it was dealt so far.
    pub dealt: u64,
    /// Packets that clients sent to it.
    pub counter: Counter,
}

impl RealServer {
    /// Whether it gets new connections.
    pub fn takes(&self) -> bool {
        self.weight > 0 && (self.most == 0 || self.connections < self.most)
    }
}

impl fmt::Display for VirtualServer {
    /// `virtual server 10.96.0.10:80/tcp`
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.asked {
            Asked::Address(protocol, at) => write!(out, "virtual server {at}/{}", protocol.name()),
            Asked::Mark(_, mark) => write!(out, "virtual server of mark {mark:#x}"),
        }
    }
}

impl VirtualServer {
    /// Its settings, in words.
    pub fn settings(&self) -> String {
        let whole = match self.asked.family() {
            Family::V4 => 32,
            Family::V6 => 128,
        };
        let persistence = match self.persistence {
            Some(time) if self.alike < whole => {
                format!(
                    ", clients of one /{} stay for {} s",
                    self.alike,
                    time.as_secs()
                )
            }
            Some(time) => format!(", clients stay for {} s", time.as_secs()),
            None => String::new(),
        };
        let count = match self.real.len() {
            0 => "no real server".to_owned(),
            1 => "1 real server".to_owned(),
            count => format!("{count} real servers"),
        };
        let so_far = so_far(self.dealt, self.counter);
        format!("scheduler {}{persistence}, {count}{so_far}", self.scheduler)
    }
}

/// What it was dealt, in words; nothing where that was nothing.
fn so_far(dealt: u64, counter: Counter) -> String {
    match dealt {
        0 => String::new(),
        _ => format!(
            " ({dealt} connections and {} packets so far)",
            counter.packets
        ),
    }
}

impl fmt::Display for RealServer {
    /// `real server 10.244.1.1:8080, Masq, weight 1`
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, method, weight) = (self.at, self.method.name(), self.weight);
        let so_far = so_far(self.dealt, self.counter);
        write!(out, "real server {at}, {method}, weight {weight}{so_far}")
    }
}

impl Ipvs {
    /// All of them; none where the kernel has no IPVS. Loads no module.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub(super) fn read() -> Result<Self, Error> {
        let asked = Error::asked(WHAT);
        let Some((mut netlink, family)) = opened()? else {
            return Ok(Self::default());
        };
        let mut servers = Vec::new();
        let all = [GET_SERVICE, VERSION, 0, 0];
        netlink
            .dump(family, &all, |_, body| servers.extend(virtual_server(body)))
            .map_err(asked)?;
        servers.retain_mut(|server| {
            let mut real = Vec::new();
            let body = of_one(server.asked);
            let read = netlink.dump(family, &body, |_, body| {
                real.extend(real_server(body, server.asked.family()));
            });
            // One that is gone meanwhile is none.
            server.real = real;
            read.is_ok()
        });
        let conntrack = fs::read_to_string("/proc/sys/net/ipv4/vs/conntrack");
        Ok(Self {
            servers,
            conntrack: conntrack.is_ok_and(|text| text.trim() != "0"),
        })
    }
}

/// A socket to IPVS, and the number by which generic netlink knows it; `None` where the kernel has none.
fn opened() -> Result<Option<(Netlink, u16)>, Error> {
    if !is_in_kernel("ip_vs", " ip_vs_conn_in_get") {
        return Ok(None);
    }
    let asked = Error::asked(WHAT);
    let mut netlink = Netlink::open(Some(GENERIC)).map_err(asked)?;
    let family = family(&mut netlink).map_err(asked)?;
    Ok(family.map(|family| (netlink, family)))
}

/// Virtual servers that are asked for one by one.
#[derive(Debug)]
pub(super) struct Servers {
    netlink: Netlink,
    family: u16,
}

impl Servers {
    /// `None` where there is no virtual server.
    pub(super) fn open() -> Result<Option<Self>, Error> {
        let Some((mut netlink, family)) = opened()? else {
            return Ok(None);
        };
        let mut any = false;
        netlink
            .dump(family, &[GET_SERVICE, VERSION, 0, 0], |_, _| any = true)
            .map_err(Error::asked(WHAT))?;
        Ok(any.then_some(Self { netlink, family }))
    }

    /// The real servers of one; none where it is not there.
    pub(super) fn real(
        &mut self,
        protocol: PortProtocol,
        at: SocketAddr,
    ) -> Result<Vec<RealServer>, Error> {
        let asked = Asked::Address(protocol, at);
        let mut real = Vec::new();
        let read = self.netlink.dump(self.family, &of_one(asked), |_, body| {
            real.extend(real_server(body, asked.family()));
        });
        match read {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::asked(WHAT)(error)),
            _ => Ok(real),
        }
    }
}

impl Asked {
    /// Of which packets.
    pub fn family(self) -> Family {
        match self {
            Self::Mark(family, _) => family,
            Self::Address(_, at) if at.is_ipv4() => Family::V4,
            Self::Address(..) => Family::V6,
        }
    }
}

/// The number by which generic netlink knows IPVS; `None` when it does not.
fn family(netlink: &mut Netlink) -> io::Result<Option<u16>> {
    let mut body = vec![GET_FAMILY, VERSION, 0, 0];
    push(&mut body, FAMILY_NAME, b"IPVS\0");
    let mut found = None;
    let asked = netlink.get(CONTROL, &body, |_, body| {
        let all = Attributes(body.get(HEADER..).unwrap_or_default());
        found = all.u16(FAMILY_ID);
    });
    match asked {
        Ok(()) => Ok(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The question for the real servers of one virtual server.
fn of_one(asked: Asked) -> Vec<u8> {
    let mut service = Vec::new();
    // AF_INET, AF_INET6
    let family: u16 = match asked.family() {
        Family::V4 => 2,
        Family::V6 => 10,
    };
    push(&mut service, 1, &family.to_ne_bytes());
    match asked {
        Asked::Mark(_, mark) => push(&mut service, 5, &mark.to_ne_bytes()),
        Asked::Address(protocol, at) => {
            let number = u16::from(protocol.number());
            push(&mut service, 2, &number.to_ne_bytes());
            let mut address = [0; 16];
            match at.ip() {
                IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
                IpAddr::V6(ip) => address = ip.octets(),
            }
            push(&mut service, 3, &address);
            push(&mut service, 4, &at.port().to_be_bytes());
        }
    }
    let mut body = vec![GET_DESTINATION, VERSION, 0, 0];
    // NLA_F_NESTED
    push(&mut body, SERVICE | 0x8000, &service);
    body
}

/// `enum ip_vs_genl_attrs`, `IPVS_SVC_ATTR_…`; `None` for another protocol's.
fn virtual_server(body: &[u8]) -> Option<VirtualServer> {
    let all = Attributes(body.get(HEADER..)?).nested(SERVICE)?;
    let family = match all.u16(1)? {
        2 => Family::V4,
        10 => Family::V6,
        _ => return None,
    };
    let asked = match all.u32(5) {
        Some(mark) => Asked::Mark(family, mark),
        None => {
            let protocol = u8::try_from(all.u16(2)?).ok()?;
            let protocol = PortProtocol::of_number(protocol)?;
            let port = all.be16(4)?;
            Asked::Address(protocol, SocketAddr::new(address(all, 3, family)?, port))
        }
    };
    // struct ip_vs_flags
    let flags = all.u32(7)?;
    let timeout = all.u32(8).unwrap_or(0);
    // A mask of IPv4's in network order, a length of IPv6's.
    let alike = match (family, all.be32(9), all.u32(9)) {
        (Family::V4, Some(mask), _) => mask.count_ones(),
        (Family::V6, _, Some(length)) => length,
        _ => u32::MAX,
    };
    let (dealt, counter) = so_far_of(all);
    Some(VirtualServer {
        asked,
        scheduler: all.text(6).unwrap_or_default().into(),
        flags,
        persistence: (flags & PERSISTENT != 0).then(|| Duration::from_secs(timeout.into())),
        alike: u8::try_from(alike).unwrap_or(u8::MAX),
        dealt,
        counter,
        real: Vec::new(),
    })
}

/// `IPVS_DEST_ATTR_…`
fn real_server(body: &[u8], family: Family) -> Option<RealServer> {
    let all = Attributes(body.get(HEADER..)?).nested(DESTINATION)?;
    // Since Linux 3.18 a tunnel may lead over the other family.
    let family = match all.u16(11) {
        Some(2) => Family::V4,
        Some(10) => Family::V6,
        _ => family,
    };
    let port = all.be16(2)?;
    let (dealt, counter) = so_far_of(all);
    Some(RealServer {
        at: SocketAddr::new(address(all, 1, family)?, port),
        // IP_VS_CONN_F_FWD_MASK
        method: match all.u32(3)? & 7 {
            0 => Method::Masq,
            1 => Method::Local,
            2 => Method::Tunnel,
            _ => Method::Route,
        },
        weight: all.u32(4)?,
        connections: all.u32(7)?.saturating_add(all.u32(8)?),
        most: all.u32(5)?,
        dealt,
        counter,
    })
}

/// `IPVS_STATS_ATTR_…`, of 64 bits since Linux 4.1.
fn so_far_of(all: Attributes<'_>) -> (u64, Counter) {
    let of = |stats: Attributes<'_>| {
        let counter = Counter {
            packets: stats.u64(2)?,
            bytes: stats.u64(4)?,
        };
        Some((stats.u64(1)?, counter))
    };
    all.nested(12).and_then(of).unwrap_or_default()
}

/// `union nf_inet_addr`
fn address(all: Attributes<'_>, kind: u16, family: Family) -> Option<IpAddr> {
    let bytes: [u8; 16] = *all.find(kind)?.first_chunk()?;
    Some(match family {
        Family::V4 => Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into(),
        Family::V6 => Ipv6Addr::from(bytes).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(parts: &[(u16, &[u8])]) -> Vec<u8> {
        let (mut inner, mut body) = (Vec::new(), vec![GET_SERVICE, VERSION, 0, 0]);
        for (kind, value) in parts {
            push(&mut inner, *kind, value);
        }
        push(&mut body, SERVICE | 0x8000, &inner);
        body
    }

    #[test]
    fn a_virtual_server_is_asked_for_as_it_was_told() {
        let mut ip = [0; 16];
        ip[..4].copy_from_slice(&[10, 96, 0, 10]);
        let flags = [3_u32.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat();
        let body = service(&[
            (1, &2_u16.to_ne_bytes()),
            (2, &6_u16.to_ne_bytes()),
            (3, &ip),
            (4, &80_u16.to_be_bytes()),
            (6, b"rr\0"),
            (7, &flags),
            (8, &10_800_u32.to_ne_bytes()),
            (9, &[255, 255, 255, 0]),
        ]);
        let server = virtual_server(&body).expect("it is whole");
        let at = "10.96.0.10:80".parse().expect("it is an address");
        assert_eq!(server.asked, Asked::Address(PortProtocol::Tcp, at));
        assert_eq!(server.persistence, Some(Duration::from_secs(10_800)));
        assert_eq!(&*server.scheduler, "rr");
        assert_eq!(
            server.settings(),
            "scheduler rr, clients of one /24 stay for 10800 s, no real server"
        );
        // What is asked with is read as the same again.
        let question = of_one(server.asked);
        let all = Attributes(&question[HEADER..]).nested(SERVICE);
        let all = all.expect("it has a service");
        assert_eq!(address(all, 3, Family::V4), Some([10, 96, 0, 10].into()));
        for length in 0..body.len() {
            // However it is cut.
            drop(virtual_server(&body[..length]));
        }
    }

    #[test]
    fn one_by_mark_has_no_address() {
        let flags = [0; 8];
        let body = service(&[
            (1, &10_u16.to_ne_bytes()),
            (5, &7_u32.to_ne_bytes()),
            (6, b"wrr\0"),
            (7, &flags),
        ]);
        let server = virtual_server(&body).expect("it is whole");
        assert_eq!(server.asked, Asked::Mark(Family::V6, 7));
        assert_eq!(server.persistence, None);
        assert_eq!(server.to_string(), "virtual server of mark 0x7");
    }

    #[test]
    fn a_real_server_without_weight_or_with_enough_connections_takes_none() {
        let mut real = RealServer {
            at: "10.244.1.1:8080".parse().expect("it is an address"),
            method: Method::Masq,
            weight: 1,
            connections: 4,
            most: 0,
            dealt: 0,
            counter: Counter::default(),
        };
        assert!(real.takes());
        real.most = 4;
        assert!(!real.takes());
        (real.most, real.weight) = (0, 0);
        assert!(!real.takes());
    }
}
