//! Two packets that raced for one conntrack entry.

use serde::Serialize;

use super::End;
use crate::model::{Conntrack, Flow, insert::Clash};

/// The race, and both entries.
#[derive(Serialize)]
pub(super) struct ClashLine {
    resolved: bool,
    own: EntryLine,
    other: EntryLine,
}

/// An entry: its two tuples.
#[derive(Serialize)]
struct EntryLine {
    original: TupleLine,
    reply: TupleLine,
}

#[derive(Serialize)]
struct TupleLine {
    src: End,
    dst: End,
}

impl From<&Clash> for ClashLine {
    fn from(clash: &Clash) -> Self {
        Self {
            resolved: clash.resolved,
            own: clash.own.into(),
            other: clash.other.into(),
        }
    }
}

impl From<Conntrack> for EntryLine {
    fn from(entry: Conntrack) -> Self {
        Self {
            original: entry.original.into(),
            reply: entry.reply.into(),
        }
    }
}

impl From<Flow> for TupleLine {
    fn from(flow: Flow) -> Self {
        Self {
            src: flow.src.into(),
            dst: flow.dst.into(),
        }
    }
}
