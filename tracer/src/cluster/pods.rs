//! A Pod, trimmed. Of what the API server sends, only what is named here is ever kept or even
//! read into memory: a whole Pod takes ten times as much.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    api::ApiResource,
    core::{Object, Resource as _},
};
use serde::Deserialize;

use super::{intern::Interner, owners::Owners, wall};
use crate::model::{
    Pod, WallNs,
    cluster::{PodObject, Workload},
};

/// The annotation of a mirror pod that holds the hash that the kubelet calls it by.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// A Pod, as far as it is read.
pub(super) type Raw = Object<Spec, Status>;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    node_name: Option<String>,
    #[serde(default)]
    host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    phase: Option<String>,
    #[serde(rename = "podIPs", default)]
    pod_ips: Vec<PodIp>,
    start_time: Option<Time>,
    #[serde(default)]
    conditions: Vec<Condition>,
    #[serde(default)]
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodIp {
    ip: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Condition {
    pub(super) r#type: String,
    pub(super) status: String,
}

#[derive(Clone, Debug, Deserialize)]
struct ContainerStatus {
    #[serde(default)]
    state: State,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct State {
    terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terminated {
    finished_at: Option<Time>,
}

pub(super) fn resource() -> ApiResource {
    ApiResource::erase::<v1::Pod>(&())
}

/// The pod, and the owner that it names itself. `None` for an object without name or uid, which no
/// API server sends.
pub(super) fn trim(
    raw: &Raw,
    interner: &mut Interner,
    owners: &Owners,
) -> Option<(PodObject, Option<Workload>)> {
    let meta = raw.meta();
    let namespace = interner.get(meta.namespace.as_deref().unwrap_or_default());
    let nothing = Status::default();
    let status = raw.status.as_ref().unwrap_or(&nothing);
    let owner = controller(meta, interner);
    let workload = owner.as_ref().map(|owner| {
        let known = owners.workload(&namespace, owner);
        known.unwrap_or_else(|| presumed(owner, meta, interner))
    });
    let created = wall(meta.creation_timestamp.as_ref()).unwrap_or_default();
    let deleted = wall(meta.deletion_timestamp.as_ref());
    let hash = meta.annotations.as_ref().and_then(|of| of.get(CONFIG_HASH));
    let pod = PodObject {
        pod: Arc::new(Pod {
            namespace,
            name: meta.name.as_deref()?.into(),
            uid: Some(meta.uid.as_deref()?.into()),
        }),
        ips: status
            .pod_ips
            .iter()
            .filter_map(|address| address.ip.parse().ok())
            .collect(),
        node: raw.spec.node_name.as_ref().map(|node| interner.get(node)),
        host_network: raw.spec.host_network,
        workload,
        labels: interner.pairs(meta.labels.iter().flatten()),
        ready: is_ready(&status.conditions),
        created,
        deleted,
        started: wall(status.start_time.as_ref()),
        ended: ended(status, created, deleted),
        config_hash: hash.map(|hash| hash.as_str().into()),
    };
    Some((pod, owner))
}

/// What a pod's owner belongs to as long as that is not known, as where ReplicaSets may not be
/// listed: a Deployment calls its ReplicaSets by its own name and the hash in this label.
fn presumed(owner: &Workload, meta: &ObjectMeta, interner: &mut Interner) -> Workload {
    let hash = meta
        .labels
        .as_ref()
        .and_then(|of| of.get("pod-template-hash"));
    let deployment = || {
        let name = owner.name.strip_suffix(hash?.as_str())?;
        name.strip_suffix('-')
            .filter(|_| &*owner.kind == "ReplicaSet")
    };
    match deployment() {
        Some(name) => Workload {
            kind: interner.get("Deployment"),
            name: interner.get(name),
        },
        None => owner.clone(),
    }
}

/// The owner that manages the object.
pub(super) fn controller(meta: &ObjectMeta, interner: &mut Interner) -> Option<Workload> {
    let mut owners = meta.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    Some(Workload {
        kind: interner.get(&owner.kind),
        name: interner.get(&owner.name),
    })
}

pub(super) fn is_ready(conditions: &[Condition]) -> bool {
    let mut conditions = conditions.iter();
    conditions.any(|condition| condition.r#type == "Ready" && condition.status == "True")
}

/// A pod has ended when
/// 1. its phase says so, or
/// 2. it is being deleted and all its containers have ended: the kubelet tells so once it has taken
///    down the pod's network.
fn ended(status: &Status, created: WallNs, deleted: Option<WallNs>) -> Option<WallNs> {
    let ends = status.container_statuses.iter().map(|container| {
        let terminated = container.state.terminated.as_ref()?;
        wall(terminated.finished_at.as_ref())
    });
    let last = || ends.clone().flatten().max();
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Some(last().or(deleted).unwrap_or(created));
    }
    deleted?;
    if ends.clone().all(|end| end.is_some()) {
        return last();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trimmed(json: &str) -> PodObject {
        let raw = serde_json::from_str(json).unwrap();
        trim(&raw, &mut Interner::default(), &Owners::default())
            .unwrap()
            .0
    }

    fn seconds(time: Option<WallNs>) -> Option<i64> {
        Some(time?.0 / 1_000_000_000)
    }

    #[test]
    fn of_a_pod_is_kept_what_names_need() {
        let pod = trimmed(
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-7d9-x2x","namespace":"shop",
            "uid":"2ee4eb5b","creationTimestamp":"2026-01-02T03:04:05Z","labels":{"app":"web","tier":"1"},
            "managedFields":[{"manager":"kubelet","fieldsV1":{"f:status":{}}}],
            "ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-7d9","uid":"1","controller":true}]},
            "spec":{"nodeName":"n1","containers":[{"name":"web","image":"busybox"}]},
            "status":{"phase":"Running","podIP":"10.244.1.5","podIPs":[{"ip":"10.244.1.5"},{"ip":"fd00:10:244:1::5"}],
            "startTime":"2026-01-02T03:04:06Z","conditions":[{"type":"Ready","status":"True"}],
            "containerStatuses":[{"name":"web","state":{"running":{"startedAt":"2026-01-02T03:04:07Z"}}}]}}"#,
        );
        assert_eq!(pod.pod.to_string(), "shop/web-7d9-x2x");
        assert_eq!(pod.pod.uid.as_deref(), Some("2ee4eb5b"));
        assert_eq!(pod.ips.len(), 2);
        assert_eq!(pod.node.as_deref(), Some("n1"));
        assert!(pod.ready && !pod.host_network);
        let workload = pod.workload.unwrap();
        assert_eq!(
            (&*workload.kind, &*workload.name),
            ("ReplicaSet", "web-7d9")
        );
        assert_eq!(pod.labels.len(), 2);
        assert_eq!(seconds(Some(pod.created)), Some(1_767_323_045));
        assert_eq!(seconds(pod.started), Some(1_767_323_046));
        assert_eq!((pod.deleted, pod.ended), (None, None));
    }

    #[test]
    fn a_deployments_pod_is_told_by_its_hash_where_replica_sets_are_not_known() {
        let check = |label: &str, expected: &str| {
            let pod = trimmed(&format!(
                r#"{{"metadata":{{"name":"a","namespace":"b","uid":"1","labels":{{{label}}},
                "ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-7d9","uid":"1","controller":true}}]}},
                "spec":{{}}}}"#
            ));
            let workload = pod.workload.unwrap();
            assert_eq!(format!("{}/{}", workload.kind, workload.name), expected);
        };
        check(r#""pod-template-hash":"7d9""#, "Deployment/web");
        check(r#""pod-template-hash":"8e0""#, "ReplicaSet/web-7d9");
        check(r#""app":"web""#, "ReplicaSet/web-7d9");
    }

    #[test]
    fn a_pod_that_has_only_been_created_is_a_pod() {
        let pod = trimmed(
            r#"{"metadata":{"name":"web","namespace":"shop","uid":"2"},"spec":{"hostNetwork":true}}"#,
        );
        assert!(pod.host_network);
        assert_eq!((pod.ips.len(), pod.node, pod.started), (0, None, None));
    }

    #[test]
    fn a_static_pods_mirror_tells_the_hash_that_its_cgroup_bears() {
        let pod = trimmed(
            r#"{"metadata":{"name":"etcd-n1","namespace":"kube-system","uid":"3",
            "annotations":{"kubernetes.io/config.hash":"0123456789abcdef0123456789abcdef"}},"spec":{}}"#,
        );
        let hash = pod.config_hash.as_deref();
        assert_eq!(hash, Some("0123456789abcdef0123456789abcdef"));
    }

    #[test]
    fn a_pod_has_ended_when_none_of_its_containers_is_to_run_again() {
        let check = |phase: &str, deleted: &str, states: &[&str], expected: Option<i64>| {
            let states = states.iter().map(|state| format!(r#"{{"state":{state}}}"#));
            let states = states.collect::<Vec<_>>().join(",");
            let pod = trimmed(&format!(
                r#"{{"metadata":{{"name":"a","namespace":"b","uid":"4"{deleted}}},"spec":{{}},
                "status":{{"phase":"{phase}","containerStatuses":[{states}]}}}}"#
            ));
            assert_eq!(seconds(pod.ended), expected, "{phase} {deleted} {states}");
        };
        let running = r#"{"running":{}}"#;
        let ended = r#"{"terminated":{"finishedAt":"1970-01-01T00:00:07Z"}}"#;
        let later = r#"{"terminated":{"finishedAt":"1970-01-01T00:00:09Z"}}"#;
        let deleted = r#","deletionTimestamp":"1970-01-01T00:00:05Z""#;
        check("Succeeded", "", &[ended, later], Some(9));
        check("Running", deleted, &[ended, later], Some(9));
        check("Running", deleted, &[ended, running], None);
        // It is to be started again.
        check("Running", "", &[ended], None);
        // It has not been started yet.
        check("Pending", deleted, &[], None);
    }
}
