//! What conntrack itself counts in a namespace: the fallback where no probe shows what it did to a
//! packet. Counters are of the namespace, not of a packet.

use std::sync::Arc;

use super::ids::{KtimeNs, NetnsInode};

/// What went wrong, or nearly so, by conntrack's own counters
/// (`enum ctattr_stats_cpu`, include/uapi/linux/netfilter/nfnetlink_conntrack.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConntrackCounts {
    /// Packets that no entry can be made of.
    pub invalid: u64,
    /// Packets dropped because their entry could not be inserted.
    pub insert_failed: u64,
    /// Packets dropped because there was no room for an entry.
    pub drop: u64,
    /// Entries thrown out to make room.
    pub early_drop: u64,
    /// Packets whose entry clashed with another's, which the kernel resolved.
    pub clash_resolve: u64,
    /// Packets dropped because too many entries share a bucket; since Linux 5.15.
    pub chain_toolong: u64,
}

impl ConntrackCounts {
    /// Each by the name that `conntrack -S` has for it.
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("invalid", self.invalid),
            ("insert_failed", self.insert_failed),
            ("drop", self.drop),
            ("early_drop", self.early_drop),
            ("clash_resolve", self.clash_resolve),
            ("chaintoolong", self.chain_toolong),
        ]
    }

    /// What was counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            invalid: self.invalid.saturating_sub(before.invalid),
            insert_failed: self.insert_failed.saturating_sub(before.insert_failed),
            drop: self.drop.saturating_sub(before.drop),
            early_drop: self.early_drop.saturating_sub(before.early_drop),
            clash_resolve: self.clash_resolve.saturating_sub(before.clash_resolve),
            chain_toolong: self.chain_toolong.saturating_sub(before.chain_toolong),
        }
    }
}

/// A namespace's table at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConntrackTable {
    /// Entries in it.
    pub entries: u64,
    /// Most it may hold; `None` where the kernel does not tell.
    pub max: Option<u64>,
    /// Counted since the namespace was made, on all processors.
    pub counts: ConntrackCounts,
}

/// What was counted between two looks at one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConntrackChange {
    /// Which.
    pub netns: NetnsInode,
    /// The first look.
    pub from: KtimeNs,
    /// The second.
    pub to: KtimeNs,
    /// What was counted between them.
    pub counts: ConntrackCounts,
}

/// What a trace adds up to in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConntrackTotals {
    /// Which, by name.
    pub netns: Arc<str>,
    /// The latest look at the table, with what was counted since the first.
    pub table: ConntrackTable,
}

impl ConntrackTotals {
    /// Whether something in it is worth a line: a drop, a clash, or little room left.
    pub fn is_notable(&self) -> bool {
        let ConntrackTable {
            entries,
            max,
            counts,
        } = self.table;
        let quiet = ConntrackCounts {
            invalid: counts.invalid,
            ..ConntrackCounts::default()
        };
        counts != quiet || max.is_some_and(|max| entries * 10 >= max * 9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(entries: u64, counts: ConntrackCounts) -> ConntrackTotals {
        ConntrackTotals {
            netns: "node".into(),
            table: ConntrackTable {
                entries,
                max: Some(100),
                counts,
            },
        }
    }

    #[test]
    fn a_table_that_is_nearly_full_or_lost_a_packet_is_notable() {
        let none = ConntrackCounts::default();
        let lost = ConntrackCounts {
            insert_failed: 1,
            ..none
        };
        let odd = ConntrackCounts { invalid: 5, ..none };
        assert!(!totals(89, none).is_notable());
        assert!(totals(90, none).is_notable());
        assert!(totals(1, lost).is_notable());
        assert!(!totals(1, odd).is_notable());
        assert_eq!(lost.since(&none), lost);
    }
}
