//! Causes as they are counted: without what differs from row to row, such as process ids.
//! `correlate` puts them into words.

use std::{borrow::Cow, collections::BTreeMap};

use super::row::{Outcome, Row};

/// Most causes that one total tells apart.
const CAUSES: usize = 16;

/// How often each cause was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Causes {
    /// By outcome and cause, as [`of`] tells it.
    pub each: BTreeMap<Box<str>, u64>,
    /// Of causes that were too many to be told apart.
    pub other: u64,
}

impl Causes {
    /// Adds one.
    pub fn add(&mut self, cause: &str) {
        if let Some(count) = self.each.get_mut(cause) {
            *count += 1;
        } else if self.each.len() < CAUSES {
            self.each.insert(cause.into(), 1);
        } else {
            self.other += 1;
        }
    }

    /// Causes and their counts, the commonest first, equals in order of their words.
    pub fn commonest(&self) -> Vec<(&str, u64)> {
        let mut all: Vec<_> = self.each.iter().map(|(cause, &n)| (&**cause, n)).collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        if self.other > 0 {
            all.push(("others", self.other));
        }
        all
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (cause, count) in &other.each {
            if self.each.len() < CAUSES || self.each.contains_key(cause) {
                *self.each.entry(cause.clone()).or_default() += count;
            } else {
                self.other += count;
            }
        }
        self.other += other.other;
    }
}

/// Outcome and cause of a row that came to no good end, `None` of one that did.
pub fn of(row: &Row) -> Option<String> {
    let outcome = row.outcome();
    if outcome.is_good() {
        return None;
    }
    Some(match row.cause() {
        Some(cause) => format!("{}: {}", outcome.name(), alike(cause)),
        None => outcome.name().to_owned(),
    })
}

/// The cause without process ids and lengths of time.
fn alike(cause: &str) -> Cow<'_, str> {
    if !cause.contains('[') && !cause.contains(" ms") {
        return Cow::Borrowed(cause);
    }
    let mut alike = String::with_capacity(cause.len());
    let mut words = cause.split(' ').peekable();
    while let Some(word) = words.next() {
        if !alike.is_empty() {
            alike.push(' ');
        }
        let process = word.find('[').filter(|_| word.contains(']'));
        let is_time = words.peek().is_some_and(|unit| *unit == "ms");
        match process {
            Some(at) => alike.push_str(&word[..at]),
            None if is_time => alike.push('…'),
            None => alike.push_str(word),
        }
    }
    Cow::Owned(alike)
}

/// What the kernel dropped, and why and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Drop {
    /// `query`, `answer` or `packet`.
    pub what: Box<str>,
    /// The kernel's reason, such as `NETFILTER_DROP`; netfilter's hook after it.
    pub reason: Box<str>,
    /// The function that freed it; empty where that is not known.
    pub place: Box<str>,
}

/// The words before the reason of a drop.
const DROPPED: &str = "the kernel dropped the ";

/// The drop that a cause tells of; `None` when it tells of none.
pub fn dropped(cause: &str) -> Option<Drop> {
    // To prepare a search costs more than to see that there is nothing to search; most rows have no cause.
    if cause.is_empty() {
        return None;
    }
    let (_, after) = cause.split_once(DROPPED)?;
    let (what, reason) = after.split_once(": ")?;
    let (reason, place) = reason.split_once(", by ").unwrap_or((reason, ""));
    Some(Drop {
        what: what.into(),
        reason: reason.into(),
        place: place.split([',', ';']).next().unwrap_or("").into(),
    })
}

/// Whether an exchange of DNS was of no use though it was answered: rcodes that say that the server
/// failed or would not.
pub fn is_bad_rcode(outcome: Outcome, rcode: Option<u16>) -> bool {
    // RFC 1035, section 4.1.1: 0 is no error; 3 is a name that does not exist, which search lists
    // make the usual answer.
    outcome == Outcome::Answered && rcode.is_some_and(|rcode| !matches!(rcode, 0 | 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_cause_of_two_processes_is_one() {
        assert_eq!(
            alike(
                "no answer within 6 s: coredns[4136] read the query 12 ms after it came, and sent none"
            ),
            "no answer within 6 s: coredns read the query … ms after it came, and sent none"
        );
        assert_eq!(alike("no answer within 6 s"), "no answer within 6 s");
    }

    #[test]
    fn a_drop_is_told_from_its_cause() {
        let drop = |what: &str, reason: &str, place: &str| Drop {
            what: what.into(),
            reason: reason.into(),
            place: place.into(),
        };
        assert_eq!(
            dropped(
                "the kernel dropped the query: NETFILTER_DROP in FORWARD, by nft_do_chain+0x3e8"
            ),
            Some(drop(
                "query",
                "NETFILTER_DROP in FORWARD",
                "nft_do_chain+0x3e8"
            ))
        );
        assert_eq!(
            dropped(
                "ICMP port unreachable was sent, and did not reach the client; the kernel dropped the answer: NO_SOCKET"
            ),
            Some(drop("answer", "NO_SOCKET", ""))
        );
        assert_eq!(dropped("no answer within 6 s"), None);
    }
}
