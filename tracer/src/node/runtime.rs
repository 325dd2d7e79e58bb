//! Container id → pod, from the files of whoever made the container; no runtime is asked.
//!
//! A runtime writes each container's specification beside its state, with the pod in its
//! annotations. Where no such file is known, the kubelet's log directories tell pods by uid.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::cgroup::Container;
use crate::model::{Pod, PodName, Source};

/// How soon at most a container is looked for again that was not found.
const AGAIN: Duration = Duration::from_secs(1);

/// Longest specification read; a container's is about 10 KiB.
const SPECIFICATION: u64 = 1 << 20;

/// Where a runtime keeps specifications, and under which annotations the pod is.
struct Layout {
    /// Directory with one directory a container, named by its id.
    containers: &'static str,
    /// Path from there.
    specification: &'static str,
    namespace: &'static str,
    name: &'static str,
    uid: &'static str,
}

const fn containerd(containers: &'static str) -> Layout {
    Layout {
        containers,
        specification: "config.json",
        // containerd, internal/cri/annotations/annotations.go
        namespace: "io.kubernetes.cri.sandbox-namespace",
        name: "io.kubernetes.cri.sandbox-name",
        uid: "io.kubernetes.cri.sandbox-uid",
    }
}

const fn crio(containers: &'static str) -> Layout {
    Layout {
        containers,
        specification: "userdata/config.json",
        // Kubernetes, staging/src/k8s.io/kubelet/pkg/types/labels.go
        namespace: "io.kubernetes.pod.namespace",
        name: "io.kubernetes.pod.name",
        uid: "io.kubernetes.pod.uid",
    }
}

const LAYOUTS: &[Layout] = &[
    containerd("run/containerd/io.containerd.runtime.v2.task/k8s.io"),
    containerd("run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io"),
    crio("run/containers/storage/overlay-containers"),
    crio("var/lib/containers/storage/overlay-containers"),
];

/// The kubelet's directory of container logs, one directory a pod: `NAMESPACE_NAME_UID`.
const LOGS: &str = "var/log/pods";

/// Pods by container id, remembered.
#[derive(Debug)]
pub(super) struct Containers {
    root: PathBuf,
    known: HashMap<Arc<str>, Known>,
}

#[derive(Debug)]
struct Known {
    /// `None` when no file tells.
    pod: Option<(Arc<Pod>, Source)>,
    read: Instant,
}

impl Containers {
    /// Of the system whose root directory is `root`.
    pub(super) fn of(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            known: HashMap::new(),
        }
    }

    /// The pod of a container; `None` when it is in none, or no file tells.
    pub(super) fn pod(&mut self, container: &Container) -> Option<PodName> {
        let known = self.known.get(&container.id);
        if known.is_none_or(|known| known.pod.is_none() && known.read.elapsed() >= AGAIN) {
            let known = Known {
                pod: self.look(container),
                read: Instant::now(),
            };
            self.known.insert(Arc::clone(&container.id), known);
        }
        let Known { pod, read } = self.known.get(&container.id)?;
        let (pod, source) = pod.as_ref()?;
        Some(PodName {
            pod: Arc::clone(pod),
            source: *source,
            age: read.elapsed(),
            object: None,
        })
    }

    fn look(&self, container: &Container) -> Option<(Arc<Pod>, Source)> {
        let specified = LAYOUTS
            .iter()
            .find_map(|layout| specified(&self.root, layout, &container.id));
        let specified = specified.map(|pod| (Arc::new(pod), Source::Runtime));
        specified.or_else(|| {
            let uid = container.pod_uid.as_ref()?;
            let pod = logged(&self.root.join(LOGS), uid)?;
            Some((Arc::new(pod), Source::Kubelet))
        })
    }
}

/// What of a container's specification is read.
#[derive(Deserialize)]
struct Specification {
    /// <https://github.com/opencontainers/runtime-spec/blob/v1.2.0/config.md#annotations>
    #[serde(default)]
    annotations: HashMap<String, String>,
}

