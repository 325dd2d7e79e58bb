//! One exchange as several nodes saw it: which of their rows belong together, how far their clocks are
//! apart, and the one row that they make.
//!
//! A node that sends a query, or a connection's first packet, to another sees it leave and its answer come; the
//! other sees the one come and the other leave. The four times bound the offset of the two clocks, whatever the way took
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
    Flow, Outcome, Row, WallNs,
    journey::{Point, Side, Stage, Step},
};

/// What a query or a connection is known by on its way between nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    client: SocketAddr,
    server: SocketAddr,
    /// Of DNS.
    id: u16,
    /// Hash of what is asked, and over which protocol.
    question: u64,
}

impl Key {
    fn new(row: &Row, flow: Flow) -> Self {
        let mut hash = FxHasher::default();
        let id = match row {
            Row::Dns(dns) => {
                let name = dns.name.as_deref().map(str::to_ascii_lowercase);
                (true, name, dns.qtype, dns.protocol).hash(&mut hash);
                dns.id
            }
            Row::Connection(connection) => {
                (false, connection.protocol).hash(&mut hash);
                0
            }
        };
        Self {
            client: flow.src,
            server: flow.dst,
            id,
            question: hash.finish(),
        }
    }
}

/// A query, or the first packet of a connection, on its way from one node to another, as one of them saw it;
/// times are that node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// What it is known by.
    pub key: Key,
    /// Number of its row.
    pub serial: u64,
    /// When it left, or came.
    pub begin: WallNs,
    /// When its answer came back, or left; `None` when none did.
    pub end: Option<WallNs>,
}

/// What a row tells of what left its node.
pub fn sent(row: &Row) -> Option<Crossing> {
    let journey = row.journey()?;
    let outward = |(step, ..): &(Step, Point, Point)| is_outward(*step);
    let (left, came) = match journey.spans().find(outward) {
        Some((_, left, came)) => (left, Some(came)),
        None if row.outcome() != Outcome::Answered => (journey.last(), None),
        None => return None,
    };
    if left.side != Side::Queued {
        return None;
    }
    let key = Key::new(row, journey.flow(left)?);
    Some(crossing(row, key, left, came))
}

/// What a row tells of what came from another node.
pub fn taken(row: &Row) -> Option<Crossing> {
    let journey = row.journey()?;
    let came = journey.start;
    if came.side != Side::Received || row.client().netns.is_some() {
        return None;
    }
    // A connection goes on after its first answer.
    let next = journey.spans().find(|(step, ..)| is_back(*step));
    let left = match next {
        Some((_, left, _)) => Some(left),
        None => (row.outcome() == Outcome::Answered).then(|| journey.last()),
    };
    let left = left.filter(|left| left.side == Side::Queued);
    let key = Key::new(row, journey.flow(came)?);
    Some(crossing(row, key, came, left))
}

/// Out of the node and back with an answer: at whoever serves.
fn is_outward(step: Step) -> bool {
    step.stage == Stage::Wire && !step.leg.is_forward()
}

/// Out of the node with an answer, until what the client sends next comes.
fn is_back(step: Step) -> bool {
    step.stage == Stage::Wire && step.leg.is_forward()
}

fn crossing(row: &Row, key: Key, begin: Point, end: Option<Point>) -> Crossing {
    Crossing {
        key,
        serial: row.serial(),
        begin: wall(row, begin),
        end: end.map(|end| wall(row, end)),
    }
}

/// When a packet was at `point`, by the wall clock of its node.
fn wall(row: &Row, point: Point) -> WallNs {
    let since = point.ktime.0.wrapping_sub(row.ktime().0).cast_signed();
    WallNs(row.wall().0.saturating_add(since))
}
