//! What a recorded node knew: names, and its conntrack tables. The recorder keeps the same, so as to
//! record only what is new.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rustc_hash::FxHashMap;

use crate::model::{
    Asked, EndsKey, Ifindex, Name, Named, NamedEnds, NetnsInode, PodName, Row, Site, Source,
    WallNs,
    conntrack::{ConntrackTable, ConntrackTotals},
};

/// Most ends that are told apart; beyond it all are forgotten, and told anew.
const MOST: usize = 65_536;

/// Most answers kept of the same ends: addresses are used again, but not that often within the
/// time a row takes.
const KEPT: usize = 4;

/// Ages that differ by less are the same: they are shown in whole seconds.
const SAME_AGE: Duration = Duration::from_secs(2);

/// Who and what was named how, as far as told; and conntrack tables.
#[derive(Debug, Default)]
pub struct Names {
    ends: FxHashMap<EndsKey, Vec<Told>>,
    devices: FxHashMap<(NetnsInode, Ifindex), DeviceNames>,
    tables: BTreeMap<Arc<str>, ConntrackTable>,
    now: WallNs,
}

/// Of the namespace, and of the device where that is known.
type DeviceNames = (Arc<str>, Option<Arc<str>>);

#[derive(Debug)]
struct Told {
    since: WallNs,
    ends: NamedEnds,
    /// When it was told; ages grow from there.
    at: WallNs,
}

impl Names {
    /// Time has come to `wall`.
    pub fn tick(&mut self, wall: WallNs) {
        self.now = wall;
    }

    /// Takes what is told.
    pub fn learn(&mut self, name: &Name) {
        match name {
            Name::Device {
                netns,
                ifindex,
                name,
                device,
            } => {
                let names = (Arc::clone(name), device.clone());
                self.devices.insert((*netns, *ifindex), names);
            }
            Name::Ends { key, since, ends } => {
                if self.ends.len() >= MOST && !self.ends.contains_key(key) {
                    self.ends.clear();
                }
                let told = self.ends.entry(*key).or_default();
                told.retain(|told| told.since != *since);
                let place = told.partition_point(|told| told.since < *since);
                let (since, ends, at) = (*since, (**ends).clone(), self.now);
                told.insert(place, Told { since, ends, at });
                if told.len() > KEPT {
                    told.remove(0);
                }
            }
        }
    }

    /// What can be said of those a row names by address.
    pub fn name(&self, row: &Row) -> Named {
        let ends = self.ends(row).unwrap_or_default();
        let sender = row.client().sender;
        Named {
            netns: ends.netns,
            process: sender.and_then(|sender| Some((sender.pid?, sender.comm))),
            container: ends.container,
            pod_uid: ends.pod_uid,
            pod: ends.pod,
            backend: ends.backend,
            rule: ends.rule,
            held: ends.held,
            asked: Asked {
                pod: ends.asked,
                ..Asked::default()
            },
            ..Named::default()
        }
    }

    /// The names of a device, as far as told.
    pub fn site(&self, netns: NetnsInode, ifindex: Ifindex) -> Site {
        let told = self.devices.get(&(netns, ifindex)).cloned();
        let (name, device) = told.unwrap_or_else(|| (self.netns(netns), None));
        Site {
            netns,
            ifindex,
            name,
            device,
        }
    }

    /// The name of a namespace, by any device of it, or its inode.
    fn netns(&self, netns: NetnsInode) -> Arc<str> {
        let mut devices = self.devices.iter();
        let told = devices.find(|((of, _), _)| *of == netns);
        told.map_or_else(
            || netns.0.to_string().into(),
            |(_, (name, _))| Arc::clone(name),
        )
    }

    /// Takes what a conntrack table adds up to; whether that is news.
    pub fn count(&mut self, totals: &ConntrackTotals) -> bool {
        let before = self.tables.insert(Arc::clone(&totals.netns), totals.table);
        before != Some(totals.table)
    }

    /// Conntrack tables, by their namespaces' names.
    pub fn conntrack_totals(&self) -> Vec<ConntrackTotals> {
        let tables = self.tables.iter();
        let totals = tables.map(|(netns, table)| ConntrackTotals {
            netns: Arc::clone(netns),
            table: *table,
        });
        totals.collect()
    }

