//! Pods by uid and by address, with those that had an address before.

use std::{collections::VecDeque, net::IpAddr, sync::Arc};

use rustc_hash::FxHashMap;

use crate::model::{
    History,
    cluster::{ObjectName, PodObject},
    ids::WallNs,
};

/// Times in API objects are cut to whole seconds.
const SECOND: i64 = 1_000_000_000;

#[derive(Debug, Default)]
pub(super) struct Pods {
    by_uid: FxHashMap<Arc<str>, Entry>,
    /// uids by address, of pods with addresses of their own.
    by_address: FxHashMap<IpAddr, History<Arc<str>>>,
    /// uids of pods in the host's network by its addresses.
    in_host_network: FxHashMap<IpAddr, Vec<Arc<str>>>,
    /// uids of static pods by the hash that cgroups name them by.
    by_hash: FxHashMap<Arc<str>, Arc<str>>,
    /// Gone, and when, in that order.
    gone: VecDeque<(WallNs, Arc<str>)>,
}

#[derive(Debug)]
struct Entry {
    object: Arc<PodObject>,
    generation: u32,
    gone: bool,
}

impl Pods {
    pub(super) fn by_uid(&self, uid: &str) -> Option<(&Arc<PodObject>, u32)> {
        let entry = self.by_uid.get(uid);
        let entry = entry.or_else(|| self.by_uid.get(self.by_hash.get(uid)?))?;
        Some((&entry.object, entry.generation))
    }

    pub(super) fn at(&self, address: IpAddr, at: WallNs) -> Option<(&Arc<PodObject>, u32)> {
        self.by_uid(self.by_address.get(&address)?.at(at)?)
    }

    pub(super) fn in_host_network(
        &self,
        address: IpAddr,
        name: &ObjectName,
    ) -> Option<(&Arc<PodObject>, u32)> {
        let uids = self.in_host_network.get(&address)?.iter();
        uids.filter_map(|uid| self.by_uid(uid)).find(|(object, _)| {
            object.pod.namespace == name.namespace && object.pod.name == name.name
        })
    }

    /// Those that are there, `of` a generation.
    pub(super) fn all(&self, of: impl Fn(u32) -> bool) -> impl Iterator<Item = &Arc<PodObject>> {
        let there = self.by_uid.values();
        let there = there.filter(move |entry| !entry.gone && of(entry.generation));
        there.map(|entry| &entry.object)
    }

    pub(super) fn set(&mut self, at: WallNs, object: Arc<PodObject>, generation: u32) {
        // A pod without uid could not be told from its successor.
        let Some(uid) = object.pod.uid.clone() else {
            return;
        };
        if object.ended.is_some() {
            if let Some(entry) = self.by_uid.get_mut(&uid) {
                entry.object = object;
                self.end(&uid, at);
            }
            return;
        }
        if let Some(entry) = self.by_uid.get(&uid) {
            let before = Arc::clone(&entry.object);
            for address in before.ips.iter().filter(|ip| !object.ips.contains(ip)) {
                self.release(*address, &before, &uid, at);
            }
        }
        for address in &object.ips {
            if object.host_network {
                let uids = self.in_host_network.entry(*address).or_default();
                if !uids.contains(&uid) {
                    uids.push(Arc::clone(&uid));
                }
                continue;
            }
            let history = self.by_address.entry(*address).or_default();
            let earliest = object.started.unwrap_or(object.created);
            // Whoever had it before, had it to its end.
            let since = earliest.max(history.last_end().unwrap_or(earliest));
            history.begin(since, Arc::clone(&uid));
        }
        if let Some(hash) = &object.config_hash {
            self.by_hash.insert(Arc::clone(hash), Arc::clone(&uid));
        }
        let entry = Entry {
            object,
            generation,
            gone: false,
        };
        self.by_uid.insert(uid, entry);
    }

    /// The pod with `uid` is gone at `at`, or was before: once its containers had ended, its
    /// address could be given away.
    pub(super) fn end(&mut self, uid: &Arc<str>, at: WallNs) {
        let Some(entry) = self.by_uid.get_mut(uid).filter(|entry| !entry.gone) else {
            return;
        };
        entry.gone = true;
        let object = Arc::clone(&entry.object);
        let ended = object.ended.map(|ended| WallNs(ended.0 + SECOND));
        let until = ended.map_or(at, |ended| ended.min(at));
        for address in &object.ips {
            self.release(*address, &object, uid, until);
        }
        self.gone.push_back((at, Arc::clone(uid)));
    }

    pub(super) fn end_before(&mut self, generation: u32, at: WallNs) {
        let old = self
            .by_uid
            .iter()
            .filter(|(_, entry)| entry.generation < generation && !entry.gone);
        let old: Vec<_> = old.map(|(uid, _)| Arc::clone(uid)).collect();
        for uid in old {
            self.end(&uid, at);
        }
    }

    /// Drops what was gone before `before`.
    pub(super) fn forget(&mut self, before: WallNs) {
        while self.gone.front().is_some_and(|(when, _)| *when < before) {
            let Some((_, uid)) = self.gone.pop_front() else {
                return;
            };
            // It may have been heard of again.
            if self.by_uid.get(&uid).is_none_or(|entry| !entry.gone) {
                continue;
            }
            let Some(Entry { object, .. }) = self.by_uid.remove(&uid) else {
                continue;
            };
            for address in &object.ips {
                let history = self.by_address.get_mut(address);
                if history.is_some_and(|history| !history.forget(before)) {
                    self.by_address.remove(address);
                }
            }
            if let Some(hash) = &object.config_hash
                && self.by_hash.get(hash) == Some(&uid)
            {
                self.by_hash.remove(hash);
            }
        }
    }

    fn release(&mut self, address: IpAddr, object: &PodObject, uid: &Arc<str>, until: WallNs) {
        if !object.host_network {
            if let Some(history) = self.by_address.get_mut(&address) {
                history.end(until, uid);
            }
        } else if let Some(uids) = self.in_host_network.get_mut(&address) {
            uids.retain(|of| of != uid);
            if uids.is_empty() {
                self.in_host_network.remove(&address);
            }
        }
    }
}
