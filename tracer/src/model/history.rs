//! Who had what, and when: addresses are used again, and a row is named by its own time.

use super::ids::WallNs;

/// Those who had one thing, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History<T> {
    /// In order of `since`.
    spans: Vec<Span<T>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Span<T> {
    since: WallNs,
    /// `None` while it lasts.
    until: Option<WallNs>,
    value: T,
}

impl<T> Default for History<T> {
    fn default() -> Self {
        Self { spans: Vec::new() }
    }
}

impl<T: PartialEq> History<T> {
    /// Who had it at `at`; `None` when nobody did. Of two who claim the same moment, the one who came
    /// later: an end is learnt late, a beginning is not.
    pub fn at(&self, at: WallNs) -> Option<&T> {
        let lasts =
            |span: &&Span<T>| span.since <= at && span.until.is_none_or(|until| at <= until);
        self.spans.iter().rfind(lasts).map(|span| &span.value)
    }

    /// `value` has it from `since` on; nothing changes when it is known to have it.
    pub fn begin(&mut self, since: WallNs, value: T) {
        let lasts = |span: &Span<T>| span.until.is_none() && span.value == value;
        if self.spans.iter().any(lasts) {
            return;
        }
        let place = self.spans.partition_point(|span| span.since <= since);
        let span = Span {
            since,
            until: None,
            value,
        };
        // Most have had one holder; there are hundreds of thousands of them.
        self.spans.reserve_exact(1);
        self.spans.insert(place, span);
    }

    /// The latest end; `None` when none has ended.
    pub fn last_end(&self) -> Option<WallNs> {
        self.spans.iter().filter_map(|span| span.until).max()
    }

    /// `value` has it no more after `until`.
    pub fn end(&mut self, until: WallNs, value: &T) {
        let lasting = |span: &&mut Span<T>| span.until.is_none() && span.value == *value;
        for span in self.spans.iter_mut().filter(lasting) {
            span.until = Some(until);
        }
    }

    /// Drops those whose time was over before `before`; whether anybody is left.
    pub fn forget(&mut self, before: WallNs) -> bool {
        self.spans
            .retain(|span| span.until.is_none_or(|until| until >= before));
        !self.spans.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a` from 10 to 20, `b` from 30 on.
    fn history() -> History<char> {
        let mut history = History::default();
        history.begin(WallNs(30), 'b');
        history.begin(WallNs(10), 'a');
        history.end(WallNs(20), &'a');
        history
    }

    fn check(history: &History<char>, at: i64, expected: Option<char>) {
        assert_eq!(history.at(WallNs(at)).copied(), expected, "at {at}");
    }

    #[test]
    fn each_moment_has_the_one_who_had_it_then() {
        let history = history();
        check(&history, 9, None);
        check(&history, 10, Some('a'));
        check(&history, 20, Some('a'));
        check(&history, 25, None);
        check(&history, 30, Some('b'));
        check(&history, i64::MAX, Some('b'));
    }

    #[test]
    fn who_came_later_has_it_while_the_earlier_ones_end_is_not_known() {
        let mut history = History::default();
        history.begin(WallNs(10), 'a');
        history.begin(WallNs(20), 'b');
        check(&history, 15, Some('a'));
        check(&history, 25, Some('b'));
    }

    #[test]
    fn beginning_again_changes_nothing() {
        let mut history = history();
        history.begin(WallNs(40), 'b');
        check(&history, 35, Some('b'));
    }

    #[test]
    fn what_is_long_over_is_forgotten() {
        let mut history = history();
        assert!(history.forget(WallNs(25)));
        check(&history, 15, None);
        check(&history, 35, Some('b'));
        history.end(WallNs(40), &'b');
        assert!(!history.forget(WallNs(50)));
    }
}