    /// What `named`, the node's own names of `row`, and `sites` tell that was not told yet; it is
    /// learnt.
    pub fn news(&mut self, row: &Row, named: &Named, sites: &[Site]) -> Vec<Name> {
        let mut news = Vec::new();
        let ends = NamedEnds {
            netns: named.netns.clone(),
            container: named.container.clone(),
            pod_uid: named.pod_uid.clone(),
            pod: named.pod.clone(),
            asked: named.asked.pod.clone(),
            backend: named.backend.clone(),
            rule: named.rule.clone(),
            held: named.held.clone(),
        };
        if !self.ends(row).is_some_and(|told| same(&told, &ends)) {
            let (key, since) = (EndsKey::of(row), row.wall());
            let ends = Box::new(ends);
            news.push(Name::Ends { key, since, ends });
        }
        for site in sites {
            let told = self.devices.get(&(site.netns, site.ifindex));
            let said = (&site.name, &site.device);
            if told.is_none_or(|(name, device)| (name, device) != said) {
                news.push(Name::Device {
                    netns: site.netns,
                    ifindex: site.ifindex,
                    name: Arc::clone(&site.name),
                    device: site.device.clone(),
                });
            }
        }
        for name in &news {
            self.learn(name);
        }
        news
    }

    /// All that was told and still holds, to be told again where older parts of a recording go.
    pub fn all(&self) -> impl Iterator<Item = Name> {
        let devices = self.devices.iter().map(|((netns, ifindex), names)| {
            let (name, device) = names.clone();
            let (netns, ifindex) = (*netns, *ifindex);
            Name::Device {
                netns,
                ifindex,
                name,
                device,
            }
        });
        let ends = self.ends.iter().flat_map(|(key, told)| {
            told.iter().map(|told| Name::Ends {
                key: *key,
                since: told.since,
                ends: Box::new(self.grown(told)),
            })
        });
        devices.chain(ends)
    }

    /// Who the ends of a row were when it began, or soon after: another version than the one that recorded may
    /// make a row a moment later, by other clocks. `None` when nothing was told.
    fn ends(&self, row: &Row) -> Option<NamedEnds> {
        let told = self.ends.get(&EndsKey::of(row))?;
        let then = told.iter().rfind(|told| told.since <= row.wall());
        Some(self.grown(then.or(told.first())?))
    }

    /// What was told, with the ages that it has now.
    fn grown(&self, told: &Told) -> NamedEnds {
        let more = self.now.0.saturating_sub(told.at.0);
        let more = Duration::from_nanos(u64::try_from(more).unwrap_or(0));
        let grow = |pod: &PodName| PodName {
            pod: Arc::clone(&pod.pod),
            source: pod.source,
            // What CNI plugins said is looked at again all the time, and does not age.
            age: match pod.source {
                Source::Runtime | Source::Kubelet => pod.age + more,
                Source::Api | Source::Cni | Source::Rules | Source::Snapshot => pod.age,
            },
            object: None,
        };
        NamedEnds {
            pod: told.ends.pod.as_ref().map(grow),
            asked: told.ends.asked.as_ref().map(grow),
            backend: told.ends.backend.as_ref().map(grow),
            ..told.ends.clone()
        }
    }
}

/// Whether both say the same, ages roughly taken.
fn same(a: &NamedEnds, b: &NamedEnds) -> bool {
    let pods = |a: &Option<PodName>, b: &Option<PodName>| match (a, b) {
        (Some(a), Some(b)) => {
            a.source == b.source && a.pod == b.pod && a.age.abs_diff(b.age) < SAME_AGE
        }
        (None, None) => true,
        _ => false,
    };
    a.netns == b.netns
        && a.container == b.container
        && a.pod_uid == b.pod_uid
        && pods(&a.asked, &b.asked)
        && pods(&a.pod, &b.pod)
        && pods(&a.backend, &b.backend)
        && a.rule == b.rule
        && a.held == b.held
}
