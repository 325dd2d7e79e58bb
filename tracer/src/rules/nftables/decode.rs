//! A rule's expressions, from attributes to `Expression`s. Numbers of attributes are those of the
//! enums `nft_EXPRESSION_attributes` in include/uapi/linux/netfilter/nf_tables.h.

use std::{sync::Arc, time::Duration};

use rustc_hash::FxHashMap;

use crate::rules::{
    Base, ChainId, CompareOp, Counter, Expression, Family, NatKind, Register, RejectKind, Rule,
    SetId, SetOp, Value, Verdict, compat, netlink::Attributes,
};

/// Chains and sets of one table by name.
pub(super) struct Names {
    pub(super) family: Family,
    pub(super) chains: FxHashMap<Arc<str>, ChainId>,
    pub(super) sets: FxHashMap<Arc<str>, SetId>,
}

impl Names {
    fn chain(&self, name: Option<&str>) -> ChainId {
        let id = name.and_then(|name| self.chains.get(name));
        id.copied().unwrap_or(ChainId::MISSING)
    }

    fn set(&self, name: Option<&str>) -> SetId {
        let id = name.and_then(|name| self.sets.get(name));
        id.copied().unwrap_or(SetId::MISSING)
    }
}

/// One rule.
pub(super) fn rule(all: Attributes<'_>, names: &Names) -> Rule {
    let expressions = all.nested(4).into_iter().flatten();
    let expressions = expressions.map(|(_, one)| named_expression(Attributes(one), names));
    Rule {
        handle: all.be64(3).unwrap_or(0),
        expressions: expressions.collect(),
        comment: all.find(7).and_then(comment),
    }
}

/// The comment in user data: type, length and value, type 0 (`NFTNL_UDATA_RULE_COMMENT` and its
/// like for elements).
pub(super) fn comment(mut user_data: &[u8]) -> Option<Box<str>> {
    while let [kind, length, rest @ ..] = user_data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == 0 {
            return super::super::netlink::text_of(value).map(Into::into);
        }
        user_data = rest.get(usize::from(*length)..)?;
    }
    None
}

fn named_expression(all: Attributes<'_>, names: &Names) -> Expression {
    let name = all.text(1).unwrap_or("");
    let inner = all.nested(2).unwrap_or(Attributes(&[]));
    expression(name, inner, names).unwrap_or_else(|| Expression::Unknown(name.into()))
}

/// `None` for one that is not understood.
fn expression(name: &str, all: Attributes<'_>, names: &Names) -> Option<Expression> {
    Some(match name {
        "payload" => payload(all)?,
        "meta" => match register(all, 1) {
            Some(to) => Expression::Meta {
                key: all.be32(2)?,
                to,
            },
            None => Expression::SetMeta {
                key: all.be32(2)?,
                from: register(all, 3)?,
            },
        },
        "ct" => ct(all)?,
        "cmp" => Expression::Compare {
            op: compare_op(all.be32(2)?)?,
            from: register(all, 1)?,
            with: bytes(all, 3)?,
        },
        "range" => Expression::Range {
            negated: all.be32(2)? == 1,
            from: register(all, 1)?,
            low: bytes(all, 3)?,
            high: bytes(all, 4)?,
        },
        "bitwise" if all.be32(6).unwrap_or(0) == 0 => Expression::Bitwise {
            from: register(all, 1)?,
            to: register(all, 2)?,
            mask: bytes(all, 4)?,
            xor: bytes(all, 5)?,
        },
        "byteorder" => Expression::Byteorder {
            from: register(all, 1)?,
            to: register(all, 2)?,
            size: all.be32(5)?,
            length: all.be32(4)?,
        },
        "lookup" => Expression::Lookup {
            set: names.set(all.text(1)),
            key: register(all, 2)?,
            // The verdict register is none to load into.
            to: all.be32(3).and_then(register_of),
            negated: all.be32(5).unwrap_or(0) & 1 != 0,
        },
        "immediate" => immediate(all, names)?,
        "numgen" => Expression::Numgen {
            to: register(all, 1)?,
            modulus: all.be32(2)?,
            offset: all.be32(4).unwrap_or(0),
            random: all.be32(3)? == 1,
        },
        "hash" => Expression::Hash {
            to: register(all, 2)?,
            modulus: all.be32(4)?,
            offset: all.be32(6).unwrap_or(0),
        },
        "fib" => Expression::Fib {
            result: all.be32(2)?,
            flags: all.be32(3)?,
            to: register(all, 1)?,
        },
        "notrack" => Expression::Notrack,
        "nat" | "masq" | "redir" | "reject" => action(name, all)?,
        "match" => compat::expression_of_match(all, names.family)?,
        "target" => compat::expression_of_target(all, names.family)?,
        _ => side_effect(name, all, names)?,
    })
}

fn payload(all: Attributes<'_>) -> Option<Expression> {
    // A write has a source register instead.
    Some(Expression::Payload {
        to: register(all, 1)?,
        base: match all.be32(2)? {
            0 => Base::Link,
            1 => Base::Network,
            2 => Base::Transport,
            _ => Base::Inner,
        },
        offset: all.be32(3)?,
        length: all.be32(4)?,
    })
}

