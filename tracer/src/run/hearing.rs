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
        let standings = Kind::ALL.map(|kind| index.standing(kind));
        let is_lost = |standing: &Standing| matches!(standing, Standing::Lost { .. });
        let all = standings.iter().all(is_lost);
        // What alone never came is forbidden to whoever asks: the summary says so.
        let lost = standings.into_iter().find_map(|standing| match standing {
            Standing::Lost { since, why, listed } if listed || all => Some((since, why, listed)),
            _ => None,
        });
        match lost {
            Some((since, why, listed)) if !self.lost => {
                if now - since < SOON {
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

    const SERVER: &str = "https://192.0.2.10:6443";

    fn second(at: i64) -> WallNs {
        WallNs(at * 1_000_000_000)
    }

    fn lost(kind: Kind) -> Change {
        let why = "Unauthorized (HTTP 401)".into();
        Change::Lost { kind, why }
    }

    #[test]
    fn what_changes_is_said_once_and_what_is_over_soon_not_at_all() {
        let (mut index, mut hearing) = (Index::default(), Hearing::default());
        let mut at = |when: i64, what: Option<Change>| {
            if let Some(what) = what {
                let at = second(when);
                index.apply(ClusterChange { at, what });
            }
            hearing.news(SERVER, &index, second(when))
        };
        let kind = Kind::Pods;
        assert_eq!(at(1, Some(Change::Listing { kind, own: false })), None);
        assert_eq!(at(2, Some(Change::Listed(kind))), None);
        assert_eq!(at(3, Some(lost(kind))), None);
        assert_eq!(at(4, Some(Change::Heard(kind))), None);
        assert_eq!(at(5, Some(lost(kind))), None);
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

    #[test]
    fn one_kind_that_may_not_be_listed_is_no_silence_and_all_of_them_are() {
        let (mut index, mut hearing) = (Index::default(), Hearing::default());
        for kind in [Kind::Slices, Kind::Pods, Kind::Services, Kind::Nodes] {
            assert_eq!(hearing.news(SERVER, &index, second(9)), None, "{kind:?}");
            let at = second(1);
            let what = lost(kind);
            index.apply(ClusterChange { at, what });
        }
        let said = hearing.news(SERVER, &index, second(9)).unwrap();
        assert!(said.ends_with("names are those this node knows"), "{said}");
    }
}
