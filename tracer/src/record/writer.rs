//! The writer: a thread that makes segments of events and rows. It has no say in what is recorded,
//! and keeps nobody waiting.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use tracing::warn;

use super::{
    changes,
    encode::{Encoder, wall_at},
    event::Recorded,
    keep::{self, Keep},
    names::Names,
    segment::{self, Table},
    session::{Session, Span},
    tables::{Derived, Take},
};
use crate::model::{Fact, Index, KtimeNs, Named, Row, WallNs, drops::DropNames};

/// How often a segment is written: with the time that takes, within a second.
const EVERY: Duration = Duration::from_millis(500);

/// Most events of one segment; it is written at once when it has as many.
const MOST: usize = 64 << 10;

/// How many nanoseconds of segments become one.
const MERGE_NS: i64 = 60_000_000_000;

/// Events of one batch, and the rows that they finished.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Place in the stream of the first event.
    pub(super) first: u64,
    pub(super) events: Vec<Recorded>,
    pub(super) rows: Vec<(Row, Named)>,
}

/// What the thread and its feeder share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Events on their way to the thread.
    pub(super) queued: AtomicUsize,
    /// Events that could not be written.
    pub(super) unwritten: AtomicU64,
    /// What is recorded has no end.
    pub(super) endless: AtomicBool,
}

/// The thread's own.
struct Writer {
    dir: PathBuf,
    session: Session,
    keep: Keep,
    shared: Arc<Shared>,
    encoder: Encoder,
    derived: Derived,
    /// Of the events in `encoder`; `None` while it is empty.
    span: Option<Span>,
    began: Instant,
    clock: (KtimeNs, WallNs),
    /// Told again where a merged segment begins, for older ones go.
    names: Names,
    index: Index,
    drop_names: DropNames,
    /// Which stretch of [`MERGE_NS`] the last segment was in.
    stretch: i64,
    /// Segments of that stretch, by table.
    unmerged: Vec<(Table, PathBuf)>,
    /// Merges and removes, beside this thread: neither may keep the next segment waiting.
    janitor: Option<JoinHandle<()>>,
    /// Place in the stream of the next event.
    next: u64,
    rows: u64,
    complained: bool,
}

/// Starts the thread; it ends when the sender is dropped.
pub(super) fn start(
    dir: &Path,
    session: Session,
    keep: Keep,
    shared: Arc<Shared>,
    batches: Receiver<Batch>,
) -> std::io::Result<JoinHandle<()>> {
    let mut writer = Writer {
        dir: dir.to_owned(),
        drop_names: session.drop_names(),
        session,
        keep,
        shared,
        encoder: Encoder::default(),
        derived: Derived::default(),
        span: None,
        began: Instant::now(),
        clock: (KtimeNs(0), WallNs(0)),
        names: Names::default(),
        index: Index::default(),
        stretch: 0,
        unmerged: Vec::new(),
        janitor: None,
        next: 0,
        rows: 0,
        complained: false,
    };
    let thread = std::thread::Builder::new().name("recorder".to_owned());
    thread.spawn(move || writer.run(&batches))
}

