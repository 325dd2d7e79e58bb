//! A debugging pod: the DaemonSet's own pod, from the same manifest, for one node and one command.
//!
//! It needs no ServiceAccount, writes nothing to the node, and ends when nobody attends it any more.

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::Pod};
use kube::api::ObjectMeta;

use crate::cli::PluginArgs;

const MANIFEST: &str = include_str!("../../../manifests/base/daemonset.yaml");

/// The label that tells debugging pods from all others, those of the DaemonSet too.
pub(super) const LABEL: (&str, &str) = ("app.kubernetes.io/name", "tracer-debug");

fn daemon_set() -> DaemonSet {
    serde_saphyr::from_str(MANIFEST).expect("kubectl takes manifests/base/daemonset.yaml")
}

/// The pod for `args`, which uses the ServiceAccount `tracer` where there `is_account`.
pub(super) fn pod(args: &PluginArgs, is_account: bool) -> Pod {
    let mut spec = daemon_set().spec.template.spec.unwrap_or_default();
    // Not by the scheduler: it may be down, and would look for room.
    spec.node_name = Some(args.node.clone());
    spec.restart_policy = Some("Never".to_owned());
    spec.active_deadline_seconds = i64::try_from(args.at_most.as_secs()).ok();
    spec.termination_grace_period_seconds = Some(5);
    if !is_account {
        spec.service_account_name = None;
        spec.automount_service_account_token = Some(false);
    }
    // The DaemonSet's, which is the one thing that it writes to.
    let is_own = |name: &str| name == "state" || name == "alive";
    if let Some(volumes) = &mut spec.volumes {
        volumes.retain(|volume| !is_own(&volume.name));
    }
    for container in &mut spec.containers {
        if let Some(mounts) = &mut container.volume_mounts {
            mounts.retain(|mount| !is_own(&mount.name));
        }
        container.startup_probe = None;
        container.readiness_probe = None;
        container.liveness_probe = None;
        container.stdin = Some(true);
        container.stdin_once = Some(true);
        let command = args.command.iter().cloned();
        let attended = ["--attended".to_owned()].into_iter();
        container.args = Some(attended.chain(command).collect());
        if let Some(image) = &args.image {
            container.image = Some(image.clone());
        }
    }
    let (key, value) = LABEL;
    Pod {
        metadata: ObjectMeta {
            generate_name: Some("tracer-debug-".to_owned()),
            labels: Some([(key.to_owned(), value.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_debugging_pod_has_the_daemon_sets_rights_and_none_of_its_state() {
        let args = PluginArgs {
            node: "n1".to_owned(),
            image: Some("registry.example.com/tracer:1".to_owned()),
            namespace: None,
            kubeconfig: None,
            context: None,
            at_most: Duration::from_secs(90),
            command: vec!["trace".to_owned(), "--dns".to_owned()],
        };
        let spec = pod(&args, false).spec.unwrap();
        let of_set = daemon_set().spec.template.spec.unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("n1"));
        assert_eq!(spec.active_deadline_seconds, Some(90));
        assert_eq!(spec.automount_service_account_token, Some(false));
        let [container] = &spec.containers[..] else {
            panic!("{spec:?}");
        };
        assert_eq!(
            container.security_context,
            of_set.containers[0].security_context
        );
        assert_eq!(
            container.args.as_deref().unwrap(),
            ["--attended", "trace", "--dns"]
        );
        let image = container.image.as_deref();
        assert_eq!(image, Some("registry.example.com/tracer:1"));
        let mut mounts = container.volume_mounts.iter().flatten();
        assert!(mounts.all(|mount| mount.read_only == Some(true)));
        let volumes: Vec<_> = spec.volumes.iter().flatten().collect();
        assert_eq!(volumes.len() + 2, of_set.volumes.unwrap().len());
    }
}
