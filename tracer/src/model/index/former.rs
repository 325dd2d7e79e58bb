//! EndpointSlices as they were: for a while it is remembered what has been replaced or removed, and
//! when.

use std::{collections::VecDeque, sync::Arc};

use rustc_hash::FxHashMap;

use crate::model::{
    cluster::{EndpointSlice, ObjectName},
    ids::WallNs,
};

/// Former versions at most, of all Services.
const MOST: usize = 16_384;

#[derive(Debug, Default)]
pub(super) struct Former {
    /// By the Service's name, and when each ended, in that order.
    by_service: FxHashMap<ObjectName, VecDeque<(WallNs, Arc<EndpointSlice>)>>,
    /// The Services, in the order in which their slices ended.
    ended: VecDeque<(WallNs, ObjectName)>,
}

impl Former {
    /// Keeps a slice of `service` that ended at `at`.
    pub(super) fn keep(&mut self, at: WallNs, service: ObjectName, slice: Arc<EndpointSlice>) {
        let of_service = self.by_service.entry(service.clone()).or_default();
        of_service.push_back((at, slice));
        self.ended.push_back((at, service));
        if self.ended.len() > MOST {
            self.forget_first();
        }
    }

    /// Drops what ended before `before`.
    pub(super) fn forget(&mut self, before: WallNs) {
        while self.ended.front().is_some_and(|(at, _)| *at < before) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((_, service)) = self.ended.pop_front() else {
            return;
        };
        if let Some(of_service) = self.by_service.get_mut(&service) {
            of_service.pop_front();
            if of_service.is_empty() {
                self.by_service.remove(&service);
            }
        }
    }

    /// Former slices of `service` and when each ended, in that order.
    pub(super) fn of(&self, service: &ObjectName) -> Vec<(WallNs, Arc<EndpointSlice>)> {
        let of_service = self.by_service.get(service);
        of_service.into_iter().flatten().cloned().collect()
    }
}
