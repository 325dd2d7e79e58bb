//! `Verdict`: whether a connection's backend is one that the API objects allow, at its time.

use std::time::Duration;

/// What is said of a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// To an endpoint that is to get traffic.
    Right,
    /// To one that left so long before.
    Stale(Duration),
    /// To one that the Service never had, as far as is remembered.
    NotAnEndpoint,
    /// To one that is not ready.
    NotReady,
    /// To one that is terminating, while others are ready.
    Terminating,
    /// To another node's, although the traffic policy is Local.
    WrongByPolicy,
    /// To one that topology hints leave to other nodes.
    WrongByHints,
}

impl Verdict {
    /// The word for it, in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Stale(_) => "stale",
            Self::NotAnEndpoint => "not_an_endpoint",
            Self::NotReady => "not_ready",
            Self::Terminating => "terminating",
            Self::WrongByPolicy => "wrong_by_policy",
            Self::WrongByHints => "wrong_by_hints",
        }
    }

    /// What is wrong, in words; `None` when nothing is.
    pub fn words(self) -> Option<String> {
        Some(match self {
            Self::Right => return None,
            Self::Stale(since) => format!("stale: left {} s before", since.as_secs()),
            Self::NotAnEndpoint => "not an endpoint of the Service".to_owned(),
            Self::NotReady => "not ready".to_owned(),
            Self::Terminating => "terminating while others are ready".to_owned(),
            Self::WrongByPolicy => "on another node, although the policy is Local".to_owned(),
            Self::WrongByHints => "left to other nodes by topology hints".to_owned(),
        })
    }
}
