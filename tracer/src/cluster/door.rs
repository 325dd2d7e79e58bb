//! Where what the API server says becomes changes in the model's words: one state for all watches,
//! since they share strings and owners.

use std::{cell::RefCell, sync::Arc};

use k8s_openapi::api::{core::v1 as core, discovery::v1 as discovery};
use kube::{
    core::{PartialObjectMeta, Resource as _},
    runtime::watcher::Event,
};

use super::{intern::Interner, nodes, owners::Owners, pods, services};
use crate::model::{
    change::{Change, Key, Kind, Object},
    cluster::Workload,
};

#[derive(Debug, Default)]
pub(super) struct Door {
    interner: Interner,
    owners: Owners,
}

/// What a watch does with each event, and whether only what concerns this node is watched.
pub(super) type Pass<'a, K> = Box<dyn FnMut(Event<K>, bool) -> Vec<Change> + 'a>;

/// The door as the watches share it, all on one thread.
pub(super) type Shared = RefCell<Door>;

/// An event with its object still whole, or trimmed.
fn change<K>(
    kind: Kind,
    own: bool,
    event: Event<K>,
    set: impl FnOnce(K) -> Vec<Change>,
    gone: impl FnOnce(K) -> Option<Change>,
) -> Vec<Change> {
    match event {
        Event::Init => vec![Change::Listing { kind, own }],
        Event::InitDone => vec![Change::Listed(kind)],
        Event::Apply(object) | Event::InitApply(object) => set(object),
        Event::Delete(object) => gone(object).into_iter().collect(),
    }
}

fn set(object: Option<Object>) -> Vec<Change> {
    object.map(Change::Set).into_iter().collect()
}

impl Door {
    pub(super) fn pod(&mut self, event: Event<pods::Raw>, own: bool) -> Vec<Change> {
        // Only one of the two is called.
        let door = RefCell::new(self);
        let trimmed = |raw: &pods::Raw| {
            let door = &mut **door.borrow_mut();
            let (pod, owner) = pods::trim(raw, &mut door.interner, &door.owners)?;
            let pod = Arc::new(pod);
            if let Some(owner) = &owner {
                door.owners.forget(&pod, owner);
            }
            Some((pod, owner))
        };
        change(
            Kind::Pods,
            own,
            event,
            |raw| {
                let Some((pod, owner)) = trimmed(&raw) else {
                    return Vec::new();
                };
                if let Some(owner) = owner {
                    door.borrow_mut().owners.wait(&pod, owner);
                }
                set(Some(Object::Pod(pod)))
            },
            |raw| Some(Change::Gone(Key::Pod(trimmed(&raw)?.0.pod.uid.clone()?))),
        )
    }

    pub(super) fn service(&mut self, event: Event<core::Service>, own: bool) -> Vec<Change> {
        let interner = RefCell::new(&mut self.interner);
        change(
            Kind::Services,
            own,
            event,
            |raw| {
                let service = services::trim(&raw, &mut interner.borrow_mut());
                set(service.map(|service| Object::Service(Arc::new(service))))
            },
            |raw| {
                let name = services::name(&raw.metadata, &mut interner.borrow_mut())?;
                Some(Change::Gone(Key::Service(name)))
            },
        )
    }

    pub(super) fn slice(
        &mut self,
        event: Event<discovery::EndpointSlice>,
        own: bool,
    ) -> Vec<Change> {
        let interner = RefCell::new(&mut self.interner);
        change(
            Kind::Slices,
            own,
            event,
            |raw| {
                let slice = services::trim_slice(&raw, &mut interner.borrow_mut());
                set(slice.map(|slice| Object::Slice(Arc::new(slice))))
            },
            |raw| {
                let mut interner = interner.borrow_mut();
                let name = services::name(&raw.metadata, &mut interner)?;
                let service = interner.get(services::service_label(&raw)?);
                Some(Change::Gone(Key::Slice { name, service }))
            },
        )
    }

    pub(super) fn node(&mut self, event: Event<nodes::Raw>, own: bool) -> Vec<Change> {
        let interner = &mut self.interner;
        change(
            Kind::Nodes,
            own,
            event,
            |raw| {
                let node = nodes::trim(&raw, interner);
                set(node.map(|node| Object::Node(Arc::new(node))))
            },
            |raw| Some(Change::Gone(Key::Node(raw.meta().name.as_deref()?.into()))),
        )
    }

    /// A ReplicaSet or a Job, as `kind` says; `listing` while a list of them is under way.
    pub(super) fn owner<K>(
        &mut self,
        kind: &str,
        event: Event<PartialObjectMeta<K>>,
    ) -> Vec<Change> {
        let (raw, listing, gone) = match event {
            Event::Init => {
                self.owners.begin_list(kind);
                return Vec::new();
            }
            Event::InitDone => {
                self.owners.end_list(kind);
                return Vec::new();
            }
            Event::InitApply(raw) => (raw, true, false),
            Event::Apply(raw) => (raw, false, false),
            Event::Delete(raw) => (raw, false, true),
        };
        let meta = &raw.metadata;
        let (Some(namespace), Some(name)) = (&meta.namespace, &meta.name) else {
            return Vec::new();
        };
        let namespace = self.interner.get(namespace);
        let owner = Workload {
            kind: self.interner.get(kind),
            name: self.interner.get(name),
        };
        if gone {
            self.owners.remove(namespace, owner);
            return Vec::new();
        }
        let workload = pods::controller(meta, &mut self.interner);
        let completed = self.owners.set(namespace, owner, workload, listing);
        let completed = completed.into_iter().map(Object::Pod);
        completed.map(Change::Set).collect()
    }
}
