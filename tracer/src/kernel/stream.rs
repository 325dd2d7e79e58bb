//! The ring buffer, drained in batches on a timer: a wake-up per record would cost ten times
//! the record. Puts facts in order of time and counts what it cannot make sense of.

use std::{ops::Range, os::fd::AsFd as _, time::Duration};

use aya::{
    maps::{
        Map, MapData, PerfEventArray, RingBuf,
        perf::{PerfBufferError, PerfEvent, PerfEventArrayBuffer},
    },
    util::online_cpus,
};
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Interval, MissedTickBehavior},
};

use super::{Error, clock, lanes::Lanes};
use crate::{
    model::{Fact, KtimeNs, Losses},
    probes::{Decoder, Times},
};

/// How often the ring is drained when nothing wakes the reader before.
pub const DRAIN_EVERY: Duration = Duration::from_millis(20);

/// Fewest pages of each processor's buffer for paged payload: room for 60 whole packets.
const PAGED_PAGES: usize = 64;

/// How much smaller than the ring the buffers for paged payload are together.
const PAGED_SHARE: usize = 8;

/// Most records of the ring taken in one go, so that output and time-outs get their turn.
const BATCH: usize = 16_384;

/// How long a fact is held back: records of several processors, and those of the perf buffers,
/// come only nearly in order of time.
const HOLD: Duration = Duration::from_millis(1);

/// A packet's places that follow each other as closely are handed over at once: while it passes them, nothing happens
/// elsewhere that they depend on.
const TOGETHER: Duration = Duration::from_micros(100);

/// The records of all probes, as facts in order of time.
pub struct Stream {
    ring: AsyncFd<Ring>,
    lanes: Lanes,
    timer: Interval,
    /// Packets whose payload lies in page fragments, by processor; empty where they come by the ring or not
    /// at all.
    paged: Vec<PerfEventArrayBuffer<MapData>>,
    decoder: Decoder,
    held: Held,
    undecodable: u64,
    /// Facts up to this moment are handed over.
    until: KtimeNs,
}

/// Records that wait for their turn.
#[derive(Default)]
struct Held {
    /// All of them, one after the other as they came.
    bytes: BytesMut,
    /// As they came, those left from before first.
    turns: Vec<Turn>,
    /// Room of those before them, to be used again.
    spare: (BytesMut, Vec<Turn>),
}

/// Facts of one of them that are handed over one after the other.
#[derive(Clone)]
struct Turn {
    /// Of the first of them.
    ktime: KtimeNs,
    at: usize,
    len: usize,
    sights: Range<usize>,
}

/// How far draining came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// All records up to this moment are read, as far as can be told.
    pub until: KtimeNs,
    /// More is waiting than one batch holds.
    pub more: bool,
}

/// `AsyncFd` wants the whole thing by value.
struct Ring(RingBuf<MapData>);

impl std::os::fd::AsRawFd for Ring {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Stream {
    pub(super) fn new(
        records: Map,
        lanes: Lanes,
        paged: Option<Map>,
        ring_bytes: u32,
        decoder: Decoder,
    ) -> Result<Self, Error> {
        let name = "RECORDS";
        let ring = RingBuf::try_from(records).map_err(|source| Error::Map { name, source })?;
        #[expect(
            unsafe_code,
            reason = "tokio asks that the descriptor outlive its registration"
        )]
        // SAFETY: the descriptor belongs to the ring's map, which the AsyncFd owns, and never changes.
        let ring = unsafe { AsyncFd::register_with_interest(Ring(ring), Interest::READABLE) }
            .map_err(|error| error.into_parts().1)?;
        let mut timer = tokio::time::interval(DRAIN_EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let paged = match paged {
            Some(paged) => open_paged(paged, ring_bytes)?,
            None => Vec::new(),
        };
        Ok(Self {
            ring,
            lanes,
            timer,
            paged,
            decoder,
            held: Held::default(),
            undecodable: 0,
            until: KtimeNs(0),
        })
    }

    /// Waits until the timer or the ring's filling says that it is time to drain.
    ///
    /// # Errors
    /// The ring cannot be waited on.
    pub async fn ready(&mut self) -> Result<(), Error> {
        tokio::select! {
            _ = self.timer.tick() => Ok(()),
            guard = self.ring.readable() => {
                guard?.clear_ready();
                Ok(())
            }
        }
    }

