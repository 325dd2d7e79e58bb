//! One expression at a time, as nf_tables' machine runs it: registers, comparisons, actions.

use std::net::IpAddr;

use super::{Ending, Memory, sets::Found, state::State, walk::Walker};
use crate::rules::{Expression, Register, RejectKind, SetOp, Value, Verdict};

/// Numbers drawn among more are not told apart.
const MOST_CHOICES: u32 = 4096;

/// `NFT_META_MARK`, `NFT_CT_MARK`.
const META_MARK: u32 = 3;
const CT_MARK: u32 = 3;

/// What an expression leads to.
pub(super) enum Flow {
    /// The next expression.
    Next,
    /// The next rule.
    Break,
    /// A decision.
    Verdict(Verdict),
    /// The end of the packet's way.
    End(Ending),
    /// The next expression with this probability, else the next rule.
    Chance(f64),
    /// The next expression, with one of these numbers in the register.
    Choice {
        /// Which register.
        to: Register,
        /// The numbers, each as likely as another.
        values: std::ops::Range<u32>,
    },
    /// The next expression or the next rule; nobody knows.
    Unknown,
}

impl Flow {
    /// On when it holds, else to the next rule.
    pub(super) fn when(holds: bool) -> Self {
        if holds { Self::Next } else { Self::Break }
    }

    /// The same, where it may not be known.
    pub(super) fn maybe(holds: Option<bool>) -> Self {
        holds.map_or(Self::Unknown, Self::when)
    }
}

impl Walker<'_> {
    #[expect(clippy::too_many_lines, reason = "an arm for each expression")]
    pub(super) fn run_expression(&self, state: &mut State, expression: &Expression) -> Flow {
        match expression {
            Expression::Payload { .. }
            | Expression::Meta { .. }
            | Expression::Ct { .. }
            | Expression::Fib { .. } => self.load(state, expression),
            Expression::Immediate { to, value } => {
                state.registers.store(*to, value);
                Flow::Next
            }
            Expression::Bitwise { .. } | Expression::Byteorder { .. } => {
                compute(state, expression);
                Flow::Next
            }
            Expression::Compare { op, from, with } => {
                let value = state.registers.load(*from, with.len());
                Flow::maybe(value.map(|value| op.holds(value.cmp(with))))
            }
            Expression::Range {
                negated,
                from,
                low,
                high,
            } => {
                let value = state.registers.load(*from, low.len());
                let within = value.map(|value| &**low <= value && value <= &**high);
                Flow::maybe(within.map(|within| within != *negated))
            }
            Expression::Lookup {
                set,
                key,
                to,
                negated,
            } => {
                let found = self.look_up(state, *set, *key);
                found_in_set(state, found, *to, *negated)
            }
            Expression::Numgen {
                to,
                modulus,
                offset,
                ..
            }
            | Expression::Hash {
                to,
                modulus,
                offset,
            } => {
                if (1..=MOST_CHOICES).contains(modulus) {
                    Flow::Choice {
                        to: *to,
                        values: *offset..offset.saturating_add(*modulus),
                    }
                } else {
                    state.registers.forget(*to, 4);
                    Flow::Next
                }
            }
            Expression::Verdict(verdict) => Flow::Verdict(*verdict),
            Expression::Reject(kind) => Flow::End(Ending::Rejected(kind_for(*kind, state))),
            Expression::Nat { .. }
            | Expression::Masquerade { .. }
            | Expression::Redirect { .. } => self.translate(state, expression),
            Expression::SetMeta { key, from } => {
                if *key == META_MARK {
                    match number(state, *from) {
                        Some(mark) => state.mark = mark,
                        None => return Flow::End(Ending::Unknown),
                    }
                }
                Flow::Next
            }
            Expression::SetCt { key, from } => {
                if *key == CT_MARK {
                    match number(state, *from) {
                        Some(mark) => state.connection_mark = mark,
                        None => return Flow::End(Ending::Unknown),
                    }
                }
                Flow::Next
            }
            Expression::Notrack => {
                state.untrack();
                Flow::Next
            }
            Expression::Dynset {
                set,
                op,
                key,
                timeout,
            } => {
                if *op == SetOp::Update {
                    let length = self
                        .set(state, *set)
                        .map_or(0, crate::rules::Set::key_length);
                    if let Some(key) = state.registers.load(*key, length) {
                        let memory = Memory::Set(state.table, *set, key.into());
                        state.noted.push(memory);
                    }
                    let of_set = || self.set(state, *set).and_then(|set| set.timeout);
                    state.affinity = timeout.or_else(of_set).or(state.affinity);
                }
                Flow::Next
            }
            // NFT_OBJECT_COUNTER
            Expression::Counter(_)
            | Expression::Log { .. }
            | Expression::Object { kind: 1, .. } => Flow::Next,
            Expression::Limit { .. } | Expression::Object { .. } | Expression::Unknown(_) => {
                Flow::Unknown
            }
            Expression::Match(found) => self.fits(state, found),
            Expression::Target(target) => self.apply(state, target),
        }
    }
}

