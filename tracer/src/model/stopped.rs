//! `Stopped`: where an exchange that came to no good end was seen last.

use super::journey::{Leg, Point, Stage};

/// The last sight of an exchange without a good end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The packet that was under way, or awaited.
    pub leg: Leg,
    /// The stage that it passed last; `None` where paths are not wanted, and where it was seen at
    /// one place only.
    pub stage: Option<Stage>,
    /// Where and when; [`Point::flow`] means nothing here.
    pub at: Point,
}
