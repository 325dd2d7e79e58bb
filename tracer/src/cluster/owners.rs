//! Which workload a ReplicaSet or a Job belongs to, from their metadata alone.
//!
//! A pod names the ReplicaSet that made it. Either may be heard of first, so pods whose
//! ReplicaSet or Job is not known yet wait here.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::model::cluster::{PodObject, Workload};

/// Kinds that are themselves made by a workload.
const MADE: [&str; 2] = ["ReplicaSet", "Job"];

type Name = (Arc<str>, Workload);

#[derive(Debug, Default)]
pub(super) struct Owners {
    /// By namespace and owner; itself where it belongs to nothing further.
    workloads: FxHashMap<Name, Workload>,
    waiting: FxHashMap<Name, Vec<Arc<PodObject>>>,
    /// Those of the lists under way.
    listed: FxHashSet<Name>,
}

impl Owners {
    /// What `owner` belongs to; itself when to nothing. `None` when it is not known yet.
    pub(super) fn workload(&self, namespace: &Arc<str>, owner: &Workload) -> Option<Workload> {
        if !MADE.contains(&&*owner.kind) {
            return Some(owner.clone());
        }
        let name = (Arc::clone(namespace), owner.clone());
        self.workloads.get(&name).cloned()
    }

    /// Lets a pod wait whose owner is not known yet.
    pub(super) fn wait(&mut self, pod: &Arc<PodObject>, owner: Workload) {
        if self.workload(&pod.pod.namespace, &owner).is_none() {
            let name = (Arc::clone(&pod.pod.namespace), owner);
            let waiting = self.waiting.entry(name).or_default();
            waiting.retain(|other| other.pod != pod.pod);
            waiting.push(Arc::clone(pod));
        }
    }

    /// The pod is gone, or has changed.
    pub(super) fn forget(&mut self, pod: &PodObject, owner: &Workload) {
        let name = (Arc::clone(&pod.pod.namespace), owner.clone());
        if let Some(waiting) = self.waiting.get_mut(&name) {
            waiting.retain(|other| other.pod != pod.pod);
            if waiting.is_empty() {
                self.waiting.remove(&name);
            }
        }
    }

    /// `owner` belongs to `workload`. Returns the pods that waited for it, completed. `listing` when
    /// a list of all its kind is under way.
    pub(super) fn set(
        &mut self,
        namespace: Arc<str>,
        owner: Workload,
        workload: Option<Workload>,
        listing: bool,
    ) -> Vec<Arc<PodObject>> {
        let name = (namespace, owner);
        let workload = workload.unwrap_or_else(|| name.1.clone());
        let waiting = self.waiting.remove(&name).unwrap_or_default();
        let completed = waiting.into_iter().map(|pod| {
            let workload = Some(workload.clone());
            Arc::new(PodObject {
                workload,
                ..PodObject::clone(&pod)
            })
        });
        let completed = completed.collect();
        if listing {
            self.listed.insert(name.clone());
        }
        self.workloads.insert(name, workload);
        completed
    }

    /// `owner` is gone; its pods, if any are left, have been named.
    pub(super) fn remove(&mut self, namespace: Arc<str>, owner: Workload) {
        self.workloads.remove(&(namespace, owner));
    }

    /// A list of all owners of `kind` begins.
    pub(super) fn begin_list(&mut self, kind: &str) {
        self.listed.retain(|name| &*name.1.kind != kind);
    }

    /// The list of all owners of `kind` is through; others have gone.
    pub(super) fn end_list(&mut self, kind: &str) {
        let listed = &self.listed;
        self.workloads
            .retain(|name, _| &*name.1.kind != kind || listed.contains(name));
        self.begin_list(kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Pod, WallNs};

    fn workload(kind: &str, name: &str) -> Workload {
        Workload {
            kind: kind.into(),
            name: name.into(),
        }
    }

    fn pod(owner: Workload) -> Arc<PodObject> {
        Arc::new(PodObject {
            pod: Arc::new(Pod {
                namespace: "shop".into(),
                name: "web-7d9-x2x".into(),
                uid: Some("1".into()),
            }),
            ips: Vec::new(),
            node: None,
            host_network: false,
            workload: Some(owner),
            labels: Vec::new(),
            ready: true,
            created: WallNs(0),
            deleted: None,
            started: None,
            ended: None,
            config_hash: None,
        })
    }

    #[test]
    fn a_pod_of_a_replica_set_is_its_deployments_whichever_is_heard_of_first() {
        let (set, deployment) = (
            workload("ReplicaSet", "web-7d9"),
            workload("Deployment", "web"),
        );
        let mut owners = Owners::default();
        assert_eq!(owners.workload(&"shop".into(), &set), None);
        owners.wait(&pod(set.clone()), set.clone());
        let completed = owners.set("shop".into(), set.clone(), Some(deployment.clone()), false);
        let found: Vec<_> = completed.iter().map(|pod| pod.workload.clone()).collect();
        assert_eq!(found, [Some(deployment.clone())]);
        let found = owners.workload(&"shop".into(), &set);
        assert_eq!(found, Some(deployment));
        // Nobody waits twice.
        assert!(owners.set("shop".into(), set, None, false).is_empty());
    }

    #[test]
    fn what_a_new_list_does_not_hold_has_gone_and_other_kinds_stay() {
        let mut owners = Owners::default();
        let (old, new) = (workload("ReplicaSet", "old"), workload("ReplicaSet", "new"));
        let job = workload("Job", "backup-29");
        owners.set("shop".into(), old.clone(), None, false);
        owners.set("shop".into(), job.clone(), None, false);
        owners.begin_list("ReplicaSet");
        owners.set("shop".into(), new.clone(), None, true);
        owners.end_list("ReplicaSet");
        let known = |owner| owners.workload(&"shop".into(), owner).is_some();
        assert_eq!([&old, &new, &job].map(known), [false, true, true]);
    }

    #[test]
    fn a_workload_that_makes_pods_itself_is_theirs() {
        let owners = Owners::default();
        let set = workload("StatefulSet", "db");
        assert_eq!(owners.workload(&"shop".into(), &set), Some(set));
    }

    #[test]
    fn a_pod_that_is_gone_is_not_told_of_again() {
        let job = workload("Job", "backup-29");
        let mut owners = Owners::default();
        owners.wait(&pod(job.clone()), job.clone());
        owners.forget(&pod(job.clone()), &job);
        let cron = workload("CronJob", "backup");
        assert!(owners.set("shop".into(), job, Some(cron), false).is_empty());
    }
}
