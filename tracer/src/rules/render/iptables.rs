//! `iptables-save`'s words: addresses, devices and protocol first, then matches in their order,
//! then the target.

use std::{fmt::Write as _, net::IpAddr};

use super::matches::{match_text, target_text};
use crate::rules::{
    Base, Chain, CompareOp, Expression, Match, Register, Rule, Table, TableFamily, Verdict,
};

/// What a register holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Source,
    Destination,
    Input,
    Output,
    Protocol,
    SourcePort,
    DestinationPort,
    TcpFlags,
    Mark,
    Other,
}

/// A rule's text so far.
#[derive(Default)]
struct Text {
    /// `-s`, `-d`, `-i`, `-o`, `-p`, in that order.
    head: [Option<String>; 5],
    protocol: Option<&'static str>,
    matches: Vec<String>,
    target: String,
    /// `--sport` and its like, to which more may be added.
    open: bool,
}

/// The whole line, `-A CHAIN …`.
pub(super) fn text(table: &Table, chain: &Chain, rule: &Rule) -> String {
    let mut text = Text::default();
    let mut loaded: Option<(Field, Register)> = None;
    let mut mask: Option<&[u8]> = None;
    for expression in &rule.expressions {
        match expression {
            Expression::Payload {
                base, offset, to, ..
            } => {
                loaded = Some((field(table.family, *base, *offset), *to));
                mask = None;
            }
            Expression::Meta { key, to } => {
                let field = match key {
                    3 => Field::Mark,
                    6 => Field::Input,
                    7 => Field::Output,
                    16 => Field::Protocol,
                    _ => Field::Other,
                };
                loaded = Some((field, *to));
                mask = None;
            }
            Expression::Bitwise { mask: bits, .. } => mask = Some(bits),
            Expression::Compare { op, with, .. } => {
                let field = loaded.map_or(Field::Other, |(field, _)| field);
                text.compare(field, *op, with, mask);
            }
            Expression::Range {
                negated, low, high, ..
            } => {
                let field = loaded.map_or(Field::Other, |(field, _)| field);
                text.range(field, *negated, low, high);
            }
            other => text.add(table, other),
        }
    }
    let mut line = format!("-A {}", chain.name);
    let head = text.head.into_iter().flatten();
    for part in head.chain(text.matches).chain(Some(text.target)) {
        if !part.is_empty() {
            let written = write!(line, " {part}");
            debug_assert!(written.is_ok(), "a String takes every word");
        }
    }
    line
}

fn field(family: TableFamily, base: Base, offset: u32) -> Field {
    let v4 = family == TableFamily::Ip;
    match (base, offset) {
        (Base::Network, 12) if v4 => Field::Source,
        (Base::Network, 16) if v4 => Field::Destination,
        (Base::Network, 8) if !v4 => Field::Source,
        (Base::Network, 24) if !v4 => Field::Destination,
        (Base::Network, 9) if v4 => Field::Protocol,
        (Base::Transport, 0) => Field::SourcePort,
        (Base::Transport, 2) => Field::DestinationPort,
        (Base::Transport, 13) => Field::TcpFlags,
        _ => Field::Other,
    }
}

impl Text {
    fn compare(&mut self, field: Field, op: CompareOp, with: &[u8], mask: Option<&[u8]>) {
        let not = if op == CompareOp::NotEqual { "! " } else { "" };
        match field {
            Field::Source | Field::Destination => {
                let (slot, flag) = if field == Field::Source {
                    (0, "-s")
                } else {
                    (1, "-d")
                };
                self.head[slot] = Some(format!("{not}{flag} {}", prefix(with, mask)));
            }
            Field::Input | Field::Output => {
                let (slot, flag) = if field == Field::Input {
                    (2, "-i")
                } else {
                    (3, "-o")
                };
                self.head[slot] = Some(format!("{not}{flag} {}", device(with)));
            }
            Field::Protocol => {
                let name = protocol(with.first().copied().unwrap_or(0));
                self.protocol = (op == CompareOp::Equal).then_some(name);
                self.head[4] = Some(format!("{not}-p {name}"));
            }
            Field::SourcePort | Field::DestinationPort => {
                let port = number16(with);
                let range = match op {
                    CompareOp::AtLeast => format!("{port}:65535"),
                    CompareOp::AtMost => format!(":{port}"),
                    _ => port.to_string(),
                };
                self.port(field, not, &range);
            }
            Field::TcpFlags => {
                let mask = mask.and_then(|mask| mask.first()).copied().unwrap_or(255);
                let flags = with.first().copied().unwrap_or(0);
                let words = format!(
                    "-m tcp {not}--tcp-flags {} {}",
                    tcp_flags(mask),
                    tcp_flags(flags)
                );
                self.matches.push(words);
            }
            Field::Mark => {
                let (mark, mask) = (number32(with), mask.map(number32));
                let mask = mask.map_or(String::new(), |mask| format!("/{mask:#x}"));
                self.matches
                    .push(format!("-m mark {not}--mark {mark:#x}{mask}"));
            }
            Field::Other => self.matches.push("[unsupported revision]".to_owned()),
        }
        self.open = matches!(field, Field::SourcePort | Field::DestinationPort);
    }

