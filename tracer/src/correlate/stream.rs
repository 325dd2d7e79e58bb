//! DNS over TCP: messages from the segments of one direction of a connection, seen at one place.
//!
//! Each message follows its length in two bytes (RFC 1035 §4.2.2); many may share a segment, one may span several
//! (RFC 7766 §7). A segment not seen and the end of a segment not captured are the same to us: a hole. A hole inside a
//! message costs that message's rest, which the length lets us skip; a hole over a length costs the synchronisation, until
//! a segment begins with something that reads like a message.
//!
//! Limits: [`BUFFER_LIMIT`] bytes a stream, [`HELD_MAX`] segments waiting for an earlier one, [`WINDOW`] between a segment
//! and its expected place. Nothing is allocated for a message that lies in one segment. Where bytes come twice, the first
//! copy counts, even where its capture was cut. Checksums, windows and TCP's own state are not looked at.

mod framing;
mod table;

#[cfg(test)]
mod tests;

use self::framing::Framing;
pub use self::table::{GAP_NS, Streams};

/// Most bytes one stream keeps: half a message and segments that wait for an earlier one, together. One byte more than
/// the longest message has; a message that finds no room is delivered as far as it is buffered.
pub const BUFFER_LIMIT: usize = 64 * 1024;
/// Most segments that wait for an earlier one; the next one declares the gap lost. Above TCP's own tolerance of three
/// (RFC 5681 §3.2), so that a fast retransmission still fills the gap.
pub const HELD_MAX: usize = 16;
/// Bytes between the expected and the seen sequence number from which on this is another connection, or a jump.
/// Also the longest segment; the kernel's largest is 512 KiB (`GSO_MAX_SIZE`, include/linux/netdevice.h).
pub const WINDOW: u32 = 1 << 20;

/// One DNS message out of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// The message from its id on, as far as it was captured; may be empty.
    pub captured: &'a [u8],
    /// Its length on the wire in bytes, by its length prefix.
    pub original_len: usize,
    /// It came out only because a gap before or inside it was given up: it was seen earlier than the push that delivers it.
    pub late: bool,
}

/// What a stream could not tell, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// Gaps of segments that were never seen, jumps included.
    pub gaps: u64,
    /// Bytes in those gaps; a jump has none.
    pub gap_bytes: u64,
    /// Messages delivered in part.
    pub cut: u64,
    /// Times the beginning of the next message was lost. Joining in mid-stream does not count.
    pub unsynchronised: u64,
}

impl std::ops::AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.gaps += other.gaps;
        self.gap_bytes += other.gap_bytes;
        self.cut += other.cut;
        self.unsynchronised += other.unsynchronised;
    }
}

/// A segment that came before the one it follows.
#[derive(Debug)]
struct Held {
    seq: u32,
    captured: Vec<u8>,
    original_len: usize,
}

/// One direction of one connection. The default joins in mid-stream, unsynchronised.
#[derive(Debug, Default)]
pub struct Stream {
    /// Sequence number of the next byte; `None` before the first segment.
    next: Option<u32>,
    framing: Framing,
    /// In the order of sequence numbers, all beyond `next`.
    held: Vec<Held>,
}

impl Stream {
    /// A stream whose SYN carried `isn`; the first byte of data is `isn + 1` (RFC 9293 §3.4).
    pub fn starting_at(isn: u32) -> Self {
        Self {
            next: Some(isn.wrapping_add(1)),
            framing: Framing::at_start(),
            held: Vec::new(),
        }
    }

