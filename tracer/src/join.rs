//! One exchange as several nodes saw it: which of their rows belong together, how far their clocks are
//! apart, and the one row that they make.
//!
//! A node that sends a query to another sees it leave and its answer come; the other sees the query come
//! and the answer leave. The four times bound the offset of the two clocks, whatever the way took
//! (RFC 5905, section 8): no packet comes before it was sent.

mod clocks;
mod merge;

pub use self::{
    clocks::{Clocks, Matches},
    merge::merge,
};

use std::{
    hash::{Hash as _, Hasher as _},
    net::SocketAddr,
};

use rustc_hash::FxHasher;

use crate::model::{
    Dns, Flow, Outcome, Row, WallNs,
    journey::{Point, Side, Stage},
};

/// What a query is known by on its way between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    client: SocketAddr,
    server: SocketAddr,
    id: u16,
    /// Hash of what is asked.
    question: u64,
}

impl Key {
    fn new(dns: &Dns, flow: Flow) -> Self {
        let mut hash = FxHasher::default();
        dns.name
            .as_deref()
            .map(str::to_ascii_lowercase)
            .hash(&mut hash);
        (dns.qtype, dns.protocol).hash(&mut hash);
        Self {
            client: flow.src,
            server: flow.dst,
            id: dns.id,
            question: hash.finish(),
        }
    }
}

/// A query on its way from one node to another, as one of them saw it; times are that node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// What it is known by.
    pub key: Key,
    /// Number of its row.
    pub serial: u64,
    /// When the query left, or came.
    pub begin: WallNs,
    /// When the answer came back, or left; `None` when none did.
    pub end: Option<WallNs>,
}

/// What a row tells of a query that left its node.
pub fn sent(row: &Row) -> Option<Crossing> {
    let (dns, journey) = (dns(row)?, row.journey()?);
    let wire = journey.spans().find(|(step, ..)| step.stage == Stage::Wire);
    let (left, came) = match wire {
        Some((_, left, came)) => (left, Some(came)),
        None if dns.outcome != Outcome::Answered => (journey.last(), None),
        None => return None,
    };
    if left.side != Side::Queued {
        return None;
    }
    let key = Key::new(dns, journey.flow(left)?);
    Some(crossing(dns, key, left, came))
}

/// What a row tells of a query that came from another node.
pub fn taken(row: &Row) -> Option<Crossing> {
    let (dns, journey) = (dns(row)?, row.journey()?);
    let (came, last) = (journey.start, journey.last());
    if came.side != Side::Received || dns.client.netns.is_some() {
        return None;
    }
    let answered = dns.outcome == Outcome::Answered && last.side == Side::Queued;
    let key = Key::new(dns, journey.flow(came)?);
    Some(crossing(dns, key, came, answered.then_some(last)))
}

fn dns(row: &Row) -> Option<&Dns> {
    match row {
        Row::Dns(dns) => Some(dns),
        Row::Connection(_) => None,
    }
}

fn crossing(dns: &Dns, key: Key, begin: Point, end: Option<Point>) -> Crossing {
    Crossing {
        key,
        serial: dns.serial,
        begin: wall(dns, begin),
        end: end.map(|end| wall(dns, end)),
    }
}

/// When a packet was at `point`, by the wall clock of its node.
fn wall(dns: &Dns, point: Point) -> WallNs {
    let since = point.ktime.0.wrapping_sub(dns.ktime.0).cast_signed();
    WallNs(dns.wall.0.saturating_add(since))
}
