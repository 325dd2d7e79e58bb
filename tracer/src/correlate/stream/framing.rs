//! Cuts a byte stream with holes into messages.
//!
//! Knows lengths and holes, not sequence numbers.

use std::mem;

use super::{Losses, Message};
use crate::correlate::message::{HEADER_LEN, Malformed, Peek};

/// Shortest message with a question: header, root name, type, class.
const QUESTION_MIN: usize = HEADER_LEN + 5;
/// Shortest resource record: root name, type, class, TTL, RDLENGTH (RFC 1035 §4.1.3).
const RECORD_MIN: usize = 11;

#[derive(Debug)]
enum State {
    /// Between two messages, or behind the first byte of a length.
    Length(Option<u8>),
    /// Inside a message of `len` bytes.
    Body { len: usize, bytes: Vec<u8> },
    /// So many bytes before the next message; the one they belong to is delivered.
    Skip(usize),
    /// Where the next message begins is not known. Holds a segment's beginning too short to judge.
    Lost(Vec<u8>),
}

/// Where in the stream we are, and what was lost on the way.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    pub(super) losses: Losses,
    /// What comes out from here on was seen earlier.
    pub(super) late: bool,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            state: State::Lost(Vec::new()),
            ..Self::at_start()
        }
    }
}

impl Framing {
    pub(super) fn at_start() -> Self {
        Self {
            state: State::Length(None),
            losses: Losses::default(),
            late: false,
        }
    }

    pub(super) const fn is_synchronised(&self) -> bool {
        !matches!(self.state, State::Lost(_))
    }

    pub(super) const fn buffered(&self) -> usize {
        match &self.state {
            State::Body { bytes, .. } | State::Lost(bytes) => bytes.len(),
            State::Length(_) | State::Skip(_) => 0,
        }
    }

    /// Takes the next bytes; a message that needs more than `room` bytes of buffer is delivered cut.
    pub(super) fn bytes(&mut self, bytes: &[u8], room: usize, out: &mut impl FnMut(Message<'_>)) {
        let joined;
        let mut rest = match &mut self.state {
            State::Lost(begun) if begun.is_empty() => self.synchronise(bytes),
            State::Lost(begun) => {
                joined = [begun.as_slice(), bytes].concat();
                // Two segments that make no message together: perhaps the second begins one.
                match (self.synchronise(&joined), &self.state) {
                    (_, State::Lost(begun)) if begun.is_empty() => self.synchronise(bytes),
                    (rest, _) => rest,
                }
            }
            _ => bytes,
        };
        while !rest.is_empty() {
            rest = self.step(rest, room, out);
        }
    }

    /// Judges the beginning of a segment; returns what is to be read as messages.
    fn synchronise<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        match begins_message(bytes) {
            Some(true) => {
                self.state = State::Length(None);
                bytes
            }
            Some(false) => {
                self.state = State::Lost(Vec::new());
                &[]
            }
            None => {
                self.state = State::Lost(bytes.to_vec());
                &[]
            }
        }
    }

