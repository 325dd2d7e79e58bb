//! `Bounded`: totals by key, of which the heaviest are kept when there are too many keys.

use std::collections::BTreeMap;

/// What a total weighs: the rows that it counts.
pub trait Weight {
    /// How many.
    fn weight(&self) -> u64;
}

impl Weight for u64 {
    fn weight(&self) -> u64 {
        *self
    }
}

/// Totals of at most `N` keys. When there is no room for a new one, the lighter half is forgotten:
/// what is asked for often stays, whatever passes by.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounded<K, V, const N: usize> {
    kept: BTreeMap<K, V>,
    forgotten: u64,
}

impl<K, V, const N: usize> Default for Bounded<K, V, N> {
    fn default() -> Self {
        Self {
            kept: BTreeMap::new(),
            forgotten: 0,
        }
    }
}

impl<K: Ord, V: Weight + Default, const N: usize> Bounded<K, V, N> {
    /// The totals of `key`, for adding to.
    pub fn of(&mut self, key: K) -> &mut V {
        if self.kept.len() >= N && !self.kept.contains_key(&key) {
            self.forget();
        }
        self.kept.entry(key).or_default()
    }

    /// The totals of `key`; `None` where it was never met, or was forgotten.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.kept.get(key)
    }

    fn forget(&mut self) {
        let mut weights: Vec<_> = self.kept.values().map(Weight::weight).collect();
        let middle = weights.len() / 2;
        let (_, &mut middle, _) = weights.select_nth_unstable(middle);
        let mut room = self.kept.len() / 2;
        let forgotten = &mut self.forgotten;
        // In order of the keys: ties end the same way everywhere.
        self.kept.retain(|_, totals| {
            let light = room > 0 && totals.weight() <= middle;
            if light {
                room -= 1;
                *forgotten += totals.weight();
            }
            !light
        });
    }

    /// Keys and totals, in order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.kept.iter()
    }

    /// Keys and totals, the heaviest first, equals in order of the keys.
    pub fn heaviest(&self) -> Vec<(&K, &V)> {
        let mut all: Vec<_> = self.kept.iter().collect();
        all.sort_by_key(|(_, totals)| std::cmp::Reverse(totals.weight()));
        all
    }

    /// Rows of keys that were forgotten. A key may be among those kept again, its totals too low.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Whether nothing was ever added.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_often_stays_when_a_flood_of_names_passes_by() {
        let mut names = Bounded::<String, u64, 8>::default();
        for flood in 0..1_000 {
            *names.of("often.lab.test".to_owned()) += 1;
            *names.of(format!("{flood}.lab.test")) += 1;
        }
        let (name, &count) = names.heaviest()[0];
        assert_eq!((name.as_str(), count), ("often.lab.test", 1_000));
        let kept: u64 = names.iter().map(|(_, count)| count).sum();
        assert_eq!(
            kept + names.forgotten(),
            2_000,
            "every row is counted somewhere"
        );
        assert!(names.iter().count() <= 8);
    }
}