impl Writer {
    fn run(&mut self, batches: &Receiver<Batch>) {
        loop {
            let left = match self.span {
                Some(_) => EVERY.saturating_sub(self.began.elapsed()),
                None => EVERY,
            };
            match batches.recv_timeout(left) {
                Ok(batch) => {
                    self.take(&batch);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let due = self.span.is_some() && self.began.elapsed() >= EVERY;
            if due || self.encoder.rows() >= MOST {
                self.write(false);
            }
        }
        self.write(!self.shared.endless.load(Ordering::Relaxed));
        self.finish_janitor();
        self.tidy();
        self.finish_janitor();
    }

    fn take(&mut self, batch: &Batch) {
        let count = batch.events.len();
        if self.clock.1.0 == 0 {
            let ticks = batch.events.iter();
            let mut ticks = ticks.filter_map(|event| match event {
                Recorded::Tick { ktime, wall } => Some((*ktime, *wall)),
                _ => None,
            });
            self.clock = ticks.next().unwrap_or(self.clock);
            // There is nothing to tell again yet.
            self.stretch = self.clock.1.0 / MERGE_NS;
        }
        if self.span.is_none() && count > 0 {
            self.began = Instant::now();
            self.open(batch.first);
        }
        for (seq, event) in (batch.first..).zip(&batch.events) {
            self.note(event);
            self.encoder.push(Some(seq), event);
            if let Some(span) = &mut self.span {
                span.next = seq + 1;
            }
            self.next = seq + 1;
        }
        if let Some(span) = &mut self.span {
            span.ends = self.clock.1.0;
            if span.begins == 0 {
                span.begins = span.ends;
            }
        }
        for (row, named) in &batch.rows {
            self.derived.row(row, named);
        }
        self.shared.queued.fetch_sub(count, Ordering::Relaxed);
    }

    /// Begins a segment whose first event is `first`; the first of a stretch tells all names again.
    fn open(&mut self, first: u64) {
        self.span = Some(Span {
            first,
            next: first,
            begins: self.clock.1.0,
            ends: self.clock.1.0,
            last: false,
        });
        let stretch = self.clock.1.0 / MERGE_NS;
        if stretch == self.stretch {
            return;
        }
        self.stretch = stretch;
        if self.janitor.as_ref().is_none_or(JoinHandle::is_finished) {
            self.finish_janitor();
            self.tidy();
        }
        for (location, name) in &self.drop_names.symbols {
            let event = Recorded::Symbol {
                location: *location,
                name: name.as_str().into(),
            };
            self.encoder.push(None, &event);
        }
        for change in changes::all(&self.index, self.clock.1) {
            self.encoder.push(None, &Recorded::Change(change));
        }
        for totals in self.names.conntrack_totals() {
            self.encoder.push(None, &Recorded::Conntrack(totals));
        }
        for name in self.names.all() {
            self.encoder.push(None, &Recorded::Name(name));
        }
    }

    /// What of an event is needed later.
    fn note(&mut self, event: &Recorded) {
        match event {
            Recorded::Tick { ktime, wall } => {
                self.clock = (*ktime, *wall);
                self.names.tick(*wall);
            }
            Recorded::Symbol { location, name } => {
                let symbols = &mut self.drop_names.symbols;
                symbols.insert(*location, name.to_string());
            }
            Recorded::Name(name) => self.names.learn(name),
            Recorded::Change(change) => self.index.apply(change.clone()),
            Recorded::Conntrack(totals) => {
                self.names.count(totals);
            }
            Recorded::Fact(Fact::Packet(packet)) => {
                let wall = wall_at(self.clock, packet.ktime);
                self.derived.packet(packet, wall, &self.drop_names);
            }
            Recorded::Fact(_) | Recorded::Loss(_) | Recorded::Counted(_) => {}
        }
    }

    fn write(&mut self, last: bool) {
        if self.span.is_none() && !last {
            return;
        }
        // An end without events is an end.
        let (next, now) = (self.next, self.clock.1.0);
        let span = self.span.take().unwrap_or(Span {
            first: next,
            next,
            begins: now,
            ends: now,
            last,
        });
        let span = Span { last, ..span };
        let events = self.encoder.finish();
        let count = span.next - span.first;
        if !self.segment(Table::Events, &span, events) {
            self.shared.unwritten.fetch_add(count, Ordering::Relaxed);
        }
        let tables = [
            (Table::Exchanges, self.derived.exchanges.take()),
            (Table::Connections, self.derived.connections.take()),
            (Table::Drops, self.derived.drops.take()),
        ];
        for (table, taken) in tables {
            let Some((rows, (begins, ends))) = taken else {
                continue;
            };
            let first = self.rows;
            self.rows += rows.num_rows() as u64;
            let span = Span {
                first,
                next: self.rows,
                begins: begins.0,
                ends: ends.0,
                last: false,
            };
            self.segment(table, &span, rows);
        }
    }

    /// Writes one segment; whether it is written. A full disk may have room again later.
    fn segment(&mut self, table: Table, span: &Span, rows: RecordBatch) -> bool {
        let (node, begins) = (&self.session.node, WallNs(span.begins));
        let dir = segment::partition(&self.dir, table, node, begins);
        let name = segment::file_name(&self.session.id, span.first);
        match segment::write(&dir, &name, &self.session, span, [Ok(rows)]) {
            Ok(_) => {
                let path = dir.join(format!("{name}.parquet"));
                self.unmerged.push((table, path));
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    warn!(dir = %dir.display(), %error, "a segment could not be written: is there room? what it held is lost");
                }
                false
            }
        }
    }

    /// Has the segments of the last stretch made one, and old ones removed.
    fn tidy(&mut self) {
        let unmerged = std::mem::take(&mut self.unmerged);
        let (dir, session) = (self.dir.clone(), self.session.clone());
        let (keep, now) = (self.keep, self.clock.1);
        let tidy = move || {
            // Of a thread alone, on Linux; what is refused is done at the usual pace.
            let _ = rustix::process::setpriority_process(None, 10);
            merge(&session, &unmerged);
            keep::apply(&dir, &session.node, keep, now);
        };
        let thread = std::thread::Builder::new().name("recorder tidy".to_owned());
        self.janitor = thread.spawn(tidy).ok();
    }

    fn finish_janitor(&mut self) {
        if let Some(janitor) = self.janitor.take()
            && janitor.join().is_err()
        {
            warn!("segments stay apart");
        }
    }
}

/// Makes one segment of several, table by table.
fn merge(session: &Session, unmerged: &[(Table, PathBuf)]) {
    for table in Table::ALL {
        let files = unmerged.iter().filter(|(of, _)| *of == table);
        let files: Vec<_> = files.map(|(_, path)| path.clone()).collect();
        // A stretch lies within one hour, and so in one folder, but for rows that began before.
        for files in files.chunk_by(|a, b| a.parent() == b.parent()) {
            let dir = files.first().and_then(|file| file.parent());
            if let Some(dir) = dir
                && files.len() > 1
                && let Err(error) = segment::merge(dir, session, files)
            {
                warn!(dir = %dir.display(), %error, "segments stay apart");
            }
        }
    }
}