    /// Takes the segment whose first byte of data is `seq`, `original_len` bytes long, of which `captured` is the beginning.
    ///
    /// Hands out what it completes, in stream order. A segment without data changes nothing.
    pub fn push(
        &mut self,
        seq: u32,
        captured: &[u8],
        original_len: usize,
        out: &mut impl FnMut(Message<'_>),
    ) {
        let original_len = original_len.min(WINDOW as usize);
        let captured = captured.get(..original_len).unwrap_or(captured);
        if original_len == 0 {
            return;
        }
        if self.ahead(seq).unsigned_abs() > WINDOW {
            self.finish(out);
            self.framing.losses.gaps += 1;
        }
        self.next.get_or_insert(seq);
        // Each turn takes or holds the segment, or comes one held segment closer to it.
        loop {
            let ahead = self.ahead(seq);
            if ahead <= 0 {
                self.take(seq, captured, original_len, out);
                return self.drain(out);
            }
            let fits =
                self.held.len() < HELD_MAX && self.buffered() + captured.len() <= BUFFER_LIMIT;
            if fits && self.is_synchronised() {
                return self.hold(seq, captured, original_len);
            }
            match self.held.first() {
                Some(first) if self.ahead(first.seq) < ahead => self.give_up_gap(out),
                _ => self.skip_to(seq, out),
            }
        }
    }

    /// Gives up every gap and hands out what is left, half a message included: at FIN, RST, or when time is up.
    ///
    /// The stream then stands as one that joins in mid-stream.
    pub fn finish(&mut self, out: &mut impl FnMut(Message<'_>)) {
        while self.is_waiting() {
            self.give_up_gap(out);
        }
        self.framing.finish(out);
        self.next = None;
    }

    /// Declares the segments before the first held one lost and goes on with that one.
    fn give_up_gap(&mut self, out: &mut impl FnMut(Message<'_>)) {
        if let Some(first) = self.held.first() {
            self.skip_to(first.seq, out);
            self.framing.late = true;
            self.drain(out);
            self.framing.late = false;
        }
    }

    /// Whether segments wait for an earlier one.
    pub fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether it is known where the next message begins.
    pub fn is_synchronised(&self) -> bool {
        self.framing.is_synchronised()
    }

    /// Bytes kept.
    pub fn buffered(&self) -> usize {
        self.framing.buffered()
            + self
                .held
                .iter()
                .map(|held| held.captured.len())
                .sum::<usize>()
    }

    /// What was lost since the last call.
    pub fn take_losses(&mut self) -> Losses {
        std::mem::take(&mut self.framing.losses)
    }

    /// How far `seq` lies beyond the expected byte; negative for bytes already seen (RFC 9293 §3.4: modulo 2^32).
    fn ahead(&self, seq: u32) -> i32 {
        seq.wrapping_sub(self.next.unwrap_or(seq)).cast_signed()
    }

    /// Feeds a segment that does not lie ahead, without what was seen before.
    fn take(
        &mut self,
        seq: u32,
        captured: &[u8],
        original_len: usize,
        out: &mut impl FnMut(Message<'_>),
    ) {
        let seen = self.ahead(seq).unsigned_abs() as usize;
        let Some(fresh_len @ 1..) = original_len.checked_sub(seen) else {
            return;
        };
        let fresh = captured.get(seen..).unwrap_or_default();
        let held: usize = self.held.iter().map(|held| held.captured.len()).sum();
        self.framing
            .bytes(fresh, BUFFER_LIMIT.saturating_sub(held), out);
        self.framing.hole(fresh_len - fresh.len(), out);
        self.next = self.next.map(|next| next.wrapping_add(low_bits(fresh_len)));
    }

    /// Takes held segments as long as they follow.
    fn drain(&mut self, out: &mut impl FnMut(Message<'_>)) {
        while self
            .held
            .first()
            .is_some_and(|first| self.ahead(first.seq) <= 0)
        {
            let first = self.held.remove(0);
            self.take(first.seq, &first.captured, first.original_len, out);
        }
    }

    fn hold(&mut self, seq: u32, captured: &[u8], original_len: usize) {
        let covers = |held: &Held| held.seq == seq && held.original_len >= original_len;
        if !self.held.iter().any(covers) {
            let place = self
                .held
                .partition_point(|held| self.ahead(held.seq) <= self.ahead(seq));
            self.held.insert(
                place,
                Held {
                    seq,
                    captured: captured.to_vec(),
                    original_len,
                },
            );
        }
    }

    /// Leaves a gap behind and expects `seq` next.
    fn skip_to(&mut self, seq: u32, out: &mut impl FnMut(Message<'_>)) {
        let gap = self.ahead(seq).unsigned_abs();
        self.framing.losses.gaps += 1;
        self.framing.losses.gap_bytes += u64::from(gap);
        self.framing.late = true;
        self.framing.hole(gap as usize, out);
        self.framing.late = false;
        self.next = Some(seq);
    }
}

/// A length as a step in sequence numbers.
fn low_bits(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(WINDOW) // never longer than WINDOW
}
