//! The last record of each processor, which lies in a map until the next one comes. Where none comes it is taken from
//! there, once it has lain since the last look: what changes often is left to the programs, which hand it over soon.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering, fence},
};

use aya::maps::{Map, MapData};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use tracer_ebpf::record::{HELD_RECORD, Held};

use super::Error;
use crate::{model::KtimeNs, probes::Decoder};

/// Words of an element of the map.
const WORDS: usize = size_of::<Held>() / 8;

/// Where in it the record begins.
const RECORD: usize = HELD_RECORD / 8;

/// The map `HELD`.
pub(super) struct Slots {
    memory: Mapped,
    looks: Looks,
}

impl Slots {
    pub(super) fn open(map: Map) -> Result<Self, Error> {
        let name = "HELD";
        let Map::Array(map) = map else {
            return Err(Error::Missing { name });
        };
        let info = map.info().map_err(|source| Error::Map { name, source })?;
        let elements = info.max_entries() as usize;
        Ok(Self {
            memory: Mapped::new(map, elements * WORDS)?,
            looks: Looks::new(elements),
        })
    }

    /// Hands `take` each record that has not changed since the last look, at the `end` any, and how many of its sights
    /// were taken before. Returns the time before which nothing is left; `None` when that is `now`.
    pub(super) fn look(
        &mut self,
        now: KtimeNs,
        end: bool,
        take: &mut impl FnMut(&[u8], usize),
    ) -> Option<KtimeNs> {
        self.looks.look(self.memory.words(), now, end, take)
    }

    /// How many sights of a record that was handed over were taken before.
    pub(super) fn known(&self, record: &[u8]) -> usize {
        self.looks.known(record)
    }
}

/// What is known of all elements.
struct Looks {
    each: Vec<Look>,
    /// When they were looked at last.
    looked: KtimeNs,
    /// When the youngest record that was taken began.
    youngest: KtimeNs,
    /// Room for a record.
    record: Vec<u8>,
}

/// What the last look at an element showed.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    version: u64,
    /// All that lay there is taken.
    is_taken: bool,
    taken: Option<Taken>,
}

/// A record that was taken out of its element, and which the programs will hand over once more.
#[derive(Clone, Copy, Debug)]
struct Taken {
    packet: Which,
    sights: usize,
}

/// By what a packet's record is known again: when the packet was first seen, and its skb.
type Which = (KtimeNs, u64);

impl Looks {
    fn new(elements: usize) -> Self {
        Self {
            each: vec![Look::default(); elements],
            looked: KtimeNs(0),
            youngest: KtimeNs(0),
            record: Vec::new(),
        }
    }

    fn look(
        &mut self,
        words: &[AtomicU64],
        now: KtimeNs,
        end: bool,
        take: &mut impl FnMut(&[u8], usize),
    ) -> Option<KtimeNs> {
        let mut left: Option<KtimeNs> = None;
        for (look, element) in self.each.iter_mut().zip(words.chunks_exact(WORDS)) {
            let version = element[0].load(Ordering::Acquire);
            let is_same = version == look.version;
            if version == 0 || is_same && look.is_taken {
                continue;
            }
            look.version = version;
            look.is_taken = (is_same || end) && copy(element, version, &mut self.record);
            if look.is_taken {
                let Some(packet) = which(&self.record) else {
                    continue;
                };
                take(&self.record, look.known(packet));
                self.youngest = self.youngest.max(packet.0);
                let sights = Decoder::times(&self.record).len();
                look.taken = Some(Taken { packet, sights });
            } else {
                let began = KtimeNs(element[RECORD + 1].load(Ordering::Relaxed));
                // Of a record that was taken, only what came since the last look is left.
                let taken = look.taken.is_some_and(|taken| taken.packet.0 == began);
                let since = if taken { self.looked } else { began };
                left = Some(left.map_or(since, |left| left.min(since)));
            }
        }
        self.looked = now;
        left
    }

    fn known(&self, record: &[u8]) -> usize {
        // Of nearly all records this is enough: processors may be many.
        if Decoder::ktime(record).is_none_or(|ktime| ktime > self.youngest) {
            return 0;
        }
        let Some(packet) = which(record) else {
            return 0;
        };
        let known = self.each.iter().map(|look| look.known(packet));
        known.max().unwrap_or(0)
    }
}

impl Look {
    /// How many sights of this packet's record were taken out of this element.
    fn known(&self, packet: Which) -> usize {
        let same = self.taken.filter(|taken| taken.packet == packet);
        same.map_or(0, |taken| taken.sights)
    }
}

/// `None` when the record is cut short.
fn which(record: &[u8]) -> Option<Which> {
    let packet: tracer_ebpf::record::Packet = tracer_ebpf::read(record)?;
    Some((KtimeNs(packet.ktime_ns), packet.skb))
}

/// Copies the record of an element; false where it changes meanwhile.
fn copy(element: &[AtomicU64], version: u64, record: &mut Vec<u8>) -> bool {
    // Length and count share a word, the length being the first half of it in memory.
    let [a, b, c, d, ..] = element[1].load(Ordering::Relaxed).to_ne_bytes();
    let len = (u32::from_ne_bytes([a, b, c, d]) as usize).min(size_of::<Held>() - HELD_RECORD);
    record.clear();
    let words = element[RECORD..].iter().take(len.div_ceil(8));
    record.extend(words.flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()));
    fence(Ordering::Acquire);
    version & 1 == 0 && element[0].load(Ordering::Relaxed) == version
}

/// A map's memory, which the kernel writes to.
struct Mapped {
    /// The programs, loaded later, need it open.
    _map: MapData,
    at: *mut core::ffi::c_void,
    words: usize,
}

