//! Reading a recording: finds its segments, puts them in order, and says what is missing. What
//! cannot be read is passed over with a warning; all the rest is used.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use super::{
    batches::Batches,
    decode::Decoder,
    event::Recorded,
    segment::{self, Table},
    session::{SCHEMA, Session, Span},
};
use crate::model::{Losses, WallNs};

/// Rows decoded at a time.
const BATCH: usize = 8192;

/// Why a recording cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody is there.
    #[error("{0} is no directory: give one that `tracer record` wrote")]
    NoDirectory(PathBuf),
    /// Nothing to read.
    #[error("{0} holds no recording that can be read")]
    Nothing(PathBuf),
}

/// What several directories hold.
#[derive(Debug)]
pub struct Recording {
    /// Sessions by node, then in order of time.
    pub sessions: Vec<Stream>,
    /// What could not be read, a line each, with the remedy.
    pub warnings: Vec<String>,
}

/// Files of one session, by place.
type Found = BTreeMap<(String, String), (Session, Vec<Segment>)>;

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    span: Span,
}

impl Recording {
    /// Finds what `dirs` hold.
    ///
    /// # Errors
    /// One of them is no directory, or holds nothing that can be read.
    pub fn open(dirs: &[PathBuf]) -> Result<Self, Error> {
        let (mut found, mut warnings) = (Found::new(), Vec::new());
        for dir in dirs {
            if !dir.is_dir() {
                return Err(Error::NoDirectory(dir.clone()));
            }
            let before: usize = found.values().map(|(_, segments)| segments.len()).sum();
            let events = dir.join(Table::Events.name());
            let root = if events.is_dir() { &events } else { dir };
            let mut files = Vec::new();
            list(root, &mut files);
            files.sort();
            for file in files {
                look_at(file, &mut found, &mut warnings);
            }
            let after: usize = found.values().map(|(_, segments)| segments.len()).sum();
            if before == after && warnings.is_empty() {
                return Err(Error::Nothing(dir.clone()));
            }
        }
        let sessions = found.into_values();
        let sessions = sessions
            .map(|(session, segments)| Stream::new(session, segments, &mut warnings))
            .collect();
        Ok(Self { sessions, warnings })
    }
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            list(&path, files);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            files.push(path);
        }
    }
}

fn look_at(path: PathBuf, found: &mut Found, warnings: &mut Vec<String>) {
    let shown = path.display();
    match segment::open(&path) {
        Err(error) => warnings.push(format!(
            "{shown} is truncated or corrupt ({error}): what it held is missing; copy it again, or remove it"
        )),
        Ok(None) => warnings.push(format!("{shown} is no segment of a recording: move it away")),
        Ok(Some((footer, _))) if footer.schema > SCHEMA => warnings.push(format!(
            "{shown} was written by a newer tracer (schema {}, this one reads {SCHEMA}): read it with that one",
            footer.schema
        )),
        Ok(Some((footer, _))) => {
            let (session, span) = (footer.session, footer.span);
            let key = (session.node.clone(), session.id.clone());
            let (_, segments) = found.entry(key).or_insert((session, Vec::new()));
            segments.push(Segment { path, span });
        }
    }
}

/// The events of one session, in order. What is missing among them is a loss.
#[derive(Debug)]
pub struct Stream {
    /// How it was recorded.
    pub session: Session,
    /// Wall-clock time of the first event.
    pub begins: WallNs,
    /// Wall-clock time of the last event.
    pub ends: WallNs,
    /// Its recorder ended as it was told.
    pub ended: bool,
    /// What could not be read meanwhile, a line each.
    pub warnings: Vec<String>,
    segments: VecDeque<Segment>,
    open: Option<Open>,
    /// Place in the stream of the next event.
    next: Option<u64>,
    /// Events missing before the next.
    missing: u64,
    /// Nothing was missed so far, so that what is repeated says nothing new.
    whole: bool,
}

/// A segment being read.
#[derive(Debug)]
struct Open {
    segment: Segment,
    batches: Batches,
    batch: Option<Decoder>,
}

