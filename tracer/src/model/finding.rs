//! `Finding`: something wrong, in the words of the person who must mend it. What `verify`,
//! `diagnose` and `doctor` come to.

use super::{ids::WallNs, journey::Step};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Works, but not as asked, or not for long.
    Warning,
    /// Traffic is lost, refused, or goes where it must not.
    Broken,
}

impl Severity {
    /// The word for it, in text and JSON alike.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Broken => "broken",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The name that `tracer explain` takes, such as `stale_conntrack`.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The object concerned, such as `Service shop/web, port http`, or a node's file.
    pub object: String,
    /// What is wrong, in one sentence without the full stop.
    pub sentence: String,
    /// Where packets stop or are late because of it; `None` when it is about no packet.
    pub stage: Option<Step>,
    /// What was seen that says so, a line each: what was expected and what was found, rules,
    /// rows, counts, first and last time.
    pub evidence: Vec<String>,
    /// Since when; `None` when that is not known.
    pub since: Option<WallNs>,
    /// The share of the traffic looked at that is hit, 0 to 1; `None` when none was looked at.
    pub share: Option<f64>,
    /// What to do, as a command or an edit.
    pub remedy: String,
    /// What would show that this is not it; empty when it is certain.
    pub refuted_by: String,
}