#[expect(unsafe_code, reason = "rustix maps memory by an unsafe call")]
impl Mapped {
    fn new(map: MapData, words: usize) -> io::Result<Self> {
        use std::os::fd::AsFd as _;
        let fd = map.fd().as_fd();
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let at = unsafe {
            mmap(
                std::ptr::null_mut(),
                words * 8,
                ProtFlags::READ,
                MapFlags::SHARED,
                fd,
                0,
            )
        }?;
        Ok(Self {
            _map: map,
            at,
            words,
        })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is as long, page-aligned, and there until `self` is dropped. The kernel writes to it: it
        // is read by atomic loads alone.
        unsafe { std::slice::from_raw_parts(self.at.cast(), self.words) }
    }
}

#[expect(unsafe_code, reason = "as above")]
impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's, and nothing of it is borrowed any longer.
        let _ = unsafe { munmap(self.at, self.words * 8) };
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::mem::offset_of;

    use tracer_ebpf::record::{Packet, Pass, kind};

    use super::*;

    /// A processor's element, as a program writes it.
    struct Element(Vec<u8>);

    impl Element {
        fn new() -> Self {
            Self(vec![0; size_of::<Held>()])
        }

        fn set<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
            self.0[at..at + N].copy_from_slice(&bytes);
        }

        fn version(&mut self, version: u64) {
            self.set(0, version.to_ne_bytes());
        }

        fn record(&mut self, ktimes: &[u64]) {
            let record = record(ktimes);
            self.0[HELD_RECORD..HELD_RECORD + record.len()].copy_from_slice(&record);
            self.set(8, u32::try_from(record.len()).unwrap().to_ne_bytes());
        }
    }

    /// The record of a packet seen at these times.
    pub(in super::super) fn record(ktimes: &[u64]) -> Vec<u8> {
        let mut record = vec![0; size_of::<Packet>()];
        record[..4].copy_from_slice(&kind::PACKET.to_ne_bytes());
        record[8..16].copy_from_slice(&ktimes[0].to_ne_bytes());
        record[offset_of!(Packet, passes)] = u8::try_from(ktimes.len() - 1).unwrap();
        for ktime in &ktimes[1..] {
            record.extend(ktime.to_ne_bytes());
            record.resize(record.len() + size_of::<Pass>() - 8, 0);
        }
        record
    }

    /// Looks as the reader does; what is taken, as the times of the sights that were not known.
    struct Reader(Looks);

    impl Reader {
        fn look(&mut self, element: &Element, now: u64, end: bool) -> (Vec<u64>, Option<u64>) {
            let words = element.0.chunks_exact(8);
            let words =
                words.map(|word| AtomicU64::new(u64::from_ne_bytes(word.try_into().unwrap())));
            let words: Vec<_> = words.collect();
            let mut times = Vec::new();
            let left = self
                .0
                .look(&words, KtimeNs(now), end, &mut |record, known| {
                    times.extend(Decoder::times(record)[known..].iter().map(|time| time.0));
                });
            (times, left.map(|left| left.0))
        }

        fn known(&self, element: &Element) -> usize {
            self.0
                .known(&element.0[HELD_RECORD..][..size_of::<Packet>()])
        }
    }

    /// An element without a record, and nobody has looked at it yet.
    fn empty() -> (Element, Reader) {
        (Element::new(), Reader(Looks::new(1)))
    }

    /// One where a record lies.
    fn lying() -> (Element, Reader) {
        let (mut element, reader) = empty();
        element.record(&[15]);
        element.version(2);
        (element, reader)
    }

    #[test]
    fn what_has_not_changed_since_the_last_look_is_taken_once() {
        let (mut element, mut reader) = empty();
        assert_eq!(
            reader.look(&element, 10, false),
            (vec![], None),
            "nothing yet"
        );
        element.record(&[15]);
        element.version(2);
        assert_eq!(reader.look(&element, 20, false), (vec![], Some(15)));
        assert_eq!(reader.known(&element), 0);
        assert_eq!(reader.look(&element, 30, false), (vec![15], None));
        assert_eq!(reader.look(&element, 40, false), (vec![], None));
        assert_eq!(reader.known(&element), 1, "handed over, it is known");
    }

    #[test]
    fn of_a_record_that_was_taken_only_further_places_are_new() {
        let (mut element, mut reader) = lying();
        reader.look(&element, 20, false);
        reader.look(&element, 30, false);
        element.record(&[15, 35]);
        element.version(4);
        // What is left began after the look that took the first sight.
        assert_eq!(reader.look(&element, 40, false), (vec![], Some(30)));
        assert_eq!(reader.look(&element, 50, false), (vec![35], None));
        assert_eq!(reader.known(&element), 2);
    }

    #[test]
    fn what_is_being_written_is_left() {
        let (mut element, mut reader) = lying();
        element.version(3);
        assert_eq!(reader.look(&element, 20, false), (vec![], Some(15)));
        assert_eq!(reader.look(&element, 30, true), (vec![], Some(15)));
        element.version(4);
        assert_eq!(reader.look(&element, 40, true), (vec![15], None));
    }

    #[test]
    fn what_changes_again_before_it_is_taken_is_left_from_its_beginning_on() {
        let (mut element, mut reader) = lying();
        for (version, now) in [(2, 20), (4, 30), (6, 40)] {
            element.version(version);
            assert_eq!(reader.look(&element, now, false), (vec![], Some(15)));
        }
        assert_eq!(reader.look(&element, 50, false), (vec![15], None));
    }

    #[test]
    fn another_packet_with_the_same_memory_is_not_known() {
        let (mut element, mut reader) = lying();
        reader.look(&element, 20, true);
        element.record(&[25]);
        assert_eq!(reader.known(&element), 0);
    }
}
