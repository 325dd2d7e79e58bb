//! Cgroup id → path → container id and pod uid, as kubelet and runtime name the directories.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustc_hash::FxHashMap;

use crate::model::CgroupId;

/// How often at most the hierarchy is walked again because one id is missing.
const AGAIN: Duration = Duration::from_secs(1);

/// Deepest directory looked at; containers lie four or five levels down.
pub(super) const DEPTH: usize = 12;

/// A container, by its cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    /// 64 hexadecimal digits.
    pub(super) id: Arc<str>,
    /// Uid of its pod; `None` where the kubelet did not make the cgroup.
    pub(super) pod_uid: Option<Arc<str>>,
}

/// Containers by cgroup; `None` where the cgroup is no container's.
#[derive(Debug, Default)]
pub(super) struct Paths {
    known: FxHashMap<u64, Option<Container>>,
    looked: Option<Instant>,
}

impl Paths {
    /// The container that cgroup `id` belongs to; `None` when to none, or none is known.
    pub(super) fn container(&mut self, id: CgroupId) -> Option<&Container> {
        if !self.known.contains_key(&id.0) && self.looked.is_none_or(|when| when.elapsed() >= AGAIN)
        {
            self.looked = Some(Instant::now());
            if let Some(root) = cgroup2_mount() {
                self.walk(&root, DEPTH);
            }
        }
        self.known.get(&id.0)?.as_ref()
    }

    fn walk(&mut self, dir: &Path, depth: usize) {
        if let Ok(found) = fs::metadata(dir) {
            let container = dir.to_str().and_then(container);
            self.known.insert(found.ino(), container);
        }
        if depth == 0 {
            return;
        }
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.walk(&entry.path(), depth - 1);
            }
        }
    }
}

/// Where a process's cgroup is, by a line of its /proc/PID/cgroup.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct At {
    /// Where its hierarchy is mounted.
    pub(super) mount: PathBuf,
    pub(super) dir: PathBuf,
    /// Of version 2 there is one hierarchy for all controllers.
    pub(super) is_v2: bool,
}

/// The directory of the cgroup that the line `group` tells, where it is of version 2, or of `controller`'s own
/// hierarchy (cgroups(7)); `mounts` are /proc/self/mounts.
pub(super) fn directory(group: &str, mounts: &str, controller: &str) -> Option<At> {
    let mut parts = group.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let is_v2 = controllers.is_empty();
    if !is_v2 && !controllers.split(',').any(|name| name == controller) {
        return None;
    }
    let mut all = mounted(mounts, controller);
    let mount = all.find_map(|(at, v2)| (v2 == is_v2).then(|| PathBuf::from(at)))?;
    Some(At {
        dir: placed(&mount, path),
        mount,
        is_v2,
    })
}

/// Where hierarchies with `controller` are mounted, and whether they are of version 2.
fn mounted<'a>(mounts: &'a str, controller: &'a str) -> impl Iterator<Item = (&'a str, bool)> {
    mounts.lines().filter_map(move |line| {
        let words: Vec<_> = line.split(' ').collect();
        let [_, at, kind, options, ..] = words[..] else {
            return None;
        };
        match kind {
            "cgroup2" => Some((at, true)),
            "cgroup" => options
                .split(',')
                .any(|option| option == controller)
                .then_some((at, false)),
            _ => None,
        }
    })
}

/// The same without telling the version.
pub(super) fn mounts<'a>(mounts: &'a str, controller: &'a str) -> impl Iterator<Item = &'a str> {
    mounted(mounts, controller).map(|(at, _)| at)
}

/// Most directories between the mount and a path that is told from within a container's own view.
const ABOVE: usize = 4;

/// Where a cgroup's path lies below `mount`. In a cgroup namespace, as a container has, the path of a process outside
/// begins with `/..` for each directory of its own; which they are is found by what comes after.
fn placed(mount: &Path, path: &str) -> PathBuf {
    let direct = mount.join(path.trim_start_matches('/'));
    let tail: PathBuf = path
        .split('/')
        .filter(|name| !matches!(*name, "" | ".."))
        .collect();
    if !path.starts_with("/..") || tail.as_os_str().is_empty() {
        return direct;
    }
    found(mount, &tail, ABOVE).unwrap_or(direct)
}

