//! Strings that many objects share, kept once: namespaces, nodes, labels, workloads.

use std::sync::Arc;

use rustc_hash::FxHashSet;

/// Below this many, none is looked at to be dropped.
const FEW: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Interner {
    known: FxHashSet<Arc<str>>,
    /// How many there may be before those that nobody uses are dropped.
    limit: usize,
}

impl Interner {
    /// The one copy of `text`.
    pub(super) fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.limit.max(FEW) {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.limit = self.known.len() * 2;
        }
        let text: Arc<str> = text.into();
        self.known.insert(Arc::clone(&text));
        text
    }

    /// Pairs of a map, such as labels, in its order.
    pub(super) fn pairs<'a>(
        &mut self,
        pairs: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Vec<(Arc<str>, Arc<str>)> {
        let pairs = pairs.into_iter();
        let mut pairs: Vec<_> = pairs
            .map(|(key, value)| (self.get(key), self.get(value)))
            .collect();
        pairs.shrink_to_fit();
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_are_one() {
        let mut interner = Interner::default();
        assert!(Arc::ptr_eq(&interner.get("shop"), &interner.get("shop")));
    }

    #[test]
    fn what_nobody_uses_is_dropped_before_there_are_many() {
        let mut interner = Interner::default();
        let kept = interner.get("shop");
        for n in 0..3 * FEW {
            interner.get(&n.to_string());
        }
        assert!(interner.known.len() <= FEW, "{}", interner.known.len());
        assert!(Arc::ptr_eq(&kept, &interner.get("shop")));
    }
}
