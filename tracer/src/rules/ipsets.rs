//! `Ipsets`: the sets that `-m set` looks addresses and ports up in, as the kernel holds them, and
//! whether a packet is in one. Sets of nf_tables are others.

mod read;

use std::{net::IpAddr, sync::Arc};

use rustc_hash::FxHashMap;

use super::{Family, judge::Packet};
use crate::model::prefix::masked;

/// Fields of a key at most (`IPSET_DIM_MAX`).
const FIELDS: usize = 3;

/// Lists of sets within one another; the kernel allows none.
const DEEPEST: u8 = 3;

/// All sets of a network namespace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ipsets {
    sets: Vec<IpSet>,
    by_index: FxHashMap<u16, usize>,
}

/// One set.
#[derive(Clone, Debug, PartialEq)]
pub struct IpSet {
    /// Its name.
    pub name: Arc<str>,
    /// By which rules know it.
    pub(super) index: u16,
    /// `hash:ip,port` and the like.
    pub kind: Box<str>,
    /// Packets of the other family are in none of its elements; `None` where they may be.
    pub(super) family: Option<Family>,
    pub(super) content: Content,
}

/// What is in a set.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Keys(Keys),
    /// Names of other sets.
    Lists(Vec<Arc<str>>),
    /// Of a kind that is not understood: why.
    Unread(Box<str>),
}

/// What a field of a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldKind {
    Address,
    /// With its protocol.
    Port,
    /// Whatever the protocol.
    BarePort,
}

/// A field of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Field {
    /// A prefix.
    Address(IpAddr, u8),
    /// Number of the protocol, 0 for any.
    Port(u8, u16),
}

/// A whole key; fields that the set has not are `None`.
pub(super) type Key = [Option<Field>; FIELDS];

/// Elements by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Keys {
    pub(super) fields: Vec<FieldKind>,
    /// Whether whoever is in it is taken for being out (`nomatch`).
    elements: FxHashMap<Key, bool>,
    /// Lengths of the prefixes there are, field by field, the longest first: the first that fits decides.
    lengths: Vec<[u8; FIELDS]>,
}

impl Keys {
    pub(super) fn of(fields: Vec<FieldKind>) -> Self {
        Self {
            fields,
            ..Self::default()
        }
    }

    pub(super) fn insert(&mut self, key: Key, nomatch: bool) {
        let lengths = key.map(|field| match field {
            Some(Field::Address(_, length)) => length,
            _ => 0,
        });
        if let Err(at) = self.lengths.binary_search_by(|known| lengths.cmp(known)) {
            self.lengths.insert(at, lengths);
        }
        self.elements.insert(key, nomatch);
    }

    /// How many elements there are.
    fn len(&self) -> usize {
        self.elements.len()
    }

    /// `destination` tells for each field whose it is.
    fn hold(&self, packet: &Packet, destination: &[bool]) -> bool {
        let found = self.lengths.iter().find_map(|lengths| {
            let mut key: Key = [None; FIELDS];
            for (index, kind) in self.fields.iter().enumerate() {
                let end = if destination[index] {
                    packet.destination
                } else {
                    packet.source
                };
                key[index] = Some(match kind {
                    FieldKind::Address => {
                        Field::Address(masked(end.ip(), lengths[index]), lengths[index])
                    }
                    FieldKind::Port => Field::Port(packet.protocol.number(), end.port()),
                    FieldKind::BarePort => Field::Port(0, end.port()),
                });
            }
            self.elements.get(&key)
        });
        found.is_some_and(|nomatch| !nomatch)
    }
}

impl IpSet {
    /// How many elements it has; `None` where that is not known.
    pub fn len(&self) -> Option<usize> {
        match &self.content {
            Content::Keys(keys) => Some(keys.len()),
            Content::Lists(names) => Some(names.len()),
            Content::Unread(_) => None,
        }
    }

    /// Whether it is known to have no element.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl Ipsets {
    fn of(sets: Vec<IpSet>) -> Self {
        let by_index = sets.iter().enumerate();
        let by_index = by_index.map(|(at, set)| (set.index, at)).collect();
        Self { sets, by_index }
    }

    /// The set that rules know by this number.
    pub(super) fn by_index(&self, index: u16) -> Option<&IpSet> {
        self.sets.get(*self.by_index.get(&index)?)
    }

    /// The set called `name`.
    pub fn named(&self, name: &str) -> Option<&IpSet> {
        self.sets.iter().find(|set| &*set.name == name)
    }

    /// Whether the set called `name` has a packet, where `destination` tells for each field whose it is; `None`
    /// when it is not there or not understood.
    pub fn has(&self, name: &str, packet: &Packet, destination: &[bool]) -> Option<bool> {
        self.set_holds(self.named(name)?, packet, destination, 0)
    }

    /// Why the content of the set `index` is not known; `None` when it is.
    pub(super) fn unread(&self, index: u16) -> Option<String> {
        let Some(set) = self.by_index(index) else {
            return Some("it was not read".to_owned());
        };
        match &set.content {
            Content::Keys(_) => None,
            Content::Unread(why) => Some(why.to_string()),
            Content::Lists(names) => names.iter().find_map(|name| match self.named(name) {
                Some(IpSet {
                    content: Content::Unread(why),
                    ..
                }) => Some(format!("{name}: {why}")),
                _ => None,
            }),
        }
    }

