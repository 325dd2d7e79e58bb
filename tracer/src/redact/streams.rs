//! Where DNS messages begin in TCP segments (RFC 1035, section 4.2.2): each sight of a segment, and each
//! that is sent again, is to become the same.

use std::{collections::VecDeque, ops::Range};

use rustc_hash::FxHashMap;

use crate::model::Flow;

/// Most streams that are followed; beyond it all are forgotten.
const MOST: usize = 16_384;

/// Messages of a stream that are remembered.
const KEPT: usize = 64;

/// Streams by flow.
#[derive(Debug, Default)]
pub(super) struct Streams(FxHashMap<Flow, Stream>);

#[derive(Debug)]
struct Stream {
    /// Sequence number at which the next message's length is to come.
    next: u32,
    /// Sequence numbers at which a message begins, behind its length, and ends.
    messages: VecDeque<(u32, u32)>,
}

/// A part of a segment that is of one message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) at: Range<usize>,
    /// It is the message's beginning.
    pub(super) begins: bool,
}

impl Streams {
    /// The parts of a segment of `flow` with this `payload`; all of it but messages' lengths is in one.
    pub(super) fn parts(&mut self, flow: Flow, seq: u32, syn: bool, payload: &[u8]) -> Vec<Part> {
        if self.0.len() >= MOST && !self.0.contains_key(&flow) {
            self.0.clear();
        }
        if syn {
            let messages = VecDeque::new();
            let next = seq.wrapping_add(1);
            self.0.insert(flow, Stream { next, messages });
            return Vec::new();
        }
        let stream = self.0.entry(flow).or_insert_with(|| Stream {
            next: seq,
            messages: VecDeque::new(),
        });
        stream.read(seq, payload);
        stream.of(seq, payload.len())
    }
}

impl Stream {
    /// Notes the messages that begin in a segment.
    fn read(&mut self, seq: u32, payload: &[u8]) {
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut at = self.next.wrapping_sub(seq);
        if at > u32::MAX / 2 || at >= len {
            // It was read before, or lies within a message; else something is missing before it.
            let behind = seq.wrapping_sub(self.next);
            if behind == 0 || behind > u32::MAX / 2 {
                return;
            }
            at = 0;
        }
        while let Some(length) = payload.get(at as usize..).and_then(<[u8]>::first_chunk) {
            let begin = seq.wrapping_add(at).wrapping_add(2);
            let length = u32::from(u16::from_be_bytes(*length));
            if self.messages.len() >= KEPT {
                self.messages.pop_front();
            }
            self.messages.push_back((begin, begin.wrapping_add(length)));
            self.next = begin.wrapping_add(length);
            at = at.saturating_add(2 + length);
        }
    }

    /// The parts of what lies from `seq` on. What is neither a message's nor its length is a part, too.
    fn of(&self, seq: u32, len: usize) -> Vec<Part> {
        let clip = |from: u32, ahead: i64| {
            let at = i64::from(from.wrapping_sub(seq).cast_signed()) + ahead;
            usize::try_from(at.max(0)).unwrap_or(0).min(len)
        };
        let mut known = vec![false; len];
        let mut know = |at: Range<usize>| {
            let free = !at.is_empty() && known[at.clone()].iter().all(|known| !known);
            if free {
                known[at].fill(true);
            }
            free
        };
        let mut parts = Vec::new();
        for (begin, end) in &self.messages {
            know(clip(*begin, -2)..clip(*begin, 0));
            let at = clip(*begin, 0)..clip(*end, 0);
            let begins = begin.wrapping_sub(seq).cast_signed() >= 0;
            if know(at.clone()) {
                parts.push(Part { at, begins });
            }
        }
        know(clip(self.next, 0)..clip(self.next, 2));
        let mut at = 0;
        for stretch in known.chunk_by(|a, b| a == b) {
            let to = at + stretch.len();
            if stretch.first() == Some(&false) {
                let begins = false;
                parts.push(Part { at: at..to, begins });
            }
            at = to;
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        Flow {
            src: "192.0.2.1:40000".parse().unwrap(),
            dst: "192.0.2.53:53".parse().unwrap(),
        }
    }

    fn parts(streams: &mut Streams, seq: u32, payload: &[u8]) -> Vec<(Range<usize>, bool)> {
        let parts = streams.parts(flow(), seq, false, payload);
        parts
            .into_iter()
            .map(|part| (part.at, part.begins))
            .collect()
    }

    #[test]
    fn messages_are_found_in_one_segment_in_several_and_again() {
        let mut streams = Streams::default();
        assert_eq!(streams.parts(flow(), 99, true, b""), []);
        let two = [&[0, 3], &b"abc"[..], &[0, 2], b"de"].concat();
        assert_eq!(parts(&mut streams, 100, &two), [(2..5, true), (7..9, true)]);
        assert_eq!(parts(&mut streams, 100, &two), [(2..5, true), (7..9, true)]);
        assert_eq!(parts(&mut streams, 109, &[0, 4]), []);
        assert_eq!(parts(&mut streams, 111, b"fg"), [(0..2, true)]);
        assert_eq!(parts(&mut streams, 113, b"hi"), [(0..2, false)]);
        assert_eq!(parts(&mut streams, 109, &[0, 4]), []);
    }

    #[test]
    fn what_follows_a_gap_begins_a_message_and_what_is_unknown_is_no_beginning() {
        let mut streams = Streams::default();
        assert_eq!(
            parts(&mut streams, u32::MAX - 1, &[0, 2, b'a', b'b']),
            [(2..4, true)]
        );
        assert_eq!(parts(&mut streams, 50, &[0, 2, b'a', b'b']), [(2..4, true)]);
        assert_eq!(parts(&mut streams, 20, b"xyz"), [(0..3, false)]);
    }
}
