//! Reads ipsets by nfnetlink. Format: include/uapi/linux/netfilter/ipset/ip_set.h of the kernel.

use std::{io, sync::Arc};

use rustix::net::netlink::NETFILTER;

use super::{Content, Field, FieldKind, IpSet, Ipsets, Key, Keys};
use crate::rules::{
    Error, Family,
    netlink::{Attributes, Netlink, is_in_kernel, push},
};

/// `NFNL_SUBSYS_IPSET << 8` and `IPSET_CMD_LIST`.
const LIST: u16 = 6 << 8 | 7;
/// `AF_INET`, `NFNETLINK_V0` and no resource: bytes of `struct nfgenmsg`.
const GENERIC: [u8; 4] = [2, 0, 0, 0];
/// From it on sets tell their index (Linux 4.20).
const PROTOCOL: u8 = 7;

// IPSET_ATTR_…
const ATTR_PROTOCOL: u16 = 1;
const ATTR_NAME: u16 = 2;
const ATTR_TYPE: u16 = 3;
const ATTR_FAMILY: u16 = 5;
const ATTR_DATA: u16 = 7;
const ATTR_ELEMENTS: u16 = 8;
const ATTR_INDEX: u16 = 11;

// … of elements, and of the set itself.
const IP: u16 = 1;
const LENGTH: u16 = 3;
const PORT: u16 = 4;
const PORT_PROTOCOL: u16 = 7;
const FLAGS: u16 = 8;
const BITMASK: u16 = 12;
const NAME: u16 = 18;
const NETMASK: u16 = 20;
const IP2: u16 = 20;
const LENGTH2: u16 = 21;

/// `IPSET_FLAG_NOMATCH`
const NOMATCH: u32 = 1 << 2;

impl Ipsets {
    /// All of them; none where the kernel knows no sets. Loads no module.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub(in crate::rules) fn read() -> Result<Self, Error> {
        if !is_in_kernel("ip_set", " ip_set_type_register") {
            return Ok(Self::default());
        }
        let asked = Error::asked("ipsets");
        let mut netlink = Netlink::open(Some(NETFILTER)).map_err(asked)?;
        let mut body = GENERIC.to_vec();
        push(&mut body, ATTR_PROTOCOL, &[PROTOCOL]);
        let mut reading = Reading::default();
        match netlink.dump(LIST, &body, |_, body| reading.message(body)) {
            Ok(_) => Ok(Self::of(reading.sets)),
            // nfnetlink knows no such subsystem.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(Self::default()),
            Err(error) => Err(asked(error)),
        }
    }
}

/// What has been read so far.
#[derive(Default)]
struct Reading {
    sets: Vec<IpSet>,
    /// Of the last set: bits of addresses that count; `None` for all.
    netmask: Option<u8>,
}

impl Reading {
    /// A set's first message describes it; elements may take several.
    fn message(&mut self, body: &[u8]) {
        let Some(all) = body.get(GENERIC.len()..).map(Attributes) else {
            return;
        };
        if let (Some(kind), Some(name)) = (all.text(ATTR_TYPE), all.text(ATTR_NAME)) {
            self.begin(name, kind, all);
        }
        let (Some(set), Some(elements)) = (self.sets.last_mut(), all.nested(ATTR_ELEMENTS)) else {
            return;
        };
        for (_, element) in elements {
            add(&mut set.content, Attributes(element), self.netmask);
        }
    }

    fn begin(&mut self, name: &str, kind: &str, all: Attributes<'_>) {
        let own = all.nested(ATTR_DATA).unwrap_or(Attributes(&[]));
        self.netmask = own.u8(NETMASK);
        let content = match (kind, fields(kind)) {
            ("list:set", _) => Content::Lists(Vec::new()),
            (_, Some(_)) if own.find(BITMASK).is_some() => {
                Content::Unread("it counts bits of addresses by a mask".into())
            }
            (_, Some(fields)) => Content::Keys(Keys::of(fields)),
            (_, None) => Content::Unread(format!("what is in a {kind} is not known").into()),
        };
        let index = all.be16(ATTR_INDEX);
        let content = match index {
            Some(_) => content,
            None => Content::Unread("this kernel does not tell which set a rule means".into()),
        };
        self.sets.push(IpSet {
            name: name.into(),
            index: index.unwrap_or(u16::MAX),
            kind: kind.into(),
            family: match all.u8(ATTR_FAMILY) {
                // NFPROTO_IPV4, NFPROTO_IPV6
                Some(2) => Some(Family::V4),
                Some(10) => Some(Family::V6),
                _ => None,
            },
            content,
        });
    }
}

