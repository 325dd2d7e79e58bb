//! The streams of many connections, bounded in number and bytes.
//!
//! Time comes with each call, in nanoseconds of one clock; none is read here. Streams leave at FIN or RST by the caller's
//! word, after a time without segments, or, the longest silent first, when the table is full. What a gap holds back is
//! handed out with the first segment after [`GAP_NS`].

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use super::{Losses, Message, Stream};

#[cfg(test)]
mod tests;

/// How long a gap may hold back later segments: a sender's first retransmission time-out (RFC 6298 §2.1), one second.
pub const GAP_NS: u64 = 1_000_000_000;

#[derive(Debug)]
struct Entry {
    stream: Stream,
    /// Initial sequence number of the SYN; `None` when joined in mid-stream.
    isn: Option<u32>,
    /// Key in `order`.
    turn: u64,
    last_ns: u64,
    waiting_since_ns: Option<u64>,
}

/// Streams by key, which names connection, direction and the place of observation.
#[derive(Debug)]
pub struct Streams<K> {
    entries: HashMap<K, Entry>,
    /// Keys in the order of their last segment.
    order: BTreeMap<u64, K>,
    turn: u64,
    most: usize,
    most_buffered: usize,
    buffered: usize,
    evicted: u64,
    losses: Losses,
}

impl<K: Hash + Eq + Clone> Streams<K> {
    /// A table of at most `most` streams (at least one) that buffer at most `most_buffered` bytes together.
    pub fn new(most: usize, most_buffered: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            turn: 0,
            most: most.max(1),
            most_buffered,
            buffered: 0,
            evicted: 0,
            losses: Losses::default(),
        }
    }

    /// Notes a SYN: `key` starts anew behind `isn`, and what it held of an older connection is handed out.
    ///
    /// A SYN sent again changes nothing.
    pub fn open(&mut self, key: &K, isn: u32, ktime_ns: u64, out: &mut impl FnMut(Message<'_>)) {
        if self
            .entries
            .get(key)
            .is_some_and(|entry| entry.isn == Some(isn))
        {
            return;
        }
        self.remove(key, out);
        self.insert(key, Some(isn), ktime_ns);
    }

    /// Takes one segment, see [`Stream::push`]; an unknown `key` joins in mid-stream.
    pub fn push(
        &mut self,
        key: &K,
        ktime_ns: u64,
        seq: u32,
        captured: &[u8],
        original_len: usize,
        out: &mut impl FnMut(Message<'_>),
    ) {
        if !self.entries.contains_key(key) {
            self.insert(key, None, ktime_ns);
        }
        self.turn += 1;
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        self.order.remove(&entry.turn);
        self.order.insert(self.turn, key.clone());
        entry.turn = self.turn;
        entry.last_ns = entry.last_ns.max(ktime_ns);
        let before = entry.stream.buffered();
        let waited_ns = entry
            .waiting_since_ns
            .map_or(0, |since_ns| ktime_ns.saturating_sub(since_ns));
        if waited_ns > GAP_NS {
            entry.stream.give_up_gap(out);
            entry.waiting_since_ns = None;
        }
        entry.stream.push(seq, captured, original_len, out);
        let since_ns = entry.waiting_since_ns.unwrap_or(ktime_ns);
        entry.waiting_since_ns = entry.stream.is_waiting().then_some(since_ns);
        self.losses += entry.stream.take_losses();
        self.buffered = self.buffered.saturating_sub(before) + entry.stream.buffered();
        while self.buffered > self.most_buffered && !self.entries.is_empty() {
            self.evict();
        }
    }

    /// Drops `key` at FIN or RST and hands out what it still holds.
    pub fn remove(&mut self, key: &K, out: &mut impl FnMut(Message<'_>)) {
        if let Some(mut stream) = self.forget(key) {
            stream.finish(out);
            self.losses += stream.take_losses();
        }
    }

    /// Drops the streams without a segment for `idle_ns` before `ktime_ns` and hands out what they still hold.
    pub fn expire(&mut self, ktime_ns: u64, idle_ns: u64, out: &mut impl FnMut(&K, Message<'_>)) {
        while let Some(key) = self.longest_silent() {
            if self
                .entries
                .get(&key)
                .is_some_and(|entry| entry.last_ns.saturating_add(idle_ns) > ktime_ns)
            {
                return;
            }
            self.remove(&key, &mut |message| out(&key, message));
        }
    }

    /// Streams dropped because the table was full, with what they held.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// What all streams lost so far, evictions apart.
    pub fn losses(&self) -> Losses {
        self.losses
    }

    /// Bytes all streams keep together.
    pub fn buffered(&self) -> usize {
        self.buffered
    }

    /// Streams known.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no stream is known.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn insert(&mut self, key: &K, isn: Option<u32>, ktime_ns: u64) {
        while self.entries.len() >= self.most {
            self.evict();
        }
        self.turn += 1;
        let stream = isn.map_or_else(Stream::default, Stream::starting_at);
        let entry = Entry {
            stream,
            isn,
            turn: self.turn,
            last_ns: ktime_ns,
            waiting_since_ns: None,
        };
        self.order.insert(self.turn, key.clone());
        self.entries.insert(key.clone(), entry);
    }

    fn longest_silent(&self) -> Option<K> {
        self.order.first_key_value().map(|(_, key)| key.clone())
    }

    fn evict(&mut self) {
        if let Some(key) = self.longest_silent() {
            self.forget(&key);
            self.evicted += 1;
        }
    }

    fn forget(&mut self, key: &K) -> Option<Stream> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.turn);
        self.buffered = self.buffered.saturating_sub(entry.stream.buffered());
        Some(entry.stream)
    }
}