impl Stream {
    fn new(session: Session, mut segments: Vec<Segment>, warnings: &mut Vec<String>) -> Self {
        // Of two that begin at one place the longer one was made of the shorter one.
        segments.sort_by_key(|segment| (segment.span.first, u64::MAX - segment.span.next));
        let mut reached = 0;
        segments.retain(|segment| {
            let news = segment.span.next > reached || segment.span.next == segment.span.first;
            reached = reached.max(segment.span.next);
            news
        });
        let last = segments.last().map(|segment| segment.span);
        let ends = WallNs(last.map_or(0, |span| span.ends));
        let ended = last.is_some_and(|span| span.last);
        if !ended {
            warnings.push(format!(
                "the recording {} of {} has no end: its recorder was killed, found no room, or runs still; what came within a second after {} is missing",
                session.id,
                session.node,
                time(ends),
            ));
        }
        Self {
            session,
            begins: WallNs(segments.first().map_or(0, |segment| segment.span.begins)),
            ends,
            ended,
            warnings: Vec::new(),
            segments: segments.into(),
            open: None,
            next: None,
            missing: 0,
            whole: false,
        }
    }

    /// How many events it has, those that are missing among them.
    pub fn events(&self) -> u64 {
        let spans = self.segments.iter().map(|segment| segment.span);
        spans.map(|span| span.next.saturating_sub(span.first)).sum()
    }

    /// The next event of the segment that is open; `None` when it is over.
    fn of_open(&mut self) -> Option<(Option<u64>, Recorded)> {
        let open = self.open.as_mut()?;
        loop {
            if let Some(batch) = &mut open.batch {
                if let Some(event) = batch.next() {
                    return Some(event);
                }
                self.missing += batch.unknown;
                open.batch = None;
            }
            match open.batches.next()? {
                Ok(batch) => open.batch = Some(Decoder::new(&batch)),
                Err(error) => {
                    self.warnings.push(format!(
                        "{} is corrupt within ({error}): the rest of it is missing; copy it again",
                        open.segment.path.display()
                    ));
                    return None;
                }
            }
        }
    }

    /// Opens the next segment that can be opened; whether there is one.
    fn open_next(&mut self) -> bool {
        while let Some(segment) = self.segments.pop_front() {
            let batches = segment::open(&segment.path).and_then(|found| {
                let (_, file) = found.ok_or(segment::Error::NoSegment)?;
                let filled = segment::filled(file.metadata());
                Batches::of(file.with_projection(filled).with_batch_size(BATCH))
            });
            match batches {
                Ok(batches) => {
                    self.whole = self.next == Some(segment.span.first);
                    self.open = Some(Open {
                        segment,
                        batches,
                        batch: None,
                    });
                    return true;
                }
                Err(error) => self.warnings.push(format!(
                    "{} cannot be read any more ({error}): what it held is missing",
                    segment.path.display()
                )),
            }
        }
        false
    }
}

impl Iterator for Stream {
    type Item = Recorded;

    fn next(&mut self) -> Option<Recorded> {
        loop {
            let Some((seq, event)) = self.of_open() else {
                if let Some(Open { segment, .. }) = self.open.take() {
                    // The segment may have had more to tell than could be read.
                    let reached = self.next.unwrap_or(segment.span.first);
                    self.missing += segment.span.next.saturating_sub(reached);
                    self.next = Some(segment.span.next);
                }
                if self.missing > 0 {
                    return Some(missing(&mut self.missing));
                }
                if self.open_next() {
                    continue;
                }
                return None;
            };
            if let Some(seq) = seq {
                let expected = self.next.unwrap_or(seq);
                self.missing += seq.saturating_sub(expected);
                self.next = Some(seq.saturating_add(1));
            } else if self.whole {
                continue;
            }
            return Some(event);
        }
    }
}

fn missing(count: &mut u64) -> Recorded {
    Recorded::Loss(Losses {
        unrecorded: std::mem::take(count),
        ..Losses::default()
    })
}

/// RFC 3339 in UTC, to the millisecond.
fn time(wall: WallNs) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(wall.0))
        .map_or_else(|_| "?".to_owned(), |time| format!("{time:.3}"))
}