/// What the fields of a kind of set are; `None` where one of them is of no packet here.
fn fields(kind: &str) -> Option<Vec<FieldKind>> {
    let (method, fields) = kind.split_once(':')?;
    let fields = fields.split(',').map(|field| match (method, field) {
        (_, "ip" | "net") => Some(FieldKind::Address),
        ("bitmap", "port") => Some(FieldKind::BarePort),
        (_, "port") => Some(FieldKind::Port),
        _ => None,
    });
    fields.collect()
}

fn add(content: &mut Content, element: Attributes<'_>, netmask: Option<u8>) {
    match content {
        Content::Keys(keys) => {
            let flags = element.be32(FLAGS).unwrap_or(0);
            let Some(key) = key(&keys.fields, element, netmask) else {
                *content = Content::Unread("one of its elements is not understood".into());
                return;
            };
            keys.insert(key, flags & NOMATCH != 0);
        }
        Content::Lists(names) => names.extend(element.text(NAME).map(Arc::from)),
        Content::Unread(_) => {}
    }
}

fn key(fields: &[FieldKind], element: Attributes<'_>, netmask: Option<u8>) -> Option<Key> {
    let mut key = Key::default();
    let mut addresses = [(IP, LENGTH), (IP2, LENGTH2)].into_iter();
    for (place, kind) in key.iter_mut().zip(fields) {
        *place = Some(match kind {
            FieldKind::Address => {
                let (ip, length) = addresses.next()?;
                // IPSET_ATTR_IPADDR_IPV4, IPSET_ATTR_IPADDR_IPV6
                let address = element.nested(ip)?.address(1, 2)?;
                let whole = if address.is_ipv4() { 32 } else { 128 };
                let masked = netmask.filter(|_| ip == IP);
                let length = element.u8(length).or(masked).unwrap_or(whole);
                Field::Address(address, length)
            }
            FieldKind::Port | FieldKind::BarePort => {
                let port = element.be16(PORT)?;
                match kind {
                    FieldKind::Port => Field::Port(element.u8(PORT_PROTOCOL)?, port),
                    _ => Field::Port(0, port),
                }
            }
        });
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(kind: u16, parts: &[(u16, &[u8])]) -> Vec<u8> {
        let (mut inner, mut outer) = (Vec::new(), Vec::new());
        for (kind, value) in parts {
            push(&mut inner, *kind, value);
        }
        push(&mut outer, kind | 0x8000, &inner);
        outer
    }

    /// A message of a set, with what describes it, and one element.
    fn message(kind: Option<&str>, own: &[(u16, &[u8])], element: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = GENERIC.to_vec();
        push(&mut body, ATTR_PROTOCOL, &[PROTOCOL]);
        push(&mut body, ATTR_NAME, b"KUBE\0");
        if let Some(kind) = kind {
            push(&mut body, ATTR_TYPE, format!("{kind}\0").as_bytes());
            push(&mut body, ATTR_FAMILY, &[2]);
            push(&mut body, ATTR_INDEX, &7_u16.to_be_bytes());
            body.extend(nested(ATTR_DATA, own));
        }
        let element = nested(ATTR_DATA, element);
        push(&mut body, ATTR_ELEMENTS | 0x8000, &element);
        body
    }

    fn read(messages: &[Vec<u8>]) -> IpSet {
        let mut reading = Reading::default();
        for body in messages {
            reading.message(body);
        }
        reading.sets.remove(0)
    }

    /// `IPSET_ATTR_IPADDR_IPV4`
    fn ip(last: u8) -> Vec<u8> {
        let mut ip = Vec::new();
        push(&mut ip, 1, &[10, 0, 0, last]);
        ip
    }

    #[test]
    fn elements_are_read_from_all_messages_of_a_set() {
        let (first, second) = (ip(1), ip(2));
        let port = 8080_u16.to_be_bytes();
        let element = |ip| {
            [
                (IP | 0x8000, ip),
                (PORT, &port[..]),
                (PORT_PROTOCOL, &[6][..]),
            ]
        };
        let set = read(&[
            message(Some("hash:ip,port"), &[], &element(&first)),
            message(None, &[], &element(&second)),
        ]);
        let read = (set.index, set.family, set.len());
        assert_eq!(read, (7, Some(Family::V4), Some(2)));
    }

    #[test]
    fn a_set_of_a_kind_that_is_not_understood_says_so() {
        let set = read(&[message(Some("hash:net,iface"), &[], &[])]);
        assert!(matches!(set.content, Content::Unread(_)), "{set:?}");
        let set = read(&[message(Some("hash:ip"), &[(BITMASK, &[])], &[])]);
        assert!(matches!(set.content, Content::Unread(_)), "{set:?}");
        // An element that is cut.
        let set = read(&[message(Some("hash:ip,port"), &[], &[(PORT, &[0])])]);
        assert!(matches!(set.content, Content::Unread(_)), "{set:?}");
        assert_eq!(set.len(), None);
    }
}