fn specified(root: &Path, layout: &Layout, id: &str) -> Option<Pod> {
    let path = root
        .join(layout.containers)
        .join(id)
        .join(layout.specification);
    let mut text = Vec::new();
    let file = File::open(path).ok()?;
    file.take(SPECIFICATION).read_to_end(&mut text).ok()?;
    let Specification { annotations } = serde_json::from_slice(&text).ok()?;
    let annotation = |key: &str| annotations.get(key).map(|value| Arc::from(value.as_str()));
    Some(Pod {
        namespace: annotation(layout.namespace)?,
        name: annotation(layout.name)?,
        uid: annotation(layout.uid),
    })
}

/// The pod with this uid that has a log directory. Neither namespaces nor names contain `_`.
fn logged(logs: &Path, uid: &Arc<str>) -> Option<Pod> {
    fs::read_dir(logs).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (namespace, rest) = name.split_once('_')?;
        let (name, found) = rest.split_once('_')?;
        (found == &**uid).then(|| Pod {
            namespace: namespace.into(),
            name: name.into(),
            uid: Some(Arc::clone(uid)),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::scratch::Scratch;

    const UID: &str = "2ee4eb5b-8e45-4c5c-9c1a-0d7f9a3b1c2d";

    fn check(files: &[(&str, &str)], expected: Option<(&str, Source)>) {
        let root = Scratch::new(files);
        let container = Container {
            id: "c0ffee".into(),
            pod_uid: Some(UID.into()),
        };
        let found = Containers::of(root.path()).pod(&container);
        let found = found.map(|named| {
            let Pod {
                namespace,
                name,
                uid,
            } = &*named.pod;
            assert_eq!(uid.as_deref(), Some(UID));
            (format!("{namespace}/{name}"), named.source)
        });
        let found = found
            .as_ref()
            .map(|(name, source)| (name.as_str(), *source));
        assert_eq!(found, expected);
    }

    #[test]
    fn containerds_specification_names_the_pod() {
        let text = format!(
            r#"{{"ociVersion": "1.2.0", "annotations": {{
                "io.kubernetes.cri.sandbox-namespace": "shop",
                "io.kubernetes.cri.sandbox-name": "cart-7d9",
                "io.kubernetes.cri.sandbox-uid": "{UID}"}}}}"#
        );
        let path = "run/containerd/io.containerd.runtime.v2.task/k8s.io/c0ffee/config.json";
        check(&[(path, &text)], Some(("shop/cart-7d9", Source::Runtime)));
    }

    #[test]
    fn crios_specification_names_the_pod() {
        let text = format!(
            r#"{{"annotations": {{
                "io.kubernetes.pod.namespace": "shop",
                "io.kubernetes.pod.name": "cart-7d9",
                "io.kubernetes.pod.uid": "{UID}"}}}}"#
        );
        let path = "run/containers/storage/overlay-containers/c0ffee/userdata/config.json";
        check(&[(path, &text)], Some(("shop/cart-7d9", Source::Runtime)));
    }

    #[test]
    fn the_kubelets_log_directory_names_the_pod_where_no_specification_does() {
        let path = format!("var/log/pods/shop_cart-7d9_{UID}/cart/0.log");
        let other = "var/log/pods/shop_web-1_11111111-8e45-4c5c-9c1a-0d7f9a3b1c2d/web/0.log";
        let broken = "run/containerd/io.containerd.runtime.v2.task/k8s.io/c0ffee/config.json";
        let files = [
            (other, ""),
            (path.as_str(), ""),
            (broken, "{\"annotations\": 3"),
        ];
        check(&files, Some(("shop/cart-7d9", Source::Kubelet)));
    }

    #[test]
    fn without_a_file_there_is_no_name() {
        check(&[], None);
    }
}
