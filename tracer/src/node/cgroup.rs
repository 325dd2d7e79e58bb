//! Cgroup id → path → container id.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::model::CgroupId;

/// How often at most the hierarchy is walked again because one id is missing.
const AGAIN: Duration = Duration::from_secs(1);

/// Deepest directory looked at; containers lie four or five levels down.
const DEPTH: usize = 12;

/// Container ids by cgroup; `None` where the cgroup is no container's.
#[derive(Debug, Default)]
pub(super) struct Paths {
    known: HashMap<u64, Option<Arc<str>>>,
    looked: Option<Instant>,
}

impl Paths {
    /// The container that cgroup `id` belongs to; `None` when to none, or none is known.
    pub(super) fn container(&mut self, id: CgroupId) -> Option<Arc<str>> {
        if let Some(known) = self.known.get(&id.0) {
            return known.clone();
        }
        if self.looked.is_none_or(|when| when.elapsed() >= AGAIN) {
            self.looked = Some(Instant::now());
            if let Some(root) = cgroup2_mount() {
                self.walk(&root, DEPTH);
            }
        }
        self.known.get(&id.0).cloned().flatten()
    }

    fn walk(&mut self, dir: &Path, depth: usize) {
        if let Ok(found) = fs::metadata(dir) {
            let container = dir.to_str().and_then(container_id).map(Arc::from);
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

/// Where the v2 hierarchy is mounted: /sys/fs/cgroup, or beneath it in hybrid mode.
fn cgroup2_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    line.split(' ').nth(1).map(PathBuf::from)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_ids_are_found_whatever_the_driver() {
        let id = "0123456789abcdef".repeat(4);
        let check = |path: String, expected: Option<&str>| {
            assert_eq!(container_id(&path), expected, "{path}");
        };
        check(
            format!("/sys/fs/cgroup/kubepods/besteffort/pod12/{id}"),
            Some(&id),
        );
        check(
            format!("/kubepods.slice/cri-containerd-{id}.scope"),
            Some(&id),
        );
        check(
            format!("/kubepods.slice/crio-{id}.scope/container"),
            Some(&id),
        );
        check(
            format!("/kubepods-pod12.slice:cri-containerd:{id}"),
            Some(&id),
        );
        check("/system.slice/ssh.service".to_owned(), None);
    }
}
