//! `nft list`'s words. Registers are followed as text: what was loaded is said where it is
//! compared or looked up.

use super::{
    names::{connection, fib, meta, payload},
    sets::{Bits, Kind, elements, value},
};
use crate::rules::{
    CompareOp, Expression, NatKind, Register, RejectKind, Rule, SetId, SetOp, Table, TableFamily,
    Value, Verdict, xt::RANDOM_FULLY,
};

/// What a register holds, in words, and of which kind.
#[derive(Clone)]
struct Loaded {
    words: String,
    kind: Kind,
    length: usize,
}

struct Writer<'a> {
    table: &'a Table,
    registers: [Option<Loaded>; Register::WORDS],
    parts: Vec<String>,
}

/// The rule in one line, counters left out.
pub(super) fn text(table: &Table, rule: &Rule) -> String {
    let mut writer = Writer {
        table,
        registers: [const { None }; Register::WORDS],
        parts: Vec::new(),
    };
    for expression in &rule.expressions {
        writer.add(expression);
    }
    if let Some(comment) = &rule.comment {
        writer.parts.push(format!("comment \"{comment}\""));
    }
    writer.parts.join(" ")
}

impl Writer<'_> {
    fn add(&mut self, expression: &Expression) {
        match expression {
            Expression::Payload {
                base,
                offset,
                length,
                to,
            } => self.load(*to, payload(self.table.family, *base, *offset, *length)),
            Expression::Meta { key, to } => self.load(*to, meta(*key)),
            Expression::Ct { key, reply, to } => self.load(*to, connection(*key, *reply)),
            Expression::Fib { result, flags, to } => self.load(*to, fib(*result, *flags)),
            Expression::Numgen {
                to,
                modulus,
                offset,
                random,
            } => {
                let how = if *random { "random" } else { "inc" };
                let words = format!("numgen {how} mod {modulus}{}", plus(*offset));
                self.load(*to, (words, Kind::Host, 4));
            }
            Expression::Hash {
                to,
                modulus,
                offset,
            } => {
                let words = format!("jhash mod {modulus}{}", plus(*offset));
                self.load(*to, (words, Kind::Host, 4));
            }
            Expression::Immediate { to, value: bytes } => {
                let kind = match bytes.len() {
                    2 => Kind::Port,
                    4 if self.table.family == TableFamily::Ip6 => Kind::Host,
                    4 | 16 => Kind::Address,
                    _ => Kind::Host,
                };
                let words = value(kind, bytes);
                self.load(*to, (words, kind, bytes.len()));
            }
            Expression::Bitwise {
                from,
                to,
                mask,
                xor,
            } => self.bitwise(*from, *to, mask, xor),
            Expression::Byteorder { from, to, .. } => {
                let loaded = self.registers[usize::from(from.0)].clone();
                self.registers[usize::from(to.0)] = loaded;
            }
            Expression::Compare { op, from, with } => {
                let (left, kind) = self.of(*from);
                let right = match (kind, *op) {
                    // One of these bits: nft says it as equality.
                    (Kind::Masked { of, bits }, CompareOp::NotEqual) => {
                        value(of.kind(), &bits.to_ne_bytes())
                    }
                    (Kind::Masked { of, bits }, op) => {
                        let bits = value(of.kind(), &bits.to_ne_bytes());
                        format!("& {bits} {}{}", compare(op), value(of.kind(), with))
                    }
                    (kind, op) => format!("{}{}", compare(op), value(kind, with)),
                };
                self.parts.push(format!("{left} {right}"));
            }
            Expression::Range {
                negated,
                from,
                low,
                high,
            } => {
                let (left, kind) = self.of(*from);
                let not = if *negated { "!= " } else { "" };
                let (low, high) = (value(kind, low), value(kind, high));
                self.parts.push(format!("{left} {not}{low}-{high}"));
            }
            Expression::Lookup {
                set,
                key,
                to,
                negated,
            } => self.lookup(*set, *key, *to, *negated),
            other => self.act(other),
        }
    }

    /// What ends a rule, or changes something.
    fn act(&mut self, expression: &Expression) {
        let words = match expression {
            Expression::Verdict(verdict) => verdict_text(self.table, *verdict),
            Expression::SetMeta { key, from } => {
                let (name, _, _) = meta(*key);
                format!("{name} set {}", self.of(*from).0)
            }
            Expression::SetCt { key, from } => {
                let (name, _, _) = connection(*key, None);
                format!("{name} set {}", self.of(*from).0)
            }
            Expression::Nat {
                kind,
                address,
                port,
                flags,
                ..
            } => self.nat(*kind, *address, *port, *flags),
            Expression::Masquerade { flags } => format!("masquerade{}", nat_flags(*flags)),
            Expression::Redirect { port, .. } => match port {
                Some(port) => format!("redirect to :{}", self.of(*port).0),
                None => "redirect".to_owned(),
            },
            Expression::Reject(kind) => reject(*kind, self.table.family),
            Expression::Limit {
                rate,
                unit,
                bytes,
                negated,
                ..
            } => {
                let unit = match unit {
                    1 => "second",
                    60 => "minute",
                    3600 => "hour",
                    _ => "day",
                };
                let over = if *negated { "over " } else { "" };
                let what = if *bytes { " bytes" } else { "" };
                format!("limit rate {over}{rate}{what}/{unit}")
            }
            Expression::Log { prefix, .. } if prefix.is_empty() => "log".to_owned(),
            Expression::Log { prefix, .. } => format!("log prefix \"{prefix}\""),
            Expression::Notrack => "notrack".to_owned(),
            Expression::Dynset { set, op, key, .. } => {
                let op = match op {
                    SetOp::Add => "add",
                    SetOp::Update => "update",
                    SetOp::Delete => "delete",
                };
                format!("{op} @{} {{ {} }}", self.set_name(*set), self.of(*key).0)
            }
            Expression::Object { kind, name } => {
                let kind = match kind {
                    1 => "counter",
                    2 => "quota",
                    4 => "limit",
                    _ => "object",
                };
                format!("{kind} name \"{name}\"")
            }
            Expression::Unknown(name) => format!("({name}, which is not understood)"),
            Expression::Match(_) | Expression::Target(_) => "(an iptables extension)".to_owned(),
            _ => return,
        };
        self.parts.push(words);
    }

    fn load(&mut self, to: Register, (words, kind, length): (String, Kind, usize)) {
        if let Some(place) = self.registers.get_mut(usize::from(to.0)) {
            *place = Some(Loaded {
                words,
                kind,
                length,
            });
        }
    }

    fn of(&self, register: Register) -> (String, Kind) {
        let loaded = self.registers.get(usize::from(register.0));
        match loaded.and_then(Option::as_ref) {
            Some(loaded) => (loaded.words.clone(), loaded.kind),
            None => ("?".to_owned(), Kind::Hex),
        }
    }

    fn bitwise(&mut self, from: Register, to: Register, mask: &[u8], xor: &[u8]) {
        let (words, kind) = self.of(from);
        let (mask_is, xor_is) = (value(kind, mask), value(kind, xor));
        let plain = |bytes: &[u8], all: u8| bytes.iter().all(|byte| *byte == all);
        let or = mask.iter().zip(xor).all(|(mask, xor)| mask ^ xor == 0xff);
        let of = match kind {
            Kind::CtState => Some(Bits::CtState),
            Kind::CtStatus => Some(Bits::CtStatus),
            _ => None,
        };
        if let (Some(of), Some(bits)) = (of, mask.first_chunk()) {
            let bits = u32::from_ne_bytes(*bits);
            self.load(to, (words, Kind::Masked { of, bits }, mask.len()));
            return;
        }
        let words = match (plain(mask, 0xff), plain(xor, 0), kind) {
            // A prefix's length.
            (_, true, Kind::Address) => {
                let length: u32 = mask.iter().map(|byte| byte.leading_ones()).sum();
                self.load(to, (words, Kind::Prefix(length), mask.len()));
                return;
            }
            (true, _, _) => format!("{words} ^ {xor_is}"),
            (_, true, _) => format!("{words} & {mask_is}"),
            _ if or => format!("{words} | {xor_is}"),
            _ => format!("{words} & {mask_is} ^ {xor_is}"),
        };
        self.load(to, (words, kind, mask.len()));
    }

    /// The words of a key: what lies in the registers from `key` on.
    fn key(&self, key: Register, length: usize) -> (String, Vec<Kind>) {
        let (mut words, mut kinds) = (Vec::new(), Vec::new());
        let mut at = usize::from(key.0);
        let end = at + length.div_ceil(4);
        while at < end {
            let Some(Some(loaded)) = self.registers.get(at) else {
                words.push("?".to_owned());
                break;
            };
            words.push(loaded.words.clone());
            kinds.push(loaded.kind);
            at += loaded.length.div_ceil(4).max(1);
        }
        (words.join(" . "), kinds)
    }

    fn set_name(&self, id: SetId) -> &str {
        let set = self.table.sets.get(id.0 as usize);
        set.map_or("(missing)", |set| &set.name)
    }

    fn lookup(&mut self, id: SetId, key: Register, to: Option<Register>, negated: bool) {
        let Some(set) = self.table.sets.get(id.0 as usize) else {
            self.parts.push("@(missing)".to_owned());
            return;
        };
        let (key, kinds) = self.key(key, set.key_length());
        let there = if set.anonymous {
            elements(self.table, set, &kinds)
        } else {
            format!("@{}", set.name)
        };
        let verdicts = matches!(
            set.elements.first().map(|one| &one.value),
            Some(Value::Verdict(_))
        );
        let not = if negated { "!= " } else { "" };
        match to {
            Some(to) => {
                let words = format!("{key} map {there}");
                let kind = Kind::Host;
                self.load(to, (words, kind, 16));
            }
            None if set.map || verdicts => self.parts.push(format!("{key} vmap {there}")),
            None => self.parts.push(format!("{key} {not}{there}")),
        }
    }

    fn nat(
        &self,
        kind: NatKind,
        address: Option<Register>,
        port: Option<Register>,
        flags: u32,
    ) -> String {
        let verb = match kind {
            NatKind::Source => "snat",
            NatKind::Destination => "dnat",
        };
        let family = match self.table.family {
            TableFamily::Ip6 => "ip6",
            _ => "ip",
        };
        let flags = nat_flags(flags);
        let loaded = |register: Register| self.registers[usize::from(register.0)].as_ref();
        let from_map = address
            .and_then(loaded)
            .filter(|one| one.words.contains(" map "));
        if let Some(map) = from_map {
            let how = if port.is_some() { " addr . port" } else { "" };
            return format!("{verb} {family}{how} to {}{flags}", map.words);
        }
        let address = address.map(|register| self.of(register).0);
        let port = port.map(|register| self.of(register).0);
        let to = match (address, port) {
            (Some(address), Some(port)) if address.contains(':') => format!("[{address}]:{port}"),
            (Some(address), Some(port)) => format!("{address}:{port}"),
            (Some(address), None) => address,
            (None, Some(port)) => format!(":{port}"),
            (None, None) => String::new(),
        };
        format!("{verb} to {to}{flags}")
    }
}

