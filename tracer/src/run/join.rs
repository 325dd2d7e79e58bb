//! Recordings of several nodes as one story. They are replayed twice: first to find how far the nodes'
//! clocks are apart and which rows are of one exchange; then side by side, by the first node's clock.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    time::Duration,
};

use anyhow::Result;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    feed::{Feed, settings},
    names::Names,
    progress::Progress,
    replay::{Batches, learn},
    shown::Shown,
};
use crate::{
    correlate::is_asked_for,
    join::{Clocks, Matches, merge, sent, taken},
    model::{Losses, Named, Row, WallNs, trace::Unplaced},
    record::{self, Recorded, Recording, Session, Stream},
    redact::Redactor,
};

/// How much longer than a query may go unanswered its other row may take.
const GRACE: i64 = 4_000_000_000;

/// Names of the nodes that sessions are of, in order.
pub(super) fn nodes(sessions: &[Stream]) -> Vec<String> {
    let mut nodes: Vec<_> = sessions.iter().map(|of| of.session.node.clone()).collect();
    nodes.sort();
    nodes.dedup();
    nodes
}

/// A session being replayed.
struct Player {
    node: usize,
    session: Session,
    stream: Stream,
    feed: Feed,
    names: Names<record::Names>,
    batches: Batches,
    /// The next event, which waits for other sessions.
    next: Option<Recorded>,
    /// The latest tick, by the first node's clock.
    now: WallNs,
}

impl Player {
    fn new(stream: Stream, nodes: &[String], redactor: Option<&mut Redactor>) -> Self {
        let node = nodes.iter().position(|node| *node == stream.session.node);
        let session = match redactor {
            Some(redactor) => redactor.session(&stream.session),
            None => stream.session.clone(),
        };
        let mut settings = settings(&session);
        // Ways are what rows are joined by; the node of a backend sees no translation.
        settings.paths = true;
        settings.direct = true;
        Self {
            node: node.unwrap_or(0),
            now: stream.begins,
            feed: Feed::new(settings, None),
            names: Names::new(record::Names::default(), session.api.clone(), session.rules),
            batches: Batches::default(),
            next: None,
            session,
            stream,
        }
    }

    /// Replays on until a batch is over that finished rows, or time has come further than `until`; whether there
    /// is more.
    fn play(
        &mut self,
        clocks: &Clocks,
        redactor: &mut Option<Redactor>,
        rows: &mut Vec<(Row, Named)>,
        until: WallNs,
        mut each: impl FnMut(),
    ) -> bool {
        loop {
            let waited = self.next.take();
            let is_new = waited.is_none();
            let Some(event) = waited.or_else(|| self.stream.next()) else {
                return false;
            };
            if is_new && self.batches.end_before(&event) {
                self.rows(rows);
                if self.now > until {
                    self.next = Some(event);
                    return true;
                }
            }
            let event = match redactor {
                Some(redactor) => redactor.event(event),
                None => event,
            };
            if let Recorded::Tick { wall, .. } = event {
                self.now = clocks.common(self.node, wall);
            }
            if let Some(event) = event.event() {
                self.feed.apply(event);
            }
            learn(&mut self.names, event);
            each();
        }
    }

    fn rows(&mut self, rows: &mut Vec<(Row, Named)>) {
        for row in self.feed.rows.drain(..) {
            let named = self.names.of(&row);
            rows.push((row, named));
        }
    }

    fn finish(&mut self, rows: &mut Vec<(Row, Named)>) -> (Unplaced, Losses) {
        let ended = self.feed.finish();
        self.rows(rows);
        ended
    }
}

/// What the first replay finds.
fn compare(
    dirs: &[PathBuf],
    nodes: &[String],
    progress: &mut Progress,
    all: u64,
) -> Result<Clocks> {
    let mut clocks = Clocks::new(nodes.len());
    let mut done = 0;
    for (number, stream) in Recording::open(dirs)?.sessions.into_iter().enumerate() {
        let mut player = Player::new(stream, nodes, None);
        let mut more = true;
        while more {
            let mut rows = Vec::new();
            let none = Clocks::new(nodes.len());
            more = player.play(&none, &mut None, &mut rows, WallNs(i64::MIN), || {
                done += 1;
                progress.part(done, 2 * all);
            });
            if !more {
                player.finish(&mut rows);
            }
            for (row, _) in &rows {
                clocks.add(player.node, number, sent(row), taken(row));
            }
        }
    }
    clocks.compare();
    Ok(clocks)
}

/// A row that waits for its other.
struct Waiting {
    session: usize,
    row: Row,
    named: Named,
}

