//! `Bounded`: totals by key, of which the heaviest are kept when there are too many keys.

use std::{borrow::Borrow, hash::Hash};

use rustc_hash::FxHashMap;

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
#[derive(Clone, Debug)]
pub struct Bounded<K, V, const N: usize> {
    /// Where in `totals` those of each key are.
    places: FxHashMap<K, usize>,
    totals: Vec<V>,
    forgotten: u64,
}

impl<K, V, const N: usize> Default for Bounded<K, V, N> {
    fn default() -> Self {
        Self {
            places: FxHashMap::default(),
            totals: Vec::new(),
            forgotten: 0,
        }
    }
}

impl<K: Ord + Hash, V: Weight + Default, const N: usize> Bounded<K, V, N> {
    /// The totals of `key`, for adding to.
    pub fn of<Q>(&mut self, key: &Q) -> &mut V
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let place = match self.places.get(key) {
            Some(known) => *known,
            None => {
                if self.totals.len() >= N {
                    self.forget();
                }
                self.begin(key.to_owned(), V::default())
            }
        };
        &mut self.totals[place]
    }

    fn begin(&mut self, key: K, totals: V) -> usize {
        let place = self.totals.len();
        self.totals.push(totals);
        self.places.insert(key, place);
        place
    }

    /// The totals of `key`; `None` where it was never met, or was forgotten.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.places.get(key).map(|place| &self.totals[*place])
    }

    fn forget(&mut self) {
        let mut weights: Vec<_> = self.totals.iter().map(Weight::weight).collect();
        let middle = weights.len() / 2;
        let (_, &mut middle, _) = weights.select_nth_unstable(middle);
        let mut room = self.totals.len() / 2;
        let mut all = std::mem::take(&mut self.totals);
        // In order of the keys: ties end the same way everywhere.
        let mut places: Vec<_> = std::mem::take(&mut self.places).into_iter().collect();
        places.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        for (key, place) in places {
            let totals = std::mem::take(&mut all[place]);
            if room > 0 && totals.weight() <= middle {
                room -= 1;
                self.forgotten += totals.weight();
            } else {
                self.begin(key, totals);
            }
        }
    }

    /// Keys and totals, in order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let mut all: Vec<_> = self
            .places
            .iter()
            .map(|(key, place)| (key, &self.totals[*place]))
            .collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all.into_iter()
    }

    /// Keys and totals, the heaviest first, equals in order of the keys.
    pub fn heaviest(&self) -> Vec<(&K, &V)> {
        let mut all: Vec<_> = self.iter().collect();
        all.sort_by_key(|(_, totals)| std::cmp::Reverse(totals.weight()));
        all
    }

    /// Rows of keys that were forgotten. A key may be among those kept again, its totals too low.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Whether nothing was ever added.
    pub fn is_empty(&self) -> bool {
        self.totals.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_often_stays_when_a_flood_of_names_passes_by() {
        let mut names = Bounded::<String, u64, 8>::default();
        for flood in 0..1_000 {
            *names.of("often.lab.test") += 1;
            *names.of(&*format!("{flood}.lab.test")) += 1;
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