fn plus(offset: u32) -> String {
    if offset == 0 {
        String::new()
    } else {
        format!(" offset {offset}")
    }
}

fn compare(op: CompareOp) -> &'static str {
    match op {
        CompareOp::Equal => "",
        CompareOp::NotEqual => "!= ",
        CompareOp::Less => "< ",
        CompareOp::AtMost => "<= ",
        CompareOp::Greater => "> ",
        CompareOp::AtLeast => ">= ",
    }
}

fn nat_flags(flags: u32) -> &'static str {
    match flags & (RANDOM_FULLY | 1 << 2) {
        0 => "",
        flags if flags & RANDOM_FULLY != 0 => " fully-random",
        _ => " random",
    }
}

fn reject(kind: RejectKind, family: TableFamily) -> String {
    match kind {
        RejectKind::TcpReset => "reject with tcp reset".to_owned(),
        // The code that nft takes when it is told none.
        RejectKind::Icmp(3) if family == TableFamily::Ip => "reject".to_owned(),
        RejectKind::Icmp(4) if family == TableFamily::Ip6 => "reject".to_owned(),
        RejectKind::Icmpx(1) => "reject".to_owned(),
        RejectKind::Icmp(code) if family == TableFamily::Ip6 => {
            format!("reject with icmpv6 type {code}")
        }
        RejectKind::Icmp(code) => format!("reject with icmp type {code}"),
        RejectKind::Icmpx(code) => format!("reject with icmpx type {code}"),
    }
}

/// A verdict's words.
pub(super) fn verdict_text(table: &Table, verdict: Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Break => "break".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Queue => "queue".to_owned(),
        Verdict::Jump(chain) => format!("jump {}", table.chain_name(chain)),
        Verdict::Goto(chain) => format!("goto {}", table.chain_name(chain)),
    }
}
