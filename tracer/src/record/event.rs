//! `Recorded`: one event of the stream, owned; what a recording is made of.

use std::sync::Arc;

use crate::model::{
    ClusterChange, Event, Fact, KtimeNs, Losses, Name, WallNs,
    conntrack::{ConntrackChange, ConntrackTotals},
};

/// An event as it is recorded.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all events are facts; a box for each would cost more than the room"
)]
#[derive(Clone, Debug)]
pub enum Recorded {
    /// Something seen in the kernel.
    Fact(Fact),
    /// Both clocks at one moment; a batch of events ends with one.
    Tick {
        /// Kernel time.
        ktime: KtimeNs,
        /// Wall-clock time.
        wall: WallNs,
    },
    /// What was lost since the last such event.
    Loss(Losses),
    /// The name of kernel code.
    Symbol {
        /// Its address.
        location: u64,
        /// Symbol and offset.
        name: Arc<str>,
    },
    /// What conntrack counted in one namespace.
    Counted(ConntrackChange),
    /// What one namespace's conntrack adds up to by now.
    Conntrack(ConntrackTotals),
    /// What the API server said.
    Change(ClusterChange),
    /// Who or what something was found to be.
    Name(Name),
}

impl Recorded {
    /// Whether later events make no sense without it.
    pub(super) fn is_told_once(&self) -> bool {
        match self {
            Self::Name(_) | Self::Symbol { .. } | Self::Change(_) => true,
            Self::Fact(_)
            | Self::Tick { .. }
            | Self::Loss(_)
            | Self::Counted(_)
            | Self::Conntrack(_) => false,
        }
    }

    /// As the correlator takes it; `None` for what it has no use for.
    pub fn event(&self) -> Option<Event<'_>> {
        Some(match self {
            Self::Fact(fact) => Event::Fact(fact),
            Self::Tick { ktime, wall } => Event::Tick {
                ktime: *ktime,
                wall: *wall,
            },
            Self::Loss(losses) => Event::Loss(*losses),
            Self::Symbol { location, name } => Event::Symbol {
                location: *location,
                name,
            },
            Self::Counted(change) => Event::Counted(change),
            Self::Name(_) | Self::Change(_) | Self::Conntrack(_) => return None,
        })
    }
}

impl From<Event<'_>> for Recorded {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Fact(fact) => Self::Fact(fact.clone()),
            Event::Tick { ktime, wall } => Self::Tick { ktime, wall },
            Event::Loss(losses) => Self::Loss(losses),
            Event::Counted(change) => Self::Counted(*change),
            Event::Symbol { location, name } => Self::Symbol {
                location,
                name: name.into(),
            },
        }
    }
}
