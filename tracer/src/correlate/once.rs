//! Tells a thing from its further sights: what passes several places is counted once.

use std::hash::{Hash, Hasher as _};

use rustc_hash::{FxHashSet, FxHasher};

/// Most things that are told apart in one generation; beyond, each sight counts.
const MOST: usize = 4096;

/// Hashes of what was seen lately, in two generations, so that forgetting costs nothing.
#[derive(Debug, Default)]
pub(super) struct Once {
    young: FxHashSet<u64>,
    old: FxHashSet<u64>,
}

impl Once {
    /// Whether `thing` was not seen before within one to two generations.
    pub(super) fn is_first(&mut self, thing: impl Hash) -> bool {
        let mut hasher = FxHasher::default();
        thing.hash(&mut hasher);
        let hash = hasher.finish();
        if self.young.len() >= MOST {
            return !self.young.contains(&hash) && !self.old.contains(&hash);
        }
        self.young.insert(hash) && !self.old.contains(&hash)
    }

    /// Begins a new generation.
    pub(super) fn turn(&mut self) {
        std::mem::swap(&mut self.old, &mut self.young);
        self.young.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_first_again_after_two_generations() {
        let mut once = Once::default();
        assert!(once.is_first(1));
        assert!(!once.is_first(1));
        once.turn();
        assert!(!once.is_first(1));
        once.turn();
        assert!(!once.is_first(1));
        once.turn();
        once.turn();
        assert!(once.is_first(1));
    }

    #[test]
    fn room_is_bounded_and_nothing_goes_uncounted() {
        let mut once = Once::default();
        let first = (0..3 * MOST).filter(|thing| once.is_first(thing)).count();
        assert_eq!(first, 3 * MOST);
        assert_eq!(once.young.len(), MOST);
    }
}