    /// Whether a packet is in the set `index`, where `destination` tells for each field whose it is; `None`
    /// when that is not known.
    pub(super) fn hold(&self, index: u16, packet: &Packet, destination: &[bool]) -> Option<bool> {
        self.set_holds(self.by_index(index)?, packet, destination, 0)
    }

    /// `ip_set_test`, net/netfilter/ipset/ip_set_core.c
    fn set_holds(
        &self,
        set: &IpSet,
        packet: &Packet,
        destination: &[bool],
        depth: u8,
    ) -> Option<bool> {
        let other = |family: Family| (family == Family::V4) != packet.destination.is_ipv4();
        if set.family.is_some_and(other) {
            return Some(false);
        }
        match &set.content {
            Content::Keys(keys) if destination.len() < keys.fields.len() => Some(false),
            Content::Keys(keys) => Some(keys.hold(packet, destination)),
            Content::Unread(_) => None,
            Content::Lists(_) if depth >= DEEPEST => None,
            Content::Lists(names) => {
                let mut all = Some(false);
                for name in names {
                    let member = self.named(name);
                    let held =
                        member.and_then(|set| self.set_holds(set, packet, destination, depth + 1));
                    match held {
                        Some(true) => return Some(true),
                        Some(false) => {}
                        None => all = None,
                    }
                }
                all
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cluster::PortProtocol;

    fn packet(source: &str, destination: &str) -> Packet {
        Packet {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: PortProtocol::Tcp,
        }
    }

    fn net(text: &str, length: u8) -> Field {
        Field::Address(text.parse().unwrap(), length)
    }

    fn set(name: &str, index: u16, content: Content) -> IpSet {
        IpSet {
            name: name.into(),
            index,
            kind: "".into(),
            family: Some(Family::V4),
            content,
        }
    }

    #[test]
    fn the_longest_prefix_decides_and_nomatch_is_out() {
        let mut keys = Keys::of(vec![FieldKind::Address]);
        keys.insert([Some(net("10.0.0.0", 8)), None, None], false);
        keys.insert([Some(net("10.1.0.0", 16)), None, None], true);
        keys.insert([Some(net("10.1.2.0", 24)), None, None], false);
        let all = Ipsets::of(vec![set("nets", 3, Content::Keys(keys))]);
        let held = |source: &str| {
            let packet = packet(&format!("{source}:1"), "192.0.2.1:80");
            all.hold(3, &packet, &[false])
        };
        assert_eq!(held("10.9.9.9"), Some(true));
        assert_eq!(held("10.1.9.9"), Some(false));
        assert_eq!(held("10.1.2.9"), Some(true));
        assert_eq!(held("11.1.2.9"), Some(false));
    }

    #[test]
    fn each_field_is_of_the_end_that_the_rule_says() {
        let mut keys = Keys::of(vec![
            FieldKind::Address,
            FieldKind::Port,
            FieldKind::Address,
        ]);
        let port = |protocol| Some(Field::Port(protocol, 8080));
        let pod = Some(net("10.244.1.1", 32));
        let other = Some(net("10.244.1.2", 32));
        keys.insert([pod, port(6), pod], false);
        keys.insert([other, port(17), other], false);
        let all = Ipsets::of(vec![set("loop", 1, Content::Keys(keys))]);
        let held = |from: &str, to: &str, ends: &[bool]| all.hold(1, &packet(from, to), ends);
        let ends = [true, true, false];
        assert_eq!(held("10.244.1.1:5", "10.244.1.1:8080", &ends), Some(true));
        assert_eq!(held("10.244.1.3:5", "10.244.1.1:8080", &ends), Some(false));
        // Of another protocol, and with too few fields.
        assert_eq!(held("10.244.1.2:5", "10.244.1.2:8080", &ends), Some(false));
        assert_eq!(
            held("10.244.1.1:5", "10.244.1.1:8080", &[true]),
            Some(false)
        );
        assert_eq!(held("[fd00::1]:5", "[fd00::1]:8080", &ends), Some(false));
    }

    #[test]
    fn a_list_holds_what_its_sets_hold_and_says_what_it_does_not_know() {
        let mut keys = Keys::of(vec![FieldKind::BarePort]);
        keys.insert([Some(Field::Port(0, 80)), None, None], false);
        let names = |all: &[&str]| Content::Lists(all.iter().map(|name| (*name).into()).collect());
        let all = Ipsets::of(vec![
            set("ports", 0, Content::Keys(keys)),
            set(
                "macs",
                1,
                Content::Unread("hash:mac is not understood".into()),
            ),
            set("both", 2, names(&["macs", "ports"])),
            set("one", 3, names(&["ports"])),
        ]);
        let held = |index, to: &str| all.hold(index, &packet("10.0.0.1:5", to), &[true]);
        assert_eq!(held(2, "10.0.0.2:80"), Some(true));
        assert_eq!(held(2, "10.0.0.2:81"), None);
        assert!(all.unread(2).is_some_and(|why| why.contains("hash:mac")));
        assert_eq!(held(3, "10.0.0.2:81"), Some(false));
        assert_eq!(held(9, "10.0.0.2:80"), None);
    }
}
