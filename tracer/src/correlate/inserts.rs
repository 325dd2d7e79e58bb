//! What conntrack did to packets just before they were dropped, or went on: which packet it
//! happened to is told by the packet itself, or by namespace and time where only those are known.

use std::{collections::VecDeque, time::Duration};

use rustc_hash::FxHashMap;

use crate::model::{
    KtimeNs, NetnsInode, Packet, Place, SkbId,
    conntrack::ConntrackChange,
    drops::{DropNames, Hook, is_netfilter},
    insert::{Clash, Insert, InsertEvent},
};

/// Most clashes and full tables that wait for their packets; each waits for moments only.
const MOST: usize = 1024;

/// Longest from the verdict to the packet's next sight: the rest of the hook, on one processor.
const NEXT_SIGHT: Duration = Duration::from_millis(10);

/// Most looks at conntrack's statistics that are remembered: those of a few seconds.
const LOOKS: usize = 512;

/// What the kernel was seen to do, until the packet it did it to is seen.
#[derive(Debug, Default)]
pub(super) struct Inserts {
    clashes: FxHashMap<SkbId, (KtimeNs, Box<Clash>)>,
    full: FxHashMap<NetnsInode, KtimeNs>,
}

/// Why an entry could not be inserted, or nearly so.
#[derive(Debug)]
pub(super) enum Why {
    Clash(Box<Clash>),
    /// The table was full; told by time and place.
    Full,
}

impl Inserts {
    pub(super) fn note(&mut self, insert: &Insert) {
        match &insert.event {
            InsertEvent::Clash(clash) if self.clashes.len() < MOST => {
                self.clashes
                    .insert(clash.skb, (insert.ktime, clash.clone()));
            }
            InsertEvent::Full if self.full.len() < MOST => {
                self.full.insert(insert.netns, insert.ktime);
            }
            InsertEvent::Clash(_) | InsertEvent::Full => {}
        }
    }

    /// What `packet`, at its first sight since, was told by conntrack.
    pub(super) fn of(&mut self, packet: &Packet) -> Option<Why> {
        if self.clashes.is_empty() && self.full.is_empty() {
            return None;
        }
        self.told(packet)
    }

    // Apart, so that nothing is called for nearly all packets.
    #[inline(never)]
    fn told(&mut self, packet: &Packet) -> Option<Why> {
        let dropped = match packet.place {
            Place::Dropped { hook, .. } => Some(hook),
            Place::Queued => None,
            Place::Received | Place::Refused { .. } => return None,
        };
        if let Some((ktime, clash)) = self.clashes.remove(&packet.skb) {
            let soon = packet.ktime - ktime < NEXT_SIGHT;
            return (soon && clash.resolved == dropped.is_none()).then_some(Why::Clash(clash));
        }
        // Packets are looked up before any rule but those of the raw table.
        let looked_up = matches!(dropped?, Some(Hook::Prerouting | Hook::Output));
        let full = self.full.get(&packet.netns)?;
        (looked_up && packet.ktime - *full < NEXT_SIGHT).then_some(Why::Full)
    }

    /// Forgets what waits in vain.
    pub(super) fn age(&mut self, now: KtimeNs) {
        self.clashes
            .retain(|_, (ktime, _)| now - *ktime < NEXT_SIGHT);
        self.full.retain(|_, ktime| now - *ktime < NEXT_SIGHT);
    }
}

/// What conntrack counted of late, by namespace: of all packets there, of none in particular.
#[derive(Debug, Default)]
pub(super) struct Counted(VecDeque<ConntrackChange>);

impl Counted {
    pub(super) fn note(&mut self, change: ConntrackChange) {
        if self.0.len() >= LOOKS {
            self.0.pop_front();
        }
        self.0.push_back(change);
    }

    /// What was counted in a time in which the drop fell.
    fn during(&self, suspect: Suspect) -> Option<&ConntrackChange> {
        self.0.iter().find(|change| {
            let during = change.from <= suspect.ktime && suspect.ktime <= change.to;
            during && change.netns == suspect.netns
        })
    }

    /// Whether the look that tells of this drop is still to come.
    pub(super) fn awaits(&self, suspect: Option<Suspect>) -> bool {
        suspect.is_some_and(|suspect| self.during(suspect).is_none())
    }

    /// By which counter, and by how much, conntrack counted the like of this drop meanwhile.
    fn like(&self, suspect: Suspect) -> Option<(&'static str, u64)> {
        let counts = &self.during(suspect)?.counts;
        let counted = match suspect.hook {
            Hook::Prerouting | Hook::Output => ("drop", counts.drop),
            Hook::Input | Hook::Postrouting => ("insert_failed", counts.insert_failed),
            Hook::Forward => ("invalid", counts.invalid),
            Hook::ForwardOrPostrouting => return None,
        };
        (counted.1 > 0).then_some(counted)
    }

    /// Adds to `cause` what conntrack counted, where no probe tells.
    pub(super) fn add_to(&self, cause: &mut String, suspect: Option<Suspect>) {
        if let Some((name, count)) = suspect.and_then(|suspect| self.like(suspect)) {
            super::words::add_counted(cause, name, count);
        }
    }
}

/// A drop at a hook of netfilter for which conntrack may be at the bottom: its own, or that of a rule for what it
/// calls INVALID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    netns: NetnsInode,
    hook: Hook,
    ktime: KtimeNs,
}

impl Suspect {
    /// `None` where the drop is no such, or where `told` says what conntrack did.
    pub(super) fn of(packet: &Packet, names: &DropNames, told: Option<&Why>) -> Option<Self> {
        let Place::Dropped {
            reason,
            location,
            hook,
        } = packet.place
        else {
            return None;
        };
        let hook = hook?;
        let (reason, symbol) = (names.reason(reason), names.symbols.get(&location));
        let suspected = match hook {
            // Past conntrack, and it has no entry: a new one would have been made before.
            Hook::Forward => {
                packet.conntrack.is_none()
                    && packet.tunnel.is_none()
                    && is_netfilter(&reason, symbol.map(String::as_str))
            }
            _ => match symbol {
                Some(symbol) => symbol.starts_with("nf_hook_slow+"),
                None => &*reason == "NETFILTER_DROP",
            },
        };
        (suspected && told.is_none()).then_some(Self {
            netns: packet.netns,
            hook,
            ktime: packet.ktime,
        })
    }
}

#[cfg(test)]
mod tests;
