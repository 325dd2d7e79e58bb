//! iptables' matches and targets in words.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
};

use super::{
    conntrack::{conntrack_text, states_text},
    iptables::tcp_flags,
    ipvs::ipvs_text,
};
use crate::rules::{
    Match, RejectKind, TableFamily, Target,
    xt::{Masked, Nat, NatTarget, Ports, RANDOM_FULLY, RecentOp},
};

#[expect(clippy::too_many_lines, reason = "an arm for each match")]
pub(super) fn match_text(found: &Match) -> String {
    match found {
        Match::Comment(text) if text.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            format!("-m comment --comment {text}")
        }
        Match::Comment(text) => format!("-m comment --comment \"{text}\""),
        Match::Tcp {
            source,
            destination,
            flags,
            flags_negated,
            ..
        } => {
            let mut words = format!("-m tcp{}", both_ports(*source, *destination));
            if flags.0 != 0 {
                let not = if *flags_negated { "! " } else { "" };
                let (mask, set) = (tcp_flags(flags.0), tcp_flags(flags.1));
                add_to(&mut words, &format!("{not}--tcp-flags {mask} {set}"));
            }
            words
        }
        Match::Udp {
            source,
            destination,
        } => format!("-m udp{}", both_ports(*source, *destination)),
        Match::Icmp {
            name,
            kind,
            negated,
            ..
        } => {
            let flag = if *name == "icmp" {
                "icmp-type"
            } else {
                "icmpv6-type"
            };
            format!("-m {name} {}--{flag} {kind}", not(*negated))
        }
        Match::Multiport {
            side,
            ports,
            negated,
        } => {
            let flag = ["sports", "dports", "ports"][usize::from(*side).min(2)];
            let ports = ports.iter().map(|(first, last)| range(*first, *last));
            let ports: Vec<_> = ports.collect();
            format!("-m multiport {}--{flag} {}", not(*negated), ports.join(","))
        }
        Match::Random {
            probability,
            negated,
        } => {
            let probability = f64::from(*probability) / f64::from(1_u32 << 31);
            let not = not(*negated);
            format!("-m statistic --mode random {not}--probability {probability:.11}")
        }
        Match::Nth {
            every,
            packet,
            negated,
        } => {
            let (not, every) = (not(*negated), every + 1);
            format!("-m statistic --mode nth {not}--every {every} --packet {packet}")
        }
        Match::Mark {
            connection,
            mark,
            mask,
            negated,
        } => {
            let name = if *connection { "connmark" } else { "mark" };
            let mask = if *mask == u32::MAX {
                String::new()
            } else {
                format!("/{mask:#x}")
            };
            format!("-m {name} {}--mark {mark:#x}{mask}", not(*negated))
        }
        Match::Conntrack(conntrack) => conntrack_text(conntrack),
        Match::State(states) => format!("-m state --state {}", states_text(*states)),
        Match::Addrtype {
            source,
            destination,
            flags,
        } => {
            let mut words = "-m addrtype".to_owned();
            let mut side = |types: u16, flag: &str, inverted: bool| {
                if types != 0 {
                    let types = types_text(types);
                    add_to(&mut words, &format!("{}--{flag} {types}", not(inverted)));
                }
            };
            side(*source, "src-type", flags & 1 != 0);
            side(*destination, "dst-type", flags & 2 != 0);
            words
        }
        Match::Recent { .. } => recent_text(found),
        Match::Set {
            index,
            name,
            destination,
            negated,
        } => {
            let sides = destination
                .iter()
                .map(|destination| if *destination { "dst" } else { "src" });
            let sides: Vec<_> = sides.collect();
            let not = not(*negated);
            let name = match name {
                Some(name) => name.to_string(),
                None => format!("#{index}"),
            };
            format!("-m set {not}--match-set {name} {}", sides.join(","))
        }
        Match::Ipvs(wanted) => ipvs_text(wanted),
        Match::Physdev {
            input,
            output,
            flags,
            inverted,
        } => physdev_text(input, output, *flags, *inverted),
        Match::Iprange {
            source,
            destination,
            flags,
        } => {
            let mut words = "-m iprange".to_owned();
            let mut side =
                |looked: u8, inverted: u8, flag: &str, (first, last): (IpAddr, IpAddr)| {
                    if flags & looked != 0 {
                        let not = not(flags & inverted != 0);
                        add_to(&mut words, &format!("{not}--{flag} {first}-{last}"));
                    }
                };
            side(1, 1 << 4, "src-range", *source);
            side(2, 1 << 5, "dst-range", *destination);
            words
        }
        Match::Limit { average, burst } => limit_text(*average, *burst),
        Match::Nfacct(name) => format!("-m nfacct --nfacct-name {name}"),
        Match::Other { name, .. } => format!("-m {name}"),
    }
}