    /// Takes of what is in the ring and in lanes as much as is read in one go, and hands over, in order, the facts that
    /// are old enough.
    pub fn drain(&mut self, take: &mut impl FnMut(&Fact)) -> Drained {
        let now = clock::ktime();
        let ring = self.fill();
        self.fill_paged();
        let lanes = self.fill_from_lanes();
        let hold = u64::try_from(HOLD.as_nanos()).unwrap_or(0);
        // What comes after the last record read may be in the ring or a lane still, however old it is.
        let came = ring.unwrap_or(now).min(now);
        let read = lanes.unwrap_or(KtimeNs(u64::MAX));
        self.until = self.until.max(came.min(read));
        // A lane needs no patience: it is in order up to the last record read.
        let ripe = KtimeNs(came.0.saturating_sub(hold));
        self.release(ripe.min(read), take);
        Drained {
            until: self.until,
            more: ring.or(lanes).is_some(),
        }
    }

    /// Takes and hands over everything, at the end of a trace.
    pub fn finish(&mut self, take: &mut impl FnMut(&Fact)) {
        while self.fill().is_some() {}
        self.fill_paged();
        while self.fill_from_lanes().is_some() {}
        self.release(KtimeNs(u64::MAX), take);
    }

    /// What could not be made sense of since the last call.
    pub fn losses(&mut self) -> Losses {
        Losses {
            undecodable: std::mem::take(&mut self.undecodable),
            ..Losses::default()
        }
    }

    /// Takes one batch out of the ring. Returns the time of the last record where more may be
    /// waiting.
    fn fill(&mut self) -> Option<KtimeNs> {
        let ring = &mut self.ring.get_mut().0;
        let mut last = KtimeNs(0);
        for _ in 0..BATCH {
            let record = ring.next()?;
            match self.held.add(&record, &[], 0).last() {
                Some(ktime) => last = *ktime,
                None => self.undecodable += 1,
            }
        }
        Some(last)
    }

    /// Lost samples are counted where they are lost, by the programs.
    fn fill_paged(&mut self) {
        let Self {
            paged,
            held,
            undecodable,
            ..
        } = self;
        for buffer in paged {
            buffer.for_each(|event| {
                if let PerfEvent::Sample { head, tail } = event {
                    *undecodable += u64::from(held.add(head, tail, 0).is_empty());
                }
            });
        }
    }

    /// Takes as much as is read in one go. Returns since when more may be waiting, where more does.
    fn fill_from_lanes(&mut self) -> Option<KtimeNs> {
        let Self {
            lanes,
            held,
            undecodable,
            ..
        } = self;
        lanes.read(&mut |record, known| {
            let times = held.add(record, &[], known);
            *undecodable += u64::from(times.is_empty());
            times
        })
    }

    fn release(&mut self, limit: KtimeNs, take: &mut impl FnMut(&Fact)) {
        let (batch, turns) = self.held.split(limit);
        for turn in &turns {
            let record = &batch[turn.at..turn.at + turn.len];
            let sights = turn.sights.clone();
            let decoded = self.decoder.decode(record, sights, &batch, take);
            self.undecodable += u64::from(decoded.is_none());
        }
        self.held.reuse(batch, turns);
    }
}

impl Held {
    /// Adds a record that comes in two parts, without the sights that are `known`. Returns when all of them were; none
    /// where it is cut short.
    fn add(&mut self, head: &[u8], tail: &[u8], known: usize) -> Times {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(tail);
        let times = Decoder::times(&self.bytes[at..]);
        if times.is_empty() {
            self.bytes.truncate(at);
        }
        let len = self.bytes.len() - at;
        let mut from = known;
        while let Some(ktime) = times.get(from).copied() {
            let mut rest = times[from..].iter();
            let together = rest.position(|later| *later - ktime > TOGETHER);
            let to = together.map_or(times.len(), |together| from + together);
            let sights = from..to;
            self.turns.push(Turn {
                ktime,
                at,
                len,
                sights,
            });
            from = to;
        }
        times
    }

