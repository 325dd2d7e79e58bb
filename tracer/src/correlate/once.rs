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