fn number(state: &State, from: Register) -> Option<u32> {
    let bytes = state.registers.load(from, 4)?;
    Some(u32::from_ne_bytes(*bytes.first_chunk()?))
}

fn compute(state: &mut State, expression: &Expression) {
    match expression {
        Expression::Bitwise {
            from,
            to,
            mask,
            xor,
        } => {
            let value = state.registers.load(*from, mask.len());
            let value = value.map(|value| {
                let parts = value.iter().zip(&**mask).zip(&**xor);
                parts
                    .map(|((byte, mask), xor)| (byte & mask) ^ xor)
                    .collect::<Vec<u8>>()
            });
            // What a mask of zeros leaves is known whatever was there.
            let value = value.or_else(|| mask.iter().all(|byte| *byte == 0).then(|| xor.to_vec()));
            match value {
                Some(value) => state.registers.store(*to, &value),
                None => state.registers.forget(*to, mask.len()),
            }
        }
        Expression::Byteorder {
            from,
            to,
            size,
            length,
        } => {
            let length = *length as usize;
            let value = state.registers.load(*from, length).map(<[u8]>::to_vec);
            match value {
                Some(mut value) => {
                    if cfg!(target_endian = "little") && *size > 0 {
                        for number in value.chunks_mut(*size as usize) {
                            number.reverse();
                        }
                    }
                    state.registers.store(*to, &value);
                }
                None => state.registers.forget(*to, length),
            }
        }
        _ => {}
    }
}

fn found_in_set(state: &mut State, found: Found<'_>, to: Option<Register>, negated: bool) -> Flow {
    match (found, negated) {
        (Found::Unknown, _) if to.is_none() => Flow::Unknown,
        // What an unknown key maps to is anything that the map has.
        (Found::Unknown, _) => Flow::End(Ending::Unknown),
        (Found::Nothing, negated) => Flow::when(negated),
        (Found::Value(_), true) => Flow::Break,
        (Found::Value(Value::Verdict(verdict)), false) => match verdict {
            Verdict::Continue => Flow::Next,
            verdict => Flow::Verdict(*verdict),
        },
        (Found::Value(Value::Data(value)), false) => {
            if let Some(to) = to {
                state.registers.store(to, value);
            }
            Flow::Next
        }
        (Found::Value(Value::Nothing | Value::Object(_)), false) => Flow::Next,
    }
}

/// nft's codes for both families, as those of the packet's own (nft_reject.c).
pub(super) fn kind_for(kind: RejectKind, state: &State) -> RejectKind {
    let v4 = state.packet.destination.is_ipv4();
    match kind {
        RejectKind::Icmpx(code) => RejectKind::Icmp(match (code, v4) {
            (0, _) => 0,
            (1, true) | (2, false) => 3,
            (1, false) => 4,
            (2, true) | (_, false) => 1,
            (_, true) => 13,
        }),
        kind => kind,
    }
}

/// The bytes of an address, as headers have them.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