    /// Takes out the records up to `limit`, in order of time; the few that are younger stay.
    ///
    /// They come in order from each processor: to merge such runs is what this sort does best.
    fn split(&mut self, limit: KtimeNs) -> (Bytes, Vec<Turn>) {
        self.turns.sort_by_key(|turn| turn.ktime);
        let ripe = self.turns.partition_point(|turn| turn.ktime <= limit);
        let (bytes, turns) = std::mem::take(&mut self.spare);
        let batch = std::mem::replace(&mut self.bytes, bytes).freeze();
        let mut turns = std::mem::replace(&mut self.turns, turns);
        for mut turn in turns.drain(ripe..) {
            let bytes = &batch[turn.at..turn.at + turn.len];
            turn.at = self.bytes.len();
            self.bytes.extend_from_slice(bytes);
            self.turns.push(turn);
        }
        (batch, turns)
    }

    /// Takes back what was split off, to be filled again; the bytes not if a fact is still kept.
    fn reuse(&mut self, batch: Bytes, mut turns: Vec<Turn>) {
        turns.clear();
        let mut bytes = batch.try_into_mut().unwrap_or_default();
        bytes.clear();
        self.spare = (bytes, turns);
    }
}

/// Opens a buffer for each processor; they grow with the ring.
fn open_paged(map: Map, ring_bytes: u32) -> Result<Vec<PerfEventArrayBuffer<MapData>>, Error> {
    let name = "PAGED";
    let mut array = PerfEventArray::try_from(map).map_err(|source| Error::Map { name, source })?;
    let cpus = online_cpus().map_err(|(_, source)| Error::Wait(source))?;
    let each = ring_bytes as usize / PAGED_SHARE / cpus.len().max(1);
    // A power of two, as the kernel asks.
    let pages = (each / rustix::param::page_size()).max(PAGED_PAGES);
    let pages = pages.checked_next_power_of_two().unwrap_or(PAGED_PAGES);
    let mut open = |cpu| {
        let mut pages = pages;
        loop {
            match array.open(cpu, Some(pages)) {
                // What may be locked for perf is limited without CAP_IPC_LOCK (perf_event_mlock_kb).
                Err(PerfBufferError::MMapError { .. }) if pages > PAGED_PAGES => pages /= 2,
                opened => return opened.map_err(Error::Perf),
            }
        }
    };
    cpus.into_iter().map(&mut open).collect()
}

#[cfg(test)]
mod tests {
    use super::{super::lanes::tests::record, *};

    /// The turns in their order, as time and sights.
    fn turns(records: &[(&[u64], usize)]) -> Vec<(u64, Range<usize>)> {
        let mut held = Held::default();
        for (ktimes, known) in records {
            assert_eq!(held.add(&record(ktimes), &[], *known).len(), ktimes.len());
        }
        let (_, turns) = held.split(KtimeNs(u64::MAX));
        let turns = turns.iter();
        turns
            .map(|turn| (turn.ktime.0, turn.sights.clone()))
            .collect()
    }

    #[test]
    fn places_that_follow_closely_are_one_turn_and_others_come_when_they_were_seen() {
        let late = 2_000_000;
        let packet = [1_000, 3_000, 90_000, late, late + 1_000];
        let other = [500_000];
        assert_eq!(
            turns(&[(&packet, 0), (&other, 0)]),
            [(1_000, 0..3), (500_000, 0..1), (late, 3..5)]
        );
    }

    #[test]
    fn what_is_known_of_a_record_is_passed_over() {
        assert_eq!(turns(&[(&[1_000, 3_000, 5_000], 2)]), [(5_000, 2..3)]);
        assert_eq!(turns(&[(&[1_000, 3_000], 2)]), []);
    }

    #[test]
    fn a_record_that_stays_behind_is_whole_in_the_next_batch() {
        let mut held = Held::default();
        held.add(&record(&[1_000]), &[], 0);
        let late = record(&[3_000, 900_000]);
        held.add(&late, &[], 0);
        let (batch, ripe) = held.split(KtimeNs(3_000));
        assert_eq!(ripe.len(), 2);
        held.reuse(batch, ripe);
        let (batch, ripe) = held.split(KtimeNs(u64::MAX));
        let [turn] = &ripe[..] else { panic!() };
        assert_eq!(batch[turn.at..turn.at + turn.len], late);
        assert_eq!((turn.ktime, turn.sights.clone()), (KtimeNs(900_000), 1..2));
    }

    #[test]
    fn a_record_cut_short_takes_no_turn() {
        let mut held = Held::default();
        let whole = record(&[1_000, 3_000]);
        assert!(held.add(&whole[..whole.len() - 1], &[], 0).is_empty());
        assert!(held.turns.is_empty() && held.bytes.is_empty());
    }
}