fn ct(all: Attributes<'_>) -> Option<Expression> {
    let key = all.be32(2)?;
    Some(match register(all, 1) {
        Some(to) => Expression::Ct {
            key,
            reply: all.find(3).map(|direction| direction.first() == Some(&1)),
            to,
        },
        None => Expression::SetCt {
            key,
            from: register(all, 4)?,
        },
    })
}

fn immediate(all: Attributes<'_>, names: &Names) -> Option<Expression> {
    match data(all.nested(2)?, names)? {
        Value::Verdict(verdict) => Some(Expression::Verdict(verdict)),
        Value::Data(value) => Some(Expression::Immediate {
            to: register(all, 1)?,
            value,
        }),
        Value::Nothing | Value::Object(_) => None,
    }
}

/// What ends a packet's way or bends it.
fn action(name: &str, all: Attributes<'_>) -> Option<Expression> {
    Some(match name {
        "nat" => Expression::Nat {
            kind: if all.be32(1)? == 0 {
                NatKind::Source
            } else {
                NatKind::Destination
            },
            address: register(all, 3),
            last_address: register(all, 4),
            port: register(all, 5),
            last_port: register(all, 6),
            flags: all.be32(7).unwrap_or(0),
        },
        "masq" => Expression::Masquerade {
            flags: all.be32(1).unwrap_or(0),
        },
        "redir" => Expression::Redirect {
            port: register(all, 1),
            flags: all.be32(3).unwrap_or(0),
        },
        _ => {
            let code = all.find(2).and_then(|code| code.first().copied());
            let code = code.unwrap_or(0);
            Expression::Reject(match all.be32(1)? {
                0 => RejectKind::Icmp(code),
                1 => RejectKind::TcpReset,
                _ => RejectKind::Icmpx(code),
            })
        }
    })
}

/// What leaves the packet as it is, most of it.
fn side_effect(name: &str, all: Attributes<'_>, names: &Names) -> Option<Expression> {
    Some(match name {
        "counter" => Expression::Counter(Counter {
            packets: all.be64(2)?,
            bytes: all.be64(1)?,
        }),
        "limit" => Expression::Limit {
            rate: all.be64(1)?,
            unit: all.be64(2)?,
            burst: all.be32(3).unwrap_or(0),
            bytes: all.be32(4).unwrap_or(0) == 1,
            negated: all.be32(5).unwrap_or(0) & 1 != 0,
        },
        "log" => Expression::Log {
            prefix: all.text(2).unwrap_or("").into(),
            group: all
                .find(1)
                .and_then(|group| group.first_chunk())
                .map(|group| u16::from_be_bytes(*group)),
        },
        "dynset" => Expression::Dynset {
            set: names.set(all.text(1)),
            op: match all.be32(3)? {
                0 => SetOp::Add,
                1 => SetOp::Update,
                _ => SetOp::Delete,
            },
            key: register(all, 4)?,
            timeout: all.be64(6).filter(|ms| *ms != 0).map(Duration::from_millis),
        },
        "objref" => Expression::Object {
            kind: all.be32(1)?,
            name: all.text(2)?.into(),
        },
        _ => return None,
    })
}

fn compare_op(number: u32) -> Option<CompareOp> {
    Some(match number {
        0 => CompareOp::Equal,
        1 => CompareOp::NotEqual,
        2 => CompareOp::Less,
        3 => CompareOp::AtMost,
        4 => CompareOp::Greater,
        5 => CompareOp::AtLeast,
        _ => return None,
    })
}

fn register(all: Attributes<'_>, kind: u16) -> Option<Register> {
    register_of(all.be32(kind)?)
}

/// Registers 1 to 4 have sixteen bytes; from 8 on they are numbered by words of four
/// (`enum nft_registers`). `None` for the verdict register.
fn register_of(number: u32) -> Option<Register> {
    let word = match number {
        1..=4 => (number - 1) * 4,
        8..=23 => number - 8,
        _ => return None,
    };
    u8::try_from(word).ok().map(Register)
}

fn bytes(all: Attributes<'_>, kind: u16) -> Option<Box<[u8]>> {
    all.nested(kind)?.find(1).map(Into::into)
}

/// A value or a verdict (`enum nft_data_attributes`).
pub(super) fn data(all: Attributes<'_>, names: &Names) -> Option<Value> {
    if let Some(value) = all.find(1) {
        return Some(Value::Data(value.into()));
    }
    let verdict = all.nested(2)?;
    // enum nft_verdicts, and NF_DROP … of include/uapi/linux/netfilter.h
    Some(Value::Verdict(match verdict.be32(1)?.cast_signed() {
        -1 => Verdict::Continue,
        -2 => Verdict::Break,
        -3 => Verdict::Jump(names.chain(verdict.text(2))),
        -4 => Verdict::Goto(names.chain(verdict.text(2))),
        -5 => Verdict::Return,
        0 => Verdict::Drop,
        1 => Verdict::Accept,
        code if code & 0xff == 3 => Verdict::Queue,
        _ => return None,
    }))
}
