//! Translated UDP flows that conntrack remembers in this network namespace, asked of the kernel by netlink.
//!
//! Format: include/uapi/linux/netfilter/nfnetlink_conntrack.h of the kernel.

use std::net::SocketAddr;

use rustix::net::netlink::NETFILTER;

use super::{
    Error,
    netlink::{Attributes, Netlink, is_in_kernel},
};

/// `NFNL_SUBSYS_CTNETLINK << 8` and `IPCTNL_MSG_CT_GET`.
const GET: u16 = 0x0101;
/// `AF_UNSPEC`, `NFNETLINK_V0` and no resource: bytes of `struct nfgenmsg`.
const GENERIC: [u8; 4] = [0; 4];
/// `IPPROTO_UDP`.
const UDP: u8 = 17;
/// `IPS_SEEN_REPLY`, enum ip_conntrack_status.
const SEEN_REPLY: u32 = 2;

// enum ctattr_type, ctattr_tuple, ctattr_ip, ctattr_l4proto
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE: u16 = 2;
const PROTO_DESTINATION: u16 = 3;

/// A UDP flow to one address that goes to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Who began it.
    pub client: SocketAddr,
    /// The address asked.
    pub asked: SocketAddr,
    /// Where its packets go.
    pub backend: SocketAddr,
    /// An answer was seen.
    pub answered: bool,
}

impl Flow {
    /// All of them; none where the kernel does not tell. Loads no module.
    ///
    /// # Errors
    /// The kernel refuses to tell, for want of CAP_NET_ADMIN.
    pub fn read() -> Result<Vec<Self>, Error> {
        if !is_in_kernel("nf_conntrack_netlink", " ctnetlink_dump_table") {
            return Ok(Vec::new());
        }
        let failed = Error::asked("conntrack entries");
        let mut netlink = Netlink::open(Some(NETFILTER)).map_err(failed)?;
        let mut flows = Vec::new();
        // Entries come and go all the time: a dump that was interrupted is as good as any.
        netlink
            .dump(GET, &GENERIC, |_, body| flows.extend(translated(body)))
            .map_err(failed)?;
        Ok(flows)
    }
}

/// The flow of one entry, where it is one.
fn translated(body: &[u8]) -> Option<Flow> {
    let all = Attributes(body.get(GENERIC.len()..)?);
    let (client, asked) = tuple(all.nested(TUPLE_ORIGINAL)?)?;
    let (backend, _) = tuple(all.nested(TUPLE_REPLY)?)?;
    (asked != backend).then_some(Flow {
        client,
        asked,
        backend,
        answered: all.be32(STATUS)? & SEEN_REPLY != 0,
    })
}

/// Source and destination; `None` of another protocol than UDP.
fn tuple(tuple: Attributes<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let (ip, proto) = (tuple.nested(TUPLE_IP)?, tuple.nested(TUPLE_PROTO)?);
    if proto.find(PROTO_NUMBER)?.first() != Some(&UDP) {
        return None;
    }
    // IPv4 has the first two numbers, IPv6 the next.
    Some((
        SocketAddr::new(ip.address(1, 3)?, proto.be16(PROTO_SOURCE)?),
        SocketAddr::new(ip.address(2, 4)?, proto.be16(PROTO_DESTINATION)?),
    ))
}

#[cfg(test)]
mod tests {
    use super::{super::netlink::push, *};

    fn tuple_of(src: [u8; 4], dst: [u8; 4], ports: [u16; 2], protocol: u8) -> Vec<u8> {
        let (mut ip, mut proto, mut tuple) = (Vec::new(), Vec::new(), Vec::new());
        push(&mut ip, 1, &src);
        push(&mut ip, 2, &dst);
        push(&mut proto, PROTO_NUMBER, &[protocol]);
        push(&mut proto, PROTO_SOURCE, &ports[0].to_be_bytes());
        push(&mut proto, PROTO_DESTINATION, &ports[1].to_be_bytes());
        push(&mut tuple, TUPLE_IP | 0x8000, &ip);
        push(&mut tuple, TUPLE_PROTO | 0x8000, &proto);
        tuple
    }

    fn entry(protocol: u8, backend: [u8; 4]) -> Vec<u8> {
        let (pod, vip) = ([10, 244, 1, 7], [10, 96, 0, 10]);
        let mut body = GENERIC.to_vec();
        let original = tuple_of(pod, vip, [40_000, 53], protocol);
        let reply = tuple_of(backend, pod, [53, 40_000], protocol);
        push(&mut body, TUPLE_ORIGINAL | 0x8000, &original);
        push(&mut body, TUPLE_REPLY | 0x8000, &reply);
        push(&mut body, STATUS, &0x188_u32.to_be_bytes());
        body
    }

    #[test]
    fn an_entry_of_udp_that_is_translated_is_a_flow_and_no_other() {
        let found = translated(&entry(UDP, [10, 244, 2, 3]));
        let expected = Flow {
            client: "10.244.1.7:40000".parse().unwrap(),
            asked: "10.96.0.10:53".parse().unwrap(),
            backend: "10.244.2.3:53".parse().unwrap(),
            answered: false,
        };
        assert_eq!(found, Some(expected));
        assert_eq!(translated(&entry(6, [10, 244, 2, 3])), None);
        assert_eq!(translated(&entry(UDP, [10, 96, 0, 10])), None);
        let whole = entry(UDP, [10, 244, 2, 3]);
        for len in 0..whole.len() {
            // However it is cut, it is one or none.
            let cut = translated(&whole[..len]);
            assert!(cut.is_none() || cut == Some(expected));
        }
    }
}
