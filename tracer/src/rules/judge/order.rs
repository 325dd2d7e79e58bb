//! What is known of a set of rules before any packet comes: in which order packets meet base
//! chains, and how long iptables' lists of clients are asked for.

use std::time::Duration;

use rustc_hash::FxHashMap;

use super::RuleAt;
use crate::rules::{ChainId, ChainKind, Expression, Family, Hook, Match, Ruleset, xt::RecentOp};

/// nat chains run at these priorities, whatever their own (enum nf_ip_hook_priorities).
pub(super) const NAT_DESTINATION: i32 = -100;
pub(super) const NAT_SOURCE: i32 = 100;

/// A base chain in the order of a hook.
pub(super) struct Entry {
    /// [`RuleAt::IPVS`] where no chain but IPVS stands.
    pub(super) table: u32,
    pub(super) chain: ChainId,
    pub(super) nat: bool,
    /// At which it runs.
    pub(super) priority: i32,
}

/// Base chains in the order in which packets of a family meet them at a hook:
/// 1. by priority, that of nat chains being the hook's;
/// 2. nat chains by their own priority;
/// 3. the one made last first (nf_hook_entries_grow).
pub(super) fn entries(ruleset: &Ruleset) -> FxHashMap<(Family, Hook), Vec<Entry>> {
    let mut entries: FxHashMap<_, Vec<Entry>> = FxHashMap::default();
    for (table_index, table) in (0..).zip(&ruleset.tables) {
        if table.dormant {
            continue;
        }
        for (chain_index, chain) in (0..).zip(&table.chains) {
            let Some(base) = chain.base else { continue };
            for family in [Family::V4, Family::V6] {
                if table.family.sees(family) {
                    let entry = Entry {
                        table: table_index,
                        chain: ChainId(chain_index),
                        nat: base.kind == ChainKind::Nat,
                        priority: base.priority,
                    };
                    entries.entry((family, base.hook)).or_default().push(entry);
                }
            }
        }
    }
    let families = ruleset.ipvs.servers.iter();
    let mut families: Vec<_> = families.map(|server| server.asked.family()).collect();
    families.sort_unstable();
    families.dedup();
    for family in families {
        for (hook, priority) in super::ipvs::AT {
            entries.entry((family, hook)).or_default().push(Entry {
                table: RuleAt::IPVS,
                chain: ChainId::MISSING,
                nat: false,
                priority,
            });
        }
    }
    for ((_, hook), list) in &mut entries {
        let nat = match hook {
            Hook::Prerouting | Hook::Output => NAT_DESTINATION,
            _ => NAT_SOURCE,
        };
        list.reverse();
        list.sort_by_key(|entry| {
            let at = if entry.nat { nat } else { entry.priority };
            (at, entry.nat, entry.priority)
        });
        for entry in list.iter_mut().filter(|entry| entry.nat) {
            entry.priority = nat;
        }
    }
    entries
}

/// The seconds that `-m recent --rcheck` and `--update` ask for, by list.
pub(super) fn recent(ruleset: &Ruleset) -> FxHashMap<&str, Duration> {
    let mut recent = FxHashMap::default();
    let tables = ruleset.tables.iter();
    let rules = tables.flat_map(|table| table.chains.iter().flat_map(|chain| &chain.rules));
    for expression in rules.flat_map(|rule| &rule.expressions) {
        let Expression::Match(found) = expression else {
            continue;
        };
        if let Match::Recent {
            op: RecentOp::Check | RecentOp::Update,
            name,
            seconds,
            ..
        } = &**found
        {
            recent.insert(&**name, Duration::from_secs(u64::from(*seconds)));
        }
    }
    recent
}
