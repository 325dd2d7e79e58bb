//! Whether the API server is heard: said once when it no longer is, and once when it is again.

use std::time::Duration;

use crate::model::{Index, WallNs, change::Kind, index::Standing};

/// How long nothing is heard before it is said: one that is restarted is back soon.
const SOON: Duration = Duration::from_secs(2);

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    lost: bool,
}

impl Hearing {
    /// What is to be said at `now` of the API server at `server`.
    pub(super) fn news(&mut self, server: &str, index: &Index, now: WallNs) -> Option<String> {
        let lost = Kind::ALL
            .into_iter()
            .find_map(|kind| match index.standing(kind) {
                Standing::Lost { since, why, listed } => Some((since, why, listed)),
                Standing::Awaited | Standing::Watched { .. } => None,
            });
        match lost {
            Some((since, why, listed)) if !self.lost => {
                let silent = u64::try_from(now.0 - since.0).unwrap_or_default();
                if Duration::from_nanos(silent) < SOON {
                    return None;
                }
                self.lost = true;
                let names = if listed {
                    "names are those it told before, with their age"
                } else {
                    "names are those this node knows"
                };
                Some(format!("API server {server} is not heard: {why}; {names}"))
            }
            None if self.lost => {
                self.lost = false;
                Some(format!("API server {server} is heard again"))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Change, ClusterChange};

    #[test]
    fn what_changes_is_said_once_and_what_is_over_soon_not_at_all() {
        let (mut index, mut hearing) = (Index::default(), Hearing::default());
        let second = |at: i64| WallNs(at * 1_000_000_000);
        let mut at = |when: i64, what: Option<Change>| {
            if let Some(what) = what {
                let at = second(when);
                index.apply(ClusterChange { at, what });
            }
            hearing.news("https://192.0.2.10:6443", &index, second(when))
        };
        let kind = Kind::Pods;
        let why = "Unauthorized (HTTP 401)".into();
        assert_eq!(at(1, Some(Change::Listing { kind, own: false })), None);
        assert_eq!(at(2, Some(Change::Listed(kind))), None);
        assert_eq!(at(3, Some(Change::Lost { kind, why })), None);
        assert_eq!(at(4, Some(Change::Heard(kind))), None);
        let why = "Unauthorized (HTTP 401)".into();
        assert_eq!(at(5, Some(Change::Lost { kind, why })), None);
        assert_eq!(
            at(7, None).as_deref(),
            Some(
                "API server https://192.0.2.10:6443 is not heard: Unauthorized (HTTP 401); names are those it told before, with their age"
            )
        );
        assert_eq!(at(8, None), None);
        assert_eq!(
            at(9, Some(Change::Heard(kind))).as_deref(),
            Some("API server https://192.0.2.10:6443 is heard again")
        );
        assert_eq!(at(10, None), None);
    }
}