    fn range(&mut self, field: Field, negated: bool, low: &[u8], high: &[u8]) {
        let not = if negated { "! " } else { "" };
        match field {
            Field::SourcePort | Field::DestinationPort => {
                let range = format!("{}:{}", number16(low), number16(high));
                self.port(field, not, &range);
                self.open = true;
            }
            _ => self.matches.push("[unsupported revision]".to_owned()),
        }
    }

    fn port(&mut self, field: Field, not: &str, range: &str) {
        let flag = if field == Field::SourcePort {
            "--sport"
        } else {
            "--dport"
        };
        let words = format!("{not}{flag} {range}");
        match self.matches.last_mut() {
            Some(last) if self.open => {
                last.push(' ');
                last.push_str(&words);
            }
            _ => {
                let protocol = self.protocol.unwrap_or("tcp");
                self.matches.push(format!("-m {protocol} {words}"));
            }
        }
    }

    fn add(&mut self, table: &Table, expression: &Expression) {
        match expression {
            Expression::Match(found) => {
                // The protocol's own match, which says nothing when it is empty.
                if let Match::Tcp { .. } | Match::Udp { .. } = &**found {
                    self.open = true;
                } else {
                    self.open = false;
                }
                self.matches.push(match_text(found));
            }
            Expression::Target(target) => self.target = target_text(target, table.family),
            Expression::Verdict(verdict) => {
                self.target = match verdict {
                    Verdict::Accept => "-j ACCEPT".to_owned(),
                    Verdict::Drop => "-j DROP".to_owned(),
                    Verdict::Return => "-j RETURN".to_owned(),
                    Verdict::Queue => "-j NFQUEUE".to_owned(),
                    Verdict::Jump(chain) => format!("-j {}", table.chain_name(*chain)),
                    Verdict::Goto(chain) => format!("-g {}", table.chain_name(*chain)),
                    Verdict::Continue | Verdict::Break => String::new(),
                };
            }
            Expression::Limit {
                rate, unit, burst, ..
            } => {
                let unit = match unit {
                    1 => "sec",
                    60 => "min",
                    3600 => "hour",
                    _ => "day",
                };
                let burst = if *burst == 5 {
                    String::new()
                } else {
                    format!(" --limit-burst {burst}")
                };
                self.matches
                    .push(format!("-m limit --limit {rate}/{unit}{burst}"));
            }
            Expression::Log {
                group: Some(group), ..
            } => self.target = format!("-j NFLOG --nflog-group {group}"),
            Expression::Log { prefix, .. } => {
                self.target = format!("-j LOG --log-prefix \"{prefix}\"");
            }
            Expression::Counter(_) => {}
            Expression::Unknown(name) => self.matches.push(format!("-m {name}")),
            _ => self.matches.push("[unsupported revision]".to_owned()),
        }
    }
}

/// `10.244.0.0/16`: only the bytes of the prefix are compared, or a mask is laid on.
fn prefix(with: &[u8], mask: Option<&[u8]>) -> String {
    let whole = if with.len() <= 4 { 4 } else { 16 };
    // A prefix of IPv6 of up to four bytes cannot be told from IPv4's by its length.
    let mut bytes = with.to_vec();
    let length = match mask {
        Some(mask) => mask.iter().map(|byte| byte.leading_ones()).sum::<u32>(),
        None => u32::try_from(with.len() * 8).unwrap_or(0),
    };
    bytes.resize(whole, 0);
    let address = match (bytes.first_chunk::<16>(), bytes.first_chunk::<4>()) {
        (Some(octets), _) => IpAddr::from(*octets),
        (None, Some(octets)) => IpAddr::from(*octets),
        _ => return String::new(),
    };
    format!("{address}/{length}")
}

/// Names that are compared in part end with `+`.
fn device(with: &[u8]) -> String {
    let name = String::from_utf8_lossy(with);
    let end = name.find('\0');
    match end {
        Some(end) => name[..end].to_owned(),
        None => format!("{name}+"),
    }
}

/// Names of protocols as /etc/protocols has them.
pub(super) fn protocol(number: u8) -> &'static str {
    match number {
        1 => "icmp",
        6 => "tcp",
        17 => "udp",
        58 => "ipv6-icmp",
        132 => "sctp",
        4 => "ipencap",
        47 => "gre",
        50 => "esp",
        _ => "other",
    }
}

pub(super) fn tcp_flags(bits: u8) -> String {
    const NAMES: [&str; 6] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"];
    let set = (0..).zip(NAMES).filter(|(bit, _)| bits >> bit & 1 == 1);
    let names: Vec<_> = set.map(|(_, name)| name).collect();
    if names.is_empty() {
        "NONE".to_owned()
    } else {
        names.join(",")
    }
}

fn number16(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |b| u16::from_be_bytes(*b))
}

fn number32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b))
}
