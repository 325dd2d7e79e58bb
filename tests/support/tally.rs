//! What became of many connections of one kind, and whether that is what it was before.

use std::collections::BTreeMap;

use super::probe::{Fate, Tried};

/// What was seen in one cell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) fates: BTreeMap<Fate, u32>,
    /// Of those whose address was replaced, all, and those whose port was kept.
    replaced: u32,
    kept: u32,
    /// Of clients that came twice, those whose second connection went elsewhere.
    left: u32,
    again: u32,
}

impl Tally {
    pub(crate) fn add(&mut self, tried: &Tried) {
        *self.fates.entry(tried.fate).or_insert(0) += 1;
        if let Some(again) = tried.again {
            self.again += 1;
            self.left += u32::from(again != tried.fate);
        }
    }

    pub(crate) fn count_port(&mut self, tried: &Tried) {
        if let (Fate::Answered(_, client), Some(from)) = (tried.fate, tried.what.from)
            && client != from
        {
            self.replaced += 1;
            self.kept += u32::from(tried.port_kept);
        }
    }

    pub(crate) fn count(&self) -> u32 {
        self.fates.values().sum()
    }

    pub(crate) fn share(&self, fate: &Fate) -> f64 {
        let seen = self.fates.get(fate).copied().unwrap_or(0);
        f64::from(seen) / f64::from(self.count().max(1))
    }

    /// Clients that went elsewhere when they came again.
    pub(crate) fn left(&self) -> u32 {
        self.left
    }

    pub(crate) fn lost(&self) -> u32 {
        self.fates.get(&Fate::Silence).copied().unwrap_or(0)
    }

    pub(crate) fn join(&mut self, more: &Self) {
        for (fate, count) in &more.fates {
            *self.fates.entry(*fate).or_insert(0) += count;
        }
        self.replaced += more.replaced;
        self.kept += more.kept;
        self.left += more.left;
        self.again += more.again;
    }

    /// Forgets few that were lost of many that were not: two clients' packets can clash over a port.
    pub(crate) fn forget_lost(&mut self) {
        if self.count() > 30 && self.share(&Fate::Silence) < 0.05 {
            self.fates.remove(&Fate::Silence);
        }
    }

    pub(crate) fn answered(&self) -> bool {
        self.fates
            .keys()
            .any(|fate| matches!(fate, Fate::Answered(..)))
    }

    /// Whether something is there that `known` did not show.
    pub(crate) fn is_new(&self, known: &Self) -> bool {
        self.fates
            .keys()
            .any(|fate| !known.fates.contains_key(fate))
    }

    /// In what it differs from `known`, of which much was seen; `None` when chance would do it.
    pub(crate) fn differs(&self, known: &Self) -> Option<String> {
        if self.count() == 0 {
            return None;
        }
        if self.is_new(known) {
            return Some(format!("{:?} instead of {:?}", self.fates, known.fates));
        }
        // kube-proxy's own are even, as the evaluator foretold and was seen.
        let even = 1.0 / f64::from(u32::try_from(known.fates.len()).unwrap_or(1));
        let far = |fate: &&Fate| far_apart(self.share(fate), even, self.count());
        if let Some(fate) = known.fates.keys().find(far) {
            return Some(format!(
                "{fate:?}: {:.3}, was {:.3}",
                self.share(fate),
                known.share(fate)
            ));
        }
        let stays = |tally: &Self| f64::from(tally.left()) / f64::from(tally.again.max(1));
        if self.again > 3 && known.again > 3 && (stays(self) > 0.15) != (stays(known) > 0.15) {
            return Some(format!("{} of {} clients left", self.left, self.again));
        }
        // A port drawn at random is hardly the client's own, twice.
        let keeps = |tally: &Self| tally.kept * 2 > tally.replaced && tally.kept > 1;
        // Where some are drawn and some are not, few tell nothing.
        let mixed = known.kept * 10 > known.replaced && known.kept * 10 < known.replaced * 9;
        let enough = self.replaced > 1 && known.replaced > 1 && !mixed;
        (enough && keeps(self) != keeps(known)).then(|| format!("ports kept: {}", self.kept))
    }
}

/// Whether a share is further from what it is to be than chance brings it: five standard deviations.
pub(crate) fn far_apart(seen: f64, expected: f64, count: u32) -> bool {
    let spread = expected * (1.0 - expected);
    let deviation = (spread / f64::from(count.max(1))).sqrt();
    (seen - expected).abs() > 5.0 * deviation + 1e-9
}
