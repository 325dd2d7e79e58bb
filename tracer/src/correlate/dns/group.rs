//! Tries that share client, transport and id, and which of them a message belongs to.
//!
//! Query and answer each pass many places. One rule tells for both whether a message begins at a
//! place or goes on there: it begins where a UDP socket sends it, and where one began before.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use super::{
    super::spot::{Spot, is_drop},
    Key, Seen,
    attempt::{Answer, Attempt},
};

/// Most tries in a group; a client that sends the same without end is not followed further.
pub(super) const TRIES: usize = 64;

/// Most empty groups that keep their memory for those to come.
const SPARE: usize = 4096;

/// A try, by where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    /// Of its group among [`Groups`]; another's once this one is forgotten.
    pub(super) place: usize,
    pub(super) serial: u64,
}

/// Groups by what they share. None moves while it is remembered, so that it is found again without a search.
#[derive(Debug, Default)]
pub(super) struct Groups {
    places: FxHashMap<Key, usize>,
    at: Vec<Group>,
    /// Places of empty groups, for those to come.
    free: Vec<usize>,
}

impl Groups {
    /// Where the group of `key` is.
    fn place(&self, key: &Key) -> Option<usize> {
        self.places.get(key).copied()
    }

    /// The same, of a new one if need be.
    pub(super) fn place_of(&mut self, key: Key) -> usize {
        let Self {
            places,
            at: groups,
            free,
        } = self;
        *places.entry(key).or_insert_with(|| {
            free.pop().unwrap_or_else(|| {
                groups.push(Group::new());
                groups.len() - 1
            })
        })
    }

    /// The group at `place`.
    fn at(&self, place: usize) -> Option<&Group> {
        self.at.get(place)
    }

    /// The same, to change.
    pub(super) fn at_mut(&mut self, place: usize) -> Option<&mut Group> {
        self.at.get_mut(place)
    }

    /// The group of `key`, to change.
    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Group> {
        self.at_mut(self.place(key)?)
    }

    /// What is known of a try; `None` once it is forgotten.
    pub(super) fn attempt(&self, of: Try) -> Option<&Attempt> {
        let mut newest_first = self.at(of.place)?.0.iter().rev();
        newest_first.find(|attempt| attempt.serial == of.serial)
    }

    /// The same, to change.
    pub(super) fn attempt_mut(&mut self, of: Try) -> Option<&mut Attempt> {
        let mut newest_first = self.at_mut(of.place)?.0.iter_mut().rev();
        newest_first.find(|attempt| attempt.serial == of.serial)
    }

    /// The try whose query this is, as [`Group::of_query`] tells it. No search is needed where it began with the
    /// datagram `at_hand`.
    pub(super) fn of_query(&self, seen: &Seen<'_>, at_hand: Option<Try>) -> Option<Try> {
        let began = |attempt: &Attempt| attempt.query.is_of(seen.packet);
        if at_hand.is_some_and(|found| self.attempt(found).is_some_and(began)) {
            return at_hand;
        }
        self.search_query(seen)
    }

    // Apart, as below, so that nothing is called for a further place of a datagram.
    #[inline(never)]
    fn search_query(&self, seen: &Seen<'_>) -> Option<Try> {
        let place = self.place(&seen.key())?;
        let group = self.at(place)?;
        group.found(place, group.of_query(seen)?)
    }

    /// The same of an answer, as [`Group::of_answer`] tells it.
    pub(super) fn of_answer(&self, seen: &Seen<'_>, at_hand: Option<Try>) -> Option<(Try, bool)> {
        let began = |attempt: &Attempt| {
            let answer = attempt.answer.as_ref();
            let began = answer.is_some_and(|answer| answer.beginning.is_of(seen.packet));
            began && attempt.concerns(seen.ends)
        };
        if let Some(found) = at_hand
            && self.attempt(found).is_some_and(began)
        {
            return Some((found, false));
        }
        self.search_answer(seen)
    }

    #[inline(never)]
    fn search_answer(&self, seen: &Seen<'_>) -> Option<(Try, bool)> {
        let place = self.place(&seen.key())?;
        let group = self.at(place)?;
        let (index, begins) = group.of_answer(seen)?;
        Some((group.found(place, index)?, begins))
    }

    /// The latest try that `is` so, of the groups that `of` are wanted.
    pub(super) fn latest(
        &self,
        of: impl Fn(&Key) -> bool,
        is: impl Fn(&Attempt) -> bool,
    ) -> Option<Try> {
        let wanted = self.places.iter().filter(|(key, _)| of(key));
        wanted
            .filter_map(|(_, &place)| {
                let group = self.at(place)?;
                group.found(place, group.newest(&is)?)
            })
            .max_by_key(|of| of.serial)
    }

    /// All tries, each with the place of its group.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, &Attempt)> {
        let groups = self.at.iter().enumerate();
        groups.flat_map(|(place, group)| group.0.iter().map(move |attempt| (place, attempt)))
    }

    /// Forgets the group of `key` if it is `over`.
    pub(super) fn forget(&mut self, key: Key, over: impl FnOnce(&Group) -> bool) {
        if let Entry::Occupied(entry) = self.places.entry(key)
            && let Some(group) = self.at.get_mut(*entry.get())
            && over(group)
        {
            group.empty(self.free.len() < SPARE);
            self.free.push(entry.remove());
        }
    }

    /// Keeps the tries that `keep` wants; tells how many are left.
    pub(super) fn retain(&mut self, keep: &mut impl FnMut(&mut Attempt) -> bool) -> usize {
        let Self {
            places,
            at: groups,
            free,
        } = self;
        let mut left = 0;
        places.retain(|_, place| {
            let Some(group) = groups.get_mut(*place) else {
                return false;
            };
            group.0.retain_mut(&mut *keep);
            left += group.len();
            if group.0.is_empty() {
                group.empty(free.len() < SPARE);
                free.push(*place);
            }
            !group.0.is_empty()
        });
        left
    }
}

/// Tries that share client, transport and id, oldest first; nearly always there is one.
///
/// On the heap, exactly as long as need be: inline in the table, which is half empty, they would
/// take twice the memory, and no less time (`cargo bench --bench correlate`).
#[derive(Debug)]
pub(super) struct Group(Vec<Attempt>);

impl Group {
    /// Of none yet.
    fn new() -> Self {
        Self(Vec::with_capacity(1))
    }

    /// Forgets its tries; keeps memory for one if that is `spare`.
    fn empty(&mut self, spare: bool) {
        self.0.clear();
        self.0.shrink_to(usize::from(spare));
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

    /// The try at `index` of this group, which is at `place`.
    fn found(&self, place: usize, index: usize) -> Option<Try> {
        let serial = self.get(index)?.serial;
        Some(Try { place, serial })
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
    fn of_query(&self, seen: &Seen<'_>) -> Option<usize> {
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
    fn of_answer(&self, seen: &Seen<'_>) -> Option<(usize, bool)> {
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
