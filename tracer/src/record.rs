//! Recordings: the one ordered stream that the correlator eats, as Parquet files; written beside a
//! trace, and read back to be replayed. docs/recordings.md describes the files.
//!
//! Knows the model alone: neither where events come from, nor what becomes of them.

mod batches;
mod changes;
mod column;
mod decode;
mod encode;
mod event;
mod events;
mod keep;
mod kept;
mod names;
mod objects;
mod reader;
mod segment;
mod session;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{self, Sender},
    },
    thread::JoinHandle,
    time::Duration,
};

use self::writer::{Batch, Shared};
pub use self::{
    event::Recorded,
    keep::Keep,
    kept::{Error as KeptError, read as read_kept, write as write_kept},
    names::Names,
    reader::{Error as ReadError, Recording, Stream},
    session::{Asked, SCHEMA, Session, SessionApi, SessionProbe},
};
use crate::model::{ClusterChange, Event, Losses, Named, Row, Site, conntrack::ConntrackTotals};

/// Most events on their way to the writer: some 60 MB. What comes beyond is lost.
const MOST_QUEUED: usize = 128 << 10;

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory.
    #[error("cannot write to {dir}: give a directory on a disk with room")]
    Directory {
        /// Which.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The thread.
    #[error("cannot start the thread that writes")]
    Thread(#[source] io::Error),
}

/// Takes events and rows, and has them written by a thread of its own.
#[derive(Debug)]
pub struct Recorder {
    batches: Sender<Batch>,
    batch: Batch,
    /// Place in the stream of the next event.
    next: u64,
    names: Names,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    lost: u64,
}

impl Recorder {
    /// Begins a recording in `dir`, which may hold others.
    ///
    /// # Errors
    /// `dir` cannot be made or written to, or there is no room for a thread.
    pub fn start(dir: &Path, session: Session, keep: Keep) -> Result<Self, Error> {
        let refused = |source| Error::Directory {
            dir: dir.to_owned(),
            source,
        };
        fs::create_dir_all(dir).map_err(refused)?;
        let probe = dir.join(format!("{}{}", session.id, segment::UNFINISHED));
        fs::write(&probe, b"").map_err(refused)?;
        fs::remove_file(&probe).map_err(refused)?;
        let shared = Arc::new(Shared::default());
        let (batches, receiver) = mpsc::channel();
        let thread = writer::start(dir, session, keep, Arc::clone(&shared), receiver);
        Ok(Self {
            batches,
            batch: Batch::default(),
            next: 0,
            names: Names::default(),
            shared,
            thread: thread.map_err(Error::Thread)?,
            lost: 0,
        })
    }

    /// Records an event.
    pub fn event(&mut self, event: Event<'_>) {
        if let Event::Tick { wall, .. } = event {
            self.names.tick(wall);
        }
        self.push(event.into());
    }

    /// Records what the API server said.
    pub fn change(&mut self, change: &ClusterChange) {
        self.push(Recorded::Change(change.clone()));
    }

    /// Records what of conntrack's tables has changed.
    pub fn conntrack(&mut self, totals: &[ConntrackTotals]) {
        for totals in totals {
            if self.names.count(totals) {
                self.push(Recorded::Conntrack(totals.clone()));
            }
        }
    }

    /// Records what is new about the names of `row`, by what the node itself `knows` of it and its
    /// `sites`. Rows come after the tick that ends their batch.
    pub fn names(&mut self, row: &Row, knows: &Named, sites: &[Site]) {
        for name in self.names.news(row, knows, sites) {
            self.push(Recorded::Name(name));
        }
    }

    /// Puts a row into its derived table.
    pub fn row(&mut self, row: &Row, named: &Named) {
        self.batch.rows.push((row.clone(), named.clone()));
    }

    /// Records an event that was recorded before, after those that were missing before it.
    pub fn again(&mut self, event: Recorded) {
        if let Recorded::Loss(losses) = event
            && losses.unrecorded > 0
        {
            self.flush_all();
            self.next += losses.unrecorded;
            self.batch.first = self.next;
        }
        self.push(event);
    }

    /// Hands over what was recorded, and waits for room.
    pub fn flush_all(&mut self) {
        while self.shared.queued.load(Ordering::Relaxed) > MOST_QUEUED / 2
            && !self.thread.is_finished()
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.flush();
    }

    /// Hands over what was recorded, if there is room for it.
    pub fn flush(&mut self) {
        if self.batch.events.is_empty() && self.batch.rows.is_empty() {
            return;
        }
        let count = self.batch.events.len();
        if self.shared.queued.load(Ordering::Relaxed) + count > MOST_QUEUED {
            // What is told once only waits for the next batch.
            let events = &mut self.batch.events;
            events.retain(Recorded::is_told_once);
            self.batch.first = self.next - events.len() as u64;
            self.lost += (count - events.len()) as u64;
            self.batch.rows.clear();
            return;
        }
        self.shared.queued.fetch_add(count, Ordering::Relaxed);
        let next = Batch {
            first: self.next,
            ..Batch::default()
        };
        // It ends when this is dropped, not before.
        drop(self.batches.send(std::mem::replace(&mut self.batch, next)));
    }

    /// What was lost since the last call.
    pub fn losses(&mut self) -> Losses {
        let unwritten = self.shared.unwritten.swap(0, Ordering::Relaxed);
        Losses {
            unrecorded: std::mem::take(&mut self.lost) + unwritten,
            ..Losses::default()
        }
    }

    /// Writes all that is left, of a recording that has no end; what was lost.
    pub fn finish_without_end(self) -> Losses {
        self.shared.endless.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Writes all that is left; what was lost since the last call of [`Recorder::losses`].
    pub fn finish(mut self) -> Losses {
        self.flush();
        let mut losses = self.losses();
        drop(self.batches);
        if self.thread.join().is_err() {
            losses.unrecorded += self.batch.events.len() as u64;
        }
        losses.unrecorded += self.shared.unwritten.swap(0, Ordering::Relaxed);
        losses
    }

    fn push(&mut self, event: Recorded) {
        self.batch.events.push(event);
        self.next += 1;
    }
}
