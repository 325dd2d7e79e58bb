//! What speaks for one finding: how many rows, when, of whom, and what they show; bounded.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::{At, last_step};
use crate::model::{
    Row, WallNs,
    journey::Step,
    tally::{Kind, Who},
};

/// Most clients, and most sorts of what rows show, that are named.
const NAMED: usize = 64;
const SHOWN: usize = 3;

/// Most rows that are named by number.
const SERIALS: usize = 5;

/// Rows of one finding.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// What its object is called; `None` where that is not known.
    pub(super) name: Option<String>,
    pub(super) rows: u64,
    pub(super) first: Option<WallNs>,
    last: Option<WallNs>,
    serials: Vec<u64>,
    clients: BTreeMap<String, u64>,
    shown: BTreeMap<String, u64>,
    stages: BTreeMap<Step, u64>,
    kinds: BTreeMap<Kind, u64>,
    asked: BTreeMap<String, u64>,
    /// What was asked, and the backends that it became.
    servers: BTreeSet<SocketAddr>,
}

fn count(of: &mut BTreeMap<String, u64>, key: String) {
    if of.len() < NAMED || of.contains_key(&key) {
        *of.entry(key).or_default() += 1;
    }
}

impl Evidence {
    pub(super) fn add(&mut self, row: &Row, client: &Who, shown: String) {
        self.rows += 1;
        let wall = row.wall();
        self.first = Some(self.first.map_or(wall, |first| first.min(wall)));
        self.last = Some(self.last.map_or(wall, |last| last.max(wall)));
        if self.serials.len() < SERIALS {
            self.serials.push(row.serial());
        }
        count(&mut self.clients, client.to_string());
        count(&mut self.shown, shown);
        count(&mut self.asked, row.asked().to_string());
        for server in [Some(row.asked()), row.backend()].into_iter().flatten() {
            if self.servers.len() < NAMED {
                self.servers.insert(server);
            }
        }
        if let Some(step) = last_step(row) {
            *self.stages.entry(step).or_default() += 1;
        }
        *self.kinds.entry(Kind::of(row)).or_default() += 1;
    }

    /// Adds all of `other`, of which a first row is named.
    pub(super) fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.name = self.name.take().or_else(|| other.name.clone());
        self.first = [self.first, other.first].into_iter().flatten().min();
        self.last = self.last.max(other.last);
        self.serials.extend(&other.serials);
        self.serials.sort_unstable();
        self.serials.truncate(SERIALS);
        let words = [
            (&mut self.clients, &other.clients),
            (&mut self.shown, &other.shown),
            (&mut self.asked, &other.asked),
        ];
        for (of, more) in words {
            for (key, rows) in more {
                if of.len() < NAMED || of.contains_key(key) {
                    *of.entry(key.clone()).or_default() += rows;
                }
            }
        }
        for (step, rows) in &other.stages {
            *self.stages.entry(*step).or_default() += rows;
        }
        for (kind, rows) in &other.kinds {
            *self.kinds.entry(*kind).or_default() += rows;
        }
        self.servers.extend(&other.servers);
    }

    /// Whether some of them asked what is at `place`, or were answered there.
    pub(super) fn is_through(&self, place: At) -> bool {
        match place {
            At::Here => false,
            At::Address(ip) => self.servers.iter().any(|server| server.ip() == ip),
            At::Socket(socket) => self.servers.contains(&socket),
        }
    }

    /// The kind of most of them.
    pub(super) fn kind(&self) -> Kind {
        let most = self.kinds.iter().max_by_key(|(_, rows)| **rows);
        most.map_or(Kind::Dns, |(kind, _)| *kind)
    }

    /// The stage that most of them passed last.
    pub(super) fn stage(&self) -> Option<Step> {
        let most = self.stages.iter().max_by_key(|(_, rows)| **rows);
        most.map(|(step, _)| *step)
    }

    /// From the first to the last of them.
    fn when(&self) -> String {
        let (first, last) = (second(self.first), second(self.last));
        if first == last {
            return format!("at {first} UTC");
        }
        // The date once, where it is the same.
        let same_day = first.get(..10) == last.get(..10);
        let end = last.get(11..).filter(|_| same_day).unwrap_or(&last);
        format!("from {first} to {end} UTC")
    }

    /// In words, a line each; `of` is how many rows of the same kind there were.
    pub(super) fn lines(&self, of: u64) -> Vec<String> {
        let kind = match (self.kind(), of) {
            (Kind::Dns, 1) => "query",
            (Kind::Dns, _) => "queries",
            (Kind::Tcp, 1) => "connection",
            (Kind::Tcp, _) => "connections",
            (Kind::Udp, 1) => "flow",
            (Kind::Udp, _) => "flows",
        };
        let rows = self.rows;
        let mut lines = vec![format!("{rows} of {of} {kind}, {}", self.when())];
        let mut shown: Vec<_> = self.shown.iter().collect();
        shown.sort_by_key(|(_, rows)| std::cmp::Reverse(**rows));
        lines.extend(shown.iter().take(SHOWN).map(|(shown, _)| (*shown).clone()));
        let (asked, clients) = (some(&self.asked), some(&self.clients));
        lines.push(format!("{asked} was asked by {clients}"));
        let serials: Vec<_> = self
            .serials
            .iter()
            .map(|serial| format!("#{serial}"))
            .collect();
        lines.push(format!("rows {}", serials.join(", ")));
        lines
    }
}

/// The time to the second, UTC.
fn second(at: Option<WallNs>) -> String {
    let at = i128::from(at.unwrap_or_default().0);
    let time = jiff::Timestamp::from_nanosecond(at).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The three commonest, and how many more there are.
fn some(of: &BTreeMap<String, u64>) -> String {
    let mut all: Vec<_> = of.iter().collect();
    all.sort_by_key(|(_, rows)| std::cmp::Reverse(**rows));
    let named: Vec<_> = all.iter().take(3).map(|(name, _)| name.as_str()).collect();
    match all.len().saturating_sub(3) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
