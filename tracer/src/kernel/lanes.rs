//! The lanes of all processors, where records of DNS datagrams lie: read in place, as far as they were written. A
//! record that grows later is handed over once more, from what is new of it on.

use std::{
    io,
    mem::offset_of,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{Map, MapData};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use tracer_ebpf::record::{CHUNK, Chunk, LAID_RECORD, Laid, Lane, next_at};

use super::Error;
use crate::{model::KtimeNs, probes::Times};

/// Most chunks of a lane: what is written again and again is to stay in its processor's cache. 256 KiB are some 300
/// exchanges.
const MOST: u32 = 16;

/// Fewest of them, for one that is being read gives no room yet.
const FEWEST: u32 = 2;

/// Most bytes of a lane that are read in one go: what is made of them, up to the rows, is to stay in this processor's cache.
const AT_ONCE: u64 = 2 * CHUNK;

/// How many chunks each of `cpus` lanes has, a power of two; together they take no more than the ring, where that is
/// large enough. None where a processor may show others what it wrote in another order, which programs cannot prevent
/// before Linux 6.15 (`BPF_STORE_REL`): all records go by the ring there.
pub(super) fn chunks(ring_bytes: u32, cpus: usize) -> u32 {
    if !cfg!(target_arch = "x86_64") {
        return 0;
    }
    let each = u64::from(ring_bytes) / CHUNK / (cpus as u64).max(1);
    let each = u32::try_from(each).unwrap_or(MOST).clamp(FEWEST, MOST);
    1 << each.ilog2()
}

/// The maps `LANES` and `CHUNKS`.
pub(super) struct Lanes {
    written: Mapped,
    chunks: Mapped,
    readers: Readers,
}

impl Lanes {
    pub(super) fn open(lanes: Map, chunks: Map) -> Result<Self, Error> {
        let written = Mapped::new("LANES", lanes, size_of::<Lane>())?;
        let chunks = Mapped::new("CHUNKS", chunks, size_of::<Chunk>())?;
        Ok(Self {
            readers: Readers::new(written.elements),
            written,
            chunks,
        })
    }

    /// Hands `take` each record that is new, or longer than it was, and how many of its sights were taken before.
    /// `take` tells when it has been seen so far. Returns, where that was too much for one go, since when there may be more.
    pub(super) fn read(&mut self, take: &mut impl FnMut(&[u8], usize) -> Times) -> Option<KtimeNs> {
        let (lanes, chunks) = (self.written.words(), self.chunks.words());
        self.readers.read(lanes, chunks, take)
    }
}

/// How far each lane is read.
struct Readers(Vec<Reader>);

/// How far one is read.
#[derive(Clone, Copy, Debug)]
struct Reader {
    /// Where the next record begins.
    at: u64,
    /// Bytes of that record which were taken: it was the newest.
    len: usize,
    /// Sights that those tell of.
    sights: usize,
}

impl Readers {
    fn new(cpus: usize) -> Self {
        let reader = Reader {
            at: CHUNK,
            len: 0,
            sights: 0,
        };
        Self(vec![reader; cpus])
    }

    fn read(
        &mut self,
        lanes: &[AtomicU64],
        chunks: &[AtomicU64],
        take: &mut impl FnMut(&[u8], usize) -> Times,
    ) -> Option<KtimeNs> {
        let lanes = lanes.chunks_exact(size_of::<Lane>() / 8);
        let each = (chunks.len() / self.0.len().max(1)).max(1);
        let readers = self.0.iter_mut().zip(lanes.zip(chunks.chunks_exact(each)));
        readers
            .filter_map(|(reader, (lane, chunks))| reader.read(lane, chunks, take))
            .min()
    }
}

impl Reader {
    fn read(
        &mut self,
        lane: &[AtomicU64],
        chunks: &[AtomicU64],
        take: &mut impl FnMut(&[u8], usize) -> Times,
    ) -> Option<KtimeNs> {
        let newest = lane[offset_of!(Lane, newest) / 8].load(Ordering::Acquire);
        let before = self.at;
        let limit = before + AT_ONCE;
        // Records of one processor begin in order of time.
        let mut latest = None;
        while self.at <= newest
            && self.at < limit
            && let Some(laid) = laid(chunks, self.at)
        {
            let len = usize::try_from(laid[0].load(Ordering::Acquire));
            let len = len.unwrap_or(LONGEST).min(LONGEST);
            if len != self.len {
                let times = take(written(laid, len), self.sights);
                self.sights = times.len();
                self.len = len;
                latest = times.first().copied().or(latest);
            }
            if self.at == newest {
                break;
            }
            let end = self.at + (LAID_RECORD + len) as u64;
            *self = Self {
                at: next_at(self.at, end),
                len: 0,
                sights: 0,
            };
        }
        if self.at != before {
            lane[offset_of!(Lane, read) / 8].store(self.at, Ordering::Release);
        }
        latest.filter(|_| self.at >= limit)
    }
}

/// Most bytes of a record.
const LONGEST: usize = size_of::<Laid>() - LAID_RECORD;

/// The words of what lies at `at` of a lane; `None` where nothing can.
fn laid(chunks: &[AtomicU64], at: u64) -> Option<&[AtomicU64]> {
    const WORDS: usize = size_of::<Chunk>() / 8;
    let number = usize::try_from(at / CHUNK).ok()? % (chunks.len() / WORDS).max(1);
    let word = usize::try_from(at % CHUNK).ok()? / 8;
    let from = number * WORDS + word;
    chunks.get(from..from + size_of::<Laid>() / 8)
}

/// The first `len` bytes of a record, at most [`LONGEST`].
#[expect(unsafe_code, reason = "what is written for good is read as bytes")]
fn written(laid: &[AtomicU64], len: usize) -> &[u8] {
    let record = &laid[LAID_RECORD / 8..];
    // SAFETY: the words lie within `record`, and programs told that they will not change them again until they are read.
    unsafe { std::slice::from_raw_parts(record.as_ptr().cast(), len) }
}

/// A map's memory, which the kernel writes to.
struct Mapped {
    /// The programs, loaded later, need it open.
    _map: MapData,
    at: *mut core::ffi::c_void,
    elements: usize,
    words: usize,
}

#[expect(unsafe_code, reason = "rustix maps memory by an unsafe call")]
impl Mapped {
    fn new(name: &'static str, map: Map, element: usize) -> Result<Self, Error> {
        use std::os::fd::AsFd as _;
        let Map::Array(map) = map else {
            return Err(Error::Missing { name });
        };
        let info = map.info().map_err(|source| Error::Map { name, source })?;
        let elements = info.max_entries() as usize;
        let words = elements * element / 8;
        let at = Self::map(map.fd().as_fd(), words * 8)?;
        Ok(Self {
            _map: map,
            at,
            elements,
            words,
        })
    }

    fn map(fd: std::os::fd::BorrowedFd<'_>, bytes: usize) -> io::Result<*mut core::ffi::c_void> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        Ok(unsafe { mmap(std::ptr::null_mut(), bytes, rights, MapFlags::SHARED, fd, 0) }?)
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is as long, page-aligned, and there until `self` is dropped. The kernel writes to it, hence
        // the atomics.
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
    use tracer_ebpf::record::{Packet, Pass, kind};

    use super::*;
    use crate::probes::Decoder;

    /// The record of a packet seen at these times.
    pub(in super::super) fn record(ktimes: &[u64]) -> Vec<u8> {
        let mut record = vec![0; size_of::<Packet>()];
        record[..4].copy_from_slice(&kind::PACKET.to_ne_bytes());
        record[8..16].copy_from_slice(&ktimes[0].to_ne_bytes());
        for ktime in &ktimes[1..] {
            record.extend(ktime.to_ne_bytes());
            record.resize(record.len() + size_of::<Pass>() - 8, 0);
        }
        record
    }

    /// A processor's lane, as programs write it, and its reader.
    struct Bench {
        lane: Vec<AtomicU64>,
        chunks: Vec<AtomicU64>,
        newest: u64,
        end: u64,
        readers: Readers,
    }

    impl Bench {
        /// A lane of two chunks.
        fn new() -> Self {
            Self::of(2)
        }

        fn of(chunks: u32) -> Self {
            let words = |bytes: usize| (0..bytes / 8).map(|_| AtomicU64::new(0)).collect();
            Self {
                lane: words(size_of::<Lane>()),
                chunks: words(chunks as usize * size_of::<Chunk>()),
                newest: 0,
                end: CHUNK,
                readers: Readers::new(1),
            }
        }

        fn write(&mut self, at: u64, ktimes: &[u64]) {
            let record = record(ktimes);
            let laid = laid(&self.chunks, at).unwrap();
            laid[0].store(record.len() as u64, Ordering::Relaxed);
            for (word, bytes) in laid[1..].iter().zip(record.chunks_exact(8)) {
                let bytes = bytes.try_into().unwrap();
                word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
            }
            self.end = at + 8 + record.len() as u64;
            self.newest = at;
            self.lane[1].store(at, Ordering::Relaxed);
        }

        fn lay(&mut self, ktimes: &[u64]) {
            let at = match self.newest {
                0 => CHUNK,
                newest => next_at(newest, self.end),
            };
            self.write(at, ktimes);
        }

        /// What is read, as the times of the sights that were not taken before.
        fn read(&mut self) -> Vec<u64> {
            let (new, more) = self.read_some();
            assert_eq!(more, None);
            new
        }

        /// The same, and since when more may be to be read.
        fn read_some(&mut self) -> (Vec<u64>, Option<u64>) {
            let mut new = Vec::new();
            let mut take = |record: &[u8], known: usize| {
                let times = Decoder::times(record);
                new.extend(times[known..].iter().map(|time| time.0));
                times
            };
            let more = self.readers.read(&self.lane, &self.chunks, &mut take);
            (new, more.map(|time| time.0))
        }

        fn told(&self) -> u64 {
            self.lane.last().unwrap().load(Ordering::Relaxed)
        }
    }

    #[test]
    fn each_record_is_read_once_and_the_newest_as_it_grows() {
        let mut bench = Bench::new();
        assert!(bench.read().is_empty(), "nothing yet");
        bench.lay(&[10, 12]);
        bench.lay(&[20]);
        assert_eq!(bench.read(), [10, 12, 20]);
        assert!(bench.read().is_empty());
        bench.write(bench.newest, &[20, 22, 24]);
        bench.lay(&[30]);
        assert_eq!(bench.read(), [22, 24, 30]);
        bench.lay(&[40]);
        assert_eq!(bench.read(), [40]);
    }

    #[test]
    fn records_follow_each_other_from_chunk_to_chunk_and_their_room_is_given_back() {
        let mut bench = Bench::new();
        for ktime in (1_u64..2000).step_by(2) {
            bench.lay(&[ktime, ktime + 1]);
            assert_eq!(bench.read(), [ktime, ktime + 1]);
            assert_eq!(
                bench.told(),
                if ktime == 1 { 0 } else { bench.newest },
                "the newest may grow: it is kept"
            );
        }
        assert!(bench.newest > 5 * CHUNK, "{}", bench.newest);
    }

    #[test]
    fn what_is_much_is_read_in_several_goes_that_tell_how_far_they_came() {
        let mut bench = Bench::of(2 * u32::try_from(AT_ONCE / CHUNK).unwrap());
        let mut last = 0;
        while bench.newest < 2 * AT_ONCE - CHUNK / 2 {
            last += 2;
            bench.lay(&[last, last + 1]);
        }
        let (first, more) = bench.read_some();
        let begun = first[first.len() - 2];
        assert_eq!(more, Some(begun), "later ones begin later");
        assert!(
            first.len() > 100 && begun < last,
            "{} of {last}",
            first.len()
        );
        let rest = bench.read();
        assert_eq!(rest[0], begun + 2);
        assert_eq!(rest.last(), Some(&(last + 1)));
    }

    #[test]
    fn lanes_take_no_more_than_the_ring_where_that_is_large_enough() {
        assert_eq!(chunks(4 << 20, 2), MOST);
        assert_eq!(chunks(4 << 20, 20), 8, "a power of two");
        assert_eq!(chunks(4 << 20, 512), FEWEST);
        assert_eq!(chunks(4096, 1), FEWEST);
    }
}