fn found(dir: &Path, tail: &Path, depth: usize) -> Option<PathBuf> {
    let here = dir.join(tail);
    if here.is_dir() || depth == 0 {
        return here.is_dir().then_some(here);
    }
    let dirs = fs::read_dir(dir).ok()?.flatten();
    let mut dirs = dirs.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    dirs.find_map(|entry| found(&entry.path(), tail, depth - 1))
}

/// Where the v2 hierarchy is mounted: /sys/fs/cgroup, or beneath it in hybrid mode.
fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mut all = mounted(&mounts, "");
    all.find_map(|(at, is_v2)| is_v2.then(|| PathBuf::from(at)))
}

/// The container that a cgroup of this path is of; `None` when of none.
pub(super) fn container(path: &str) -> Option<Container> {
    Some(Container {
        id: container_id(path)?.into(),
        pod_uid: pod_uid(path).map(Arc::from),
    })
}

/// The container id in a cgroup's path: 64 hexadecimal digits, bare (cgroupfs driver) or between
/// the runtime's prefix and `.scope` (systemd driver); the innermost where there are several.
fn container_id(path: &str) -> Option<&str> {
    path.rsplit('/').find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let id = part.rsplit(['-', ':']).next()?;
        (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
    })
}

/// The pod uid in a cgroup's path, the outermost: a pod may hold a cluster of its own. `podUID`
/// (cgroupfs driver) or `kubepods-besteffort-podUID.slice` with `_` for `-` (systemd driver), see
/// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/cm/pod_container_manager_linux.go>.
fn pod_uid(path: &str) -> Option<String> {
    path.split('/').find_map(|part| {
        // Some runtimes write `slice:prefix:id` without systemd.
        let part = part.split(':').next()?;
        let uid = match part.strip_suffix(".slice") {
            Some(slice) => slice.strip_prefix("kubepods")?.rsplit_once("-pod")?.1,
            None => part.strip_prefix("pod")?,
        };
        let uid = uid.replace('_', "-");
        let digits = uid.bytes().filter(u8::is_ascii_hexdigit).count();
        // RFC 9562, or the bare hash of a static pod.
        let dashes = uid.bytes().filter(|byte| *byte == b'-').count();
        (digits == 32 && digits + dashes == uid.len()).then_some(uid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "2ee4eb5b-8e45-4c5c-9c1a-0d7f9a3b1c2d";

    fn id() -> String {
        "0123456789abcdef".repeat(4)
    }

    fn check(path: &str, id: Option<&str>, uid: Option<&str>) {
        assert_eq!(container_id(path), id, "{path}");
        assert_eq!(pod_uid(path).as_deref(), uid, "{path}");
    }

    #[test]
    fn containers_and_pods_are_found_whatever_the_driver() {
        let id = id();
        let slice = "kubepods-besteffort-pod2ee4eb5b_8e45_4c5c_9c1a_0d7f9a3b1c2d.slice";
        for path in [
            format!("/sys/fs/cgroup/kubepods/besteffort/pod{UID}/{id}"),
            format!("/sys/fs/cgroup/kubepods/pod{UID}/{id}"),
            format!(
                "/sys/fs/cgroup/kubepods.slice/kubepods-besteffort.slice/{slice}/cri-containerd-{id}.scope"
            ),
            format!("/kubepods.slice/{slice}/crio-{id}.scope/container"),
            format!("/system.slice/containerd.service/{slice}:cri-containerd:{id}"),
        ] {
            check(&path, Some(&id), Some(UID));
        }
    }

    #[test]
    fn a_static_pods_uid_is_a_hash() {
        let uid = "0123456789abcdef0123456789abcdef";
        let id = id();
        let slice = format!("/kubepods.slice/kubepods-pod{uid}.slice/crio-{id}.scope");
        check(&slice, Some(&id), Some(uid));
    }

    #[test]
    fn a_container_without_the_kubelet_has_no_pod() {
        let id = id();
        check(&format!("/system.slice/docker-{id}.scope"), Some(&id), None);
        check(&format!("/docker/{id}"), Some(&id), None);
        check("/system.slice/ssh.service", None, None);
        check("/machine.slice/podman-12.scope", None, None);
        check("/user.slice/pod2ee4/app", None, None);
    }
}