/// By the longest unit that tells the rate as well as the next shorter one (libxt_limit.c).
fn limit_text(average: u32, burst: u32) -> String {
    // Units of XT_LIMIT_SCALE.
    const UNITS: [(u32, &str); 4] = [
        (864_000_000, "day"),
        (36_000_000, "hour"),
        (600_000, "min"),
        (10_000, "sec"),
    ];
    let average = average.max(1);
    let tells = |unit: u32| average <= unit && unit / average >= unit % average;
    let count = UNITS.iter().take_while(|(unit, _)| tells(*unit)).count();
    let (unit, name) = UNITS[count.max(1) - 1];
    let rate = unit / average;
    match burst {
        5 => format!("-m limit --limit {rate}/{name}"),
        _ => format!("-m limit --limit {rate}/{name} --limit-burst {burst}"),
    }
}

/// Adds one more word.
pub(super) fn add_to(words: &mut String, word: &str) {
    words.push(' ');
    words.push_str(word);
}

/// Adds one more word, which may be what must not be.
pub(super) fn add_negated(words: &mut String, negated: bool, word: &str) {
    add_to(words, &format!("{}{word}", not(negated)));
}

/// An address with its mask; without it where the whole address counts.
pub(super) fn masked(Masked { address, mask }: Masked) -> String {
    let whole = match mask {
        IpAddr::V4(mask) => mask.to_bits() == u32::MAX,
        IpAddr::V6(mask) => mask.to_bits() == u128::MAX,
    };
    if whole {
        address.to_string()
    } else {
        format!("{address}/{mask}")
    }
}

fn not(negated: bool) -> &'static str {
    if negated { "! " } else { "" }
}

pub(super) fn range<T: Copy + PartialEq + Display>(first: T, last: T) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}:{last}")
    }
}

fn both_ports(source: Ports, destination: Ports) -> String {
    let side = |ports: Ports, flag: &str| {
        if ports.any() {
            return String::new();
        }
        format!(
            " {}{flag} {}",
            not(ports.negated),
            range(ports.first, ports.last)
        )
    };
    side(source, "--sport") + &side(destination, "--dport")
}

/// Bits `1 << RTN_…`.
fn types_text(types: u16) -> String {
    const NAMES: [&str; 9] = [
        "UNSPEC",
        "UNICAST",
        "LOCAL",
        "BROADCAST",
        "ANYCAST",
        "MULTICAST",
        "BLACKHOLE",
        "UNREACHABLE",
        "PROHIBIT",
    ];
    let set = (0..).zip(NAMES).filter(|(bit, _)| types >> bit & 1 == 1);
    let names: Vec<_> = set.map(|(_, name)| name).collect();
    names.join(",")
}

fn recent_text(found: &Match) -> String {
    let Match::Recent {
        op,
        name,
        seconds,
        hits,
        reap,
        destination,
        mask,
        negated,
    } = found
    else {
        return String::new();
    };
    let op = match op {
        RecentOp::Set => "--set",
        RecentOp::Check => "--rcheck",
        RecentOp::Update => "--update",
        RecentOp::Remove => "--remove",
    };
    let mut words = format!("-m recent {}{op}", not(*negated));
    if *seconds != 0 {
        add_to(&mut words, &format!("--seconds {seconds}"));
    }
    if *reap {
        words.push_str(" --reap");
    }
    if *hits != 0 {
        add_to(&mut words, &format!("--hitcount {hits}"));
    }
    let side = if *destination { "--rdest" } else { "--rsource" };
    words + &format!(" --name {name} --mask {mask} {side}")
}