/// Replays `sessions` of `dirs` together; the length of the longest. What could not be read of them is in their
/// warnings, which are added to `warnings`.
pub(super) fn replay(
    dirs: &[PathBuf],
    sessions: Vec<Stream>,
    redactor: &mut Option<Redactor>,
    warnings: &mut Vec<String>,
    shown: &mut Shown<record::Names>,
) -> Result<Duration> {
    let nodes = nodes(&sessions);
    let all = sessions.iter().map(Stream::events).sum();
    let mut progress = Progress::new("replaying", shown.is_silent());
    let clocks = compare(dirs, &nodes, &mut progress, all)?;
    let matches = clocks.matches();
    let mut players: Vec<_> = sessions
        .into_iter()
        .map(|stream| Player::new(stream, &nodes, redactor.as_mut()))
        .collect();
    let shown_nodes: Vec<_> = nodes
        .iter()
        .enumerate()
        .map(|(node, name)| {
            let of = players.iter().find(|player| player.node == node);
            of.map_or_else(|| name.clone(), |player| player.session.node.clone())
        })
        .collect();
    let reference = shown_nodes.first().cloned().unwrap_or_default();
    let others = shown_nodes.iter().enumerate().skip(1);
    shown.trace.clocks = others
        .map(|(node, name)| clocks.offset(node, name, &reference))
        .collect();
    let mut together = Together {
        hold: hold(&players),
        taken: matches.values().copied().collect(),
        matches,
        clocks,
        nodes: shown_nodes,
        node_of: players.iter().map(|player| player.node).collect(),
        asked: players
            .iter()
            .map(|player| player.session.asked.clone())
            .collect(),
        waiting: BTreeMap::new(),
        came: FxHashMap::default(),
    };
    for player in &mut players {
        player.now = together.clocks.common(player.node, player.now);
        shown.unseen(&player.session.unseen);
    }
    let mut done = all;
    let mut length = Duration::ZERO;
    let mut order: VecDeque<usize> = (0..players.len()).collect();
    while !order.is_empty() {
        // The one that is furthest behind plays until the next is.
        order
            .make_contiguous()
            .sort_by_key(|at| (players[*at].now, *at));
        let first = order[0];
        let until = order
            .get(1)
            .map_or(WallNs(i64::MAX), |next| players[*next].now);
        let player = &mut players[first];
        let mut rows = Vec::new();
        let more = player.play(&together.clocks, redactor, &mut rows, until, || {
            done += 1;
            progress.part(done, 2 * all);
        });
        if !more {
            let (unplaced, losses) = player.finish(&mut rows);
            shown.trace.unplaced.add(&unplaced);
            shown.trace.losses.add(&losses);
            length = length.max(player.feed.length());
            shown.names = std::mem::replace(
                &mut player.names,
                Names::new(record::Names::default(), None, false),
            );
            shown.tables();
            warnings.append(&mut player.stream.warnings);
            order.pop_front();
        }
        for (row, named) in rows {
            together.take(first, row, named);
        }
        let now = order.iter().map(|at| players[*at].now).min();
        together.show(now.unwrap_or(WallNs(i64::MAX)), shown)?;
    }
    Ok(length)
}

/// How long rows wait.
fn hold(players: &[Player]) -> i64 {
    let longest = players
        .iter()
        .map(|player| player.session.asked.unanswered_after_ns);
    longest
        .max()
        .unwrap_or(0)
        .cast_signed()
        .saturating_add(GRACE)
}

struct Together {
    clocks: Clocks,
    matches: Matches,
    /// Rows that are part of another's.
    taken: FxHashSet<(usize, u64)>,
    nodes: Vec<String>,
    /// By session.
    node_of: Vec<usize>,
    asked: Vec<record::Asked>,
    hold: i64,
    /// By when they began, in the first node's time.
    waiting: BTreeMap<(WallNs, usize, u64), Waiting>,
    /// Rows that are part of another's, which waits.
    came: FxHashMap<(usize, u64), (Row, Named)>,
}

impl Together {
    fn take(&mut self, session: usize, row: Row, named: Named) {
        let key = (session, row.serial());
        if self.taken.contains(&key) {
            self.came.insert(key, (row, named));
            return;
        }
        if let Row::Connection(connection) = &row
            && !is_asked_for(connection, &self.asked[session].vips)
        {
            return;
        }
        let begin = self.clocks.common(self.node_of[session], row.wall());
        let waiting = Waiting {
            session,
            row,
            named,
        };
        self.waiting.insert((begin, session, key.1), waiting);
    }

    /// Shows what began so long before `now` that all of it is there.
    fn show(&mut self, now: WallNs, shown: &mut Shown<record::Names>) -> Result<()> {
        let until = now.0.saturating_sub(self.hold);
        while let Some(entry) = self.waiting.first_entry()
            && (entry.key().0.0 < until || now.0 == i64::MAX)
        {
            let Waiting {
                session,
                mut row,
                mut named,
            } = entry.remove();
            self.complete(session, &mut row, &mut named);
            if !self.asked[session].paths {
                row.forget_journey();
            }
            shown.row(&self.asked[session], &row, &named)?;
        }
        Ok(())
    }

    /// Adds what other nodes saw of it, one after the other.
    fn complete(&mut self, session: usize, row: &mut Row, named: &mut Named) {
        let mut key = (session, row.serial());
        while let Some(next) = self.matches.get(&key) {
            let Some((other, other_named)) = self.came.remove(next) else {
                return;
            };
            let node = self.node_of[next.0];
            let ahead = |node: usize, wall: WallNs| wall.0 - self.clocks.common(node, wall).0;
            let by = ahead(node, other.wall()) - ahead(self.node_of[session], row.wall());
            merge(row, named, &other, &other_named, &self.nodes[node], by);
            key = *next;
        }
    }
}
