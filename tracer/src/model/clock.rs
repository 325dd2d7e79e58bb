//! How far one node's clock is ahead of another's, where recordings of several are told together.

use std::sync::Arc;

/// What is known of a node's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockOffset {
    /// Whose clock.
    pub node: Arc<str>,
    /// Compared with whose.
    pub reference: Arc<str>,
    /// By how many nanoseconds it is ahead: the least and the most that was found, the same unless it was
    /// set or drifts. `None` where no exchange was seen on both.
    pub ahead_ns: Option<(i64, i64)>,
    /// The offset may be wrong by that much.
    pub uncertainty_ns: Option<i64>,
    /// Exchanges that it follows from.
    pub exchanges: u64,
}
