//! nft's names of what can be loaded, with the kind and the length of the value.

use super::sets::Kind;
use crate::rules::{Base, TableFamily};

/// Names of what a payload's place holds, and its kind.
pub(super) fn payload(
    family: TableFamily,
    base: Base,
    offset: u32,
    length: u32,
) -> (String, Kind, usize) {
    let size = length as usize;
    let prefix = Kind::Prefix(length * 8);
    let (name, kind) = match (base, family, offset, length) {
        (Base::Network, TableFamily::Ip6, 8, 16) => ("ip6 saddr", Kind::Address),
        (Base::Network, TableFamily::Ip6, 24, 16) => ("ip6 daddr", Kind::Address),
        (Base::Network, TableFamily::Ip6, 8, _) => ("ip6 saddr", prefix),
        (Base::Network, TableFamily::Ip6, 24, _) => ("ip6 daddr", prefix),
        (Base::Network, TableFamily::Ip6, 6, 1) => ("ip6 nexthdr", Kind::Protocol),
        (Base::Network, _, 8, 16) => ("ip6 saddr", Kind::Address),
        (Base::Network, _, 24, 16) => ("ip6 daddr", Kind::Address),
        (Base::Network, _, 12, 4) => ("ip saddr", Kind::Address),
        (Base::Network, _, 16, 4) => ("ip daddr", Kind::Address),
        (Base::Network, _, 12, _) => ("ip saddr", prefix),
        (Base::Network, _, 16, _) => ("ip daddr", prefix),
        (Base::Network, _, 9, 1) => ("ip protocol", Kind::Protocol),
        (Base::Transport, _, 0, 2) => ("th sport", Kind::Port),
        (Base::Transport, _, 2, 2) => ("th dport", Kind::Port),
        (Base::Transport, _, 13, 1) => ("tcp flags", Kind::Hex),
        _ => {
            let base = match base {
                Base::Link => "ll",
                Base::Network => "nh",
                Base::Transport => "th",
                Base::Inner => "ih",
            };
            let name = format!("@{base},{},{}", offset * 8, length * 8);
            return (name, Kind::Hex, size);
        }
    };
    (name.to_owned(), kind, size)
}

/// Names of what is known about a packet (`enum nft_meta_keys`).
pub(super) fn meta(key: u32) -> (String, Kind, usize) {
    let (name, kind, length) = match key {
        3 => ("meta mark", Kind::Mark, 4),
        4 => ("iif", Kind::Host, 4),
        5 => ("oif", Kind::Host, 4),
        6 => ("iifname", Kind::Name, 16),
        7 => ("oifname", Kind::Name, 16),
        10 => ("meta skuid", Kind::Host, 4),
        15 => ("meta nfproto", Kind::NfProto, 1),
        16 => ("meta l4proto", Kind::Protocol, 1),
        24 => ("meta random", Kind::Host, 4),
        _ => return (format!("meta #{key}"), Kind::Hex, 4),
    };
    (name.to_owned(), kind, length)
}

/// Names of what is known about a connection (`enum nft_ct_keys`).
pub(super) fn connection(key: u32, reply: Option<bool>) -> (String, Kind, usize) {
    let side = match reply {
        Some(true) => "reply ",
        Some(false) => "original ",
        None => "",
    };
    let (name, kind, length) = match key {
        0 => ("state", Kind::CtState, 4),
        2 => ("status", Kind::CtStatus, 4),
        3 => ("mark", Kind::Mark, 4),
        8 => ("saddr", Kind::Address, 4),
        9 => ("daddr", Kind::Address, 4),
        10 => ("protocol", Kind::Protocol, 1),
        11 => ("proto-src", Kind::Port, 2),
        12 => ("proto-dst", Kind::Port, 2),
        19 => ("ip saddr", Kind::Address, 4),
        20 => ("ip daddr", Kind::Address, 4),
        21 => ("ip6 saddr", Kind::Address, 16),
        22 => ("ip6 daddr", Kind::Address, 16),
        _ => return (format!("ct #{key}"), Kind::Hex, 4),
    };
    (format!("ct {side}{name}"), kind, length)
}

/// `enum nft_fib_result`, `enum nft_fib_flags`
pub(super) fn fib(result: u32, flags: u32) -> (String, Kind, usize) {
    const FLAGS: [&str; 5] = ["saddr", "daddr", "mark", "iif", "oif"];
    let set = (0..).zip(FLAGS).filter(|(bit, _)| flags >> bit & 1 == 1);
    let set: Vec<_> = set.map(|(_, name)| name).collect();
    let (result, kind) = match result {
        1 => ("oif", Kind::Host),
        2 => ("oifname", Kind::Name),
        _ => ("type", Kind::FibType),
    };
    (format!("fib {} {result}", set.join(" . ")), kind, 4)
}