    /// Reads a length, or bytes of a message; returns the rest.
    fn step<'a>(
        &mut self,
        bytes: &'a [u8],
        room: usize,
        out: &mut impl FnMut(Message<'_>),
    ) -> &'a [u8] {
        match (mem::replace(&mut self.state, State::Length(None)), bytes) {
            (State::Length(None), [high]) => {
                self.state = State::Length(Some(*high));
                &[]
            }
            (State::Length(None), [high, low, rest @ ..]) => self.begin([*high, *low], rest, out),
            (State::Length(Some(high)), [low, rest @ ..]) => self.begin([high, *low], rest, out),
            (
                State::Body {
                    len,
                    bytes: mut body,
                },
                _,
            ) => {
                let missing = len.saturating_sub(body.len());
                let (now, rest) = bytes.split_at_checked(missing).unwrap_or((bytes, &[]));
                if body.len() + now.len() > room {
                    self.state = State::Body { len, bytes: body };
                    self.hole(now.len(), out);
                } else if now.len() < missing {
                    // Doubles, but never beyond the message.
                    if body.capacity() - body.len() < now.len() {
                        body.reserve_exact(now.len().max(body.capacity().min(missing)));
                    }
                    body.extend_from_slice(now);
                    self.state = State::Body { len, bytes: body };
                } else {
                    body.extend_from_slice(now);
                    self.deliver(&body, len, out);
                }
                rest
            }
            (State::Skip(left), _) => {
                let (skipped, rest) = bytes.split_at_checked(left).unwrap_or((bytes, &[]));
                self.state = State::Skip(left);
                self.hole(skipped.len(), out);
                rest
            }
            (state @ (State::Lost(_) | State::Length(_)), _) => {
                self.state = state;
                &[]
            }
        }
    }

    /// Begins a message of the length in `prefix`; one that lies whole in `bytes` is handed out without a copy.
    fn begin<'a>(
        &mut self,
        prefix: [u8; 2],
        bytes: &'a [u8],
        out: &mut impl FnMut(Message<'_>),
    ) -> &'a [u8] {
        let len = usize::from(u16::from_be_bytes(prefix));
        let Some((message, rest)) = bytes.split_at_checked(len) else {
            self.state = State::Body {
                len,
                bytes: Vec::new(),
            };
            return bytes;
        };
        self.deliver(message, len, out);
        rest
    }

    /// Passes over `len` bytes of which nothing is known.
    pub(super) fn hole(&mut self, len: usize, out: &mut impl FnMut(Message<'_>)) {
        if len == 0 {
            return;
        }
        let left = match mem::replace(&mut self.state, State::Lost(Vec::new())) {
            State::Lost(_) => return,
            State::Length(_) => None,
            State::Skip(left) => left.checked_sub(len),
            State::Body { len: whole, bytes } => {
                self.deliver(&bytes, whole, out);
                whole.saturating_sub(bytes.len()).checked_sub(len)
            }
        };
        match left {
            Some(0) => self.state = State::Length(None),
            Some(left) => self.state = State::Skip(left),
            None => self.losses.unsynchronised += 1,
        }
    }

    /// Hands out half a message and forgets where the next begins.
    pub(super) fn finish(&mut self, out: &mut impl FnMut(Message<'_>)) {
        if let State::Body { len, bytes } = mem::replace(&mut self.state, State::Lost(Vec::new())) {
            self.late = true;
            self.deliver(&bytes, len, out);
            self.late = false;
        }
    }

    fn deliver(&mut self, captured: &[u8], original_len: usize, out: &mut impl FnMut(Message<'_>)) {
        self.losses.cut += u64::from(captured.len() < original_len);
        out(Message {
            captured,
            original_len,
            late: self.late,
        });
    }
}

/// Whether `bytes` begin with a length and a DNS message; `None` when too few to say.
///
/// 1. The length has room for a question, and one question can be read.
/// 2. Its class is one of RFC 6895 §3.2, the opcode QUERY, NOTIFY or UPDATE.
/// 3. The records promised fit into the length.
fn begins_message(bytes: &[u8]) -> Option<bool> {
    let (prefix, rest) = bytes.split_first_chunk::<2>()?;
    let len = usize::from(u16::from_be_bytes(*prefix));
    if len < QUESTION_MIN {
        return Some(false);
    }
    let peek = match Peek::parse(rest.get(..len).unwrap_or(rest), len) {
        Err(Malformed::Cut) => return None,
        Err(_) => return Some(false),
        Ok(peek) => peek,
    };
    let counts = peek.counts;
    let records: usize = [counts.answers, counts.authorities, counts.additionals]
        .map(usize::from)
        .iter()
        .sum();
    let question = HEADER_LEN + usize::from(peek.name_len) + 4;
    Some(
        peek.question
            .is_some_and(|question| matches!(question.qclass, 1 | 3 | 4 | 254 | 255))
            && !peek.multi_question()
            && matches!(peek.opcode, 0 | 4 | 5)
            && question + records * RECORD_MIN <= len,
    )
}