fn physdev_text(input: &str, output: &str, flags: u8, inverted: u8) -> String {
    const NAMES: [&str; 5] = [
        "--physdev-in",
        "--physdev-out",
        "--physdev-is-bridged",
        "--physdev-is-in",
        "--physdev-is-out",
    ];
    let mut words = "-m physdev".to_owned();
    for (bit, name) in (0..).zip(NAMES) {
        if flags >> bit & 1 == 1 {
            add_to(
                &mut words,
                &format!("{}{name}", not(inverted >> bit & 1 == 1)),
            );
            match bit {
                0 => add_to(&mut words, input),
                1 => add_to(&mut words, output),
                _ => {}
            }
        }
    }
    words
}

pub(super) fn target_text(target: &Target, family: TableFamily) -> String {
    match target {
        Target::Mark { mark, mask } => format!("-j MARK --set-xmark {mark:#x}/{mask:#x}"),
        Target::Nat(nat) => nat_text(nat),
        Target::Reject(kind) => format!("-j REJECT --reject-with {}", reject_text(*kind, family)),
        Target::Log { prefix, .. } if prefix.is_empty() => "-j LOG".to_owned(),
        Target::Log { prefix, .. } => format!("-j LOG --log-prefix \"{prefix}\""),
        Target::Notrack => "-j CT --notrack".to_owned(),
        Target::Connmark {
            mark,
            mask,
            packet_mask,
            mode,
        } => match mode {
            0 => format!("-j CONNMARK --set-xmark {mark:#x}/{mask:#x}"),
            1 => format!("-j CONNMARK --save-mark --nfmask {packet_mask:#x} --ctmask {mask:#x}"),
            _ => format!("-j CONNMARK --restore-mark --nfmask {packet_mask:#x} --ctmask {mask:#x}"),
        },
        Target::Harmless(name) | Target::Other { name, .. } => format!("-j {name}"),
    }
}

fn nat_text(nat: &Nat) -> String {
    let mut words = format!("-j {}", nat.target.name());
    let ports = nat.ports.map(|(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    });
    let flag = match nat.target {
        NatTarget::Dnat => "--to-destination",
        NatTarget::Snat => "--to-source",
        NatTarget::Redirect | NatTarget::Masquerade => "--to-ports",
    };
    let to = match (nat.addresses, ports) {
        (Some((first, last)), Some(ports)) if first == last => match ports.parse() {
            Ok(port) => Some(SocketAddr::new(first, port).to_string()),
            Err(_) => Some(format!("{first}:{ports}")),
        },
        (Some((first, last)), None) if first == last => Some(first.to_string()),
        (Some((first, last)), ports) => {
            let ports = ports.map_or(String::new(), |ports| format!(":{ports}"));
            Some(format!("{first}-{last}{ports}"))
        }
        (None, ports) => ports,
    };
    if let Some(to) = to {
        add_to(&mut words, &format!("{flag} {to}"));
    }
    if nat.flags & RANDOM_FULLY != 0 {
        words.push_str(" --random-fully");
    }
    words
}

/// The names of `iptables` and `ip6tables` for a code.
pub(super) fn reject_text(kind: RejectKind, family: TableFamily) -> &'static str {
    match (kind, family) {
        (RejectKind::TcpReset, _) => "tcp-reset",
        (RejectKind::Icmp(code) | RejectKind::Icmpx(code), TableFamily::Ip6) => match code {
            0 => "icmp6-no-route",
            1 => "icmp6-adm-prohibited",
            3 => "icmp6-addr-unreachable",
            4 => "icmp6-port-unreachable",
            _ => "icmp6-other",
        },
        (RejectKind::Icmp(code) | RejectKind::Icmpx(code), _) => match code {
            0 => "icmp-net-unreachable",
            1 => "icmp-host-unreachable",
            2 => "icmp-proto-unreachable",
            3 => "icmp-port-unreachable",
            9 => "icmp-net-prohibited",
            10 => "icmp-host-prohibited",
            13 => "icmp-admin-prohibited",
            _ => "icmp-other",
        },
    }
}
