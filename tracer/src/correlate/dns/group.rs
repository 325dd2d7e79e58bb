//! Tries that share client, transport and id, and which of them a message belongs to.
//!
//! Query and answer each pass many places. One rule tells for both whether a message begins at a
//! place or goes on there: it begins where a UDP socket sends it, and where one began before.

use super::{
    super::spot::{Spot, is_drop},
    Seen,
    attempt::{Answer, Attempt},
};

/// Most tries in a group; a client that sends the same without end is not followed further.
pub(super) const TRIES: usize = 64;

/// Tries that share client, transport and id, oldest first; nearly always there is one.
///
/// On the heap, exactly as long as need be: inline in the table, which is half empty, they would
/// take twice the memory, and no less time (`cargo bench --bench correlate`).
#[derive(Debug)]
pub(super) struct Group(Vec<Attempt>);

impl Group {
    /// Of none yet.
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(1))
    }

    /// Of none any more, as good as a new one.
    pub(super) fn emptied(mut self) -> Self {
        self.0.clear();
        self.0.shrink_to(1);
        self
    }

    pub(super) fn push(&mut self, attempt: Attempt) -> &mut Attempt {
        self.0.push_mut(attempt)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The try that is the only one.
    pub(super) fn alone(&self) -> Option<&Attempt> {
        match self.0.as_slice() {
            [attempt] => Some(attempt),
            _ => None,
        }
    }

    /// The try at `index`, counted from the oldest.
    pub(super) fn get(&self, index: usize) -> Option<&Attempt> {
        self.0.get(index)
    }

    /// The same, to change.
    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Attempt> {
        self.0.get_mut(index)
    }

    /// Keeps the tries that `keep` wants; false when none is left.
    pub(super) fn retain(&mut self, keep: &mut impl FnMut(&mut Attempt) -> bool) -> bool {
        self.0.retain_mut(keep);
        !self.0.is_empty()
    }

    /// The newest try that `is` so.
    pub(super) fn newest(&self, is: impl Fn(&Attempt) -> bool) -> Option<usize> {
        self.0.iter().rposition(is)
    }

    /// The newest try that `is` so, with an answer that is `of` such a kind.
    fn answered(
        &self,
        is: impl Fn(&Attempt) -> bool,
        of: impl Fn(&Answer) -> bool,
    ) -> Option<usize> {
        self.newest(|attempt| attempt.answer.as_ref().is_some_and(&of) && is(attempt))
    }

    /// Serial number of the first try, if a new one would be a retry. An answered question asked
    /// again is a new question.
    pub(super) fn retry_of(&mut self, seen: &Seen<'_>) -> Option<u64> {
        let before =
            self.newest(|attempt| seen.asks(attempt) && attempt.asked == seen.ends.asked)?;
        let before = self.get_mut(before)?;
        match before.answer {
            None => Some(before.retry_of.unwrap_or(before.serial)),
            Some(_) => None,
        }
    }

    /// The try whose query this is; `None` when it is a new one. The first of
    /// 1. the try that began with this very packet;
    /// 2. none, where a query begins;
    /// 3. the newest try that asks the same of the same, or of the backend that it became;
    /// 4. the newest try that asks the same: NAT has changed the packet without our seeing how.
    pub(super) fn of_query(&self, seen: &Seen<'_>) -> Option<usize> {
        let same = self.newest(|attempt| seen.asks(attempt) && attempt.is_of(seen.packet));
        if same.is_some() {
            return same;
        }
        let spot = Spot::of(seen.packet);
        let began_here = |attempt: &Attempt| seen.asks(attempt) && attempt.query.spot == spot;
        if seen.is_sent() || !is_drop(seen.packet) && self.newest(began_here).is_some() {
            return None;
        }
        self.newest(|attempt| seen.asks(attempt) && attempt.concerns(seen.ends))
            .or_else(|| self.newest(|attempt| seen.asks(attempt)))
    }

    /// The try whose answer this is, and whether the answer begins here; `None` when it comes
    /// from elsewhere than was asked. The first of
    /// 1. the try whose answer began with this very packet;
    /// 2. where an answer begins, the newest try without one, of the same backend if there is
    ///    such; when all have one, the newest, whose answer has come again;
    /// 3. the newest try that has an answer.
    pub(super) fn of_answer(&self, seen: &Seen<'_>) -> Option<(usize, bool)> {
        let spot = Spot::of(seen.packet);
        let concerned = |attempt: &Attempt| seen.answers(attempt) && attempt.concerns(seen.ends);
        let is_this = |answer: &Answer| answer.beginning.is_of(seen.packet);
        if let Some(index) = self.answered(concerned, is_this) {
            return Some((index, false));
        }
        let latest = self.answered(concerned, |_| true);
        let is_here = |answer: &Answer| answer.beginning.spot == spot;
        let began_here = || self.answered(concerned, is_here).is_some();
        if let Some(index) = latest
            && (is_drop(seen.packet) || !seen.is_sent() && !began_here())
        {
            return Some((index, false));
        }
        let open = |attempt: &Attempt| concerned(attempt) && attempt.answer.is_none();
        self.newest(|attempt| open(attempt) && attempt.backend == seen.ends.backend)
            .or_else(|| self.newest(open))
            .or(latest)
            .map(|index| (index, true))
    }
}
